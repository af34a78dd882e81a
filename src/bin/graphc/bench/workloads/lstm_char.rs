//! A character model: embedding 64, one LSTM layer of 256, 32 windows of 64 characters out of 96.

use super::{Values, Workload};
use graphc::nn::{Cell, Dense, Embedding, Layer, Recurrent};
use graphc::optim::{Adam, Clip, Clipped, train_step};
use graphc::{DType, Initializer, ModuleBuilder, cross_entropy};

pub(super) const WORKLOAD: Workload = Workload {
    name: "lstm_char",
    flops: 4_328_521_728,
    compile_ms: 40.0,
    data: &[Values::Classes(96), Values::Classes(96)],
    losses: [
        (0, 4.565016332, 1e-5),
        (1, 4.560822095, 1e-5),
        (10, 4.545959671, 1e-5),
        (50, 4.232736139, 8e-5),
    ],
    declare,
};

fn declare(m: &ModuleBuilder) {
    let embedding = Embedding::with_init(m, "emb", 96, 64, Initializer::torch_default(64));
    let lstm = Recurrent::new(m, "lstm", Cell::Lstm, 64, 256);
    let head = Dense::new(m, "head", 256, 96);
    train_step(m, "train_step", &Clipped::new(Adam::new(2e-3), Clip::GlobalNorm(1.0)), |f| {
        let ids = f.input("ids", DType::I32, [32, 64]);
        let logits = head.apply(lstm.apply(embedding.apply(ids)));
        cross_entropy(logits, f.input("targets", DType::I32, [32, 64]))
    });
}
