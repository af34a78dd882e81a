//! `gather`: elements of an axis, picked by indices.

use super::rules::{accept, operands, storable, to_front};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, NoBatch, TypeError};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::{DType, Dim, Shape, TensorType};

op! {
    /// Operands `x` (any element type) and integer `indices`:
    /// `out[a.., j.., b..] = x[a.., indices[j..], b..]` with the index at `axis` of `x`. Shape:
    /// `x.shape[..axis] ++ indices.shape ++ x.shape[axis + 1..]`; dimensions may be named.
    /// Every index must be in `0..x.shape[axis]`, also when the result is empty otherwise: a
    /// run-time error names the first that is not.
    /// Gradient: to `x`, the cotangent added up at the places read (`scatter_add` into zeros).
    pub struct Gather {
        /// Axis of `x` that is indexed.
        pub axis: usize,
    }
}

/// Shape of `x` with the dimensions of `indices` in place of `axis`.
pub(super) fn gathered(x: &Shape, indices: &Shape, axis: usize) -> Shape {
    x[..axis].iter().chain(indices.iter()).chain(&x[axis + 1..]).collect()
}

/// Refuses an axis out of range and indices that are no integers.
pub(super) fn check_indices(op: &'static str, x: &[TensorType], axis: usize) -> Result<(), TypeError> {
    if axis >= x[0].rank() {
        return Err(TypeError::new(op, x, format!("axis {axis} is not below the rank {} of operand 0", x[0].rank())));
    }
    accept(op, x, 1, "i32 or i64", DType::is_int)
}

/// The elements of `indices` as positions below `bound`.
pub(super) fn positions(op: &'static str, indices: &Literal, bound: usize) -> Result<Vec<usize>, EvalError> {
    let mut positions = Vec::with_capacity(indices.len());
    for position in 0..indices.len() {
        let value = match indices.get(position) {
            crate::Scalar::I32(v) => i64::from(v),
            crate::Scalar::I64(v) => v,
            _ => unreachable!("the shape rule takes integers only"),
        };
        match usize::try_from(value) {
            Ok(p) if p < bound => positions.push(p),
            _ => return Err(EvalError::IndexOutOfRange { op, position, value, bound }),
        }
    }
    Ok(positions)
}

/// The rows that indices pick in a tensor with a batch, all examples one after another: a batch of
/// indices into a batch of tensors becomes one list of indices into one tensor.
pub(super) struct Rows {
    /// Extent of the batch.
    n_examples: usize,
    /// Rows of one example.
    n_rows: usize,
    /// The axis that is indexed, of one example.
    axis: usize,
}

impl Rows {
    /// The rows along `axis` of operand 0, which is mapped or repeated.
    pub(super) fn of(op: &'static str, cx: &BatchCx<'_, '_>, axis: usize) -> Result<Self, NoBatch> {
        match (cx.size.as_const(), cx.shape(0)[axis].as_const()) {
            (Some(n_examples), Some(n_rows)) => Ok(Self { n_examples, n_rows, axis }),
            _ => {
                let why = "indices differ between examples, and the batch or the indexed axis has a named \
                           extent: both must be numbers";
                Err(NoBatch { op, why })
            }
        }
    }

    /// `x: [batch, .., rows, ..]` as `[batch * rows, ..]`.
    pub(super) fn join<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let own = self.axis + 1;
        let order: Vec<usize> = [0, own].into_iter().chain((1..x.rank()).filter(|&a| a != own)).collect();
        let x = x.transpose(&order);
        let rest = x.shape()[2..].to_vec();
        let all = Dim::Const(self.n_examples.saturating_mul(self.n_rows));
        x.reshape(std::iter::once(all).chain(rest).collect::<Shape>())
    }

    /// The inverse of [`Self::join`] to a tensor of shape `to`.
    pub(super) fn split<'f>(&self, joined: Tensor<'f>, to: &Shape) -> Tensor<'f> {
        let rest = joined.shape()[1..].to_vec();
        let both = [self.n_examples, self.n_rows].into_iter().map(Dim::Const);
        let split = joined.reshape(both.chain(rest).collect::<Shape>());
        let own = self.axis + 1;
        let order: Vec<usize> = (0..to.rank())
            .map(|a| match a {
                0 => 0,
                a if a < own => a + 1,
                a if a == own => 1,
                a => a,
            })
            .collect();
        split.transpose(&order)
    }

    /// `indices: [batch, ..]`, checked, as positions among all rows.
    pub(super) fn positions<'f>(&self, indices: Tensor<'f>) -> Tensor<'f> {
        let checked = indices.check_index(self.n_rows).cast(DType::I64);
        checked + checked.builder().iota(DType::I64, checked.shape(), 0) * self.n_rows as f64
    }
}

impl OpDef for Gather {
    const NAME: &'static str = "gather";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0, indices] = operands::<2>(Self::NAME, x)?;
        check_indices(Self::NAME, x, self.axis)?;
        storable(Self::NAME, &x0.with_shape(gathered(&x0.shape, &indices.shape, self.axis)))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (x, indices) = (cx.operands[0], cx.operands[1]);
        let zeros = ct.builder().full(x.dtype(), x.shape(), 0.0);
        Ok(vec![Some(zeros.scatter_add(indices, ct, self.axis)), None])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.gather(cx.operands[1], self.axis)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let (x, indices) = (cx.operands[0], cx.operands[1]);
        Ok(match cx.mapped {
            [true, false] => x.gather(indices, self.axis + 1),
            [false, _] => to_front(x.gather(indices, self.axis), self.axis),
            _ => {
                let rows = Rows::of(Self::NAME, cx, self.axis)?;
                let gathered = rows.join(x).gather(rows.positions(indices), 0);
                // The batch and the axes of the indices lie in front of the others of `x`.
                let n_indices = indices.rank() - 1;
                let order = (0..self.axis).map(|a| 1 + n_indices + a).chain(1..=n_indices);
                let order = std::iter::once(0).chain(order).chain(1 + n_indices + self.axis..gathered.rank());
                gathered.transpose(&order.collect::<Vec<_>>())
            }
        })
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (x, picked) = (x[0], x[1]);
        let positions = positions(Self::NAME, picked, x.dims()[self.axis])?;
        let picked_axes = self.axis..self.axis + picked.dims().len();
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let index = at.next().expect("one index per element");
            let mut from = index.clone();
            let p = positions[linear_index(&index[picked_axes.clone()], picked.dims())];
            from.splice(picked_axes.clone(), [p]);
            x.get(linear_index(&from, x.dims()))
        }))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::Gather { axis: self.axis }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, number, uniform};
        use proptest::prelude::*;
        let sample = (number(), indexed()).prop_flat_map(|(dtype, (dims, axis, indices))| {
            uniform(dtype, dims, -3.0, 3.0).prop_map(move |x| Sample {
                op: Self { axis }.into(),
                operands: vec![x, indices.clone()],
                smooth: true,
            })
        });
        Some(sample.boxed())
    }
}

/// Extents, an axis, and indices into it (none if it is empty).
#[cfg(any(test, feature = "testing"))]
pub(super) fn indexed() -> impl proptest::strategy::Strategy<Value = (Vec<usize>, usize, Literal)> {
    use proptest::prelude::*;
    let small = |n| proptest::collection::vec(0usize..5, 0..=n);
    let int = prop_oneof![Just(DType::I32), Just(DType::I64)];
    (small(2), 0usize..8, any::<prop::sample::Index>(), small(2), int).prop_flat_map(
        |(mut dims, extent, at, mut shape, int)| {
            let axis = at.index(dims.len() + 1);
            dims.insert(axis, extent);
            if extent == 0 {
                shape.insert(0, 0);
            }
            let n: usize = shape.iter().product();
            let values = proptest::collection::vec(0..extent.max(1) as i64, n);
            values.prop_map(move |v| {
                (dims.clone(), axis, Literal::from_fn(int, &shape, |i| crate::Scalar::I64(v[i])))
            })
        },
    )
}

impl<'f> Tensor<'f> {
    /// Elements of `axis` picked by integer `indices`, whose axes take its place.
    #[track_caller]
    pub fn gather(self, indices: Self, axis: usize) -> Self {
        self.builder().push(Gather { axis }, &[self, indices])
    }
}
