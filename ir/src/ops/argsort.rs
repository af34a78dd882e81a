//! `argsort`: the order of elements along an axis.

use super::rules::{accept, operands};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::scalar::{CmpKind, Scalar, ScalarOp};
use crate::types::{DType, TensorType};
use std::cmp::Ordering;

op! {
    /// Positions along `axis` in the order of their elements, ascending or descending: `x` taken at these
    /// positions is sorted. Equal elements keep their order (0 equals -0); NaN counts as greater than all
    /// numbers. Any number; the result is `i32`, of the shape of `x`; the extent of `axis` is below 2^31. The
    /// result is an integer, so there is no gradient: that of [`Tensor::sort`] comes from taking the elements.
    pub struct ArgSort {
        /// The axis.
        pub axis: usize,
        /// Greatest first.
        pub descending: bool,
    }
}

/// Whether `a` comes before `b` and they are not equal.
fn precedes(a: Scalar, b: Scalar, descending: bool) -> bool {
    let is = |kind, a, b| ScalarOp::Cmp(kind).eval(&[a, b]) == Scalar::Bool(true);
    let (a, b) = if descending { (b, a) } else { (a, b) };
    is(CmpKind::Lt, a, b) || is(CmpKind::Ne, b, b) && !is(CmpKind::Ne, a, a)
}

impl OpDef for ArgSort {
    const NAME: &'static str = "argsort";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        accept(Self::NAME, x, 0, "a number", super::rules::is_number)?;
        let Some(extent) = x0.shape.get(self.axis) else {
            let message = format!("axis {} is not below the rank {}", self.axis, x0.rank());
            return Err(TypeError::new(Self::NAME, x, message));
        };
        if extent.as_const().is_some_and(|n| n >= 1 << 31) {
            let message = format!("axis {} has extent {extent}, must be below 2^31", self.axis);
            return Err(TypeError::new(Self::NAME, x, message));
        }
        Ok(x0.with_dtype(DType::I32))
    }

    fn vjp<'f>(&self, _: &VjpCx<'_, 'f>, _: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![None])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, _: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(None)
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axis: self.axis + 1, ..self.clone() }))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let x = x[0];
        let mut result = vec![Scalar::I32(0); x.len()];
        for index in indices(x.dims()).filter(|index| index[self.axis] == 0) {
            let place = |i: usize| {
                let mut at = index.clone();
                at[self.axis] = i;
                linear_index(&at, x.dims())
            };
            let mut order: Vec<usize> = (0..x.dims()[self.axis]).collect();
            order.sort_by(|&a, &b| {
                let (a, b) = (x.get(place(a)), x.get(place(b)));
                match (precedes(a, b, self.descending), precedes(b, a, self.descending)) {
                    (true, _) => Ordering::Less,
                    (_, true) => Ordering::Greater,
                    _ => Ordering::Equal,
                }
            });
            for (i, from) in order.into_iter().enumerate() {
                result[place(i)] = Scalar::I32(from as i32);
            }
        }
        Ok(Literal::from_fn(out.dtype, &out.dims, |i| result[i]))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::ArgSort { axis: self.axis, descending: self.descending }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, extent, number, special, tied};
        use proptest::prelude::*;
        let case = (number(), dims(3), extent(), any::<prop::sample::Index>(), any::<[bool; 2]>());
        let sample = case.prop_flat_map(|(dtype, mut dims, extent, at, [descending, ties])| {
            let axis = at.index(dims.len() + 1);
            dims.insert(axis, extent);
            let x = if ties { tied(dtype, dims) } else { special(dtype, dims) };
            x.prop_map(move |x| Sample {
                op: Self { axis, descending }.into(),
                operands: vec![x],
                smooth: false,
            })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Positions along `axis` in the order of their elements, `i32`. See [`ArgSort`].
    #[track_caller]
    pub fn argsort(self, axis: usize, descending: bool) -> Self {
        self.builder().push(ArgSort { axis, descending }, &[self])
    }
}
