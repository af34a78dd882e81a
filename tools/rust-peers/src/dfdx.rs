//! Workloads on dfdx's CPU device: those without convolutions, which it has for nightly compilers only.

use crate::spec::{BETAS, EPSILON, Optimizer as Rule, Values, Workload};
use crate::{Error, Training};
use dfdx::losses::{cross_entropy_with_logits_loss, mse_loss};
use dfdx::nn::modules::{Linear, ReLU, Sigmoid};
use dfdx::nn::{
    BuildModule, ModuleMut, RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut,
    ViewTensorRef, ZeroGrads,
};
use dfdx::optim::{Adam, AdamConfig, Momentum, Optimizer, Sgd, SgdConfig, WeightDecay};
use dfdx::shapes::{Rank0, Rank2, Shape};
use dfdx::tensor::{AsArray, Cpu, CpuError, Gradients, NoneTape, OwnedTape, Tensor, TensorFromVec, Trace};
use dfdx::tensor_ops::Backward;

type Dense<const I: usize, const O: usize> = Linear<I, O, f32, Cpu>;
type MlpSmall = (Dense<64, 64>, ReLU, Dense<64, 10>);
type Mlp = (Dense<784, 512>, ReLU, Dense<512, 512>, ReLU, Dense<512, 10>);
type Autoencoder = (
    (Dense<784, 256>, Sigmoid, Dense<256, 64>, Sigmoid),
    (Dense<64, 256>, Sigmoid, Dense<256, 784>, Sigmoid),
);

/// A batch of `B` rows of `F` values.
type Rows<const B: usize, const F: usize, T = NoneTape> = Tensor<Rank2<B, F>, f32, Cpu, T>;
type Traced = OwnedTape<f32, Cpu>;
type Loss = Tensor<Rank0, f32, Cpu, Traced>;

pub(crate) fn training(workload: &Workload) -> Result<Box<dyn Training>, Error> {
    let cpu = Cpu::default();
    Ok(match workload.name {
        "mlp_small" => {
            let x: Rows<32, 64> = cpu.tensor_from_vec(workload.inputs(), Default::default());
            Box::new(Dfdx::<MlpSmall, _, _>::new(workload, x, cross_entropy::<32>(workload, &cpu))?)
        }
        "mlp" => {
            let x: Rows<128, 784> = cpu.tensor_from_vec(workload.inputs(), Default::default());
            Box::new(Dfdx::<Mlp, _, _>::new(workload, x, cross_entropy::<128>(workload, &cpu))?)
        }
        "autoencoder" => {
            let x: Rows<128, 784> = cpu.tensor_from_vec(workload.inputs(), Default::default());
            let target = x.clone();
            let loss = move |y: Rows<128, 784, Traced>| mse_loss(y, target.clone());
            Box::new(Dfdx::<Autoencoder, _, _>::new(workload, x, loss)?)
        }
        name => return Err(format!("dfdx has no convolutions for `{name}`").into()),
    })
}

/// Mean cross entropy with the workload's labels.
fn cross_entropy<const B: usize>(
    workload: &Workload,
    cpu: &Cpu,
) -> impl Fn(Rows<B, 10, Traced>) -> Loss + use<B> {
    // dfdx wants a probability of each class.
    let one_hot = workload.labels().into_iter().flat_map(|label| (0..10).map(move |c| f32::from(c == label)));
    let labels: Rows<B, 10> = cpu.tensor_from_vec(one_hot.collect(), Default::default());
    move |logits| cross_entropy_with_logits_loss(logits, labels.clone())
}

struct Dfdx<M: TensorCollection<f32, Cpu>, X, L> {
    net: M,
    optimizer: Update<M>,
    /// Room for the gradients, kept from step to step.
    gradients: Option<Gradients<f32, Cpu>>,
    x: X,
    loss: L,
}

enum Update<M> {
    Sgd(Sgd<M, f32, Cpu>),
    Adam(Adam<M, f32, Cpu>),
}

impl<M, X, L> Dfdx<M, X, L>
where
    M: TensorCollection<f32, Cpu> + BuildModule<Cpu, f32>,
{
    fn new(workload: &Workload, x: X, loss: L) -> Result<Self, Error> {
        let mut net = M::try_build(&Cpu::default()).map_err(error)?;
        let mut load = Load(workload.parameters().into_iter());
        M::iter_tensors(&mut RecursiveWalker { m: &mut net, f: &mut load }).map_err(error)?;
        let optimizer = match workload.optimizer {
            Rule::Sgd { lr, momentum, weight_decay } => {
                let weight_decay = (weight_decay != 0.0).then_some(WeightDecay::L2(weight_decay));
                let momentum = Some(Momentum::Classic(momentum));
                Update::Sgd(Sgd::new(&net, SgdConfig { lr, momentum, weight_decay }))
            }
            Rule::Adam { lr } => {
                let config = AdamConfig { lr, betas: BETAS, eps: EPSILON, weight_decay: None };
                Update::Adam(Adam::new(&net, config))
            }
        };
        let gradients = Some(net.try_alloc_grads().map_err(error)?);
        Ok(Self { net, optimizer, gradients, x, loss })
    }
}

impl<M, X, L, Y> Training for Dfdx<M, X, L>
where
    M: TensorCollection<f32, Cpu> + ModuleMut<X::Traced, Output = Y, Error = CpuError>,
    X: Trace<f32, Cpu> + Clone,
    L: Fn(Y) -> Loss,
{
    fn step(&mut self) -> Result<f32, Error> {
        let gradients = self.gradients.take().expect("each step puts the gradients back");
        let y = self.net.try_forward_mut(self.x.clone().traced(gradients)).map_err(error)?;
        let loss = (self.loss)(y);
        let value = loss.array();
        let mut gradients = loss.try_backward().map_err(error)?;
        match &mut self.optimizer {
            Update::Sgd(sgd) => sgd.update(&mut self.net, &gradients),
            Update::Adam(adam) => adam.update(&mut self.net, &gradients),
        }
        .map_err(|e| format!("{e:?}"))?;
        self.net.try_zero_grads(&mut gradients).map_err(error)?;
        self.gradients = Some(gradients);
        Ok(value)
    }

    fn sum_of_squares(&self) -> Result<f64, Error> {
        let mut sum = SumOfSquares(0.0);
        M::iter_tensors(&mut RecursiveWalker { m: &self.net, f: &mut sum }).map_err(error)?;
        Ok(sum.0)
    }
}

fn error(e: CpuError) -> Error {
    format!("dfdx: {e:?}").into()
}

/// Gives trainable tensors the workload's starting values, in the order in which layers hold them.
struct Load(std::vec::IntoIter<Values>);

impl TensorVisitor<f32, Cpu> for Load {
    type Viewer = ViewTensorMut;
    type Err = CpuError;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        tensor: &mut Tensor<S, f32, Cpu>,
    ) -> Result<Option<Tensor<S, f32, Cpu>>, CpuError> {
        if options.do_gradient_update {
            let parameter = self.0.next().expect("a workload has the parameters of its layers");
            assert_eq!(parameter.shape.len(), S::NUM_DIMS, "layers hold their parameters in canonical order");
            tensor.copy_from(&parameter.values);
        }
        Ok(None)
    }
}

/// Of trainable tensors.
struct SumOfSquares(f64);

impl TensorVisitor<f32, Cpu> for SumOfSquares {
    type Viewer = ViewTensorRef;
    type Err = CpuError;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        tensor: &Tensor<S, f32, Cpu>,
    ) -> Result<Option<Tensor<S, f32, Cpu>>, CpuError> {
        if options.do_gradient_update {
            self.0 += tensor.as_vec().into_iter().map(|x| f64::from(x).powi(2)).sum::<f64>();
        }
        Ok(None)
    }
}
