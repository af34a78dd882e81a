//! `concatenate`: tensors one after another along an axis.

use super::rules::{index_vars, storable, tangent};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::{FunctionBuilder, Tensor};
use crate::error::{EvalError, TypeError};
use crate::index::{Access, Guard};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::{Dim, MAX_ELEMENTS, TensorType};

op! {
    /// The operands (at least one, of one element type, any) one after another along `axis`. Their
    /// extents along `axis` are numbers and may be 0; all others are equal, and may be named.
    /// Gradient: to each operand its slice of the cotangent.
    pub struct Concatenate {
        /// The axis along which extents add up.
        pub axis: usize,
    }
}

impl OpDef for Concatenate {
    const NAME: &'static str = "concatenate";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let fail = |message| Err(TypeError::new(Self::NAME, x, message));
        let Some(first) = x.first() else { return fail("takes at least one operand".to_owned()) };
        if self.axis >= first.rank() {
            return fail(format!("axis {} is not below the rank {}", self.axis, first.rank()));
        }
        let mut extent = Dim::Const(0);
        for (i, t) in x.iter().enumerate() {
            super::rules::same_dtype(Self::NAME, x, i, 0)?;
            if t.rank() != first.rank() {
                return fail(format!("operand {i} has rank {}, operand 0 has rank {}", t.rank(), first.rank()));
            }
            for axis in (0..t.rank()).filter(|&a| a != self.axis) {
                if t.shape[axis] != first.shape[axis] {
                    return fail(format!(
                        "axis {axis} of operand {i} is {}, of operand 0 {}",
                        t.shape[axis], first.shape[axis]
                    ));
                }
            }
            extent = match extent.checked_add(&t.shape[self.axis]) {
                Some(sum) if sum.as_const().is_none_or(|n| n <= MAX_ELEMENTS) => sum,
                _ => return fail(format!("axis {} would have more than 2^40 elements", self.axis)),
            };
        }
        let mut dims = first.shape.dims().to_vec();
        dims[self.axis] = extent;
        storable(Self::NAME, &first.with_shape(dims))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let mut start = Dim::Const(0);
        let slices = cx.operands.iter().map(|x| {
            let limit = start.clone() + &x.shape()[self.axis];
            Some(ct.slice_axis(self.axis, std::mem::replace(&mut start, limit.clone()), limit))
        });
        Ok(slices.collect())
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let f = cx.result.builder();
        let parts: Vec<Tensor<'f>> = t.iter().zip(cx.operands).map(|(&t, &x)| tangent(t, x)).collect();
        Ok(Some(f.concatenate(&parts, self.axis)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axis: self.axis + 1 }))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let mut index = at.next().expect("one index per element");
            let mut operand = 0;
            while index[self.axis] >= x[operand].dims()[self.axis] {
                index[self.axis] -= x[operand].dims()[self.axis];
                operand += 1;
            }
            x[operand].get(linear_index(&index, x[operand].dims()))
        }))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        let (_, vars) = index_vars(&out.dims);
        let mut accesses = Vec::new();
        let mut start = 0;
        for (operand, t) in x.iter().enumerate() {
            let (lo, hi) = (start, start + t.dims[self.axis] as i64);
            start = hi;
            if lo == hi && operand + 1 < x.len() {
                continue;
            }
            let mut index = vars.clone();
            index[self.axis] = vars[self.axis].offset(-lo);
            let guards = vec![Guard { expr: vars[self.axis].clone(), lo, hi }];
            accesses.push(Access { operand, index, guards });
        }
        // The last operand that has elements is what the earlier ones leave.
        if accesses.len() > 1 && x.last().is_some_and(|t| t.dims[self.axis] == 0) {
            accesses.pop();
        }
        if let Some(last) = accesses.last_mut() {
            last.guards.clear();
        }
        Pattern::Injective(accesses)
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, uniform};
        use proptest::prelude::*;
        let extents = proptest::collection::vec(0usize..5, 1..4);
        let case = (number(), dims(5), any::<prop::sample::Index>(), extents);
        let sample = case.prop_flat_map(|(dtype, dims, at, extents)| {
            let axis = at.index(dims.len() + 1);
            let dims: Vec<usize> = dims.into_iter().map(|d| d.min(7)).collect();
            let one = |n: &usize| {
                let mut dims = dims.clone();
                dims.insert(axis, *n);
                uniform(dtype, dims, -3.0, 3.0)
            };
            let operands: Vec<_> = extents.iter().map(one).collect();
            operands.prop_map(move |operands| Sample { op: Self { axis }.into(), operands, smooth: true })
        });
        Some(sample.boxed())
    }
}

impl FunctionBuilder {
    /// `parts` (at least one) one after another along `axis`.
    #[track_caller]
    pub fn concatenate<'f>(&'f self, parts: &[Tensor<'f>], axis: usize) -> Tensor<'f> {
        self.push(Concatenate { axis }, parts)
    }
}
