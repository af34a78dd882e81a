//! `rem`: elementwise remainder of the truncated quotient.

use super::rules::sum_tangents;
use crate::scalar::{Scalar, ScalarBuilder, ScalarOp};

elementwise_op! {
    /// Elementwise remainder of the quotient truncated towards zero; it has the sign of `a`. Any
    /// number of one type. The operator `%` of tensors.
    ///
    /// Floats: `a - b * trunc(a / b)`, with the quotient rounded, then one fused multiply-add. This
    /// is C's `fmod` except where the rounding of `a / b` reaches an integer: there the result may
    /// be the one a whole `b` further, a tiny value of the other sign; from quotients of 2^24 (f32)
    /// or 2^53 (f64) on it carries no information. NaN for `b` zero or infinite, and for infinite `a`.
    /// Integers: `x rem 0 = x`, `MIN rem -1 = 0`.
    ///
    /// Gradients: `ct` to `a`, `-ct * trunc(a / b)` to `b`.
    pub struct Rem: 2 of NUMBER as "rem";
    vjp: |cx, ct| {
        let quotient = cx.operands[0] / cx.operands[1];
        let truncated = quotient.lt(0.0).select(quotient.ceil(), quotient.floor());
        [Some(ct), Some(-(ct * truncated))]
    };
    jvp: |cx, t| {
        let (a, b) = (cx.operands[0], cx.operands[1]);
        // The quotient rounded towards zero, from its magnitude.
        let quotient = || (a / b).abs().floor() * (a.sign() * b.sign());
        sum_tangents([t[0], t[1].map(|t| -(quotient() * t))])
    };
    eval: |x| match (x[0], x[1]) {
        (Scalar::F32(a), Scalar::F32(b)) => Scalar::F32((-b).mul_add((a / b).trunc(), a)),
        (Scalar::F64(a), Scalar::F64(b)) => Scalar::F64((-b).mul_add((a / b).trunc(), a)),
        (Scalar::I32(a), Scalar::I32(b)) => Scalar::I32(if b == 0 { a } else { a.wrapping_rem(b) }),
        (Scalar::I64(a), Scalar::I64(b)) => Scalar::I64(if b == 0 { a } else { a.wrapping_rem(b) }),
        (Scalar::U8(a), Scalar::U8(b)) => Scalar::U8(a.checked_rem(b).unwrap_or(a)),
        (a, b) => unreachable!("rem of {a} and {b}"),
    };
    body: |b, x| {
        if !b.dtype(x[0]).is_float() {
            return b.op(ScalarOp::Rem, &[x[0], x[1]]);
        }
        let quotient = b.div(x[0], x[1]);
        let truncated = b.op(ScalarOp::Trunc, &[quotient]);
        let negated = b.neg(x[1]);
        b.fma(negated, truncated, x[0])
    };
    samples: [(-3.0, 3.0), (0.5, 3.0)], adjusted by |x| x[0] = away_from_integers(x[0] / x[1]) * x[1];
}
