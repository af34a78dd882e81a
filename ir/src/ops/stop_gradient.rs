//! `stop_gradient`: the identity, through which no gradient passes.

use super::rules::{elementwise, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::types::TensorType;

op! {
    /// `x` itself, of any type. Gradient: exactly zero, so what `x` derives from counts as constant.
    pub struct StopGradient {}
}

impl OpDef for StopGradient {
    const NAME: &'static str = "stop_gradient";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        Ok(x0.clone())
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

    fn eval(&self, x: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        Ok(x[0].clone())
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |_, x| x[0])
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, special};
        use crate::types::DType;
        use proptest::prelude::*;
        let x = (prop::sample::select(DType::ALL.as_slice()), dims(6))
            .prop_flat_map(|(dtype, dims)| special(dtype, dims));
        // Never smooth: the rule differs from finite differences on purpose.
        let sample = |x| Sample { op: Self {}.into(), operands: vec![x], smooth: false };
        Some(x.prop_map(sample).boxed())
    }
}

impl<'f> Tensor<'f> {
    /// The same value as a constant of differentiation.
    #[track_caller]
    pub fn stop_gradient(self) -> Self {
        self.builder().push(StopGradient {}, &[self])
    }
}
