//! `graphc diff-exec`: one function by the interpreter and in all ways that it can be compiled.

use super::{Failure, Out, load};
use crate::output::BAD;
use graphc::differential::{Config, Mismatch, Values, execute, interpret, locate, same_results};
use serde_json::json;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc diff-exec model.gir
  graphc diff-exec model.gir --fn train_step --bind B=7 --draws 10")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
    /// Seed of the values of inputs and state; odd seeds draw NaN, infinities, signed zeros and
    /// subnormals among them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds are tried, counting up
    #[arg(long, default_value_t = 2)]
    draws: u64,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let module = load::module(&args.selection.file)?;
    let mut runs = 0;
    let mut differing = 0;
    for f in args.selection.functions(&module)? {
        let bindings = args.selection.bindings(&module, &f)?;
        let f = f.bind(&bindings).map_err(Failure::other)?;
        for seed in (0..args.draws).map(|n| args.seed.wrapping_add(n)) {
            let values = Values::drawn(&module, &f, seed);
            let expected = interpret(&f, &values);
            for config in Config::all() {
                runs += 1;
                let got = execute(&module, &f, &values, &config);
                let Err(mismatch) =
                    got.and_then(|got| same_results(&module, &f, &expected, &got, config.level))
                else {
                    continue;
                };
                differing += 1;
                let node = match mismatch {
                    Mismatch::Element(_) => {
                        locate(&module, &f, &values, &|g| execute(&module, g, &values, &config))
                    }
                    _ => None,
                };
                if out.json() {
                    out.value(&json!({
                        "function": *f.name,
                        "seed": seed,
                        "config": config.to_string(),
                        "mismatch": mismatch.to_string(),
                        "node": node.map(|n| n.to_string()),
                    }))?;
                    continue;
                }
                let s = out.style(BAD);
                writeln!(out, "{s}@{}{s:#}, {config}, seed {seed}: {mismatch}", f.name)?;
                if let Some(node) = node {
                    writeln!(out, "  first node that differs: {node}")?;
                }
            }
        }
    }
    if out.json() {
        out.value(&json!({ "runs": runs, "differing": differing }))?;
    } else if differing == 0 {
        writeln!(out, "{runs} runs, all with the interpreter's bits")?;
    }
    if differing > 0 {
        return Err(Failure::Other(format!("{differing} of {runs} runs differ from the interpreter")));
    }
    Ok(())
}
