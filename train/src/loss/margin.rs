//! Losses with a margin.

use super::{has_last_axis, same_type};
use graphc_ir::Tensor;

/// Hinge loss of scores and labels -1 or 1: `mean(max(0, 1 - label * score))` over all elements. Floats of one type,
/// to a scalar.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::hinge;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let scores = f.input("scores", DType::F32, shape!["B"]);
/// let labels = f.input("labels", DType::F32, shape!["B"]);
/// f.output("loss", hinge(scores, labels));
/// # });
/// # m.build().unwrap();
/// ```
#[track_caller]
pub fn hinge<'f>(scores: Tensor<'f>, labels: Tensor<'f>) -> Tensor<'f> {
    if !same_type("hinge", scores, labels) {
        return scores.builder().poison();
    }
    (1.0 - labels * scores).relu().mean_all()
}

/// Triplet loss: the mean over all rows of `max(0, |anchor - positive| - |anchor - negative| + margin)` with Euclidean
/// distances `sqrt(sum((a - b + 1e-6)^2))`, as PyTorch's. Floats `[.., n]` of one type, to a scalar.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::triplet;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let anchor = f.input("anchor", DType::F32, shape!["B", 3]);
/// let positive = f.input("positive", DType::F32, shape!["B", 3]);
/// let negative = f.input("negative", DType::F32, shape!["B", 3]);
/// f.output("loss", triplet(anchor, positive, negative, 1.0));
/// # });
/// # m.build().unwrap();
/// ```
#[track_caller]
pub fn triplet<'f>(
    anchor: Tensor<'f>,
    positive: Tensor<'f>,
    negative: Tensor<'f>,
    margin: f64,
) -> Tensor<'f> {
    let sound = has_last_axis("triplet", anchor)
        && same_type("triplet", anchor, positive)
        && same_type("triplet", anchor, negative);
    if !sound {
        return anchor.builder().poison();
    }
    let last = [anchor.rank() - 1];
    let distance = |b: Tensor<'f>| (anchor - b + 1e-6).square().reduce_sum(&last).sqrt();
    (distance(positive) - distance(negative) + margin).relu().mean_all()
}
