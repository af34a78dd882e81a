//! `clamp`: limits each element to an interval.

use super::rules::tangent;
use crate::builder::{Operand, Tensor};
use crate::scalar::{Scalar, ScalarBuilder};

elementwise_op! {
    /// `min(max(x, lo), hi)`, elementwise and in this order: `hi` where `lo > hi`. Three operands of
    /// one numeric type; NaN of any of them propagates.
    /// Gradients, as PyTorch's: to `x` where `lo <= x <= hi`; to `lo` where `x < lo < hi`; to `hi`
    /// where `x > hi` or `lo > hi`; exactly zero elsewhere.
    pub struct Clamp: 3 of NUMBER as "clamp";
    vjp: |cx, ct| {
        let (x, lo, hi) = (cx.operands[0], cx.operands[1], cx.operands[2]);
        let zero = ct.full_like(0.0);
        [
            Some((x.ge(lo) & x.le(hi)).select(ct, zero)),
            Some((x.lt(lo) & lo.lt(hi)).select(ct, zero)),
            Some((x.gt(hi) | lo.gt(hi)).select(ct, zero)),
        ]
    };
    jvp: |cx, t| {
        let (x, lo, hi) = (cx.operands[0], cx.operands[1], cx.operands[2]);
        let of = |i: usize| tangent(t[i], cx.operands[i]);
        // Bounds that are equal hold whatever lies outside them; NaN is above none and below none.
        let below = lo.lt(hi).select(of(1), 0.0);
        let between = (x.is_nan() | lo.is_nan() | hi.is_nan()).select(x.full_like(0.0), of(0));
        Some((x.gt(hi) | lo.gt(hi)).select(of(2), x.lt(lo).select(below, between)))
    };
    eval: |x| {
        macro_rules! float {
            ($t:ident, $x:expr, $lo:expr, $hi:expr) => {{
                let raised = if $x > $lo || $x.is_nan() { $x } else { $lo };
                Scalar::$t(if raised < $hi || raised.is_nan() { raised } else { $hi })
            }};
        }
        match (x[0], x[1], x[2]) {
            (Scalar::F32(x), Scalar::F32(lo), Scalar::F32(hi)) => float!(F32, x, lo, hi),
            (Scalar::F64(x), Scalar::F64(lo), Scalar::F64(hi)) => float!(F64, x, lo, hi),
            (Scalar::I32(x), Scalar::I32(lo), Scalar::I32(hi)) => Scalar::I32(x.max(lo).min(hi)),
            (Scalar::I64(x), Scalar::I64(lo), Scalar::I64(hi)) => Scalar::I64(x.max(lo).min(hi)),
            (Scalar::U8(x), Scalar::U8(lo), Scalar::U8(hi)) => Scalar::U8(x.max(lo).min(hi)),
            (x, lo, hi) => unreachable!("clamp of {x} to {lo} and {hi}"),
        }
    };
    body: |b, x| {
        let raised = b.max(x[0], x[1]);
        b.min(raised, x[2])
    };
    samples: [(-3.0, 3.0), (-2.0, 2.0), (-2.0, 2.0)], adjusted by |x| {
        // Three values at least 0.1 apart, in the order that they had.
        let mut order = [0, 1, 2];
        order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
        for (i, &at) in order.iter().enumerate() {
            x[at] += 0.1 * i as f64;
        }
    };
}

impl<'f> Tensor<'f> {
    /// Each element limited to `lo..=hi`. See [`Clamp`]. Bounds are broadcast to the shape of `self`.
    #[track_caller]
    pub fn clamp(self, lo: impl Operand<'f>, hi: impl Operand<'f>) -> Self {
        let shape = self.shape();
        let (lo, hi) = (lo.like(self).broadcast_to(&shape), hi.like(self).broadcast_to(&shape));
        self.builder().push(Clamp {}, &[self, lo, hi])
    }
}
