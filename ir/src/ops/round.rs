//! `round`: elementwise rounding to nearest.

use crate::builder::Tensor;
use super::rules::on_floats;
use crate::scalar::ScalarBuilder;

elementwise_op! {
    /// Elementwise nearest integral value, ties to even. Floats; keeps -0,
    /// infinities and NaN. Gradient: exactly zero everywhere.
    pub struct Round: 1 of FLOAT as "round";
    vjp: |_, _| [None];
    jvp: |_, _| None;
    eval: |x| on_floats(x[0], f32::round_ties_even, f64::round_ties_even);
    body: |b, x| b.round(x[0]);
    samples: [(-4.0, 4.0)], adjusted by |x| x[0] = away_from_integers(x[0]) + 0.5;
}

impl<'f> Tensor<'f> {
    /// Nearest integral value, ties to even. See [`Round`].
    #[track_caller]
    pub fn round(self) -> Self {
        self.builder().push(Round {}, &[self])
    }
}
