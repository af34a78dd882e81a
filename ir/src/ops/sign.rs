//! `sign`: elementwise sign.

use crate::builder::Tensor;
use crate::scalar::{CmpKind, Scalar, ScalarBuilder};

elementwise_op! {
    /// Elementwise sign: 1, -1, or `x` itself if it is a zero (of either sign) or NaN. Any number.
    /// Gradient: exactly zero everywhere.
    pub struct Sign: 1 of NUMBER as "sign";
    vjp: |_, _| [None];
    jvp: |_, _| None;
    eval: |x| match x[0] {
        Scalar::F32(a) => Scalar::F32(if a == 0.0 || a.is_nan() { a } else { a.signum() }),
        Scalar::F64(a) => Scalar::F64(if a == 0.0 || a.is_nan() { a } else { a.signum() }),
        Scalar::I32(a) => Scalar::I32(a.signum()),
        Scalar::I64(a) => Scalar::I64(a.signum()),
        Scalar::U8(a) => Scalar::U8(a.min(1)),
        a => unreachable!("sign of {a}"),
    };
    body: |b, x| {
        let (zero, one, minus_one) = (b.number(x[0], 0.0), b.number(x[0], 1.0), b.number(x[0], -1.0));
        let (above, below) = (b.cmp(CmpKind::Gt, x[0], zero), b.cmp(CmpKind::Lt, x[0], zero));
        let rest = b.select(below, minus_one, x[0]);
        b.select(above, one, rest)
    };
    samples: [(-3.0, 3.0)], adjusted by |x| x[0] += 0.1f64.copysign(x[0]);
}

impl<'f> Tensor<'f> {
    /// 1, -1, or `x` itself if it is zero or NaN. See [`Sign`].
    #[track_caller]
    pub fn sign(self) -> Self {
        self.builder().push(Sign {}, &[self])
    }
}
