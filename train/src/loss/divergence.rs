//! Kullback-Leibler divergences.

use super::{has_last_axis, same_type};
use graphc_ir::Tensor;

/// Kullback-Leibler divergence of rows of probabilities `target` from `exp(log_probabilities)`, both `[.., C]`: the mean
/// over all rows of `sum(target * (log(target) - log_probabilities))`, where `0 log 0` is 0. Floats of one type, to a
/// scalar. PyTorch's reduction `batchmean`, for two axes.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::kl_divergence;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let prediction = f.input("prediction", DType::F32, shape!["B", 3]);
/// let target = f.input("target", DType::F32, shape!["B", 3]);
/// f.output("loss", kl_divergence(prediction.log_softmax(1), target));
/// # });
/// # m.build().unwrap();
/// ```
#[track_caller]
pub fn kl_divergence<'f>(log_probabilities: Tensor<'f>, target: Tensor<'f>) -> Tensor<'f> {
    let f = log_probabilities.builder();
    if !has_last_axis("kl_divergence", target) || !same_type("kl_divergence", log_probabilities, target) {
        return f.poison();
    }
    let some = target.gt(0.0);
    // What is not chosen must be finite, or its derivative would be NaN.
    let log = some.select(target, 1.0).log() - some.select(log_probabilities, 0.0);
    (target * log).reduce_sum(&[target.rank() - 1]).mean_all()
}

/// Kullback-Leibler divergence of normal distributions with diagonal covariance from the standard one (Kingma and
/// Welling 2014): the mean over all rows of `-1/2 sum(1 + log_variance - mean^2 - exp(log_variance))`. `mean` and
/// `log_variance`: floats `[.., n]` of one type. To a scalar.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::gaussian_kl;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let mean = f.input("mean", DType::F32, shape!["B", 8]);
/// let log_variance = f.input("log_variance", DType::F32, shape!["B", 8]);
/// f.output("loss", gaussian_kl(mean, log_variance));
/// # });
/// # m.build().unwrap();
/// ```
#[track_caller]
pub fn gaussian_kl<'f>(mean: Tensor<'f>, log_variance: Tensor<'f>) -> Tensor<'f> {
    if !has_last_axis("gaussian_kl", mean) || !same_type("gaussian_kl", mean, log_variance) {
        return mean.builder().poison();
    }
    // expm1(v) - v does not cancel near the minimum.
    let terms = mean.square() + (log_variance.expm1() - log_variance);
    terms.reduce_sum(&[mean.rank() - 1]).mean_all() * 0.5
}
