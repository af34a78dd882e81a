//! Autoencoders of digits: dense, convolutional, and one that removes noise. Draws originals above reconstructions.
//!
//! `cargo run --release --example autoencoder [-- --model dense|conv|denoising]`

use common::{Args, Outcome, over_seeds};
use graphc::data::{Loader, Mapped, Table, augment};
use graphc::nn::{
    Activation, Conv2d, ConvOptions, ConvTranspose2d, ConvTransposeOptions, Dense, Flatten, Layer,
    Sequential, Unflatten,
};
use graphc::optim::{Adam, train_step};
use graphc::plot::{Grey, save_grid};
use graphc::trainer::Trainer;
use graphc::{DType, ModuleBuilder, Session, mse, shape};
use std::process::ExitCode;

const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;

/// 64 - 32 - 8 - 32 - 64.
fn dense(m: &ModuleBuilder) -> Sequential {
    Sequential::new()
        .then(Flatten)
        .then(Dense::new(m, "encoder/0", PIXELS, 32))
        .then(Activation::Relu)
        .then(Dense::new(m, "encoder/1", 32, 8))
        .then(Dense::new(m, "decoder/0", 8, 32))
        .then(Activation::Relu)
        .then(Dense::new(m, "decoder/1", 32, PIXELS))
        .then(Activation::Sigmoid)
}

/// Down to a code of 8 numbers by strides, and up again.
fn convolutional(m: &ModuleBuilder) -> Sequential {
    let half = ConvOptions { stride: [2; 2], padding: [1; 2], ..ConvOptions::default() };
    let double = ConvTransposeOptions { stride: [2; 2], padding: [1; 2], output_padding: [1; 2] };
    Sequential::new()
        .then(Flatten)
        .then(Unflatten::new(&[1, SIDE, SIDE]))
        .then(Conv2d::with(m, "encoder/0", 1, 16, [3, 3], half))
        .then(Activation::Relu)
        .then(Conv2d::with(m, "encoder/1", 16, 32, [3, 3], half))
        .then(Activation::Relu)
        .then(Flatten)
        .then(Dense::new(m, "encoder/2", 32 * 4, 8))
        .then(Dense::new(m, "decoder/0", 8, 32 * 4))
        .then(Activation::Relu)
        .then(Unflatten::new(&[32, 2, 2]))
        .then(ConvTranspose2d::new(m, "decoder/1", 32, 16, [3, 3], double))
        .then(Activation::Relu)
        .then(ConvTranspose2d::new(m, "decoder/2", 16, 1, [3, 3], double))
        .then(Activation::Sigmoid)
        .then(Flatten)
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let kinds: Vec<&str> = match args.model.as_deref() {
        None => vec!["dense", "conv", "denoising"],
        Some(kind @ ("dense" | "conv" | "denoising")) => vec![kind],
        Some(other) => return Err(format!("--model {other}: dense, conv or denoising").into()),
    };
    let (train, test) = args.digits()?;
    if train.dims() != [SIDE, SIDE] {
        return Err(format!("the images are {:?}, this example is of {SIDE} x {SIDE}", train.dims()).into());
    }
    let dims = train.dims().to_vec();
    // What comes in, and what is to come out.
    let pair = |pixels: &[f32]| {
        Table::new().with("x", &dims, pixels.to_vec())?.with("target", &dims, pixels.to_vec())
    };
    let (train, test) = (pair(train.features())?, pair(test.features())?);
    let originals = test.get::<f32>("target").unwrap_or_default();

    let mut results = Vec::new();
    for kind in kinds {
        let noisy = kind == "denoising";
        let m = ModuleBuilder::new(kind);
        let net = if kind == "conv" { convolutional(&m) } else { dense(&m) };
        let images = shape!["B", SIDE, SIDE];
        m.function("reconstruct", |f| {
            let (x, target) = (f.input("x", DType::F32, &images), f.input("target", DType::F32, &images));
            let y = net.apply(x);
            f.output("y", y);
            f.output("loss", mse(y, target.reshape(shape!["B", PIXELS])));
        });
        train_step(&m, "train_step", &Adam::new(2e-3), |f| {
            let (x, target) = (f.input("x", DType::F32, &images), f.input("target", DType::F32, &images));
            mse(net.train(x), target.reshape(shape!["B", PIXELS]))
        });
        let module = m.build()?;
        let spoiled =
            common::whole(Mapped::new(test.clone(), "x", augment::noise(if noisy { 0.25 } else { 0.0 })))?;
        let error = over_seeds(kind, args.seeds.unwrap_or(5), |seed| {
            let mut session = Session::new(module.clone(), seed)?;
            let source = Mapped::new(train.clone(), "x", augment::noise(if noisy { 0.25 } else { 0.0 }));
            let mut loader = Loader::new(source, 50).shuffled(seed).workers(1);
            Trainer::new(args.epochs.unwrap_or(100)).run(&mut session, &mut loader)?;
            let outputs = session.run("reconstruct", &spoiled.inputs())?;
            let grey = |pixels| Grey { pixels, height: SIDE, width: SIDE };
            let shown = 20 * PIXELS;
            let input = spoiled.get::<f32>("x").unwrap_or_default();
            let rows = [grey(&originals[..shown]), grey(&input[..shown]), grey(&outputs.get("y")?[..shown])];
            // What came in is only worth a row if it is not the original.
            let rows = if noisy { &rows[..] } else { &[rows[0], rows[2]] };
            save_grid(args.picture(&format!("autoencoder_{kind}.png")), rows, 5)?;
            Ok(f64::from(outputs.scalar::<f32>("loss")?))
        })?;
        results.push(format!("{kind} {error:.5}"));
    }
    println!("originals and reconstructions in {}", args.out.display());
    println!("test mean squared error per pixel {}", results.join(", "));
    Ok(())
}
