//! Loss functions: scalars, means over all elements (or rows) of a batch, which may be named.

use crate::builder::Tensor;
use crate::types::{DType, Dim, Shape};

/// Mean squared error: `mean((prediction - target)^2)` over all elements. Floats of one shape, to a
/// scalar.
#[track_caller]
pub fn mse<'f>(prediction: Tensor<'f>, target: Tensor<'f>) -> Tensor<'f> {
    if !same_shape("mse", prediction, target) {
        return prediction.builder().poison();
    }
    (prediction - target).square().mean_all()
}

/// Binary cross entropy from logits: `mean(-t * log(s) - (1 - t) * log(1 - s))` with
/// `s = sigmoid(logits)` over all elements, computed as `mean(softplus(logits) - t * logits)`, which
/// saturates nowhere. `targets` in `[0, 1]`, of the type of `logits`. To a scalar.
#[track_caller]
pub fn bce_with_logits<'f>(logits: Tensor<'f>, targets: Tensor<'f>) -> Tensor<'f> {
    if !same_shape("bce_with_logits", logits, targets) {
        return logits.builder().poison();
    }
    (logits.softplus() - logits * targets).mean_all()
}

/// Cross entropy of logits `[.., C]` and integer labels `[..]` in `0..C`: the mean over all rows of
/// `-log_softmax(logits)[label]`. A label out of range is a run-time error. To a scalar.
#[track_caller]
pub fn cross_entropy<'f>(logits: Tensor<'f>, labels: Tensor<'f>) -> Tensor<'f> {
    let f = logits.builder();
    if logits.is_poison() || labels.is_poison() {
        return f.poison();
    }
    let (rows, ty) = (labels.shape(), logits.ty());
    let Some((classes, lead)) = ty.shape.split_last() else {
        f.misuse(format!("cross_entropy: logits {ty} have no axis of classes"));
        return f.poison();
    };
    if lead != rows.dims() {
        f.misuse(format!(
            "cross_entropy: labels {} must have the shape of logits {ty} without the last axis",
            labels.ty()
        ));
        return f.poison();
    }
    let axis = rows.rank();
    let log_p = logits.log_softmax(axis);
    // Chosen, not multiplied by 0 and 1: a log-probability may be -infinity.
    let chosen = labels.one_hot_mask(classes.clone()).select(log_p, 0.0);
    -chosen.reduce_sum(&[axis]).mean_all()
}

#[track_caller]
fn same_shape(op: &str, a: Tensor<'_>, b: Tensor<'_>) -> bool {
    let sound = !a.is_poison() && !b.is_poison();
    if sound && a.ty() != b.ty() {
        a.builder().misuse(format!("{op}: operands are {} and {}, must be of one type", a.ty(), b.ty()));
    }
    sound && a.ty() == b.ty()
}

impl<'f> Tensor<'f> {
    /// `out[.., c] = (self[..] == c)`, a bool tensor `[.., classes]`, for an integer tensor whose
    /// elements are in `0..classes`; one that is not is a run-time error.
    #[track_caller]
    pub fn one_hot_mask(self, classes: impl Into<Dim>) -> Self {
        let classes = classes.into();
        let checked = self.check_index(classes.clone());
        if checked.is_poison() {
            return checked;
        }
        let rank = self.rank();
        let shape: Shape = self.shape().iter().chain([&classes]).collect();
        let repeated = checked.broadcast(&shape, &(0..rank).collect::<Vec<_>>());
        repeated.eq(self.builder().iota(self.dtype(), shape, rank))
    }

    /// One-hot encoding: [`Tensor::one_hot_mask`] as 0 and 1 of type `dtype`.
    #[track_caller]
    pub fn one_hot(self, classes: impl Into<Dim>, dtype: DType) -> Self {
        self.one_hot_mask(classes).cast(dtype)
    }
}
