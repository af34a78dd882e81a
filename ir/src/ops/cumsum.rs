//! `cumsum`: sums of all elements so far along an axis.

use super::rules::{eval_cumulative, infer_cumulative};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::{Pattern, ReduceKind};
use crate::types::TensorType;

op! {
    /// `out[i] = x[0] + .. + x[i]` along `axis`.
    /// With `reverse` from the last element to the first; with `exclusive` without the element itself, so the
    /// first is 0. Any number; one chain in the order of the elements, starting from 0.
    /// Gradient: the cotangent summed in the other direction.
    pub struct CumSum {
        /// The axis.
        pub axis: usize,
        /// Runs from the last element to the first.
        pub reverse: bool,
        /// Leaves the element itself out.
        pub exclusive: bool,
    }
}

impl OpDef for CumSum {
    const NAME: &'static str = "cumsum";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        infer_cumulative(Self::NAME, x, self.axis)
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let op = Self { reverse: !self.reverse, ..self.clone() };
        Ok(vec![Some(ct.builder().push(op, &[ct]))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.builder().push(self.clone(), &[t])))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axis: self.axis + 1, ..self.clone() }))
    }

    fn eval(&self, x: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_cumulative(ReduceKind::Sum, x[0], self.axis, self.reverse, self.exclusive))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        let Self { axis, reverse, exclusive } = *self;
        Pattern::Cumulative { kind: ReduceKind::Sum, axis, reverse, exclusive }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        super::rules::cumulative_samples(
            ReduceKind::Sum,
            |axis, reverse, exclusive| Self { axis, reverse, exclusive }.into(),
            |dtype, dims| crate::testing::uniform(dtype, dims, -1.5, 1.5),
        )
    }
}

impl<'f> Tensor<'f> {
    /// Sums of all elements so far along `axis`, the element itself included. See [`CumSum`].
    #[track_caller]
    pub fn cumsum(self, axis: usize) -> Self {
        self.builder().push(CumSum { axis, reverse: false, exclusive: false }, &[self])
    }
}
