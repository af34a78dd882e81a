//! `gather`: elements of an axis, picked by indices.

use super::rules::{accept, operands, storable};
use super::{OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::{DType, Shape, TensorType};

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
