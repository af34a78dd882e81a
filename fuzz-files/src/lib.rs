//! Hostile files. Sound files of each format that graphc reads are mutated, and the mutants given to
//! its readers. Whatever a file holds, the answer must be a value or an error: no panic, no abort, not
//! more than [`Target::time`] and [`MEMORY`], and a message that is short, free of control
//! characters, and says where. What is read must also survive a round trip.
//!
//! The engine needs a stable compiler only. It has no coverage of code to guide it, but keeps each mutant
//! that an error of a new kind answers, so that mutations go on from there.

#![forbid(unsafe_code)]

mod mutate;
mod targets;

pub use mutate::Mutator;
pub use targets::{TARGETS, Target};

use peak_alloc::PeakAlloc;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Most bytes of memory that reading one file may take at a time: mutants are small.
pub const MEMORY: usize = 64 << 20;

/// Longest message of an error, in bytes.
pub const MESSAGE: usize = 8 << 10;

/// Longest mutant, in bytes.
pub const LONGEST: usize = 64 << 10;

/// How many times longer a reader may take without optimization.
const SLOWER: u32 = if cfg!(debug_assertions) { 20 } else { 1 };

/// Most mutants that are kept to go on from.
const CORPUS: usize = 4096;

/// Gives a file to a target. The answer is `None` for a file that is read, else the message of the error.
///
/// # Errors
/// The promise that the target broke.
pub fn check(target: &Target, file: &[u8], scratch: &Path) -> Result<Option<String>, String> {
    let mut least = Duration::MAX;
    // The clock also counts what the machine does besides: what seems slow is tried again.
    for _ in 0..3 {
        let before = PeakAlloc.current_usage();
        PeakAlloc.reset_peak_usage();
        let clock = Clock::start();
        let answer = catch_unwind(AssertUnwindSafe(|| (target.read)(file, scratch)));
        least = least.min(clock.elapsed());
        let memory = PeakAlloc.peak_usage().saturating_sub(before);
        let answer = answer.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            format!("it panics: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?"))
        })?;
        if memory > MEMORY {
            return Err(format!("it takes {memory} bytes of memory"));
        }
        if least > target.time * SLOWER {
            continue;
        }
        if let Err(message) = &answer {
            check_message(message)?;
        }
        return Ok(answer.err());
    }
    Err(format!("it takes {least:?}"))
}

/// The time that passes, or that the process has a processor, whichever is less.
struct Clock {
    began: Instant,
    cpu: Option<Duration>,
}

impl Clock {
    fn start() -> Self {
        Self { began: Instant::now(), cpu: cpu_time() }
    }

    fn elapsed(&self) -> Duration {
        let passed = self.began.elapsed();
        let cpu = cpu_time().zip(self.cpu).map(|(now, then)| now.saturating_sub(then));
        cpu.map_or(passed, |cpu| passed.min(cpu))
    }
}

/// Time of all processors that the process has had.
#[cfg(unix)]
fn cpu_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::ProcessCPUTime).try_into().ok()
}

/// The system is not asked.
#[cfg(not(unix))]
fn cpu_time() -> Option<Duration> {
    None
}

fn check_message(message: &str) -> Result<(), String> {
    if message.len() > MESSAGE {
        return Err(format!("the message has {} bytes: {:.200}", message.len(), message));
    }
    if let Some(c) = message.chars().find(|&c| c.is_control() && c != '\n') {
        return Err(format!("the message has the control character {c:?}: {message:?}"));
    }
    // Each target names the file so.
    if !message.contains("hostile") {
        return Err(format!("the message does not say where: {message:?}"));
    }
    Ok(())
}

/// What a campaign did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Mutants given to the target.
    pub executions: u64,
    /// Mutants that were read.
    pub accepted: u64,
    /// Kinds of answers.
    pub kinds: usize,
}

/// Gives `executions` mutants to a target. Equal seeds give equal mutants. `before` sees each mutant before it is read.
///
/// # Errors
/// The promise that was broken, and the mutant that did it.
pub fn campaign(
    target: &Target,
    executions: u64,
    seed: u64,
    mut before: impl FnMut(&[u8]),
) -> Result<Tally, (String, Vec<u8>)> {
    let scratch = tempfile::tempdir().map_err(|e| (e.to_string(), Vec::new()))?;
    let mut corpus = (target.seeds)();
    let mut mutator = Mutator::new(seed, target.words);
    let (mut tally, mut kinds) = (Tally::default(), HashSet::new());
    for file in &corpus {
        if let Some(message) = check(target, file, scratch.path()).map_err(|m| (m, file.clone()))? {
            return Err((format!("a sound file is refused: {message}"), file.clone()));
        }
    }
    while tally.executions < executions {
        let file = mutator.mutant(&corpus);
        before(&file);
        tally.executions += 1;
        let answer = check(target, &file, scratch.path()).map_err(|m| (m, file.clone()))?;
        tally.accepted += u64::from(answer.is_none());
        if kinds.insert(answer.as_deref().map(kind)) && corpus.len() < CORPUS {
            corpus.push(file);
        }
    }
    Ok(Tally { kinds: kinds.len(), ..tally })
}

/// A message without what the file puts in it: numbers and quoted names.
fn kind(message: &str) -> String {
    let unquoted = message.split('`').step_by(2).collect::<String>();
    unquoted.lines().next().unwrap_or("").chars().filter(|c| !c.is_ascii_digit()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Memory is that of the process: one test at a time.
    fn alone() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fake(read: fn(&[u8], &Path) -> Result<(), String>) -> Target {
        Target {
            name: "fake",
            seeds: || vec![b"1".to_vec()],
            words: &[],
            read,
            time: Duration::from_millis(1),
        }
    }

    /// A reader that breaks a promise is found out.
    #[test]
    fn broken_promises_are_seen() {
        let _turn = alone();
        let broken = |read, what: &str| {
            let error = check(&fake(read), b"", Path::new(".")).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        broken(|_, _| panic!("at the disco"), "it panics: at the disco");
        broken(|_, _| Err(format!("hostile: {}", vec![1u8; 65 << 20].len())), "bytes of memory");
        broken(|_, _| Err(format!("hostile: {}", "x".repeat(9 << 10))), "the message has 92");
        broken(|_, _| Err("hostile: \u{1b}[31m".to_owned()), "control character");
        broken(|_, _| Err("wrong".to_owned()), "does not say where");
        let slow = |_: &[u8], _: &Path| {
            let clock = Clock::start();
            while clock.elapsed() < Duration::from_millis(30) {}
            Ok(())
        };
        broken(slow, "it takes");
        // Mutations get to a digit behind a digit soon.
        let found = campaign(
            &fake(|file, _| {
                assert!(!file.windows(2).any(|w| w.iter().all(u8::is_ascii_digit)), "two digits");
                Ok(())
            }),
            10_000,
            1,
            |_| {},
        );
        assert!(found.unwrap_err().0.contains("two digits"));
    }

    /// A small campaign for each reader; GRAPHC_CASES is the number of mutants, 250.
    #[test]
    fn mutants_are_read_or_refused() {
        let _turn = alone();
        let cases = std::env::var("GRAPHC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(250);
        for target in &TARGETS {
            let cases = if target.name == "compile" { cases / 5 } else { cases };
            match campaign(target, cases, 1, |_| {}) {
                Ok(tally) => assert!(tally.kinds > 2, "{}: {tally:?}", target.name),
                Err((message, file)) => {
                    panic!("{}: {message}: {:?}", target.name, file.escape_ascii().to_string())
                }
            }
        }
    }

    /// Files that once broke a promise, and others that aim at one, named after their target.
    #[test]
    fn files_of_the_past_keep_the_promises() {
        let _turn = alone();
        let scratch = tempfile::tempdir().unwrap();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let target = TARGETS.iter().find(|t| name.starts_with(&format!("{}-", t.name)));
            let target = target.unwrap_or_else(|| panic!("{name} is not named after a target"));
            let file = std::fs::read(&path).unwrap();
            check(target, &file, scratch.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}
