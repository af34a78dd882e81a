//! `sqrt`: elementwise square root.

use crate::builder::Tensor;
use super::rules::on_floats;
use crate::scalar::ScalarBuilder;

elementwise_op! {
    /// Elementwise square root, correctly rounded. Floats; -0 is kept, NaN below 0.
    /// Gradient: `ct / 2 / sqrt(x)`, from the result; infinite at 0.
    pub struct Sqrt: 1 of FLOAT as "sqrt";
    vjp: |cx, ct| [Some(ct * 0.5 / cx.result)];
    jvp: |cx, t| Some(t[0]? / (cx.result * 2.0));
    eval: |x| on_floats(x[0], f32::sqrt, f64::sqrt);
    body: |b, x| b.sqrt(x[0]);
    samples: [(0.5, 4.0)];
}

impl<'f> Tensor<'f> {
    /// The square root. See [`Sqrt`].
    #[track_caller]
    pub fn sqrt(self) -> Self {
        self.builder().push(Sqrt {}, &[self])
    }
}
