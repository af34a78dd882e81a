//! `argmin`: where the least element of an axis is.

use super::rules::{eval_arg_reduce, infer_arg_reduce};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::types::TensorType;

op! {
    /// Index along `axis` of the first NaN, else of the first least element; `axis` leaves the
    /// shape, the result is `i32`. Any number. The extent of `axis` is in `1..2^31`; dimensions may
    /// be named. The result is an integer, so there is no gradient.
    pub struct ArgMin {
        /// The axis searched.
        pub axis: usize,
    }
}

impl OpDef for ArgMin {
    const NAME: &'static str = "argmin";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        infer_arg_reduce(Self::NAME, x, self.axis)
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![None])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axis: self.axis + 1 }))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_arg_reduce(x[0], self.axis, false, out))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::ArgReduce { axis: self.axis, largest: false }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        super::rules::arg_samples(|axis| Self { axis }.into())
    }
}

impl<'f> Tensor<'f> {
    /// Index (`i32`) along `axis` of the first NaN, else of the first least element.
    #[track_caller]
    pub fn argmin(self, axis: usize) -> Self {
        self.builder().push(ArgMin { axis }, &[self])
    }
}
