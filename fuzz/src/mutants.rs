//! Shows that the fuzzer finds faults: each that is planted in the compiler is hunted in a process of its
//! own, since code made by a faulty compiler may end the process.

use crate::supervise;
use graphc::compiler::mutants::FAULTS;
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Faults that may stay unfound.
const ESCAPED: usize = 2;

/// Without a fault nothing may be found for so long.
const CONTROL: Duration = Duration::from_secs(30);

/// Hunts each fault for at most so long; prints a table. Succeeds if nearly all are found, and none where none
/// is planted.
pub(crate) fn hunt(seed: u64, limit: Duration) -> ExitCode {
    if !matches!(run(seed, 0, limit.min(CONTROL)), Hunt::NotFound) {
        println!("there is a difference without a planted fault: find that first");
        return ExitCode::FAILURE;
    }
    println!("| fault | what it does | found after |\n|---|---|---|");
    let mut found = 0;
    for n in 1..=FAULTS.len() {
        let start = Instant::now();
        let result = run(seed, n, limit);
        let after = match result {
            Hunt::Found => format!("{:.0} s", start.elapsed().as_secs_f64().ceil()),
            Hunt::Crashed => format!("{:.0} s (the process ended)", start.elapsed().as_secs_f64().ceil()),
            Hunt::NotFound => "not found".to_owned(),
        };
        found += usize::from(!matches!(result, Hunt::NotFound));
        println!("| {n} | {} | {after} |", FAULTS[n - 1]);
    }
    println!("\n{found} of {} found, within {} s each", FAULTS.len(), limit.as_secs());
    if found + ESCAPED >= FAULTS.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Hunt {
    Found,
    Crashed,
    NotFound,
}

fn run(seed: u64, fault: usize, limit: Duration) -> Hunt {
    let notes = tempfile::tempdir().expect("a folder for notes");
    let arguments = ["--first", "--no-reduce", "--graphs", "1000000000", "--jobs", "1"];
    let numbers = ["--seed".to_owned(), seed.to_string(), "--fault".to_owned(), fault.to_string()];
    let process = supervise::process(notes.path());
    let child = process.and_then(|mut p| p.args(arguments).args(numbers).stdout(Stdio::null()).spawn());
    let mut child = child.expect("this program can be started");
    wait(&mut child, limit)
}

fn wait(child: &mut Child, limit: Duration) -> Hunt {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Ok(Some(status)) = child.try_wait() {
            return if status.code() == Some(1) { Hunt::Found } else { Hunt::Crashed };
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // It may have ended by itself in between.
    let _ = child.kill();
    let _ = child.wait();
    Hunt::NotFound
}
