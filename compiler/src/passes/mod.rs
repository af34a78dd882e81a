//! The passes over graphs, one file each. Every one keeps all results bit for bit.

mod canonicalize;
mod const_fold;
mod cse;
mod dce;
mod regions;
mod rewrite;
mod simplify;
#[cfg(test)]
pub(crate) mod testing;

pub use canonicalize::Canonicalize;
pub use const_fold::ConstFold;
pub use cse::Cse;
pub use dce::{Dce, remove_dead};
pub use regions::{BatchLoop, Inline, MergeScans, MoveOut};
pub use simplify::{Simplify, simplify_rules};
