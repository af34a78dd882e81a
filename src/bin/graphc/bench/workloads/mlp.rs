//! A classifier of the size of MNIST, 784 -> 512 relu -> 512 relu -> 10, 128 rows.

use super::{Linear, Values, Workload};
use graphc::nn::{Activation, Layer, Sequential};
use graphc::optim::{Adam, train_step};
use graphc::{DType, ModuleBuilder, cross_entropy};

pub(super) const WORKLOAD: Workload = Workload {
    name: "mlp",
    flops: 410_779_648,
    compile_ms: 15.0,
    data: &[Values::Uniform(-1.0, 1.0), Values::Classes(10)],
    losses: [
        (0, 2.302258917, 1e-5),
        (1, 2.284031314, 1e-5),
        (10, 2.130487419, 1e-5),
        (50, 1.074961754, 1e-5),
    ],
    declare,
};

fn declare(m: &ModuleBuilder) {
    let net = Sequential::new()
        .then(Linear::new(m, "fc1", 784, 512))
        .then(Activation::Relu)
        .then(Linear::new(m, "fc2", 512, 512))
        .then(Activation::Relu)
        .then(Linear::new(m, "fc3", 512, 10));
    train_step(m, "train_step", &Adam::new(1e-4), |f| {
        let logits = net.apply(f.input("x", DType::F32, [128, 784]));
        cross_entropy(logits, f.input("y", DType::I32, [128]))
    });
}
