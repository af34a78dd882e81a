//! `sin`: elementwise sine.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise sine of an angle in radians. Floats; accuracy and edges: [`math::sin`].
    /// Gradient: `ct * cos(x)`.
    pub struct Sin: 1 of FLOAT as "sin";
    vjp: |cx, ct| [Some(ct * cx.operands[0].cos())];
    jvp: |cx, t| Some(cx.operands[0].cos() * t[0]?);
    eval: |x| math::sin(&mut Native, x[0]);
    body: |b, x| math::sin(b, x[0]);
    samples: [(-6.0, 6.0)];
}

impl<'f> Tensor<'f> {
    /// The sine; radians. See [`Sin`].
    #[track_caller]
    pub fn sin(self) -> Self {
        self.builder().push(Sin {}, &[self])
    }
}
