//! `graphc bench --compile`: how long compiling takes, and how close memory plans are to the least.

use super::prepared::Setup;
use super::workloads::{Workload, gpt_nano};
use super::{Column, Report, round};
use crate::Failure;
use graphc::{Module, ModuleBuilder};
use serde_json::json;

/// Compilations, of which the quickest counts: others wait for the machine.
const TIMES: usize = 9;

/// Largest plan, as a multiple of the most bytes alive at once, which no plan can be smaller than.
const LARGEST_PLAN: f64 = 1.1;

pub(super) const COLUMNS: [Column; 9] = [
    ("workload", "workload", 14, 0),
    ("nodes", "nodes", 8, 0),
    ("kernels", "kernels", 9, 0),
    ("code_kb", "code KB", 9, 0),
    ("compile_ms", "compile ms", 12, 1),
    ("budget_ms", "budget ms", 11, 0),
    ("plan_kb", "plan KB", 10, 0),
    ("lower_bound_kb", "least KB", 10, 0),
    ("ratio", "ratio", 7, 3),
];

/// The name of a deeper model, which is compiled but not run.
pub(super) const DEEP: &str = "gpt_12_layers";

/// How long that may take, in milliseconds.
const DEEP_MS: f64 = 400.0;

/// Compiles a workload several times. What took longer than `slack` times its budget, or more memory than
/// it should, is wrong.
pub(super) fn measure(workload: &Workload, setup: &Setup, slack: f64) -> Result<Report, Failure> {
    compile(workload.name, &workload.module()?, slack * workload.compile_ms, setup)
}

/// Compiles the training step of gpt_nano with 12 layers in the place of 4, as [`measure`] does.
pub(super) fn deep(setup: &Setup, slack: f64) -> Result<Report, Failure> {
    let m = ModuleBuilder::new(DEEP);
    gpt_nano::declare(&m, 12);
    compile(DEEP, &m.build().map_err(Failure::other)?, slack * DEEP_MS, setup)
}

fn compile(name: &str, module: &Module, budget: f64, setup: &Setup) -> Result<Report, Failure> {
    let (mut best, mut last) = (f64::INFINITY, None);
    for _ in 0..TIMES {
        let (_, stages, time) = setup.compile(module)?;
        best = best.min(time.as_secs_f64() * 1e3);
        last = Some(stages);
    }
    let stages = last.expect("it has been compiled");
    let plan = &stages.assembled.plan;
    let ratio = plan.bytes as f64 / plan.lower_bound.max(1) as f64;
    let mut wrong = Vec::new();
    if best > budget {
        wrong.push(format!("{name}: compiling took {best:.1} ms, more than {budget:.1} ms"));
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
        "compile_ms": round(best, 2),
        "budget_ms": budget,
        "plan_kb": round(plan.bytes as f64 / 1e3, 1),
        "lower_bound_kb": round(plan.lower_bound as f64 / 1e3, 1),
        "ratio": round(ratio, 4),
    });
    Ok(Report { row, wrong })
}
