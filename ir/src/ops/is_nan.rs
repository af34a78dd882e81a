//! `is_nan`: elementwise test for NaN.

use super::rules::{FLOAT, accept, elementwise, map_elements, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::scalar::{CmpKind, Scalar, ScalarBuilder};
use crate::types::{DType, TensorType};

op! {
    /// True where `x` is not a number. Floats to bool; no gradient flows through it.
    pub struct IsNan {}
}

impl OpDef for IsNan {
    const NAME: &'static str = "is_nan";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        operands::<1>(Self::NAME, x)?;
        accept(Self::NAME, x, 0, FLOAT.what, |d| FLOAT.dtypes.contains(&d))?;
        Ok(x[0].with_dtype(DType::Bool))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![None])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(self.clone()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(map_elements(x, out, |x| Scalar::Bool(x[0].to_f64().is_nan())))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |b, x| b.cmp(CmpKind::Ne, x[0], x[0]))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        super::rules::elementwise_samples(Self {}, &[DType::F32, DType::F64], &[(-3.0, 3.0)])
    }
}

impl<'f> Tensor<'f> {
    /// True where the element is not a number.
    #[track_caller]
    pub fn is_nan(self) -> Self {
        self.builder().push(IsNan {}, &[self])
    }
}
