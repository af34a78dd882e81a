//! Activation functions as layers.

use super::Layer;
use graphc_ir::Tensor;

/// An elementwise activation; the shape stays as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(0, x)`, see [`Tensor::relu`].
    Relu,
    /// `x > 0 ? x : slope * x`, see [`Tensor::leaky_relu`].
    LeakyRelu {
        /// Slope for negative values.
        slope: f64,
    },
    /// Exact GELU, see [`Tensor::gelu`].
    Gelu,
    /// GELU by its approximation with tanh, see [`Tensor::gelu_tanh`].
    GeluTanh,
    /// `x * sigmoid(x)`, see [`Tensor::silu`].
    Silu,
    /// `1 / (1 + e^-x)`, see [`Tensor::sigmoid`].
    Sigmoid,
    /// Hyperbolic tangent, see [`Tensor::tanh`].
    Tanh,
}

impl Layer for Activation {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        match *self {
            Self::Relu => x.relu(),
            Self::LeakyRelu { slope } => x.leaky_relu(slope),
            Self::Gelu => x.gelu(),
            Self::GeluTanh => x.gelu_tanh(),
            Self::Silu => x.silu(),
            Self::Sigmoid => x.sigmoid(),
            Self::Tanh => x.tanh(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{DType, ModuleBuilder, shape};

    #[test]
    fn shapes_stay() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::F32, shape!["B", 3]);
            let all = [
                Activation::Relu,
                Activation::LeakyRelu { slope: 0.1 },
                Activation::Gelu,
                Activation::GeluTanh,
                Activation::Silu,
                Activation::Sigmoid,
                Activation::Tanh,
            ];
            all.iter().for_each(|a| assert_eq!(a.apply(x).ty(), x.ty(), "{a:?}"));
        });
        m.build().unwrap();
    }
}
