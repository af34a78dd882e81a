//! Linear regression by stochastic gradient descent: how diabetes progresses, from ten measurements.
//!
//! `cargo run --release --example linear_regression`

use common::{Args, Outcome, over_seeds, tabular};
use graphc::data::{Loader, Standardizer, Table};
use graphc::metrics::Regression;
use graphc::nn::Dense;
use graphc::optim::{Sgd, train_step};
use graphc::trainer::Trainer;
use graphc::{DType, ModuleBuilder, Session, mse, shape};
use std::process::ExitCode;

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let [(x, train), (x_test, test)] = tabular("diabetes.csv")?;
    let (y, targets) = (train.numbers(&["progression"])?, test.numbers(&["progression"])?);
    let scale = Standardizer::fit(&y, 1);
    let mut y_train = y.clone();
    scale.apply(&mut y_train);
    let table = Table::new().with("x", &[10], x)?.with("y", &[1], y_train)?;

    let m = ModuleBuilder::new("regression");
    let line = Dense::new(&m, "line", 10, 1);
    m.function("predict", |f| f.output("y", line.apply(f.input("x", DType::F32, shape!["B", 10]))));
    train_step(&m, "train_step", &Sgd::new(0.01), |f| {
        let y = line.apply(f.input("x", DType::F32, shape!["B", 10]));
        mse(y, f.input("y", DType::F32, shape!["B", 1]))
    });
    let module = m.build()?;

    let error = over_seeds("mean squared error", args.seeds.unwrap_or(5), |seed| {
        let mut session = Session::new(module.clone(), seed)?;
        let mut loader = Loader::new(table.clone(), 32).shuffled(seed);
        Trainer::new(args.epochs.unwrap_or(200)).run(&mut session, &mut loader)?;
        let mut predicted = session.run("predict", &[("x", (&x_test[..]).into())])?.get::<f32>("y")?.to_vec();
        scale.invert(&mut predicted);
        let mut errors = Regression::default();
        errors.add(&predicted, &targets);
        Ok(errors.mse())
    })?;
    println!("test mean squared error {error:.2}");
    Ok(())
}
