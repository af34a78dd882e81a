//! Schedules of the learning rate: functions of the number of the step, which the host evaluates and writes into the state
//! between steps, so that nothing is compiled again. They compose:
//!
//! ```
//! use graphc_train::schedule::{Cosine, Schedule};
//!
//! // 100 steps up, then down along a half cosine until step 1000.
//! let schedule = Cosine::new(1e-3, 1e-5, 900).after_warmup(100);
//! assert_eq!(schedule.learning_rate(0), 1e-5);
//! assert_eq!(schedule.learning_rate(99), 1e-3);
//! assert_eq!(schedule.learning_rate(1000), 1e-5);
//! ```

mod cosine;
mod decay;
mod one_cycle;
mod plateau;
mod warmup;

pub use cosine::{Cosine, CosineRestarts};
pub use decay::{Constant, Exponential, MultiStep, Polynomial, StepDecay};
pub use one_cycle::OneCycle;
pub use plateau::ReduceOnPlateau;
pub use warmup::{Noam, Then, Warmup};

/// A learning rate for every step.
pub trait Schedule {
    /// The learning rate of step `step`, counted from 0.
    fn learning_rate(&self, step: u64) -> f64;

    /// Rises linearly to the first learning rate of this schedule over `steps` steps, then follows it: in step `s` of the
    /// rise it is `(s + 1) / steps` of that.
    fn after_warmup(self, steps: u64) -> Warmup<Self>
    where
        Self: Sized,
    {
        Warmup::new(self, steps)
    }

    /// Follows this schedule for `steps` steps, then `next` from its beginning.
    fn then<S: Schedule>(self, steps: u64, next: S) -> Then<Self, S>
    where
        Self: Sized,
    {
        Then::new(self, steps, next)
    }
}

impl<S: Schedule + ?Sized> Schedule for Box<S> {
    fn learning_rate(&self, step: u64) -> f64 {
        (**self).learning_rate(step)
    }
}

impl<S: Schedule + ?Sized> Schedule for &S {
    fn learning_rate(&self, step: u64) -> f64 {
        (**self).learning_rate(step)
    }
}

/// How far `step` is of `steps`, in `0..=1`; 1 if there are none.
fn progress(step: u64, steps: u64) -> f64 {
    if step >= steps { 1.0 } else { step as f64 / steps as f64 }
}

/// From `start` (at 0) to `end` (at 1) along a half cosine.
fn anneal(start: f64, end: f64, progress: f64) -> f64 {
    // Exact at both ends.
    match progress {
        0.0 => start,
        1.0 => end,
        p => end + (start - end) * 0.5 * (1.0 + (std::f64::consts::PI * p).cos()),
    }
}
