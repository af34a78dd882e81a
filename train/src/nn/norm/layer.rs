//! Layer normalization.

use super::{ends_with, standardized};
use crate::nn::{Layer, in_layer};
use graphc_ir::{DType, Initializer, ModuleBuilder, Param, Tensor};

/// Layer normalization (Ba et al. 2016) over the last axis, as `torch.nn.LayerNorm`: `f32[.., width]` to the
/// same shape,
///
/// ```text
/// y = (x - mean) / sqrt(variance + eps) * weight + bias
/// ```
///
/// with mean and biased variance of each row, in two passes. Parameters `<name>/weight` and `<name>/bias`,
/// `f32[width]`; they start as 1 and 0. `eps` is 1e-5.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{Layer, LayerNorm};
/// let m = ModuleBuilder::new("m");
/// let norm = LayerNorm::new(&m, "norm", 8);
/// m.function("f", |f| f.output("y", norm.apply(f.input("x", DType::F32, shape!["B", "T", 8]))));
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Param,
    bias: Option<Param>,
    eps: f64,
}

impl LayerNorm {
    /// With weight and bias.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, width: usize) -> Self {
        let norm = Self::without_bias(m, name, width);
        let bias = m.param(&format!("{name}/bias"), DType::F32, [width], Initializer::ZEROS);
        Self { bias: Some(bias), ..norm }
    }

    /// With a weight alone.
    #[track_caller]
    pub fn without_bias(m: &ModuleBuilder, name: &str, width: usize) -> Self {
        let weight = m.param(&format!("{name}/weight"), DType::F32, [width], Initializer::ONES);
        Self { weight, bias: None, eps: 1e-5 }
    }

    /// Sets what is added to the variance.
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }
}

impl Layer for LayerNorm {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        if !ends_with("layer norm", x, &self.weight.ty) {
            return f.poison();
        }
        in_layer(x, &self.weight, || {
            let y = standardized(x, &[x.rank() - 1], self.eps) * f.read(&self.weight);
            self.bias.as_ref().map_or(y, |bias| y + f.read(bias))
        })
    }
}
