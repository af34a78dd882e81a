//! LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, 64 images of 28 x 28.

use super::{Linear, Values, Workload};
use graphc::nn::{Activation, Conv2d, Flatten, Layer, MaxPool2d, Sequential};
use graphc::optim::{Sgd, train_step};
use graphc::{DType, ModuleBuilder, cross_entropy};

pub(super) const WORKLOAD: Workload = Workload {
    name: "lenet5",
    flops: 144_890_880,
    compile_ms: 40.0,
    data: &[Values::Uniform(0.0, 1.0), Values::Classes(10)],
    losses: [
        (0, 2.309014805, 1e-5),
        (1, 2.308866918, 1e-5),
        (10, 2.303205821, 1e-5),
        (50, 2.270512996, 1e-5),
    ],
    declare,
};

fn declare(m: &ModuleBuilder) {
    let net = Sequential::new()
        .then(Conv2d::new(m, "conv1", 1, 6, 5, 1, 2))
        .then(Activation::Relu)
        .then(MaxPool2d::new(2))
        .then(Conv2d::new(m, "conv2", 6, 16, 5, 1, 0))
        .then(Activation::Relu)
        .then(MaxPool2d::new(2))
        .then(Flatten)
        .then(Linear::new(m, "fc1", 16 * 5 * 5, 120))
        .then(Activation::Relu)
        .then(Linear::new(m, "fc2", 120, 84))
        .then(Activation::Relu)
        .then(Linear::new(m, "fc3", 84, 10));
    train_step(m, "train_step", &Sgd::new(0.01).momentum(0.9), |f| {
        let logits = net.apply(f.input("x", DType::F32, [64, 1, 28, 28]));
        cross_entropy(logits, f.input("y", DType::I32, [64]))
    });
}
