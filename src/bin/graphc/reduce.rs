//! `graphc reduce`: the smallest module that still shows a fault.

use super::{Failure, Out, load, output};
use graphc::differential::{Config, Mismatch, Values, compare};
use graphc::{Function, Module, reduce};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc reduce failing.gir --out small.gir
  graphc reduce failing.gir --out small.gir --when ./still-fails.sh

Without --when, a module fails if a compiled function of it differs from the interpreter, cannot be
compiled, or panics.")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
    /// Where the small module is written
    #[arg(long, short)]
    out: PathBuf,
    /// Seed of the values of inputs and state
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A program that gets the path of a module and exits with 0 if it fails
    #[arg(long, value_name = "PROGRAM")]
    when: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut module = load::module(&args.selection.file)?;
    let bound = args.selection.functions(&module)?.into_iter().map(|f| {
        let bindings = args.selection.bindings(&module, &f)?;
        f.bind(&bindings).map_err(Failure::other)
    });
    module.functions = bound.collect::<Result<_, _>>()?;
    let mut tried = 0;
    let small = match &args.when {
        Some(program) => by_program(&module, program, &args.out, &mut tried)?,
        None => by_comparison(&module, args.seed, &mut tried)?,
    };
    output::file(&args.out, small.to_string())?;
    let count = |m: &Module| m.functions.iter().map(reduce::nodes).sum::<usize>();
    let (before, after) = (count(&module), count(&small));
    if out.json() {
        return out.value(&json!({ "nodes_before": before, "nodes_after": after, "tried": tried }));
    }
    Ok(writeln!(out, "{before} nodes to {after}, {tried} modules tried: {}", args.out.display())?)
}

/// As small as the program still says that a module fails.
fn by_program(module: &Module, program: &Path, out: &Path, tried: &mut usize) -> Result<Module, Failure> {
    // The program reads candidates where the result will be; what was there comes back if there is none.
    let before = std::fs::read(out).ok();
    let fails = |m: &Module| -> Result<bool, Failure> {
        output::file(out, m.to_string())?;
        let status = Command::new(program).arg(out).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.map_err(|e| Failure::Usage(format!("cannot run {}: {e}", program.display())))?;
        Ok(status.success())
    };
    let reduced = fails(module).and_then(|whole| {
        if !whole {
            return Err(Failure::Other(format!("{} says that the module does not fail", program.display())));
        }
        let mut problem = None;
        let small = reduce::reduce(module, &mut |m| {
            *tried += 1;
            problem.is_none() && fails(m).unwrap_or_else(|e| problem.replace(e).is_some())
        });
        problem.map_or(Ok(small), Err)
    });
    if reduced.is_err() && out.is_file() {
        match before {
            Some(text) => output::file(out, text)?,
            None => std::fs::remove_file(out)
                .map_err(|e| Failure::File(format!("cannot remove {}: {e}", out.display())))?,
        }
    }
    reduced
}

/// How function `f` differs from the interpreter.
fn mismatch(m: &Module, f: &Function, seed: u64, config: &Config) -> Option<Mismatch> {
    compare(m, f, &Values::drawn(m, f, seed), config).err()
}

/// As small as a function of the module still differs in the same way, compiled as the simplest
/// configuration in which one does.
fn by_comparison(module: &Module, seed: u64, tried: &mut usize) -> Result<Module, Failure> {
    // Panics may be what is looked for: each would print.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let first = Config::all().into_iter().find_map(|config| {
        let found = module.functions.iter().find_map(|f| mismatch(module, f, seed, &config));
        found.map(|m| (config, std::mem::discriminant(&m)))
    });
    let small = first.map(|(config, kind)| {
        reduce::reduce(module, &mut |m| {
            *tried += 1;
            let alike = |f| mismatch(m, f, seed, &config).is_some_and(|m| std::mem::discriminant(&m) == kind);
            m.functions.iter().any(alike)
        })
    });
    std::panic::set_hook(hook);
    small.ok_or_else(|| Failure::Other("no run of the module differs from the interpreter".to_owned()))
}
