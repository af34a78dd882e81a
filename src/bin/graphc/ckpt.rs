//! `graphc ckpt`: what checkpoints hold.

use super::{Failure, Out};
use crate::output::{BAD, HEADING};
use clap::Subcommand;
use graphc::checkpoint::{Contents, Tensor, open};
use graphc::trainer::Training;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc ckpt list run/
  graphc ckpt show run/best.safetensors
  graphc ckpt diff run/step-0000000100.safetensors run/step-0000000200.safetensors")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the checkpoints of a folder
    List {
        /// The folder
        dir: PathBuf,
    },
    /// Shows the tensors of a checkpoint, and how far training was
    Show {
        /// A safetensors file
        file: PathBuf,
    },
    /// Compares the tensors of two checkpoints; fails if they differ
    Diff {
        /// A safetensors file
        a: PathBuf,
        /// Another one
        b: PathBuf,
    },
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    match &args.command {
        Command::List { dir } => list(dir, out),
        Command::Show { file } => show(file, out),
        Command::Diff { a, b } => diff(a, b, out),
    }
}

fn read(path: &Path) -> Result<Contents, Failure> {
    open(path).map_err(|e| Failure::File(e.to_string()))
}

/// How far training was, if the file says so.
fn training(contents: &Contents) -> Option<Training> {
    serde_json::from_str(contents.note.as_deref()?).ok()
}

fn list(dir: &Path, out: &mut Out) -> Result<(), Failure> {
    let unreadable = |e: std::io::Error| Failure::File(format!("cannot read {}: {e}", dir.display()));
    let entries = std::fs::read_dir(dir).map_err(unreadable)?;
    let mut paths: Vec<PathBuf> =
        entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(unreadable)?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    paths.sort();
    let bad = out.style(BAD);
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match open(path) {
            Ok(contents) => {
                let bytes: usize = contents.tensors.iter().map(|t| t.bytes.len()).sum();
                let n = contents.tensors.len();
                let t = training(&contents);
                let (step, epoch) = (t.as_ref().map(|t| t.step), t.as_ref().map(|t| t.epoch));
                let loss = t.as_ref().and_then(|t| t.history.last()).map(|r| r.loss);
                if out.json() {
                    out.value(&json!({ "file": name, "tensors": n, "bytes": bytes, "step": step,
                        "epoch": epoch, "loss": loss }))?;
                    continue;
                }
                let far = match (step, epoch, loss) {
                    (Some(step), Some(epoch), Some(loss)) => {
                        format!(", step {step}, epoch {epoch}, loss {loss:.6}")
                    }
                    (Some(step), Some(epoch), None) => format!(", step {step}, epoch {epoch}"),
                    _ => String::new(),
                };
                writeln!(out, "{name}: {n} tensors, {bytes} bytes{far}")?;
            }
            Err(e) if out.json() => out.value(&json!({ "file": name, "error": e.to_string() }))?,
            Err(e) => writeln!(out, "{bad}{name}: {e}{bad:#}")?,
        }
    }
    if paths.is_empty() {
        return Err(Failure::File(format!("{} holds no checkpoints", dir.display())));
    }
    Ok(())
}

/// Numbers that tell about a tensor: the smallest, the largest, the mean and the Euclidean norm.
fn statistics(t: &Tensor<'_>) -> [f64; 4] {
    let elements = t.elements();
    let x = || (0..elements.value().len()).map(|i| elements.get(i).to_f64());
    let n = elements.value().len() as f64;
    let least = x().fold(f64::NAN, f64::min);
    let largest = x().fold(f64::NAN, f64::max);
    [least, largest, x().sum::<f64>() / n, x().map(|x| x * x).sum::<f64>().sqrt()]
}

fn ty(t: &Tensor<'_>) -> String {
    graphc::TensorType::new(t.dtype, &*t.dims).to_string()
}

fn show(file: &Path, out: &mut Out) -> Result<(), Failure> {
    let contents = read(file)?;
    let training = training(&contents);
    if out.json() {
        let tensor = |t: &Tensor<'_>| {
            let [min, max, mean, norm] = statistics(t);
            json!({ "name": t.name, "type": ty(t), "min": min, "max": max, "mean": mean, "norm": norm })
        };
        let tensors: Value = contents.tensors.iter().map(tensor).collect();
        return out.value(&json!({ "tensors": tensors, "training": training }));
    }
    if let Some(t) = &training {
        writeln!(out, "step {}, epoch {}, batch {}", t.step, t.epoch, t.batch)?;
    }
    let h = out.style(HEADING);
    writeln!(out, "{h}{:>12} {:>12} {:>12} {:>12}  tensor{h:#}", "least", "largest", "mean", "norm")?;
    for t in &contents.tensors {
        let [min, max, mean, norm] = statistics(t);
        writeln!(out, "{min:>12.4e} {max:>12.4e} {mean:>12.4e} {norm:>12.4e}  {}: {}", t.name, ty(t))?;
    }
    Ok(())
}

fn diff(a: &Path, b: &Path, out: &mut Out) -> Result<(), Failure> {
    let (first, second) = (read(a)?, read(b)?);
    let names: BTreeSet<&str> = first.tensors.iter().chain(&second.tensors).map(|t| &*t.name).collect();
    let find = |c: &'_ Contents, name: &str| c.tensors.iter().position(|t| t.name == name);
    let (mut same, mut different) = (0, 0);
    for name in names {
        let x = find(&first, name).map(|i| &first.tensors[i]);
        let y = find(&second, name).map(|i| &second.tensors[i]);
        let what = match (x, y) {
            (Some(x), Some(y)) if x == y => {
                same += 1;
                continue;
            }
            (Some(x), Some(y)) if (x.dtype, &x.dims) == (y.dtype, &y.dims) => {
                let (x, y) = (x.elements(), y.elements());
                let n = x.value().len();
                let apart = |i: usize| (x.get(i).to_f64() - y.get(i).to_f64()).abs();
                let changed = (0..n).filter(|&i| x.get(i) != y.get(i)).count();
                let largest = (0..n).map(apart).fold(0.0, f64::max);
                let moved = (0..n).map(|i| apart(i).powi(2)).sum::<f64>().sqrt();
                let norm = (0..n).map(|i| x.get(i).to_f64().powi(2)).sum::<f64>().sqrt();
                if out.json() {
                    out.value(&json!({ "name": name, "elements": n, "changed": changed, "largest": largest,
                        "relative": moved / norm }))?;
                }
                format!(
                    "{changed} of {n} elements, by at most {largest:.4e}, {:.4e} of the norm",
                    moved / norm
                )
            }
            (Some(x), Some(y)) => format!("{} and {}", ty(x), ty(y)),
            (Some(x), None) => format!("{}, only in {}", ty(x), a.display()),
            (None, Some(y)) => format!("{}, only in {}", ty(y), b.display()),
            (None, None) => continue,
        };
        different += 1;
        if !out.json() {
            writeln!(out, "{name}: {what}")?;
        } else if x.is_none() || y.is_none() || x.map(ty) != y.map(ty) {
            out.value(&json!({ "name": name, "types": [x.map(ty), y.map(ty)] }))?;
        }
    }
    if different == 0 {
        return if out.json() {
            Ok(())
        } else {
            Ok(writeln!(out, "{same} tensors are the same, bit for bit")?)
        };
    }
    Err(Failure::Other(format!("{different} of {} tensors differ", same + different)))
}
