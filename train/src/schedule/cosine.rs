//! Half cosines.

use super::{Schedule, anneal, progress};

/// From `lr` to `end` along a half cosine in `steps` steps, then `end` (Loshchilov and Hutter 2017).
///
/// ```
/// use graphc_train::schedule::{Cosine, Schedule};
/// let schedule = Cosine::new(0.4, 0.0, 10);
/// assert!((schedule.learning_rate(5) - 0.2).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    lr: f64,
    end: f64,
    steps: u64,
}

impl Cosine {
    /// From `lr` to `end`.
    pub const fn new(lr: f64, end: f64, steps: u64) -> Self {
        Self { lr, end, steps }
    }
}

impl Schedule for Cosine {
    fn learning_rate(&self, step: u64) -> f64 {
        anneal(self.lr, self.end, progress(step, self.steps))
    }
}

/// Half cosines from `lr` to `end`, one after the other; the first takes `steps` steps, each other `growth` times as many as
/// the one before (Loshchilov and Hutter 2017).
///
/// ```
/// use graphc_train::schedule::{CosineRestarts, Schedule};
/// let schedule = CosineRestarts::new(0.4, 0.0, 10, 2);
/// assert!((schedule.learning_rate(10) - 0.4).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineRestarts {
    lr: f64,
    end: f64,
    steps: u64,
    growth: u64,
}

impl CosineRestarts {
    /// 0 steps count as 1, no growth as 1.
    pub const fn new(lr: f64, end: f64, steps: u64, growth: u64) -> Self {
        Self { lr, end, steps, growth }
    }
}

impl Schedule for CosineRestarts {
    fn learning_rate(&self, step: u64) -> f64 {
        let (mut step, mut steps) = (step, self.steps.max(1));
        if self.growth <= 1 {
            step %= steps;
        }
        while step >= steps {
            step -= steps;
            steps = steps.saturating_mul(self.growth);
        }
        anneal(self.lr, self.end, progress(step, steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_cosines() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
        let cosine = Cosine::new(1.0, 0.2, 10);
        close(cosine.learning_rate(0), 1.0);
        close(cosine.learning_rate(5), 0.6);
        close(cosine.learning_rate(3), 0.2 + 0.4 * (1.0 + (std::f64::consts::PI * 0.3).cos()));
        close(cosine.learning_rate(10), 0.2);
        close(cosine.learning_rate(99), 0.2);
        // torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, T_0 2, T_mult 2: restarts at 2, 6, 14.
        let restarts = CosineRestarts::new(1.0, 0.0, 2, 2);
        for start in [0, 2, 6, 14] {
            close(restarts.learning_rate(start), 1.0);
        }
        close(restarts.learning_rate(1), 0.5);
        close(restarts.learning_rate(4), 0.5);
        close(restarts.learning_rate(5), 0.5 * (1.0 + (std::f64::consts::PI * 0.75).cos()));
        close(CosineRestarts::new(1.0, 0.0, 4, 1).learning_rate(4_000_000_002), 0.5);
    }
}
