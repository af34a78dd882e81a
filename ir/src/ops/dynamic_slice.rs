//! `dynamic_slice`: a part of a tensor that starts where scalars say.

use super::places::{check_part, part_indexing, part_indices, part_starts, zero_start};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::{Shape, TensorType};

op! {
    /// Operands `x` (any element type) and one integer scalar per axis:
    /// `out[i0, ..] = x[start0 + i0, ..]`, of shape `sizes`. Sizes are numbers up to the extent, or a
    /// named extent, which can only be taken whole. Every start must be in
    /// `0..x.shape[axis] - sizes[axis] + 1`: a run-time error names one that is not; it is not
    /// clamped, unlike in XLA.
    /// Gradient: to `x`, the cotangent at its place in zeros ([`super::DynamicUpdateSlice`]).
    pub struct DynamicSlice {
        /// Extent of the part, per axis.
        pub sizes: Shape,
    }
}

impl OpDef for DynamicSlice {
    const NAME: &'static str = "dynamic_slice";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let Some(x0) = x.first() else {
            return Err(TypeError::new(Self::NAME, x, "takes a tensor and a start per axis"));
        };
        check_part(Self::NAME, x, &self.sizes, 1)?;
        Ok(x0.with_shape(self.sizes.clone()))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let zeros = ct.builder().full(ct.dtype(), cx.operands[0].shape(), 0.0);
        let mut cts = vec![None; cx.operands.len()];
        cts[0] = Some(zeros.dynamic_update_slice(ct, &cx.operands[1..]));
        Ok(cts)
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(tangents[0].map(|t| t.dynamic_slice(&cx.operands[1..], self.sizes.clone())))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let (x, starts) = (cx.repeated(0), &cx.operands[1..]);
        if cx.mapped[1..].contains(&true) {
            let indices = part_indices(cx, 1, &self.sizes);
            return Ok(x.gather(&indices, &(1..x.rank()).collect::<Vec<_>>(), &[(0, 0)]));
        }
        let sizes = cx.with_batch(&self.sizes);
        Ok(x.dynamic_slice(&[&[zero_start(starts, x)], starts].concat(), sizes))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let starts = part_starts(Self::NAME, x[0].dims(), &out.dims, &x[1..])?;
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let index = at.next().expect("one index per element");
            let place: Vec<usize> = index.iter().zip(&starts).map(|(i, s)| i + s).collect();
            x[0].get(linear_index(&place, x[0].dims()))
        }))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        Pattern::Gather(part_indexing(&x[0].dims, &out.dims, 1))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, number, uniform};
        use proptest::prelude::*;
        let sample = (number(), super::places::parts()).prop_flat_map(|(dtype, (dims, part, starts))| {
            uniform(dtype, dims, -3.0, 3.0).prop_map(move |x| Sample {
                op: Self { sizes: part.as_slice().into() }.into(),
                operands: std::iter::once(x).chain(starts.clone()).collect(),
                smooth: true,
            })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// The part of shape `sizes` that starts at `starts`, one integer scalar per axis. See
    /// [`DynamicSlice`].
    #[track_caller]
    pub fn dynamic_slice(self, starts: &[Self], sizes: impl Into<Shape>) -> Self {
        let operands: Vec<Self> = std::iter::once(self).chain(starts.iter().copied()).collect();
        self.builder().push(DynamicSlice { sizes: sizes.into() }, &operands)
    }
}
