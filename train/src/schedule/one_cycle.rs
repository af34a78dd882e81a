//! One cycle.

use super::{Schedule, anneal, progress};

/// Up and down once (Smith and Topin 2018), as `torch.optim.lr_scheduler.OneCycleLR`: a half cosine from `peak / 25` to `peak` in the
/// first 30 % of the steps, then one to `peak / 250000`.
///
/// ```
/// use graphc_train::schedule::{OneCycle, Schedule};
/// let schedule = OneCycle::new(0.4, 10);
/// assert!((schedule.learning_rate(2) - 0.4).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    peak: f64,
    steps: u64,
    rise: f64,
    start_divisor: f64,
    end_divisor: f64,
}

impl OneCycle {
    /// Over `steps` steps.
    pub const fn new(peak: f64, steps: u64) -> Self {
        Self { peak, steps, rise: 0.3, start_divisor: 25.0, end_divisor: 1e4 }
    }

    /// Sets the share of the steps that rise, in `0..1`.
    pub const fn rise(self, rise: f64) -> Self {
        Self { rise, ..self }
    }

    /// Sets how many times smaller than the peak the first learning rate is, and how many times smaller than the first the last.
    pub const fn divisors(self, start: f64, end: f64) -> Self {
        Self { start_divisor: start, end_divisor: end, ..self }
    }
}

impl Schedule for OneCycle {
    fn learning_rate(&self, step: u64) -> f64 {
        let start = self.peak / self.start_divisor;
        let end = start / self.end_divisor;
        // The last step ends the cycle.
        let position = progress(step, self.steps.saturating_sub(1)) * self.steps.saturating_sub(1) as f64;
        let top = (self.rise * self.steps as f64 - 1.0).max(0.0);
        let last = self.steps.saturating_sub(1) as f64;
        if position <= top && top > 0.0 {
            anneal(start, self.peak, position / top)
        } else if last > top {
            anneal(self.peak, end, ((position - top) / (last - top)).min(1.0))
        } else {
            end
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_pytorch() {
        // OneCycleLR(max_lr=1.0, total_steps=20) of PyTorch 2.15.
        let expected = [
            (0, 0.04),
            (2, 0.371_671_842_700_025_2),
            (5, 1.0),
            (10, 0.716_943_001_791_300_8),
            (15, 0.188_258_346_050_236_97),
            (19, 4e-6),
        ];
        let schedule = OneCycle::new(1.0, 20);
        for (step, lr) in expected {
            assert!(
                (schedule.learning_rate(step) - lr).abs() < 1e-6,
                "{step}: {}",
                schedule.learning_rate(step)
            );
        }
        assert_eq!(schedule.learning_rate(100), schedule.learning_rate(19));
    }
}
