//! Training gives the same bits in every run, on any number of threads, with any vectors, resumed at any step, and from one version
//! of the arithmetic to the next.

use graphc_compiler::{CompileOptions, Isa};
use graphc_ir::composite::cross_entropy;
use graphc_ir::{DType, Module, ModuleBuilder};
use graphc_runtime::ThreadPool;
use graphc_train::nn::{
    Activation, BatchNorm, Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Sequential,
};
use graphc_train::nn::{TransformerBlock, TransformerOptions};
use graphc_train::optim::{Adam, Optimizer, Sgd, train_step};
use graphc_train::session::Session;
use std::sync::Arc;

/// Hashes of all losses and of the state after [`STEPS`] steps. Another version of the arithmetic (the order of a sum, an elementary
/// function, an initializer) changes them, which the changelog must say.
const GOLDEN: [(&str, u64); 3] =
    [("mlp", 0xd282_1ad1_b589_d75d), ("cnn", 0x7272_ebd6_6ea1_0c56), ("transformer", 0xfe2b_92d0_c721_ecc1)];

/// Steps of the golden hashes.
const STEPS: usize = 12;

const BATCH: usize = 20;

fn model(name: &str) -> Module {
    let m = ModuleBuilder::new(name);
    let net = match name {
        "mlp" => Sequential::new()
            .then(Flatten)
            .then(Dense::new(&m, "hidden", 64, 50))
            .then(Activation::Relu)
            .then(Dropout::new("dropout", 0.2))
            .then(Dense::new(&m, "out", 50, 10)),
        "cnn" => Sequential::new()
            .then(Conv2d::new(&m, "conv", 1, 8, 3, 1, 1))
            .then(BatchNorm::new(&m, "norm", 8))
            .then(Activation::Relu)
            .then(MaxPool2d::new(2))
            .then(Flatten)
            .then(Dense::new(&m, "out", 128, 10)),
        _ => Sequential::new(),
    };
    let options = TransformerOptions { causal: true, ..TransformerOptions::default() };
    let block = (name == "transformer")
        .then(|| (TransformerBlock::new(&m, "block", 8, 2, options), Dense::new(&m, "out", 64, 10)));
    let optimizer: &dyn Optimizer =
        if name == "cnn" { &Sgd::new(0.05).momentum(0.9) } else { &Adam::new(3e-3) };
    train_step(&m, "train_step", optimizer, |f| {
        let x = f.input("x", DType::F32, [BATCH, 1, 8, 8]);
        let logits = match &block {
            Some((block, out)) => out.apply(block.apply(x.reshape([BATCH, 8, 8])).reshape([BATCH, 64])),
            None => net.apply(x),
        };
        cross_entropy(logits, f.input("y", DType::I32, [BATCH]))
    });
    m.build().unwrap()
}

fn session(name: &str, threads: usize, isa: Isa) -> Session {
    let options = CompileOptions { isa, ..CompileOptions::default() };
    Session::with(model(name), 7, Arc::new(ThreadPool::new(threads).unwrap()), options).unwrap()
}

/// One step on a batch that depends on its number alone; gives the bits of the loss.
fn step(session: &mut Session, n: usize) -> u32 {
    let pixel = |i: usize| ((i * 31 + n * 17) % 29) as f32 / 29.0;
    let x: Vec<f32> = (0..BATCH * 64).map(pixel).collect();
    let y: Vec<i32> = (0..BATCH).map(|i| ((i * 3 + n) % 10) as i32).collect();
    let outputs = session.run("train_step", &[("x", (&x).into()), ("y", (&y).into())]).unwrap();
    outputs.scalar::<f32>("loss").unwrap().to_bits()
}

/// FNV-1a.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Hash of these losses and of the state.
fn result(session: &Session, losses: &[u32]) -> u64 {
    let state = session.state().iter().flat_map(|(_, value)| value.as_bytes().to_vec());
    hash(losses.iter().flat_map(|l| l.to_le_bytes()).chain(state))
}

fn trained(name: &str, threads: usize, isa: Isa, steps: usize) -> u64 {
    let mut session = session(name, threads, isa);
    let losses: Vec<u32> = (0..steps).map(|n| step(&mut session, n)).collect();
    result(&session, &losses)
}

#[test]
fn training_has_its_golden_bits() {
    let hashes = GOLDEN.map(|(name, _)| (name, trained(name, 1, Isa::host(), STEPS)));
    assert_eq!(hashes, GOLDEN, "{hashes:#x?}");
}

/// GRAPHC_STEPS is the number of steps, 12.
#[test]
fn threads_vectors_and_interruptions_do_not_change_bits() {
    let steps = std::env::var("GRAPHC_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(STEPS);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.safetensors");
    for (name, _) in GOLDEN {
        let expected = trained(name, 1, Isa::host(), steps);
        for threads in [1, 2, 3, 8] {
            assert_eq!(trained(name, threads, Isa::host(), steps), expected, "{name} on {threads} threads");
        }
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            assert_eq!(trained(name, 2, isa, steps), expected, "{name} with {isa}");
        }
        // Each step in a session that has just been started, from the file of the last: two of them take turns, so that
        // neither has the state of the step before.
        let mut sessions = [session(name, 1, Isa::host()), session(name, 2, Isa::host())];
        sessions[0].save(&path).unwrap();
        let mut losses = Vec::new();
        for n in 0..steps {
            let session = &mut sessions[n % 2];
            session.load(&path).unwrap();
            losses.push(step(session, n));
            session.save(&path).unwrap();
        }
        assert_eq!(result(&sessions[(steps + 1) % 2], &losses), expected, "{name}, resumed at each step");
    }
}
