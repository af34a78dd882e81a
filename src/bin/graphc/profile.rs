//! `graphc profile`: where the time of a function's runs goes, kernel by kernel, beside what the machine could do.

use super::{Failure, Out, bench, dump, load, output, run};
use graphc::compiler::{PassOptions, Stages, compile_function, state_layout};
use graphc::machine::Machine;
use graphc::runtime::{Elements, FunctionProfile, Profile, StepInfo, StepTime};
use graphc::{Bindings, CompileOptions, Function, Isa, Module, RunContext, Session, Value, ValueMut};
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc profile model.gir --fn train_step
  graphc profile --workload mlp --threads 1
  graphc profile model.gir --trace trace.json    (open it at ui.perfetto.dev)")]
pub(super) struct Args {
    /// A module in the text form
    #[arg(required_unless_present = "workload")]
    file: Option<PathBuf>,
    /// A function, the first unless given; `NAME.grad` is the gradient of the first output of NAME
    #[arg(long = "fn", value_name = "NAME")]
    function: Option<String>,
    /// A number for a named dimension (32 unless given)
    #[arg(long = "bind", value_name = "DIM=N", value_parser = load::binding)]
    bind: Vec<(String, usize)>,
    /// A training step of `graphc bench` instead of a file
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    workload: Option<String>,
    #[command(flatten)]
    how: How,
    /// Kernels shown, those that take longest (all unless given)
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Writes what ran when on which thread, of some runs, as a Chrome trace
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Runs that a trace has.
const TRACED_RUNS: usize = 5;

/// How many times faster than its bound a kernel may seem, as the figures of a machine shared with others vary.
const BEYOND: f64 = 1.25;

/// Fewest runs that are timed.
const MIN_RUNS: usize = 10;

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let (module, f, bindings) = match (&args.file, &args.workload) {
        (Some(file), _) => {
            let selection = load::Selection {
                file: file.clone(),
                function: args.function.clone(),
                bind: args.bind.clone(),
            };
            let module = load::module(file)?;
            let f = selection.first(&module)?;
            let bindings = selection.bindings(&module, &f)?;
            (module, f, bindings)
        }
        (None, workload) => {
            let module = bench::workload(workload.as_deref().unwrap_or_default())?;
            let f = module.functions[0].clone();
            (module, f, Bindings::new())
        }
    };
    let runs = if args.trace.is_some() { TRACED_RUNS } else { 0 };
    let measured = measure(&module, &f, &bindings, &args.how, Extras { traced: runs, keep: false })?;
    if let (Some(path), Some(trace)) = (&args.trace, &measured.trace) {
        write_trace(path, trace)?;
    }
    if out.json() { out.value(&as_json(&measured)) } else { table(args, &measured, out) }
}

/// How a function is run to be measured.
#[derive(clap::Args)]
pub(super) struct How {
    /// Seed of the initial state and of the inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Shortest time of the measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Threads (all of the machine unless given)
    #[arg(long)]
    threads: Option<usize>,
    /// Vector instructions: sse (128-bit, by Cranelift), avx2 or avx512; this machine's by default
    #[arg(long)]
    isa: Option<Isa>,
    /// Level of optimization, 0 to 3
    #[arg(short = 'O', default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=3))]
    opt: u8,
}

/// What else is wanted of a measurement.
#[derive(Clone, Copy)]
pub(super) struct Extras {
    /// Runs with a trace, after the others.
    pub(super) traced: usize,
    /// Whether code and the function after each pass are kept.
    pub(super) keep: bool,
}

/// A function that has been compiled and run.
pub(super) struct Measured {
    pub(super) stages: Stages,
    pub(super) times: FunctionProfile,
    pub(super) threads: usize,
    pub(super) isa: Isa,
    pub(super) machine: Machine,
    trace: Option<Profile>,
    rows: Vec<Row>,
}

/// What was measured of a step, and what bounds it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Position among the steps.
    pub(super) step: usize,
    /// Executions in a run.
    pub(super) count: f64,
    /// Time in a run, all executions together.
    pub(super) us: f64,
    /// Its part of the run's time.
    pub(super) share: f64,
    pub(super) gflops: f64,
    pub(super) gb_s: f64,
    /// The least time that the machine needs for its arithmetic or its bytes, in a run.
    pub(super) bound_us: f64,
    /// Which of them is more.
    pub(super) limit: &'static str,
}

impl Measured {
    /// The steps, longest first.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Mean time of a run in microseconds.
    pub(super) fn run_us(&self) -> f64 {
        self.times.wall_ns as f64 / self.times.runs.max(1) as f64 / 1e3
    }
}

/// Compiles `f`, a function of `module` or a gradient of one, and runs it on made-up inputs.
pub(super) fn measure(
    module: &Module,
    f: &Function,
    bindings: &Bindings,
    how: &How,
    extras: Extras,
) -> Result<Measured, Failure> {
    let (pool, isa) = (load::pool(how.threads)?, how.isa.unwrap_or_default());
    let threads = pool.num_threads();
    let options = CompileOptions {
        max_threads: threads,
        isa,
        keep_code: extras.keep,
        passes: PassOptions {
            dump_after: extras.keep.then(|| "all".to_owned()),
            ..PassOptions::at(dump::level(how.opt))
        },
        ..CompileOptions::default()
    };
    let layout = Arc::new(state_layout(module).map_err(Failure::other)?);
    let (executable, stages) = compile_function(f, &layout, bindings, &options).map_err(Failure::other)?;
    let mut session = Session::with(module.clone(), how.seed, pool.clone(), CompileOptions::default())
        .map_err(Failure::other)?;
    let inputs = run::inputs(&[], how.seed, &stages.bound);
    let inputs: Vec<Value<'_>> = inputs.iter().map(|(_, elements)| elements.value()).collect();
    let mut outputs: Vec<Elements> =
        executable.outputs().iter().map(|p| Elements::zeros(p.dtype, p.num_elements())).collect();
    let mut outputs: Vec<ValueMut<'_>> = outputs.iter_mut().map(Elements::value_mut).collect();
    let mut cx = RunContext::new(&executable, pool).map_err(Failure::other)?;
    let mut step = |cx: &mut RunContext| {
        executable.run(cx, session.state_mut(), &inputs, &mut outputs).map_err(Failure::other)
    };
    let mut repeat = |cx: &mut RunContext, seconds: f64, least: usize| -> Result<(), Failure> {
        let (started, time) = (Instant::now(), Duration::from_secs_f64(seconds.max(0.0)));
        let mut runs = 0;
        while runs < least || started.elapsed() < time {
            step(cx)?;
            runs += 1;
        }
        Ok(())
    };
    repeat(&mut cx, how.seconds / 3.0, 2)?;
    cx.start_profile(false);
    repeat(&mut cx, how.seconds, MIN_RUNS)?;
    let times = take_profile(&mut cx, &f.name)?;
    let trace = if extras.traced > 0 {
        cx.start_profile(true);
        repeat(&mut cx, 0.0, extras.traced)?;
        cx.take_profile()
    } else {
        None
    };
    let machine = Machine::known();
    let rows = rows(&times, &machine, isa, threads);
    Ok(Measured { stages, times, threads, isa, machine, trace, rows })
}

/// What a context has learned of the first function that it ran since [`RunContext::start_profile`].
pub(super) fn take_profile(cx: &mut RunContext, name: &str) -> Result<FunctionProfile, Failure> {
    let profile = cx.take_profile().and_then(|p| p.functions.into_iter().next());
    profile.ok_or_else(|| Failure::Other(format!("function `{name}` did not run")))
}

/// The steps that ran, those that took longest first.
pub(super) fn rows(times: &FunctionProfile, machine: &Machine, isa: Isa, threads: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = times
        .steps
        .iter()
        .zip(&times.times)
        .enumerate()
        .filter(|(_, (_, time))| time.count > 0)
        .map(|(i, (step, time))| row(i, step, *time, times, machine, isa, threads))
        .collect();
    rows.sort_by(|a, b| b.us.total_cmp(&a.us));
    rows
}

/// The least time that the machine needs for the arithmetic of an execution, and for its bytes, in nanoseconds.
fn least_ns(step: &StepInfo, machine: &Machine, isa: Isa, threads: usize) -> [f64; 2] {
    let threads = if step.parallel { threads } else { 1 };
    let arithmetic = step.flops as f64 / machine.gflops(isa, threads);
    [arithmetic, step.bytes as f64 / machine.gb_s(step.bytes as usize, threads)]
}

fn row(
    i: usize,
    step: &StepInfo,
    time: StepTime,
    all: &FunctionProfile,
    machine: &Machine,
    isa: Isa,
    threads: usize,
) -> Row {
    let (count, ns) = (time.count as f64, (time.total_ns as f64).max(1.0));
    let [arithmetic, bytes] = least_ns(step, machine, isa, threads);
    let limit = match () {
        () if step.flops == 0 && step.bytes == 0 => "",
        () if arithmetic > bytes => "arithmetic",
        () => "memory",
    };
    let runs = all.runs.max(1) as f64;
    Row {
        step: i,
        count: count / runs,
        us: ns / runs / 1e3,
        share: ns / all.wall_ns.max(1) as f64,
        gflops: step.flops as f64 * count / ns,
        gb_s: step.bytes as f64 * count / ns,
        bound_us: arithmetic.max(bytes) * count / runs / 1e3,
        limit,
    }
}

fn table(args: &Args, m: &Measured, out: &mut Out) -> Result<(), Failure> {
    let heading = out.style(output::HEADING);
    writeln!(
        out,
        "{} runs of @{} on {} thread{}, {:.1} us each; steps account for {:.1} % of it",
        m.times.runs,
        m.times.name,
        m.threads,
        if m.threads == 1 { "" } else { "s" },
        m.run_us(),
        100.0 * m.times.accounted()
    )?;
    let steps = &m.times.steps;
    let rows = &m.rows[..args.top.unwrap_or(usize::MAX).min(m.rows.len())];
    let width = rows.iter().map(|r| steps[r.step].name.len()).max().unwrap_or(0).max(6);
    writeln!(
        out,
        "{heading}{:<width$} {:>6} {:>10} {:>6} {:>8} {:>7} {:>9} {:>8}  {:<10}  made of{heading:#}",
        "kernel", "times", "us", "part", "GFLOP/s", "GB/s", "bound us", "of bound", "limit",
    )?;
    for r in rows {
        let step = &steps[r.step];
        let rate = |x: f64| if x > 0.0 { format!("{x:.1}") } else { String::new() };
        let of_bound =
            if r.bound_us > 0.0 { format!("{:.0} %", 100.0 * r.bound_us / r.us) } else { String::new() };
        let bound = if r.bound_us > 0.0 { format!("{:.2}", r.bound_us) } else { String::new() };
        writeln!(
            out,
            "{:<width$} {:>6} {:>10.2} {:>5.1}% {:>8} {:>7} {bound:>9} {of_bound:>8}  {:<10}  {}",
            step.name,
            (r.count * 10.0).round() / 10.0,
            r.us,
            100.0 * r.share,
            rate(r.gflops),
            rate(r.gb_s),
            r.limit,
            sources(step),
        )?;
    }
    let farthest: Vec<String> = farthest(&m.rows)
        .map(|r| {
            let lost = r.us - r.bound_us;
            format!("{} ({:.2} us, {:.1} % of a run)", steps[r.step].name, lost, 100.0 * lost / m.run_us())
        })
        .collect();
    if !farthest.is_empty() {
        writeln!(out, "farthest from their bound: {}", farthest.join(", "))?;
    }
    // Beside the figures of a build for debugging, which measures with slow code, all of them are.
    let beyond = |r: &&Row| !cfg!(debug_assertions) && r.share > 0.01 && r.bound_us > BEYOND * r.us;
    let beyond = m.rows.iter().filter(beyond).count();
    if beyond > 0 {
        writeln!(
            out,
            "{beyond} kernels are faster than the record of this machine allows: it was made beside other work. \
             `graphc machine --again` measures it again"
        )?;
    }
    Ok(())
}

/// The last node that a step computes, which is its result, and how many there are besides.
fn sources(step: &StepInfo) -> String {
    match step.sources.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [others @ .., last] => format!("{last} and {} more", others.len()),
    }
}

/// The three kernels that take longest beyond their bound.
fn farthest(rows: &[Row]) -> impl Iterator<Item = &Row> {
    let mut bounded: Vec<&Row> = rows.iter().filter(|r| r.bound_us > 0.0).collect();
    bounded.sort_by(|a, b| (b.us - b.bound_us).total_cmp(&(a.us - a.bound_us)));
    bounded.into_iter().take(3)
}

fn as_json(m: &Measured) -> Json {
    let steps: Vec<Json> = m
        .rows
        .iter()
        .map(|r| {
            let step = &m.times.steps[r.step];
            json!({
                "name": step.name, "count": r.count, "us": r.us, "share": r.share, "flops": step.flops,
                "bytes": step.bytes, "gflops": r.gflops, "gb_s": r.gb_s, "bound_us": r.bound_us,
                "limit": r.limit, "parallel": step.parallel, "sources": step.sources,
            })
        })
        .collect();
    let farthest: Vec<&str> = farthest(&m.rows).map(|r| m.times.steps[r.step].name.as_str()).collect();
    json!({
        "function": m.times.name, "threads": m.threads, "runs": m.times.runs, "us": m.run_us(),
        "accounted": m.times.accounted(), "steps": steps, "farthest_from_bound": farthest,
    })
}

/// Writes the events of a profile in Chrome's format, with a track for each thread.
fn write_trace(path: &Path, profile: &Profile) -> Result<(), Failure> {
    let mut events = Vec::new();
    let workers = profile.events.iter().map(|e| e.worker).max().unwrap_or(0);
    for worker in 0..=workers {
        let name = if worker == 0 { "main".to_owned() } else { format!("worker {worker}") };
        let args = json!({ "name": name });
        events.push(json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": worker, "args": args }));
    }
    for e in &profile.events {
        let step = &profile.functions[e.function].steps[e.step];
        events.push(json!({
            "name": step.name, "cat": if e.worker == 0 { "step" } else { "piece" }, "ph": "X", "pid": 1,
            "tid": e.worker, "ts": e.start_ns as f64 / 1e3, "dur": e.duration_ns as f64 / 1e3,
            "args": { "flops": step.flops, "bytes": step.bytes, "nodes": step.sources },
        }));
    }
    let text = json!({ "displayTimeUnit": "ns", "traceEvents": events }).to_string();
    output::file(path, text)
}
