//! Training on the bundled digits reaches its figures, with the same bits on any number of threads.

use graphc::data::{Batches, Dataset, load_directory};
use graphc::metrics::correct;
use graphc::nn::{Activation, Conv2d, Dense, Flatten, Layer, MaxPool2d, Sequential};
use graphc::optim::{Adam, Optimizer, Sgd, train_step};
use graphc::{
    CompileOptions, DType, Module, ModuleBuilder, OptLevel, Session, ThreadPool, cross_entropy, shape,
};
use std::sync::Arc;

fn digits() -> (Dataset, Dataset) {
    load_directory(concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits")).unwrap()
}

fn classifier(model: fn(&ModuleBuilder) -> Sequential, optimizer: &dyn Optimizer) -> Module {
    let m = ModuleBuilder::new("digits");
    let net = model(&m);
    let images = shape!["B", 1, 8, 8];
    m.function("predict", |f| f.output("logits", net.apply(f.input("x", DType::F32, &images))));
    train_step(&m, "train_step", optimizer, |f| {
        let logits = net.apply(f.input("x", DType::F32, &images));
        cross_entropy(logits, f.input("y", DType::I32, shape!["B"]))
    });
    m.build().unwrap()
}

fn mlp(m: &ModuleBuilder) -> Sequential {
    Sequential::new()
        .then(Flatten)
        .then(Dense::new(m, "hidden", 64, 128))
        .then(Activation::Relu)
        .then(Dense::new(m, "out", 128, 10))
}

fn cnn(m: &ModuleBuilder) -> Sequential {
    Sequential::new()
        .then(Conv2d::new(m, "conv1", 1, 16, 3, 1, 1))
        .then(Activation::Relu)
        .then(MaxPool2d::new(2))
        .then(Conv2d::new(m, "conv2", 16, 32, 3, 1, 1))
        .then(Activation::Relu)
        .then(MaxPool2d::new(2))
        .then(Flatten)
        .then(Dense::new(m, "fc", 128, 64))
        .then(Activation::Relu)
        .then(Dense::new(m, "out", 64, 10))
}

/// Trains for whole epochs with batches of 50 and a rate that falls along a half cosine; gives the
/// test accuracy.
fn accuracy(module: Module, rate: f32, epochs: u64) -> f64 {
    let (train, test) = digits();
    let mut session = Session::new(module, 1).unwrap();
    let mut batches = Batches::shuffled(&train, 50, 1);
    for epoch in 0..epochs {
        let phase = std::f32::consts::PI * epoch as f32 / epochs as f32;
        session.set_learning_rate(rate * 0.5 * (1.0 + phase.cos())).unwrap();
        batches.start(epoch);
        while let Some(b) = batches.next_batch() {
            session.run("train_step", &[("x", b.features.into()), ("y", b.labels.into())]).unwrap();
        }
    }
    let mut batches = Batches::in_order(&test, 50);
    let mut right = 0;
    while let Some(b) = batches.next_batch() {
        let outputs = session.run("predict", &[("x", b.features.into())]).unwrap();
        right += correct(outputs.get("logits").unwrap(), 10, b.labels);
    }
    right as f64 / test.len() as f64
}

#[test]
fn the_fully_connected_network_reads_digits() {
    let accuracy = accuracy(classifier(mlp, &Sgd::new(0.1).momentum(0.9)), 0.1, 30);
    assert!(accuracy >= 0.973, "test accuracy {accuracy}");
}

#[test]
fn the_convolutional_network_reads_digits() {
    let accuracy = accuracy(classifier(cnn, &Adam::new(3e-3)), 3e-3, 30);
    assert!(accuracy >= 0.97, "test accuracy {accuracy}");
}

/// The bytes of all state after some steps; every eighth step is on a smaller batch.
fn trained(module: &Module, threads: usize, level: OptLevel, steps: usize) -> Vec<(String, Vec<u8>)> {
    let (train, _) = digits();
    let pool = Arc::new(ThreadPool::new(threads).unwrap());
    let mut session = Session::with(module.clone(), 7, pool, CompileOptions::at(level)).unwrap();
    // 1500 images: the last of 8 batches has 100.
    let mut batches = Batches::shuffled(&train, 200, 7);
    for step in 0..steps {
        if step % 8 == 0 {
            batches.start(step as u64 / 8);
        }
        let b = batches.next_batch().unwrap();
        session.run("train_step", &[("x", b.features.into()), ("y", b.labels.into())]).unwrap();
    }
    session.state().iter().map(|(e, v)| (e.name.clone(), v.as_bytes().to_vec())).collect()
}

#[test]
fn bits_do_not_depend_on_threads() {
    for module in [classifier(cnn, &Adam::new(1e-3)), classifier(mlp, &Sgd::new(0.1).momentum(0.9))] {
        let one = trained(&module, 1, OptLevel::O3, 16);
        assert!(one.iter().any(|(_, bytes)| bytes.iter().any(|&b| b != 0)));
        for threads in [2, 3] {
            assert!(one == trained(&module, threads, OptLevel::O3, 16), "{threads} threads differ from one");
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_level() {
    let module = classifier(cnn, &Adam::new(1e-3));
    let most = trained(&module, 2, OptLevel::O3, 3);
    for level in [OptLevel::O0, OptLevel::O1, OptLevel::O2] {
        assert!(most == trained(&module, 2, level, 3), "{level:?} differs from O3");
    }
}

#[test]
fn saved_weights_continue_where_they_stopped() {
    let (train, _) = digits();
    let module = classifier(mlp, &Adam::new(1e-3));
    let step = |session: &mut Session, n: u64| {
        let mut batches = Batches::shuffled(&train, 50, 3);
        batches.start(n);
        let b = batches.next_batch().unwrap();
        session.run("train_step", &[("x", b.features.into()), ("y", b.labels.into())]).unwrap();
    };
    let bytes = |s: &Session| s.state().iter().map(|(_, v)| v.as_bytes().to_vec()).collect::<Vec<_>>();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let mut whole = Session::new(module.clone(), 5).unwrap();
    (0..4).for_each(|n| step(&mut whole, n));
    whole.save(&path).unwrap();
    (4..8).for_each(|n| step(&mut whole, n));
    let mut resumed = Session::new(module, 6).unwrap();
    resumed.load(&path).unwrap();
    (4..8).for_each(|n| step(&mut resumed, n));
    assert_eq!(bytes(&whole), bytes(&resumed));
}
