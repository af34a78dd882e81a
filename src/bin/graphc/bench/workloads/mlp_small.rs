//! A tiny classifier, 64 -> 64 relu -> 10, 32 rows: dominated by what a step costs besides arithmetic.

use super::{Linear, Values, Workload};
use graphc::nn::Layer;
use graphc::optim::{Sgd, train_step};
use graphc::{DType, ModuleBuilder, cross_entropy};

pub(super) const WORKLOAD: Workload = Workload {
    name: "mlp_small",
    flops: 647_168,
    compile_ms: 10.0,
    data: &[Values::Uniform(-1.0, 1.0), Values::Classes(10)],
    losses: [
        (0, 2.301695277, 1e-5),
        (1, 2.291636766, 1e-5),
        (10, 1.920064025, 1e-5),
        (50, 0.021567740, 1e-5),
    ],
    declare,
};

fn declare(m: &ModuleBuilder) {
    let (fc1, fc2) = (Linear::new(m, "fc1", 64, 64), Linear::new(m, "fc2", 64, 10));
    train_step(m, "train_step", &Sgd::new(0.05).momentum(0.9), |f| {
        let x = f.input("x", DType::F32, [32, 64]);
        let logits = fc2.apply(fc1.apply(x).relu());
        cross_entropy(logits, f.input("y", DType::I32, [32]))
    });
}
