//! Cosine embedding loss.

use super::{has_last_axis, same_type};
use graphc_ir::Tensor;

/// Cosine embedding loss: the mean over all rows of
///
/// ```text
/// 1 - cos(a, b)  for label 1,   max(0, cos(a, b) - margin)  for label -1
/// cos(a, b) = a . b / sqrt((a . a + eps) (b . b + eps))          eps = 1e-12
/// ```
///
/// `a`, `b`: floats `[.., n]`; `labels`: `[..]` of their element type, 1 or -1. To a scalar.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::cosine_embedding;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let a = f.input("a", DType::F32, shape!["B", 3]);
/// let b = f.input("b", DType::F32, shape!["B", 3]);
/// let labels = f.input("labels", DType::F32, shape!["B"]);
/// f.output("loss", cosine_embedding(a, b, labels, 0.1));
/// # });
/// # m.build().unwrap();
/// ```
#[track_caller]
pub fn cosine_embedding<'f>(a: Tensor<'f>, b: Tensor<'f>, labels: Tensor<'f>, margin: f64) -> Tensor<'f> {
    if !has_last_axis("cosine_embedding", a) || !same_type("cosine_embedding", a, b) {
        return a.builder().poison();
    }
    let last = [a.rank() - 1];
    let dot = |x: Tensor<'f>, y: Tensor<'f>| (x * y).reduce_sum(&last);
    let cos = dot(a, b) * ((dot(a, a) + 1e-12) * (dot(b, b) + 1e-12)).rsqrt();
    if !same_type("cosine_embedding", cos, labels) {
        return a.builder().poison();
    }
    labels.gt(0.0).select(1.0 - cos, (cos - margin).relu()).mean_all()
}
