//! `erf`: elementwise error function.

use crate::builder::Tensor;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise error function: `2 / sqrt(pi) * integral of e^(-t^2) from 0 to x`. Floats; accuracy and
    /// edges: [`math::erf`]. Gradient: `ct * 2 / sqrt(pi) * e^(-x^2)`.
    pub struct Erf: 1 of FLOAT as "erf";
    vjp: |cx, ct| {
        let x = cx.operands[0];
        [Some(ct * ((-(x * x)).exp() * std::f64::consts::FRAC_2_SQRT_PI))]
    };
    jvp: |cx, t| Some((-cx.operands[0].square()).exp() * (t[0]? * std::f64::consts::FRAC_2_SQRT_PI));
    eval: |x| math::erf(&mut Native, x[0]);
    body: |b, x| math::erf(b, x[0]);
    samples: [(-3.0, 3.0)];
}

impl<'f> Tensor<'f> {
    /// The error function. See [`Erf`].
    #[track_caller]
    pub fn erf(self) -> Self {
        self.builder().push(Erf {}, &[self])
    }
}
