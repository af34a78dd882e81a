//! `graphc train`: trains a module on data in files.

use super::{Failure, Out, data, grad, load};
use clap::ValueEnum;
use graphc::optim::{Adam, Optimizer, RmsProp, Sgd, train_step_of};
use graphc::trainer::{Callback, Checkpoints, Control, EpochRecord, Stopped, Trainer};
use graphc::{CompileOptions, Module, ModuleBuilder, Session};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// How a function without updates is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Rule {
    /// Gradient descent with a momentum of 0.9
    Sgd,
    /// Adam
    Adam,
    /// RMSprop
    Rmsprop,
}

#[derive(clap::Args)]
#[command(after_help = "\
The function has an output `loss: f32[]`. If it updates state, as that of `optim::train_step` does, it is run as it is;
else its first output is differentiated and the parameters follow the gradient as --optimizer says.

Examples:
  graphc train model.gir --data x=images.idx,y=labels.idx --epochs 10 --checkpoint run/
  graphc train model.gir --data x=images.idx,y=labels.idx --epochs 20 --checkpoint run/ --resume
  graphc train line.gir --fn loss --data x=table.csv:a+b,y=table.csv:c --optimizer sgd --lr 0.1")]
pub(super) struct Args {
    /// A module in the text form
    file: PathBuf,
    #[command(flatten)]
    data: data::Args,
    /// A function (`train_step`, or else the first whose first output is a float scalar)
    #[arg(long = "fn", value_name = "NAME")]
    function: Option<String>,
    /// Epochs in all
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    /// Seed of the initial state and of the order of rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to train a function that does not say it itself (adam unless given)
    #[arg(long, value_enum)]
    optimizer: Option<Rule>,
    /// Learning rate (that of the module; 0.001, for sgd 0.01, where the tool adds the optimizer)
    #[arg(long)]
    lr: Option<f64>,
    /// Writes checkpoints to this folder, one after each epoch, the last three kept
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Goes on from the newest checkpoint of the folder
    #[arg(long, requires = "checkpoint")]
    resume: bool,
    /// Threads (all of the machine unless given)
    #[arg(long)]
    threads: Option<usize>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let module = load::module(&args.file)?;
    let asked = args.function.as_deref().or(module.function("train_step").map(|_| "train_step"));
    let name = grad::differentiable(&module, asked)?;
    let (module, step) = trainable(args, module, &name)?;
    let f = module.function(&step).cloned().unwrap_or_default();
    let mut loader = args.data.loader(&f)?.shuffled(args.seed);
    let mut session = Session::with(module, args.seed, load::pool(args.threads)?, CompileOptions::default())
        .map_err(Failure::other)?;
    if let Some(lr) = args.lr {
        session.set_learning_rate(lr as f32).map_err(Failure::other)?;
    }
    let mut trainer = Trainer::new(args.epochs).function(&step).interruptible();
    if let Some(dir) = &args.checkpoint {
        let any = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
        if any && !args.resume {
            let dir = dir.display();
            return Err(Failure::Usage(format!(
                "{dir} is not empty: go on with --resume, or name another folder"
            )));
        }
        trainer = trainer.checkpoints(Checkpoints::new(dir));
    }
    let report =
        trainer.callback(Epochs(&mut *out)).run(&mut session, &mut loader).map_err(Failure::other)?;
    if report.stopped == Stopped::Interrupted {
        return Err(Failure::Other(format!("interrupted after {} steps", report.steps)));
    }
    if out.json() {
        return Ok(());
    }
    let place =
        args.checkpoint.as_ref().map_or(String::new(), |d| format!(", checkpoints in {}", d.display()));
    Ok(writeln!(out, "{} steps{place}", report.steps)?)
}

/// The module with a function that trains, and its name.
fn trainable(args: &Args, module: Module, name: &str) -> Result<(Module, String), Failure> {
    if module.function(name).is_some_and(|f| !f.updates.is_empty()) {
        if args.optimizer.is_some() {
            let message = format!(
                "function `{name}` says itself how it trains: `--optimizer` is for one that does not"
            );
            return Err(Failure::Usage(message));
        }
        return Ok((module, name.to_owned()));
    }
    let lr = |default: f64| args.lr.unwrap_or(default);
    let optimizer: Box<dyn Optimizer> = match args.optimizer.unwrap_or(Rule::Adam) {
        Rule::Sgd => Box::new(Sgd::new(lr(0.01)).momentum(0.9)),
        Rule::Adam => Box::new(Adam::new(lr(0.001))),
        Rule::Rmsprop => Box::new(RmsProp::new(lr(0.001))),
    };
    let m = ModuleBuilder::from_module(module);
    let step = format!("{name}.step");
    train_step_of(&m, &step, name, &*optimizer);
    Ok((m.build().map_err(Failure::other)?, step))
}

/// Prints each epoch as it ends.
struct Epochs<'a>(&'a mut Out);

impl Callback for Epochs<'_> {
    fn on_epoch(&mut self, r: &EpochRecord, _: &mut Session) -> Control {
        let out = &mut self.0;
        let written = if out.json() {
            out.value(&json!(r))
        } else {
            let (epoch, step, loss, rate) = (r.epoch, r.step, r.loss, r.rows_per_second());
            writeln!(out, "epoch {epoch}: step {step}, loss {loss:.6}, {rate:.0} rows/s")
                .map_err(Failure::from)
        };
        // Training goes on without a reader; a failure is seen when the rest is written.
        let _ = written.and_then(|()| Ok(out.flush()?));
        Control::Continue
    }
}
