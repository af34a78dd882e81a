//! The rectifier as a layer.

use super::Layer;
use graphc_ir::Tensor;

/// `max(0, x)`, elementwise; its derivative at 0 is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relu;

impl Layer for Relu {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        x.relu()
    }
}
