//! `graphc opt`: passes over the graph, one by one.

use super::{Failure, Out, dump, fmt, load};
use crate::output::HEADING;
use graphc::compiler::{PassOptions, PassRecord, optimize};
use graphc::ir::{Op, print_function};
use graphc::{Function, Module};
use regex_lite::Regex;
use serde_json::json;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Nodes without a name get one before the first pass, so that those which stay are called the same after it.

Examples:
  graphc opt model.gir --fn loss
  graphc opt model.gir --fn loss.grad --dump-after 'cse|dce'
  graphc opt model.gir --passes simplify,dce --dump-after .")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
    /// Passes to run, in this order; those of the level unless given
    #[arg(long, value_name = "PASS,..", value_delimiter = ',')]
    passes: Option<Vec<String>>,
    /// Shows what each pass changed whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    dump_after: Option<Regex>,
    /// Level of optimization, 0 to 3
    #[arg(short = 'O', default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=3))]
    opt: u8,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let module = load::module(&args.selection.file)?;
    let options = PassOptions {
        only: args.passes.clone(),
        dump_after: Some("all".to_owned()),
        ..PassOptions::at(dump::level(args.opt))
    };
    for f in args.selection.functions(&module)? {
        let bindings = args.selection.bindings(&module, &f)?;
        let bound = named(f.bind(&bindings).map_err(Failure::other)?);
        let (optimized, records) = optimize(&bound, &options).map_err(|e| match e {
            graphc::CompileError::UnknownPass { .. } => Failure::Usage(e.to_string()),
            e => Failure::other(e),
        })?;
        if out.json() {
            let pass = |r: &PassRecord| {
                json!({
                    "pass": r.name,
                    "changed": r.changed,
                    "nodes_before": r.nodes_before,
                    "nodes_after": r.nodes_after,
                    "text": dumped(args, r).map(|after| print_function(&module, after)),
                })
            };
            out.value(&json!({
                "function": *f.name,
                "passes": records.iter().map(pass).collect::<Vec<_>>(),
                "text": print_function(&module, &optimized),
            }))?;
            continue;
        }
        passes(args, &module, &bound, &records, out)?;
        write!(out, "{}", print_function(&module, &optimized))?;
    }
    Ok(())
}

/// A line for each pass, with what it changed where that is asked for.
fn passes(
    args: &Args,
    module: &Module,
    bound: &Function,
    records: &[PassRecord],
    out: &mut Out,
) -> Result<(), Failure> {
    let h = out.style(HEADING);
    let mut before = bound;
    for r in records {
        writeln!(out, "; {h}{:<14}{h:#} {}", r.name, dump::effect(r))?;
        if r.changed
            && let Some(after) = dumped(args, r)
        {
            fmt::diff(&print_function(module, before), &print_function(module, after), out)?;
        }
        before = r.after.as_ref().unwrap_or(before);
    }
    Ok(())
}

/// The function after a pass, if it is to be shown.
fn dumped<'a>(args: &Args, r: &'a PassRecord) -> Option<&'a Function> {
    r.after.as_ref().filter(|_| args.dump_after.as_ref().is_some_and(|regex| regex.is_match(r.name)))
}

/// The function with a name for every node: passes hand names on.
fn named(mut f: Function) -> Function {
    let ids: Vec<_> = f.graph.ids().collect();
    for id in ids {
        if !matches!(f.graph.op(id), Op::ReadState(_)) {
            f.graph.origin_mut(id).name.get_or_insert_with(|| format!("v{}", id.index()).into());
        }
    }
    f
}
