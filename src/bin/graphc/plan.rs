//! `graphc plan`: the memory of a function's run, and what budgets of memory cost.

use super::{Failure, Out, load, run};
use crate::output::HEADING;
use bytesize::ByteSize;
use graphc::compiler::program::Step;
use graphc::compiler::{BufferReq, CompileError, Stages, compile_function, live_bytes, report, state_layout};
use graphc::ir::NodeId;
use graphc::{Bindings, CompileOptions, Function, Module, Session, ThreadPool, Value};
use serde_json::json;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

/// Steps whose results are compared, and that warm up.
const COMPARED: usize = 3;
/// Characters of a bar.
const WIDTH: usize = 40;
/// Steps that are timed.
const TIMED: usize = 15;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc plan model.gir --fn loss.grad --bind B=64
  graphc plan model.gir --fn train_step --budget 64MiB --budget 32MiB")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
    /// Fits the arena into this much memory, such as 64MiB or 1500000, by another order of steps and by
    /// computing values again; runs the function, and compares results and time with those without a budget.
    /// May be given several times
    #[arg(long, value_name = "SIZE")]
    budget: Vec<ByteSize>,
    /// Threads (all of the machine unless given)
    #[arg(long)]
    threads: Option<usize>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let module = load::module(&args.selection.file)?;
    let pool = load::pool(args.threads)?;
    for f in args.selection.functions(&module)? {
        let bindings = args.selection.bindings(&module, &f)?;
        let job = Job { module: &module, f: &f, bindings, pool: &pool };
        if args.budget.is_empty() && out.json() {
            out.value(&job.json(&job.compile(None).map_err(Failure::other)?))?;
            continue;
        }
        let open = match job.bindings.to_string() {
            bindings if bindings.is_empty() => String::new(),
            bindings => format!(" with {bindings}"),
        };
        if !out.json() {
            let h = out.style(HEADING);
            writeln!(out, "{h}fn @{}{open}{h:#}", f.name)?;
        }
        if args.budget.is_empty() {
            let stages = job.compile(None).map_err(Failure::other)?;
            write!(out, "{}", report(&stages.assembled.plan, &stages.assembled.requests))?;
            job.timeline(&stages, out)?;
        } else {
            job.budgets(&args.budget, out)?;
        }
    }
    Ok(())
}

struct Job<'a> {
    module: &'a Module,
    f: &'a Function,
    bindings: Bindings,
    pool: &'a Arc<ThreadPool>,
}

/// What a run with a budget gave.
struct Outcome {
    /// Time of a step, in milliseconds.
    ms: f64,
    /// All outputs and the state after some steps, as bytes.
    results: Vec<Vec<u8>>,
}

impl Job<'_> {
    fn options(&self, budget: Option<u64>) -> CompileOptions {
        CompileOptions { budget, max_threads: self.pool.num_threads(), ..CompileOptions::default() }
    }

    fn compile(&self, budget: Option<u64>) -> Result<Stages, CompileError> {
        let layout = Arc::new(state_layout(self.module)?);
        compile_function(self.f, &layout, &self.bindings, &self.options(budget)).map(|c| c.1)
    }

    /// What each step does.
    fn steps(&self, stages: &Stages) -> Vec<String> {
        let p = &stages.assembled.program;
        let node = |id: NodeId| match &stages.optimized.graph.node(id).origin.scope {
            Some(scope) => format!("{} @{scope}", stages.optimized.graph.op(id).name()),
            None => stages.optimized.graph.op(id).name().to_owned(),
        };
        let step = |s: &Step| match s {
            Step::Run(k) => {
                let kernel = &p.kernels[*k];
                // The last node is what the kernel is for.
                let of = kernel.sources.last().map_or(String::new(), |&id| format!(": {}", node(id)));
                format!("{}{of}", kernel.name)
            }
            Step::Check { bound, .. } => format!("check that indices are in 0..{bound}"),
        };
        p.steps.iter().map(step).collect()
    }

    /// A bar for the bytes alive at each step.
    fn timeline(&self, stages: &Stages, out: &mut Out) -> Result<(), Failure> {
        let (plan, steps) = (&stages.assembled.plan, self.steps(stages));
        let live = live_bytes(plan, &stages.assembled.requests, steps.len());
        writeln!(out, "\ntimeline, of {} bytes:", plan.bytes)?;
        writeln!(out, "{:>6} {:>14}  {:<WIDTH$}  step", "step", "alive", "")?;
        for (i, (bytes, what)) in live.iter().zip(&steps).enumerate() {
            let filled = (bytes * WIDTH).div_ceil(plan.bytes.max(1));
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
            let peak = if i == plan.peak_step && *bytes > 0 { " <- peak" } else { "" };
            writeln!(out, "{i:>6} {bytes:>14}  {bar}  {what}{peak}")?;
        }
        Ok(())
    }

    fn json(&self, stages: &Stages) -> serde_json::Value {
        let (plan, requests) = (&stages.assembled.plan, &stages.assembled.requests);
        let steps = self.steps(stages);
        let live = live_bytes(plan, requests, steps.len());
        let buffer = |(i, r): (usize, &BufferReq)| {
            json!({ "buffer": r.label, "offset": plan.offsets[i], "bytes": r.bytes, "first": r.first,
                "last": r.end(), "in_place_of": plan.shared_with[i] })
        };
        let step = |(what, bytes): (&String, &usize)| json!({ "step": what, "alive_bytes": bytes });
        json!({
            "function": *self.f.name,
            "bindings": self.bindings.to_string(),
            "arena_bytes": plan.bytes,
            "lower_bound_bytes": plan.lower_bound,
            "peak_step": plan.peak_step,
            "scratch_bytes_per_worker": stages.assembled.program.scratch_stride,
            "constants_bytes": stages.assembled.program.constants.len(),
            "buffers": requests.iter().enumerate().map(buffer).collect::<Vec<_>>(),
            "steps": steps.iter().zip(&live).map(step).collect::<Vec<_>>(),
        })
    }

    /// A table of the plan without a budget and of those with one.
    fn budgets(&self, budgets: &[ByteSize], out: &mut Out) -> Result<(), Failure> {
        let head = ("budget", "arena", "lower bound", "again", "compile ms", "step ms", "results");
        let (budget, arena, bound, again, compile, step, results) = head;
        if !out.json() {
            writeln!(
                out,
                "{budget:>12} {arena:>12} {bound:>12} {again:>6} {compile:>11} {step:>9}  {results}"
            )?;
        }
        let mut without = None;
        let mut failed = None;
        for budget in std::iter::once(None).chain(budgets.iter().map(|b| Some(b.as_u64()))) {
            let name = budget.map_or("none".to_owned(), |b| ByteSize(b).to_string());
            let stages = match self.compile(budget) {
                Ok(stages) => stages,
                Err(e @ CompileError::Budget { .. }) => {
                    if out.json() {
                        out.value(
                            &json!({ "function": *self.f.name, "budget_bytes": budget, "fits": false }),
                        )?;
                    } else {
                        writeln!(out, "{name:>12} does not fit")?;
                    }
                    failed = Some(e);
                    continue;
                }
                Err(e) => return Err(Failure::other(e)),
            };
            let outcome = self.run(budget)?;
            let same = match &without {
                None => "",
                Some(first) if *first == outcome.results => "the same bits",
                Some(_) => return Err(Failure::Other(format!("with a budget of {name} results differ"))),
            };
            let (a, p) = (&stages.assembled, &stages.assembled.program);
            let workers = self.pool.num_threads();
            if out.json() {
                out.value(&json!({
                    "function": *self.f.name,
                    "budget_bytes": budget,
                    "fits": true,
                    "arena_bytes": p.scratch_offset + p.scratch_stride * workers,
                    "lower_bound_bytes": a.plan.lower_bound,
                    "computed_again": a.again,
                    "compile_ms": stages.total_time().as_secs_f64() * 1e3,
                    "step_ms": outcome.ms,
                }))?;
                without.get_or_insert(outcome.results);
                continue;
            }
            let arena = ByteSize((p.scratch_offset + p.scratch_stride * workers) as u64).to_string();
            let bound = ByteSize(a.plan.lower_bound as u64).to_string();
            let compile = stages.total_time().as_secs_f64() * 1e3;
            let (again, step) = (a.again, outcome.ms);
            writeln!(
                out,
                "{name:>12} {arena:>12} {bound:>12} {again:>6} {compile:>11.1} {step:>9.3}  {same}"
            )?;
            without.get_or_insert(outcome.results);
        }
        failed.map_or(Ok(()), |e| Err(Failure::other(e)))
    }

    /// Runs some steps from the initial state of seed 1 on made-up inputs.
    fn run(&self, budget: Option<u64>) -> Result<Outcome, Failure> {
        let mut module = self.module.clone();
        if module.function(&self.f.name).is_none() {
            module.functions.push(self.f.clone());
        }
        let bound = self.f.bind(&self.bindings).map_err(Failure::other)?;
        let inputs = run::inputs(&[], 1, &bound);
        let named: Vec<(&str, Value<'_>)> = inputs.iter().map(|(n, e)| (n.as_str(), e.value())).collect();
        let dims: Vec<(&str, usize)> = self.bindings.iter().collect();
        let mut session =
            Session::with(module, 1, self.pool.clone(), self.options(budget)).map_err(Failure::other)?;
        let mut results: Vec<Vec<u8>> = Vec::new();
        for _ in 0..COMPARED {
            let outputs = session.run_with(&self.f.name, &dims, &named).map_err(Failure::other)?;
            results.extend(outputs.iter().map(|(_, _, value)| value.as_bytes().to_vec()));
        }
        results.extend(session.state().iter().map(|(_, value)| value.as_bytes().to_vec()));
        let mut times = Vec::with_capacity(TIMED);
        for _ in 0..TIMED {
            let started = Instant::now();
            session.run_with(&self.f.name, &dims, &named).map_err(Failure::other)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(Outcome { ms: times[TIMED / 2], results })
    }
}
