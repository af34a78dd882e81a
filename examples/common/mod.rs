//! What the examples share: arguments, data, and the loop over seeds.

pub mod text;

use clap::Parser;
use graphc::data::{Dataset, Loader, Source, Standardizer, Table, load_directory};
use graphc::nn::Layer;
use graphc::optim::{Optimizer, train_step};
use graphc::trainer::{Report, TrainError, Trainer};
use graphc::{DType, Module, ModuleBuilder, Session, Shape, loss, metrics};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What an example ends with.
pub type Outcome = Result<(), Box<dyn Error>>;

/// Runs an example with the arguments of the process, and says what went wrong.
pub fn report(run: fn(&Args) -> Outcome) -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Trains a model on data in the repository.
#[derive(Parser, Debug)]
pub struct Args {
    /// Passes over the training data.
    #[arg(long)]
    pub epochs: Option<u64>,
    /// Number of runs, each with another seed.
    #[arg(long)]
    pub seeds: Option<u64>,
    /// Folder for pictures.
    #[arg(long, default_value = "target/pictures")]
    pub out: PathBuf,
    /// Folder with MNIST files instead of the digits in the repository, where an example reads digits.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// What to train, where an example has a choice.
    #[arg(long)]
    pub model: Option<String>,
}

impl Args {
    /// A picture in the folder for pictures.
    pub fn picture(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// The digits: images for training and for tests.
    pub fn digits(&self) -> Result<(Dataset, Dataset), Box<dyn Error>> {
        let folder = self.data.clone().unwrap_or_else(|| in_repository("digits"));
        Ok(load_directory(folder)?)
    }
}

/// A file that comes with the repository.
pub fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(name)
}

/// Declares `predict`, from `x: f32[B, dims..]` to `logits`, and `train_step` with the cross entropy of labels `y: i32[B]`.
pub fn classifier(
    optimizer: &dyn Optimizer,
    dims: &[usize],
    model: impl FnOnce(&ModuleBuilder) -> Box<dyn Layer>,
) -> Result<Module, Box<dyn Error>> {
    let m = ModuleBuilder::new("classifier");
    let net = model(&m);
    let batch: Shape = [graphc::Dim::from("B")].into_iter().chain(dims.iter().map(|&d| d.into())).collect();
    m.function("predict", |f| f.output("logits", net.apply(f.input("x", DType::F32, &batch))));
    train_step(&m, "train_step", optimizer, |f| {
        let logits = net.train(f.input("x", DType::F32, &batch));
        loss::cross_entropy(logits, f.input("y", DType::I32, graphc::shape!["B"]))
    });
    Ok(m.build()?)
}

/// Share of the rows of a table that `predict` gives the right label.
pub fn accuracy(session: &mut Session, table: &Table) -> Result<f64, TrainError> {
    let labels = table.get::<i32>("y").unwrap_or_default();
    let inputs: Vec<_> = table.inputs().into_iter().filter(|(name, _)| *name == "x").collect();
    let outputs = session.run("predict", &inputs)?;
    let logits: &[f32] = outputs.get("logits")?;
    Ok(metrics::accuracy(logits, logits.len() / labels.len().max(1), labels))
}

/// Trains a classifier, and gives the report, with the measure `accuracy` on `test`.
pub fn fit(
    module: Module,
    train: &Table,
    test: &Table,
    batch: usize,
    epochs: u64,
    seed: u64,
) -> Result<(Session, Report), Box<dyn Error>> {
    let mut session = Session::new(module, seed)?;
    let mut loader = Loader::new(train.clone(), batch).shuffled(seed);
    let mut trainer = Trainer::new(epochs).validate(|s| Ok(vec![("accuracy", accuracy(s, test)?)]));
    let report = trainer.run(&mut session, &mut loader)?;
    drop(trainer);
    Ok((session, report))
}

/// Mean, least and greatest of what runs with the seeds 1, 2, ... give; prints each.
pub fn over_seeds(
    name: &str,
    seeds: u64,
    mut run: impl FnMut(u64) -> Result<f64, Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let mut values = Vec::new();
    for seed in 1..=seeds {
        let value = run(seed)?;
        println!("{name}, seed {seed}: {value:.4}");
        values.push(value);
    }
    Ok(values.iter().sum::<f64>() / values.len() as f64)
}

/// Features, and the rows they are of.
pub type Part = (Vec<f32>, graphc::data::Csv);

/// A table of `data/tabular`, as training and test part: features standardized on the training part, `x: f32[columns]`, and the last
/// column as text.
pub fn tabular(name: &str) -> Result<[Part; 2], Box<dyn Error>> {
    let file = graphc::data::Csv::open(in_repository("tabular").join(name))?;
    let target = file.header().last().cloned().unwrap_or_default();
    let columns = file.except(&["split", &target])?;
    let parts = [file.filter("split", "train")?, file.filter("split", "test")?];
    let mut x = [parts[0].numbers(&columns)?, parts[1].numbers(&columns)?];
    let standardizer = Standardizer::fit(&x[0], columns.len());
    x.iter_mut().for_each(|x| standardizer.apply(x));
    let [train, test] = parts;
    let [x_train, x_test] = x;
    Ok([(x_train, train), (x_test, test)])
}

/// All rows of a source, as one batch.
pub fn whole(source: impl Source + 'static) -> Result<Table, Box<dyn Error>> {
    let n = source.len();
    let fields = source.fields();
    let mut loader = Loader::new(source, n.max(1));
    let batch = loader.next_batch()?.ok_or("there is no data")?;
    let mut table = Table::new();
    for field in fields {
        table = match field.dtype {
            DType::I32 => table.with(
                &field.name,
                &field.dims,
                batch.get::<i32>(&field.name).unwrap_or_default().to_vec(),
            )?,
            _ => table.with(
                &field.name,
                &field.dims,
                batch.get::<f32>(&field.name).unwrap_or_default().to_vec(),
            )?,
        };
    }
    Ok(table)
}
