//! graphc-compiler: from a graph to native code.

mod error;
mod memory;
mod memory_check;
mod pass;
mod passes;
mod pipeline;

pub use error::CompileError;
pub use memory::{ALIGNMENT, BufferReq, MemoryPlan, plan, report};
pub use memory_check::{MemoryError, check_plan};
pub use pass::{
    OptLevel, Pass, PassCx, PassOptions, PassRecord, Rebuilder, run_passes, same_function, verify_function,
};
pub use passes::{Canonicalize, ConstFold, Cse, Dce, Simplify, remove_dead};
pub use pipeline::{optimize, passes_of};
