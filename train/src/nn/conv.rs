//! Convolution and pooling of images.

use super::Layer;
use graphc_ir::{DType, Initializer, ModuleBuilder, Param, Tensor, shape};

/// Convolution of images with square kernels: `f32[N, c_in, H, W]` to `f32[N, c_out, H', W']` with
/// `H' = floor((H + 2 padding - kernel) / stride) + 1`, `W'` likewise. Parameters `<name>/weight`
/// `f32[c_out, c_in, kernel, kernel]` and `<name>/bias` `f32[c_out]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Param,
    bias: Option<Param>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// With PyTorch's default initializer, uniform in `+-1 / sqrt(c_in * kernel^2)`, for weight and
    /// bias.
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
        let fan_in = c_in.saturating_mul(kernel).saturating_mul(kernel);
        let init = Initializer::torch_default(fan_in);
        Self::with_init(m, name, [c_out, c_in, kernel, kernel], stride, padding, init, Some(init))
    }

    /// With a kernel of any extents `[c_out, c_in, height, width]` and these initializers; no bias
    /// if that of the bias is `None`.
    #[track_caller]
    pub fn with_init(
        m: &ModuleBuilder,
        name: &str,
        extents: [usize; 4],
        stride: usize,
        padding: usize,
        weight: Initializer,
        bias: Option<Initializer>,
    ) -> Self {
        let weight = m.param(&format!("{name}/weight"), DType::F32, extents, weight);
        let bias = bias.map(|init| m.param(&format!("{name}/bias"), DType::F32, [extents[0]], init));
        Self { weight, bias, stride, padding }
    }

    /// See [`Layer::apply`].
    #[track_caller]
    pub fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        let y = x.conv2d(f.read(&self.weight), self.stride, self.padding);
        match &self.bias {
            Some(bias) => y + f.read(bias).reshape(shape![&bias.ty.shape[0], 1, 1]),
            None => y,
        }
    }

    /// The weight, `f32[c_out, c_in, height, width]`.
    pub fn weight(&self) -> &Param {
        &self.weight
    }

    /// The bias, `f32[c_out]`.
    pub fn bias(&self) -> Option<&Param> {
        self.bias.as_ref()
    }
}

impl Layer for Conv2d {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        Self::apply(self, x)
    }
}

/// Maximum over square windows: `f32[N, C, H, W]` to `f32[N, C, H', W']`, extents as for
/// [`Conv2d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool2d {
    size: usize,
    stride: usize,
    padding: usize,
}

impl MaxPool2d {
    /// Windows of `size` that neither overlap nor leave gaps.
    pub const fn new(size: usize) -> Self {
        Self { size, stride: size, padding: 0 }
    }

    /// Windows of `size`, `stride` apart, over images padded on all sides.
    pub const fn with_stride(size: usize, stride: usize, padding: usize) -> Self {
        Self { size, stride, padding }
    }
}

impl Layer for MaxPool2d {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        x.max_pool2d(self.size, self.stride, self.padding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
