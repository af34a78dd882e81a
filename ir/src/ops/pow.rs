//! `pow`: elementwise power.

use super::rules::sum_tangents;
use crate::builder::Tensor;
use crate::builder::Operand;
use crate::math;
use crate::scalar::Native;

elementwise_op! {
    /// Elementwise power: `a^b`. Floats of one type; accuracy and edges: [`math::pow`].
    /// Gradients: `ct * b * a^(b-1)` to `a`, exactly zero where `b` is 0; `ct * a^b * log(a)` to `b`,
    /// exactly zero where `a <= 0` (a zero base stays zero near such `b`, and below zero the power is
    /// not a function of a real `b`).
    pub struct Pow: 2 of FLOAT as "pow";
    vjp: |cx, ct| {
        let (a, b) = (cx.operands[0], cx.operands[1]);
        let zero = ct.full_like(0.0);
        let base = b.eq(0.0).select(zero, ct * (b * a.pow(b - 1.0)));
        let exponent = a.le(0.0).select(zero, ct * (cx.result * a.log()));
        [Some(base), Some(exponent)]
    };
    jvp: |cx, t| {
        let (a, b) = (cx.operands[0], cx.operands[1]);
        let base = t[0].map(|t| b.ne(0.0).select(a.pow(b - 1.0) * b * t, 0.0));
        let exponent = t[1].map(|t| (a.gt(0.0) | a.is_nan()).select(a.log() * cx.result * t, 0.0));
        sum_tangents([base, exponent])
    };
    eval: |x| math::pow(&mut Native, x[0], x[1]);
    body: |b, x| math::pow(b, x[0], x[1]);
    samples: [(0.5, 3.0), (-2.0, 2.0)];
}

impl<'f> Tensor<'f> {
    /// `self` to the power `rhs`; floats. See [`Pow`]. Operands are brought to their common shape.
    #[track_caller]
    pub fn pow(self, rhs: impl Operand<'f>) -> Self {
        let (a, b) = self.broadcast_with(rhs.like(self));
        a.builder().push(Pow {}, &[a, b])
    }
}
