//! The `graphc` tool: checks, shows and runs modules in the text form, and measures the compiler.
//!
//! Each command is a file with its `Args` and a function that takes them and [`Out`]. Exit codes are 0
//! if all went well, 1 for a failed check or any other error, and 2 for a file that cannot be used or a
//! command line that names what does not exist.

#![deny(unsafe_code)]

mod bench;
mod check;
mod check_grad;
mod ckpt;
mod completions;
mod data;
mod diff_exec;
mod dump;
mod eval;
mod explore;
mod fmt;
mod grad;
mod load;
mod machine;
mod opt;
mod output;
mod plan;
mod print;
mod profile;
mod reduce;
mod run;
mod train;

use clap::{Parser, Subcommand};
use output::Out;
use std::io::Write;
use std::process::ExitCode;

/// Checks, shows, runs and measures graphc modules.
#[derive(Parser)]
#[command(name = "graphc", version, about, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    /// Prints results as JSON, one value per line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit code: 0 if all went well; 1 if a check failed or on any other error; 2 for a file that cannot be \
used, or a command line that is wrong.";

#[derive(Subcommand)]
enum Command {
    /// Parses and verifies a module; prints what it holds
    Check(check::Args),
    /// Rewrites modules in the canonical form
    Fmt(fmt::Args),
    /// Prints a module or a function, with its dimensions bound if they are given
    Print(print::Args),
    /// Prints the gradient of a function
    Grad(grad::Args),
    /// Runs passes over the graph and shows what each one changed
    Opt(opt::Args),
    /// Shows a stage of the compiler for the functions of a module
    Dump(dump::Args),
    /// Shows the memory plan of functions, and fits it into a budget
    Plan(plan::Args),
    /// Compiles a function and runs it
    Run(run::Args),
    /// Trains a module on data in files
    Train(train::Args),
    /// Runs a function over data in files and averages its outputs
    Eval(eval::Args),
    /// Checks gradients against forward mode and finite differences
    CheckGrad(check_grad::Args),
    /// Lists, shows and compares checkpoints
    Ckpt(ckpt::Args),
    /// Compares all ways to compile a function with the interpreter, bit for bit
    DiffExec(diff_exec::Args),
    /// Shrinks a module that shows a fault
    Reduce(reduce::Args),
    /// Measures training steps and single operations
    Bench(bench::Args),
    /// Shows where the time of a function goes, kernel by kernel, beside what the machine could do
    Profile(profile::Args),
    /// Writes an HTML file that shows a function at every stage: graph, kernels, code, memory, time
    Explore(explore::Args),
    /// Shows what this machine can do at most: arithmetic by width of vectors, bytes by level of memory
    Machine(machine::Args),
    /// Prints a script that completes command lines in a shell
    Completions(completions::Args),
}

/// Why a command failed: printed after `error: `. See the module for exit codes.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The file cannot be used.
    #[error("{0}")]
    File(String),
    /// The command line names what does not exist.
    #[error("{0}")]
    Usage(String),
    /// Anything else, such as a check that failed.
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

    fn exit_code(&self) -> u8 {
        match self {
            Self::File(_) | Self::Usage(_) => 2,
            Self::Other(_) | Self::Output(_) => 1,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A fault of the compiler, for tests that must find it.
    #[cfg(feature = "mutants")]
    if let Some(fault) = std::env::var("GRAPHC_FAULT").ok().and_then(|n| n.parse().ok()) {
        graphc::compiler::mutants::select(fault);
    }
    let mut out = Out::new(cli.json);
    let result = match cli.command {
        Command::Check(args) => check::run(&args, &mut out),
        Command::Fmt(args) => fmt::run(&args, &mut out),
        Command::Print(args) => print::run(&args, &mut out),
        Command::Grad(args) => grad::run(&args, &mut out),
        Command::Opt(args) => opt::run(&args, &mut out),
        Command::Dump(args) => dump::run(&args, &mut out),
        Command::Plan(args) => plan::run(&args, &mut out),
        Command::Run(args) => run::run(&args, &mut out),
        Command::Train(args) => train::run(&args, &mut out),
        Command::Eval(args) => eval::run(&args, &mut out),
        Command::CheckGrad(args) => check_grad::run(&args, &mut out),
        Command::Ckpt(args) => ckpt::run(&args, &mut out),
        Command::DiffExec(args) => diff_exec::run(&args, &mut out),
        Command::Reduce(args) => reduce::run(&args, &mut out),
        Command::Bench(args) => bench::run(&args, &mut out),
        Command::Profile(args) => profile::run(&args, &mut out),
        Command::Explore(args) => explore::run(&args, &mut out),
        Command::Machine(args) => machine::run(&args, &mut out),
        Command::Completions(args) => completions::run(&args, &mut out),
    };
    // What was found before a failure is shown too.
    let result = result.and(out.flush().map_err(Failure::from));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no error.
        Err(Failure::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            // Errors of a text module begin with the word already.
            let message = e.to_string();
            anstream::eprintln!(
                "{s}error:{s:#} {}",
                message.strip_prefix("error: ").unwrap_or(&message),
                s = output::BAD.bold()
            );
            ExitCode::from(e.exit_code())
        }
    }
}
