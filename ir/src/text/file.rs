//! Modules in files.

use super::{MAX_TEXT_BYTES, ParseErrors};
use crate::module::Module;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Why a module was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, io::Error),
    /// The file cannot be written; one that was there is as before.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Write(PathBuf, io::Error),
    /// The file is no module.
    #[error("{0}")]
    Parse(ParseErrors),
}

impl Module {
    /// Writes the text form to a file, for [`Module::load`] and for the `graphc` tool. A file that was there is
    /// replaced once all is written.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let path = path.as_ref();
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let written = File::create(&partial).and_then(|mut file| {
            write!(file, "{self}")?;
            file.sync_all()?;
            fs::rename(&partial, path)
        });
        written.map_err(|e| {
            // It may not be there at all.
            let _ = fs::remove_file(&partial);
            FileError::Write(path.to_owned(), e)
        })
    }

    /// Reads the text form from a file, of at most 64 MiB.
    ///
    /// # Errors
    /// [`FileError::Read`] and [`FileError::Parse`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|f| f.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|e| FileError::Read(path.to_owned(), e))?;
        Self::parse_bytes(&path.display().to_string(), &bytes).map_err(FileError::Parse)
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Module, ModuleBuilder};

    #[test]
    fn what_is_saved_is_loaded() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| f.output("y", f.input("x", DType::F32, [2, 3]).tanh()));
        let module = m.build().unwrap();
        let path = std::env::temp_dir().join(format!("graphc-{}.gir", std::process::id()));
        std::fs::write(&path, "before").unwrap();
        module.save(&path).unwrap();
        assert_eq!(Module::load(&path).unwrap().to_string(), module.to_string());
        std::fs::write(&path, "nothing").unwrap();
        let error = Module::load(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("{}:1", path.display())), "{error}");
        std::fs::remove_file(&path).unwrap();

        let missing = path.join("m.gir");
        for error in [module.save(&missing).unwrap_err(), Module::load(&missing).unwrap_err()] {
            assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
        }
        assert!(!path.exists());
    }
}
