//! `broadcast`: repeats a tensor along new axes.

use super::rules::{behind_batch, index_vars, operands, with_batch};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::index::Access;
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::{Shape, TensorType};

op! {
    /// Repeats `x` along the axes of `shape` that are not in `axes`: axis `i` of `x` becomes axis
    /// `axes[i]` of the result. `axes` is strictly increasing; extents are equal.
    /// Gradient: the sum over the new axes.
    pub struct Broadcast {
        /// Shape of the result.
        pub shape: Shape,
        /// Where each axis of the operand goes.
        pub axes: Vec<usize>,
    }
}

impl OpDef for Broadcast {
    const NAME: &'static str = "broadcast";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        let fail = |message| Err(TypeError::new(Self::NAME, x, message));
        if self.axes.len() != x0.rank() {
            return fail(format!("{} axes are given for an operand of rank {}", self.axes.len(), x0.rank()));
        }
        if self.axes.windows(2).any(|w| w[0] >= w[1]) || self.axes.iter().any(|&a| a >= self.shape.rank()) {
            return fail(format!("axes {:?} must be increasing and below the rank of {}", self.axes, self.shape));
        }
        for (i, &a) in self.axes.iter().enumerate() {
            if x0.shape[i] != self.shape[a] {
                return fail(format!(
                    "operand axis {i} is {} but result axis {a} is {} in {}",
                    x0.shape[i], self.shape[a], self.shape
                ));
            }
        }
        super::rules::storable(Self::NAME, &x0.with_shape(&self.shape))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let new: Vec<usize> = (0..self.shape.rank()).filter(|a| !self.axes.contains(a)).collect();
        Ok(vec![Some(ct.reduce_sum(&new))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.broadcast(&self.shape, &self.axes)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let axes = with_batch(0, &behind_batch(&self.axes));
        Ok(cx.operands[0].broadcast(cx.with_batch(&self.shape), &axes))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let index = at.next().expect("one index per element");
            let from: Vec<usize> = self.axes.iter().map(|&a| index[a]).collect();
            x[0].get(linear_index(&from, x[0].dims()))
        }))
    }

    fn pattern(&self, _: &[StaticType], out: &StaticType) -> Pattern {
        let (_, vars) = index_vars(&out.dims);
        let index = self.axes.iter().map(|&a| vars[a].clone()).collect();
        Pattern::Injective(vec![Access { operand: 0, index, guards: Vec::new() }])
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, uniform};
        use proptest::prelude::*;
        let case = (number(), dims(6)).prop_flat_map(|(dtype, dims)| {
            let rank = dims.len();
            (Just(dtype), Just(dims), proptest::sample::subsequence((0..rank).collect::<Vec<_>>(), 0..=rank))
        });
        let sample = case.prop_flat_map(|(dtype, dims, axes)| {
            let from: Vec<usize> = axes.iter().map(|&a| dims[a]).collect();
            let op = Self { shape: dims.as_slice().into(), axes };
            uniform(dtype, from, -3.0, 3.0)
                .prop_map(move |x| Sample { op: op.clone().into(), operands: vec![x], smooth: true })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Repeats along the axes of `shape` that are not in `axes`; axis `i` of `self` becomes axis
    /// `axes[i]` of the result.
    #[track_caller]
    pub fn broadcast(self, shape: impl Into<Shape>, axes: &[usize]) -> Self {
        self.builder().push(Broadcast { shape: shape.into(), axes: axes.to_vec() }, &[self])
    }
}
