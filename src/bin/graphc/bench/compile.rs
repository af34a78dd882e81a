//! `graphc bench --compile`: how long compiling takes, also where the code is in a file, how close memory plans are to the
//! least, and whether the process grows by what was planned.

use super::prepared::{Prepared, Setup};
use super::timing::resident_mb;
use super::workloads::Workload;
use super::workloads::gpt_nano::Size;
use super::{Column, Report, round};
use crate::Failure;
use graphc::compiler::CodeCache;
use graphc::{Module, ModuleBuilder};
use serde_json::json;
use std::time::Duration;

/// Compilations, of which the quickest counts: others wait for the machine.
const TIMES: usize = 9;

/// Largest plan, as a multiple of the most bytes alive at once, which no plan can be smaller than.
const LARGEST_PLAN: f64 = 1.1;

pub(super) const COLUMNS: [Column; 12] = [
    ("workload", "workload", 14, 0),
    ("nodes", "nodes", 8, 0),
    ("kernels", "kernels", 9, 0),
    ("code_kb", "code KB", 9, 0),
    ("compile_ms", "compile ms", 12, 1),
    ("budget_ms", "budget ms", 11, 0),
    ("cached_ms", "cached ms", 11, 1),
    ("plan_kb", "plan KB", 10, 0),
    ("lower_bound_kb", "least KB", 10, 0),
    ("ratio", "ratio", 7, 3),
    ("planned_mb", "planned MB", 12, 1),
    ("grown_mb", "grown by MB", 13, 1),
];

/// How long it may take to get code of a workload from a file, in milliseconds.
const CACHED_MS: f64 = 10.0;

/// The name of a deeper model, which is compiled but not run.
pub(super) const DEEP: &str = "gpt_12_layers";

/// How long that may take, and getting its code from a file, in milliseconds.
const DEEP_MS: [f64; 2] = [400.0, 25.0];

/// How far from the plan the growth of the process may be: so many MiB, and a part of the plan.
const UNPLANNED: (f64, f64) = (16.0, 0.05);

/// Compiles a workload several times and runs a step. What took longer than `slack` times its budget, or other memory
/// than it should, is wrong.
pub(super) fn measure(workload: &Workload, setup: &Setup, slack: f64) -> Result<Report, Failure> {
    let module = workload.module()?;
    let mut report = compile(workload.name, &module, [workload.compile_ms, CACHED_MS], setup, slack)?;
    let inputs = workload.inputs(&module);
    let before = resident_mb();
    let mut step = Prepared::new(&module, inputs, setup)?;
    step.run()?;
    let (grown, planned) = (resident_mb() - before, step.planned_mb());
    report.row["planned_mb"] = json!(round(planned, 2));
    report.row["grown_mb"] = json!(round(grown, 2));
    let (constant, part) = UNPLANNED;
    // Where there is no `/proc`, nothing is known.
    if before > 0.0 && (grown - planned).abs() > constant + part * planned {
        let name = workload.name;
        report
            .wrong
            .push(format!("{name}: the process grew by {grown:.1} MiB, planned were {planned:.1} MiB"));
    }
    Ok(report)
}

/// Compiles the training step of gpt_nano with 12 layers in the place of 4, as [`measure`] does.
pub(super) fn deep(setup: &Setup, slack: f64) -> Result<Report, Failure> {
    let m = ModuleBuilder::new(DEEP);
    Size { layers: 12, ..Size::NANO }.declare(&m);
    compile(DEEP, &m.build().map_err(Failure::other)?, DEEP_MS, setup, slack)
}

/// The quickest of several, in milliseconds, and the last result.
fn best<T>(mut call: impl FnMut() -> Result<(T, Duration), Failure>) -> Result<(f64, T), Failure> {
    let (mut value, mut best) = call()?;
    for _ in 1..TIMES {
        let (next, time) = call()?;
        (value, best) = (next, best.min(time));
    }
    Ok((best.as_secs_f64() * 1e3, value))
}

fn compile(
    name: &str,
    module: &Module,
    budgets_ms: [f64; 2],
    setup: &Setup,
    slack: f64,
) -> Result<Report, Failure> {
    let (compile_ms, stages) = best(|| setup.compile(module).map(|(_, stages, time)| (stages, time)))?;
    let folder = tempfile::tempdir().map_err(Failure::other)?;
    let cache = CodeCache::new(folder.path());
    setup.compile_with(&cache, module)?;
    let (cached_ms, _) = best(|| setup.compile_with(&cache, module).map(|time| ((), time)))?;
    let plan = &stages.assembled.plan;
    let ratio = plan.bytes as f64 / plan.lower_bound.max(1) as f64;
    let mut wrong = Vec::new();
    let times =
        [("compiling", compile_ms, budgets_ms[0]), ("getting code from a file", cached_ms, budgets_ms[1])];
    for (what, ms, budget) in times {
        let most = slack * budget;
        if ms > most {
            wrong.push(format!("{name}: {what} took {ms:.1} ms, more than {most:.1} ms"));
        }
    }
    if ratio > LARGEST_PLAN {
        wrong
            .push(format!("{name}: the plan has {ratio:.3} times the least bytes, more than {LARGEST_PLAN}"));
    }
    let kernels: usize = stages.assembled.program.all().iter().map(|p| p.kernels.len()).sum();
    let row = json!({
        "workload": name,
        "nodes": stages.bound.graph.len(),
        "kernels": kernels,
        "code_kb": round(stages.code_bytes as f64 / 1e3, 1),
        "compile_ms": round(compile_ms, 2),
        "budget_ms": budgets_ms[0],
        "cached_ms": round(cached_ms, 2),
        "plan_kb": round(plan.bytes as f64 / 1e3, 1),
        "lower_bound_kb": round(plan.lower_bound as f64 / 1e3, 1),
        "ratio": round(ratio, 4),
    });
    Ok(Report { row, wrong })
}
