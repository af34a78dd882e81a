//! `cast`: conversion of elements by value.

use super::rules::{elementwise, map_elements, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::Pattern;
use crate::scalar::ScalarBuilder;
use crate::types::{DType, TensorType};

op! {
    /// Each element as a `dtype`, by value: floats round to nearest; float to integer truncates,
    /// saturates and maps NaN to 0; integers wrap among themselves; to bool is `!= 0` (NaN is true);
    /// bool is 0 or 1. Any type to any type. Gradient: `ct` cast back, between floats.
    pub struct Cast {
        /// Element type of the result.
        pub dtype: DType,
    }
}

impl OpDef for Cast {
    const NAME: &'static str = "cast";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        Ok(x0.with_dtype(self.dtype))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let from = cx.operands[0].dtype();
        Ok(vec![from.is_float().then(|| ct.cast(from))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.cast(self.dtype)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(self.clone()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(map_elements(x, out, |x| x[0].cast(self.dtype)))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        elementwise(x, |b, x| b.cast(self.dtype, x[0]))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, special, uniform};
        use proptest::prelude::*;
        let any_dtype = || prop::sample::select(DType::ALL.as_slice());
        let case = (any_dtype(), any_dtype(), dims(6), any::<bool>());
        let sample = case.prop_flat_map(|(from, dtype, dims, wanted)| {
            // Finite differences run in f64: a result rounded to f32 is a staircase to them.
            let smooth = wanted && from.is_float() && dtype == DType::F64;
            let x = if smooth { uniform(from, dims, -3.0, 3.0) } else { special(from, dims) };
            x.prop_map(move |x| Sample { op: Self { dtype }.into(), operands: vec![x], smooth })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// The elements converted to `dtype`; nothing is added if they are of that type. See [`Cast`].
    #[track_caller]
    pub fn cast(self, dtype: DType) -> Self {
        if self.dtype() == dtype { self } else { self.builder().push(Cast { dtype }, &[self]) }
    }
}
