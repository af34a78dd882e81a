//! A convolutional network learns to read handwritten digits: twice convolution, batch normalization and pooling, then two fully
//! connected layers.
//!
//! `cargo run --release --example digits_cnn [-- --data DIR_WITH_MNIST_FILES]`

use common::{Args, Outcome, classifier, fit, over_seeds};
use graphc::data::Table;
use graphc::nn::{Activation, BatchNorm, Conv2d, Dense, Flatten, MaxPool2d, Sequential, Unflatten};
use graphc::optim::Adam;
use graphc::summary::Summary;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    let &[height, width] = train.dims() else { return Err("the images are not grey".into()) };
    let (train, test) = (Table::from(train), Table::from(test));
    let accuracy = over_seeds("test accuracy", args.seeds.unwrap_or(1), |seed| {
        let module = classifier(&Adam::new(1e-3), &[height, width], |m| {
            Box::new(
                Sequential::new()
                    .then(Flatten)
                    .then(Unflatten::new(&[1, height, width]))
                    .then(Conv2d::new(m, "conv1", 1, 8, 3, 1, 1))
                    .then(BatchNorm::new(m, "norm1", 8))
                    .then(Activation::Relu)
                    .then(MaxPool2d::new(2))
                    .then(Conv2d::new(m, "conv2", 8, 16, 3, 1, 1))
                    .then(BatchNorm::new(m, "norm2", 16))
                    .then(Activation::Relu)
                    .then(MaxPool2d::new(2))
                    .then(Flatten)
                    .then(Dense::new(m, "fc", 16 * (height / 4) * (width / 4), 64))
                    .then(Activation::Relu)
                    .then(Dense::new(m, "out", 64, 10)),
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
