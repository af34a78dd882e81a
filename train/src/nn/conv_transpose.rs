//! Transposed convolution.

use super::conv::with_bias;
use super::{Layer, in_layer};
use graphc_ir::composite::ConvTransposeConfig;
use graphc_ir::{DType, Dim, Initializer, ModuleBuilder, Param, Shape, Tensor};

/// Transposed convolution over `N` spatial axes, as `torch.nn.ConvTranspose1d/2d`: the adjoint of a convolution,
/// which makes images larger. `f32[B, c_in, s1, .., sN]` to `f32[B, c_out, o1, .., oN]` with
///
/// ```text
/// o = (s - 1) stride - 2 padding + kernel + output_padding
/// ```
///
/// Parameters `<name>/weight` `f32[c_in, c_out, k1, .., kN]` and `<name>/bias` `f32[c_out]`, initially uniform
/// in `+-1 / sqrt(c_out * k1 * .. * kN)`.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::nn::{ConvTranspose2d, ConvTransposeOptions, Layer};
///
/// let m = ModuleBuilder::new("m");
/// let options = ConvTransposeOptions { stride: [2, 2], ..ConvTransposeOptions::default() };
/// let up = ConvTranspose2d::new(&m, "up", 8, 4, [2, 2], options);
/// m.function("f", |f| {
///     let y = up.apply(f.input("x", DType::F32, shape!["B", 8, 5, 5]));
///     assert_eq!(y.shape(), shape!["B", 4, 10, 10]);
///     f.output("y", y);
/// });
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct ConvTranspose<const N: usize> {
    weight: Param,
    bias: Param,
    config: ConvTransposeConfig,
}

/// Transposed convolution of sequences.
pub type ConvTranspose1d = ConvTranspose<1>;
/// Transposed convolution of images.
pub type ConvTranspose2d = ConvTranspose<2>;

/// How a [`ConvTranspose`] runs, one entry per spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTransposeOptions<const N: usize> {
    /// Distance between the windows that neighbouring elements add to: 1.
    pub stride: [usize; N],
    /// Positions removed at both ends: 0.
    pub padding: [usize; N],
    /// Positions added at the end: 0.
    pub output_padding: [usize; N],
}

impl<const N: usize> Default for ConvTransposeOptions<N> {
    fn default() -> Self {
        Self { stride: [1; N], padding: [0; N], output_padding: [0; N] }
    }
}

impl<const N: usize> ConvTranspose<N> {
    /// With weight and bias.
    #[track_caller]
    pub fn new(
        m: &ModuleBuilder,
        name: &str,
        c_in: usize,
        c_out: usize,
        kernel: [usize; N],
        options: ConvTransposeOptions<N>,
    ) -> Self {
        let init = Initializer::torch_default(kernel.iter().fold(c_out, |n, &k| n.saturating_mul(k)));
        let extents: Shape = [c_in, c_out].into_iter().chain(kernel).map(Dim::from).collect();
        let config = ConvTransposeConfig {
            strides: options.stride.to_vec(),
            padding: options.padding.to_vec(),
            output_padding: options.output_padding.to_vec(),
            ..ConvTransposeConfig::new(N)
        };
        Self {
            weight: m.param(&format!("{name}/weight"), DType::F32, extents, init),
            bias: m.param(&format!("{name}/bias"), DType::F32, [c_out], init),
            config,
        }
    }
}

impl<const N: usize> Layer for ConvTranspose<N> {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        in_layer(x, &self.weight, || {
            with_bias(x.conv_transpose(f.read(&self.weight), &self.config), Some(&self.bias))
        })
    }
}
