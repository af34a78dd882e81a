//! An autoencoder, 784 -> 256 -> 64 -> 256 -> 784 with a sigmoid after every layer, 128 rows.

use super::{Linear, Values, Workload};
use graphc::nn::{Activation, Layer, Sequential};
use graphc::optim::{Adam, train_step};
use graphc::{DType, ModuleBuilder, mse};

pub(super) const WORKLOAD: Workload = Workload {
    name: "autoencoder",
    flops: 282_066_944,
    compile_ms: 25.0,
    data: &[Values::Uniform(0.0, 1.0)],
    losses: [
        (0, 0.088751409, 1e-5),
        (1, 0.085847227, 1e-5),
        (10, 0.083630135, 1e-5),
        (50, 0.083067024, 1e-5),
    ],
    declare,
};

fn declare(m: &ModuleBuilder) {
    let net = [("fc1", 784, 256), ("fc2", 256, 64), ("fc3", 64, 256), ("fc4", 256, 784)]
        .into_iter()
        .fold(Sequential::new(), |net, (name, n_in, n_out)| {
            net.then(Linear::new(m, name, n_in, n_out)).then(Activation::Sigmoid)
        });
    train_step(m, "train_step", &Adam::new(1e-3), |f| {
        let x = f.input("x", DType::F32, [128, 784]);
        mse(net.apply(x), x)
    });
}
