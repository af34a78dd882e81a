//! `expm1`: elementwise `e^x - 1`.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise `e^x - 1`, accurate near 0. Floats; accuracy and edges: [`math::expm1`].
    /// Gradient: `ct * exp(x)`; not `result + 1`, which has no digits left for very negative `x`.
    pub struct Expm1: 1 of FLOAT as "expm1";
    vjp: |cx, ct| [Some(ct * cx.operands[0].exp())];
    jvp: |cx, t| Some(cx.operands[0].exp() * t[0]?);
    eval: |x| math::expm1(&mut Native, x[0]);
    body: |b, x| math::expm1(b, x[0]);
    samples: [(-3.0, 3.0)];
}

impl<'f> Tensor<'f> {
    /// `e^x - 1`, accurate near 0. See [`Expm1`].
    #[track_caller]
    pub fn expm1(self) -> Self {
        self.builder().push(Expm1 {}, &[self])
    }
}
