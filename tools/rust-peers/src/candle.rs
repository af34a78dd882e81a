//! Workloads on candle's CPU backend.

use crate::spec::{BETAS, BLOCKS, EPSILON, Model, Optimizer, Values, Workload};
use crate::{Error, Training};
use candle_core::backprop::GradStore;
use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::loss::{cross_entropy, mse};
use candle_nn::optim::{AdamW, Optimizer as _, ParamsAdamW};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Module};

pub(crate) fn training(workload: &Workload) -> std::result::Result<Box<dyn Training>, Error> {
    let device = Device::Cpu;
    let vars = workload.parameters().into_iter().map(var).collect::<Result<Vec<_>>>()?;
    let mut parameters = Parameters(vars.iter());
    let (net, criterion): (Box<dyn Module>, Criterion) = match workload.model {
        Model::Classifier(sizes) => {
            let layers = parameters.linears(sizes.len() - 1);
            (Box::new(Classifier { layers }), Criterion::CrossEntropy(labels(workload, &device)?))
        }
        Model::Autoencoder(sizes) => {
            let layers = parameters.linears(sizes.len() - 1);
            (Box::new(Autoencoder { layers }), Criterion::InputError)
        }
        Model::LeNet5 => {
            (Box::new(LeNet5::new(&mut parameters)), Criterion::CrossEntropy(labels(workload, &device)?))
        }
        Model::ResNet20 => {
            (Box::new(ResNet20::new(&mut parameters)?), Criterion::CrossEntropy(labels(workload, &device)?))
        }
    };
    let update = match workload.optimizer {
        Optimizer::Sgd { lr, momentum, weight_decay } => {
            Update::Sgd(Sgd::new(&vars, lr, momentum, weight_decay)?)
        }
        Optimizer::Adam { lr } => {
            let params =
                ParamsAdamW { lr, beta1: BETAS[0], beta2: BETAS[1], eps: EPSILON, weight_decay: 0.0 };
            Update::Adam(AdamW::new(vars.clone(), params)?)
        }
    };
    let x = Tensor::from_vec(workload.inputs(), workload.input, &device)?;
    Ok(Box::new(Candle { vars, net, criterion, update, x }))
}

struct Candle {
    vars: Vec<Var>,
    net: Box<dyn Module>,
    criterion: Criterion,
    update: Update,
    x: Tensor,
}

impl Training for Candle {
    fn step(&mut self) -> std::result::Result<f32, Error> {
        let y = self.net.forward(&self.x)?;
        let loss = match &self.criterion {
            Criterion::CrossEntropy(labels) => cross_entropy(&y, labels)?,
            Criterion::InputError => mse(&y, &self.x)?,
        };
        let gradients = loss.backward()?;
        match &mut self.update {
            Update::Sgd(sgd) => sgd.step(&gradients)?,
            Update::Adam(adam) => adam.step(&gradients)?,
        }
        Ok(loss.to_scalar()?)
    }

    fn sum_of_squares(&self) -> std::result::Result<f64, Error> {
        let mut sum = 0.0;
        for var in &self.vars {
            sum +=
                var.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|x| f64::from(x).powi(2)).sum::<f64>();
        }
        Ok(sum)
    }
}

/// What of the net's output is the loss.
enum Criterion {
    CrossEntropy(Tensor),
    InputError,
}

enum Update {
    Sgd(Sgd),
    Adam(AdamW),
}

/// SGD with momentum and weight decay, which candle's own does not have.
struct Sgd {
    /// Parameters with their velocities.
    vars: Vec<(Var, Var)>,
    lr: f64,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    fn new(vars: &[Var], lr: f64, momentum: f64, weight_decay: f64) -> Result<Self> {
        let vars = vars.iter().map(|var| Ok((var.clone(), Var::from_tensor(&var.zeros_like()?)?)));
        Ok(Self { vars: vars.collect::<Result<_>>()?, lr, momentum, weight_decay })
    }

    fn step(&self, gradients: &GradStore) -> Result<()> {
        for (var, velocity) in &self.vars {
            // Without the history of the computation: nothing is derived from an update.
            let (p, v) = (var.as_detached_tensor(), velocity.as_detached_tensor());
            let mut v = (v * self.momentum)?;
            if let Some(gradient) = gradients.get(var) {
                v = (v + gradient)?;
            }
            if self.weight_decay != 0.0 {
                v = (v + (&p * self.weight_decay)?)?;
            }
            var.set(&(p - (&v * self.lr)?)?)?;
            velocity.set(&v)?;
        }
        Ok(())
    }
}

fn var(parameter: Values) -> Result<Var> {
    Var::from_vec(parameter.values, parameter.shape, &Device::Cpu)
}

fn labels(workload: &Workload, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(workload.labels(), workload.batch(), device)
}

/// The parameters that no layer has taken yet.
struct Parameters<'a>(std::slice::Iter<'a, Var>);

impl Parameters<'_> {
    fn take(&mut self) -> Tensor {
        self.0.next().expect("a workload has the parameters of its layers").as_tensor().clone()
    }

    fn linear(&mut self) -> Linear {
        Linear::new(self.take(), Some(self.take()))
    }

    fn linears(&mut self, n: usize) -> Vec<Linear> {
        (0..n).map(|_| self.linear()).collect()
    }

    fn biased_convolution(&mut self, padding: usize) -> Conv2d {
        Conv2d::new(self.take(), Some(self.take()), Conv2dConfig { padding, ..Default::default() })
    }

    fn conv_norm(&mut self, stride: usize, padding: usize) -> Result<ConvNorm> {
        let weight = self.take();
        let conv = Conv2d::new(weight, None, Conv2dConfig { stride, padding, ..Default::default() });
        let (gamma, beta) = (self.take(), self.take());
        let (mean, variance) = (gamma.zeros_like()?, gamma.ones_like()?);
        Ok(ConvNorm { conv, norm: BatchNorm::new(gamma.dim(0)?, mean, variance, gamma, beta, 1e-5)? })
    }
}

struct Classifier {
    layers: Vec<Linear>,
}

impl Module for Classifier {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (last, hidden) = self.layers.split_last().expect("a classifier has layers");
        let mut h = x.clone();
        for layer in hidden {
            h = layer.forward(&h)?.relu()?;
        }
        last.forward(&h)
    }
}

struct Autoencoder {
    layers: Vec<Linear>,
}

impl Module for Autoencoder {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = x.clone();
        for layer in &self.layers {
            h = candle_nn::ops::sigmoid(&layer.forward(&h)?)?;
        }
        Ok(h)
    }
}

struct LeNet5 {
    convolutions: [Conv2d; 2],
    head: Classifier,
}

impl LeNet5 {
    fn new(parameters: &mut Parameters) -> Self {
        let convolutions = [2, 0].map(|padding| parameters.biased_convolution(padding));
        Self { convolutions, head: Classifier { layers: parameters.linears(3) } }
    }
}

impl Module for LeNet5 {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = x.clone();
        for convolution in &self.convolutions {
            h = halved(&convolution.forward(&h)?.relu()?)?;
        }
        self.head.forward(&h.flatten_from(1)?)
    }
}

/// The maximum of each 2 x 2 positions. Not by candle's own pooling: of that, the gradient is a quarter of what it should be.
fn halved(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    x.reshape((batch, channels, height / 2, 2, width / 2, 2))?.max(5)?.max(3)
}

/// A convolution and the batch norm of its result.
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Module for ConvNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward_train(&self.conv.forward(x)?)
    }
}

struct Block {
    first: ConvNorm,
    second: ConvNorm,
    projection: Option<ConvNorm>,
}

impl Block {
    fn new(parameters: &mut Parameters, stride: usize) -> Result<Self> {
        Ok(Self {
            first: parameters.conv_norm(stride, 1)?,
            second: parameters.conv_norm(1, 1)?,
            projection: (stride != 1).then(|| parameters.conv_norm(stride, 0)).transpose()?,
        })
    }
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.second.forward(&self.first.forward(x)?.relu()?)?;
        match &self.projection {
            Some(projection) => (h + projection.forward(x)?)?.relu(),
            None => (h + x)?.relu(),
        }
    }
}

struct ResNet20 {
    stem: ConvNorm,
    blocks: Vec<Block>,
    head: Linear,
}

impl ResNet20 {
    fn new(parameters: &mut Parameters) -> Result<Self> {
        let stem = parameters.conv_norm(1, 1)?;
        let blocks =
            BLOCKS.iter().map(|&(_, _, stride)| Block::new(parameters, stride)).collect::<Result<_>>()?;
        Ok(Self { stem, blocks, head: parameters.linear() })
    }
}

impl Module for ResNet20 {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = self.stem.forward(x)?.relu()?;
        for block in &self.blocks {
            h = block.forward(&h)?;
        }
        self.head.forward(&h.flatten_from(2)?.mean(D::Minus1)?)
    }
}
