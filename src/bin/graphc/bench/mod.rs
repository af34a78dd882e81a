//! `graphc bench`: time of training steps and of single operations.

mod compile;
mod file;
mod generator;
mod micro;
mod prepared;
mod scale;
mod timing;
mod workloads;

use super::{Failure, Out, load};
use graphc::Isa;
use graphc::machine::{memory_gb_s, peak_gflops};
use prepared::Setup;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc bench mlp lenet5 --threads 1
  graphc bench model.gir
  graphc bench --compile
  graphc bench --micro gemm --isa avx2
  graphc bench --scale scaling.svg
  graphc bench gpt_nano --module > gpt.gir")]
pub(super) struct Args {
    /// Workloads, or files `*.gir` whose first function is measured on inputs that are made up; with `--micro` how names of
    /// operations begin (all workloads, or all operations, unless given)
    names: Vec<String>,
    /// Threads (all of the machine unless given)
    #[arg(long)]
    threads: Option<usize>,
    /// Vector instructions: sse (128-bit, by Cranelift), avx2 or avx512; the widest of the machine
    /// unless given
    #[arg(long)]
    isa: Option<Isa>,
    /// Measures single operations, and the peaks of the machine, instead of training steps
    #[arg(long)]
    micro: bool,
    /// Prints the modules of the named workloads or operations in the text form instead, for `graphc dump`
    #[arg(long)]
    module: bool,
    /// Measures how long workloads take to compile, and the size of their memory plans, instead of training
    /// steps; fails where that is beyond the budget
    #[arg(long, conflicts_with_all = ["micro", "module"])]
    compile: bool,
    /// With `--compile`: how many times its budget compiling may take, on a machine that is busy
    #[arg(long, default_value_t = 1.0, requires = "compile")]
    slack: f64,
    /// Measures gpt_nano in larger sizes instead: along depth, width, length of the windows and batch, up to 64 times
    /// the work; draws it into this file (.svg or .png)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["names", "micro", "module", "compile"])]
    scale: Option<PathBuf>,
    /// Shortest time of each measurement (1.5 for training steps, 0.5 for operations unless given)
    #[arg(long)]
    seconds: Option<f64>,
}

/// One measurement.
struct Report {
    /// An object with all that is known of it.
    row: Value,
    /// Results that are not what they should be.
    wrong: Vec<String>,
}

/// What so many threads of the machine can do.
struct Peak {
    /// See [`peak_gflops`].
    gflops: f64,
    /// See [`memory_gb_s`].
    gb_s: f64,
}

/// A column of the table: key in the row, title, width, digits after the point.
type Column = (&'static str, &'static str, usize, usize);

const STEPS: [Column; 9] = [
    ("workload", "workload", 12, 0),
    ("median_us", "median us", 12, 1),
    ("min_us", "min us", 12, 1),
    ("gflops", "GFLOP/s", 9, 1),
    ("first_step_s", "first step s", 13, 4),
    ("compile_s", "compile s", 10, 4),
    ("peak_rss_mb", "peak MB", 9, 1),
    ("losses_ok", "losses ok", 10, 0),
    ("other_cpus", "other CPUs", 11, 2),
];

const OPERATIONS: [Column; 7] = [
    ("micro", "operation", 24, 0),
    ("median_us", "median us", 12, 2),
    ("min_us", "min us", 12, 2),
    ("gflops", "GFLOP/s", 9, 1),
    ("gb_s", "GB/s", 9, 1),
    ("of_peak", "of peak", 9, 3),
    ("other_cpus", "other CPUs", 11, 2),
];

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let pool = load::pool(args.threads)?;
    let setup = Setup { pool, isa: args.isa.unwrap_or_default() };
    match &args.scale {
        Some(path) => scales(path, args, &setup, out),
        None if args.micro => operations(args, &setup, out),
        None => steps(args, &setup, out),
    }
}

/// The module of a workload, of one function.
pub(super) fn workload(name: &str) -> Result<graphc::Module, Failure> {
    workloads::ALL.iter().find(|w| w.name == name).ok_or_else(|| unknown_workload(name))?.module()
}

fn unknown_workload(name: &str) -> Failure {
    let known = load::list(workloads::ALL.iter().map(|w| w.name));
    Failure::Usage(format!("there is no workload `{name}`; there are {known}"))
}

fn steps(args: &Args, setup: &Setup, out: &mut Out) -> Result<(), Failure> {
    let (files, names): (Vec<&String>, Vec<&String>) = args.names.iter().partition(|n| n.ends_with(".gir"));
    for name in names {
        if !workloads::ALL.iter().any(|w| w.name == name) {
            return Err(unknown_workload(name));
        }
    }
    if !files.is_empty() && (args.module || args.compile) {
        return Err(Failure::Usage("`--module` and `--compile` are about workloads, not files".to_owned()));
    }
    if args.module {
        for workload in workloads::ALL.iter().filter(|w| args.names.iter().any(|n| n == w.name)) {
            write!(out, "{}", workload.module()?)?;
        }
        return Ok(());
    }
    let columns: &[Column] = if args.compile { &compile::COLUMNS } else { &STEPS };
    title(columns, out)?;
    let mut wrong = Vec::new();
    let selected = |name: &str| args.names.is_empty() || args.names.iter().any(|n| n == name);
    for workload in workloads::ALL.iter().filter(|w| selected(w.name)) {
        let report = if args.compile {
            compile::measure(workload, setup, args.slack)?
        } else {
            workload.measure(setup, args.seconds.unwrap_or(1.5))?
        };
        print(args, setup, columns, report.row, out)?;
        wrong.extend(report.wrong);
    }
    for file in files {
        print(args, setup, columns, file::measure(file.as_ref(), setup, args.seconds.unwrap_or(1.5))?, out)?;
    }
    if args.compile && selected(compile::DEEP) {
        let report = compile::deep(setup, args.slack)?;
        print(args, setup, columns, report.row, out)?;
        wrong.extend(report.wrong);
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Other(wrong.join("\n"))) }
}

fn operations(args: &Args, setup: &Setup, out: &mut Out) -> Result<(), Failure> {
    let all = micro::all();
    for name in &args.names {
        if !all.iter().any(|m| m.name.starts_with(name)) {
            let known = load::list(all.iter().map(|m| &*m.name));
            return Err(Failure::Usage(format!("no operation begins with `{name}`; there are {known}")));
        }
    }
    let selected = |name: &str| args.names.is_empty() || args.names.iter().any(|n| name.starts_with(n));
    if args.module {
        // A module is a file: the names are whole.
        for operation in all.iter().filter(|m| args.names.contains(&m.name)) {
            write!(out, "{}", operation.module()?)?;
        }
        return Ok(());
    }
    let threads = setup.pool.num_threads();
    let peak = Peak { gflops: peak_gflops(Isa::host(), threads), gb_s: memory_gb_s(threads) };
    let row = json!({ "micro": "peak", "gflops": round(peak.gflops, 1), "gb_s": round(peak.gb_s, 1) });
    title(&OPERATIONS, out)?;
    print(args, setup, &OPERATIONS, row, out)?;
    for operation in all.iter().filter(|m| selected(&m.name)) {
        let row = operation.measure(setup, &peak, args.seconds.unwrap_or(0.5))?;
        print(args, setup, &OPERATIONS, row, out)?;
    }
    Ok(())
}

fn scales(path: &Path, args: &Args, setup: &Setup, out: &mut Out) -> Result<(), Failure> {
    title(&scale::COLUMNS, out)?;
    let mut curves = scale::Curves::default();
    for point in scale::points() {
        let row = point.measure(setup, args.seconds.unwrap_or(1.0))?;
        curves.add(&point, &row);
        print(args, setup, &scale::COLUMNS, row, out)?;
    }
    curves.save(path)
}

fn title(columns: &[Column], out: &mut Out) -> Result<(), Failure> {
    if out.json() { Ok(()) } else { line(columns, |column| column.1.to_owned(), out) }
}

/// Prints a row as soon as it is there.
fn print(
    args: &Args,
    setup: &Setup,
    columns: &[Column],
    mut row: Value,
    out: &mut Out,
) -> Result<(), Failure> {
    if out.json() {
        row["engine"] = match &args.isa {
            Some(isa) => format!("graphc-{isa}").into(),
            None => "graphc".into(),
        };
        row["threads"] = setup.pool.num_threads().into();
        writeln!(out, "{row}")?;
    } else {
        let cell = |&(key, _, _, digits): &Column| match &row[key] {
            Value::String(s) => s.clone(),
            Value::Number(n) => format!("{:.digits$}", n.as_f64().unwrap_or(f64::NAN)),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        line(columns, cell, out)?;
    }
    Ok(out.flush()?)
}

/// A line of the table: the first column to the left, the others to the right.
fn line(columns: &[Column], cell: impl Fn(&Column) -> String, out: &mut Out) -> Result<(), Failure> {
    for (i, column) in columns.iter().enumerate() {
        let (width, cell) = (column.2, cell(column));
        if i == 0 { write!(out, "{cell:<width$}")? } else { write!(out, "{cell:>width$}")? }
    }
    Ok(writeln!(out)?)
}

/// `x` with so many digits after the point.
fn round(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (x * scale).round() / scale
}
