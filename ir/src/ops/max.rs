//! `max`: elementwise maximum.

use super::rules::{is_constant, tangent};
use crate::builder::Tensor;
use crate::builder::Operand;
use crate::scalar::{Scalar, ScalarBuilder};

elementwise_op! {
    /// Elementwise maximum: `a > b || a is NaN ? a : b`, so NaN of either operand propagates, and of two
    /// zeros the second wins. Any number of one type.
    /// Gradient: to the operand that is the maximum (or the NaN); a tie gives it to the first.
    pub struct Max: 2 of NUMBER as "max";
    vjp: |cx, ct| {
        let (a, b) = (cx.operands[0], cx.operands[1]);
        // Both say the same. Of a constant and a variable, the result is the one that is at hand later:
        // what follows a rectifier reads that, so its operand need not be kept.
        let wins = if is_constant(a) { cx.result.le(a) } else { a.ge(b) };
        let first = wins | a.ne(a);
        let zero = ct.full_like(0.0);
        [Some(first.select(ct, zero)), Some(first.select(zero, ct))]
    };
    jvp: |cx, t| {
        let (a, b) = (cx.operands[0], cx.operands[1]);
        (t[0].is_some() || t[1].is_some()).then(|| {
            let second = a.lt(b) | (b.is_nan() & !a.is_nan());
            second.select(tangent(t[1], b), tangent(t[0], a))
        })
    };
    eval: |x| match (x[0], x[1]) {
        (Scalar::F32(a), Scalar::F32(b)) => Scalar::F32(if a > b || a.is_nan() { a } else { b }),
        (Scalar::F64(a), Scalar::F64(b)) => Scalar::F64(if a > b || a.is_nan() { a } else { b }),
        (Scalar::I32(a), Scalar::I32(b)) => Scalar::I32(a.max(b)),
        (Scalar::I64(a), Scalar::I64(b)) => Scalar::I64(a.max(b)),
        (Scalar::U8(a), Scalar::U8(b)) => Scalar::U8(a.max(b)),
        (a, b) => unreachable!("max of {a} and {b}"),
    };
    body: |b, x| b.max(x[0], x[1]);
    samples: [(-3.0, 3.0), (-3.0, 3.0)], adjusted by |x| {
        if (x[0] - x[1]).abs() < 0.1 {
            x[0] += 0.3;
        }
    };
}

impl<'f> Tensor<'f> {
    /// The maximum; NaN propagates. See [`Max`]. Operands are brought to their common shape.
    #[track_caller]
    pub fn max(self, rhs: impl Operand<'f>) -> Self {
        let (a, b) = self.broadcast_with(rhs.like(self));
        a.builder().push(Max {}, &[a, b])
    }
}
