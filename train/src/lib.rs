//! graphc-train: training on top of graphc. Plain library code: it declares graphs with graphc-ir
//! ([`nn`], [`optim`]), and moves data around what the compiler makes of them ([`data`],
//! [`metrics`]). No code generation and no `unsafe` here.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod data;
pub mod metrics;
pub mod nn;
pub mod optim;
