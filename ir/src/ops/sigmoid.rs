//! `sigmoid`: elementwise logistic function.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise logistic function: `1 / (1 + e^-x)`, in `[0, 1]`. Floats; accuracy and edges:
    /// [`math::sigmoid`]. Gradient: `ct * s * (1 - s)` with `s = sigmoid(x)`, from the result.
    pub struct Sigmoid: 1 of FLOAT as "sigmoid";
    vjp: |cx, ct| [Some(ct * (cx.result * (1.0 - cx.result)))];
    jvp: |cx, t| Some(t[0]? * cx.result * (-cx.operands[0]).sigmoid());
    eval: |x| math::sigmoid(&mut Native, x[0]);
    body: |b, x| math::sigmoid(b, x[0]);
    samples: [(-4.0, 4.0)];
}

impl<'f> Tensor<'f> {
    /// The logistic function `1 / (1 + e^-x)`. See [`Sigmoid`].
    #[track_caller]
    pub fn sigmoid(self) -> Self {
        self.builder().push(Sigmoid {}, &[self])
    }
}
