//! `dynamic_update_slice`: overwrites a part of a tensor that starts where scalars say.

use super::places::{check_part, part_indexing, part_indices, part_starts, zero_start};
use super::rules::same_dtype;
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::{Combine, Pattern};
use crate::types::TensorType;

op! {
    /// Operands `x`, `update` (of one element type, any, and one rank) and one integer scalar per
    /// axis: `x` with `out[start0 + i0, ..] = update[i0, ..]`. Extents of `update` are numbers up to
    /// that of `x`, or a named extent of `x`. Every start must be in
    /// `0..x.shape[axis] - update.shape[axis] + 1`: a run-time error names one that is not; it is not
    /// clamped, unlike in XLA.
    /// Gradients: to `x` the cotangent with zeros in that part, to `update` that part of the cotangent.
    pub struct DynamicUpdateSlice {}
}

impl OpDef for DynamicUpdateSlice {
    const NAME: &'static str = "dynamic_update_slice";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0, update, ..] = x else {
            return Err(TypeError::new(Self::NAME, x, "takes a tensor, an update and a start per axis"));
        };
        same_dtype(Self::NAME, x, 0, 1)?;
        check_part(Self::NAME, x, &update.shape, 2)?;
        Ok(x0.clone())
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (update, starts) = (cx.operands[1], &cx.operands[2..]);
        let mut cts = vec![None; cx.operands.len()];
        cts[0] = Some(ct.dynamic_update_slice(update.full_like(0.0), starts));
        cts[1] = Some(ct.dynamic_slice(starts, update.shape()));
        Ok(cts)
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let tangent = |i: usize| tangents[i].unwrap_or_else(|| cx.operands[i].full_like(0.0));
        Ok(Some(tangent(0).dynamic_update_slice(tangent(1), &cx.operands[2..])))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let (x, update, starts) = (cx.repeated(0), cx.repeated(1), &cx.operands[2..]);
        if cx.mapped[2..].contains(&true) {
            let indices = part_indices(cx, 2, &cx.shape(1));
            let axes: Vec<usize> = (1..x.rank()).collect();
            return Ok(x.scatter(Combine::Assign, &indices, update, &axes, &[(0, 0)]));
        }
        Ok(x.dynamic_update_slice(update, &[&[zero_start(starts, x)], starts].concat()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (x0, update) = (x[0], x[1]);
        let starts = part_starts(Self::NAME, x0.dims(), update.dims(), &x[2..])?;
        let mut result: Vec<_> = (0..x0.len()).map(|i| x0.get(i)).collect();
        for (i, index) in indices(update.dims()).enumerate() {
            let place: Vec<usize> = index.iter().zip(&starts).map(|(i, s)| i + s).collect();
            result[linear_index(&place, x0.dims())] = update.get(i);
        }
        Ok(Literal::from_fn(out.dtype, &out.dims, |i| result[i]))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        let places = part_indexing(&out.dims, &x[1].dims, 2);
        Pattern::Scatter { places, updates: 1, combine: Combine::Assign }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, number, uniform};
        use proptest::prelude::*;
        let sample = (number(), super::places::parts()).prop_flat_map(|(dtype, (dims, part, starts))| {
            let values = (uniform(dtype, dims, -3.0, 3.0), uniform(dtype, part, -3.0, 3.0));
            values.prop_map(move |(x, update)| Sample {
                op: Self {}.into(),
                operands: [x, update].into_iter().chain(starts.clone()).collect(),
                smooth: true,
            })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// `self` with `update` in the part that starts at `starts`, one integer scalar per axis. See
    /// [`DynamicUpdateSlice`].
    #[track_caller]
    pub fn dynamic_update_slice(self, update: Self, starts: &[Self]) -> Self {
        let operands: Vec<Self> = [self, update].into_iter().chain(starts.iter().copied()).collect();
        self.builder().push(DynamicUpdateSlice {}, &operands)
    }
}
