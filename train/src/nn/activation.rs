//! Activation functions as layers.

use super::Layer;
use graphc_ir::Tensor;

/// An activation; the shape stays as it is. All but the softmaxes are elementwise.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{Activation, Layer};
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| f.output("y", Activation::Silu.apply(f.input("x", DType::F32, shape!["B", 8]))));
/// # m.build().unwrap();
/// ```
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
    /// `x > 0 ? x : alpha * (e^x - 1)`, see [`Tensor::elu`].
    Elu {
        /// Distance of the limit below zero.
        alpha: f64,
    },
    /// `1.0507 * elu(x, 1.6733)` with the constants that keep mean 0 and variance 1 (Klambauer et al. 2017).
    Selu,
    /// `log(1 + e^x)`, see [`Tensor::softplus`].
    Softplus,
    /// `x * tanh(softplus(x))` (Misra 2019).
    Mish,
    /// `clamp(x / 6 + 1/2, 0, 1)`.
    HardSigmoid,
    /// `x * hard_sigmoid(x)` (Howard et al. 2019).
    HardSwish,
    /// `clamp(x, -1, 1)`.
    HardTanh,
    /// `clamp(x, 0, 6)`.
    Relu6,
    /// Softmax over the last axis, see [`Tensor::softmax`].
    Softmax,
    /// Logarithm of softmax over the last axis, see [`Tensor::log_softmax`].
    LogSoftmax,
}

/// Constants of SELU, from its definition.
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

fn hard_sigmoid(x: Tensor<'_>) -> Tensor<'_> {
    (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0)
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
            Self::Elu { alpha } => x.elu(alpha),
            Self::Selu => x.elu(SELU_ALPHA) * SELU_SCALE,
            Self::Softplus => x.softplus(),
            Self::Mish => x * x.softplus().tanh(),
            Self::HardSigmoid => hard_sigmoid(x),
            Self::HardSwish => x * hard_sigmoid(x),
            Self::HardTanh => x.clamp(-1.0, 1.0),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Softmax => x.softmax(x.rank().saturating_sub(1)),
            Self::LogSoftmax => x.log_softmax(x.rank().saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{DType, Literal, ModuleBuilder, evaluate};

    /// Values at -4, -0.5, 0.25 and 7 from PyTorch 2.15, in f64.
    const KNOWN: [(Activation, [f64; 4]); 17] = [
        (Activation::Relu, [0.0, 0.0, 0.25, 7.0]),
        (Activation::LeakyRelu { slope: 0.1 }, [-0.4, -0.05, 0.25, 7.0]),
        (Activation::Gelu, [-0.00012668496733248, -0.154268769362993, 0.149676581420731, 6.99999999999104]),
        (Activation::GeluTanh, [-7.02459481922713e-05, -0.154285990174856, 0.149675350701685, 7.0]),
        (Activation::Silu, [-0.0719448398483662, -0.188770334399073, 0.14054412522145, 6.9936226416392]),
        (Activation::Sigmoid, [0.0179862099620916, 0.377540668798145, 0.562176500885798, 0.999088948805599]),
        (Activation::Tanh, [-0.999329299739067, -0.46211715726001, 0.244918662403709, 0.999998336943945]),
        (Activation::Elu { alpha: 0.7 }, [-0.687179052777886, -0.275428538201157, 0.25, 7.0]),
        (Activation::Selu, [-1.72589862818989, -0.691758187802871, 0.26267524683887, 7.35490691148836]),
        (Activation::Softplus, [0.0181499279178097, 0.474076984180107, 0.825939419878844, 7.00091146645377]),
        (Activation::Mish, [-0.0725917407920253, -0.22074377465173, 0.169572409663818, 6.99998837980974]),
        (Activation::HardSigmoid, [0.0, 0.416666666666667, 0.541666666666667, 1.0]),
        (Activation::HardSwish, [-0.0, -0.208333333333333, 0.135416666666667, 7.0]),
        (Activation::HardTanh, [-1.0, -0.5, 0.25, 1.0]),
        (Activation::Relu6, [0.0, 0.0, 0.25, 6.0]),
        (
            Activation::Softmax,
            [1.66726792295216e-05, 0.000552123308047911, 0.00116884505230967, 0.998262358960413],
        ),
        (
            Activation::LogSoftmax,
            [-11.0017391524889, -7.50173915248894, -6.75173915248894, -0.00173915248893628],
        ),
    ];

    #[test]
    fn values_are_those_of_the_definitions() {
        for (activation, expected) in KNOWN {
            let m = ModuleBuilder::new("m");
            m.function("f", |f| f.output("y", activation.apply(f.input("x", DType::F64, [1, 4]))));
            let x = Literal::new(&[1, 4], vec![-4.0, -0.5, 0.25, 7.0]).unwrap();
            let y = evaluate(&m.build().unwrap().functions[0], &[x], |_| unreachable!("no state")).unwrap();
            for (got, want) in y.outputs[0].as_slice::<f64>().unwrap().iter().zip(expected) {
                assert!((got - want).abs() < 1e-12, "{activation:?}: {got} instead of {want}");
            }
        }
    }
}
