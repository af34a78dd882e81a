//! Training runs: epochs over a loader with validation, early stopping, checkpoints that resume bit by bit, and logs.

mod checkpoints;
mod interrupt;
mod log;
mod report;
mod tensorboard;

pub use checkpoints::{Checkpoints, Lock, Restored, read};
pub use log::Log;
pub use report::Report;

use crate::checkpoint::CheckpointError;
use crate::data::{Batch, DataError, Loader};
use crate::progress::Progress;
use crate::schedule::{ReduceOnPlateau, Schedule};
use crate::session::{Session, SessionError};
use graphc_runtime::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// Why training stopped with an error. The state is that after the last sound step, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A function cannot be compiled or run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A log cannot be written.
    #[error("{}: {source}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The loss, or what it is made of, is not finite.
    #[error("epoch {epoch}, step {step}: {what}; {kept}")]
    NotFinite {
        /// The epoch, from 1.
        epoch: u64,
        /// The step, from 1.
        step: u64,
        /// The first tensor that is not finite.
        what: String,
        /// Where sound weights are.
        kept: String,
    },
    /// A measure that training depends on is not among those of the validation.
    #[error("the validation gives no measure `{name}`; it gives {}", known.join(", "))]
    UnknownMetric {
        /// The measure.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
}

/// What one epoch gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Steps done at its end.
    pub step: u64,
    /// Mean loss over its rows.
    pub loss: f64,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Number of its rows.
    pub rows: u64,
    /// Time of its steps.
    pub seconds: f64,
    /// Measures of the validation.
    pub metrics: BTreeMap<String, f64>,
}

impl EpochRecord {
    /// Rows per second.
    pub fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.seconds
    }
}

/// How far a run is: all that a checkpoint holds beside the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Epochs done.
    pub epoch: u64,
    /// Batches of the next epoch done.
    pub batch: usize,
    /// Steps done.
    pub step: u64,
    /// Sum of the losses of these batches, each times its rows.
    pub loss_sum: f64,
    /// Their rows.
    pub rows: u64,
    /// Time of their steps.
    pub seconds: f64,
    /// Epochs done.
    pub history: Vec<EpochRecord>,
    /// The best measure so far.
    pub best: Option<f64>,
    /// Epochs since then.
    pub since_best: u64,
    /// State of a schedule that looks at measures.
    pub plateau: Option<ReduceOnPlateau>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All epochs are done.
    Finished,
    /// The measure did not improve any more.
    Early,
    /// A callback wanted it.
    Callback,
    /// Ctrl-C.
    Interrupted,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Stop.
    Stop,
}

/// Looks at a run.
///
/// ```
/// # use graphc_train::{session::Session, trainer::{Callback, Control, Trainer}};
/// /// Stops when the loss is small enough.
/// struct Until(f64);
///
/// impl Callback for Until {
///     fn on_step(&mut self, _: u64, loss: f64, _: &Session) -> Control {
///         if loss < self.0 { Control::Stop } else { Control::Continue }
///     }
/// }
/// let trainer = Trainer::new(10).callback(Until(0.01));
/// ```
pub trait Callback {
    /// After each step, with its loss.
    fn on_step(&mut self, step: u64, loss: f64, session: &Session) -> Control {
        let _ = (step, loss, session);
        Control::Continue
    }

    /// After each epoch.
    fn on_epoch(&mut self, record: &EpochRecord, session: &mut Session) -> Control {
        let _ = (record, session);
        Control::Continue
    }
}

/// Which measure tells how good a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Best {
    /// The one by this name; larger is better.
    Largest(String),
    /// The one by this name; smaller is better. `loss` is the loss of the epoch, unless the validation gives one.
    Smallest(String),
}

/// Measures of a model, by name.
type Validation<'a> = Box<dyn FnMut(&mut Session) -> Result<Vec<(&'static str, f64)>, TrainError> + 'a>;

/// A training run.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, composite::mse, shape};
/// use graphc_train::data::{Loader, Table};
/// use graphc_train::{nn::Dense, optim::{Sgd, train_step}, session::Session, trainer::Trainer};
///
/// let m = ModuleBuilder::new("line");
/// let dense = Dense::new(&m, "dense", 1, 1);
/// train_step(&m, "train_step", &Sgd::new(0.1), |f| {
///     let x = f.input("x", DType::F32, shape!["B", 1]);
///     mse(dense.apply(x), f.input("y", DType::F32, shape!["B", 1]))
/// });
/// let x: Vec<f32> = (0..20).map(|i| i as f32 / 10.0).collect();
/// let y: Vec<f32> = x.iter().map(|x| 3.0 * x + 1.0).collect();
/// let mut loader = Loader::new(Table::new().with("x", &[1], x)?.with("y", &[1], y)?, 4).shuffled(1);
/// let mut session = Session::new(m.build()?, 1)?;
/// let report = Trainer::new(60).quiet().run(&mut session, &mut loader)?;
/// assert!(report.last_loss() < 1e-3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Trainer<'a> {
    epochs: u64,
    function: String,
    parameters: Vec<String>,
    schedule: Option<Box<dyn Schedule + 'a>>,
    plateau: Option<ReduceOnPlateau>,
    validation: Option<Validation<'a>>,
    best: Option<Best>,
    patience: Option<u64>,
    checkpoints: Option<Checkpoints>,
    logs: Vec<Log>,
    callbacks: Vec<Box<dyn Callback + 'a>>,
    quiet: bool,
    interruptible: bool,
}

impl<'a> Trainer<'a> {
    /// Runs the function `train_step` for so many epochs.
    pub fn new(epochs: u64) -> Self {
        Self {
            epochs,
            function: "train_step".to_owned(),
            parameters: Vec::new(),
            schedule: None,
            plateau: None,
            validation: None,
            best: None,
            patience: None,
            checkpoints: None,
            logs: Vec::new(),
            callbacks: Vec::new(),
            quiet: false,
            interruptible: false,
        }
    }

    /// Runs another function. Its output `loss: f32[]` is the mean over the rows of a batch.
    pub fn function(self, name: &str) -> Self {
        Self { function: name.to_owned(), ..self }
    }

    /// Names the parameters of a guarded step, as [`train_step_with`](crate::optim::train_step_with) gives them, for errors.
    pub fn parameters(self, names: Vec<String>) -> Self {
        Self { parameters: names, ..self }
    }

    /// Sets the learning rate before each step.
    pub fn schedule(self, schedule: impl Schedule + 'a) -> Self {
        Self { schedule: Some(Box::new(schedule)), ..self }
    }

    /// Scales the learning rate of the schedule, which there must be, by what the best measure ([`Trainer::best`]; else the loss) did.
    pub fn reduce_on_plateau(self, plateau: ReduceOnPlateau) -> Self {
        Self { plateau: Some(plateau), ..self }
    }

    /// Measures the model after each epoch.
    pub fn validate(
        self,
        validation: impl FnMut(&mut Session) -> Result<Vec<(&'static str, f64)>, TrainError> + 'a,
    ) -> Self {
        Self { validation: Some(Box::new(validation)), ..self }
    }

    /// The measure that tells which epoch was best. With checkpoints, the best one is kept.
    pub fn best(self, best: Best) -> Self {
        Self { best: Some(best), ..self }
    }

    /// Stops once the best measure is `patience` epochs old; with checkpoints, the state is then that of the best.
    pub fn stop_early(self, patience: u64) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// Writes checkpoints, and goes on from the newest if there is one.
    pub fn checkpoints(self, checkpoints: Checkpoints) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
    }

    /// Writes a log.
    pub fn log(mut self, log: Log) -> Self {
        self.logs.push(log);
        self
    }

    /// Adds a callback.
    pub fn callback(mut self, callback: impl Callback + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Shows no progress.
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// Ctrl-C finishes the step, saves a checkpoint and ends the run; a second one ends the process.
    pub fn interruptible(self) -> Self {
        Self { interruptible: true, ..self }
    }

    /// Trains.
    ///
    /// # Errors
    /// Any [`TrainError`].
    pub fn run(&mut self, session: &mut Session, loader: &mut Loader) -> Result<Report, TrainError> {
        let interrupted = self.interruptible.then(interrupt::flag);
        let mut t = Training { plateau: self.plateau, ..Training::default() };
        let mut report = Report::default();
        let _lock = self.checkpoints.as_ref().map(Checkpoints::lock).transpose()?;
        if let Some(checkpoints) = &self.checkpoints
            && let Some(restored) = checkpoints.restore(session.state_mut())?
        {
            t = restored.training;
            report.resumed_from = Some(restored.path);
            report.damaged = restored.damaged.iter().map(ToString::to_string).collect();
        }
        let mut progress = if self.quiet {
            Progress::hidden()
        } else {
            Progress::new(self.epochs as usize, loader.per_epoch())
        };
        let mut stopped = Stopped::Finished;
        while t.epoch < self.epochs && !self.exhausted(&t) {
            loader.seek(t.epoch, t.batch);
            let mut stop = false;
            let mut lr = None;
            let mut clock = Instant::now();
            while let Some(batch) = loader.next_batch()? {
                if let Some(schedule) = &self.schedule {
                    let scale = t.plateau.map_or(1.0, |p| p.scale());
                    lr = Some(schedule.learning_rate(t.step) * scale);
                    session.set_learning_rate(schedule.learning_rate(t.step) as f32 * scale as f32)?;
                }
                if let Some(what) = bad_input(batch) {
                    return Err(not_finite(&t, what, "the state is that before the step".to_owned()));
                }
                let outputs = session.run(&self.function, &batch.inputs())?;
                let loss = f64::from(outputs.scalar::<f32>("loss")?);
                let flags = outputs.get::<bool>("finite").ok().map(<[bool]>::to_vec);
                let sound = loss.is_finite() && flags.as_ref().is_none_or(|f| f.iter().all(|&f| f));
                if !sound {
                    return Err(self.not_sound(&t, session, flags));
                }
                let rows = batch.rows();
                t.loss_sum += loss * rows as f64;
                t.rows += rows as u64;
                (t.batch, t.step) = (t.batch + 1, t.step + 1);
                progress.batch(rows, loss);
                for callback in &mut self.callbacks {
                    stop |= callback.on_step(t.step, loss, session) == Control::Stop;
                }
                let now = Instant::now();
                t.seconds += (now - clock).as_secs_f64();
                clock = now;
                let asked = interrupted.is_some_and(interrupt::is_set);
                if let Some(checkpoints) = &self.checkpoints
                    && (checkpoints.due(t.step) || asked || stop)
                {
                    checkpoints.save(session.state(), &t)?;
                }
                if asked || stop {
                    stopped = if asked { Stopped::Interrupted } else { Stopped::Callback };
                    break;
                }
            }
            if stopped != Stopped::Finished {
                break;
            }
            let record = self.end_epoch(&mut t, session, lr)?;
            let measures: Vec<String> = record.metrics.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
            progress.epoch(&measures.join(", "));
            for callback in &mut self.callbacks {
                stop |= callback.on_epoch(&record, session) == Control::Stop;
            }
            if let Some(checkpoints) = &self.checkpoints {
                checkpoints.save(session.state(), &t)?;
            }
            self.logs.iter().try_for_each(|log| log.write(&t.history))?;
            if stop {
                stopped = Stopped::Callback;
                break;
            }
        }
        if stopped == Stopped::Finished && t.epoch < self.epochs {
            stopped = Stopped::Early;
            if let Some(checkpoints) = &self.checkpoints {
                read(session.state_mut(), &checkpoints.best())?;
            }
        }
        progress.finish();
        report.stopped = stopped;
        report.history = t.history;
        report.best = t.best;
        report.steps = t.step;
        Ok(report)
    }

    /// Whether the best measure is too old.
    fn exhausted(&self, t: &Training) -> bool {
        self.patience.is_some_and(|patience| t.since_best >= patience && t.best.is_some())
    }

    /// Validates, and closes the record of an epoch.
    fn end_epoch(
        &mut self,
        t: &mut Training,
        session: &mut Session,
        lr: Option<f64>,
    ) -> Result<EpochRecord, TrainError> {
        let metrics = match &mut self.validation {
            Some(validate) => validate(session)?.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
            None => BTreeMap::new(),
        };
        let learning_rate = match lr {
            Some(lr) => lr,
            None => f64::from(session.learning_rate()?),
        };
        let record = EpochRecord {
            epoch: t.epoch + 1,
            step: t.step,
            loss: t.loss_sum / t.rows as f64,
            learning_rate,
            rows: t.rows,
            seconds: t.seconds,
            metrics,
        };
        (t.epoch, t.batch, t.loss_sum, t.rows, t.seconds) = (t.epoch + 1, 0, 0.0, 0, 0.0);
        t.history.push(record.clone());
        if self.best.is_some() || self.patience.is_some() || t.plateau.is_some() {
            let best = self.best.clone().unwrap_or_else(|| Best::Smallest("loss".to_owned()));
            let value = measure(&best, &record)?;
            // As something to be made small.
            let cost = if matches!(best, Best::Largest(_)) { -value } else { value };
            let old = t.best.map(|b| if matches!(best, Best::Largest(_)) { -b } else { b });
            if old.is_none_or(|old| cost < old) && !value.is_nan() {
                (t.best, t.since_best) = (Some(value), 0);
                if let Some(checkpoints) = &self.checkpoints {
                    checkpoints.save_best(session.state(), t)?;
                }
            } else {
                t.since_best += 1;
            }
            if let Some(plateau) = &mut t.plateau {
                plateau.update(cost);
            }
        }
        Ok(record)
    }

    /// Finds the first tensor that is not finite after a step: the gradients of one that is guarded, else the state.
    fn not_sound(&self, t: &Training, session: &Session, flags: Option<Vec<bool>>) -> TrainError {
        let gradient = |flags: &Vec<bool>| {
            let at = flags.iter().position(|&f| !f)?.checked_sub(1)?;
            let name = self.parameters.get(at).map_or(format!("parameter {at}"), |n| format!("`{n}`"));
            Some(format!("the gradient of {name} is not finite"))
        };
        let state = || {
            let (entry, at) = session.state().iter().find_map(|(e, v)| Some((e, first_not_finite(v)?)))?;
            Some(format!("the loss is not finite, nor is `{}` at element {at}", entry.name))
        };
        let what = flags.as_ref().map_or_else(state, gradient);
        let kept = match &self.checkpoints {
            _ if flags.is_some() => "the state is that before the step".to_owned(),
            Some(checkpoints) => format!("the newest checkpoint is in {}", checkpoints.dir().display()),
            None => "the state is not sound any more: a guarded step would have kept it".to_owned(),
        };
        not_finite(t, what.unwrap_or_else(|| "the loss is not finite".to_owned()), kept)
    }
}

/// The error for the step that comes after `t`.
fn not_finite(t: &Training, what: String, kept: String) -> TrainError {
    TrainError::NotFinite { epoch: t.epoch + 1, step: t.step + 1, what, kept }
}

/// The first column of a batch that is not finite.
fn bad_input(batch: &Batch) -> Option<String> {
    batch.inputs().into_iter().find_map(|(name, value)| {
        let row = first_not_finite(value)? / (value.len() / batch.rows()).max(1);
        Some(format!("input `{name}` is not finite in row {row} of the batch"))
    })
}

fn first_not_finite(value: Value<'_>) -> Option<usize> {
    match value {
        Value::F32(v) => v.iter().position(|x| !x.is_finite()),
        Value::F64(v) => v.iter().position(|x| !x.is_finite()),
        _ => None,
    }
}

/// The value of the measure.
fn measure(best: &Best, record: &EpochRecord) -> Result<f64, TrainError> {
    let (Best::Largest(name) | Best::Smallest(name)) = best;
    match record.metrics.get(name) {
        Some(&value) => Ok(value),
        None if name == "loss" => Ok(record.loss),
        None => {
            let known = record.metrics.keys().cloned().collect();
            Err(TrainError::UnknownMetric { name: name.clone(), known })
        }
    }
}
