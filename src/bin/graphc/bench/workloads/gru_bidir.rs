//! A bidirectional GRU of 128 each way classifies 32 sequences of 32 steps by its last states.

use super::{Values, Workload};
use graphc::nn::{Cell, Dense, Recurrent, RecurrentOptions, Run};
use graphc::optim::{RmsProp, train_step};
use graphc::{DType, ModuleBuilder, cross_entropy};

pub(super) const WORKLOAD: Workload = Workload {
    name: "gru_bidir",
    flops: 805_797_888,
    compile_ms: 40.0,
    data: &[Values::Uniform(-1.0, 1.0), Values::Classes(10)],
    losses: [
        (0, 2.295142805, 1e-5),
        (1, 1.774139168, 1e-5),
        (10, 0.048028422, 1e-5),
        (50, 0.003026895, 5e-5),
    ],
    declare,
};

fn declare(m: &ModuleBuilder) {
    let options = RecurrentOptions { bidirectional: true, ..RecurrentOptions::default() };
    let gru = Recurrent::with(m, "gru", Cell::Gru, 64, 128, &options);
    let head = Dense::new(m, "head", 256, 10);
    train_step(m, "train_step", &RmsProp::new(1e-3), |f| {
        let x = f.input("x", DType::F32, [32, 32, 64]);
        let state = gru.run(x, &Run::default()).state;
        cross_entropy(head.apply(f.concatenate(&state.hidden, 1)), f.input("y", DType::I32, [32]))
    });
}
