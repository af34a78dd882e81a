//! `graphc grad`: the gradient of a function as a function.

use super::{Failure, Out, load, output};
use graphc::ir::print_function;
use graphc::{Function, Module};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "\
The gradient is that of the first output, which must be a float scalar; for each variable there is an output
`grad/NAME`.

Examples:
  graphc grad model.gir
  graphc grad model.gir --fn loss --wrt x --wrt out/weight
  graphc grad model.gir -o with_gradient.gir")]
pub(super) struct Args {
    /// A module in the text form
    file: PathBuf,
    /// A function; the first whose first output is a float scalar unless given
    #[arg(long = "fn", value_name = "NAME")]
    function: Option<String>,
    /// An input or a state variable to differentiate by; all trainable parameters unless given
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    wrt: Vec<String>,
    /// Writes the module with the gradient as one more function to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut module = load::module(&args.file)?;
    let name = differentiable(&module, args.function.as_deref())?;
    let wrt: Vec<&str> = args.wrt.iter().map(String::as_str).collect();
    let gradient = load::gradient(&module, &name, &wrt)?;
    if let Some(path) = &args.output {
        let (function, nodes) = (gradient.name.clone(), gradient.graph.len());
        module.functions.retain(|f| f.name != function);
        module.functions.push(gradient);
        output::file(path, module.to_string())?;
        if out.json() {
            let file = path.display().to_string();
            return out.value(&json!({ "function": *function, "nodes": nodes, "file": file }));
        }
        return Ok(writeln!(out, "fn @{function}: {nodes} nodes, in {}", path.display())?);
    }
    let text = print_function(&module, &gradient);
    if out.json() {
        return out.value(&json!({ "function": *gradient.name, "text": text }));
    }
    Ok(write!(out, "{text}")?)
}

/// The name of a function that has a gradient: the one asked for, or the first.
pub(super) fn differentiable(module: &Module, asked: Option<&str>) -> Result<String, Failure> {
    let scalar = |f: &&Function| f.outputs.first().is_some_and(|o| load::is_measure(f, o));
    match asked {
        Some(name) if module.function(name).is_some() => Ok(name.to_owned()),
        Some(name) => Err(load::unknown_function(module, name)),
        None => match module.functions.iter().find(scalar) {
            Some(f) => Ok(f.name.to_string()),
            None => Err(Failure::Other("no function has a float scalar as its first output".to_owned())),
        },
    }
}
