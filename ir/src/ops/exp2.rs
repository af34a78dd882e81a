//! `exp2`: elementwise power of two.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise power of two: `2^x`. Floats; accuracy and edges: [`math::exp2`].
    /// Gradient: `ct * 2^x * ln 2`, from the result.
    pub struct Exp2: 1 of FLOAT as "exp2";
    vjp: |cx, ct| [Some(ct * cx.result * std::f64::consts::LN_2)];
    jvp: |cx, t| Some(cx.result * (t[0]? * std::f64::consts::LN_2));
    eval: |x| math::exp2(&mut Native, x[0]);
    body: |b, x| math::exp2(b, x[0]);
    samples: [(-3.0, 3.0)];
}

impl<'f> Tensor<'f> {
    /// `2^x`. See [`Exp2`].
    #[track_caller]
    pub fn exp2(self) -> Self {
        self.builder().push(Exp2 {}, &[self])
    }
}
