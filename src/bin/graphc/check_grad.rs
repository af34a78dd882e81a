//! `graphc check-grad`: are gradients right?

use super::{Failure, Out, grad, load, run};
use crate::output::{BAD, GOOD};
use graphc::check_grad::CheckGrad;
use graphc::{CompileOptions, Function, Session, Value, checkpoint};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "\
The compiled gradient is multiplied by random directions and compared with the derivatives along them by forward
mode and by central differences, both compiled in f64 where the function allows it, both from what the function
computes: a wrong gradient of the user's own is found. `stop_gradient` counts as constant.

Examples:
  graphc check-grad model.gir
  graphc check-grad model.gir --fn loss --wrt x --bind B=4 --input y=3,1
  graphc check-grad model.gir --checkpoint run/step-0000000100.safetensors --json")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
    /// An input or a state variable to differentiate by; all trainable parameters unless given, or all float
    /// inputs if there are none
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    wrt: Vec<String>,
    #[command(flatten)]
    inputs: run::Inputs,
    /// Takes the state from a checkpoint
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Directions for each variable
    #[arg(long, default_value_t = 3)]
    directions: usize,
    /// Step of the differences (1e-6 in f64, 1e-2 in f32)
    #[arg(long)]
    step: Option<f64>,
    /// Largest relative error (1e-6 for functions in f64, 1e-3 in f32, 5e-2 in half precision)
    #[arg(long)]
    tolerance: Option<f64>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let module = load::module(&args.selection.file)?;
    let name = grad::differentiable(&module, args.selection.function.as_deref())?;
    let f: Function = module.function(&name).cloned().unwrap_or_default();
    let bindings = args.selection.bindings(&module, &f)?;
    let inputs = args.inputs.of(&f.bind(&bindings).map_err(Failure::other)?)?;
    let inputs: Vec<(&str, Value<'_>)> = inputs.iter().map(|(n, e)| (n.as_str(), e.value())).collect();
    let pool = load::pool(None)?;
    let mut session =
        Session::with(module, args.inputs.seed, pool, CompileOptions::default()).map_err(Failure::other)?;
    if let Some(path) = &args.checkpoint {
        checkpoint::load_from_larger(session.state_mut(), path).map_err(|e| Failure::File(e.to_string()))?;
    }
    let mut check = CheckGrad::new().wrt(args.wrt.clone()).seed(args.inputs.seed).directions(args.directions);
    for (dim, extent) in bindings.iter() {
        check = check.dim(dim, extent);
    }
    if let Some(step) = args.step {
        check = check.step(step);
    }
    if let Some(tolerance) = args.tolerance {
        check = check.tolerance(tolerance);
    }
    let certificate = check.run(&session, &name, &inputs).map_err(Failure::other)?;
    if out.json() {
        let mut value = json!(certificate);
        value["passed"] = certificate.passed().into();
        out.value(&value)?;
    } else {
        let style = out.style(if certificate.passed() { GOOD } else { BAD });
        let text = certificate.to_string();
        let (table, verdict) = text.rsplit_once('\n').unwrap_or(("", &text));
        writeln!(out, "{table}\n{style}{verdict}{style:#}")?;
    }
    if certificate.passed() {
        return Ok(());
    }
    let wrong = certificate.variables.iter().filter(|v| !v.passed).map(|v| v.name.as_str());
    Err(Failure::Other(format!("the gradient of `{name}` is wrong for {}", load::list(wrong))))
}
