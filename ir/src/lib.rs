//! graphc-ir: what a program is. Types, operations, graphs, modules, the text form, the verifier
//! and the reference interpreter. No `unsafe`, no I/O, no code generation.

#![forbid(unsafe_code)]

pub mod attr;
mod autodiff;
mod builder;
pub mod composite;
mod control;
mod convert;
pub mod cost;
mod dim;
mod error;
mod graph;
mod index;
mod init;
mod interp;
mod literal;
pub mod math;
mod module;
pub mod ops;
mod pattern;
mod region;
mod scalar;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text;
mod types;
mod verify;

pub use autodiff::{
    batch, gradient_function, gradient_function_of, gradients, hessian, hvp, jacobian, jvp, vjp, vmap,
};
pub use builder::{FunctionBuilder, ModuleBuilder, Operand, Param, Tensor};
pub use control::{ScanOptions, Scanned};
pub use dim::{Dim, DimExpr};
pub use error::{BuildError, BuildErrors, EvalError, NoBatch, NoGradient, TypeError};
pub use graph::{Graph, Node, NodeId, Origin, SourceLoc};
pub use index::{Access, Atom, Guard, IndexCx, IndexExpr, Var};
pub use init::Initializer;
pub use interp::{Evaluation, evaluate, evaluate_nodes};
pub use literal::{Element, Literal, indices, linear_index, row_major_strides};
pub use module::{Bindings, Function, Module, Output, StateId, StateVar, Update};
pub use ops::{Op, StaticType};
pub use pattern::{Combine, Contraction, Indexing, Pattern, Reduce, ReduceKind, Start, Window};
pub use region::{MAX_REGION_DEPTH, MAX_REGION_NODES, Region};
pub use scalar::{CmpKind, Native, Scalar, ScalarBuilder, ScalarFn, ScalarId, ScalarInst, ScalarOp};
pub use text::{
    FORMAT_VERSION, FileError, MAX_NAME_BYTES, MAX_TEXT_BYTES, ParseError, ParseErrors, escaped,
    format_module, print_function,
};
pub use types::{DType, MAX_ELEMENTS, MAX_RANK, Shape, TensorType, checked_product};
pub use verify::{VerifyError, VerifyErrors, verify};
