//! `square`: elementwise square.

use crate::builder::Tensor;
use crate::scalar::{Scalar, ScalarBuilder};

elementwise_op! {
    /// Elementwise square: `x * x`. Any number; integers wrap. Gradient: `ct * 2 * x`.
    pub struct Square: 1 of NUMBER as "square";
    vjp: |cx, ct| [Some(ct * (cx.operands[0] * 2.0))];
    jvp: |cx, t| Some(cx.operands[0] * t[0]? * 2.0);
    eval: |x| match x[0] {
        Scalar::F32(a) => Scalar::F32(a * a),
        Scalar::F64(a) => Scalar::F64(a * a),
        Scalar::I32(a) => Scalar::I32(a.wrapping_mul(a)),
        Scalar::I64(a) => Scalar::I64(a.wrapping_mul(a)),
        Scalar::U8(a) => Scalar::U8(a.wrapping_mul(a)),
        a => unreachable!("square of {a}"),
    };
    body: |b, x| b.mul(x[0], x[0]);
    samples: [(-3.0, 3.0)];
}

impl<'f> Tensor<'f> {
    /// `x * x`. See [`Square`].
    #[track_caller]
    pub fn square(self) -> Self {
        self.builder().push(Square {}, &[self])
    }
}
