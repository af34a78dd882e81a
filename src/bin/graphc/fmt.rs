//! `graphc fmt`: modules in the canonical form.

use super::{Failure, Out, load, output};
use crate::output::{BAD, GOOD, HEADING};
use graphc::ir::format_module;
use serde_json::json;
use similar::{ChangeTag, TextDiff};
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "\
Comments stay where they are.

Examples:
  graphc fmt model.gir
  graphc fmt --check models/*.gir")]
pub(super) struct Args {
    /// Modules in the text form
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Writes nothing: shows what would change, and fails if anything would
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let mut changed = 0;
    for path in &args.files {
        let name = path.display().to_string();
        let (text, _) = load::text_and_module(path)?;
        let canonical = format_module(&name, &text).map_err(|e| Failure::File(e.to_string()))?;
        let differs = canonical != text;
        changed += usize::from(differs);
        if differs && !args.check {
            output::replace(path, &canonical)?;
        }
        if out.json() {
            out.value(&json!({ "file": name, "changed": differs }))?;
        } else if differs && args.check {
            let h = out.style(HEADING);
            writeln!(out, "{h}{name}{h:#}")?;
            diff(&text, &canonical, out)?;
        } else if differs {
            writeln!(out, "formatted {name}")?;
        }
    }
    if args.check && changed > 0 {
        let n = args.files.len();
        return Err(Failure::Other(format!("files that are not in the canonical form: {changed} of {n}")));
    }
    Ok(())
}

/// The changed lines with a line before and after, `-` and `+` before them.
pub(super) fn diff(before: &str, after: &str, out: &mut Out) -> Result<(), Failure> {
    let (good, bad) = (out.style(GOOD), out.style(BAD));
    let diff = TextDiff::from_lines(before, after);
    for (i, group) in diff.grouped_ops(1).iter().enumerate() {
        if i > 0 {
            writeln!(out, "  ...")?;
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let line = change.value().trim_end_matches('\n');
            match change.tag() {
                ChangeTag::Equal => writeln!(out, "  {line}")?,
                ChangeTag::Delete => writeln!(out, "{bad}- {line}{bad:#}")?,
                ChangeTag::Insert => writeln!(out, "{good}+ {line}{good:#}")?,
            }
        }
    }
    Ok(())
}
