//! `cumprod`: products of all elements so far along an axis.

use super::rules::{eval_cumulative, infer_cumulative, to_front};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::control::ScanOptions;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::{Pattern, ReduceKind};
use crate::types::{Shape, TensorType};

op! {
    /// `out[i] = x[0] * .. * x[i]` along `axis`.
    /// With `reverse` from the last element to the first; with `exclusive` without the element itself, so the
    /// first is 1. Any number; one chain in the order of the elements, starting from 1.
    /// Gradient: exact also where elements are zero, by loops along the axis (`scan`): with `b[i]` the product
    /// of the elements before `i` and `a[i] = ct[i] + a[i + 1] * x[i + 1]`, `dx[i] = a[i] * b[i]`.
    pub struct CumProd {
        /// The axis.
        pub axis: usize,
        /// Runs from the last element to the first.
        pub reverse: bool,
        /// Leaves the element itself out.
        pub exclusive: bool,
    }
}

/// The first axis at `axis` again.
#[track_caller]
fn back(x: Tensor<'_>, axis: usize) -> Tensor<'_> {
    let order: Vec<usize> = (1..=axis).chain([0]).chain(axis + 1..x.rank()).collect();
    x.transpose(&order)
}

impl OpDef for CumProd {
    const NAME: &'static str = "cumprod";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        infer_cumulative(Self::NAME, x, self.axis)
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (f, x) = (ct.builder(), cx.operands[0]);
        let before = f.push(Self { exclusive: true, ..self.clone() }, &[x]);
        let [x, ct, before] = [x, ct, before].map(|t| to_front(t, self.axis));
        let start = f.full(x.dtype(), x.shape()[1..].iter().collect::<Shape>(), 0.0);
        let options = ScanOptions { reverse: !self.reverse, ..ScanOptions::default() };
        let scanned = f.scan_with(&options, &[start], &[x, ct, before], |_, a, e| {
            let (x, ct, before) = (e[0], e[1], e[2]);
            // What reaches the product before this element, and what reaches the element.
            let here = if self.exclusive { a[0] } else { a[0] + ct };
            let next = if self.exclusive { ct + a[0] * x } else { here * x };
            (vec![next], vec![here * before])
        });
        Ok(vec![Some(back(scanned.stacked[0], self.axis))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let Some(t) = t[0] else { return Ok(None) };
        let (f, x) = (t.builder(), cx.operands[0]);
        let [x, t] = [x, t].map(|t| to_front(t, self.axis));
        let shape: Shape = x.shape()[1..].iter().collect();
        let (one, zero) = (f.full(x.dtype(), &shape, 1.0), f.full(x.dtype(), &shape, 0.0));
        let options = ScanOptions { reverse: self.reverse, ..ScanOptions::default() };
        let scanned = f.scan_with(&options, &[one, zero], &[x, t], |_, c, e| {
            let (product, tangent) = (c[0] * e[0], c[1] * e[0] + c[0] * e[1]);
            (vec![product, tangent], vec![if self.exclusive { c[1] } else { tangent }])
        });
        Ok(Some(back(scanned.stacked[0], self.axis)))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axis: self.axis + 1, ..self.clone() }))
    }

    fn eval(&self, x: &[&Literal], _: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_cumulative(ReduceKind::Prod, x[0], self.axis, self.reverse, self.exclusive))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        let Self { axis, reverse, exclusive } = *self;
        Pattern::Cumulative { kind: ReduceKind::Prod, axis, reverse, exclusive }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        super::rules::cumulative_samples(
            ReduceKind::Prod,
            |axis, reverse, exclusive| Self { axis, reverse, exclusive }.into(),
            |dtype, dims| crate::testing::uniform(dtype, dims, -1.5, 1.5),
        )
    }
}

impl<'f> Tensor<'f> {
    /// Products of all elements so far along `axis`, the element itself included. See [`CumProd`].
    #[track_caller]
    pub fn cumprod(self, axis: usize) -> Self {
        self.builder().push(CumProd { axis, reverse: false, exclusive: false }, &[self])
    }
}
