//! Compiles a program into executable memory.

use super::Isa;
use super::functions::{CompiledFunction, Keep, Machine, Relocatable, Relocation, backend, define};
use crate::error::CompileError;
use crate::program::Program;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use graphc_ir::SourceLoc;
use graphc_runtime::abi;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::sync::{Arc, Mutex};

/// Address space reserved for the code of one function. Untouched pages cost nothing.
const CODE_RESERVE: usize = 256 << 20;

/// Executable code.
pub(crate) struct Placed {
    /// The entry function. Valid while `code` lives.
    pub entry: abi::EntryFn,
    /// Owner of the code memory.
    pub code: Arc<dyn Any + Send + Sync>,
}

/// Native code of a program.
pub(crate) struct Generated {
    /// The code in memory.
    pub placed: Placed,
    /// Every function, if it was asked for.
    pub functions: Vec<CompiledFunction>,
    /// The code to be put elsewhere, if it was asked for and that is possible.
    pub image: Option<Image>,
    /// Total bytes of machine code.
    pub code_bytes: usize,
}

/// Code of a program that can be put into memory again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    functions: Vec<Relocatable>,
    /// Number of the entry function.
    entry: u32,
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

/// What code generation depends on beside the program: the target and what is known of the CPU.
///
/// # Errors
/// As [`generate`].
pub(crate) fn features() -> Result<String, CompileError> {
    let isa = native("speed")?;
    let flags: Vec<String> = isa.isa_flags().iter().map(ToString::to_string).collect();
    Ok(format!("{} {}", isa.triple(), flags.join(" ")))
}

fn module(isa: OwnedTargetIsa, name: &str) -> Result<JITModule, CompileError> {
    let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
    let memory = ArenaMemoryProvider::new_with_size(CODE_RESERVE).map_err(|e| backend(name, e))?;
    builder.memory_provider(Box::new(memory));
    Ok(JITModule::new(builder))
}

/// Makes the code of a module executable; `entry` is of type [`abi::EntryFn`].
fn finish(module: JITModule, entry: FuncId) -> Placed {
    let address = module.get_finalized_function(entry);
    // SAFETY: the function was declared with the signature of `EntryFn` in the default calling
    // convention, and its memory lives as long as `code`.
    let entry = unsafe { std::mem::transmute::<*const u8, abi::EntryFn>(address) };
    Placed { entry, code: Arc::new(CodeMemory(Mutex::new(Some(module)))) }
}

/// Puts code into memory that [`generate`] made, of the same version and for the same CPU.
///
/// # Errors
/// If there is no memory for it.
pub(crate) fn place(image: &Image, name: &str) -> Result<Placed, CompileError> {
    let mut module = module(native("speed")?, name)?;
    // Code is called by address: for the module a signature is but a part of a declaration.
    let signature = module.make_signature();
    let mut declare = |f: &Relocatable| {
        module.declare_function(&f.name, Linkage::Local, &signature).map_err(|e| backend(&f.name, e))
    };
    let ids: Vec<FuncId> = image.functions.iter().map(&mut declare).collect::<Result<_, _>>()?;
    let entry = *ids.get(image.entry as usize).ok_or_else(|| backend(name, "no entry"))?;
    for (&id, f) in ids.iter().zip(&image.functions) {
        let relocations: Vec<_> = f.relocations.iter().map(Relocation::in_module).collect();
        module
            .define_function_bytes(id, f.alignment, &f.bytes, &relocations)
            .map_err(|e| backend(&f.name, e))?;
    }
    module.finalize_definitions().map_err(|e| backend(name, e))?;
    #[cfg(target_os = "linux")]
    {
        let symbols: Vec<_> =
            ids.iter().zip(&image.functions).map(|(&id, f)| (id, f.bytes.len(), f.name.clone())).collect();
        announce(&module, &symbols, |_| None).map_err(|e| backend(name, e))?;
    }
    Ok(finish(module, entry))
}

/// Generates native code for a program. `loc` says where what a kernel computes was declared, for `perf`.
///
/// # Errors
/// If the CPU lacks FMA or Cranelift refuses a function.
pub(crate) fn generate(
    program: &Program,
    isa: Isa,
    keep: Keep,
    loc: impl Fn(&str) -> Option<SourceLoc>,
) -> Result<Generated, CompileError> {
    let machine = Machine { speed: native("speed")?, none: native("none")?, vectors: isa };
    let mut module = module(machine.speed.clone(), &program.name)?;
    let defined = define(&mut module, program, &machine, Linkage::Local, keep)?;
    module.finalize_definitions().map_err(|e| backend(&program.name, e))?;
    #[cfg(target_os = "linux")]
    announce(&module, &defined.symbols, loc).map_err(|e| backend(&program.name, e))?;
    #[cfg(not(target_os = "linux"))]
    let _ = loc;
    let image = defined.relocatable.map(|functions| Image { functions, entry: defined.entry.as_u32() });
    Ok(Generated {
        placed: finish(module, defined.entry),
        functions: defined.functions,
        image,
        code_bytes: defined.code_bytes,
    })
}

/// Tells `perf` of these functions, if the environment asks for it.
#[cfg(target_os = "linux")]
fn announce(
    module: &JITModule,
    symbols: &[(FuncId, usize, String)],
    loc: impl Fn(&str) -> Option<SourceLoc>,
) -> std::io::Result<()> {
    use super::perf::{self, Symbol};
    if !perf::wanted() {
        return Ok(());
    }
    let symbol = |(id, size, name): &(FuncId, usize, String)| {
        let code = module.get_finalized_function(*id);
        // SAFETY: the function has been defined with so many bytes, and `module` owns them.
        let bytes = unsafe { std::slice::from_raw_parts(code, *size) };
        Symbol { address: code.addr() as u64, code: bytes.to_vec(), name: name.clone(), loc: loc(name) }
    };
    perf::announce(&symbols.iter().map(symbol).collect::<Vec<_>>())
}
