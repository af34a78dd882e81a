//! What can go wrong when memory is allocated, threads are started or an executable is run.

use crate::guard::NonFinite;
use graphc_ir::{DType, TensorType};
use std::fmt;

/// Which side of a function a port is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortSide {
    /// The function reads it.
    Input,
    /// The function writes it.
    Output,
}

impl fmt::Display for PortSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The system did not give the memory.
    #[error("out of memory: {what} needs {bytes} bytes")]
    OutOfMemory {
        /// Size asked for, without alignment and slack.
        bytes: usize,
        /// What it was for.
        what: Box<str>,
    },
    /// A thread count that is 0, too large or not a number.
    #[error("thread count `{given}` is not in 1..={max}")]
    ThreadCount {
        /// What was given.
        given: Box<str>,
        /// The largest allowed.
        max: usize,
    },
    /// The system did not start a thread.
    #[error("cannot start worker thread {index}: {source}")]
    ThreadSpawn {
        /// Worker index, from 1.
        index: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The pool's threads are in the process that this one was forked from.
    #[error(
        "this process was forked from process {parent}, which has the threads of the pool: make a new pool, or one before \
         the fork with a single thread"
    )]
    Forked {
        /// Number of the process that made the pool.
        parent: u32,
    },
    /// The code has instructions that this machine lacks.
    #[error("`{function}` was compiled for {instructions}, which this machine does not have")]
    Instructions {
        /// Name of the function.
        function: Box<str>,
        /// Their name.
        instructions: &'static str,
    },
    /// A run was given too few or too many inputs or outputs.
    #[error("`{function}` has {expected} {side}{}, got {got}", if *.expected == 1 { "" } else { "s" })]
    PortCount {
        /// Name of the function.
        function: Box<str>,
        /// Inputs or outputs.
        side: PortSide,
        /// How many the function has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// An input or output has another element type or number of elements than declared.
    #[error(
        "{side} `{port}`: expected {}, got {} (in `{function}`)",
        Wanted(.expected),
        Given(*.got_elements, *.got_dtype)
    )]
    PortType {
        /// Name of the function.
        function: Box<str>,
        /// Input or output.
        side: PortSide,
        /// Name of the port.
        port: Box<str>,
        /// Declared type.
        expected: Box<TensorType>,
        /// Element type given.
        got_dtype: DType,
        /// Number of elements given.
        got_elements: usize,
    },
    /// The state was laid out for another module.
    #[error("the state does not belong to `{function}`: {difference}")]
    StateLayout {
        /// Name of the function.
        function: Box<str>,
        /// First difference between the layouts.
        difference: Box<str>,
    },
    /// There is no such state entry.
    #[error("the state has no entry `{name}`")]
    UnknownState {
        /// The name asked for.
        name: Box<str>,
    },
    /// A state entry has another element type or number of elements than asked for.
    #[error(
        "state `{name}`: expected {}, got {}",
        Wanted(.expected),
        StateGiven(*.got_elements, *.got_dtype)
    )]
    StateType {
        /// Name of the entry.
        name: Box<str>,
        /// Type of the entry.
        expected: Box<TensorType>,
        /// Element type asked for.
        got_dtype: DType,
        /// Number of elements given, when values were.
        got_elements: Option<usize>,
    },
    /// Two state entries have one name.
    #[error("two state entries are named `{name}`")]
    DuplicateState {
        /// The name.
        name: Box<str>,
    },
    /// The state, or one entry, exceeds what can be addressed.
    #[error("state `{name}` of type {ty} makes the state too large")]
    StateTooLarge {
        /// Name of the entry that exceeds the limit.
        name: Box<str>,
        /// Its type.
        ty: Box<TensorType>,
    },
    /// An index computed or given at run time is out of range.
    #[error(
        "{op}: {what} {value} at position {position} is out of range 0..{bound} (in `{function}`{})",
        At(.location)
    )]
    IndexOutOfRange {
        /// Operation that met it.
        op: Box<str>,
        /// What the value is, such as `index`.
        what: Box<str>,
        /// Linear position of the value in its operand.
        position: i64,
        /// The value.
        value: i64,
        /// The range is `0..bound`.
        bound: i64,
        /// Where the user's program created the operation.
        location: Option<Box<str>>,
        /// Name of the function.
        function: Box<str>,
    },
    /// A kernel made a NaN or an infinity; state and outputs hold what was written until then.
    #[error("`{function}`: {found}")]
    NonFinite {
        /// Name of the function.
        function: Box<str>,
        /// Where it came from.
        found: Box<NonFinite>,
    },
    /// The run was ended by an [`Interrupter`](crate::Interrupter).
    #[error("`{function}` was interrupted")]
    Interrupted {
        /// Name of the function.
        function: Box<str>,
    },
    /// Generated code reported a fault that its executable does not describe: a bug in graphc.
    #[error("`{function}` reported unknown fault site {site} (status {status}); this is a bug in graphc")]
    UnknownFault {
        /// Name of the function.
        function: Box<str>,
        /// Site reported, 0 if none.
        site: u64,
        /// Status returned.
        status: i32,
    },
}

struct Wanted<'a>(&'a TensorType);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        match self.0.shape.num_elements() {
            Some(n) => write!(f, " ({})", Elements(n)),
            None => Ok(()),
        }
    }
}

struct Given(usize, DType);

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", Elements(self.0), self.1)
    }
}

struct StateGiven(Option<usize>, DType);

impl fmt::Display for StateGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(n) => Given(n, self.1).fmt(f),
            None => self.1.fmt(f),
        }
    }
}

struct Elements(usize);

impl fmt::Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} element{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

struct At<'a>(&'a Option<Box<str>>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(location) => write!(f, " at {location}"),
            None => Ok(()),
        }
    }
}
