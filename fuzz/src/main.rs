//! Random modules, compiled in many ways and compared with the interpreter bit for bit.
//!
//! Module `i` of a seed depends on nothing but both numbers, so each can be run alone (`--only i`), and
//! the number of jobs changes no result. What differs is reduced and written to a directory, from which
//! a test of the root crate replays it.

mod coverage;
mod generate;
#[cfg(feature = "mutants")]
mod mutants;
mod rng;
mod step;
mod supervise;

use clap::Parser;
use coverage::Coverage;
use generate::{Case, case};
use graphc::differential::{
    Config, Mismatch, Values, caught, compare, compiles, execute_with, interpret, options, same_results,
};
use graphc::runtime::Fence;
use graphc::{Function, Isa, Module, reduce};
use rng::Rng;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Compares random modules, compiled in many ways, with the interpreter.
#[derive(Parser)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  cargo run --release -p graphc-fuzz -- --graphs 10000 --seed 1
  cargo run --release -p graphc-fuzz -- --seed 1 --only 4711")]
struct Args {
    /// How many modules
    #[arg(long, default_value_t = 1000)]
    graphs: u64,
    /// Seed of all of them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many run at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Runs this module alone, in the configurations drawn for it and in all others, and prints it
    #[arg(long)]
    only: Option<u64>,
    /// Where modules that differ are written, reduced
    #[arg(long, default_value = "tests/regressions")]
    out: PathBuf,
    /// Configurations drawn for each module
    #[arg(long, default_value_t = 2)]
    configs: usize,
    /// Leaves what differs as it is
    #[arg(long)]
    no_reduce: bool,
    /// Ends at the first difference
    #[arg(long)]
    first: bool,
    /// Plants each fault in turn and prints which are found, within this many seconds each
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "600")]
    mutants: Option<u64>,
    /// Plants this fault
    #[cfg(feature = "mutants")]
    #[arg(long, default_value_t = 0)]
    fault: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Panics are reported with the module that caused them; where it is the only one they print as usual.
    if args.only.is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    #[cfg(feature = "mutants")]
    {
        if let Some(seconds) = args.mutants {
            return mutants::hunt(args.seed, std::time::Duration::from_secs(seconds));
        }
        graphc::compiler::mutants::select(args.fault);
    }
    // What generated code touches behind the arena, the state or the constants ends the process.
    #[cfg(target_os = "linux")]
    graphc::runtime::fence_buffers(Some(Fence::End));
    if let Some(index) = args.only {
        return only(&args, index);
    }
    match supervise::notes() {
        Some(notes) => many(&args, &notes),
        None => supervise::run(args.seed).unwrap_or_else(|e| {
            eprintln!("error: cannot run this program once more: {e}");
            ExitCode::FAILURE
        }),
    }
}

/// Runs all modules; notes which.
fn many(args: &Args, notes: &Path) -> ExitCode {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let (coverage, failures) = (Mutex::new(Coverage::default()), AtomicU64::new(0));
    let slowest = Mutex::new((Duration::ZERO, 0));
    std::thread::scope(|scope| {
        for job in 0..args.jobs.max(1) {
            let (next, coverage, failures, slowest) = (&next, &coverage, &failures, &slowest);
            scope.spawn(move || {
                let mut mine = Coverage::default();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let done = args.first && failures.load(Ordering::Relaxed) > 0;
                    if index >= args.graphs || done {
                        break;
                    }
                    supervise::note(notes, job, index);
                    let begin = Instant::now();
                    // Outside of compiler and runtime, the generator and the interpreter may panic too.
                    let sound = caught(|| try_one(args, index, &mut mine)).unwrap_or_else(|panic| {
                        println!("module {index} of seed {}: {panic}", args.seed);
                        false
                    });
                    failures.fetch_add(u64::from(!sound), Ordering::Relaxed);
                    let mut slowest = slowest.lock().unwrap_or_else(|e| e.into_inner());
                    *slowest = (*slowest).max((begin.elapsed(), index));
                }
                coverage.lock().unwrap_or_else(|e| e.into_inner()).add(&mine);
            });
        }
    });
    let coverage = coverage.into_inner().unwrap_or_else(|e| e.into_inner());
    let failures = failures.into_inner();
    println!("{} modules, {failures} differences, {:.1} s", args.graphs, start.elapsed().as_secs_f64());
    let (time, index) = slowest.into_inner().unwrap_or_else(|e| e.into_inner());
    println!("slowest: module {index}, {:.1} s", time.as_secs_f64());
    let complete = args.first || coverage.report(args.graphs);
    if failures == 0 && complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether module `index` agrees in some configurations.
fn try_one(args: &Args, index: u64, coverage: &mut Coverage) -> bool {
    let case = case(args.seed, index);
    let configs = draw(args.seed, index, args.configs);
    let found = check(&case, &configs, coverage);
    if let Some((config, mismatch)) = &found {
        report(args, index, &case, config, mismatch);
    }
    found.is_none()
}

/// Configurations for a module: mostly the highest level, one in two with poison, one in two
/// with buffers kept apart, one in two with loops over batches, one in eight with as little memory as possible, and one in
/// eight for the widest vectors, whether or not this machine has them.
fn draw(seed: u64, index: u64, n: usize) -> Vec<Config> {
    let mut rng = Rng::new(!seed, index);
    let all = Config::all();
    let highest: Vec<Config> = all.iter().copied().filter(|c| c.level == graphc::OptLevel::O3).collect();
    let mut draw = |i: usize| {
        let config = if i == 0 { rng.of(&highest) } else { rng.of(&all) };
        let fence = rng.of(&[None, None, Some(Fence::Begin), Some(Fence::End)]);
        let isa = if rng.one_in(8) { Isa::Avx512 } else { config.isa };
        Config { isa, poison: rng.one_in(2), fence, loops: rng.one_in(2), tight: rng.one_in(8), ..config }
    };
    (0..n).map(&mut draw).collect()
}

/// How a module differs from the interpreter, in the first of these configurations in which it does.
fn check(case: &Case, configs: &[Config], coverage: &mut Coverage) -> Option<(Config, Mismatch)> {
    let f = &case.module.functions[0];
    let values = case.values();
    coverage.module(&case.module);
    let expected = interpret(f, &values);
    configs.iter().find_map(|config| {
        if !config.isa.is_available() {
            let compiled = compiles(&case.module, f, &options(config));
            return compiled.err().map(|mismatch| (*config, mismatch));
        }
        let ran = execute_with(&case.module, f, &values, &options(config), config.threads);
        let compared = ran.and_then(|(got, stages)| {
            coverage.stages(&stages);
            same_results(&case.module, f, &expected, &got, config.level)
        });
        compared.err().map(|mismatch| (*config, mismatch))
    })
}

/// Prints a difference, and writes the module reduced.
fn report(args: &Args, index: u64, case: &Case, config: &Config, mismatch: &Mismatch) {
    println!("module {index} of seed {}: {config}: {mismatch}", args.seed);
    if args.no_reduce {
        return;
    }
    let kind = std::mem::discriminant(mismatch);
    let differs = |m: &Module, f: &Function| {
        let values = Values::drawn(m, f, case.values_seed);
        compare(m, f, &values, config).is_err_and(|m| std::mem::discriminant(&m) == kind)
    };
    let small = reduce::reduce(&case.module, &mut |m| m.functions.iter().any(|f| differs(m, f)));
    let path = args.out.join(format!("seed{}-{index}.gir", args.seed));
    match write(&path, case.values_seed, &small) {
        Ok(()) => println!("  reduced to {} nodes: {}", reduce::nodes(&small.functions[0]), path.display()),
        Err(e) => println!("  cannot write {}: {e}", path.display()),
    }
}

/// A regression: the seed of its values, then the module.
fn write(path: &Path, values_seed: u64, module: &Module) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, format!("; values {values_seed}\n{module}"))
}

fn only(args: &Args, index: u64) -> ExitCode {
    let case = case(args.seed, index);
    println!("; values {}\n{}", case.values_seed, case.module);
    for config in draw(args.seed, index, args.configs).into_iter().chain(Config::all()) {
        // The last one names the culprit if the process ends here.
        eprintln!("; {config}");
        if let Some((config, mismatch)) = check(&case, &[config], &mut Coverage::default()) {
            report(args, index, &case, &config, &mismatch);
            return ExitCode::FAILURE;
        }
    }
    println!("; all configurations agree");
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_modules_agree() {
        for index in 0..100 {
            let case = case(1, index);
            let found = check(&case, &draw(1, index, 2), &mut Coverage::default());
            assert!(found.is_none(), "module {index}: {found:?}\n{}", case.module);
        }
    }
}
