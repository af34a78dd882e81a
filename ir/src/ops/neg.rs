//! `neg`: elementwise negation.

use super::rules::{accept, elementwise, is_number, map_elements, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::scalar::{Scalar, ScalarBuilder};
use crate::types::TensorType;

op! {
    /// Elementwise negation: `-x`. Any type but bool; integers wrap.
    pub struct Neg {}
}

impl OpDef for Neg {
    const NAME: &'static str = "neg";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        operands::<1>(Self::NAME, x)?;
        accept(Self::NAME, x, 0, "a number", is_number)?;
        Ok(x[0].clone())
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![Some(-ct)])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| -t))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(self.clone()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(map_elements(x, out, |x| match x[0] {
            Scalar::F32(a) => Scalar::F32(-a),
            Scalar::F64(a) => Scalar::F64(-a),
            Scalar::I32(a) => Scalar::I32(a.wrapping_neg()),
            Scalar::I64(a) => Scalar::I64(a.wrapping_neg()),
            Scalar::U8(a) => Scalar::U8(a.wrapping_neg()),
            a => unreachable!("neg of {a}"),
        }))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |b, x| b.neg(x[0]))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::types::DType;
        super::rules::elementwise_samples(Self {}, &[DType::F32, DType::F64, DType::I32, DType::I64, DType::U8], &[(-3.0, 3.0)])
    }
}
