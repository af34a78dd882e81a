//! `cos`: elementwise cosine.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise cosine of an angle in radians. Floats; accuracy and edges: [`math::cos`].
    /// Gradient: `-ct * sin(x)`.
    pub struct Cos: 1 of FLOAT as "cos";
    vjp: |cx, ct| [Some(-(ct * cx.operands[0].sin()))];
    jvp: |cx, t| Some(-cx.operands[0].sin() * t[0]?);
    eval: |x| math::cos(&mut Native, x[0]);
    body: |b, x| math::cos(b, x[0]);
    samples: [(-6.0, 6.0)];
}

impl<'f> Tensor<'f> {
    /// The cosine; radians. See [`Cos`].
    #[track_caller]
    pub fn cos(self) -> Self {
        self.builder().push(Cos {}, &[self])
    }
}
