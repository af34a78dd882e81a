//! `ceil`: elementwise rounding up.

use crate::builder::Tensor;
use super::rules::on_floats;
use crate::scalar::{ScalarBuilder, ScalarOp};

elementwise_op! {
    /// Elementwise least integral value that is not below `x`. Floats; keeps -0,
    /// infinities and NaN. Gradient: exactly zero everywhere.
    pub struct Ceil: 1 of FLOAT as "ceil";
    vjp: |_, _| [None];
    jvp: |_, _| None;
    eval: |x| on_floats(x[0], f32::ceil, f64::ceil);
    body: |b, x| b.op(ScalarOp::Ceil, &[x[0]]);
    samples: [(-4.0, 4.0)], adjusted by |x| x[0] = away_from_integers(x[0]);
}

impl<'f> Tensor<'f> {
    /// Least integral value that is not below `x`. See [`Ceil`].
    #[track_caller]
    pub fn ceil(self) -> Self {
        self.builder().push(Ceil {}, &[self])
    }
}
