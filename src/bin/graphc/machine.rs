//! `graphc machine`: the peaks of this machine.

use super::{Failure, Out};
use crate::output::HEADING;
use bytesize::ByteSize;
use graphc::machine::Machine;
use serde_json::json;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Measured once and kept in the user's cache directory ($XDG_CACHE_HOME/graphc). Other work on the machine
makes the figures too low: measure again without it.

Examples:
  graphc machine
  graphc machine --again --json")]
pub(super) struct Args {
    /// Measures again, whatever is known
    #[arg(long)]
    again: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let machine = if args.again { Machine::measure_again() } else { Machine::known() };
    if out.json() {
        return out.value(&json!(machine));
    }
    let h = out.style(HEADING);
    let threads = |n: usize| if n == 1 { "thread " } else { "threads" };
    writeln!(out, "{h}{}, {} {}{h:#}", machine.cpu, machine.threads, threads(machine.threads).trim_end())?;
    for a in &machine.arithmetic {
        let level = format!("{} bits", a.bits);
        writeln!(
            out,
            "{level:<8} {:>10} {:>3} {} {:>9.1} GFLOP/s",
            "",
            a.threads,
            threads(a.threads),
            a.gflops
        )?;
    }
    for m in &machine.memory {
        let size = m.bytes.map_or(String::new(), |b| ByteSize(b as u64).to_string());
        writeln!(
            out,
            "{:<8} {size:>10} {:>3} {} {:>9.1} GB/s",
            m.level,
            m.threads,
            threads(m.threads),
            m.gb_s
        )?;
    }
    if let Some(path) = Machine::record_path().filter(|p| p.exists()) {
        writeln!(out, "kept in {}", path.display())?;
    }
    Ok(())
}
