//! Batch normalization.

use crate::nn::{Layer, in_layer};
use graphc_ir::{DType, Initializer, ModuleBuilder, Param, Shape, Tensor};

/// Batch normalization (Ioffe and Szegedy 2015) of `f32[N, C, ..]`, per channel, as
/// `torch.nn.BatchNorm2d`:
///
/// ```text
/// y = (x - mean) / sqrt(variance + eps) * weight + bias
/// ```
///
/// [`Layer::train`] takes mean and variance from the batch and keeps running averages of them;
/// [`Layer::apply`] takes the running averages, for inference. Parameters `<name>/weight` and
/// `<name>/bias`, state `<name>/running_mean` and `<name>/running_var`, each `f32[C]`; they start as
/// 1, 0, 0 and 1.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weight: Param,
    bias: Param,
    running_mean: Param,
    running_var: Param,
    eps: f64,
    momentum: f64,
}

impl BatchNorm {
    /// With `eps` 1e-5 and `momentum` 0.1.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, channels: usize) -> Self {
        let param = |part: &str, init| m.param(&format!("{name}/{part}"), DType::F32, [channels], init);
        let state = |part: &str, init| m.state(&format!("{name}/{part}"), DType::F32, [channels], init);
        Self {
            weight: param("weight", Initializer::ONES),
            bias: param("bias", Initializer::ZEROS),
            running_mean: state("running_mean", Initializer::ZEROS),
            running_var: state("running_var", Initializer::ONES),
            eps: 1e-5,
            momentum: 0.1,
        }
    }

    /// Sets what is added to the variance.
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Sets the share of a batch in the running averages, `r = (1 - momentum) * r + momentum * batch`.
    pub fn momentum(self, momentum: f64) -> Self {
        Self { momentum, ..self }
    }

    #[track_caller]
    fn normalize<'f>(&self, x: Tensor<'f>, mean: Tensor<'f>, variance: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        let over_channels = |v: Tensor<'f>| v.broadcast(x.shape(), &[1]);
        let scale = (variance + self.eps).rsqrt() * f.read(&self.weight);
        (x - over_channels(mean)) * over_channels(scale) + over_channels(f.read(&self.bias))
    }
}

impl Layer for BatchNorm {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        in_layer(x, &self.weight, || self.normalize(x, f.read(&self.running_mean), f.read(&self.running_var)))
    }

    /// Normalizes `x` by the mean and the biased variance of each of its channels, in two passes, and
    /// declares the updates of the running averages; that of the variance averages the unbiased one,
    /// so a channel must have at least two elements. Once per function.
    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        in_layer(x, &self.weight, || {
            let axes: Vec<usize> = (0..x.rank()).filter(|&a| a != 1).collect();
            let (mean, variance) = (x.mean(&axes), x.variance(&axes));
            let y = self.normalize(x, mean, variance);
            let shape = x.shape();
            let n = f.extent(x.dtype(), axes.iter().map(|&a| &shape[a]).collect::<Shape>());
            let unbiased = variance * (n / (n - 1.0));
            for (running, batch) in [(&self.running_mean, mean), (&self.running_var, unbiased)] {
                f.update(running, f.read(running) * (1.0 - self.momentum) + batch * self.momentum);
            }
            y
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{Literal, evaluate, shape};

    /// Two channels of two images of 1 x 2.
    const X: [f32; 8] = [1.0, 2.0, 10.0, 10.0, 3.0, 6.0, 10.0, 14.0];

    #[test]
    fn normalizes_each_channel_and_keeps_averages() {
        let m = ModuleBuilder::new("m");
        let norm = BatchNorm::new(&m, "bn", 2).eps(0.5);
        m.function("train", |f| f.output("y", norm.train(f.input("x", DType::F32, [2, 2, 1, 2]))));
        m.function("infer", |f| f.output("y", norm.apply(f.input("x", DType::F32, [2, 2, 1, 2]))));
        let module = m.build().unwrap();
        let names: Vec<_> = module.state.iter().map(|s| (&*s.name, s.trainable)).collect();
        let trained = [("bn/weight", true), ("bn/bias", true)];
        assert_eq!(names, [&trained[..], &[("bn/running_mean", false), ("bn/running_var", false)]].concat());

        let of = |values: [f32; 2]| Literal::new(&[2], values.to_vec()).unwrap();
        let state = [of([2.0, 1.0]), of([0.0, 0.5]), of([0.0, 4.0]), of([1.0, 8.5])];
        let x = Literal::new(&[2, 2, 1, 2], X.to_vec()).unwrap();
        let run = |i: usize| {
            let x = std::slice::from_ref(&x);
            evaluate(&module.functions[i], x, |id| state[id.index()].clone()).unwrap()
        };
        let close = |got: &[f32], expected: &[f32]| {
            assert_eq!(got.len(), expected.len());
            got.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{got:?} {expected:?}"));
        };
        // Channel 0: mean 3, biased variance 14 / 4. Channel 1: mean 11, biased variance 12 / 4.
        let channel = |c: usize, x: f32| match c {
            0 => (x - 3.0) / 4.0f32.sqrt() * 2.0,
            _ => (x - 11.0) / 3.5f32.sqrt() + 0.5,
        };
        let expected: Vec<f32> = X.iter().enumerate().map(|(i, &x)| channel(i / 2 % 2, x)).collect();
        let trained = run(0);
        close(trained.outputs[0].as_slice().unwrap(), &expected);
        let averages: Vec<&[f32]> = trained.updates.iter().map(|u| u.1.as_slice().unwrap()).collect();
        close(averages[0], &[0.3, 0.9 * 4.0 + 1.1]);
        close(averages[1], &[0.9 + 0.1 * 14.0 / 3.0, 0.9 * 8.5 + 0.1 * 12.0 / 3.0]);

        let channel = |c: usize, x: f32| match c {
            0 => x / 1.5f32.sqrt() * 2.0,
            _ => (x - 4.0) / 3.0 + 0.5,
        };
        let expected: Vec<f32> = X.iter().enumerate().map(|(i, &x)| channel(i / 2 % 2, x)).collect();
        close(run(1).outputs[0].as_slice().unwrap(), &expected);
    }

    #[test]
    fn the_batch_may_be_named_and_mistakes_are_placed() {
        let m = ModuleBuilder::new("m");
        let norm = BatchNorm::new(&m, "bn", 3);
        m.function("f", |f| {
            assert_eq!(norm.train(f.input("x", DType::F32, shape!["B", 3])).shape(), shape!["B", 3]);
            norm.apply(f.input("wrong", DType::F32, shape!["B", 4, 2]));
        });
        let error = m.build().unwrap_err().to_string();
        assert!(error.lines().all(|l| l.contains("nn/norm/batch.rs:")), "{error}");
    }
}
