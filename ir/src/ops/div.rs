//! `div`: elementwise quotient.

use super::rules::{accept, elementwise, is_number, map_elements, operands, same_types, sum_tangents};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::scalar::{Scalar, ScalarBuilder};
use crate::types::TensorType;

op! {
    /// Elementwise quotient: `a / b`. Operands are of one type, not bool; integers truncate, `x / 0 = -1`, `MIN / -1 = MIN`.
    pub struct Div {}
}

impl OpDef for Div {
    const NAME: &'static str = "div";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        operands::<2>(Self::NAME, x)?;
        accept(Self::NAME, x, 0, "a number", is_number)?;
        same_types(Self::NAME, x)
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let b = cx.operands[1];
        Ok(vec![Some(ct / b), Some(-(ct * cx.result / b))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let (a, b) = (cx.operands[0], cx.operands[1]);
        Ok(sum_tangents([t[0].map(|t| t / b), t[1].map(|t| -(a * t) / (b * b))]))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(self.clone()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(map_elements(x, out, |x| match (x[0], x[1]) {
            (Scalar::F32(a), Scalar::F32(b)) => Scalar::F32(a / b),
            (Scalar::F64(a), Scalar::F64(b)) => Scalar::F64(a / b),
            (Scalar::I32(a), Scalar::I32(b)) => Scalar::I32(if b == 0 { -1 } else { a.wrapping_div(b) }),
            (Scalar::I64(a), Scalar::I64(b)) => Scalar::I64(if b == 0 { -1 } else { a.wrapping_div(b) }),
            (Scalar::U8(a), Scalar::U8(b)) => Scalar::U8(a.checked_div(b).unwrap_or(u8::MAX)),
            (a, b) => unreachable!("div of {a} and {b}"),
        }))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |b, x| b.div(x[0], x[1]))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::types::DType;
        super::rules::elementwise_samples(Self {}, &[DType::F32, DType::F64, DType::I32, DType::I64, DType::U8], &[(-3.0, 3.0), (0.5, 3.0)])
    }
}
