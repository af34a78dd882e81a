//! Losses of regression.

use super::same_type;
use graphc_ir::Tensor;

/// Mean absolute error: `mean(|prediction - target|)` over all elements. Floats of one type, to a scalar. The
/// derivative at 0 is 0.
#[track_caller]
pub fn mae<'f>(prediction: Tensor<'f>, target: Tensor<'f>) -> Tensor<'f> {
    if !same_type("mae", prediction, target) {
        return prediction.builder().poison();
    }
    (prediction - target).abs().mean_all()
}

/// Huber's loss (1964): the mean over all elements of
///
/// ```text
/// d^2 / 2  if |d| < delta,  else  delta (|d| - delta / 2)       d = prediction - target
/// ```
///
/// Floats of one type, to a scalar. `delta` is positive.
#[track_caller]
pub fn huber<'f>(prediction: Tensor<'f>, target: Tensor<'f>, delta: f64) -> Tensor<'f> {
    let f = prediction.builder();
    if !same_type("huber", prediction, target) {
        return f.poison();
    }
    if delta.is_nan() || delta <= 0.0 {
        f.misuse(format!("huber: delta {delta} must be positive"));
        return f.poison();
    }
    let d = (prediction - target).abs();
    // The square of what is within, and the rest linearly: no branch overflows where the other is taken.
    let within = d.min(delta);
    (within.square() * 0.5 + (d - within) * delta).mean_all()
}

/// [`huber`] divided by `beta`: the mean of `d^2 / (2 beta)` if `|d| < beta`, else `|d| - beta / 2`. Floats of one
/// type, to a scalar. `beta` is positive.
#[track_caller]
pub fn smooth_l1<'f>(prediction: Tensor<'f>, target: Tensor<'f>, beta: f64) -> Tensor<'f> {
    huber(prediction, target, beta) * (1.0 / beta)
}
