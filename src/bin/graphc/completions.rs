//! `graphc completions`: scripts for shells.

use super::{Cli, Failure, Out};
use clap::CommandFactory;
use clap_complete::{Shell, generate};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc completions bash > ~/.local/share/bash-completion/completions/graphc
  graphc completions fish > ~/.config/fish/completions/graphc.fish")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    // The generator panics where its writer fails: a closed pipe is for `out` to notice.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "graphc", &mut script);
    Ok(std::io::Write::write_all(out, &script)?)
}
