//! `cummin`: minimum of all elements so far along an axis.

use super::rules::{eval_cumulative, infer_cumulative, position_of_extremum};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::{Combine, Pattern, ReduceKind};
use crate::types::TensorType;

op! {
    /// `out[i] = min(x[0], .., x[i])` along `axis`; NaN from the first NaN on.
    /// With `reverse` from the last element to the first; with `exclusive` without the element itself, so the
    /// first is infinity, or the greatest integer. Any number.
    /// Gradient: each cotangent goes to the first NaN, else the first minimum, of those so far (the one that is
    /// met first, so the last with `reverse`).
    pub struct CumMin {
        /// The axis.
        pub axis: usize,
        /// Runs from the last element to the first.
        pub reverse: bool,
        /// Leaves the element itself out.
        pub exclusive: bool,
    }
}

impl CumMin {
    /// Where each result comes from along the axis, and whether it comes from anywhere.
    #[track_caller]
    fn positions<'f>(&self, x: Tensor<'f>) -> (Tensor<'f>, Tensor<'f>) {
        let before = x.builder().push(Self { exclusive: true, ..self.clone() }, &[x]);
        position_of_extremum(x, x.lt(before), before, self.axis, self.reverse, self.exclusive)
    }
}

impl OpDef for CumMin {
    const NAME: &'static str = "cummin";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        infer_cumulative(Self::NAME, x, self.axis)
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let x = cx.operands[0];
        let (at, exists) = self.positions(x);
        let ct = exists.select(ct, 0.0);
        Ok(vec![Some(x.full_like(0.0).put_along_axis(Combine::Add, at, ct, self.axis))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let Some(t) = t[0] else { return Ok(None) };
        let (at, exists) = self.positions(cx.operands[0]);
        Ok(Some(exists.select(t.take_along_axis(at, self.axis), 0.0)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axis: self.axis + 1, ..self.clone() }))
    }

    fn eval(&self, x: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_cumulative(ReduceKind::Min, x[0], self.axis, self.reverse, self.exclusive))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        let Self { axis, reverse, exclusive } = *self;
        Pattern::Cumulative { kind: ReduceKind::Min, axis, reverse, exclusive }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::distinct;
        super::rules::cumulative_samples(
            ReduceKind::Min,
            |axis, reverse, exclusive| Self { axis, reverse, exclusive }.into(),
            distinct,
        )
    }
}

impl<'f> Tensor<'f> {
    /// The minimum of all elements so far along `axis`, the element itself included. See [`CumMin`].
    #[track_caller]
    pub fn cummin(self, axis: usize) -> Self {
        self.builder().push(CumMin { axis, reverse: false, exclusive: false }, &[self])
    }
}
