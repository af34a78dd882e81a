//! Pooling layers, over all spatial axes of `f32[B, C, s1, .., sN]`.

use super::Layer;
use graphc_ir::Tensor;

/// Maximum over windows, `N` spatial axes: `s` to `floor((s + 2 padding - size) / stride) + 1`. Padding counts as
/// minus infinity.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{Layer, MaxPool};
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| {
///     let y = MaxPool::<1>::with_stride(3, 2, 1).apply(f.input("x", DType::F32, shape!["B", 4, 8]));
///     assert_eq!(y.shape(), shape!["B", 4, 4]);
///     f.output("y", y);
/// });
/// # m.build().unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool<const N: usize>(Windows);

/// Maximum over square windows of images.
pub type MaxPool2d = MaxPool<2>;

/// Mean over windows, extents as for [`MaxPool`]; padding counts as zeros, as PyTorch does by default.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{AvgPool, Layer};
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| f.output("y", AvgPool::<2>::new(2).apply(f.input("x", DType::F32, shape!["B", 4, 8, 8]))));
/// # m.build().unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool<const N: usize>(Windows);

/// Extents of windows, the same along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Windows {
    size: usize,
    stride: usize,
    padding: usize,
}

impl Windows {
    fn padding<const N: usize>(self) -> [(i64, i64); N] {
        let padding = i64::try_from(self.padding).unwrap_or(i64::MAX);
        [(padding, padding); N]
    }
}

impl<const N: usize> MaxPool<N> {
    /// Windows of `size` that neither overlap nor leave gaps.
    pub const fn new(size: usize) -> Self {
        Self::with_stride(size, size, 0)
    }

    /// Windows of `size`, `stride` apart, with padding on all sides.
    pub const fn with_stride(size: usize, stride: usize, padding: usize) -> Self {
        Self(Windows { size, stride, padding })
    }
}

impl<const N: usize> AvgPool<N> {
    /// Windows of `size` that neither overlap nor leave gaps.
    pub const fn new(size: usize) -> Self {
        Self::with_stride(size, size, 0)
    }

    /// Windows of `size`, `stride` apart, with padding on all sides.
    pub const fn with_stride(size: usize, stride: usize, padding: usize) -> Self {
        Self(Windows { size, stride, padding })
    }
}

impl<const N: usize> Layer for MaxPool<N> {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        x.max_pool(&[self.0.size; N], &[self.0.stride; N], &self.0.padding::<N>())
    }
}

impl<const N: usize> Layer for AvgPool<N> {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        x.avg_pool(&[self.0.size; N], &[self.0.stride; N], &self.0.padding::<N>(), true)
    }
}

/// Mean over all positions: `f32[B, C, s..]` to `f32[B, C]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalAvgPool;

impl Layer for GlobalAvgPool {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        x.global_avg_pool()
    }
}

/// Means of as many windows as wanted: position `i` of `n` is that of `floor(i s / n) .. ceil((i + 1) s / n)`.
/// Spatial extents are numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptiveAvgPool<const N: usize>(pub [usize; N]);

impl<const N: usize> Layer for AdaptiveAvgPool<N> {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        x.adaptive_avg_pool(&self.0)
    }
}

/// Maxima of as many windows as wanted, those of [`AdaptiveAvgPool`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptiveMaxPool<const N: usize>(pub [usize; N]);

impl<const N: usize> Layer for AdaptiveMaxPool<N> {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        x.adaptive_max_pool(&self.0)
    }
}
