//! `tanh`: elementwise hyperbolic tangent.

use super::rules::{FLOAT, elementwise, infer_elementwise, map_elements};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::math;
use crate::pattern::Pattern;
use crate::scalar::Native;
use crate::types::TensorType;

op! {
    /// Elementwise hyperbolic tangent. Floats; accuracy and edges: [`math::tanh`].
    /// Gradient: `ct * (1 - tanh(x)^2)`.
    pub struct Tanh {}
}

impl OpDef for Tanh {
    const NAME: &'static str = "tanh";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        infer_elementwise::<1>(Self::NAME, x, &FLOAT)
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![Some(ct * (1.0 - cx.result * cx.result))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t - t * cx.result.square()))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(self.clone()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(map_elements(x, out, |x| math::tanh(&mut Native, x[0])))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |b, x| math::tanh(b, x[0]))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::DType;
        super::rules::elementwise_samples(Self {}, &[DType::F32, DType::F64], &[(-3.0, 3.0)])
    }
}

impl<'f> Tensor<'f> {
    /// Elementwise hyperbolic tangent.
    #[track_caller]
    pub fn tanh(self) -> Self {
        self.builder().push(Tanh {}, &[self])
    }
}
