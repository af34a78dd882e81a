//! `log1p`: elementwise `log(1 + x)`.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise `log(1 + x)`, accurate near 0. Floats; accuracy and edges: [`math::log1p`].
    /// Gradient: `ct / (1 + x)`.
    pub struct Log1p: 1 of FLOAT as "log1p";
    vjp: |cx, ct| [Some(ct / (cx.operands[0] + 1.0))];
    jvp: |cx, t| Some(t[0]? / (1.0 + cx.operands[0]));
    eval: |x| math::log1p(&mut Native, x[0]);
    body: |b, x| math::log1p(b, x[0]);
    samples: [(-0.5, 4.0)];
}

impl<'f> Tensor<'f> {
    /// `log(1 + x)`, accurate near 0. See [`Log1p`].
    #[track_caller]
    pub fn log1p(self) -> Self {
        self.builder().push(Log1p {}, &[self])
    }
}
