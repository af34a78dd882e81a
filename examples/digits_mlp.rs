//! A fully connected network learns to read handwritten digits.
//!
//! `cargo run --release --example digits_mlp [-- --data DIR_WITH_MNIST_FILES]`

use common::{Args, Outcome, classifier, fit, over_seeds};
use graphc::data::Table;
use graphc::nn::{Activation, Dense, Flatten, Sequential};
use graphc::optim::Sgd;
use graphc::summary::Summary;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    let dims = train.dims().to_vec();
    let (train, test) = (Table::from(train), Table::from(test));
    let accuracy = over_seeds("test accuracy", args.seeds.unwrap_or(1), |seed| {
        let module = classifier(&Sgd::new(0.1).momentum(0.9), &dims, |m| {
            let hidden = Dense::new(m, "hidden", dims.iter().product(), 128);
            Box::new(
                Sequential::new()
                    .then(Flatten)
                    .then(hidden)
                    .then(Activation::Relu)
                    .then(Dense::new(m, "out", 128, 10)),
            )
        })?;
        let (mut session, report) = fit(module, &train, &test, 50, args.epochs.unwrap_or(30), seed)?;
        if seed == 1 {
            println!("{}\n{report}", Summary::of(&mut session, "train_step", &[("B", 50)])?);
        }
        Ok(report.last("accuracy"))
    })?;
    println!("test accuracy {accuracy:.4}");
    Ok(())
}
