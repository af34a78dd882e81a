//! Means and other reductions made of sums. `axes` are increasing and distinct; they leave the shape.

use crate::builder::Tensor;
use crate::error::TypeError;
use crate::types::{DType, Shape};

/// A reduction over `axes` of a tensor of shape `shape`, repeated along them again.
#[track_caller]
pub(super) fn repeated_over<'f>(reduced: Tensor<'f>, shape: Shape, axes: &[usize]) -> Tensor<'f> {
    let kept: Vec<usize> = (0..shape.rank()).filter(|a| !axes.contains(a)).collect();
    reduced.broadcast(shape, &kept)
}

impl<'f> Tensor<'f> {
    /// `body` of the tensor, which is a half float, in f32, and the result rounded once.
    #[track_caller]
    pub(super) fn in_f32(self, body: impl FnOnce(Self) -> Self) -> Self {
        body(self.cast(DType::F32)).cast(self.dtype())
    }

    /// `sum / n` over `axes`, where `n` is the number of elements summed; the batch may be named.
    /// Floats. No axes: the tensor itself. NaN over nothing.
    #[track_caller]
    pub fn mean(self, axes: &[usize]) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.mean(axes));
        }
        if axes.is_empty() || self.is_poison() {
            return self;
        }
        let ty = self.ty();
        if !ty.dtype.is_float() {
            let message = format!("operand 0 is {}, must be a float", ty.dtype);
            self.builder().type_error(TypeError::new("mean", &[ty], message));
            return self.builder().poison();
        }
        let sum = self.reduce_sum(axes);
        if sum.is_poison() {
            return sum;
        }
        let summed: Shape = axes.iter().map(|&a| &ty.shape[a]).collect();
        sum / self.builder().extent(ty.dtype, summed)
    }

    /// Mean over all axes: a scalar.
    #[track_caller]
    pub fn mean_all(self) -> Self {
        self.mean(&(0..self.rank()).collect::<Vec<_>>())
    }

    /// `mean((x - mean(x))^2)` over `axes`: the population variance, in two passes. Floats.
    #[track_caller]
    pub fn variance(self, axes: &[usize]) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.variance(axes));
        }
        let mean = self.mean(axes);
        if mean.is_poison() {
            return mean;
        }
        (self - repeated_over(mean, self.shape(), axes)).square().mean(axes)
    }

    /// `sqrt(sum((x - mean(x))^2) / (n - correction))` over `axes`: the standard deviation, with Bessel's
    /// correction if `correction` is 1. Floats.
    #[track_caller]
    pub fn std(self, axes: &[usize], correction: f64) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.std(axes, correction));
        }
        let mean = self.mean(axes);
        if mean.is_poison() {
            return mean;
        }
        let shape = self.shape();
        let squares = (self - repeated_over(mean, shape.clone(), axes)).square().reduce_sum(axes);
        let n = self.builder().extent(self.dtype(), axes.iter().map(|&a| &shape[a]).collect::<Shape>());
        (squares / (n - correction)).sqrt()
    }

    /// `sqrt(sum(x^2))` over `axes`, the Euclidean norm. Floats; its gradient at zero is NaN.
    #[track_caller]
    pub fn norm(self, axes: &[usize]) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.norm(axes));
        }
        self.square().reduce_sum(axes).sqrt()
    }

    /// `log(sum(e^x))` over `axes`, as `m + log(sum(e^(x - m)))` with `m` the maximum, or 0 where the
    /// maximum is infinite, so infinities come out as they should. Floats.
    #[track_caller]
    pub fn logsumexp(self, axes: &[usize]) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.logsumexp(axes));
        }
        let maximum = self.reduce_max(axes).stop_gradient();
        if maximum.is_poison() {
            return maximum;
        }
        let shift = maximum.abs().eq(f64::INFINITY).select(maximum.full_like(0.0), maximum);
        (self - repeated_over(shift, self.shape(), axes)).exp().reduce_sum(axes).log() + shift
    }
}
