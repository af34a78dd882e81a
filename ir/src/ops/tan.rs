//! `tan`: elementwise tangent.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise tangent of an angle in radians. Floats; accuracy and edges: [`math::tan`].
    /// Gradient: `ct * (1 + tan(x)^2)`, from the result.
    pub struct Tan: 1 of FLOAT as "tan";
    vjp: |cx, ct| [Some(ct * (cx.result * cx.result + 1.0))];
    jvp: |cx, t| Some(t[0]? / cx.operands[0].cos().square());
    eval: |x| math::tan(&mut Native, x[0]);
    body: |b, x| math::tan(b, x[0]);
    samples: [(-1.1, 1.1)];
}

impl<'f> Tensor<'f> {
    /// The tangent; radians. See [`Tan`].
    #[track_caller]
    pub fn tan(self) -> Self {
        self.builder().push(Tan {}, &[self])
    }
}
