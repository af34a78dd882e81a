//! `reverse`: turns axes around.

use super::rules::{behind_batch, index_vars, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::index::Access;
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::TensorType;

op! {
    /// `out[.., i, ..] = x[.., d - 1 - i, ..]` on each of `axes`, of extent `d`, which may be named.
    /// Any element type. Gradient: the cotangent, reversed again.
    pub struct Reverse {
        /// Axes turned around: increasing, distinct.
        pub axes: Vec<usize>,
    }
}

impl OpDef for Reverse {
    const NAME: &'static str = "reverse";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        if self.axes.windows(2).any(|w| w[0] >= w[1]) || self.axes.iter().any(|&a| a >= x0.rank()) {
            let message = format!("axes {:?} must be increasing and below the rank {}", self.axes, x0.rank());
            return Err(TypeError::new(Self::NAME, x, message));
        }
        Ok(x0.clone())
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![Some(ct.reverse(&self.axes))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.reverse(&self.axes)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.operands[0].reverse(&behind_batch(&self.axes)))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let mut index = at.next().expect("one index per element");
            for &axis in &self.axes {
                index[axis] = out.dims[axis] - 1 - index[axis];
            }
            x[0].get(linear_index(&index, x[0].dims()))
        }))
    }

    fn pattern(&self, _: &[StaticType], out: &StaticType) -> Pattern {
        let (_, mut index) = index_vars(&out.dims);
        for &axis in &self.axes {
            index[axis] = index[axis].scale(-1).offset(out.dims[axis] as i64 - 1);
        }
        Pattern::Injective(vec![Access { operand: 0, index, guards: Vec::new() }])
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, uniform};
        use proptest::prelude::*;
        let case = (number(), dims(6)).prop_flat_map(|(dtype, dims)| {
            let rank = dims.len();
            let axes = proptest::sample::subsequence((0..rank).collect::<Vec<_>>(), 0..=rank);
            (uniform(dtype, dims, -3.0, 3.0), axes)
        });
        let sample = |(x, axes)| Sample { op: Self { axes }.into(), operands: vec![x], smooth: true };
        Some(case.prop_map(sample).boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Turns `axes` (increasing) around.
    #[track_caller]
    pub fn reverse(self, axes: &[usize]) -> Self {
        if axes.is_empty() { self } else { self.builder().push(Reverse { axes: axes.to_vec() }, &[self]) }
    }
}
