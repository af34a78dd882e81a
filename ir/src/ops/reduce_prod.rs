//! `reduce_prod`: product over axes.

use super::rules::{accept, behind_batch, eval_reduce, infer_reduce, is_number, reduce_pattern};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::{Pattern, ReduceKind};
use crate::types::TensorType;

op! {
    /// Product over `axes`, which leave the shape; in the order that [`crate::Reduce`] states. Any
    /// number; integers wrap. Over nothing: 1.
    /// Gradient: the cotangent times the product of the other elements, also where elements are
    /// zero; the reduced axes must then be numbers.
    pub struct ReduceProd {
        /// Axes reduced over: increasing, distinct.
        pub axes: Vec<usize>,
    }
}

/// For each element of `x` the product of the others along `axis`, of extent `extent`: the product
/// of those before it times the product of those after it, by doubling distances.
fn product_of_others<'f>(x: Tensor<'f>, axis: usize, extent: usize) -> Tensor<'f> {
    // The tensor moved by `by` positions along the axis, ones moving in.
    let moved = |x: Tensor<'f>, by: i64| x.pad_axis(axis, by, -by, 1.0);
    let one_side = |sign: i64| {
        let mut product = moved(x, sign);
        let mut distance = 1;
        while distance < extent as i64 - 1 {
            product = product * moved(product, sign * distance);
            distance *= 2;
        }
        product
    };
    one_side(1) * one_side(-1)
}

/// The gradient for the product over `axes`, one axis after the other.
fn cotangent<'f>(x: Tensor<'f>, axes: &[usize], ct: Tensor<'f>) -> Tensor<'f> {
    let Some((&axis, rest)) = axes.split_last() else { return ct };
    let shape = x.shape();
    // The later axes are the inner ones: their product is what the earlier ones multiply.
    let ct = cotangent(x.reduce_prod(&[axis]), rest, ct);
    let kept: Vec<usize> = (0..shape.rank()).filter(|&a| a != axis).collect();
    let extent = shape[axis].as_const();
    let ct = ct.broadcast(shape, &kept);
    match extent {
        Some(0 | 1) => ct,
        Some(extent) => ct * product_of_others(x, axis, extent),
        None => ct * product_before_and_after(x, axis),
    }
}

/// Of each element along `axis`, whose extent is not known, the product of all others.
fn product_before_and_after(x: Tensor<'_>, axis: usize) -> Tensor<'_> {
    let one_side = |reverse| x.builder().push(super::CumProd { axis, reverse, exclusive: true }, &[x]);
    one_side(false) * one_side(true)
}

/// Product of `x` along `axis` and its tangent, by halves: `(p, p')` and `(q, q')` combine to
/// `(p q, p' q + p q')`, which divides by nothing.
fn product_along<'f>(
    x: Tensor<'f>,
    t: Tensor<'f>,
    axis: usize,
) -> (Tensor<'f>, Tensor<'f>) {
    let (f, shape) = (x.builder(), x.shape());
    let Some(extent) = shape[axis].as_const() else {
        let tangent = t * product_before_and_after(x, axis);
        return (x.reduce_prod(&[axis]), tangent.reduce_sum(&[axis]));
    };
    let (mut product, mut tangent, mut n) = (x, t, extent);
    while n > 1 {
        let half = n / 2;
        let part = |x: Tensor<'f>, i: usize| x.slice_axis(axis, i * half, (i + 1) * half);
        let (p, q) = (part(product, 0), part(product, 1));
        let (dp, dq) = (part(tangent, 0), part(tangent, 1));
        let rest = |x: Tensor<'f>, joined| f.concatenate(&[joined, x.slice_axis(axis, 2 * half, n)], axis);
        (product, tangent) = (rest(product, p * q), rest(tangent, dp * q + p * dq));
        n -= half;
    }
    (product.reduce_prod(&[axis]), tangent.reduce_sum(&[axis]))
}

impl OpDef for ReduceProd {
    const NAME: &'static str = "reduce_prod";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let ty = infer_reduce(Self::NAME, x, &self.axes)?;
        accept(Self::NAME, x, 0, "a number", is_number)?;
        Ok(ty)
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![Some(cotangent(cx.operands[0], &self.axes, ct))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let Some(t) = t[0] else { return Ok(None) };
        Ok(Some(self.axes.iter().rev().fold((cx.operands[0], t), |(x, t), &axis| product_along(x, t, axis)).1))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self { axes: behind_batch(&self.axes) }))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_reduce(ReduceKind::Prod, x[0], &self.axes, out))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        reduce_pattern(ReduceKind::Prod, &x[0].dims, &self.axes, out)
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, special};
        use crate::{Literal, Scalar};
        use proptest::prelude::*;
        let case = (number(), dims(4), any::<bool>()).prop_flat_map(|(dtype, mut dims, wild)| {
            let rank = dims.len();
            let axes = proptest::sample::subsequence((0..rank).collect::<Vec<_>>(), 0..=rank);
            if wild {
                return (special(dtype, dims), axes, Just(false)).boxed();
            }
            // Few factors of magnitude about 1, some of them exact zeros.
            dims.iter_mut().for_each(|d| *d = (*d).min(4));
            let factor = prop_oneof![3 => 0.5..1.5f64, 3 => -1.5..-0.5f64, 1 => Just(0.0f64)];
            let factors = proptest::collection::vec(factor, dims.iter().product::<usize>());
            let x = factors.prop_map(move |v| Literal::from_fn(dtype, &dims, |i| Scalar::F64(v[i])));
            (x, axes, Just(true)).boxed()
        });
        let sample = |(x, axes, smooth)| Sample { op: Self { axes }.into(), operands: vec![x], smooth };
        Some(case.prop_map(sample).boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Product over `axes`. No axes: the tensor itself.
    #[track_caller]
    pub fn reduce_prod(self, axes: &[usize]) -> Self {
        if axes.is_empty() { self } else { self.builder().push(ReduceProd { axes: axes.to_vec() }, &[self]) }
    }
}
