//! Compiles a program into an object file, for this or another machine.

use super::Isa;
use super::functions::{Keep, Machine, backend, define};
use crate::error::CompileError;
use crate::program::Program;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_module::{Linkage, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use target_lexicon::{Architecture, Triple};

/// What x86-64 must have: fused multiply-add is part of the meaning of products.
const X86_FEATURES: [&str; 9] = [
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_avx",
    "has_avx2",
    "has_fma",
    "has_lzcnt",
];

fn target(triple: &Triple, opt_level: &str) -> Result<OwnedTargetIsa, CompileError> {
    let fail = |e: &dyn std::fmt::Display| backend("", format!("target {triple}: {e}"));
    let mut flags = settings::builder();
    for (name, value) in [("opt_level", opt_level), ("is_pic", "true"), ("unwind_info", "false")] {
        flags.set(name, value).map_err(|e| fail(&e))?;
    }
    let mut builder = isa::lookup(triple.clone()).map_err(|e| fail(&e))?;
    if triple.architecture == Architecture::X86_64 {
        for feature in X86_FEATURES {
            builder.enable(feature).map_err(|e| fail(&e))?;
        }
    }
    builder.finish(settings::Flags::new(flags)).map_err(|e| fail(&e))
}

/// A relocatable object file with the functions of `program` for `target`, a triple such as
/// `aarch64-unknown-linux-gnu`. The program is to be scheduled for [`Isa::Portable`]: vectors have 128 bits.
/// Symbols are `entry.NAME`, of the type [`graphc_runtime::abi::EntryFn`] for function `NAME`, and one per
/// kernel; nothing is undefined.
///
/// # Errors
/// A target that is unknown or that Cranelift does not support here, or a function that it refuses.
pub fn object(program: &Program, target_triple: &str) -> Result<Vec<u8>, CompileError> {
    let triple: Triple =
        target_triple.parse().map_err(|e| backend("", format!("target {target_triple}: {e}")))?;
    let machine =
        Machine { speed: target(&triple, "speed")?, none: target(&triple, "none")?, vectors: Isa::Portable };
    let name = program.name.as_str();
    let builder = ObjectBuilder::new(machine.speed.clone(), name, default_libcall_names())
        .map_err(|e| backend(name, e))?;
    let mut module = ObjectModule::new(builder);
    define(&mut module, program, &machine, Linkage::Export, Keep::default())?;
    module.finish().emit().map_err(|e| backend(name, e))
}
