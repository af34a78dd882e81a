//! What is written about a run, epoch by epoch. Files are written anew from the whole history after each epoch, so those of a run that
//! was resumed are those of one that was not, save for its times.

use super::{EpochRecord, TrainError};
use crate::checkpoint::replace;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A file about the epochs of a run.
///
/// ```
/// # use graphc_train::trainer::{Log, Trainer};
/// let trainer = Trainer::new(10).log(Log::Csv("run/log.csv".into())).log(Log::TensorBoard("run/board".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// Comma-separated values, with a header.
    Csv(PathBuf),
    /// One JSON object per line.
    JsonLines(PathBuf),
    /// A folder with an event file of TensorBoard.
    TensorBoard(PathBuf),
}

impl Log {
    /// Writes the file.
    ///
    /// # Errors
    /// [`TrainError::Log`] naming the file.
    pub fn write(&self, history: &[EpochRecord]) -> Result<(), TrainError> {
        let (path, content) = match self {
            Self::Csv(path) => (path.clone(), csv(history).into_bytes()),
            Self::JsonLines(path) => (path.clone(), json_lines(history)?.into_bytes()),
            Self::TensorBoard(dir) => (dir.join(EVENTS), super::tensorboard::events(history)),
        };
        let io = |source| TrainError::Log { path: path.clone(), source };
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        replace(Path::new(&path), &content).map_err(io)
    }
}

/// Name of the event file: one that TensorBoard looks for.
const EVENTS: &str = "events.out.tfevents.0.graphc";

fn csv(history: &[EpochRecord]) -> String {
    let mut out = "epoch,step,loss,learning_rate,seconds,rows_per_second".to_owned();
    let names: Vec<&String> = history.first().map_or(Vec::new(), |r| r.metrics.keys().collect());
    names.iter().for_each(|name| out.extend([",", name]));
    out.push('\n');
    for r in history {
        let rate = r.rows_per_second();
        let _ =
            write!(out, "{},{},{},{},{:.3},{rate:.0}", r.epoch, r.step, r.loss, r.learning_rate, r.seconds);
        for name in &names {
            let _ = write!(out, ",{}", r.metrics.get(*name).copied().unwrap_or(f64::NAN));
        }
        out.push('\n');
    }
    out
}

fn json_lines(history: &[EpochRecord]) -> Result<String, TrainError> {
    let mut out = String::new();
    for record in history {
        out += &serde_json::to_string(record)
            .map_err(|e| TrainError::Log { path: PathBuf::from("JSON"), source: e.into() })?;
        out.push('\n');
    }
    Ok(out)
}
