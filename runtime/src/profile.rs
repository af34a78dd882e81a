//! Where the time of runs goes: how often each step ran and how long, and, for a trace, when it ran on
//! which thread.

use crate::executable::Executable;
use crate::pool::lock;
use crate::sync::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A step of a function: a kernel or an index check, of the function itself or of a loop in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct StepInfo {
    /// Name of the kernel or check, unique in the function; of the body of a loop it begins with the name
    /// of the kernel that runs the loop, and a point.
    pub name: String,
    /// Floating-point operations of one execution, without those of loop bodies.
    pub flops: u64,
    /// Bytes that one execution reads and writes at least: each once. 0 for what runs loops.
    pub bytes: u64,
    /// The nodes that it computes: name, operation, type, scope, and where the user declared them.
    pub sources: Vec<String>,
    /// Whether its work is spread over threads.
    pub parallel: bool,
    /// Whether it runs steps of its own, such as the body of a loop.
    pub nested: bool,
}

/// How often a step has run, and how long in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StepTime {
    /// Number of executions.
    pub count: u64,
    /// Nanoseconds of all executions, without those of steps that it ran.
    pub total_ns: u64,
}

/// The runs of one function.
#[derive(Clone, Debug)]
pub struct FunctionProfile {
    /// Name of the function.
    pub name: String,
    /// Its steps.
    pub steps: Arc<[StepInfo]>,
    /// Times of the steps, in the same order.
    pub times: Vec<StepTime>,
    /// Number of runs.
    pub runs: u64,
    /// Nanoseconds of all runs, from the call of [`Executable::run`] to its return.
    pub wall_ns: u64,
}

impl FunctionProfile {
    /// The part of the runs' time that the steps account for, at most 1.
    pub fn accounted(&self) -> f64 {
        let steps: u64 = self.times.iter().map(|t| t.total_ns).sum();
        steps as f64 / self.wall_ns.max(1) as f64
    }
}

/// Something that ran, as the trace has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceEvent {
    /// Position of the function in [`Profile::functions`].
    pub function: usize,
    /// Position of the step in [`FunctionProfile::steps`].
    pub step: usize,
    /// The thread: 0 is the one that calls, for which there is one event per step.
    pub worker: usize,
    /// Begin, in nanoseconds since profiling began.
    pub start_ns: u64,
    /// Its length in nanoseconds.
    pub duration_ns: u64,
}

/// What a [`RunContext`](crate::RunContext) has learned of its runs.
#[derive(Debug)]
pub struct Profile {
    /// The functions that ran, in the order of their first run.
    pub functions: Vec<FunctionProfile>,
    /// What ran when, in the order of its end; empty unless a trace was asked for.
    pub events: Vec<TraceEvent>,
    begin: Instant,
    log: Option<PieceLog>,
}

impl Profile {
    pub(crate) fn new(trace: bool, n_threads: usize) -> Self {
        let begin = Instant::now();
        let log = trace.then(|| PieceLog((0..n_threads).map(|_| Mutex::default()).collect()));
        Self { functions: Vec::new(), events: Vec::new(), begin, log }
    }

    /// The log of pieces, for a run.
    pub(crate) fn take_log(&mut self) -> Option<PieceLog> {
        self.log.take()
    }

    /// Gives the log back.
    pub(crate) fn put_log(&mut self, log: Option<PieceLog>) {
        self.log = log;
    }

    /// Position of the profile of a function.
    pub(crate) fn function(&mut self, executable: &Executable) -> usize {
        let steps = executable.steps();
        let known = self.functions.iter().position(|f| Arc::ptr_eq(&f.steps, steps));
        known.unwrap_or_else(|| {
            self.functions.push(FunctionProfile {
                name: executable.name().to_owned(),
                steps: steps.clone(),
                times: vec![StepTime::default(); steps.len()],
                runs: 0,
                wall_ns: 0,
            });
            self.functions.len() - 1
        })
    }

    /// Notes that a step ran from `start` to `end`, and its pieces as `log` says.
    pub(crate) fn step(
        &mut self,
        function: usize,
        step: usize,
        start: Instant,
        end: Instant,
        log: Option<&PieceLog>,
    ) {
        let duration_ns = nanoseconds(end - start);
        let Some(time) = self.functions[function].times.get_mut(step) else { return };
        time.count += 1;
        time.total_ns += duration_ns;
        let Some(log) = log else { return };
        let event =
            |worker, start, duration_ns| TraceEvent { function, step, worker, start_ns: start, duration_ns };
        let since = |t: Instant| nanoseconds(t - self.begin);
        for (worker, pieces) in log.0.iter().enumerate() {
            for (from, to) in lock(pieces).drain(..) {
                // The caller's own piece is part of its event.
                if worker > 0 {
                    self.events.push(event(worker, since(from), nanoseconds(to - from)));
                }
            }
        }
        self.events.push(event(0, since(start), duration_ns));
    }

    /// Notes that a run is over.
    pub(crate) fn run(&mut self, function: usize, wall: Duration) {
        let f = &mut self.functions[function];
        f.runs += 1;
        f.wall_ns += nanoseconds(wall);
    }
}

/// When pieces of the step under way ran, by worker.
#[derive(Debug)]
pub(crate) struct PieceLog(Box<[Mutex<Vec<Piece>>]>);

/// When a piece of a step began and ended.
type Piece = (Instant, Instant);

impl PieceLog {
    pub(crate) fn add(&self, worker: usize, start: Instant, end: Instant) {
        if let Some(pieces) = self.0.get(worker) {
            lock(pieces).push((start, end));
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
