//! Convolution over one, two or three spatial axes.

use super::{Layer, in_layer};
use graphc_ir::ops::ConvConfig;
use graphc_ir::{DType, Dim, Initializer, ModuleBuilder, Param, Shape, Tensor};

/// Convolution over `N` spatial axes: `f32[B, c_in, s1, .., sN]` to `f32[B, c_out, o1, .., oN]` with
///
/// ```text
/// o = floor((s + 2 padding - dilation (kernel - 1) - 1) / stride) + 1
/// ```
///
/// Parameters `<name>/weight` `f32[c_out, c_in / groups, k1, .., kN]` and `<name>/bias` `f32[c_out]`.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::nn::{Conv2d, ConvOptions, Layer};
///
/// let m = ModuleBuilder::new("m");
/// let options = ConvOptions { stride: [2, 2], padding: [1, 1], groups: 4, ..ConvOptions::default() };
/// let conv = Conv2d::with(&m, "conv", 4, 8, [3, 3], options);
/// m.function("f", |f| {
///     let y = conv.apply(f.input("x", DType::F32, shape!["B", 4, 9, 9]));
///     assert_eq!(y.shape(), shape!["B", 8, 5, 5]);
///     f.output("y", y);
/// });
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Conv<const N: usize> {
    weight: Param,
    bias: Option<Param>,
    config: ConvConfig,
}

/// Convolution of sequences `f32[B, c_in, length]`.
pub type Conv1d = Conv<1>;
/// Convolution of images `f32[B, c_in, height, width]`.
pub type Conv2d = Conv<2>;
/// Convolution of volumes `f32[B, c_in, depth, height, width]`.
pub type Conv3d = Conv<3>;

/// How a [`Conv`] runs, one entry per spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions<const N: usize> {
    /// Distance between neighbouring windows: 1.
    pub stride: [usize; N],
    /// Zeros added at both ends: 0.
    pub padding: [usize; N],
    /// Distance between neighbouring elements of a window: 1.
    pub dilation: [usize; N],
    /// Groups of channels, each with kernels of its own: 1. As many as input channels: depthwise.
    pub groups: usize,
    /// Whether there is a bias: true.
    pub bias: bool,
}

impl<const N: usize> Default for ConvOptions<N> {
    fn default() -> Self {
        Self { stride: [1; N], padding: [0; N], dilation: [1; N], groups: 1, bias: true }
    }
}

impl<const N: usize> Conv<N> {
    /// With one extent of the kernel, stride and padding for all axes, and PyTorch's default initializer,
    /// uniform in `+-1 / sqrt(c_in * kernel^N)`, for weight and bias.
    #[track_caller]
    pub fn new(
        m: &ModuleBuilder,
        name: &str,
        c_in: usize,
        c_out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Self {
        let options = ConvOptions { stride: [stride; N], padding: [padding; N], ..ConvOptions::default() };
        Self::with(m, name, c_in, c_out, [kernel; N], options)
    }

    /// With these options, and PyTorch's default initializers. `groups` divides `c_in` and `c_out`.
    #[track_caller]
    pub fn with(
        m: &ModuleBuilder,
        name: &str,
        c_in: usize,
        c_out: usize,
        kernel: [usize; N],
        options: ConvOptions<N>,
    ) -> Self {
        let channels = c_in / options.groups.max(1);
        let init = Initializer::torch_default(kernel.iter().fold(channels, |n, &k| n.saturating_mul(k)));
        Self::with_init(m, name, c_in, c_out, kernel, options, init, init)
    }

    /// With these options and initializers of weight and bias.
    #[track_caller]
    #[expect(clippy::too_many_arguments, reason = "the one place that takes all; the others have defaults")]
    pub fn with_init(
        m: &ModuleBuilder,
        name: &str,
        c_in: usize,
        c_out: usize,
        kernel: [usize; N],
        options: ConvOptions<N>,
        weight: Initializer,
        bias: Initializer,
    ) -> Self {
        let extents: Shape =
            [c_out, c_in / options.groups.max(1)].into_iter().chain(kernel).map(Dim::from).collect();
        let weight = m.param(&format!("{name}/weight"), DType::F32, extents, weight);
        let bias = options.bias.then(|| m.param(&format!("{name}/bias"), DType::F32, [c_out], bias));
        let padding = options.padding.map(|p| i64::try_from(p).unwrap_or(i64::MAX)).map(|p| (p, p));
        let config = ConvConfig::new(N)
            .strides(&options.stride)
            .padding(&padding)
            .rhs_dilation(&options.dilation)
            .groups(options.groups);
        Self { weight, bias, config }
    }

    /// The weight, `f32[c_out, c_in / groups, k1, .., kN]`.
    pub fn weight(&self) -> &Param {
        &self.weight
    }

    /// The bias, `f32[c_out]`.
    pub fn bias(&self) -> Option<&Param> {
        self.bias.as_ref()
    }
}

impl<const N: usize> Layer for Conv<N> {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        in_layer(x, &self.weight, || {
            with_bias(x.conv(f.read(&self.weight), &self.config), self.bias.as_ref())
        })
    }
}

/// `y: [B, c, s..]` plus a bias for each channel.
#[track_caller]
pub(super) fn with_bias<'f>(y: Tensor<'f>, bias: Option<&Param>) -> Tensor<'f> {
    match bias {
        Some(bias) if !y.is_poison() => y + y.builder().read(bias).broadcast(y.shape(), &[1]),
        _ => y,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::MaxPool2d;
    use graphc_ir::{Literal, Scalar, evaluate};

    #[test]
    fn convolves_adds_bias_and_pools() {
        let m = ModuleBuilder::new("m");
        let conv = Conv2d::new(&m, "c", 1, 2, 3, 1, 1);
        m.function("f", |f| {
            let y = conv.apply(f.input("x", DType::F32, [1, 1, 4, 4]));
            f.output("y", y);
            f.output("pooled", MaxPool2d::new(2).apply(y));
        });
        let module = m.build().unwrap();
        assert_eq!(module.state[0].ty.to_string(), "f32[2, 1, 3, 3]");
        assert_eq!(module.state[1].ty.to_string(), "f32[2]");
        // Channel 0 copies the image, channel 1 shifts it to the left.
        let mut weight = vec![0.0f32; 18];
        (weight[4], weight[9 + 5]) = (1.0, 1.0);
        let state =
            [Literal::new(&[2, 1, 3, 3], weight).unwrap(), Literal::new(&[2], vec![0.0f32, 100.0]).unwrap()];
        let x = Literal::from_fn(DType::F32, &[1, 1, 4, 4], |i| Scalar::F64(i as f64));
        let done = evaluate(&module.functions[0], &[x], |id| state[id.index()].clone()).unwrap();
        let y = done.outputs[0].as_slice::<f32>().unwrap();
        assert_eq!(y[..4], [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(y[16..20], [101.0, 102.0, 103.0, 100.0]);
        assert_eq!(done.outputs[1].dims(), [1, 2, 2, 2]);
        assert_eq!(done.outputs[1].as_slice::<f32>().unwrap()[..4], [5.0, 7.0, 13.0, 15.0]);
    }

    #[test]
    fn options_reach_the_operation() {
        let m = ModuleBuilder::new("m");
        let options = ConvOptions { dilation: [2], groups: 2, bias: false, ..ConvOptions::default() };
        let conv = Conv1d::with(&m, "c", 2, 2, [2], options);
        assert!(conv.bias().is_none());
        m.function("f", |f| f.output("y", conv.apply(f.input("x", DType::F32, [1, 2, 4]))));
        let module = m.build().unwrap();
        // Channel 0 is x[i] + 10 x[i + 2], channel 1 is 2 x[i].
        let w = Literal::new(&[2, 1, 2], vec![1.0f32, 10.0, 2.0, 0.0]).unwrap();
        let x = Literal::new(&[1, 2, 4], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).unwrap();
        let y = evaluate(&module.functions[0], &[x], |_| w.clone()).unwrap();
        assert_eq!(y.outputs[0].as_slice::<f32>().unwrap(), [31.0, 42.0, 10.0, 12.0]);
    }
}
