//! The checkpoints of a training run.

use super::Training;
use crate::checkpoint::{self, CheckpointError, TEMPORARY};
use graphc_runtime::State;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// A folder of checkpoints. Each holds the whole state (parameters, optimizer, random numbers) and how far training is, in one
/// safetensors file `step-<number>.safetensors`, which is written as a whole or not at all; `best.safetensors` is the one with the
/// best measure.
///
/// ```
/// # use graphc_train::trainer::{Checkpoints, Trainer};
/// let checkpoints = Checkpoints::new("run/checkpoints").every(500).keep_last(2);
/// let trainer = Trainer::new(10).checkpoints(checkpoints);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    dir: PathBuf,
    every: Option<u64>,
    keep_last: usize,
}

/// Keeps other runs out of a folder of checkpoints.
#[derive(Debug)]
pub struct Lock {
    /// The system gives up the lock when it is closed.
    _file: File,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub struct Restored {
    /// How far training was.
    pub training: Training,
    /// The file.
    pub path: PathBuf,
    /// Newer files that are damaged.
    pub damaged: Vec<CheckpointError>,
}

impl Checkpoints {
    /// In this folder, which is made if need be: one after each epoch, the last three kept.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self { dir: dir.as_ref().into(), every: None, keep_last: 3 }
    }

    /// One after each `steps` steps as well.
    pub fn every(self, steps: u64) -> Self {
        Self { every: Some(steps), ..self }
    }

    /// Keeps the last `n`, at least one.
    pub fn keep_last(self, n: usize) -> Self {
        Self { keep_last: n.max(1), ..self }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether one is due after this many steps within an epoch.
    pub(super) fn due(&self, step: u64) -> bool {
        self.every.is_some_and(|every| every > 0 && step.is_multiple_of(every))
    }

    /// Where the best one is.
    pub fn best(&self) -> PathBuf {
        self.dir.join("best.safetensors")
    }

    /// Keeps other runs out of the folder as long as the result lives, be it until this process is killed. Removes what
    /// interrupted runs left half written. [`Trainer::run`](super::Trainer::run) does this.
    ///
    /// # Errors
    /// [`CheckpointError::Locked`] if another run is there; [`CheckpointError::Io`].
    pub fn lock(&self) -> Result<Lock, CheckpointError> {
        let path = self.dir.join(".lock");
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        std::fs::create_dir_all(&self.dir).map_err(io)?;
        let file = File::create(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CheckpointError::Locked { dir: self.dir.clone() }),
            // Some file systems have no locks.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        for path in self.files()? {
            if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMPORARY)) {
                let _ = std::fs::remove_file(&path);
            }
        }
        Ok(Lock { _file: file })
    }

    /// Writes one, then removes those that are too old.
    ///
    /// # Errors
    /// [`CheckpointError`], such as a full disk; those written before are as they were.
    pub fn save(&self, state: &State, training: &Training) -> Result<PathBuf, CheckpointError> {
        let path = self.dir.join(format!("step-{:010}.safetensors", training.step));
        self.write(state, training, &path)?;
        for old in self.list()?.into_iter().rev().skip(self.keep_last) {
            // It may be gone already; one that stays does no harm.
            let _ = std::fs::remove_file(old);
        }
        Ok(path)
    }

    /// Writes the best one.
    ///
    /// # Errors
    /// As [`Checkpoints::save`].
    pub fn save_best(&self, state: &State, training: &Training) -> Result<(), CheckpointError> {
        self.write(state, training, &self.best())
    }

    fn write(&self, state: &State, training: &Training, path: &Path) -> Result<(), CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.into(), source };
        std::fs::create_dir_all(&self.dir).map_err(io)?;
        let note = serde_json::to_string(training).map_err(|e| io(e.into()))?;
        checkpoint::save_noted(state, Some(&note), path)
    }

    /// Reads the newest one that is sound, if there is any.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] if it is one of another model; [`CheckpointError::Io`]. If all are damaged, what is wrong with
    /// the newest. The state is then as it was.
    pub fn restore(&self, state: &mut State) -> Result<Option<Restored>, CheckpointError> {
        let mut damaged = Vec::new();
        for path in self.list()?.into_iter().rev() {
            match read(state, &path) {
                Ok(training) => return Ok(Some(Restored { training, path, damaged })),
                Err(
                    error @ (CheckpointError::Format { .. }
                    | CheckpointError::Damaged { .. }
                    | CheckpointError::Note { .. }),
                ) => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        if damaged.is_empty() { Ok(None) } else { Err(damaged.remove(0)) }
    }

    /// The checkpoints but the best one, oldest first; none if there is no folder.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn list(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut paths = self.files()?;
        paths.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("step-") && name.ends_with(".safetensors")
        });
        // Numbers have leading zeros.
        paths.sort_unstable();
        Ok(paths)
    }

    /// What is in the folder, if there is one.
    fn files(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let io = |source| CheckpointError::Io { path: self.dir.clone(), source };
        match std::fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries.map_err(io)?.map(|entry| entry.map(|e| e.path()).map_err(io)).collect(),
        }
    }
}

/// Reads the state and how far training was.
///
/// # Errors
/// As [`checkpoint::load`], and [`CheckpointError::Note`]; the state is then as it was.
pub fn read(state: &mut State, path: &Path) -> Result<Training, CheckpointError> {
    let mut loaded = state.try_clone()?;
    let note = checkpoint::load_noted(&mut loaded, path)?;
    let wrong = |message: String| CheckpointError::Note { path: path.into(), message };
    let note = note.ok_or_else(|| wrong("it is not there".to_owned()))?;
    let training = serde_json::from_str(&note).map_err(|e| wrong(e.to_string()))?;
    *state = loaded;
    Ok(training)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::DType;
    use graphc_runtime::StateLayout;
    use std::sync::Arc;

    fn state(name: &str, value: f32) -> State {
        let layout = StateLayout::new([(name.to_owned(), DType::F32, vec![2])]).unwrap();
        let mut state = State::zeros(Arc::new(layout)).unwrap();
        state.get_mut::<f32>(name).unwrap().fill(value);
        state
    }

    fn at(step: u64) -> Training {
        Training { step, ..Training::default() }
    }

    #[test]
    fn the_newest_sound_one_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path().join("new")).keep_last(2);
        assert!(checkpoints.restore(&mut state("w", 0.0)).unwrap().is_none());
        for step in [1, 9, 10, 100] {
            checkpoints.save(&state("w", step as f32), &at(step)).unwrap();
        }
        checkpoints.save_best(&state("w", 7.0), &at(7)).unwrap();
        std::fs::write(checkpoints.dir().join(".checkpointXYZ"), "half").unwrap();
        let mut names: Vec<_> = std::fs::read_dir(checkpoints.dir())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let kept = ["best.safetensors", "step-0000000010.safetensors", "step-0000000100.safetensors"];
        assert_eq!(names, [&[".checkpointXYZ"][..], &kept].concat());

        let mut restored = state("w", 0.0);
        let found = checkpoints.restore(&mut restored).unwrap().unwrap();
        assert_eq!((found.training.step, found.damaged.len()), (100, 0));
        assert_eq!(restored.get::<f32>("w").unwrap(), [100.0; 2]);
        let lock = checkpoints.lock().unwrap();
        assert!(!checkpoints.dir().join(".checkpointXYZ").exists());
        let error = checkpoints.lock().unwrap_err().to_string();
        assert!(error.ends_with("another run writes its checkpoints here"), "{error}");
        drop(lock);
        checkpoints.lock().unwrap();

        // Half of the newest is lost.
        let newest = std::fs::read(&found.path).unwrap();
        std::fs::write(&found.path, &newest[..newest.len() / 2]).unwrap();
        let found = checkpoints.restore(&mut restored).unwrap().unwrap();
        assert_eq!((found.training.step, found.damaged.len()), (10, 1));
        assert_eq!(restored.get::<f32>("w").unwrap(), [10.0; 2]);

        let error = checkpoints.restore(&mut state("v", 0.0)).unwrap_err().to_string();
        assert!(
            error.contains("`v` f32[2] is missing") && error.contains("`w` f32[2] is not in the state"),
            "{error}"
        );
        std::fs::write(checkpoints.dir().join("step-0000000010.safetensors"), "").unwrap();
        assert!(checkpoints.restore(&mut restored).is_err());
        assert_eq!(restored.get::<f32>("w").unwrap(), [10.0; 2]);
    }

    #[test]
    fn a_failed_save_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path()).keep_last(1);
        checkpoints.save(&state("w", 1.0), &at(1)).unwrap();
        // Something that cannot be replaced is in the way.
        std::fs::create_dir(dir.path().join("step-0000000002.safetensors")).unwrap();
        assert!(checkpoints.save(&state("w", 2.0), &at(2)).is_err());
        std::fs::remove_dir(dir.path().join("step-0000000002.safetensors")).unwrap();
        let mut restored = state("w", 0.0);
        assert_eq!(checkpoints.restore(&mut restored).unwrap().unwrap().training.step, 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
