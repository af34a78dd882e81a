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
}
