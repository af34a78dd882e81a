//! graphc-compiler: from a graph to native code.

mod error;
mod pass;
mod passes;
mod pipeline;

pub use error::CompileError;
pub use pass::{
    OptLevel, Pass, PassCx, PassOptions, PassRecord, Rebuilder, run_passes, same_function, verify_function,
};
pub use passes::{Canonicalize, ConstFold, Cse, Dce, Simplify, remove_dead};
pub use pipeline::{optimize, passes_of};
