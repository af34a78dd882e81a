//! `extent`: a product of dimensions as a number.

use super::rules::{is_number, operands};
use super::{Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::{FunctionBuilder, Tensor};
use crate::error::{EvalError, TypeError};
use crate::index::IndexExpr;
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::scalar::{Scalar, ScalarBuilder, ScalarFn};
use crate::types::{DType, Shape, TensorType};

op! {
    /// A scalar: the product of `dims` as a number of type `dtype` (1 for none), rounded to nearest.
    /// Dimensions may be named: then it is known once they are bound. No operands, hence no gradient.
    pub struct Extent {
        /// The dimensions multiplied.
        pub dims: Shape,
        /// Element type of the result: any number.
        pub dtype: DType,
    }
}

impl Extent {
    fn value(&self) -> Scalar {
        let dims = self.dims.as_static().expect("every dimension is bound before evaluation");
        Scalar::I64(dims.iter().product::<usize>() as i64).cast(self.dtype)
    }
}

impl OpDef for Extent {
    const NAME: &'static str = "extent";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        operands::<0>(Self::NAME, x)?;
        let fail = |message| Err(TypeError::new(Self::NAME, x, message));
        if !is_number(self.dtype) {
            return fail(format!("element type {}, must be a number", self.dtype));
        }
        if self.dims.as_static().is_some() {
            match self.dims.num_elements() {
                None => return fail(format!("the product of {} exceeds 2^40", self.dims)),
                Some(n) if self.dtype == DType::I32 && i32::try_from(n).is_err() => {
                    return fail(format!("the product {n} of {} does not fit in i32", self.dims));
                }
                Some(_) => {}
            }
        }
        Ok(TensorType::scalar(self.dtype))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(Vec::new())
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn eval(&self, _: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        Ok(Literal::scalar(self.value()))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        let body = ScalarFn::record(&[DType::I64], |b, _| b.constant(self.value()));
        Pattern::Generate { index: IndexExpr::constant(0), body }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number};
        use proptest::prelude::*;
        let sample = |(dtype, dims): (DType, Vec<usize>)| Sample {
            op: Self { dims: dims.as_slice().into(), dtype }.into(),
            operands: Vec::new(),
            smooth: false,
        };
        Some((number(), dims(6)).prop_map(sample).boxed())
    }
}

impl FunctionBuilder {
    /// The product of `dims` as a scalar of type `dtype`. See [`Extent`].
    #[track_caller]
    pub fn extent(&self, dtype: DType, dims: impl Into<Shape>) -> Tensor<'_> {
        let of = |dtype| self.push(Extent { dims: dims.into(), dtype }, &[]);
        if dtype.is_half() { of(DType::F32).cast(dtype) } else { of(dtype) }
    }
}
