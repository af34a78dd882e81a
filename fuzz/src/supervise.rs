//! Runs modules in a process of their own: the code of a faulty compiler may end it, and then it is found
//! which module did.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

/// Names the folder in which the process that runs the modules notes which it is at.
const NOTES: &str = "GRAPHC_FUZZ_NOTES";

/// That folder, if this is such a process.
pub(crate) fn notes() -> Option<PathBuf> {
    std::env::var_os(NOTES).map(PathBuf::from)
}

/// Notes that a job is at a module. Without it only the report of a crash is less exact.
pub(crate) fn note(notes: &Path, job: usize, module: u64) {
    let _ = std::fs::write(notes.join(job.to_string()), module.to_string());
}

/// This program, as a process that runs modules and has its notes there.
pub(crate) fn process(notes: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(NOTES, notes);
    Ok(command)
}

/// Runs this program once more, with the same arguments; where that ends by itself, its exit code.
pub(crate) fn run(seed: u64) -> std::io::Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let status = process(folder.path())?.args(&arguments).status()?;
    if let Some(code) = status.code() {
        return Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from));
    }
    println!("the process ended: {status}");
    for entry in std::fs::read_dir(folder.path())? {
        let module = std::fs::read_to_string(entry?.path())?;
        let mut alone = process(folder.path())?;
        alone.args(&arguments).args(["--no-reduce", "--only", &module]);
        let ended: ExitStatus = alone.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        match ended.code() {
            None => println!("module {module} of seed {seed} alone ends it as well: {ended}"),
            Some(_) => println!("module {module} of seed {seed} was running; alone it does not end it"),
        }
    }
    Ok(ExitCode::FAILURE)
}
