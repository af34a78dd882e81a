//! Normalization layers.

mod batch;
mod group;
mod layer;
mod rms;

pub use batch::BatchNorm;
pub use group::GroupNorm;
pub use layer::LayerNorm;
pub use rms::RmsNorm;

use graphc_ir::{Tensor, TensorType};

/// `x` less its mean over `axes`, divided by its standard deviation, in two passes: the variance is the biased
/// one, and `eps` is added to it.
fn standardized<'f>(x: Tensor<'f>, axes: &[usize], eps: f64) -> Tensor<'f> {
    let ty = x.ty();
    let kept: Vec<usize> = (0..ty.shape.rank()).filter(|a| !axes.contains(a)).collect();
    let centered = x - x.mean(axes).broadcast(&ty.shape, &kept);
    centered * (centered.square().mean(axes) + eps).rsqrt().broadcast(&ty.shape, &kept)
}

/// Whether the last axes of `x` are `shape`; a mistake of the layer `op` else.
#[track_caller]
fn ends_with(op: &str, x: Tensor<'_>, ty: &TensorType) -> bool {
    if x.is_poison() {
        return false;
    }
    let shape = x.shape();
    let fits = shape.dims().ends_with(ty.shape.dims());
    if !fits {
        x.builder().misuse(format!("{op}: {} does not end in the extents {}", x.ty(), ty.shape));
    }
    fits
}
