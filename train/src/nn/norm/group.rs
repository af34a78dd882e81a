//! Group normalization.

use super::standardized;
use crate::nn::{Layer, in_layer};
use graphc_ir::{DType, Dim, Initializer, ModuleBuilder, Param, Shape, Tensor};

/// Group normalization (Wu and He 2018) of `f32[N, channels, ..]`, as `torch.nn.GroupNorm`: mean and biased
/// variance of each image over the channels of a group and all positions,
///
/// ```text
/// y = (x - mean) / sqrt(variance + eps) * weight + bias
/// ```
///
/// Parameters `<name>/weight` and `<name>/bias`, `f32[channels]`; they start as 1 and 0. `eps` is 1e-5. One
/// group normalizes whole images, as many groups as channels each channel (instance normalization).
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{GroupNorm, Layer};
/// let m = ModuleBuilder::new("m");
/// let norm = GroupNorm::new(&m, "norm", 2, 8);
/// m.function("f", |f| f.output("y", norm.apply(f.input("x", DType::F32, shape!["B", 8, 5, 5]))));
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Param,
    bias: Param,
    groups: usize,
    channels: usize,
    eps: f64,
}

impl GroupNorm {
    /// `groups` divides `channels`.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, groups: usize, channels: usize) -> Self {
        let param = |part: &str, init| m.param(&format!("{name}/{part}"), DType::F32, [channels], init);
        let (weight, bias) = (param("weight", Initializer::ONES), param("bias", Initializer::ZEROS));
        Self { weight, bias, groups, channels, eps: 1e-5 }
    }

    /// Sets what is added to the variance.
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }
}

impl Layer for GroupNorm {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        if x.is_poison() {
            return x;
        }
        let shape = x.shape();
        let (groups, channels) = (self.groups, self.channels);
        if shape.rank() < 2 || shape[1] != Dim::Const(channels) || groups == 0 || channels % groups != 0 {
            f.misuse(format!(
                "group norm: {} must be a batch of {channels} channels in {groups} equal groups",
                x.ty()
            ));
            return f.poison();
        }
        let split = [shape[0].clone(), groups.into(), (channels / groups).into()];
        let grouped: Shape = split.into_iter().chain(shape[2..].iter().cloned()).collect();
        let axes: Vec<usize> = (2..grouped.rank()).collect();
        let over_channels = |p: &Param| f.read(p).broadcast(&shape, &[1]);
        in_layer(x, &self.weight, || {
            let y = standardized(x.reshape(grouped), &axes, self.eps).reshape(&shape);
            y * over_channels(&self.weight) + over_channels(&self.bias)
        })
    }
}
