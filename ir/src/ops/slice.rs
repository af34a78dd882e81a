//! `slice`: every `stride`-th element of a range of each axis.

use super::rules::{check_step, index_vars, operands, with_batch};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::index::Access;
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::Pattern;
use crate::types::{Dim, TensorType};
use std::ops::Range;

op! {
    /// `out[i0, ..] = x[starts[0] + i0 * strides[0], ..]`: on each axis the positions
    /// `start, start + stride, ..` below `limit`, which may be none. Any element type.
    /// `start <= limit <= extent`, `stride >= 1`. A named dimension is only taken whole: start 0,
    /// its own name as limit, stride 1.
    /// Gradient: the cotangent, padded with zeros (between its elements if the stride is over 1).
    pub struct Slice {
        /// First position per axis.
        pub starts: Vec<Dim>,
        /// Exclusive last position per axis.
        pub limits: Vec<Dim>,
        /// Step per axis.
        pub strides: Vec<usize>,
    }
}

impl Slice {
    /// `starts` of a slice whose dimensions are numbers.
    pub fn static_starts(&self) -> Vec<usize> {
        let number = |d: &Dim| d.as_const().expect("every dimension is bound before evaluation");
        self.starts.iter().map(number).collect()
    }

    /// `ct` with zeros along an axis where the slice of an axis of the named extent `from` left elements out.
    fn widened<'f>(&self, ct: Tensor<'f>, axis: usize, from: &Dim) -> Tensor<'f> {
        let (f, stride) = (ct.builder(), self.strides[axis]);
        let zeros = |like: Tensor<'f>, extent: Dim| {
            let mut dims = like.shape().dims().to_vec();
            dims[axis] = extent;
            f.full(like.dtype(), dims, 0.0)
        };
        let mut inner = ct;
        if stride > 1 {
            // Each element with the zeros that follow it: an axis of them, joined with this one.
            let mut dims = ct.shape().dims().to_vec();
            dims.insert(axis + 1, Dim::Const(1));
            let column = ct.reshape(dims.clone());
            dims[axis + 1] = Dim::Const(stride - 1);
            let pairs = f.concatenate(&[column, f.full(ct.dtype(), dims, 0.0)], axis + 1);
            let mut joined = ct.shape().dims().to_vec();
            joined[axis] = joined[axis].clone() * stride;
            inner = pairs.reshape(joined);
        }
        let before = zeros(inner, self.starts[axis].clone());
        let after = zeros(inner, from.clone() - &self.limits[axis]);
        f.concatenate(&[before, inner, after], axis)
    }
}

impl OpDef for Slice {
    const NAME: &'static str = "slice";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0] = operands::<1>(Self::NAME, x)?;
        let fail = |message| Err(TypeError::new(Self::NAME, x, message));
        for (what, n) in
            [("starts", self.starts.len()), ("limits", self.limits.len()), ("strides", self.strides.len())]
        {
            if n != x0.rank() {
                return fail(format!("{n} {what} for an operand of rank {}", x0.rank()));
            }
        }
        let mut dims = Vec::with_capacity(x0.rank());
        for axis in 0..x0.rank() {
            let (start, limit, stride) = (&self.starts[axis], &self.limits[axis], self.strides[axis]);
            check_step(Self::NAME, x, &format!("the stride of axis {axis}"), stride)?;
            dims.push(match (&x0.shape[axis], start, limit) {
                (Dim::Const(extent), Dim::Const(start), Dim::Const(limit)) => {
                    if start > limit || limit > extent {
                        return fail(format!("axis {axis}: {start}..{limit} is not a range within 0..{extent}"));
                    }
                    Dim::Const((limit - start).div_ceil(stride))
                }
                (extent, start, limit) => {
                    // Whatever is not known to be wrong is checked once the names are bound.
                    let wrong = extent.distance(limit).is_some_and(|d| d < 0)
                        || limit.distance(start).is_some_and(|d| d < 0);
                    let length = limit.checked_sub(start).and_then(|n| n.checked_div(stride));
                    match length.filter(|_| !wrong) {
                        Some(length) => length,
                        None => {
                            return fail(format!(
                                "axis {axis}: {start}..{limit} with stride {stride} is not a range within 0..{extent}"
                            ));
                        }
                    }
                }
            });
        }
        Ok(x0.with_shape(dims))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let f = ct.builder();
        let (from, to) = (cx.operands[0].shape(), ct.shape());
        let zero = f.scalar(ct.dtype(), 0.0);
        let mut result = ct;
        let (mut low, mut high, mut interior) =
            (vec![0; from.rank()], vec![0; from.rank()], vec![0; from.rank()]);
        for axis in 0..from.rank() {
            let (start, stride) = (&self.starts[axis], self.strides[axis]);
            match (from[axis].as_const(), start.as_const(), to[axis].as_const()) {
                (Some(extent), Some(start), Some(kept)) => {
                    // The stride of fewer than two elements may exceed the axis, and is never taken.
                    let reach = if kept < 2 { kept } else { (kept - 1) * stride + 1 };
                    low[axis] = start as i64;
                    high[axis] = (extent - start - reach) as i64;
                    interior[axis] = if kept < 2 { 0 } else { stride - 1 };
                }
                _ if from[axis] == to[axis] => {}
                _ => result = self.widened(result, axis, &from[axis]),
            }
        }
        Ok(vec![Some(result.pad(zero, &low, &high, &interior))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.builder().push(self.clone(), &[t])))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let op = Self {
            starts: with_batch(Dim::Const(0), &self.starts),
            limits: with_batch(cx.size.clone(), &self.limits),
            strides: with_batch(1, &self.strides),
        };
        Ok(cx.push(op))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (mut at, starts) = (indices(&out.dims), self.static_starts());
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let index = at.next().expect("one index per element");
            let from: Vec<usize> =
                index.iter().enumerate().map(|(a, i)| starts[a] + i * self.strides[a]).collect();
            x[0].get(linear_index(&from, x[0].dims()))
        }))
    }

    fn pattern(&self, _: &[StaticType], out: &StaticType) -> Pattern {
        let (_, vars) = index_vars(&out.dims);
        let index = vars.iter().enumerate();
        let starts = self.static_starts();
        let index = index.map(|(a, v)| v.scale(self.strides[a] as i64).offset(starts[a] as i64));
        Pattern::Injective(vec![Access { operand: 0, index: index.collect(), guards: Vec::new() }])
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, dims, number, uniform};
        use proptest::prelude::*;
        let cuts = proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..5), 6);
        let sample = (number(), dims(6), cuts).prop_flat_map(|(dtype, dims, cuts)| {
            let (mut starts, mut limits, mut strides) = (Vec::new(), Vec::new(), Vec::new());
            for (&d, (a, b, stride)) in dims.iter().zip(cuts) {
                let (a, b) = (a.index(d + 1), b.index(d + 1));
                starts.push(Dim::Const(a.min(b)));
                limits.push(Dim::Const(a.max(b)));
                // A stride far beyond the axis is legal.
                strides.push(if stride == 4 { 1 << 40 } else { stride });
            }
            let op = Self { starts, limits, strides };
            uniform(dtype, dims, -3.0, 3.0)
                .prop_map(move |x| Sample { op: op.clone().into(), operands: vec![x], smooth: true })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// On each axis the positions `start, start + stride, ..` below the limit, for `ranges` of
    /// `start..limit` and `strides` per axis. Named dimensions: see [`Tensor::slice_axis`].
    #[track_caller]
    pub fn slice(self, ranges: &[Range<usize>], strides: &[usize]) -> Self {
        let op = Slice {
            starts: ranges.iter().map(|r| Dim::Const(r.start)).collect(),
            limits: ranges.iter().map(|r| Dim::Const(r.end)).collect(),
            strides: strides.to_vec(),
        };
        self.builder().push(op, &[self])
    }

    /// The positions `start..limit` of one axis, all of the others (which may be named).
    #[track_caller]
    pub fn slice_axis(self, axis: usize, start: impl Into<Dim>, limit: impl Into<Dim>) -> Self {
        let shape = self.shape();
        if axis >= shape.rank() {
            if !self.is_poison() {
                self.builder().misuse(format!("slice_axis: axis {axis} of a tensor of shape {shape}"));
            }
            return self.builder().poison();
        }
        let mut op = Slice {
            starts: vec![Dim::Const(0); shape.rank()],
            limits: shape.dims().to_vec(),
            strides: vec![1; shape.rank()],
        };
        op.starts[axis] = start.into();
        op.limits[axis] = limit.into();
        self.builder().push(op, &[self])
    }
}
