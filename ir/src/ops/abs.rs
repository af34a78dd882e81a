//! `abs`: elementwise absolute value.

use crate::builder::Tensor;
use crate::scalar::{Scalar, ScalarBuilder};

elementwise_op! {
    /// Elementwise absolute value. Any number; floats lose the sign bit (of NaN too), integers wrap:
    /// `abs(MIN) = MIN`. Gradient: `ct * sign(x)`, so `abs'(0) = 0`.
    pub struct Abs: 1 of NUMBER as "abs";
    vjp: |cx, ct| [Some(ct * cx.operands[0].sign())];
    jvp: |cx, t| Some(t[0]? * cx.operands[0].sign());
    eval: |x| match x[0] {
        Scalar::F32(a) => Scalar::F32(a.abs()),
        Scalar::F64(a) => Scalar::F64(a.abs()),
        Scalar::I32(a) => Scalar::I32(a.wrapping_abs()),
        Scalar::I64(a) => Scalar::I64(a.wrapping_abs()),
        Scalar::U8(a) => Scalar::U8(a),
        a => unreachable!("abs of {a}"),
    };
    body: |b, x| b.abs(x[0]);
    samples: [(-3.0, 3.0)], adjusted by |x| x[0] += 0.1f64.copysign(x[0]);
}

impl<'f> Tensor<'f> {
    /// The absolute value. See [`Abs`].
    #[track_caller]
    pub fn abs(self) -> Self {
        self.builder().push(Abs {}, &[self])
    }
}
