//! Pooling over the spatial axes of `[N, C, s..]`.

use crate::builder::Tensor;
use crate::pattern::Window;
use crate::types::{Dim, Shape};

impl<'f> Tensor<'f> {
    /// The window of a pooling over the axes after batch and channels, or a recorded mistake.
    #[track_caller]
    fn pool_window(
        self,
        op: &str,
        size: &[usize],
        strides: &[usize],
        padding: &[(i64, i64)],
    ) -> Option<Window> {
        if self.is_poison() {
            return None;
        }
        let n = size.len();
        if n == 0 || self.rank() != n + 2 || strides.len() != n || padding.len() != n {
            self.builder().misuse(format!(
                "{op}: window {size:?}, strides {strides:?} and padding {padding:?} must have one entry per \
                 spatial axis of {}, which follow batch and channels",
                self.ty()
            ));
            return None;
        }
        let with_ones = |spatial: &[usize]| [&[1, 1], spatial].concat();
        Some(Window {
            size: with_ones(size),
            strides: with_ones(strides),
            padding: [&[(0, 0), (0, 0)], padding].concat(),
            dilation: vec![1; n + 2],
        })
    }

    /// Maximum over sliding windows of the spatial axes: `[N, C, s..]` to `[N, C, o..]` with
    /// `o = floor((s + padding.0 + padding.1 - size) / stride) + 1`. Padding never wins; NaN
    /// propagates. Gradient: to the first maximum of each window.
    #[track_caller]
    pub fn max_pool(self, size: &[usize], strides: &[usize], padding: &[(i64, i64)]) -> Self {
        match self.pool_window("max_pool", size, strides, padding) {
            Some(window) => self.reduce_window_max(window),
            None => self.builder().poison(),
        }
    }

    /// [`Tensor::max_pool`] over two spatial axes, with one size, stride and padding for all sides.
    #[track_caller]
    pub fn max_pool2d(self, size: usize, stride: usize, padding: usize) -> Self {
        let padding = i64::try_from(padding).unwrap_or(i64::MAX);
        self.max_pool(&[size; 2], &[stride; 2], &[(padding, padding); 2])
    }

    /// Mean over sliding windows of the spatial axes, shapes as in [`Tensor::max_pool`]. The sum is
    /// divided by the size of the window if `count_include_pad` (as PyTorch does by default), else
    /// by the number of its positions that are not padding (as ONNX does by default; NaN if there
    /// are none).
    #[track_caller]
    pub fn avg_pool(
        self,
        size: &[usize],
        strides: &[usize],
        padding: &[(i64, i64)],
        count_include_pad: bool,
    ) -> Self {
        let Some(mut window) = self.pool_window("avg_pool", size, strides, padding) else {
            return self.builder().poison();
        };
        let sum = self.reduce_window_sum(window.clone());
        // Negative padding removes positions, all that remain count.
        if count_include_pad || padding.iter().all(|&(before, after)| before <= 0 && after <= 0) {
            return sum / size.iter().map(|&s| s as f64).product::<f64>();
        }
        // The counts are those of one channel of one image.
        let shape = self.shape();
        let ones = self.builder().full(self.dtype(), shape[2..].iter().collect::<Shape>(), 1.0);
        for attribute in [&mut window.size, &mut window.strides, &mut window.dilation] {
            attribute.drain(..2);
        }
        window.padding.drain(..2);
        sum / ones.reduce_window_sum(window)
    }

    /// [`Tensor::avg_pool`] over two spatial axes, with one size, stride and padding for all sides.
    #[track_caller]
    pub fn avg_pool2d(self, size: usize, stride: usize, padding: usize, count_include_pad: bool) -> Self {
        let padding = i64::try_from(padding).unwrap_or(i64::MAX);
        self.avg_pool(&[size; 2], &[stride; 2], &[(padding, padding); 2], count_include_pad)
    }

    /// Mean over all spatial axes, which must be numbers: `[N, C, s..]` to `[N, C]`.
    #[track_caller]
    pub fn global_avg_pool(self) -> Self {
        let shape = self.shape();
        let spatial = shape.get(2..).and_then(|s| s.iter().map(Dim::as_const).collect::<Option<Vec<_>>>());
        let Some(spatial) = spatial else {
            if !self.is_poison() {
                self.builder().misuse(format!(
                    "global_avg_pool: {} must have batch, channels and spatial axes that are numbers",
                    self.ty()
                ));
            }
            return self.builder().poison();
        };
        let axes: Vec<usize> = (2..shape.rank()).collect();
        self.reduce_sum(&axes) / spatial.iter().map(|&s| s as f64).product::<f64>()
    }

    /// Minimum over the windows of [`Window`], as [`Tensor::reduce_window_max`] with the order turned
    /// round: infinity, or the greatest integer, over nothing. Gradient: to the first minimum of each window.
    #[track_caller]
    pub fn reduce_window_min(self, window: Window) -> Self {
        if self.dtype().is_int() {
            // Unlike negation, the complement turns the order of all integers round.
            return !(!self).reduce_window_max(window);
        }
        -(-self).reduce_window_max(window)
    }

    /// Product over the windows of [`Window`], whose positions outside of the tensor count as 1, in row-major
    /// order of the window's positions. The extents must be numbers. Gradient: exact, also at zeros.
    #[track_caller]
    pub fn reduce_window_prod(self, window: Window) -> Self {
        // Infers the result's extents, and places mistakes in the window.
        let counted = self.reduce_window_sum(window.clone());
        let (from, to) = (self.shape().as_static(), counted.shape().as_static());
        let (Some(_), Some(to)) = (from, to) else {
            if !counted.is_poison() {
                self.builder()
                    .misuse(format!("reduce_window_prod: the extents of {} must be numbers", self.ty()));
            }
            return self.builder().poison();
        };
        let f = self.builder();
        if to.contains(&0) {
            return counted;
        }
        let (low, high): (Vec<i64>, Vec<i64>) = window.padding.iter().copied().unzip();
        let padded = self.pad(f.scalar(self.dtype(), 1.0), &low, &high, &vec![0; to.len()]);
        let mut product: Option<Self> = None;
        let positions: usize = window.size.iter().product();
        for position in 0..positions {
            let mut rest = position;
            let mut ranges = vec![0..0; to.len()];
            for axis in (0..to.len()).rev() {
                let start = rest % window.size[axis] * window.dilation[axis];
                rest /= window.size[axis];
                ranges[axis] = start..start + (to[axis] - 1) * window.strides[axis] + 1;
            }
            let factor = padded.slice(&ranges, &window.strides);
            product = Some(product.map_or(factor, |p| p * factor));
        }
        product.unwrap_or_else(|| self.builder().full(self.dtype(), to.as_slice(), 1.0))
    }

    /// Mean over windows that divide each spatial axis into `outputs[axis]` parts, shapes as in
    /// [`Tensor::max_pool`]: part `i` of an axis of extent `s` is `floor(i s / o) .. ceil((i + 1) s / o)`.
    /// The spatial axes must be numbers. As PyTorch's adaptive pooling.
    #[track_caller]
    pub fn adaptive_avg_pool(self, outputs: &[usize]) -> Self {
        let mean = |part: Self, axis: usize| part.mean(&[axis]);
        self.adaptive(
            "adaptive_avg_pool",
            outputs,
            &|x, size| x.avg_pool(size, size, &vec![(0, 0); size.len()], true),
            &mean,
        )
    }

    /// Maximum over the windows of [`Tensor::adaptive_avg_pool`].
    #[track_caller]
    pub fn adaptive_max_pool(self, outputs: &[usize]) -> Self {
        let max = |part: Self, axis: usize| part.reduce_max(&[axis]);
        self.adaptive(
            "adaptive_max_pool",
            outputs,
            &|x, size| x.max_pool(size, size, &vec![(0, 0); size.len()]),
            &max,
        )
    }

    /// Pools by `pool` where all windows are of one size, else one axis after the other, the innermost
    /// first, each part reduced by `reduce`.
    #[track_caller]
    fn adaptive(
        self,
        op: &str,
        outputs: &[usize],
        pool: &dyn Fn(Self, &[usize]) -> Self,
        reduce: &dyn Fn(Self, usize) -> Self,
    ) -> Self {
        let shape = self.shape();
        let spatial = shape.get(2..).and_then(|s| s.iter().map(Dim::as_const).collect::<Option<Vec<_>>>());
        let fits = |s: &Vec<usize>| {
            s.len() == outputs.len() && !s.is_empty() && !s.contains(&0) && !outputs.contains(&0)
        };
        let Some(spatial) = spatial.filter(fits) else {
            if !self.is_poison() {
                self.builder().misuse(format!(
                    "{op}: {} must have batch, channels and {} spatial axes that are numbers, and all extents \
                     must be positive, those of the result ({outputs:?}) too",
                    self.ty(),
                    outputs.len()
                ));
            }
            return self.builder().poison();
        };
        if spatial.iter().zip(outputs).all(|(s, o)| s % o == 0) {
            let size: Vec<usize> = spatial.iter().zip(outputs).map(|(s, o)| s / o).collect();
            return pool(self, &size);
        }
        let axes = spatial.iter().zip(outputs).enumerate().rev();
        axes.fold(self, |x, (i, (&s, &o))| {
            let axis = i + 2;
            let part = |p: usize| {
                let part = x.slice_axis(axis, p * s / o, ((p + 1) * s).div_ceil(o));
                reduce(part, axis).unsqueeze(axis)
            };
            let parts: Vec<Self> = (0..o).map(part).collect();
            x.builder().concatenate(&parts, axis)
        })
    }
}
