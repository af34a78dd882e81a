//! A recurrent network forecasts sunspots, one year ahead from 24.
//!
//! `cargo run --release --example forecast [-- --model rnn|gru|lstm]`

use common::{Args, Outcome, in_repository, over_seeds, whole};
use graphc::data::{Csv, Loader, SeriesWindows, Standardizer};
use graphc::metrics::Regression;
use graphc::nn::{Cell, Dense, Recurrent, Run};
use graphc::optim::{Adam, train_step};
use graphc::plot::Chart;
use graphc::trainer::Trainer;
use graphc::{DType, ModuleBuilder, Session, Tensor, mse, shape};
use std::process::ExitCode;

const WINDOW: usize = 24;
/// Years 1700 to 1939 train.
const TRAINED: usize = 240;
const HIDDEN: usize = 16;

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let cells = match args.model.as_deref() {
        None => vec![("rnn", Cell::Tanh), ("gru", Cell::Gru), ("lstm", Cell::Lstm)],
        Some("rnn") => vec![("rnn", Cell::Tanh)],
        Some("gru") => vec![("gru", Cell::Gru)],
        Some("lstm") => vec![("lstm", Cell::Lstm)],
        Some(other) => return Err(format!("--model {other}: rnn, gru or lstm").into()),
    };
    let mut series = Csv::open(in_repository("series/sunspots.csv"))?.numbers(&["activity"])?;
    let scale = Standardizer::fit(&series[..TRAINED], 1);
    scale.apply(&mut series);
    let train = SeriesWindows::new(series[..TRAINED].to_vec(), 1, WINDOW, 1);
    let test = whole(SeriesWindows::new(series[TRAINED - WINDOW..].to_vec(), 1, WINDOW, 1))?;
    let truth = test.get::<f32>("y").unwrap_or_default();

    let mut results = Vec::new();
    let mut chart = Chart::new("Sunspots, one year ahead", "year", "activity, standardized");
    let years = || (1940..).map(f64::from);
    let of = |values: &[f32]| years().zip(values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    chart = chart.curve("truth", of(truth));
    for (name, cell) in cells {
        let m = ModuleBuilder::new("forecast");
        let (rnn, out) = (Recurrent::new(&m, "rnn", cell, 1, HIDDEN), Dense::new(&m, "out", HIDDEN, 1));
        // The last state alone tells the next year.
        fn next<'f>(rnn: &Recurrent, out: &Dense, x: Tensor<'f>) -> Tensor<'f> {
            out.apply(rnn.run(x, &Run::default()).state.hidden[0]).reshape(shape!["B", 1, 1])
        }
        m.function("predict", |f| {
            f.output("y", next(&rnn, &out, f.input("x", DType::F32, shape!["B", WINDOW, 1])));
        });
        train_step(&m, "train_step", &Adam::new(5e-3), |f| {
            let y = next(&rnn, &out, f.input("x", DType::F32, shape!["B", WINDOW, 1]));
            mse(y, f.input("y", DType::F32, shape!["B", 1, 1]))
        });
        let module = m.build()?;
        let mut last = Vec::new();
        let error = over_seeds(name, args.seeds.unwrap_or(5), |seed| {
            let mut session = Session::new(module.clone(), seed)?;
            let mut loader = Loader::new(train.clone(), 24).shuffled(seed);
            Trainer::new(args.epochs.unwrap_or(100)).run(&mut session, &mut loader)?;
            last = session.run("predict", &[test.inputs()[0]])?.get::<f32>("y")?.to_vec();
            let mut errors = Regression::default();
            errors.add(&last, truth);
            Ok(errors.mse())
        })?;
        chart = chart.curve(name, of(&last));
        results.push(format!("{name} {error:.4}"));
    }
    let picture = args.picture("forecast.svg");
    chart.save(&picture)?;
    println!("forecasts in {}", picture.display());
    println!("test mean squared error, in units of the variance: {}", results.join(", "));
    Ok(())
}
