//! Activation functions. All keep the shape, take floats and propagate NaN.

use super::reduce::repeated_over;
use crate::builder::Tensor;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

impl<'f> Tensor<'f> {
    /// Rectified linear unit: `max(0, x)`, elementwise. Its derivative at 0 is 0. Any number.
    #[track_caller]
    pub fn relu(self) -> Self {
        // A tie gives the gradient to the first operand, the constant.
        self.full_like(0.0).max(self)
    }

    /// Leaky rectified linear unit: `x > 0 ? x : slope * x`, elementwise. Its derivative at 0 is
    /// `slope`.
    #[track_caller]
    pub fn leaky_relu(self, slope: f64) -> Self {
        self.gt(0.0).select(self, self * slope)
    }

    /// Exponential linear unit: `x > 0 ? x : alpha * (e^x - 1)`, elementwise.
    #[track_caller]
    pub fn elu(self, alpha: f64) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.elu(alpha));
        }
        // The branch not taken must stay finite: its zero cotangent is multiplied by its derivative.
        self.gt(0.0).select(self, self.min(0.0).expm1() * alpha)
    }

    /// Gaussian error linear unit: `x / 2 * (1 + erf(x / sqrt(2)))`, elementwise.
    #[track_caller]
    pub fn gelu(self) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.gelu());
        }
        self * 0.5 * ((self * FRAC_1_SQRT_2).erf() + 1.0)
    }

    /// The approximation of [`Tensor::gelu`] by
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`, elementwise, computed as
    /// `x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * x^3))`, which is the same without cancellation
    /// where `tanh` is near -1.
    #[track_caller]
    pub fn gelu_tanh(self) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.gelu_tanh());
        }
        const SLOPE: f64 = 2.0 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
        self * (self * (self.square() * (0.044_715 * SLOPE) + SLOPE)).sigmoid()
    }

    /// Sigmoid linear unit (swish): `x * sigmoid(x)`, elementwise.
    #[track_caller]
    pub fn silu(self) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.silu());
        }
        self * self.sigmoid()
    }

    /// `log(1 + e^x)`, elementwise, computed as `x / 2 + |x| / 2 + log1p(e^-|x|)`, which overflows
    /// nowhere. The first two are `max(x, 0)` with the derivative 1/2 at 0 that softplus has there.
    #[track_caller]
    pub fn softplus(self) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.softplus());
        }
        let magnitude = self.abs();
        self * 0.5 + magnitude * 0.5 + (-magnitude).exp().log1p()
    }

    /// `log(sigmoid(x)) = -softplus(-x)`, elementwise.
    #[track_caller]
    pub fn log_sigmoid(self) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.log_sigmoid());
        }
        -(-self).softplus()
    }

    /// `x - max(x)` along `axis`, through whose maximum no gradient flows: functions of it that are
    /// invariant under a shift have the right gradient without.
    #[track_caller]
    fn below_maximum(self, axis: usize) -> Self {
        let maximum = self.reduce_max(&[axis]).stop_gradient();
        self - repeated_over(maximum, self.shape(), &[axis])
    }

    /// `e^x / sum(e^x)` along `axis`, with the maximum subtracted first. Rows sum to 1. A row that
    /// holds +infinity, or nothing but -infinity, gives NaN.
    #[track_caller]
    pub fn softmax(self, axis: usize) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.softmax(axis));
        }
        if !self.has_axis("softmax", axis) {
            return self.builder().poison();
        }
        let exp = self.below_maximum(axis).exp();
        exp / repeated_over(exp.reduce_sum(&[axis]), self.shape(), &[axis])
    }

    /// `log(softmax(x))` along `axis`, as `z - log(sum(e^z))` with `z = x - max(x)`: accurate where
    /// softmax underflows.
    #[track_caller]
    pub fn log_softmax(self, axis: usize) -> Self {
        if self.dtype().is_half() {
            return self.in_f32(|x| x.log_softmax(axis));
        }
        if !self.has_axis("log_softmax", axis) {
            return self.builder().poison();
        }
        let z = self.below_maximum(axis);
        z - repeated_over(z.exp().reduce_sum(&[axis]).log(), self.shape(), &[axis])
    }

    /// False, with a recorded mistake, unless the tensor is sound and has the axis.
    #[track_caller]
    pub(super) fn has_axis(self, op: &str, axis: usize) -> bool {
        let ty = self.ty();
        if axis >= ty.rank() && !self.is_poison() {
            self.builder().misuse(format!("{op}: axis {axis} is not below the rank of {ty}"));
        }
        axis < ty.rank()
    }
}
