//! `exp`: elementwise exponential.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise exponential: `e^x`. Floats; accuracy and edges: [`math::exp`].
    /// Gradient: `ct * exp(x)`, from the result.
    pub struct Exp: 1 of FLOAT as "exp";
    vjp: |cx, ct| [Some(ct * cx.result)];
    jvp: |cx, t| Some(cx.result * t[0]?);
    eval: |x| math::exp(&mut Native, x[0]);
    body: |b, x| math::exp(b, x[0]);
    samples: [(-3.0, 3.0)];
}

impl<'f> Tensor<'f> {
    /// `e^x`. See [`Exp`].
    #[track_caller]
    pub fn exp(self) -> Self {
        self.builder().push(Exp {}, &[self])
    }
}
