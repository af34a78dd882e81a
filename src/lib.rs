//! graphc: a static computation-graph compiler for training neural networks on the CPU.
//!
//! A model is declared once as a symbolic graph. graphc differentiates it, fuses the whole training
//! step (forward, backward, optimizer), plans its memory before anything runs, and compiles it to
//! one native function, in milliseconds. The bits of the result do not depend on the number of
//! threads.
//!
//! ```
//! use graphc::nn::{Dense, Layer};
//! use graphc::{DType, ModuleBuilder, Session, cross_entropy, optim, shape};
//!
//! let m = ModuleBuilder::new("classifier");
//! let hidden = Dense::new(&m, "hidden", 2, 16);
//! let out = Dense::new(&m, "out", 16, 2);
//! optim::train_step(&m, "train_step", &optim::Adam::new(0.05), |f| {
//!     let x = f.input("x", DType::F32, shape!["B", 2]);
//!     let y = f.input("y", DType::I32, shape!["B"]);
//!     cross_entropy(out.apply(hidden.apply(x).relu()), y)
//! });
//!
//! // Exclusive or, the smallest task that needs a hidden layer.
//! let (x, y) = ([0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], [0, 1, 1, 0]);
//! let mut session = Session::new(m.build()?, 1)?;
//! let mut loss = f32::MAX;
//! for _ in 0..100 {
//!     loss = session.run("train_step", &[("x", (&x).into()), ("y", (&y).into())])?.scalar("loss")?;
//! }
//! assert!(loss < 0.05, "the loss is {loss}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The pieces: [`ir`] is the language (types, operations, modules, text form, interpreter),
//! [`compiler`] the way to native code with every stage open to inspection, [`runtime`] what runs
//! it, and the modules re-exported from graphc-train are layers, optimizers, data and checkpoints.

#![deny(unsafe_code)]

pub mod differential;
pub mod machine;
pub mod reduce;

pub use graphc_compiler as compiler;
pub use graphc_ir as ir;
pub use graphc_runtime as runtime;

pub use graphc_compiler::{CodeCache, CompileError, CompileOptions, Isa, OptLevel, compile, compile_stages};
pub use graphc_ir::composite::{bce_with_logits, cross_entropy, mse};
pub use graphc_ir::{
    Bindings, BuildErrors, DType, Dim, Function, FunctionBuilder, Initializer, Literal, Module,
    ModuleBuilder, Param, Shape, Tensor, TensorType, gradients, hessian, hvp, jacobian, jvp, shape, vjp,
    vmap,
};
pub use graphc_runtime::{
    Executable, Interrupter, RunContext, RuntimeError, State, ThreadPool, Value, ValueMut,
};
pub use graphc_train::session::{Session, SessionError};
pub use graphc_train::{
    check_grad, checkpoint, data, init, loss, metrics, nn, optim, plot, progress, schedule, session, summary,
    trainer,
};

/// The code of the guide compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../docs/training.md")]
struct Guide;
