//! `reduce_max`: maximum over axes.

use super::select_and_scatter::to_first_maximum;
use super::rules::{accept, behind_batch, eval_reduce, infer_reduce, is_number, reduce_pattern, tangent_of_extremum};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::{Pattern, ReduceKind};
use crate::types::TensorType;

op! {
    /// Maximum over `axes`, which leave the shape; NaN if there is one among the elements.
    /// Any number. Over nothing: -infinity, or the least integer.
    /// Gradient: the cotangent goes to the first NaN, else to the first maximum in row-major order of
    /// `axes`, however many elements tie; all others get zero.
    pub struct ReduceMax {
        /// Axes reduced over: increasing, distinct.
        pub axes: Vec<usize>,
    }
}

impl OpDef for ReduceMax {
    const NAME: &'static str = "reduce_max";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let ty = infer_reduce(Self::NAME, x, &self.axes)?;
        accept(Self::NAME, x, 0, "a number", is_number)?;
        Ok(ty)
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![to_first_maximum(cx.operands[0], ct, &self.axes)])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].and_then(|t| tangent_of_extremum(cx.operands[0], t, &self.axes, Tensor::reduce_max, Tensor::argmax)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axes: behind_batch(&self.axes) }))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_reduce(ReduceKind::Max, x[0], &self.axes, out))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        reduce_pattern(ReduceKind::Max, &x[0].dims, &self.axes, out)
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        super::rules::extremum_samples(|axes| Self { axes }.into())
    }
}

impl<'f> Tensor<'f> {
    /// Maximum over `axes`; NaN if there is one. No axes: the tensor itself.
    #[track_caller]
    pub fn reduce_max(self, axes: &[usize]) -> Self {
        if axes.is_empty() { self } else { self.builder().push(ReduceMax { axes: axes.to_vec() }, &[self]) }
    }
}
