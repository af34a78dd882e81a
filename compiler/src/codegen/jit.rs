//! Compiles a program into executable memory.

use super::Isa;
use super::functions::{CompiledFunction, Machine, backend, define};
use crate::error::CompileError;
use crate::program::Program;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, default_libcall_names};
use graphc_runtime::abi;
use std::any::Any;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

/// Address space reserved for the code of one function. Untouched pages cost nothing.
const CODE_RESERVE: usize = 256 << 20;

/// Native code of a program.
pub(crate) struct Generated {
    /// The entry function. Valid while `code` lives.
    pub entry: abi::EntryFn,
    /// Owner of the code memory.
    pub code: Arc<dyn Any + Send + Sync>,
    /// Every function, if it was asked for.
    pub functions: Vec<CompiledFunction>,
    /// Total bytes of machine code.
    pub code_bytes: usize,
}

/// Owns the code memory; frees it when the last user is gone.
struct CodeMemory(Mutex<Option<JITModule>>);

impl Drop for CodeMemory {
    fn drop(&mut self) {
        let module = self.0.get_mut().ok().and_then(Option::take);
        if let Some(module) = module {
            // SAFETY: whoever runs the code holds the `Arc` around this owner, and it is being
            // dropped: no call into the code is under way and none can follow.
            unsafe { module.free_memory() };
        }
    }
}

/// The host's instruction set with this optimization level of Cranelift.
fn native(opt_level: &str) -> Result<OwnedTargetIsa, CompileError> {
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", opt_level),
        ("is_pic", "false"),
        ("unwind_info", "false"),
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
        ("log2_min_function_alignment", "5"),
    ] {
        flags.set(name, value).map_err(|e| backend("", e))?;
    }
    let builder = cranelift_native::builder().map_err(|e| backend("", e))?;
    let isa = builder.finish(settings::Flags::new(flags)).map_err(|e| backend("", e))?;
    if isa.triple().architecture == target_lexicon::Architecture::X86_64 {
        let fma = isa.isa_flags().iter().any(|f| f.name == "has_fma" && f.as_bool() == Some(true));
        if !fma {
            let message =
                "this CPU has no fused multiply-add (FMA3), which graphc's arithmetic is defined with";
            return Err(backend("", message));
        }
    }
    Ok(isa)
}

/// Generates native code for a program. `keep` keeps text and bytes of every function for dumps.
///
/// # Errors
/// If the CPU lacks FMA or Cranelift refuses a function.
pub(crate) fn generate(program: &Program, isa: Isa, keep: bool) -> Result<Generated, CompileError> {
    let machine = Machine { speed: native("speed")?, none: native("none")?, vectors: isa };
    let mut builder = JITBuilder::with_isa(machine.speed.clone(), default_libcall_names());
    let memory = ArenaMemoryProvider::new_with_size(CODE_RESERVE).map_err(|e| backend(&program.name, e))?;
    builder.memory_provider(Box::new(memory));
    let mut module = JITModule::new(builder);
    let defined = define(&mut module, program, &machine, Linkage::Local, keep)?;
    module.finalize_definitions().map_err(|e| backend(&program.name, e))?;
    if std::env::var_os("GRAPHC_PERF_MAP").is_some() {
        perf_map(&module, &defined.symbols).map_err(|e| backend(&program.name, e))?;
    }
    let address = module.get_finalized_function(defined.entry);
    // SAFETY: the function was declared with the signature of `EntryFn` in the default calling
    // convention, and its memory lives as long as `code`.
    let entry = unsafe { std::mem::transmute::<*const u8, abi::EntryFn>(address) };
    let code = Arc::new(CodeMemory(Mutex::new(Some(module))));
    Ok(Generated { entry, code, functions: defined.functions, code_bytes: defined.code_bytes })
}

/// Tells the profiler `perf` which code is where (`GRAPHC_PERF_MAP=1 perf record ..`), in the form of
/// the kernel's `tools/perf/Documentation/jit-interface.txt`.
fn perf_map(module: &JITModule, symbols: &[(FuncId, usize, String)]) -> std::io::Result<()> {
    let path = std::env::temp_dir().join(format!("perf-{}.map", std::process::id()));
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    for (id, size, name) in symbols {
        let address = module.get_finalized_function(*id).addr();
        writeln!(file, "{address:x} {size:x} {name}")?;
    }
    Ok(())
}
