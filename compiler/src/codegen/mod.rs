//! Code generation: vector IR to native code, by an emitter of our own for 256- and 512-bit vectors
//! on x86-64 and by Cranelift for all else.

mod control;
mod disassemble;
mod emit;
mod functions;
mod isa;
mod jit;
mod object;
mod ops;
#[cfg(target_os = "linux")]
mod perf;
mod x86;

pub use disassemble::disassemble;
pub use functions::CompiledFunction;
pub(crate) use functions::Keep;
pub use isa::Isa;
pub(crate) use jit::{Image, Placed, features, generate, place};
pub use object::object;
