//! A progress bar over the batches of all epochs, on standard error, with loss and throughput.

use crate::metrics::RunningMean;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Instant;

/// Shows how far a training run is. Nothing is written unless standard error is a terminal.
///
/// ```
/// # use graphc_train::progress::Progress;
/// let mut progress = Progress::new(2, 10);
/// for epoch in 0..2 {
///     for _ in 0..10 {
///         progress.batch(50, 0.3);
///     }
///     progress.epoch(&format!("test accuracy {:.1} %", 97.0));
/// }
/// progress.finish();
/// ```
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    epochs: u64,
    epoch: u64,
    loss: RunningMean,
    rows: u64,
    started: Instant,
}

impl Progress {
    /// A bar for `epochs` epochs of `batches` batches.
    pub fn new(epochs: usize, batches: usize) -> Self {
        let visible = std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self::on(target, epochs as u64, batches as u64)
    }

    /// A bar that is not shown, whatever standard error is.
    pub fn hidden() -> Self {
        Self::on(ProgressDrawTarget::hidden(), 0, 0)
    }

    fn on(target: ProgressDrawTarget, epochs: u64, batches: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(epochs.saturating_mul(batches)), target);
        let template = "{prefix} [{bar:30}] {pos}/{len} {elapsed} (left {eta}) {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let (loss, started) = (RunningMean::default(), Instant::now());
        let progress = Self { bar, epochs, epoch: 0, loss, rows: 0, started };
        progress.prefix();
        progress
    }

    fn prefix(&self) {
        if !self.bar.is_hidden() {
            let current = (self.epoch + 1).min(self.epochs);
            self.bar.set_prefix(format!("epoch {current}/{}", self.epochs));
        }
    }

    /// A batch of `rows` rows with mean loss `loss` is done.
    pub fn batch(&mut self, rows: usize, loss: f64) {
        self.loss.add(loss, rows);
        self.rows += rows as u64;
        if !self.bar.is_hidden() {
            let (loss, rate) = (self.loss.get(), self.rows_per_second());
            self.bar.set_message(format!("loss {loss:.4}, {rate:.0} rows/s"));
        }
        self.bar.inc(1);
    }

    /// An epoch is done: writes a line with its mean loss and `note`, and gives the mean loss.
    pub fn epoch(&mut self, note: &str) -> f64 {
        let loss = std::mem::take(&mut self.loss).get();
        self.epoch += 1;
        if !self.bar.is_hidden() {
            let (epoch, epochs) = (self.epoch, self.epochs);
            let separator = if note.is_empty() { "" } else { ", " };
            self.bar.println(format!("epoch {epoch}/{epochs}: loss {loss:.4}{separator}{note}"));
        }
        self.prefix();
        loss
    }

    /// Rows per second since the beginning, whatever else was done in between.
    pub fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.started.elapsed().as_secs_f64()
    }

    /// Leaves the bar as it is.
    pub fn finish(self) {
        self.bar.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_without_a_terminal() {
        let mut progress = Progress::on(ProgressDrawTarget::hidden(), 2, 2);
        progress.batch(3, 1.0);
        progress.batch(1, 5.0);
        assert_eq!(progress.epoch("note"), 2.0);
        progress.batch(1, 7.0);
        assert_eq!(progress.epoch(""), 7.0);
        assert_eq!((progress.bar.position(), progress.rows), (3, 5));
        assert!(progress.rows_per_second() > 0.0);
        progress.finish();
    }
}
