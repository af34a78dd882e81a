//! Losses: scalars to be made small. Each is a mean over the batch, formulas and defaults are PyTorch's, and
//! extreme inputs give finite values wherever the exact loss is finite.

mod cosine;
mod cross_entropy;
mod divergence;
mod margin;
mod regression;

pub use cosine::cosine_embedding;
pub use cross_entropy::{CrossEntropy, nll, soft_cross_entropy};
pub use divergence::{gaussian_kl, kl_divergence};
pub use graphc_ir::composite::{bce_with_logits, cross_entropy, mse};
pub use margin::{hinge, triplet};
pub use regression::{huber, mae, smooth_l1};

use graphc_ir::Tensor;

/// Whether `a` and `b` have one type; a mistake of the loss `op` else.
#[track_caller]
fn same_type(op: &str, a: Tensor<'_>, b: Tensor<'_>) -> bool {
    let sound = !a.is_poison() && !b.is_poison();
    if sound && a.ty() != b.ty() {
        a.builder().misuse(format!("{op}: operands are {} and {}, must be of one type", a.ty(), b.ty()));
    }
    sound && a.ty() == b.ty()
}

/// Whether `x` has axes of rows and, last, of what is compared; a mistake of the loss `op` else.
#[track_caller]
fn has_last_axis(op: &str, x: Tensor<'_>) -> bool {
    if !x.is_poison() && x.rank() == 0 {
        x.builder().misuse(format!("{op}: a scalar has no last axis"));
    }
    !x.is_poison() && x.rank() > 0
}
