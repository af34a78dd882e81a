//! `graphc bench --scale`: how the time of a training step grows with the size of the model and of its batches, beside the
//! least time that the machine could need.

use super::generator::initial_state;
use super::prepared::{Prepared, Setup};
use super::workloads::gpt_nano::Size;
use super::{Column, round};
use crate::{Failure, load};
use graphc::ModuleBuilder;
use graphc::machine::Machine;
use graphc_train::plot::Chart;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const COLUMNS: [Column; 10] = [
    ("workload", "along", 10, 0),
    ("times", "times", 6, 0),
    ("params_m", "M params", 10, 2),
    ("gflop", "GFLOP", 9, 1),
    ("compile_ms", "compile ms", 12, 0),
    ("plan_mb", "plan MB", 10, 0),
    ("state_mb", "state MB", 10, 0),
    ("median_ms", "median ms", 11, 1),
    ("bound_ms", "bound ms", 10, 1),
    ("of_bound", "of bound", 10, 2),
];

/// Memory beyond which a size is planned, but not run, in MiB.
const MOST_MB: f64 = 8192.0;

/// Fewest steps that are timed.
const MIN_STEPS: usize = 3;

/// One size of the model.
pub(super) struct Point {
    along: &'static str,
    times: usize,
    size: Size,
}

/// All sizes, axis by axis.
pub(super) fn points() -> Vec<Point> {
    let Size { layers, width, length, batch } = Size::NANO;
    let of = |along, list: &[usize], size: &dyn Fn(usize) -> Size| -> Vec<Point> {
        list.iter().map(|&times| Point { along, times, size: size(times) }).collect()
    };
    let doubled = [1, 2, 4, 8, 16, 32, 64];
    [
        of("depth", &doubled, &|n| Size { layers: n * layers, ..Size::NANO }),
        // The work grows with the square.
        of("width", &doubled[..4], &|n| Size { width: n * width, ..Size::NANO }),
        of("length", &doubled, &|n| Size { length: n * length, ..Size::NANO }),
        of("batch", &doubled, &|n| Size { batch: n * batch, ..Size::NANO }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Point {
    /// Compiles the training step, and runs it if there is memory for it.
    pub(super) fn measure(&self, setup: &Setup, seconds: f64) -> Result<Value, Failure> {
        let m = ModuleBuilder::new("gpt");
        self.size.declare(&m);
        let module = m.build().map_err(Failure::other)?;
        let params = load::parameters(&module);
        let (executable, stages, compile) = setup.compile(&module)?;
        let mb = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let state = mb(executable.state_layout().bytes());
        let plan = mb(executable.arena_bytes());
        let mut row = json!({
            "workload": self.along,
            "times": self.times,
            "params_m": round(params as f64 / 1e6, 3),
            "kernels": stages.assembled.program.kernels.len(),
            "compile_ms": round(compile.as_secs_f64() * 1e3, 1),
            "plan_mb": round(plan, 1),
            "state_mb": round(state, 1),
        });
        if plan + state > MOST_MB {
            return Ok(row);
        }
        let mut step = Prepared::with_compiled(
            &module,
            (executable, stages, compile),
            self.size.inputs(),
            setup,
            initial_state,
        )?;
        let (work, bound) = step.work_and_bound(&Machine::known(), setup)?;
        let timing = step.measure(seconds, MIN_STEPS, 1)?;
        row["gflop"] = json!(round(work as f64 / 1e9, 3));
        row["median_ms"] = json!(round(timing.median_us / 1e3, 3));
        row["min_ms"] = json!(round(timing.min_us / 1e3, 3));
        row["bound_ms"] = json!(round(bound / 1e3, 3));
        row["of_bound"] = json!(round(bound / timing.median_us, 3));
        Ok(row)
    }
}

/// Times of steps over their work, axis by axis.
#[derive(Default)]
pub(super) struct Curves(BTreeMap<&'static str, Vec<(f64, f64)>>);

impl Curves {
    /// Adds what was measured of a size, and its bound.
    pub(super) fn add(&mut self, point: &Point, row: &Value) {
        let number = |key: &str| row[key].as_f64();
        let (Some(work), Some(time), Some(bound)) =
            (number("gflop"), number("median_ms"), number("bound_ms"))
        else {
            return;
        };
        self.0.entry(point.along).or_default().push((work.log2(), time));
        self.0.entry("least").or_default().push((work.log2(), bound));
    }

    /// Draws them.
    pub(super) fn save(mut self, path: &Path) -> Result<(), Failure> {
        let chart =
            Chart::new("A training step of gpt_nano, larger and larger", "log2 of its GFLOP", "ms").log_y();
        let least = self.0.remove("least").unwrap_or_default();
        let chart = self.0.into_iter().fold(chart, |chart, (along, points)| chart.curve(along, points));
        chart.points("least possible", least).save(path).map_err(Failure::other)
    }
}
