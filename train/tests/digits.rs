//! The whole way: files, batches, layers, optimizer, compiled steps, accuracy.

use graphc_compiler::CompileOptions;
use graphc_ir::composite::mse;
use graphc_ir::{DType, ModuleBuilder, shape};
use graphc_runtime::{ThreadPool, Value};
use graphc_train::data::{Batches, load_directory};
use graphc_train::metrics::{RunningMean, correct};
use graphc_train::nn::{Activation, Dense, Layer, Sequential};
use graphc_train::optim::{Sgd, train_step};
use graphc_train::session::Session;
use std::sync::Arc;

/// Least squares on one-hot targets: 64-32-10 with ReLU.
#[test]
fn a_small_network_learns_the_digits() {
    let (train, test) = load_directory(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/digits")).unwrap();
    let m = ModuleBuilder::new("digits");
    let net = Sequential::new()
        .then(Dense::new(&m, "hidden", 64, 32))
        .then(Activation::Relu)
        .then(Dense::new(&m, "out", 32, 10));
    m.function("predict", |f| {
        f.output("logits", net.apply(f.input("x", DType::F32, shape!["B", 64])));
    });
    train_step(&m, "train_step", &Sgd::new(0.5).momentum(0.9), |f| {
        let x = f.input("x", DType::F32, shape!["B", 64]);
        let y = f.input("y", DType::I32, shape!["B"]);
        mse(net.apply(x), y.one_hot(10, DType::F32))
    });
    let pool = Arc::new(ThreadPool::new(1).unwrap());
    let mut session = Session::with(m.build().unwrap(), 1, pool, CompileOptions::default()).unwrap();

    let mut batches = Batches::shuffled(&train, 64, 1);
    let mut losses = Vec::new();
    for epoch in 0..15 {
        batches.start(epoch);
        let mut mean = RunningMean::default();
        while let Some(batch) = batches.next_batch() {
            let inputs = [("x", Value::F32(batch.features)), ("y", Value::I32(batch.labels))];
            let loss: f32 = session.run("train_step", &inputs).unwrap().scalar("loss").unwrap();
            mean.add(loss.into(), batch.len());
        }
        losses.push(mean.get());
    }
    assert!(losses[14] < 0.2 * losses[0], "{losses:?}");
    let outputs = session.run("predict", &[("x", Value::F32(test.features()))]).unwrap();
    let hits = correct(outputs.get("logits").unwrap(), 10, test.labels());
    assert!(hits >= 280, "{hits} of {}, losses {losses:?}", test.len());
    // 23 full batches and one of 28 rows, and the prediction.
    assert_eq!(session.compiled(), 3);
}
