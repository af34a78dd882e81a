//! `gather`: elements picked by indices.

use super::places::Places;
use super::rules::{storable, to_front};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices};
use crate::pattern::{Combine, Pattern};
use crate::types::TensorType;

op! {
    /// Operands `x` (any element type) and one integer tensor of indices per entry of `axes`, all of
    /// one shape. Each position `j..` of the indices picks a part of `x`: on `axes[n]` the position
    /// that `indices[n][j..]` names, on an axis that `batch` pairs with an axis of the indices the
    /// position that `j..` has there, and all of the other axes. The result has the axes taken
    /// whole in their order, with the axes of the indices in place of the first axis of `x` that is
    /// not. So `axes = [a]` gives `out[i.., j.., k..] = x[i.., indices[j..], k..]`.
    ///
    /// Dimensions may be named. Two that are paired are equal, or numbers and that of the indices is
    /// smaller. Every index must be in `0..x.shape[axis]`, also when the result is empty otherwise:
    /// a run-time error names the first that is not.
    ///
    /// Gradient: to `x`, the cotangent added up at the places read ([`super::Scatter`] into zeros).
    /// The same power as XLA's `Gather` with slices of 1 on indexed axes, up to transposition;
    /// [`super::DynamicSlice`] has longer ones.
    pub struct Gather {
        /// Axes of `x` that are indexed, in the order of the index operands; at least one.
        pub axes: Vec<usize>,
        /// Pairs of an axis of `x` and an axis of the indices that run along with each other.
        pub batch: Vec<(usize, usize)>,
    }
}

impl Gather {
    fn places(&self) -> Places<'_> {
        Places { axes: &self.axes, batch: &self.batch }
    }
}

impl OpDef for Gather {
    const NAME: &'static str = "gather";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let Some((x0, indices)) = x.split_first() else {
            return Err(TypeError::new(Self::NAME, x, "takes a tensor and its indices"));
        };
        storable(Self::NAME, &x0.with_shape(self.places().infer(Self::NAME, x, indices)?))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (x, indices) = (cx.operands[0], &cx.operands[1..]);
        let zeros = ct.builder().full(x.dtype(), x.shape(), 0.0);
        let mut cts = vec![None; cx.operands.len()];
        cts[0] = Some(zeros.scatter(Combine::Add, indices, ct, &self.axes, &self.batch));
        Ok(cts)
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(tangents[0].map(|t| t.gather(&cx.operands[1..], &self.axes, &self.batch)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let (x, places) = (cx.operands[0], self.places());
        if !cx.mapped[1..].contains(&true) {
            let (axes, batch) = places.shifted(1, 0);
            return Ok(x.gather(&cx.operands[1..], &axes, &batch));
        }
        let indices: Vec<Tensor<'f>> = (1..cx.operands.len()).map(|i| cx.repeated(i)).collect();
        if !cx.mapped[0] {
            let (axes, batch) = places.shifted(0, 1);
            return Ok(to_front(x.gather(&indices, &axes, &batch), places.first(x.rank())));
        }
        // Each example has a tensor and indices of its own.
        let order = places.batched_order(x.rank() - 1, indices[0].rank() - 1);
        let (axes, batch) = places.shifted(1, 1);
        Ok(x.gather(&indices, &axes, &[vec![(0, 0)], batch].concat()).transpose(&order))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let locate = self.places().locate(Self::NAME, x[0].dims(), &x[1..])?;
        let mut at = indices(&out.dims);
        let mut element = |_| x[0].get(locate(&at.next().expect("one index per element")));
        Ok(Literal::from_fn(out.dtype, &out.dims, &mut element))
    }

    fn pattern(&self, x: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Gather(self.places().indexing(&x[0].dims, x[1].dims.len()))
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use super::places::{Case, cases};
        use crate::testing::{Sample, special, uniform};
        use crate::types::DType;
        use proptest::prelude::*;
        let dtype = proptest::sample::select(DType::ALL.as_slice());
        let sample = (dtype, cases()).prop_flat_map(|(dtype, case)| {
            let Case { dims, axes, batch, indices, .. } = case;
            let x = match dtype {
                DType::Bool => special(dtype, dims),
                _ => uniform(dtype, dims, -3.0, 3.0),
            };
            x.prop_map(move |x| Sample {
                op: Self { axes: axes.clone(), batch: batch.clone() }.into(),
                operands: std::iter::once(x).chain(indices.clone()).collect(),
                smooth: true,
            })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// The parts of `self` that integer `indices`, one tensor per entry of `axes`, pick; `batch` pairs
    /// axes of `self` and axes of the indices. See [`Gather`]. [`Tensor::take`],
    /// [`Tensor::take_along_axis`] and [`Tensor::gather_nd`] are common cases.
    #[track_caller]
    pub fn gather(self, indices: &[Self], axes: &[usize], batch: &[(usize, usize)]) -> Self {
        let operands: Vec<Self> = std::iter::once(self).chain(indices.iter().copied()).collect();
        self.builder().push(Gather { axes: axes.to_vec(), batch: batch.to_vec() }, &operands)
    }
}
