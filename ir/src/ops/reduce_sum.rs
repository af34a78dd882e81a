//! `reduce_sum`: sum over axes.

use super::rules::{accept, behind_batch, eval_reduce, infer_reduce, is_number, reduce_pattern};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::{Pattern, ReduceKind};
use crate::types::TensorType;

op! {
    /// Sum over `axes`, which leave the shape; in the order that [`crate::Reduce`] states. Any type
    /// but bool; integers wrap. No axes: a sum of one element each.
    /// Gradient: the cotangent, broadcast back over `axes`.
    pub struct ReduceSum {
        /// Axes summed over: increasing, distinct.
        pub axes: Vec<usize>,
    }
}

impl OpDef for ReduceSum {
    const NAME: &'static str = "reduce_sum";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let ty = infer_reduce(Self::NAME, x, &self.axes)?;
        accept(Self::NAME, x, 0, "a number", is_number)?;
        Ok(ty)
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let shape = cx.operands[0].shape();
        let kept: Vec<usize> = (0..shape.rank()).filter(|a| !self.axes.contains(a)).collect();
        Ok(vec![Some(ct.broadcast(shape, &kept))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.reduce_sum(&self.axes)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axes: behind_batch(&self.axes) }))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_reduce(ReduceKind::Sum, x[0], &self.axes, out))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        reduce_pattern(ReduceKind::Sum, &x[0].dims, &self.axes, out)
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        super::rules::reduce_samples(|axes| Self { axes }.into(), true)
    }
}

impl<'f> Tensor<'f> {
    /// Sum over `axes`. No axes: the tensor itself.
    #[track_caller]
    pub fn reduce_sum(self, axes: &[usize]) -> Self {
        if axes.is_empty() { self } else { self.builder().push(ReduceSum { axes: axes.to_vec() }, &[self]) }
    }
}
