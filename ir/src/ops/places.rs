//! Which places of a tensor indices name: what `gather` and `scatter` share, and likewise the two
//! dynamic slices.

use super::BatchCx;
use super::rules::{accept, is_index};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::index::IndexExpr;
use crate::literal::{Literal, linear_index};
use crate::pattern::{Indexing, Start};
use crate::scalar::Scalar;
use crate::types::{DType, Dim, Shape, TensorType};

/// The axes of a tensor that indices name positions on, see [`super::Gather`].
pub(super) struct Places<'a> {
    /// Axes of the tensor that are indexed, one per index operand.
    pub(super) axes: &'a [usize],
    /// Pairs of an axis of the tensor and the axis of the indices that it runs along with.
    pub(super) batch: &'a [(usize, usize)],
}

impl Places<'_> {
    /// Shape rule: the shape of what `indices`, the operands from 1 on, pick from operand 0.
    pub(super) fn infer(
        &self,
        op: &'static str,
        x: &[TensorType],
        indices: &[TensorType],
    ) -> Result<Shape, TypeError> {
        let fail = |message| Err(TypeError::new(op, x, message));
        let (shape, Some(first)) = (&x[0].shape, indices.first()) else {
            return fail("at least one axis must be indexed".to_owned());
        };
        let picked = &first.shape;
        if indices.len() != self.axes.len() {
            return fail(format!("{} operands of indices for {} axes", indices.len(), self.axes.len()));
        }
        for (i, other) in indices.iter().enumerate() {
            accept(op, x, i + 1, "i32 or i64", is_index)?;
            if other.shape != *picked {
                let (i, other) = (i + 1, &other.shape);
                return fail(format!("operand {i} has shape {other}, operand 1 has shape {picked}"));
            }
        }
        let mut named = vec![false; shape.rank()];
        for &axis in self.axes.iter().chain(self.batch.iter().map(|b| &b.0)) {
            match named.get_mut(axis) {
                None => {
                    return fail(format!("axis {axis} is not below the rank {} of operand 0", shape.rank()));
                }
                Some(true) => return fail(format!("axis {axis} of operand 0 is named twice")),
                Some(seen) => *seen = true,
            }
        }
        let mut paired = vec![false; picked.rank()];
        for &(axis, of_indices) in self.batch {
            match paired.get_mut(of_indices) {
                None => {
                    let rank = picked.rank();
                    return fail(format!("axis {of_indices} is not below the rank {rank} of the indices"));
                }
                Some(true) => return fail(format!("axis {of_indices} of the indices is named twice")),
                Some(seen) => *seen = true,
            }
            let fits = match (&picked[of_indices], &shape[axis]) {
                (Dim::Const(few), Dim::Const(all)) => few <= all,
                (a, b) => a == b,
            };
            if !fits {
                let (a, b) = (&picked[of_indices], &shape[axis]);
                return fail(format!(
                    "axis {of_indices} of the indices has extent {a}, axis {axis} of operand 0 has extent {b}"
                ));
            }
        }
        let (before, after) = self.windows(shape.rank());
        let dims = |axes: Vec<usize>| axes.into_iter().map(|a| shape[a].clone());
        Ok(dims(before).chain(picked.iter().cloned()).chain(dims(after)).collect::<Vec<_>>().into())
    }

    /// The attributes with the axes of the tensor and those of the indices moved by so many.
    pub(super) fn shifted(&self, tensor: usize, indices: usize) -> (Vec<usize>, Vec<(usize, usize)>) {
        let batch = self.batch.iter().map(|(a, i)| (a + tensor, i + indices)).collect();
        (self.axes.iter().map(|a| a + tensor).collect(), batch)
    }

    /// The permutation of what is picked from a tensor with a batch, paired with a batch of indices, that
    /// puts the axes of the indices where they are without the batch. Ranks are without the batch.
    pub(super) fn batched_order(&self, rank: usize, picked: usize) -> Vec<usize> {
        let (before, after) = self.windows(rank);
        let whole = 1 + picked..1 + picked + before.len();
        let rest = whole.end..whole.end + after.len();
        std::iter::once(0).chain(whole).chain(1..=picked).chain(rest).collect()
    }

    /// Axes that are taken whole: those before the first that is not, and the others.
    fn windows(&self, rank: usize) -> (Vec<usize>, Vec<usize>) {
        let taken = |a: &usize| self.axes.contains(a) || self.batch.iter().any(|b| b.0 == *a);
        let first = (0..rank).find(taken).unwrap_or(rank);
        (0..rank).filter(|a| !taken(a)).partition(|&a| a < first)
    }

    /// First axis of what is picked that is an axis of the indices.
    pub(super) fn first(&self, rank: usize) -> usize {
        self.windows(rank).0.len()
    }

    /// For a tensor of extents `dims` and indices of `index_rank` axes; index operand `i` is operand
    /// `i + 1`.
    pub(super) fn indexing(&self, dims: &[usize], index_rank: usize) -> Indexing {
        let (before, after) = self.windows(dims.len());
        let var = |v: usize| IndexExpr::var(v as u32);
        let first = before.len();
        let mut window = vec![IndexExpr::default(); dims.len()];
        for (v, &axis) in before.iter().enumerate() {
            window[axis] = var(v);
        }
        for (v, &axis) in after.iter().enumerate() {
            window[axis] = var(first + index_rank + v);
        }
        for &(axis, of_indices) in self.batch {
            window[axis] = var(first + of_indices);
        }
        let starts = self.axes.iter().enumerate();
        let starts = starts.map(|(i, &axis)| Start { operand: i + 1, axis, bound: dims[axis] }).collect();
        Indexing { starts, at: (first..first + index_rank).map(var).collect(), window }
    }

    /// Reference semantics: where in a tensor of extents `dims` each element lies that is picked, as a
    /// function of the element's index.
    pub(super) fn locate(
        &self,
        op: &'static str,
        dims: &[usize],
        indices: &[&Literal],
    ) -> Result<impl Fn(&[usize]) -> usize + use<>, EvalError> {
        let positions = indices.iter().zip(self.axes).map(|(i, &axis)| positions(op, i, dims[axis]));
        let positions = positions.collect::<Result<Vec<_>, _>>()?;
        let (before, after) = self.windows(dims.len());
        let picked = indices[0].dims().to_vec();
        let range = before.len()..before.len() + picked.len();
        let (axes, batch, dims) = (self.axes.to_vec(), self.batch.to_vec(), dims.to_vec());
        Ok(move |at: &[usize]| {
            let of_indices = &at[range.clone()];
            let number = linear_index(of_indices, &picked);
            let mut place = vec![0; dims.len()];
            before.iter().zip(at).for_each(|(&axis, &i)| place[axis] = i);
            after.iter().zip(&at[range.end..]).for_each(|(&axis, &i)| place[axis] = i);
            batch.iter().for_each(|&(axis, i)| place[axis] = of_indices[i]);
            axes.iter().zip(&positions).for_each(|(&axis, p)| place[axis] = p[number]);
            linear_index(&place, &dims)
        })
    }
}

/// The elements of `indices` as positions below `bound`.
pub(super) fn positions(op: &'static str, indices: &Literal, bound: usize) -> Result<Vec<usize>, EvalError> {
    let mut positions = Vec::with_capacity(indices.len());
    for position in 0..indices.len() {
        let value = match indices.get(position) {
            Scalar::I32(v) => i64::from(v),
            Scalar::I64(v) => v,
            v => unreachable!("index {v}"),
        };
        match usize::try_from(value) {
            Ok(p) if p < bound => positions.push(p),
            _ => return Err(EvalError::IndexOutOfRange { op, position, value, bound }),
        }
    }
    Ok(positions)
}

/// Shape rule of dynamic slices: `part` lies inside of operand 0, and each of `starts`, operands from
/// number `first` on, is an integer scalar.
pub(super) fn check_part(
    op: &'static str,
    x: &[TensorType],
    part: &Shape,
    first: usize,
) -> Result<(), TypeError> {
    let shape = &x[0].shape;
    let fail = |message| Err(TypeError::new(op, x, message));
    if part.rank() != shape.rank() {
        return fail(format!("a part of shape {part} of an operand of rank {}", shape.rank()));
    }
    if x.len() - first != shape.rank() {
        return fail(format!("{} starts for an operand of rank {}", x.len() - first, shape.rank()));
    }
    for (axis, (few, all)) in part.iter().zip(shape.iter()).enumerate() {
        match (few, all) {
            (Dim::Const(few), Dim::Const(all)) if few > all => {
                return fail(format!("axis {axis}: {few} positions do not fit in the extent {all}"));
            }
            (Dim::Const(_), Dim::Const(_)) => {}
            (few, all) if few == all => {}
            (few, all) => {
                return fail(format!(
                    "axis {axis}: {few} of {all} positions: a named extent can only be taken whole"
                ));
            }
        }
    }
    for (i, start) in x.iter().enumerate().skip(first) {
        accept(op, x, i, "i32 or i64", is_index)?;
        if start.rank() != 0 {
            return fail(format!("operand {i} has shape {}, a start is a scalar", start.shape));
        }
    }
    Ok(())
}

/// Where a part of extents `part` may start in a tensor of extents `dims`; the starts are the operands
/// from `first` on.
pub(super) fn part_indexing(dims: &[usize], part: &[usize], first: usize) -> Indexing {
    let start = |axis: usize| Start { operand: first + axis, axis, bound: dims[axis] - part[axis] + 1 };
    Indexing {
        starts: (0..dims.len()).map(start).collect(),
        at: Vec::new(),
        window: (0..dims.len() as u32).map(IndexExpr::var).collect(),
    }
}

/// Reference semantics of dynamic slices: the first position on each axis.
pub(super) fn part_starts(
    op: &'static str,
    dims: &[usize],
    part: &[usize],
    starts: &[&Literal],
) -> Result<Vec<usize>, EvalError> {
    let start = |axis: usize| positions(op, starts[axis], dims[axis] - part[axis] + 1).map(|p| p[0]);
    (0..dims.len()).map(start).collect()
}

/// What samples of `gather` and `scatter` have in common.
/// The start of a part on the axis of a batch: 0, of the type of the others.
pub(super) fn zero_start<'f>(starts: &[Tensor<'f>], x: Tensor<'f>) -> Tensor<'f> {
    x.builder().scalar(starts.first().map_or(DType::I64, |s| s.dtype()), 0.0)
}

/// For parts of shape `sizes` that start elsewhere in each example: the position of each element on each
/// axis. Starts are the operands from `first` on.
pub(super) fn part_indices<'f>(cx: &BatchCx<'_, 'f>, first: usize, sizes: &Shape) -> Vec<Tensor<'f>> {
    let shape = cx.with_batch(sizes);
    let along = |axis: usize| {
        let start = cx.repeated(first + axis);
        start.broadcast(&shape, &[0]) + start.builder().iota(start.dtype(), &shape, axis + 1)
    };
    (0..sizes.rank()).map(along).collect()
}

#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Extents of the tensor.
    pub(super) dims: Vec<usize>,
    pub(super) axes: Vec<usize>,
    pub(super) batch: Vec<(usize, usize)>,
    /// The index operands.
    pub(super) indices: Vec<Literal>,
    /// Extents of what is picked.
    pub(super) picked: Vec<usize>,
}

/// Up to three indexed axes, windows and paired axes in any order; indices repeat and touch both ends.
/// There are none where an indexed axis is empty.
#[cfg(any(test, feature = "testing"))]
pub(super) fn cases() -> proptest::strategy::BoxedStrategy<Case> {
    use proptest::prelude::*;
    #[derive(Clone, Copy, Debug)]
    enum Role {
        Window,
        Indexed,
        Paired(usize),
    }
    let role = prop_oneof![
        3 => Just(Role::Window),
        2 => Just(Role::Indexed),
        2 => (0usize..3).prop_map(Role::Paired),
    ];
    let axes = proptest::collection::vec((role, 0usize..6), 0..=3);
    let own = proptest::collection::vec(0usize..5, 0..=2);
    let int = prop_oneof![Just(DType::I32), Just(DType::I64)];
    let extra = (any::<prop::sample::Index>(), 0usize..8, any::<prop::sample::Index>());
    let drawn = (axes, own, int, extra).prop_flat_map(|(mut roles, own, int, (at, extent, order))| {
        // At least one axis is indexed.
        roles.insert(at.index(roles.len() + 1), (Role::Indexed, extent));
        let dims: Vec<usize> = roles.iter().map(|r| r.1).collect();
        let mut axes: Vec<usize> = (0..dims.len()).filter(|&a| matches!(roles[a].0, Role::Indexed)).collect();
        let turns = order.index(axes.len());
        axes.rotate_left(turns);
        let mut shape = own;
        let mut batch = Vec::new();
        for (axis, &(role, extent)) in roles.iter().enumerate() {
            let Role::Paired(fewer) = role else { continue };
            let place = order.index(shape.len() + 1);
            batch.iter_mut().for_each(|b: &mut (usize, usize)| b.1 += usize::from(b.1 >= place));
            batch.push((axis, place));
            shape.insert(place, extent.saturating_sub(fewer));
        }
        if axes.iter().any(|&a| dims[a] == 0) && !shape.contains(&0) {
            batch.iter_mut().for_each(|b| b.1 += 1);
            shape.insert(0, 0);
        }
        let n: usize = shape.iter().product();
        let values: Vec<_> = axes
            .iter()
            .map(|&a| {
                let bound = dims[a].max(1) as i64;
                proptest::collection::vec(prop_oneof![4 => 0..bound, 1 => Just(bound - 1)], n)
            })
            .collect();
        values.prop_map(move |values| {
            let literal = |v: &Vec<i64>| Literal::from_fn(int, &shape, |i| Scalar::I64(v[i]));
            let indices: Vec<Literal> = values.iter().map(literal).collect();
            let types: Vec<TensorType> = [TensorType::new(DType::F32, dims.as_slice())]
                .into_iter()
                .chain(indices.iter().map(Literal::ty))
                .collect();
            let places = Places { axes: &axes, batch: &batch };
            let picked = places.infer("samples", &types, &types[1..]).expect("legal");
            let picked = picked.as_static().expect("numbers");
            Case { dims: dims.clone(), axes: axes.clone(), batch: batch.clone(), indices, picked }
        })
    });
    drawn.boxed()
}

/// Samples of dynamic slices: extents, those of a part, and starts.
#[cfg(any(test, feature = "testing"))]
pub(super) fn parts() -> proptest::strategy::BoxedStrategy<(Vec<usize>, Vec<usize>, Vec<Literal>)> {
    use proptest::prelude::*;
    let int = prop_oneof![Just(DType::I32), Just(DType::I64)];
    // A start, a size, and what follows.
    let axis = (0usize..4, 0usize..7, prop_oneof![Just(0usize), 0usize..4], int, any::<bool>());
    let axes = proptest::collection::vec(axis, 0..=4).prop_map(|axes| {
        let (mut dims, mut part, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for (start, size, rest, int, whole) in axes {
            let (start, rest) = if whole { (0, 0) } else { (start, rest) };
            dims.push(start + size + rest);
            part.push(size);
            starts.push(Literal::from_fn(int, &[], |_| Scalar::I64(start as i64)));
        }
        (dims, part, starts)
    });
    axes.boxed()
}
