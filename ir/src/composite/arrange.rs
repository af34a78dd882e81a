//! Arranging tensors: joining, splitting, repeating and turning them, and tensors made of positions.

use crate::builder::{FunctionBuilder, Tensor};
use crate::types::{DType, Dim, Shape};

impl<'f> Tensor<'f> {
    /// With an axis of extent 1 in front of axis `axis`.
    #[track_caller]
    pub fn unsqueeze(self, axis: usize) -> Self {
        let mut dims = self.shape().dims().to_vec();
        if axis > dims.len() {
            return self.no_axis("unsqueeze", axis);
        }
        dims.insert(axis, Dim::Const(1));
        self.reshape(dims)
    }

    /// Without axis `axis`, whose extent is 1.
    #[track_caller]
    pub fn squeeze(self, axis: usize) -> Self {
        let mut dims = self.shape().dims().to_vec();
        if axis >= dims.len() {
            return self.no_axis("squeeze", axis);
        }
        if dims.remove(axis) != Dim::Const(1) {
            self.builder().misuse(format!("squeeze: axis {axis} of {} is not 1", self.ty()));
            return self.builder().poison();
        }
        self.reshape(dims)
    }

    /// With two axes exchanged.
    #[track_caller]
    pub fn swap_axes(self, a: usize, b: usize) -> Self {
        if a.max(b) >= self.rank() {
            return self.no_axis("swap_axes", a.max(b));
        }
        let mut order: Vec<usize> = (0..self.rank()).collect();
        order.swap(a, b);
        self.transpose(&order)
    }

    /// Parts along `axis` with these extents, which add up to its own.
    #[track_caller]
    pub fn split(self, extents: &[usize], axis: usize) -> Vec<Self> {
        let poison = vec![self.builder().poison(); extents.len()];
        if self.is_poison() {
            return poison;
        }
        let shape = self.shape();
        let total = extents.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
        if shape.get(axis).and_then(Dim::as_const) != total {
            self.builder().misuse(format!("split: parts of {extents:?} along axis {axis} of {}", self.ty()));
            return poison;
        }
        let mut start = 0;
        let part = |&n: &usize| {
            start += n;
            self.slice_axis(axis, start - n, start)
        };
        extents.iter().map(part).collect()
    }

    /// `n` equal parts along `axis`.
    #[track_caller]
    pub fn chunk(self, n: usize, axis: usize) -> Vec<Self> {
        match self.shape().get(axis).and_then(Dim::as_const) {
            Some(extent) if n > 0 && extent % n == 0 => self.split(&vec![extent / n; n], axis),
            _ => {
                if !self.is_poison() {
                    self.builder().misuse(format!("chunk: {n} equal parts of axis {axis} of {}", self.ty()));
                }
                vec![self.builder().poison(); n]
            }
        }
    }

    /// The whole tensor `times[a]` times along each axis `a`. NumPy's `tile`, PyTorch's `repeat`.
    #[track_caller]
    pub fn tile(self, times: &[usize]) -> Self {
        let shape = self.shape();
        if times.len() != shape.rank() {
            self.builder().misuse(format!("tile: {times:?} has one entry per axis of {}", self.ty()));
            return self.builder().poison();
        }
        // [d0, d1] by way of [t0, d0, t1, d1].
        let both = times.iter().zip(shape.iter()).flat_map(|(&t, d)| [Dim::Const(t), d.clone()]);
        let kept: Vec<usize> = (0..shape.rank()).map(|a| 2 * a + 1).collect();
        let dims: Shape = times.iter().zip(shape.iter()).map(|(&t, d)| d.clone() * t).collect();
        self.broadcast(both.collect::<Shape>(), &kept).reshape(dims)
    }

    /// Each element along `axis` `times` times in a row. NumPy's `repeat`, PyTorch's `repeat_interleave`.
    #[track_caller]
    pub fn repeat(self, times: usize, axis: usize) -> Self {
        let shape = self.shape();
        if axis >= shape.rank() {
            return self.no_axis("repeat", axis);
        }
        let mut both = shape.dims().to_vec();
        both.insert(axis + 1, Dim::Const(times));
        let kept: Vec<usize> = (0..both.len()).filter(|&a| a != axis + 1).collect();
        let mut dims = shape.dims().to_vec();
        dims[axis] = dims[axis].clone() * times;
        self.broadcast(both, &kept).reshape(dims)
    }

    /// Elements moved by `by` positions along `axis`, to higher ones if positive; those that leave at one end
    /// enter at the other. The extent is a number.
    #[track_caller]
    pub fn roll(self, by: i64, axis: usize) -> Self {
        let Some(extent) = self.shape().get(axis).and_then(Dim::as_const) else {
            return self.no_axis("roll", axis);
        };
        let by = if extent == 0 { 0 } else { by.rem_euclid(extent as i64) as usize };
        if by == 0 {
            return self;
        }
        let (low, high) = (self.slice_axis(axis, 0, extent - by), self.slice_axis(axis, extent - by, extent));
        self.builder().concatenate(&[high, low], axis)
    }

    /// The elements on and below diagonal `diagonal` of the last two axes, zeros above it.
    #[track_caller]
    pub fn tril(self, diagonal: i64) -> Self {
        self.triangle("tril", diagonal, true)
    }

    /// The elements on and above diagonal `diagonal` of the last two axes, zeros below it.
    #[track_caller]
    pub fn triu(self, diagonal: i64) -> Self {
        self.triangle("triu", diagonal, false)
    }

    #[track_caller]
    fn triangle(self, op: &str, diagonal: i64, lower: bool) -> Self {
        let shape = self.shape();
        let Some(rows) = shape.rank().checked_sub(2) else {
            return self.no_axis(op, 1);
        };
        let mask = self.builder().triangle_mask(&shape, rows, diagonal, lower);
        mask.select(self, self.full_like(0.0))
    }

    #[track_caller]
    fn no_axis(self, op: &str, axis: usize) -> Self {
        if !self.is_poison() {
            self.builder().misuse(format!("{op}: axis {axis} of {}", self.ty()));
        }
        self.builder().poison()
    }
}

impl FunctionBuilder {
    /// Tensors of one type as the elements of a new axis `axis`.
    #[track_caller]
    pub fn stack<'f>(&'f self, tensors: &[Tensor<'f>], axis: usize) -> Tensor<'f> {
        let parts: Vec<Tensor<'f>> = tensors.iter().map(|t| t.unsqueeze(axis)).collect();
        self.concatenate(&parts, axis)
    }

    /// Where the position on axis `rows + 1` is at most (`lower`) or at least that on axis `rows`, plus
    /// `diagonal`: bool of shape `shape`.
    #[track_caller]
    fn triangle_mask(&self, shape: &Shape, rows: usize, diagonal: i64, lower: bool) -> Tensor<'_> {
        let (row, column) = (self.iota(DType::I64, shape, rows), self.iota(DType::I64, shape, rows + 1));
        let limit = row + diagonal as f64;
        if lower { column.le(limit) } else { column.ge(limit) }
    }

    /// True on and below the diagonal: which of `keys` positions each of `queries` may look at, if both end
    /// at the same position. bool of `[queries, keys]`.
    #[track_caller]
    pub fn causal_mask(&self, queries: impl Into<Dim>, keys: impl Into<Dim>) -> Tensor<'_> {
        let (queries, keys) = (queries.into(), keys.into());
        let behind = keys.distance(&queries);
        let shape: Shape = [queries, keys].into_iter().collect();
        match behind {
            Some(behind) => self.triangle_mask(&shape, 0, behind, true),
            None => {
                self.misuse(format!("causal_mask: the difference of the extents {shape} is not known"));
                self.poison()
            }
        }
    }

    /// The identity matrix of `n` rows.
    #[track_caller]
    pub fn eye(&self, dtype: DType, n: impl Into<Dim>) -> Tensor<'_> {
        let n = n.into();
        let shape: Shape = [n.clone(), n].into_iter().collect();
        self.iota(DType::I64, &shape, 0).eq(self.iota(DType::I64, &shape, 1)).cast(dtype)
    }

    /// `start, start + step, ..`: `n` numbers, `start + step * i` each.
    #[track_caller]
    pub fn arange(&self, dtype: DType, start: f64, step: f64, n: impl Into<Dim>) -> Tensor<'_> {
        let at = self.iota(dtype, vec![n.into()], 0);
        at * step + start
    }

    /// `n` numbers at equal distances from `first` to `last`, floats: `first + (last - first) * i / (n - 1)`;
    /// `first` alone if `n` is 1.
    #[track_caller]
    pub fn linspace(&self, dtype: DType, first: f64, last: f64, n: usize) -> Tensor<'_> {
        let intervals = n.saturating_sub(1).max(1) as f64;
        self.iota(dtype, [n], 0) / intervals * (last - first) + first
    }
}
