//! Reduction where nothing improves.

use serde::{Deserialize, Serialize};

/// Multiplies the learning rate by `factor` when a measure has not improved for more than `patience` epochs, as
/// `torch.optim.lr_scheduler.ReduceLROnPlateau`. It depends on what was measured, so it is state: serialize it to resume.
///
/// ```
/// use graphc_train::schedule::ReduceOnPlateau;
/// let mut plateau = ReduceOnPlateau::new(0.5, 1);
/// assert_eq!([0.9, 0.8, 0.85, 0.9, 0.7].map(|loss| plateau.update(loss)), [1.0, 1.0, 1.0, 0.5, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReduceOnPlateau {
    factor: f64,
    patience: u64,
    threshold: f64,
    least: f64,
    best: Option<f64>,
    bad: u64,
    scale: f64,
}

impl ReduceOnPlateau {
    /// Smaller measures are better, by a relative 1e-4 at least.
    pub const fn new(factor: f64, patience: u64) -> Self {
        Self { factor, patience, threshold: 1e-4, least: 0.0, best: None, bad: 0, scale: 1.0 }
    }

    /// Sets the least factor.
    pub const fn least(self, least: f64) -> Self {
        Self { least, ..self }
    }

    /// Takes the measure of an epoch, and gives the factor of the learning rate from now on.
    pub fn update(&mut self, measure: f64) -> f64 {
        // False for NaN.
        let better = self.best.is_none_or(|best| measure < best - self.threshold * best.abs());
        if better && !measure.is_nan() {
            (self.best, self.bad) = (Some(measure), 0);
        } else {
            self.bad += 1;
        }
        if self.bad > self.patience {
            self.scale = (self.scale * self.factor).max(self.least);
            self.bad = 0;
        }
        self.scale
    }

    /// The factor of the learning rate.
    pub const fn scale(&self) -> f64 {
        self.scale
    }
}
