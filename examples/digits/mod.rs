//! What the two digits examples share: arguments, data, and the training loop.

use clap::Parser;
use graphc::data::{Batches, Dataset, load_directory};
use graphc::metrics::{RunningMean, correct};
use graphc::nn::Layer;
use graphc::optim::{Optimizer, train_step};
use graphc::progress::Progress;
use graphc::{DType, ModuleBuilder, Session, cross_entropy, shape};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

/// Trains on images of handwritten digits.
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Folder with MNIST files (train-images-idx3-ubyte[.gz], ...) instead of the digits in the repository.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Passes over the training images.
    #[arg(long)]
    epochs: Option<u64>,
    /// Images in a batch.
    #[arg(long, default_value_t = 50)]
    batch: usize,
    /// Seed of the initial weights and of the order of the images.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to save the trained weights, as safetensors.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Where to write the module as text, to look into it with `graphc dump`.
    #[arg(long)]
    module: Option<PathBuf>,
    /// Weights to start from, as saved by --save.
    #[arg(long)]
    load: Option<PathBuf>,
}

/// A model and how to train it.
pub(crate) struct Recipe<'a> {
    /// Declares the layers for images of this height and width; they map `[B, 1, H, W]` to `[B, 10]`.
    pub(crate) model: fn(&ModuleBuilder, usize, usize) -> Box<dyn Layer>,
    /// The optimizer.
    pub(crate) optimizer: &'a dyn Optimizer,
    /// Its initial learning rate, which falls to zero along a half cosine.
    pub(crate) learning_rate: f32,
    /// Passes over the data unless the arguments say otherwise.
    pub(crate) epochs: u64,
}

/// Trains, evaluates, and prints the accuracy on the test images in the last line.
pub(crate) fn run(recipe: &Recipe<'_>) -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if args.batch == 0 {
        return Err("--batch must be at least 1".into());
    }
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits");
    let (train, test) = load_directory(args.data.clone().unwrap_or_else(|| bundled.into()))?;
    let &[height, width] = train.dims() else {
        return Err(format!("images have extents {:?}, expected height and width", train.dims()).into());
    };
    println!("{} training and {} test images of {height} x {width}", train.len(), test.len());

    let m = ModuleBuilder::new("digits");
    let net = (recipe.model)(&m, height, width);
    let images = shape!["B", 1, height, width];
    m.function("predict", |f| f.output("logits", net.apply(f.input("x", DType::F32, &images))));
    train_step(&m, "train_step", recipe.optimizer, |f| {
        let logits = net.apply(f.input("x", DType::F32, &images));
        cross_entropy(logits, f.input("y", DType::I32, shape!["B"]))
    });
    let module = m.build()?;
    let parameters: usize =
        module.trainable().filter_map(|id| module.state[id.index()].ty.shape.num_elements()).sum();

    if let Some(path) = &args.module {
        std::fs::write(path, module.to_string())
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }

    let mut session = Session::new(module, args.seed)?;
    if let Some(path) = &args.load {
        session.load(path)?;
    }
    let started = Instant::now();
    session.executable("train_step", &[("B", args.batch)])?;
    println!(
        "{parameters} parameters; training step compiled in {:.1} ms",
        started.elapsed().as_secs_f64() * 1e3
    );

    let epochs = args.epochs.unwrap_or(recipe.epochs);
    let mut batches = Batches::shuffled(&train, args.batch, args.seed);
    let mut progress = Progress::new(epochs as usize, batches.per_epoch());
    let started = Instant::now();
    for epoch in 0..epochs {
        let phase = std::f32::consts::PI * epoch as f32 / epochs as f32;
        session.set_learning_rate(recipe.learning_rate * 0.5 * (1.0 + phase.cos()))?;
        batches.start(epoch);
        let mut loss = RunningMean::default();
        while let Some(batch) = batches.next_batch() {
            let inputs = [("x", batch.features.into()), ("y", batch.labels.into())];
            let value: f32 = session.run("train_step", &inputs)?.scalar("loss")?;
            loss.add(f64::from(value), batch.len());
            progress.batch(batch.len(), f64::from(value));
        }
        let last = epoch + 1 == epochs;
        if last || epoch % 5 == 4 {
            let accuracy = accuracy(&mut session, &test, args.batch)?;
            progress.epoch(&format!("test accuracy {accuracy:.4}"));
            println!("epoch {:3}: loss {:.4}, test accuracy {accuracy:.4}", epoch + 1, loss.get());
        } else {
            progress.epoch("");
        }
    }
    progress.finish();
    println!("trained for {:.2} s", started.elapsed().as_secs_f64());
    if let Some(path) = &args.save {
        session.save(path)?;
        println!("saved to {}", path.display());
    }
    println!("test accuracy {:.3}", accuracy(&mut session, &test, args.batch)?);
    Ok(())
}

/// Share of the images that the model recognizes.
fn accuracy(session: &mut Session, data: &Dataset, batch: usize) -> Result<f64, Box<dyn Error>> {
    let mut batches = Batches::in_order(data, batch);
    let mut right = 0;
    while let Some(batch) = batches.next_batch() {
        let outputs = session.run("predict", &[("x", batch.features.into())])?;
        right += correct(outputs.get("logits")?, data.classes(), batch.labels);
    }
    Ok(right as f64 / data.len() as f64)
}
