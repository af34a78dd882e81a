//! `pad`: adds or removes positions around and between the elements.

use super::rules::{MAX_STEP, check_padding, check_step, index_vars, operands, reach, same_dtype, storable, tangent, with_batch};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::index::{Access, Guard, IndexExpr};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::{DType, Dim, Shape, TensorType};

op! {
    /// Operands `x` and a scalar `value` of its type. On each axis: `interior` positions are put
    /// between neighbouring elements of `x`, then `low` positions before and `high` after; negative
    /// `low` or `high` removes positions instead. New positions hold `value`. Any element type.
    ///
    /// Element `i` of an axis of extent `d` goes to `low + i * (interior + 1)`; the result has
    /// extent `low + (d - 1) * (interior + 1) + 1 + high` (`low + high` for `d = 0`), which must not
    /// be negative. A named dimension takes zeros only.
    ///
    /// Gradients: to `x`, the cotangent at the places of its elements (zero where removed); to
    /// `value`, the sum of the cotangent over the new positions.
    pub struct Pad {
        /// Positions before, per axis; negative removes.
        pub low: Vec<i64>,
        /// Positions after, per axis; negative removes.
        pub high: Vec<i64>,
        /// Positions between neighbours, per axis.
        pub interior: Vec<usize>,
    }
}

impl OpDef for Pad {
    const NAME: &'static str = "pad";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0, value] = operands::<2>(Self::NAME, x)?;
        let fail = |message| Err(TypeError::new(Self::NAME, x, message));
        same_dtype(Self::NAME, x, 0, 1)?;
        if value.rank() != 0 {
            return fail(format!("operand 1, the padding value, is {value}, must be a scalar"));
        }
        for (what, n) in
            [("low", self.low.len()), ("high", self.high.len()), ("interior", self.interior.len())]
        {
            if n != x0.rank() {
                return fail(format!("{n} entries of `{what}` for an operand of rank {}", x0.rank()));
            }
        }
        let mut dims = Vec::with_capacity(x0.rank());
        for axis in 0..x0.rank() {
            let (low, high, interior) = (self.low[axis], self.high[axis], self.interior[axis]);
            check_padding(Self::NAME, x, &format!("`low` of axis {axis}"), low)?;
            check_padding(Self::NAME, x, &format!("`high` of axis {axis}"), high)?;
            check_step(Self::NAME, x, &format!("`interior` + 1 of axis {axis}"), interior.saturating_add(1))?;
            let Dim::Const(extent) = x0.shape[axis] else {
                let named = &x0.shape[axis];
                let shifted = |d: &Dim, by: i64| match usize::try_from(by) {
                    Ok(more) => d.checked_add(&Dim::Const(more)),
                    Err(_) => d.checked_sub(&Dim::Const(by.unsigned_abs() as usize)),
                };
                match low.checked_add(high).and_then(|by| shifted(named, by)).filter(|_| interior == 0) {
                    Some(padded) => dims.push(padded),
                    None => {
                        return fail(format!(
                            "axis {axis} has the named extent {named}: it cannot be padded by {low}, {high} and \
                             {interior} inside"
                        ));
                    }
                }
                continue;
            };
            let base = reach(extent, interior + 1);
            let padded = base + i128::from(low) + i128::from(high);
            if base > i128::from(2 * MAX_STEP) || padded < 0 {
                return fail(format!(
                    "axis {axis} of extent {extent} would get extent {padded} (low {low}, high {high}, \
                     interior {interior})"
                ));
            }
            // At most 2^46: `storable` has the last word.
            dims.push(Dim::Const(padded as usize));
        }
        storable(Self::NAME, &x0.with_shape(dims))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (f, x) = (ct.builder(), cx.operands[0]);
        let zero = f.scalar(ct.dtype(), 0.0);
        let negated = |v: &[i64]| v.iter().map(|p| -p).collect::<Vec<_>>();
        let uncropped = ct.pad(zero, &negated(&self.low), &negated(&self.high), &vec![0; x.rank()]);
        let to_x = if self.interior.iter().all(|&i| i == 0) {
            uncropped
        } else {
            let op = super::Slice {
                starts: vec![Dim::Const(0); x.rank()],
                limits: uncropped.shape().dims().to_vec(),
                strides: self.interior.iter().map(|i| i + 1).collect(),
            };
            f.push(op, &[uncropped])
        };
        // The new positions as ones: a sum over just them, where a difference of sums would cancel.
        let kept = f.full(ct.dtype(), x.shape(), 0.0);
        let new = kept.pad(f.scalar(ct.dtype(), 1.0), &self.low, &self.high, &self.interior);
        let axes: Vec<usize> = (0..x.rank()).collect();
        Ok(vec![Some(to_x), Some((ct * new).reduce_sum(&axes))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let (x, value) = (cx.operands[0], cx.operands[1]);
        Ok((t[0].is_some() || t[1].is_some()).then(|| {
            let value = t[1].unwrap_or_else(|| value.builder().scalar(value.dtype(), 0.0));
            tangent(t[0], x).pad(value, &self.low, &self.high, &self.interior)
        }))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let op = Self {
            low: with_batch(0, &self.low),
            high: with_batch(0, &self.high),
            interior: with_batch(0, &self.interior),
        };
        let (f, x, value) = (cx.operands[0].builder(), cx.repeated(0), cx.operands[1]);
        if !cx.mapped[1] {
            return Ok(f.push(op, &[x, value]));
        }
        // Each example has its own value for the new positions.
        let padded = f.push(op.clone(), &[x, f.scalar(x.dtype(), 0.0)]);
        let old = f.full(DType::Bool, x.shape(), 1.0);
        let kept = f.push(op, &[old, f.scalar(DType::Bool, 0.0)]);
        Ok(kept.select(padded, value.broadcast(padded.shape(), &[0])))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let mut result = vec![x[1].get(0); out.len()];
        for (i, index) in indices(x[0].dims()).enumerate() {
            let to: Vec<i64> = index
                .iter()
                .enumerate()
                .map(|(axis, &i)| self.low[axis] + i as i64 * (self.interior[axis] as i64 + 1))
                .collect();
            if to.iter().zip(&out.dims).all(|(&t, &d)| 0 <= t && t < d as i64) {
                let to: Vec<usize> = to.iter().map(|&t| t as usize).collect();
                result[linear_index(&to, &out.dims)] = x[0].get(i);
            }
        }
        Ok(Literal::from_fn(out.dtype, &out.dims, |i| result[i]))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        let (cx, vars) = index_vars(&out.dims);
        let (mut index, mut guards) = (Vec::new(), Vec::new());
        for (axis, var) in vars.iter().enumerate() {
            let step = self.interior[axis] as i64 + 1;
            let at = var.offset(-self.low[axis]);
            let range = Guard { expr: at.clone(), lo: 0, hi: reach(x[0].dims[axis], step as usize) as i64 };
            let on_element = Guard { expr: cx.rem(&at, step), lo: 0, hi: 1 };
            guards.extend([range, on_element].into_iter().filter(|g| !g.always(&cx)));
            index.push(cx.div(&at, step));
        }
        let value = Access { operand: 1, index: Vec::<IndexExpr>::new(), guards: Vec::new() };
        if guards.is_empty() {
            return Pattern::Injective(vec![Access { operand: 0, index, guards }]);
        }
        Pattern::Injective(vec![Access { operand: 0, index, guards }, value])
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, uniform};
        use proptest::prelude::*;
        let amounts = proptest::collection::vec((-4i64..5, -4i64..5, 0usize..3), 3);
        let sample = (number(), dims(3), amounts).prop_flat_map(|(dtype, mut dims, amounts)| {
            let (mut low, mut high, mut interior) = (Vec::new(), Vec::new(), Vec::new());
            for (d, (l, h, i)) in dims.iter_mut().zip(amounts) {
                *d = (*d).min(9);
                let base = reach(*d, i + 1) as i64;
                low.push(l);
                high.push(h.max(-base - l));
                interior.push(i);
            }
            let op = Self { low, high, interior };
            (uniform(dtype, dims, -3.0, 3.0), uniform(dtype, vec![], -3.0, 3.0))
                .prop_map(move |(x, v)| Sample { op: op.clone().into(), operands: vec![x, v], smooth: true })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Adds positions holding the scalar `value` before (`low`), after (`high`) and between
    /// (`interior`) the elements of each axis; negative `low` and `high` remove positions.
    #[track_caller]
    pub fn pad(self, value: Self, low: &[i64], high: &[i64], interior: &[usize]) -> Self {
        if self.rank() == low.len()
            && low.iter().chain(high).all(|&p| p == 0)
            && interior.iter().all(|&i| i == 0)
            && value.ty() == TensorType::new(self.dtype(), Shape::scalar())
        {
            return self;
        }
        let op = Pad { low: low.to_vec(), high: high.to_vec(), interior: interior.to_vec() };
        self.builder().push(op, &[self, value])
    }

    /// Adds `low` positions before and `high` after one axis, holding the number `value`.
    #[track_caller]
    pub fn pad_axis(self, axis: usize, low: i64, high: i64, value: f64) -> Self {
        let rank = self.rank();
        if axis >= rank {
            if !self.is_poison() {
                self.builder().misuse(format!("pad_axis: axis {axis} of a tensor of type {}", self.ty()));
            }
            return self.builder().poison();
        }
        let (mut lows, mut highs) = (vec![0; rank], vec![0; rank]);
        (lows[axis], highs[axis]) = (low, high);
        self.pad(self.builder().scalar(self.dtype(), value), &lows, &highs, &vec![0; rank])
    }
}
