//! `graphc check`: parses and verifies.

use super::{Failure, load};
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Args {
    /// A module in the text form
    file: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let module = load::module(&args.file)?;
    let parameters: usize =
        module.trainable().filter_map(|id| module.state[id.index()].ty.shape.num_elements()).sum();
    writeln!(
        out,
        "module @{}: {} state variables, {parameters} parameters",
        module.name,
        module.state.len()
    )?;
    for f in &module.functions {
        let dims = module.open_dims(f);
        let dims = if dims.is_empty() { String::new() } else { format!(", dimensions {}", dims.join(", ")) };
        let (inputs, outputs, updates) = (f.inputs.len(), f.outputs.len(), f.updates.len());
        writeln!(
            out,
            "fn @{}: {} nodes, {inputs} inputs, {outputs} outputs, {updates} updates{dims}",
            f.name,
            f.graph.len()
        )?;
    }
    Ok(())
}
