//! What a run gave.

use super::{EpochRecord, Stopped};
use std::fmt;
use std::path::PathBuf;

/// What a run gave; printed, a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Why it ended.
    pub stopped: Stopped,
    /// All epochs, those before it was resumed included.
    pub history: Vec<EpochRecord>,
    /// The best measure.
    pub best: Option<f64>,
    /// Steps done in all.
    pub steps: u64,
    /// The checkpoint it went on from.
    pub resumed_from: Option<PathBuf>,
    /// Newer checkpoints that were damaged, and how.
    pub damaged: Vec<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            stopped: Stopped::Finished,
            history: Vec::new(),
            best: None,
            steps: 0,
            resumed_from: None,
            damaged: Vec::new(),
        }
    }
}

impl Report {
    /// Mean loss of the last epoch; NaN if there is none.
    pub fn last_loss(&self) -> f64 {
        self.history.last().map_or(f64::NAN, |r| r.loss)
    }

    /// A measure of the last epoch; NaN if there is none.
    pub fn last(&self, metric: &str) -> f64 {
        self.history.last().and_then(|r| r.metrics.get(metric)).copied().unwrap_or(f64::NAN)
    }

    /// The loss of each epoch.
    pub fn losses(&self) -> Vec<f64> {
        self.history.iter().map(|r| r.loss).collect()
    }

    /// A measure of each epoch.
    pub fn metric(&self, name: &str) -> Vec<f64> {
        self.history.iter().map(|r| r.metrics.get(name).copied().unwrap_or(f64::NAN)).collect()
    }
}

/// Rows of a printed table at most.
const ROWS: usize = 12;

impl fmt::Display for Report {
    /// Epochs, evenly spaced if they are many, and the last one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.resumed_from {
            writeln!(f, "resumed from {}", path.display())?;
        }
        self.damaged.iter().try_for_each(|d| writeln!(f, "damaged: {d}"))?;
        let names: Vec<&String> = self.history.first().map_or(Vec::new(), |r| r.metrics.keys().collect());
        write!(f, "{:>6} {:>8} {:>12} {:>10}", "epoch", "step", "loss", "lr")?;
        names.iter().try_for_each(|name| write!(f, " {name:>12}"))?;
        writeln!(f, " {:>10}", "rows/s")?;
        let every = self.history.len().div_ceil(ROWS).max(1);
        for (i, r) in self.history.iter().enumerate() {
            if (i + 1) % every != 0 && i + 1 != self.history.len() {
                continue;
            }
            write!(f, "{:>6} {:>8} {:>12.6} {:>10.2e}", r.epoch, r.step, r.loss, r.learning_rate)?;
            for name in &names {
                write!(f, " {:>12.5}", r.metrics.get(*name).copied().unwrap_or(f64::NAN))?;
            }
            writeln!(f, " {:>10.0}", r.rows_per_second())?;
        }
        let seconds: f64 = self.history.iter().map(|r| r.seconds).sum();
        let why = match self.stopped {
            Stopped::Finished => "finished",
            Stopped::Early => "stopped early",
            Stopped::Callback => "stopped by a callback",
            Stopped::Interrupted => "interrupted",
        };
        write!(f, "{why} after {} steps, {seconds:.2} s of training", self.steps)
    }
}
