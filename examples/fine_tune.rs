//! Fine-tuning: a network learns the digits 0 to 4; then its lower layers are frozen, and a new head learns 5 to 9.
//!
//! `cargo run --release --example fine_tune`

use common::{Args, Outcome, accuracy, classifier, fit};
use graphc::data::{Dataset, Loader, Table};
use graphc::nn::{Activation, Conv2d, Dense, Flatten, MaxPool2d, Sequential, Unflatten};
use graphc::optim::{Adam, Groups, Optimizer};
use graphc::summary::Summary;
use graphc::trainer::Trainer;
use graphc::{Module, Session};
use std::process::ExitCode;

/// The digits `first..first + 5`, as labels from 0.
fn part(data: &Dataset, first: i32) -> Result<Table, Box<dyn std::error::Error>> {
    let table = Table::from(data.clone());
    let rows: Vec<usize> =
        (0..data.len()).filter(|&i| (first..first + 5).contains(&data.labels()[i])).collect();
    let chosen = table.select(&rows);
    let labels: Vec<i32> = rows.iter().map(|&i| data.labels()[i] - first).collect();
    Ok(Table::new().with("x", data.dims(), chosen.get::<f32>("x").unwrap_or_default().to_vec())?.with(
        "y",
        &[],
        labels,
    )?)
}

fn model(
    optimizer: &dyn Optimizer,
    height: usize,
    width: usize,
) -> Result<Module, Box<dyn std::error::Error>> {
    classifier(optimizer, &[height, width], |m| {
        Box::new(
            Sequential::new()
                .then(Flatten)
                .then(Unflatten::new(&[1, height, width]))
                .then(Conv2d::new(m, "body/conv1", 1, 16, 3, 1, 1))
                .then(Activation::Relu)
                .then(Conv2d::new(m, "body/conv2", 16, 32, 3, 1, 1))
                .then(Activation::Relu)
                .then(MaxPool2d::new(2))
                .then(Flatten)
                .then(Dense::new(m, "body/fc", 32 * (height / 2) * (width / 2), 64))
                .then(Activation::Relu)
                .then(Dense::new(m, "head", 64, 5)),
        )
    })
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    let &[height, width] = train.dims() else { return Err("the images are not grey".into()) };
    let adam = Adam::new(1e-3);
    let epochs = args.epochs.unwrap_or(20);
    let (mut whole, report) =
        fit(model(&adam, height, width)?, &part(&train, 0)?, &part(&test, 0)?, 50, epochs, 1)?;
    println!("digits 0 to 4: test accuracy {:.4}", report.last("accuracy"));
    let before = Summary::of(&mut whole, "train_step", &[("B", 50)])?;

    // The same layers, of which only the head is trained; it starts anew.
    let mut session = Session::new(model(&Groups::new(Adam::new(1e-2)).freeze("body/*"), height, width)?, 2)?;
    let own: Vec<String> = session.state().names().map(str::to_owned).collect();
    for name in own.iter().filter(|n| n.starts_with("body/")) {
        session.state_mut().copy_from(name, whole.state().value(name)?)?;
    }
    let body = |s: &Session| -> Vec<Vec<u8>> {
        s.state()
            .iter()
            .filter(|(e, _)| e.name.starts_with("body/"))
            .map(|(_, v)| v.as_bytes().to_vec())
            .collect()
    };
    let frozen = body(&session);
    println!("freezing saves: {}", Summary::of(&mut session, "train_step", &[("B", 50)])?.saved(&before));

    let (train, test) = (part(&train, 5)?, part(&test, 5)?);
    println!("digits 5 to 9 before: test accuracy {:.4}", accuracy(&mut session, &test)?);
    Trainer::new(epochs).run(&mut session, &mut Loader::new(train, 50).shuffled(1))?;
    if body(&session) != frozen {
        return Err("a frozen parameter changed".into());
    }
    println!("test accuracy {:.4}", accuracy(&mut session, &test)?);
    Ok(())
}
