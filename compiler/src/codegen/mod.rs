//! Code generation: vector IR to native code through Cranelift.

mod disassemble;
mod emit;
mod jit;
mod ops;

pub use disassemble::disassemble;
pub(crate) use jit::generate;
pub use jit::{CompiledFunction, Features};
