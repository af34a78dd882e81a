//! graphc-compiler: from a graph to native code.

#[macro_use]
pub mod mutants;
mod assemble;
mod cache;
mod codegen;
mod compile;
mod error;
mod fuse;
mod guard;
mod hoist;
pub mod kernel;
mod layout;
mod lower;
mod memory;
mod memory_check;
pub mod narrow;
mod operands;
mod order;
mod pass;
mod passes;
mod pipeline;
pub mod program;
mod recompute;
mod split;
mod stacked;
mod threads;
pub mod vector;

pub use assemble::Assembled;
pub use cache::CodeCache;
pub use codegen::{CompiledFunction, Isa, disassemble, object};
pub use compile::{
    CompileOptions, Stages, compile, compile_executable, compile_function, compile_stages, state_layout,
};
pub use error::CompileError;
pub use fuse::Fusion;
pub use memory::{ALIGNMENT, BufferReq, MemoryPlan, live_bytes, plan, report};
pub use memory_check::{MemoryError, check_plan};
pub use pass::{
    OptLevel, Pass, PassCx, PassOptions, PassRecord, Rebuilder, run_passes, same_function, verify_function,
};
pub use passes::{
    BatchLoop, Canonicalize, ConstFold, Cse, Dce, Inline, MergeScans, MoveOut, Simplify, remove_dead,
    simplify_rules,
};
pub use pipeline::{optimize, passes_of};
