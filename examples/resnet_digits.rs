//! A residual network with batch normalization on digits, enlarged to 16 x 16, or on CIFAR-10 with `--data` and its binary files.
//!
//! `cargo run --release --example resnet_digits`

use common::{Args, Outcome, accuracy, classifier, over_seeds};
use graphc::data::{Dataset, Loader, Mapped, Table, augment, load_cifar10};
use graphc::nn::{
    Activation, BatchNorm, Conv2d, ConvOptions, Dense, GlobalAvgPool, Layer, Residual, Sequential,
};
use graphc::optim::Sgd;
use graphc::schedule::OneCycle;
use graphc::summary::Summary;
use graphc::trainer::Trainer;
use graphc::{ModuleBuilder, Session};
use std::process::ExitCode;

fn conv(
    m: &ModuleBuilder,
    name: &str,
    [c_in, c_out]: [usize; 2],
    kernel: usize,
    stride: usize,
) -> Sequential {
    let options =
        ConvOptions { stride: [stride; 2], padding: [kernel / 2; 2], bias: false, ..ConvOptions::default() };
    Sequential::new()
        .then(Conv2d::with(m, &format!("{name}/conv"), c_in, c_out, [kernel; 2], options))
        .then(BatchNorm::new(m, &format!("{name}/norm"), c_out))
}

/// Two convolutions and the way around them.
fn block(m: &ModuleBuilder, name: &str, [c_in, c_out]: [usize; 2], stride: usize) -> impl Layer + use<> {
    let body = conv(m, &format!("{name}/0"), [c_in, c_out], 3, stride).then(Activation::Relu).then(conv(
        m,
        &format!("{name}/1"),
        [c_out, c_out],
        3,
        1,
    ));
    let sum = if stride == 1 && c_in == c_out {
        Residual::new(body)
    } else {
        Residual::with_shortcut(body, conv(m, &format!("{name}/shortcut"), [c_in, c_out], 1, stride))
    };
    Sequential::new().then(sum).then(Activation::Relu)
}

/// Every pixel as a square of four.
fn enlarged(data: &Dataset) -> Result<Table, Box<dyn std::error::Error>> {
    let &[height, width] = data.dims() else { return Err("the images are not grey".into()) };
    let pixel = |image: &[f32], i: usize| image[i / (2 * width) / 2 * width + i % (2 * width) / 2];
    let pixels: Vec<f32> = (0..data.len())
        .flat_map(|row| (0..4 * height * width).map(move |i| pixel(data.row(row), i)))
        .collect();
    Ok(Table::new().with("x", &[1, 2 * height, 2 * width], pixels)?.with("y", &[], data.labels().to_vec())?)
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test, shape) = match &args.data {
        Some(folder) => {
            let files: Vec<_> = (1..=5).map(|i| folder.join(format!("data_batch_{i}.bin"))).collect();
            let (train, test) = (load_cifar10(&files)?, load_cifar10(&[folder.join("test_batch.bin")])?);
            (Table::from(train), Table::from(test), [3, 32, 32])
        }
        None => {
            let (train, test) = args.digits()?;
            let (height, width) = (2 * train.dims()[0], 2 * train.dims()[1]);
            (enlarged(&train)?, enlarged(&test)?, [1, height, width])
        }
    };
    let epochs = args.epochs.unwrap_or(20);
    let accuracy = over_seeds("test accuracy", args.seeds.unwrap_or(1), |seed| {
        let module = classifier(&Sgd::new(0.1).nesterov(0.9).weight_decay(5e-4), &shape, |m| {
            Box::new(
                conv(m, "stem", [shape[0], 16], 3, 1)
                    .then(Activation::Relu)
                    .then(block(m, "block0", [16, 16], 1))
                    .then(block(m, "block1", [16, 32], 2))
                    .then(block(m, "block2", [32, 64], 2))
                    .then(GlobalAvgPool)
                    .then(Dense::new(m, "out", 64, 10)),
            )
        })?;
        let mut session = Session::new(module, seed)?;
        println!("{}", Summary::of(&mut session, "train_step", &[("B", 50)])?);
        // Shifted by up to one pixel of the original, others in every epoch.
        let source = Mapped::new(train.clone(), "x", augment::shift(shape, 2));
        let mut loader = Loader::new(source, 50).shuffled(seed).workers(1);
        let schedule = OneCycle::new(0.1, epochs * loader.per_epoch() as u64);
        let report = Trainer::new(epochs)
            .schedule(schedule)
            .validate(|s| Ok(vec![("accuracy", accuracy(s, &test)?)]))
            .run(&mut session, &mut loader)?;
        println!("{report}");
        Ok(report.last("accuracy"))
    })?;
    println!("test accuracy {accuracy:.4}");
    Ok(())
}
