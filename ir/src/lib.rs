//! graphc-ir: what a program is. Types, operations, graphs, modules, the text form, the verifier
//! and the reference interpreter. No `unsafe`, no I/O, no code generation.

#![forbid(unsafe_code)]

pub mod math;
mod scalar;
mod types;

pub use scalar::{CmpKind, Native, Scalar, ScalarBuilder, ScalarFn, ScalarId, ScalarInst, ScalarOp};
pub use types::{DType, Dim, MAX_ELEMENTS, MAX_RANK, Shape, TensorType, checked_product};
