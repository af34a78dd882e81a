//! Losses of regression.

use super::same_type;
use graphc_ir::Tensor;

/// Mean absolute error: `mean(|prediction - target|)` over all elements. Floats of one type, to a scalar. The
/// derivative at 0 is 0.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::mae;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let prediction = f.input("prediction", DType::F32, shape!["B", 3]);
/// let target = f.input("target", DType::F32, shape!["B", 3]);
/// f.output("loss", mae(prediction, target));
/// # });
/// # m.build().unwrap();
/// ```
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
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::huber;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let prediction = f.input("prediction", DType::F32, shape!["B", 3]);
/// let target = f.input("target", DType::F32, shape!["B", 3]);
/// f.output("loss", huber(prediction, target, 1.0));
/// # });
/// # m.build().unwrap();
/// ```
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
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::smooth_l1;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let prediction = f.input("prediction", DType::F32, shape!["B", 3]);
/// let target = f.input("target", DType::F32, shape!["B", 3]);
/// f.output("loss", smooth_l1(prediction, target, 1.0));
/// # });
/// # m.build().unwrap();
/// ```
#[track_caller]
pub fn smooth_l1<'f>(prediction: Tensor<'f>, target: Tensor<'f>, beta: f64) -> Tensor<'f> {
    huber(prediction, target, beta) * (1.0 / beta)
}
