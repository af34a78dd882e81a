//! Training that goes on where it was, whatever ended it: Ctrl-C, which finishes the step and saves, or a power cut. Run it again with the
//! same folder; the weights at the end are those of a run without interruption, bit for bit.
//!
//! `cargo run --release --example resume -- --out FOLDER`

use common::{Args, Outcome, accuracy, classifier};
use graphc::Session;
use graphc::data::{Loader, Mapped, Table, augment};
use graphc::nn::{Activation, Dense, Dropout, Flatten, Sequential};
use graphc::optim::Adam;
use graphc::schedule::{Cosine, Schedule};
use graphc::trainer::{Best, Checkpoints, Log, Stopped, Trainer};
use std::process::ExitCode;

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    let dims = train.dims().to_vec();
    let (train, test) = (Table::from(train), Table::from(test));
    let module = classifier(&Adam::new(3e-3), &dims, |m| {
        let hidden = Dense::new(m, "hidden", dims.iter().product(), 128);
        Box::new(
            Sequential::new()
                .then(Flatten)
                .then(hidden)
                .then(Activation::Relu)
                .then(Dropout::new("dropout", 0.2))
                .then(Dense::new(m, "out", 128, 10)),
        )
    })?;
    let mut session = Session::new(module, 1)?;
    let source = Mapped::new(train, "x", augment::shift([1, dims[0], dims[1]], 1));
    let mut loader = Loader::new(source, 50).shuffled(1).workers(1);
    let epochs = args.epochs.unwrap_or(40);
    let steps = epochs * loader.per_epoch() as u64;
    let mut trainer = Trainer::new(epochs)
        .schedule(Cosine::new(3e-3, 0.0, steps).after_warmup(30))
        .validate(|s| Ok(vec![("accuracy", accuracy(s, &test)?)]))
        .best(Best::Largest("accuracy".to_owned()))
        .checkpoints(Checkpoints::new(args.out.join("checkpoints")).every(10))
        .log(Log::Csv(args.out.join("log.csv")))
        .log(Log::TensorBoard(args.out.join("tensorboard")))
        .interruptible();
    let report = trainer.run(&mut session, &mut loader)?;
    drop(trainer);
    println!("{report}");
    if report.stopped == Stopped::Interrupted {
        println!("run it again to go on");
        return Ok(());
    }
    let path = args.out.join("weights.safetensors");
    session.save(&path)?;
    println!("weights in {}", path.display());
    println!("test accuracy {:.4}", report.last("accuracy"));
    Ok(())
}
