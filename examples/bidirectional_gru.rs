//! A bidirectional GRU reads digits row by row, as sequences of different lengths: rows below the last stroke are left out.
//!
//! `cargo run --release --example bidirectional_gru`

use common::{Args, Outcome, over_seeds};
use graphc::data::{Dataset, Loader, Table};
use graphc::metrics;
use graphc::nn::{Cell, Dense, Recurrent, RecurrentOptions, Run};
use graphc::optim::{Adam, Clip, Clipped, train_step};
use graphc::trainer::Trainer;
use graphc::{DType, FunctionBuilder, ModuleBuilder, Session, Tensor, cross_entropy, shape};
use std::process::ExitCode;

const HIDDEN: usize = 64;

/// Images with the number of rows up to the last stroke.
fn sequences(data: &Dataset) -> Result<Table, Box<dyn std::error::Error>> {
    let &[height, width] = data.dims() else { return Err("the images are not grey".into()) };
    let last = |image: &[f32]| image.iter().rposition(|&p| p > 0.0).map_or(1, |i| i / width + 1);
    let lengths: Vec<i32> = (0..data.len()).map(|i| last(data.row(i)) as i32).collect();
    let table = Table::new().with("x", &[height, width], data.features().to_vec())?;
    Ok(table.with("lengths", &[], lengths)?.with("y", &[], data.labels().to_vec())?)
}

struct Model {
    gru: Recurrent,
    out: Dense,
    steps: usize,
    width: usize,
}

impl Model {
    /// From the last states of both directions.
    fn logits<'f>(&self, f: &'f FunctionBuilder) -> Tensor<'f> {
        let x = f.input("x", DType::F32, shape!["B", self.steps, self.width]);
        let lengths = Some(f.input("lengths", DType::I32, shape!["B"]));
        let state = self.gru.run(x, &Run { lengths, ..Run::default() }).state;
        self.out.apply(f.concatenate(&state.hidden, 1))
    }
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    let &[steps, width] = train.dims() else { return Err("the images are not grey".into()) };
    let (train, test) = (sequences(&train)?, sequences(&test)?);

    let m = ModuleBuilder::new("sequences");
    let options = RecurrentOptions { bidirectional: true, ..RecurrentOptions::default() };
    let gru = Recurrent::with(&m, "gru", Cell::Gru, width, HIDDEN, &options);
    let out = Dense::new(&m, "out", 2 * HIDDEN, 10);
    let model = Model { gru, out, steps, width };
    m.function("predict", |f| f.output("logits", model.logits(f)));
    train_step(&m, "train_step", &Clipped::new(Adam::new(3e-3), Clip::GlobalNorm(1.0)), |f| {
        cross_entropy(model.logits(f), f.input("y", DType::I32, shape!["B"]))
    });
    let module = m.build()?;
    let accuracy = over_seeds("test accuracy", args.seeds.unwrap_or(3), |seed| {
        let mut session = Session::new(module.clone(), seed)?;
        let mut loader = Loader::new(train.clone(), 50).shuffled(seed);
        let mut trainer = Trainer::new(args.epochs.unwrap_or(30)).validate(|session| {
            let outputs = session.run("predict", &test.inputs()[..2])?;
            let labels = test.get("y").unwrap_or_default();
            Ok(vec![("accuracy", metrics::accuracy(outputs.get("logits")?, 10, labels))])
        });
        let report = trainer.run(&mut session, &mut loader)?;
        if seed == 1 {
            println!("{report}");
        }
        Ok(report.last("accuracy"))
    })?;
    println!("test accuracy {accuracy:.4}");
    Ok(())
}
