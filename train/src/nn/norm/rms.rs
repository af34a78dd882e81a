//! Normalization by the root mean square.

use super::ends_with;
use crate::nn::{Layer, in_layer};
use graphc_ir::{DType, Initializer, ModuleBuilder, Param, Tensor};

/// Normalization by the root mean square (Zhang and Sennrich 2019) over the last axis, as
/// `torch.nn.RMSNorm`: `y = x / sqrt(mean(x^2) + eps) * weight`, `f32[.., width]` to the same shape. Parameter
/// `<name>/weight`, `f32[width]`, which starts as 1. `eps` is 1e-5.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{Layer, RmsNorm};
/// let m = ModuleBuilder::new("m");
/// let norm = RmsNorm::new(&m, "norm", 8);
/// m.function("f", |f| f.output("y", norm.apply(f.input("x", DType::F32, shape!["B", 8]))));
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Param,
    eps: f64,
}

impl RmsNorm {
    /// Over a last axis of extent `width`.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, width: usize) -> Self {
        let weight = m.param(&format!("{name}/weight"), DType::F32, [width], Initializer::ONES);
        Self { weight, eps: 1e-5 }
    }

    /// Sets what is added to the mean square.
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }
}

impl Layer for RmsNorm {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        if !ends_with("rms norm", x, &self.weight.ty) {
            return f.poison();
        }
        let last = x.rank() - 1;
        let kept: Vec<usize> = (0..last).collect();
        in_layer(x, &self.weight, || {
            let scale = (x.square().mean(&[last]) + self.eps).rsqrt();
            x * scale.broadcast(x.shape(), &kept) * f.read(&self.weight)
        })
    }
}
