//! A rise at the beginning, and one schedule after the other.

use super::Schedule;

/// See [`Schedule::after_warmup`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup<S> {
    schedule: S,
    steps: u64,
}

impl<S: Schedule> Warmup<S> {
    /// `schedule` after `steps` steps that rise.
    pub const fn new(schedule: S, steps: u64) -> Self {
        Self { schedule, steps }
    }
}

impl<S: Schedule> Schedule for Warmup<S> {
    fn learning_rate(&self, step: u64) -> f64 {
        if step < self.steps {
            self.schedule.learning_rate(0) * ((step + 1) as f64 / self.steps as f64)
        } else {
            self.schedule.learning_rate(step - self.steps)
        }
    }
}

/// See [`Schedule::then`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Then<A, B> {
    first: A,
    steps: u64,
    second: B,
}

impl<A: Schedule, B: Schedule> Then<A, B> {
    /// `first` for `steps` steps, then `second`.
    pub const fn new(first: A, steps: u64, second: B) -> Self {
        Self { first, steps, second }
    }
}

impl<A: Schedule, B: Schedule> Schedule for Then<A, B> {
    fn learning_rate(&self, step: u64) -> f64 {
        match step.checked_sub(self.steps) {
            Some(step) => self.second.learning_rate(step),
            None => self.first.learning_rate(step),
        }
    }
}

/// `scale / sqrt(width) * min(1 / sqrt(s), s / warmup^1.5)` with `s = step + 1` (Vaswani et al. 2017).
///
/// ```
/// use graphc_train::schedule::{Noam, Schedule};
/// let schedule = Noam::new(1.0, 64, 4);
/// assert!((schedule.learning_rate(3) - 0.0625).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noam {
    scale: f64,
    width: usize,
    warmup: u64,
}

impl Noam {
    /// For a model of this width; rises for `warmup` steps, at least one.
    pub const fn new(scale: f64, width: usize, warmup: u64) -> Self {
        Self { scale, width, warmup }
    }
}

impl Schedule for Noam {
    fn learning_rate(&self, step: u64) -> f64 {
        let (s, warmup) = ((step + 1) as f64, self.warmup.max(1) as f64);
        self.scale / (self.width as f64).sqrt() * (1.0 / s.sqrt()).min(s / warmup.powf(1.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Constant, Exponential};

    #[test]
    fn warmup_and_sequence() {
        let schedule = Exponential::new(1.0, 0.5).after_warmup(4);
        let lr = [0, 1, 3, 4, 5].map(|s| schedule.learning_rate(s));
        assert_eq!(lr, [0.25, 0.5, 1.0, 1.0, 0.5]);
        let schedule = Constant(1.0).then(2, Exponential::new(0.5, 0.5));
        assert_eq!([0, 1, 2, 3].map(|s| schedule.learning_rate(s)), [1.0, 1.0, 0.5, 0.25]);
        let noam = Noam::new(1.0, 64, 16);
        assert!((noam.learning_rate(15) - 1.0 / 8.0 / 4.0).abs() < 1e-15);
        assert!((noam.learning_rate(0) - 1.0 / 8.0 / 64.0).abs() < 1e-15);
        assert!((noam.learning_rate(63) - 1.0 / 8.0 / 8.0).abs() < 1e-15);
    }
}
