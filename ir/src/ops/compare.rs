//! `compare`: elementwise comparison.

use super::rules::{accept, elementwise, is_number, map_elements, operands, same_types};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::{Operand, Tensor};
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::scalar::{CmpKind, Scalar, ScalarBuilder};
use crate::types::{DType, TensorType};

op! {
    /// Elementwise `a kind b`, a bool. Operands are of one type: any number, or bool for `eq` and
    /// `ne`. With a NaN all but `ne` are false; zeros of either sign are equal. No gradient.
    pub struct Compare {
        /// The predicate.
        pub kind: CmpKind,
    }
}

impl OpDef for Compare {
    const NAME: &'static str = "compare";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        operands::<2>(Self::NAME, x)?;
        if matches!(self.kind, CmpKind::Eq | CmpKind::Ne) {
            accept(Self::NAME, x, 0, "a number or bool", |d| !d.is_half())?;
        } else {
            accept(Self::NAME, x, 0, "a number (bool has no order)", is_number)?;
        }
        Ok(same_types(Self::NAME, x)?.with_dtype(DType::Bool))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![None, None])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(self.clone()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(map_elements(x, out, |x| {
            Scalar::Bool(match (x[0], x[1]) {
                (Scalar::F32(a), Scalar::F32(b)) => self.kind.holds(a, b),
                (Scalar::F64(a), Scalar::F64(b)) => self.kind.holds(a, b),
                (Scalar::I32(a), Scalar::I32(b)) => self.kind.holds(a, b),
                (Scalar::I64(a), Scalar::I64(b)) => self.kind.holds(a, b),
                (Scalar::U8(a), Scalar::U8(b)) => self.kind.holds(a, b),
                (Scalar::Bool(a), Scalar::Bool(b)) => self.kind.holds(a, b),
                (a, b) => unreachable!("comparison of {a} and {b}"),
            })
        }))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |b, x| b.cmp(self.kind, x[0], x[1]))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, special, tied};
        use proptest::prelude::*;
        const DTYPES: &[DType] =
            &[DType::F32, DType::F64, DType::I32, DType::I64, DType::Bool, DType::U8];
        let case = (prop::sample::select(DTYPES), dims(6), any::<bool>()).prop_flat_map(
            |(dtype, dims, ties)| {
                let kinds = if dtype == DType::Bool { &CmpKind::ALL[..2] } else { &CmpKind::ALL[..] };
                let values = || if ties { tied(dtype, dims.clone()) } else { special(dtype, dims.clone()) };
                (prop::sample::select(kinds), values(), values())
            },
        );
        let sample = |(kind, a, b)| Sample { op: Self { kind }.into(), operands: vec![a, b], smooth: false };
        Some(case.prop_map(sample).boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Elementwise comparison, a bool. See [`Compare`]. Operands are brought to their common shape.
    #[track_caller]
    pub fn compare(self, kind: CmpKind, rhs: impl Operand<'f>) -> Self {
        let (a, b) = self.broadcast_with(rhs.like(self));
        a.builder().push(Compare { kind }, &[a, b])
    }

    /// Elementwise `self == rhs`.
    #[track_caller]
    pub fn eq(self, rhs: impl Operand<'f>) -> Self {
        self.compare(CmpKind::Eq, rhs)
    }

    /// Elementwise `self != rhs`.
    #[track_caller]
    pub fn ne(self, rhs: impl Operand<'f>) -> Self {
        self.compare(CmpKind::Ne, rhs)
    }

    /// Elementwise `self < rhs`.
    #[track_caller]
    pub fn lt(self, rhs: impl Operand<'f>) -> Self {
        self.compare(CmpKind::Lt, rhs)
    }

    /// Elementwise `self <= rhs`.
    #[track_caller]
    pub fn le(self, rhs: impl Operand<'f>) -> Self {
        self.compare(CmpKind::Le, rhs)
    }

    /// Elementwise `self > rhs`.
    #[track_caller]
    pub fn gt(self, rhs: impl Operand<'f>) -> Self {
        self.compare(CmpKind::Gt, rhs)
    }

    /// Elementwise `self >= rhs`.
    #[track_caller]
    pub fn ge(self, rhs: impl Operand<'f>) -> Self {
        self.compare(CmpKind::Ge, rhs)
    }
}
