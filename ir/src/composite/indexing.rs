//! Indexing as array libraries and ONNX have it: functions over `gather` and `scatter`.
//!
//! Indices count from 0 and are checked when the program runs; [`Tensor::wrap_index`] makes indices
//! that count from the end positive.

use crate::builder::Tensor;
use crate::pattern::Combine;
use crate::types::Dim;

impl<'f> Tensor<'f> {
    /// Elements of `axis` picked by integer `indices`, whose axes take its place:
    /// `out[i.., j.., k..] = self[i.., indices[j..], k..]`. NumPy's `take`, ONNX's `Gather`, the lookup
    /// of an embedding.
    #[track_caller]
    pub fn take(self, indices: Self, axis: usize) -> Self {
        self.gather(&[indices], &[axis], &[])
    }

    /// `out[i.., j, k..] = self[i.., indices[i.., j, k..], k..]` with `j` on `axis`: `indices` has the
    /// rank of `self`, and its other extents are equal or smaller. NumPy's `take_along_axis`,
    /// PyTorch's `gather`, ONNX's `GatherElements`.
    #[track_caller]
    pub fn take_along_axis(self, indices: Self, axis: usize) -> Self {
        match self.aligned("take_along_axis", indices, axis) {
            Some(batch) => self.gather(&[indices], &[axis], &batch),
            None => self.builder().poison(),
        }
    }

    /// The elements along `axis` in order, ascending or descending; NaN is greatest, equal ones stay in order.
    /// Gradient: back to where each element was.
    #[track_caller]
    pub fn sort(self, axis: usize, descending: bool) -> Self {
        self.take_along_axis(self.argsort(axis, descending), axis)
    }

    /// The `k` greatest (or least) elements along `axis`, in order, and their positions (`i32`); of equal ones
    /// those that come first. NaN is greatest.
    #[track_caller]
    pub fn top_k(self, k: usize, axis: usize, largest: bool) -> (Self, Self) {
        let positions = self.argsort(axis, largest).slice_axis(axis, 0, k);
        (self.take_along_axis(positions, axis), positions)
    }

    /// Parts of `self` picked by vectors of indices, which lie along the last axis of `indices` and must
    /// be a number of them: `out[b.., j.., k..] = self[b.., indices[b.., j.., 0], indices[b.., j.., 1], ..,
    /// k..]` with `batch_dims` axes `b..`. ONNX's and TensorFlow's `GatherND`.
    #[track_caller]
    pub fn gather_nd(self, indices: Self, batch_dims: usize) -> Self {
        let Some(each) = self.coordinates("gather_nd", indices, batch_dims) else {
            return self.builder().poison();
        };
        let axes: Vec<usize> = (batch_dims..batch_dims + each.len()).collect();
        let batch: Vec<(usize, usize)> = (0..batch_dims).map(|b| (b, b)).collect();
        self.gather(&each, &axes, &batch)
    }

    /// `self` with `updates` combined into the places that vectors of indices name, which lie along the
    /// last axis of `indices`: `self[indices[j.., 0], indices[j.., 1], .., k..]` with `updates[j.., k..]`,
    /// in order of `j..`. ONNX's `ScatterND`; see [`crate::ops::Scatter`].
    #[track_caller]
    pub fn scatter_nd(self, combine: Combine, indices: Self, updates: Self) -> Self {
        match self.coordinates("scatter_nd", indices, 0) {
            Some(each) => self.scatter(combine, &each, updates, &(0..each.len()).collect::<Vec<_>>(), &[]),
            None => self.builder().poison(),
        }
    }

    /// `self` with `updates[i.., j, k..]` combined into `self[i.., indices[i.., j, k..], k..]`, in order of
    /// `j` on `axis`: `indices` and `updates` have one shape, of the rank of `self`, whose other extents
    /// are equal or smaller. NumPy's `put_along_axis`, PyTorch's `scatter`, ONNX's `ScatterElements`.
    #[track_caller]
    pub fn put_along_axis(self, combine: Combine, indices: Self, updates: Self, axis: usize) -> Self {
        match self.aligned("put_along_axis", indices, axis) {
            Some(batch) => self.scatter(combine, &[indices], updates, &[axis], &batch),
            None => self.builder().poison(),
        }
    }

    /// `self` with `updates`, of the shape of `self.take(indices, axis)`, added at the places that it
    /// names. PyTorch's `index_add`.
    #[track_caller]
    pub fn scatter_add(self, indices: Self, updates: Self, axis: usize) -> Self {
        self.scatter(Combine::Add, &[indices], updates, &[axis], &[])
    }

    /// Integers with `extent` added to those below zero: -1 becomes the last position.
    #[track_caller]
    pub fn wrap_index(self, extent: impl Into<Dim>) -> Self {
        if self.is_poison() {
            return self;
        }
        let extent = self.builder().extent(self.dtype(), vec![extent.into()]);
        self.lt(0.0).select(self + extent, self)
    }

    /// The axes other than `axis`, paired with those of `indices`; or a recorded mistake.
    #[track_caller]
    fn aligned(self, op: &str, indices: Self, axis: usize) -> Option<Vec<(usize, usize)>> {
        if self.is_poison() || indices.is_poison() || !self.has_axis(op, axis) {
            return None;
        }
        if indices.rank() != self.rank() {
            let (indices, ty) = (indices.ty(), self.ty());
            self.builder().misuse(format!("{op}: indices {indices} must have the rank of {ty}"));
            return None;
        }
        Some((0..self.rank()).filter(|&a| a != axis).map(|a| (a, a)).collect())
    }

    /// The entries of the last axis of `indices`, which index the axes from `first` on; or a recorded
    /// mistake.
    #[track_caller]
    fn coordinates(self, op: &str, indices: Self, first: usize) -> Option<Vec<Self>> {
        if self.is_poison() || indices.is_poison() {
            return None;
        }
        let (shape, ty) = (indices.shape(), self.ty());
        let Some((last, lead)) = shape.split_last() else {
            self.builder().misuse(format!("{op}: indices {} have no axis of coordinates", indices.ty()));
            return None;
        };
        let count = last.as_const().filter(|n| (1..=ty.rank().saturating_sub(first)).contains(n));
        let Some(count) = count.filter(|_| first <= lead.len()) else {
            self.builder().misuse(format!(
                "{op}: the last axis of indices {} must have the number of axes indexed, of {ty} from axis \
                 {first} on",
                indices.ty()
            ));
            return None;
        };
        let entry = |i| indices.slice_axis(lead.len(), i, i + 1).reshape(lead.to_vec());
        Some((0..count).map(entry).collect())
    }
}
