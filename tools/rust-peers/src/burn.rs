//! Workloads on burn's CPU backend burn-flex.

use crate::spec::{BETAS, BLOCKS, EPSILON, Model, Optimizer, Values, Workload};
use crate::{Error, Training};
use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::{CrossEntropyLossConfig, MseLoss, Reduction};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, PaddingConfig2d};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Int, Tensor, TensorData};

pub(crate) fn training(workload: &Workload) -> Result<Box<dyn Training>, Error> {
    let device = Device::flex().autodiff();
    let mut parameters = Parameters { left: workload.parameters().into_iter(), device: &device };
    Ok(match workload.model {
        Model::Classifier(sizes) => {
            let net = Classifier { layers: parameters.linears(sizes.len() - 1) };
            let loss = cross_entropy(workload, &device);
            Box::new(Burn::new(workload, &device, net, move |net, x| loss(net.forward(x))))
        }
        Model::Autoencoder(sizes) => {
            let net = Autoencoder { layers: parameters.linears(sizes.len() - 1) };
            let loss = |net: &Autoencoder, x: Tensor<2>| {
                MseLoss::new().forward(net.forward(x.clone()), x, Reduction::Mean)
            };
            Box::new(Burn::new(workload, &device, net, loss))
        }
        Model::LeNet5 => {
            let net = LeNet5::new(&mut parameters);
            let loss = cross_entropy(workload, &device);
            Box::new(Burn::new(workload, &device, net, move |net, x| loss(net.forward(x))))
        }
        Model::ResNet20 => {
            let net = ResNet20::new(&mut parameters);
            let loss = cross_entropy(workload, &device);
            Box::new(Burn::new(workload, &device, net, move |net, x| loss(net.forward(x))))
        }
    })
}

/// Mean cross entropy of logits with the workload's labels.
fn cross_entropy(workload: &Workload, device: &Device) -> impl Fn(Tensor<2>) -> Tensor<1> + use<> {
    let labels: Vec<i32> = workload.labels().into_iter().map(u32::cast_signed).collect();
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [workload.batch()]), device);
    let criterion = CrossEntropyLossConfig::new().init(device);
    move |logits| criterion.forward(logits, labels.clone())
}

/// A net of inputs with `D` axes.
struct Burn<M, L, const D: usize> {
    /// Taken during an update, which changes in place what nothing else refers to.
    net: Option<M>,
    loss: L,
    optimizer: ModuleOptimizer,
    lr: f64,
    x: Tensor<D>,
}

impl<M: Module, L: Fn(&M, Tensor<D>) -> Tensor<1>, const D: usize> Burn<M, L, D> {
    fn new(workload: &Workload, device: &Device, net: M, loss: L) -> Self {
        let (optimizer, lr) = match workload.optimizer {
            Optimizer::Sgd { lr, momentum, weight_decay } => {
                let momentum = MomentumConfig::new().with_momentum(momentum).with_dampening(0.0);
                let weight_decay = (weight_decay != 0.0).then(|| WeightDecayConfig::new(weight_decay as f32));
                (SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(weight_decay).init(), lr)
            }
            Optimizer::Adam { lr } => {
                let [beta_1, beta_2] = BETAS.map(|beta| beta as f32);
                let config = AdamConfig::new().with_beta_1(beta_1).with_beta_2(beta_2);
                (config.with_epsilon(EPSILON as f32).init(), lr)
            }
        };
        let x = Tensor::from_data(TensorData::new(workload.inputs(), workload.input.to_vec()), device);
        Self { net: Some(net), loss, optimizer, lr, x }
    }
}

impl<M: Module, L: Fn(&M, Tensor<D>) -> Tensor<1>, const D: usize> Training for Burn<M, L, D> {
    fn step(&mut self) -> Result<f32, Error> {
        let net = self.net.take().expect("each step puts the net back");
        let loss = (self.loss)(&net, self.x.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        self.net = Some(self.optimizer.step(self.lr, net, gradients));
        Ok(loss.into_scalar())
    }

    fn sum_of_squares(&self) -> Result<f64, Error> {
        let mut sum = SumOfSquares(0.0);
        self.net.as_ref().expect("each step puts the net back").visit(&mut sum);
        Ok(sum.0)
    }
}

struct SumOfSquares(f64);

impl ModuleVisitor for SumOfSquares {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.0 += parameter.val().to_data().iter::<f64>().map(|x| x * x).sum::<f64>();
    }
}

/// The parameters that no layer has taken yet.
struct Parameters<'a> {
    left: std::vec::IntoIter<Values>,
    device: &'a Device,
}

impl Parameters<'_> {
    fn take<const D: usize>(&mut self) -> Tensor<D> {
        let parameter = self.left.next().expect("a workload has the parameters of its layers");
        Tensor::from_data(TensorData::new(parameter.values, parameter.shape), self.device)
    }

    fn parameter<const D: usize>(&mut self) -> Param<Tensor<D>> {
        Param::from_tensor(self.take())
    }

    fn linear(&mut self) -> Linear {
        // burn keeps them as [in, out], row by row; reading the values makes it so and leaves no view behind.
        let weight = self.take::<2>().transpose().into_data();
        Linear { weight: Param::from_data(weight, self.device), bias: Some(self.parameter()) }
    }

    fn linears(&mut self, n: usize) -> Vec<Linear> {
        (0..n).map(|_| self.linear()).collect()
    }

    fn conv(&mut self, stride: usize, padding: usize, bias: bool) -> Conv2d {
        let weight = self.parameter::<4>();
        let [c_out, c_in, height, width] = weight.dims();
        let config = Conv2dConfig::new([c_in, c_out], [height, width])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding));
        Conv2d { weight, bias: bias.then(|| self.parameter()), ..config.with_bias(false).init(self.device) }
    }

    fn conv_norm(&mut self, stride: usize, padding: usize) -> ConvNorm {
        let conv = self.conv(stride, padding, false);
        let (gamma, beta) = (self.parameter::<1>(), self.parameter());
        let config = BatchNormConfig::new(gamma.dims()[0]).with_epsilon(1e-5).with_momentum(0.1);
        ConvNorm { conv, norm: BatchNorm { gamma, beta, ..config.init(self.device) } }
    }
}

#[derive(Module, Debug)]
struct Classifier {
    layers: Vec<Linear>,
}

impl Classifier {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (last, hidden) = self.layers.split_last().expect("a classifier has layers");
        last.forward(hidden.iter().fold(x, |h, layer| relu(layer.forward(h))))
    }
}

#[derive(Module, Debug)]
struct Autoencoder {
    layers: Vec<Linear>,
}

impl Autoencoder {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |h, layer| sigmoid(layer.forward(h)))
    }
}

#[derive(Module, Debug)]
struct LeNet5 {
    convolutions: [Conv2d; 2],
    pool: MaxPool2d,
    head: Classifier,
}

impl LeNet5 {
    fn new(parameters: &mut Parameters) -> Self {
        let convolutions = [2, 0].map(|padding| parameters.conv(1, padding, true));
        let pool = MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init();
        Self { convolutions, pool, head: Classifier { layers: parameters.linears(3) } }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let h = self.convolutions.iter().fold(x, |h, conv| self.pool.forward(relu(conv.forward(h))));
        self.head.forward(h.flatten(1, 3))
    }
}

/// A convolution and the batch norm of its result.
#[derive(Module, Debug)]
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

#[derive(Module, Debug)]
struct Block {
    first: ConvNorm,
    second: ConvNorm,
    projection: Option<ConvNorm>,
}

impl Block {
    fn new(parameters: &mut Parameters, stride: usize) -> Self {
        Self {
            first: parameters.conv_norm(stride, 1),
            second: parameters.conv_norm(1, 1),
            projection: (stride != 1).then(|| parameters.conv_norm(stride, 0)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.second.forward(relu(self.first.forward(x.clone())));
        let shortcut = match &self.projection {
            Some(projection) => projection.forward(x),
            None => x,
        };
        relu(h + shortcut)
    }
}

#[derive(Module, Debug)]
struct ResNet20 {
    stem: ConvNorm,
    blocks: Vec<Block>,
    head: Linear,
}

impl ResNet20 {
    fn new(parameters: &mut Parameters) -> Self {
        let stem = parameters.conv_norm(1, 1);
        let blocks = BLOCKS.iter().map(|&(_, _, stride)| Block::new(parameters, stride)).collect();
        Self { stem, blocks, head: parameters.linear() }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let h = self.blocks.iter().fold(relu(self.stem.forward(x)), |h, block| block.forward(h));
        self.head.forward(h.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2))
    }
}
