//! `graphc check`: parses and verifies.

use super::{Failure, Out, load};
use crate::output::HEADING;
use graphc::ir::NodeId;
use graphc::{Function, Module};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc check model.gir
  graphc check model.gir --json | jq .parameters")]
pub(super) struct Args {
    /// A module in the text form
    file: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let module = load::module(&args.file)?;
    let parameters = load::parameters(&module);
    if out.json() {
        let functions: Vec<Value> = module.functions.iter().map(|f| function(&module, f)).collect();
        return out.value(&json!({
            "module": *module.name,
            "state": module.state.len(),
            "parameters": parameters,
            "functions": functions,
        }));
    }
    let h = out.style(HEADING);
    writeln!(
        out,
        "{h}module @{}{h:#}: {} state variables, {parameters} parameters",
        module.name,
        module.state.len()
    )?;
    for f in &module.functions {
        let dims = module.open_dims(f);
        let dims = if dims.is_empty() { String::new() } else { format!(", dimensions {}", dims.join(", ")) };
        let (inputs, outputs, updates) = (f.inputs.len(), f.outputs.len(), f.updates.len());
        writeln!(
            out,
            "{h}fn @{}{h:#}: {} nodes, {inputs} inputs, {outputs} outputs, {updates} updates{dims}",
            f.name,
            f.graph.len()
        )?;
    }
    Ok(())
}

/// The interface of a function.
fn function(module: &Module, f: &Function) -> Value {
    let typed = |name: &str, node: NodeId| json!({ "name": name, "type": f.graph.ty(node).to_string() });
    let dims = module.open_dims(f);
    json!({
        "name": *f.name,
        "nodes": f.graph.len(),
        "inputs": f.inputs.iter().map(|&i| typed(f.input_name(i), i)).collect::<Value>(),
        "outputs": f.outputs.iter().map(|o| typed(&o.name, o.node)).collect::<Value>(),
        "updates": f.updates.iter().map(|u| &*module.state[u.state.index()].name).collect::<Value>(),
        "dimensions": dims.iter().map(|d| &**d).collect::<Value>(),
    })
}
