//! `scatter`: changes a tensor at places named by indices.

use super::places::Places;
use super::rules::{accept, is_number};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices};
use crate::pattern::{Combine, Pattern};
use crate::types::{DType, MAX_ELEMENTS, Shape, TensorType};

op! {
    /// Operands `x`, one integer tensor of indices per entry of `axes`, and `updates`, which has the
    /// shape of what [`super::Gather`] with the same attributes picks from `x`. The result is `x`,
    /// changed at the place of each update, one after the other in row-major order of the updates: so
    /// several updates of one element have a defined meaning. `assign` (any element type): the
    /// update takes the element's place, the last one stays. `add`, `mul`, `max`, `min` (numbers):
    /// `x[place] = combine(x[place], update)`; integers wrap, NaN of either propagates.
    ///
    /// Dimensions may be named. Every index must be in `0..x.shape[axis]`, also when there are no
    /// updates otherwise: a run-time error names the first that is not.
    ///
    /// Gradients, with `c` the cotangent at an update's place: `add` gives `ct` to `x` and `c` to the
    /// update; `assign` gives `c` to the last update of a place, `ct` to `x` where there is none, and
    /// zero to all others; `max` and `min` give it to the value that won, a tie to the first of
    /// `x` and then the updates in order; `mul` multiplies by the product of the other factors, which
    /// for an update is the product of all that are not zero, divided by it.
    pub struct Scatter {
        /// Axes of `x` that are indexed, in the order of the index operands; at least one.
        pub axes: Vec<usize>,
        /// Pairs of an axis of `x` and an axis of the indices that run along with each other.
        pub batch: Vec<(usize, usize)>,
        /// How an update changes an element.
        pub combine: Combine,
    }
}

/// What a small change of a value contributes to the result at its place.
enum Share<'f> {
    /// Itself.
    All,
    /// Itself where the condition holds, nothing elsewhere.
    Where(Tensor<'f>),
    /// A multiple.
    Times(Tensor<'f>),
}

impl<'f> Share<'f> {
    fn of(&self, t: Tensor<'f>) -> Tensor<'f> {
        match self {
            Self::All => t,
            Self::Where(condition) => condition.select(t, 0.0),
            Self::Times(factor) => t * *factor,
        }
    }
}

/// The operands of a node, by role.
struct Roles<'a, 'f> {
    op: &'a Scatter,
    x: Tensor<'f>,
    indices: &'a [Tensor<'f>],
    updates: Tensor<'f>,
}

impl<'a, 'f> Roles<'a, 'f> {
    fn new(op: &'a Scatter, operands: &'a [Tensor<'f>]) -> Self {
        let [x, indices @ .., updates] = operands else { unreachable!("the shape rule counts operands") };
        Self { op, x: *x, indices, updates: *updates }
    }

    /// What lies at the place of each update.
    fn at_places(&self, t: Tensor<'f>) -> Tensor<'f> {
        t.gather(self.indices, &self.op.axes, &self.op.batch)
    }

    /// `t` changed by `updates`.
    fn scattered(&self, combine: Combine, t: Tensor<'f>, updates: Tensor<'f>) -> Tensor<'f> {
        t.scatter(combine, self.indices, updates, &self.op.axes, &self.op.batch)
    }

    /// A tensor of the shape of `x`.
    fn full(&self, dtype: DType, value: f64) -> Tensor<'f> {
        self.x.builder().full(dtype, self.x.shape(), value)
    }

    /// For each update the number of its position in the indices: updates of one element come in this
    /// order.
    fn numbers(&self) -> Tensor<'f> {
        let (f, shape) = (self.x.builder(), self.updates.shape());
        let picked = self.indices[0].shape();
        let first = self.op.places().first(self.x.rank());
        let mut numbers = f.full(DType::I64, shape.clone(), 0.0);
        for axis in 0..picked.rank() {
            let step = f.extent(DType::I64, picked[axis + 1..].iter().collect::<Shape>());
            numbers = numbers + f.iota(DType::I64, shape.clone(), first + axis) * step;
        }
        numbers
    }

    /// The shares of `x` and of the updates, for the given result.
    fn shares(&self, result: Tensor<'f>) -> (Share<'f>, Share<'f>) {
        match self.op.combine {
            Combine::Add => (Share::All, Share::All),
            Combine::Assign => {
                let numbers = self.numbers();
                let last = self.scattered(Combine::Max, self.full(DType::I64, -1.0), numbers);
                (Share::Where(last.lt(0.0)), Share::Where(self.at_places(last).eq(numbers)))
            }
            Combine::Max | Combine::Min => {
                let same = |a: Tensor<'f>, b: Tensor<'f>| a.eq(b) | (a.ne(a) & b.ne(b));
                let stays = same(self.x, result);
                let wins = same(self.updates, self.at_places(result)) & !self.at_places(stays);
                let (numbers, none) = (self.numbers(), MAX_ELEMENTS as f64);
                let candidates = wins.select(numbers, none);
                let first = self.scattered(Combine::Min, self.full(DType::I64, none), candidates);
                (Share::Where(stays), Share::Where(wins & self.at_places(first).eq(numbers)))
            }
            Combine::Mul => {
                let zero = self.updates.eq(0.0);
                let factors = zero.select(self.updates.full_like(1.0), self.updates);
                let product = self.scattered(Combine::Mul, self.x, factors);
                let zeros = self.scattered(Combine::Add, self.full(DType::I64, 0.0), zero.cast(DType::I64));
                let others = self.at_places(zeros).gt(zero.cast(DType::I64));
                let others = others.select(factors.full_like(0.0), self.at_places(product) / factors);
                let all = self.scattered(Combine::Mul, self.full(self.x.dtype(), 1.0), self.updates);
                (Share::Times(all), Share::Times(others))
            }
        }
    }
}

impl Scatter {
    fn places(&self) -> Places<'_> {
        Places { axes: &self.axes, batch: &self.batch }
    }
}

impl OpDef for Scatter {
    const NAME: &'static str = "scatter";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let fail = |message| Err(TypeError::new(Self::NAME, x, message));
        let [x0, indices @ .., updates] = x else {
            return fail("takes a tensor, indices and updates".to_owned());
        };
        if self.combine != Combine::Assign {
            accept(Self::NAME, x, 0, "a number", is_number)?;
        }
        let expected = self.places().infer(Self::NAME, x, indices)?;
        if updates.dtype != x0.dtype {
            let (a, b) = (updates.dtype, x0.dtype);
            return fail(format!("the updates are {a}, operand 0 is {b}: convert one with `cast`"));
        }
        if updates.shape != expected {
            return fail(format!("the updates have shape {}, must have {expected}", updates.shape));
        }
        Ok(x0.clone())
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let roles = Roles::new(self, cx.operands);
        let (of_x, of_updates) = roles.shares(cx.result);
        let mut cts = vec![None; cx.operands.len()];
        cts[0] = Some(of_x.of(ct));
        *cts.last_mut().expect("the updates") = Some(of_updates.of(roles.at_places(ct)));
        Ok(cts)
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let roles = Roles::new(self, cx.operands);
        let (of_x, of_updates) = roles.shares(cx.result);
        let start = tangents[0].map_or_else(|| roles.full(roles.x.dtype(), 0.0), |t| of_x.of(t));
        let updates = tangents.last().copied().flatten();
        Ok(Some(updates.map_or(start, |t| roles.scattered(Combine::Add, start, of_updates.of(t)))))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let (last, places) = (cx.operands.len() - 1, self.places());
        let (x, updates) = (cx.repeated(0), cx.repeated(last));
        if !cx.mapped[1..last].contains(&true) {
            let (axes, batch) = places.shifted(1, 0);
            return Ok(x.scatter(self.combine, &cx.operands[1..last], updates, &axes, &batch));
        }
        let indices: Vec<Tensor<'f>> = (1..last).map(|i| cx.repeated(i)).collect();
        let order = places.batched_order(x.rank() - 1, indices[0].rank() - 1);
        let mut inverse = vec![0; order.len()];
        order.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
        let (axes, batch) = places.shifted(1, 1);
        let batch = [vec![(0, 0)], batch].concat();
        Ok(x.scatter(self.combine, &indices, updates.transpose(&inverse), &axes, &batch))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let [x0, picked @ .., updates] = x else { unreachable!("the shape rule counts operands") };
        let locate = self.places().locate(Self::NAME, &out.dims, picked)?;
        let mut result: Vec<_> = (0..x0.len()).map(|i| x0.get(i)).collect();
        for (i, at) in indices(updates.dims()).enumerate() {
            let to = &mut result[locate(&at)];
            *to = match self.combine.op() {
                None => updates.get(i),
                Some(op) => op.eval(&[*to, updates.get(i)]),
            };
        }
        Ok(Literal::from_fn(out.dtype, &out.dims, |i| result[i]))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        let places = self.places().indexing(&out.dims, x[1].dims.len());
        Pattern::Scatter { places, updates: x.len() - 1, combine: self.combine }
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use super::places::{Case, cases};
        use crate::testing::{Sample, distinct, special, tied, uniform};
        use proptest::prelude::*;
        let dtype = proptest::sample::select(DType::ALL.as_slice());
        let case = (dtype, proptest::sample::select(Combine::ALL.as_slice()), cases(), 0usize..3);
        let sample = case.prop_flat_map(|(dtype, combine, case, kind)| {
            let Case { dims, axes, batch, indices, picked } = case;
            let combine = if is_number(dtype) { combine } else { Combine::Assign };
            let (n, m) = (dims.iter().product::<usize>(), picked.iter().product::<usize>());
            // One after the other, so that no two values are equal where they must not be.
            let values = match (kind, dtype, combine) {
                (0, ..) | (_, DType::Bool, _) => special(dtype, vec![n + m]),
                (1, ..) => tied(dtype, vec![n + m]),
                (_, _, Combine::Max | Combine::Min) => distinct(dtype, vec![n + m]),
                _ => uniform(dtype, vec![n + m], -3.0, 3.0),
            };
            let smooth = kind == 2;
            values.prop_map(move |v| {
                let x = Literal::from_fn(dtype, &dims, |i| v.get(i));
                let updates = Literal::from_fn(dtype, &picked, |i| v.get(n + i));
                let operands = std::iter::once(x).chain(indices.clone()).chain([updates]).collect();
                let op = Self { axes: axes.clone(), batch: batch.clone(), combine };
                Sample { op: op.into(), operands, smooth }
            })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// `self` with `updates` combined into the places that integer `indices`, one tensor per entry of
    /// `axes`, name; `batch` pairs axes of `self` and axes of the indices. See [`Scatter`].
    /// [`Tensor::scatter_add`], [`Tensor::put_along_axis`] and [`Tensor::scatter_nd`] are common cases.
    #[track_caller]
    pub fn scatter(
        self,
        combine: Combine,
        indices: &[Self],
        updates: Self,
        axes: &[usize],
        batch: &[(usize, usize)],
    ) -> Self {
        let operands: Vec<Self> =
            std::iter::once(self).chain(indices.iter().copied()).chain([updates]).collect();
        self.builder().push(Scatter { axes: axes.to_vec(), batch: batch.to_vec(), combine }, &operands)
    }
}
