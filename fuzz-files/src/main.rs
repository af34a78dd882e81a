//! `cargo run --release -p graphc-fuzz-files -- --target gir --executions 1000000`

#![forbid(unsafe_code)]

use clap::Parser;
use graphc_fuzz_files::{TARGETS, Target, campaign, check};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Gives mutated files to graphc's readers.
#[derive(Parser)]
#[command(name = "graphc-fuzz-files")]
struct Args {
    /// Reader: gir, compile, safetensors, idx, npy, npz or csv; all of them without it
    #[arg(long)]
    target: Option<String>,
    /// Mutants for each target
    #[arg(long, default_value_t = 100_000)]
    executions: u64,
    /// Equal seeds give equal mutants
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Reads this file instead of mutants
    #[arg(long, requires = "target")]
    file: Option<PathBuf>,
    /// Where each mutant is written before it is read (used by the process that watches over this one)
    #[arg(long, hide = true)]
    last: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let known = |t: &&Target| args.target.as_deref().is_none_or(|name| name == t.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(known).collect();
    if targets.is_empty() {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("error: there is no such target; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let result = match (&args.file, &args.last) {
        (Some(file), _) => one_file(targets[0], file),
        (None, Some(last)) => run(targets[0], &args, last),
        (None, None) => targets.iter().try_for_each(|target| watch(target, &args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn one_file(target: &Target, path: &Path) -> Result<(), String> {
    let file = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    match check(target, &file, scratch.path())? {
        None => println!("it is read"),
        Some(message) => println!("it is refused: {message}"),
    }
    Ok(())
}

/// Runs a campaign in a process of its own, so that a mutant that ends the process is known.
fn watch(target: &Target, args: &Args) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    let last = tempfile::NamedTempFile::new().map_err(io)?;
    let status = Command::new(std::env::current_exe().map_err(io)?)
        .args(["--target", target.name, "--last"])
        .arg(last.path())
        .args(["--executions", &args.executions.to_string(), "--seed", &args.seed.to_string()])
        .status()
        .map_err(io)?;
    if status.success() {
        return Ok(());
    }
    let kept = format!("hostile-{}-{}", target.name, args.seed);
    std::fs::copy(last.path(), &kept).map_err(io)?;
    Err(format!("{}: {status}; the file is kept as {kept}", target.name))
}

fn run(target: &Target, args: &Args, last: &Path) -> Result<(), String> {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("panic at {place}: {:?}", info.payload_as_str().unwrap_or_default());
    }));
    let mut last = File::create(last).map_err(|e| e.to_string())?;
    let start = Instant::now();
    let tally = campaign(target, args.executions, args.seed, |file| {
        let written = last.set_len(0).and_then(|()| last.rewind()).and_then(|()| last.write_all(file));
        written.expect("the last mutant can be written");
    });
    let seconds = start.elapsed().as_secs_f64();
    let tally = tally.map_err(|(message, _)| message)?;
    println!(
        "{:<12} {:>10} mutants, {:>9} read, {:>4} kinds of answers, {seconds:.1} s",
        target.name, tally.executions, tally.accepted, tally.kinds
    );
    Ok(())
}
