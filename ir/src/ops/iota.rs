//! `iota`: the index along one axis.

use super::rules::{is_number, operands, storable};
use super::{Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::{FunctionBuilder, Tensor};
use crate::error::{EvalError, TypeError};
use crate::index::IndexExpr;
use crate::literal::{Literal, indices};
use crate::pattern::Pattern;
use crate::scalar::{Scalar, ScalarBuilder, ScalarFn};
use crate::types::{DType, Dim, Shape, TensorType};

op! {
    /// `out[i0, .., in] = i[axis]` as a number of type `dtype`; float types round beyond their
    /// precision. No operands, hence no gradient. Dimensions may be named.
    pub struct Iota {
        /// Shape of the result.
        pub shape: Shape,
        /// Element type of the result: any number.
        pub dtype: DType,
        /// The axis that is counted along.
        pub axis: usize,
    }
}

impl OpDef for Iota {
    const NAME: &'static str = "iota";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        operands::<0>(Self::NAME, x)?;
        let fail = |message| Err(TypeError::new(Self::NAME, x, message));
        if !is_number(self.dtype) {
            return fail(format!("element type {}, must be a number", self.dtype));
        }
        let Some(extent) = self.shape.get(self.axis) else {
            return fail(format!("axis {} is not below the rank of {}", self.axis, self.shape));
        };
        if let (DType::I32, Dim::Const(n)) = (self.dtype, extent)
            && *n > 1 << 31
        {
            return fail(format!("axis {} has extent {n}: its indices do not fit in i32", self.axis));
        }
        storable(Self::NAME, &TensorType::new(self.dtype, &self.shape))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(Vec::new())
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn eval(&self, _: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let index = at.next().expect("one index per element");
            Scalar::I64(index[self.axis] as i64)
        }))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        let body = ScalarFn::record(&[DType::I64], |b, args| b.cast(self.dtype, args[0]));
        Pattern::Generate { index: IndexExpr::var(self.axis as u32), body }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, extent, number};
        use proptest::prelude::*;
        let case = (number(), extent(), dims(5), any::<prop::sample::Index>());
        let sample = |(dtype, extent, mut dims, at): (DType, usize, Vec<usize>, prop::sample::Index)| {
            let axis = at.index(dims.len() + 1);
            dims.insert(axis, extent);
            let op = Self { shape: dims.as_slice().into(), dtype, axis };
            Sample { op: op.into(), operands: Vec::new(), smooth: false }
        };
        Some(case.prop_map(sample).boxed())
    }
}

impl FunctionBuilder {
    /// The tensor of shape `shape` whose elements are their own index along `axis`.
    #[track_caller]
    pub fn iota(&self, dtype: DType, shape: impl Into<Shape>, axis: usize) -> Tensor<'_> {
        self.push(Iota { shape: shape.into(), dtype, axis }, &[])
    }
}
