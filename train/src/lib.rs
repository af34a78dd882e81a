//! graphc-train: training on top of graphc. Plain library code: it declares graphs with graphc-ir
//! ([`nn`], [`optim`]), moves data in and out ([`data`], [`metrics`], [`progress`]), and keeps the
//! state of a module and what the compiler made of it ([`session`], [`init`], [`checkpoint`]). No
//! code generation and no `unsafe` here.

#![forbid(unsafe_code)]

pub mod check_grad;
pub mod checkpoint;
pub mod data;
pub mod init;
pub mod loss;
pub mod metrics;
pub mod nn;
pub mod optim;
pub mod plot;
pub mod progress;
pub mod schedule;
pub mod session;
mod shared;
pub mod summary;
pub mod trainer;
