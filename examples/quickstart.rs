//! A model from its declaration to its accuracy on digits that it has not seen.
//!
//! `cargo run --release --example quickstart`

use graphc::data::{Loader, Table, load_directory};
use graphc::nn::{Activation, Dense, Flatten, Layer, Sequential};
use graphc::{DType, ModuleBuilder, Session, cross_entropy, metrics, optim, shape, trainer::Trainer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (train, test) = load_directory(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/digits"))?;
    let m = ModuleBuilder::new("digits");
    let net = Sequential::new()
        .then(Flatten)
        .then(Dense::new(&m, "hidden", 64, 128))
        .then(Activation::Relu)
        .then(Dense::new(&m, "out", 128, 10));
    m.function("predict", |f| f.output("logits", net.apply(f.input("x", DType::F32, shape!["B", 8, 8]))));
    optim::train_step(&m, "train_step", &optim::Sgd::new(0.1).momentum(0.9), |f| {
        let logits = net.train(f.input("x", DType::F32, shape!["B", 8, 8]));
        cross_entropy(logits, f.input("y", DType::I32, shape!["B"]))
    });
    let mut session = Session::new(m.build()?, 1)?;
    println!("{}", Trainer::new(30).run(&mut session, &mut Loader::new(Table::from(train), 50).shuffled(1))?);
    let outputs = session.run("predict", &[("x", test.features().into())])?;
    println!("test accuracy {:.4}", metrics::accuracy(outputs.get("logits")?, 10, test.labels()));
    Ok(())
}
