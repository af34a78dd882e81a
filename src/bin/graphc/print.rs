//! `graphc print`: a module or a function, as declared or for given dimensions.

use super::{Failure, Out, load};
use graphc::ir::print_function;
use graphc::{Bindings, Function};
use serde_json::json;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Dimensions that are not given stay names.

Examples:
  graphc print model.gir
  graphc print model.gir --fn loss.grad
  graphc print model.gir --fn predict --bind B=64")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut module = load::module(&args.selection.file)?;
    let functions = args.selection.functions(&module)?;
    for f in &functions {
        // Names and lengths are looked at before anything is printed.
        args.selection.bindings(&module, f)?;
    }
    let given: Bindings = args.selection.bind.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    let functions: Vec<Function> =
        functions.iter().map(|f| f.bind(&given).map_err(Failure::other)).collect::<Result<_, _>>()?;
    if out.json() {
        for f in &functions {
            out.value(&json!({ "function": *f.name, "text": print_function(&module, f) }))?;
        }
        return Ok(());
    }
    if args.selection.function.is_none() {
        module.functions = functions;
        return Ok(write!(out, "{module}")?);
    }
    for f in &functions {
        write!(out, "{}", print_function(&module, f))?;
    }
    Ok(())
}
