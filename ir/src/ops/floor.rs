//! `floor`: elementwise rounding down.

use crate::builder::Tensor;
use super::rules::on_floats;
use crate::scalar::{ScalarBuilder, ScalarOp};

elementwise_op! {
    /// Elementwise greatest integral value that is not above `x`. Floats; keeps -0,
    /// infinities and NaN. Gradient: exactly zero everywhere.
    pub struct Floor: 1 of FLOAT as "floor";
    vjp: |_, _| [None];
    jvp: |_, _| None;
    eval: |x| on_floats(x[0], f32::floor, f64::floor);
    body: |b, x| b.op(ScalarOp::Floor, &[x[0]]);
    samples: [(-4.0, 4.0)], adjusted by |x| x[0] = away_from_integers(x[0]);
}

impl<'f> Tensor<'f> {
    /// Greatest integral value that is not above `x`. See [`Floor`].
    #[track_caller]
    pub fn floor(self) -> Self {
        self.builder().push(Floor {}, &[self])
    }
}
