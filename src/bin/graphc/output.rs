//! Standard output as all commands write it: text, or JSON with `--json`; colours on a terminal only.

use super::Failure;
use anstyle::{AnsiColor, Style};
use std::io::{BufWriter, StdoutLock, Write};
use std::path::Path;

/// Titles of tables and names of what a paragraph is about.
pub(super) const HEADING: Style = Style::new().bold();
/// What is right, and what is new.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What is wrong, and what is gone.
pub(super) const BAD: Style = AnsiColor::Red.on_default();

/// Writes a file that a command was asked for.
pub(super) fn file(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|e| Failure::Other(format!("cannot write {}: {e}", path.display())))
}

/// Writes a file anew, as a whole or not at all: on a full disk the old one stays. Its permissions are kept.
pub(super) fn replace(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        let path = path.canonicalize()?; // A link stays one.
        let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
        file.write_all(bytes.as_ref())?;
        file.as_file().set_permissions(path.metadata()?.permissions())?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(|e| Failure::Other(format!("cannot write {}: {e}", path.display())))
}

/// Buffered standard output.
pub(super) struct Out {
    stdout: BufWriter<StdoutLock<'static>>,
    colour: bool,
    json: bool,
}

impl Out {
    /// Standard output; `json` is the flag `--json`. There are colours if it is a terminal and the
    /// environment (`NO_COLOR`, `CLICOLOR_FORCE`, ..) does not say otherwise.
    pub(super) fn new(json: bool) -> Self {
        let stdout = std::io::stdout();
        let colour = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Self { stdout: BufWriter::new(stdout.lock()), colour: colour && !json, json }
    }

    /// Whether results are to be JSON: one value per line.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Writes a line of JSON.
    pub(super) fn value(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        Ok(writeln!(self, "{value}")?)
    }

    /// `style` where there are colours: `{s}text{s:#}` in a format string.
    pub(super) fn style(&self, style: Style) -> Style {
        if self.colour { style } else { Style::new() }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stdout.flush()
    }
}
