//! `scatter_add`: adds values at places named by indices.

use super::gather::{Rows, check_indices, gathered, positions};
use super::rules::{accept, is_number, operands, same_dtype, tangent};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::scalar::ScalarOp;
use crate::types::TensorType;

op! {
    /// Operands `x`, integer `indices` and `updates` of shape
    /// `x.shape[..axis] ++ indices.shape ++ x.shape[axis + 1..]`: `x` after
    /// `x[a.., indices[j..], b..] += updates[a.., j.., b..]` for every `j..` in row-major order, one
    /// addition at a time. Any number; integers wrap. Dimensions may be named. Every index must be
    /// in `0..x.shape[axis]`, as in `gather`.
    /// Gradients: to `x` the cotangent, to `updates` the cotangent gathered at `indices`.
    pub struct ScatterAdd {
        /// Axis of `x` that is indexed.
        pub axis: usize,
    }
}

impl OpDef for ScatterAdd {
    const NAME: &'static str = "scatter_add";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0, indices, updates] = operands::<3>(Self::NAME, x)?;
        accept(Self::NAME, x, 0, "a number", is_number)?;
        same_dtype(Self::NAME, x, 0, 2)?;
        check_indices(Self::NAME, x, self.axis)?;
        let expected = gathered(&x0.shape, &indices.shape, self.axis);
        if updates.shape != expected {
            let message = format!("the updates have shape {}, must have {expected}", updates.shape);
            return Err(TypeError::new(Self::NAME, x, message));
        }
        Ok(x0.clone())
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![Some(ct), None, Some(ct.gather(cx.operands[1], self.axis))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        if t[0].is_none() && t[2].is_none() {
            return Ok(None);
        }
        let x = tangent(t[0], cx.operands[0]);
        Ok(Some(t[2].map_or(x, |updates| x.scatter_add(cx.operands[1], updates, self.axis))))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let (x, indices, updates) = (cx.repeated(0), cx.operands[1], cx.repeated(2));
        if !cx.mapped[1] {
            return Ok(x.scatter_add(indices, updates, self.axis + 1));
        }
        let rows = Rows::of(Self::NAME, cx, self.axis)?;
        // The axes of the indices move behind the batch, in front of the others of `updates`.
        let n_indices = indices.rank() - 1;
        let own = 1 + self.axis..1 + self.axis + n_indices;
        let others = (1..updates.rank()).filter(|a| !own.contains(a));
        let order: Vec<usize> = std::iter::once(0).chain(own.clone()).chain(others).collect();
        let joined = rows.join(x).scatter_add(rows.positions(indices), updates.transpose(&order), 0);
        Ok(rows.split(joined, &x.shape()))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (picked, updates) = (x[1], x[2]);
        let positions = positions(Self::NAME, picked, out.dims[self.axis])?;
        let picked_axes = self.axis..self.axis + picked.dims().len();
        let mut result: Vec<_> = (0..x[0].len()).map(|i| x[0].get(i)).collect();
        for (i, mut index) in indices(updates.dims()).enumerate() {
            let p = positions[linear_index(&index[picked_axes.clone()], picked.dims())];
            index.splice(picked_axes.clone(), [p]);
            let to = &mut result[linear_index(&index, &out.dims)];
            *to = ScalarOp::Add.eval(&[*to, updates.get(i)]);
        }
        Ok(Literal::from_fn(out.dtype, &out.dims, |i| result[i]))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::ScatterAdd { axis: self.axis }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, number, uniform};
        use proptest::prelude::*;
        let case = (number(), super::gather::indexed());
        let sample = case.prop_flat_map(|(dtype, (dims, axis, indices))| {
            let updates: Vec<usize> =
                [&dims[..axis], indices.dims(), &dims[axis + 1..]].into_iter().flatten().copied().collect();
            (uniform(dtype, dims, -3.0, 3.0), uniform(dtype, updates, -3.0, 3.0)).prop_map(
                move |(x, updates)| Sample {
                    op: Self { axis }.into(),
                    operands: vec![x, indices.clone(), updates],
                    smooth: true,
                },
            )
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// `self` with `updates` added at the places that integer `indices` name along `axis`.
    #[track_caller]
    pub fn scatter_add(self, indices: Self, updates: Self, axis: usize) -> Self {
        self.builder().push(ScatterAdd { axis }, &[self, indices, updates])
    }
}
