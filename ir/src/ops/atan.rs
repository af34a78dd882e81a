//! `atan`: elementwise inverse tangent.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise inverse tangent, in radians from `-pi/2` to `pi/2`. Floats; accuracy and edges:
    /// [`math::atan`]. Gradient: `ct / (1 + x^2)`.
    pub struct Atan: 1 of FLOAT as "atan";
    vjp: |cx, ct| [Some(ct / (cx.operands[0].square() + 1.0))];
    jvp: |cx, t| Some(t[0]? / (cx.operands[0].square() + 1.0));
    eval: |x| math::atan(&mut Native, x[0]);
    body: |b, x| math::atan(b, x[0]);
    samples: [(-4.0, 4.0)];
}

impl<'f> Tensor<'f> {
    /// The inverse tangent; radians. See [`Atan`].
    #[track_caller]
    pub fn atan(self) -> Self {
        self.builder().push(Atan {}, &[self])
    }
}
