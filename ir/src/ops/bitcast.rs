//! `bitcast`: the same bits as another type.

use super::rules::{elementwise, map_elements, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use half::{bf16, f16};
use crate::scalar::{Scalar, ScalarBuilder};
use crate::types::{DType, TensorType};

op! {
    /// Each element's bits taken as a `dtype` of the same size: f32 and i32, f64 and i64. Which of its
    /// bit patterns a NaN has is unspecified. No gradient: it is a staircase, so exactly zero.
    pub struct Bitcast {
        /// Element type of the result.
        pub dtype: DType,
    }
}

impl OpDef for Bitcast {
    const NAME: &'static str = "bitcast";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        if x0.dtype.size_bytes() != self.dtype.size_bytes() {
            let message = format!("{} and {} differ in size", x0.dtype, self.dtype);
            return Err(TypeError::new(Self::NAME, x, message));
        }
        Ok(x0.with_dtype(self.dtype))
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
        Ok(map_elements(x, out, |x| match (x[0], self.dtype) {
            (Scalar::F32(a), DType::I32) => Scalar::I32(a.to_bits() as i32),
            (Scalar::I32(a), DType::F32) => Scalar::F32(f32::from_bits(a as u32)),
            (Scalar::F64(a), DType::I64) => Scalar::I64(a.to_bits() as i64),
            (Scalar::I64(a), DType::F64) => Scalar::F64(f64::from_bits(a as u64)),
            (Scalar::BF16(a), DType::F16) => Scalar::F16(f16::from_bits(a.to_bits())),
            (Scalar::F16(a), DType::BF16) => Scalar::BF16(bf16::from_bits(a.to_bits())),
            (Scalar::Bool(a), DType::U8) => Scalar::U8(a.into()),
            (Scalar::U8(a), DType::Bool) => Scalar::Bool(a & 1 == 1),
            (a, _) => a,
        }))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |b, x| b.bitcast(self.dtype, x[0]))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, special};
        use proptest::prelude::*;
        let case = (prop::sample::select(DType::ALL.as_slice()), dims(6), any::<bool>());
        let sample = case.prop_flat_map(|(from, dims, same)| {
            let dtype = match from {
                _ if same => from,
                DType::F32 => DType::I32,
                DType::F64 => DType::I64,
                DType::I32 => DType::F32,
                DType::I64 => DType::F64,
                DType::Bool => DType::U8,
                DType::U8 => DType::Bool,
                DType::BF16 => DType::F16,
                DType::F16 => DType::BF16,
            };
            let op = Self { dtype };
            special(from, dims)
                .prop_map(move |x| Sample { op: op.clone().into(), operands: vec![x], smooth: false })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// The bits of each element taken as a `dtype` of the same size. See [`Bitcast`].
    #[track_caller]
    pub fn bitcast(self, dtype: DType) -> Self {
        self.builder().push(Bitcast { dtype }, &[self])
    }
}
