//! The `graphc` tool: checks, shows and runs modules in the text form, and measures the compiler.

#![deny(unsafe_code)]

mod bench;
mod check;
mod dump;
mod load;
mod plan;
mod run;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Checks, shows, runs and measures graphc modules.
#[derive(Parser)]
#[command(name = "graphc", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Parses and verifies a module; prints what it holds
    Check(check::Args),
    /// Shows a stage of the compiler for the functions of a module
    Dump(dump::Args),
    /// Shows the memory plan of functions, and fits it into a budget
    Plan(plan::Args),
    /// Compiles a function and runs it
    Run(run::Args),
    /// Measures training steps and single operations
    Bench(bench::Args),
}

/// Why a command failed: printed after `error: `; the exit code is 1, or 2 for a file that cannot be
/// read or is no module.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The file cannot be used.
    #[error("{0}")]
    File(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    fn other(e: impl std::fmt::Display) -> Self {
        Self::Other(e.to_string())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let result = match cli.command {
        Command::Check(args) => check::run(&args, &mut out),
        Command::Dump(args) => dump::run(&args, &mut out),
        Command::Plan(args) => plan::show(&args, &mut out),
        Command::Run(args) => run::run(&args, &mut out),
        Command::Bench(args) => bench::run(&args, &mut out),
    };
    let result = result.and_then(|()| Ok(out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no error.
        Err(Failure::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            // Errors of a text module begin with the word already.
            let message = e.to_string();
            eprintln!("error: {}", message.strip_prefix("error: ").unwrap_or(&message));
            ExitCode::from(if matches!(e, Failure::File(_)) { 2 } else { 1 })
        }
    }
}
