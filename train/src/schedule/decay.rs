//! Constant, and what falls by factors or powers.

use super::{Schedule, progress};

/// One learning rate for all steps.
///
/// ```
/// use graphc_train::schedule::{Constant, Schedule};
/// let schedule = Constant(0.1);
/// assert!((schedule.learning_rate(7) - 0.1).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant(pub f64);

impl Schedule for Constant {
    fn learning_rate(&self, _: u64) -> f64 {
        self.0
    }
}

/// `lr * factor^floor(step / every)`.
///
/// ```
/// use graphc_train::schedule::{StepDecay, Schedule};
/// let schedule = StepDecay::new(0.8, 10, 0.5);
/// assert!((schedule.learning_rate(25) - 0.2).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepDecay {
    lr: f64,
    every: u64,
    factor: f64,
}

impl StepDecay {
    /// Multiplies by `factor` after each `every` steps; 0 counts as 1.
    pub const fn new(lr: f64, every: u64, factor: f64) -> Self {
        Self { lr, every, factor }
    }
}

impl Schedule for StepDecay {
    fn learning_rate(&self, step: u64) -> f64 {
        self.lr * self.factor.powf((step / self.every.max(1)) as f64)
    }
}

/// `lr * factor^n`, `n` being the number of milestones at or before the step.
///
/// ```
/// use graphc_train::schedule::{MultiStep, Schedule};
/// let schedule = MultiStep::new(0.8, &[10, 20], 0.5);
/// assert!((schedule.learning_rate(25) - 0.2).abs() < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStep {
    lr: f64,
    milestones: Vec<u64>,
    factor: f64,
}

impl MultiStep {
    /// Multiplies by `factor` at each of `milestones`, in any order.
    pub fn new(lr: f64, milestones: &[u64], factor: f64) -> Self {
        Self { lr, milestones: milestones.to_vec(), factor }
    }
}

impl Schedule for MultiStep {
    fn learning_rate(&self, step: u64) -> f64 {
        let passed = self.milestones.iter().filter(|&&m| m <= step).count();
        self.lr * self.factor.powf(passed as f64)
    }
}

/// `lr * factor^step`.
///
/// ```
/// use graphc_train::schedule::{Exponential, Schedule};
/// let schedule = Exponential::new(0.8, 0.5);
/// assert!((schedule.learning_rate(2) - 0.2).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    lr: f64,
    factor: f64,
}

impl Exponential {
    /// Multiplies by `factor` after each step.
    pub const fn new(lr: f64, factor: f64) -> Self {
        Self { lr, factor }
    }
}

impl Schedule for Exponential {
    fn learning_rate(&self, step: u64) -> f64 {
        self.lr * self.factor.powf(step as f64)
    }
}

/// `end + (lr - end) * (1 - step / steps)^power`, then `end`. Power 1: linear.
///
/// ```
/// use graphc_train::schedule::{Polynomial, Schedule};
/// let schedule = Polynomial::linear(0.8, 0.0, 4);
/// assert!((schedule.learning_rate(3) - 0.2).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Polynomial {
    lr: f64,
    end: f64,
    steps: u64,
    power: f64,
}

impl Polynomial {
    /// From `lr` to `end` in `steps` steps.
    pub const fn new(lr: f64, end: f64, steps: u64, power: f64) -> Self {
        Self { lr, end, steps, power }
    }

    /// Along a line.
    pub const fn linear(lr: f64, end: f64, steps: u64) -> Self {
        Self::new(lr, end, steps, 1.0)
    }
}

impl Schedule for Polynomial {
    fn learning_rate(&self, step: u64) -> f64 {
        self.end + (self.lr - self.end) * (1.0 - progress(step, self.steps)).powf(self.power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        let of = |s: &dyn Schedule| [0, 1, 2, 5, 9].map(|step| s.learning_rate(step));
        let close = |got: [f64; 5], expected: [f64; 5]| {
            got.iter()
                .zip(expected)
                .for_each(|(a, b)| assert!((a - b).abs() < 1e-15, "{got:?} {expected:?}"));
        };
        close(of(&Constant(0.3)), [0.3; 5]);
        // torch.optim.lr_scheduler: StepLR, MultiStepLR, ExponentialLR, PolynomialLR.
        close(of(&StepDecay::new(1.0, 2, 0.5)), [1.0, 1.0, 0.5, 0.25, 0.0625]);
        close(of(&MultiStep::new(1.0, &[5, 2], 0.1)), [1.0, 1.0, 0.1, 0.01, 0.01]);
        close(of(&Exponential::new(2.0, 0.5)), [2.0, 1.0, 0.5, 0.0625, 0.00390625]);
        close(of(&Polynomial::new(1.0, 0.0, 5, 2.0)), [1.0, 0.64, 0.36, 0.0, 0.0]);
        close(of(&Polynomial::linear(1.0, 0.5, 5)), [1.0, 0.9, 0.8, 0.5, 0.5]);
        close(of(&Polynomial::linear(1.0, 0.5, 0)), [0.5; 5]);
    }
}
