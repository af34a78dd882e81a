//! The functions of a program in a module of Cranelift, in memory or in an object file: every kernel,
//! the index checks and an entry function that runs all of them in order.

use super::Isa;
use super::control;
use super::emit::Emitter;
use super::x86::{self, Buffers, Code};
use crate::error::CompileError;
use crate::program::{Buffer, Place, Program, Scheduled, Step};
use crate::threads::on_all_threads;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, FuncRef, Function, InstBuilder, MemFlagsData, SigRef, Signature, Type, UserFuncName, Value,
    types,
};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::{CompiledCode, Context};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{FuncId, Linkage, Module, ModuleReloc, ModuleRelocTarget};
use graphc_runtime::abi;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Code of one function, for dumps.
#[derive(Clone, Debug)]
pub struct CompiledFunction {
    /// Its name.
    pub name: String,
    /// Its CLIF, before Cranelift's own optimizations; empty if it is not Cranelift's.
    pub clif: String,
    /// Its instructions.
    pub code: Vec<u8>,
    /// What the code at an offset is for.
    pub notes: Vec<(usize, String)>,
}

/// What is kept of the functions that are defined.
#[derive(Clone, Copy, Default)]
pub(crate) struct Keep {
    /// Text and bytes of every function, for dumps.
    pub(crate) text: bool,
    /// Code that can be put elsewhere.
    pub(crate) relocatable: bool,
}

/// Code of one function that can be put anywhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Relocatable {
    pub(super) name: String,
    pub(super) alignment: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) relocations: Vec<Relocation>,
}

/// A place in code that holds the address of a function.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Relocation {
    offset: u32,
    /// Position in [`KINDS`].
    kind: u8,
    /// Number of the function.
    function: u32,
    addend: i64,
}

/// How addresses of functions are written into code.
const KINDS: [Reloc; 4] = [Reloc::Abs8, Reloc::X86PCRel4, Reloc::X86CallPCRel4, Reloc::Arm64Call];

impl Relocation {
    /// `None` for what is not a function of the module, or written in another way.
    fn of(r: &ModuleReloc) -> Option<Self> {
        let ModuleRelocTarget::User { namespace: 0, index: function } = r.name else { return None };
        let kind = KINDS.iter().position(|&k| k == r.kind)? as u8;
        Some(Self { offset: r.offset, kind, function, addend: r.addend })
    }

    /// The distance, `at` bytes into code, from the end of a jump to a function.
    fn of_jump(at: usize, function: FuncId) -> Self {
        let kind = KINDS.iter().position(|&k| k == Reloc::X86CallPCRel4).expect("it is one of them") as u8;
        Self { offset: at as u32, kind, function: function.as_u32(), addend: -4 }
    }

    pub(super) fn in_module(&self) -> ModuleReloc {
        ModuleReloc {
            offset: self.offset,
            kind: KINDS[usize::from(self.kind) % KINDS.len()],
            name: ModuleRelocTarget::user(0, self.function),
            addend: self.addend,
        }
    }
}

/// What has been defined in a module.
pub(super) struct Defined {
    /// The entry function of the program.
    pub(super) entry: FuncId,
    /// Every function, if it was asked for.
    pub(super) functions: Vec<CompiledFunction>,
    /// Every function by number, if it was asked for and all can be put elsewhere.
    pub(super) relocatable: Option<Vec<Relocatable>>,
    /// Total bytes of machine code.
    pub(super) code_bytes: usize,
    /// Every function with its size in bytes and its name.
    pub(super) symbols: Vec<(FuncId, usize, String)>,
}

/// For which machine code is generated.
pub(super) struct Machine {
    /// With Cranelift's optimizations.
    pub(super) speed: OwnedTargetIsa,
    /// Without.
    pub(super) none: OwnedTargetIsa,
    /// Vectors of the emitter for x86.
    pub(super) vectors: Isa,
}

/// Defines the functions of a program in `module`.
///
/// # Errors
/// If Cranelift refuses a function.
pub(super) fn define<M: Module>(
    module: &mut M,
    program: &Program,
    machine: &Machine,
    linkage: Linkage,
    keep: Keep,
) -> Result<Defined, CompileError> {
    let programs = program.all();
    let mut g = Generator { module, linkage, jobs: Vec::new(), ready: Vec::new() };
    let mut entries: FxHashMap<&str, FuncId> = FxHashMap::default();
    let mut first_step = 0;
    for (p, wide) in programs.iter().zip(wide_kernels(&programs, machine.vectors)) {
        let entry = g.functions(p, first_step, wide, &entries)?;
        entries.insert(&p.name, entry);
        first_step += p.steps.len();
    }
    let entry = entries[program.name.as_str()];
    let Generator { module, jobs, ready, .. } = g;
    let compiled = compile_all(&jobs, &machine.speed, &machine.none)?;
    let mut defined =
        Defined { entry, functions: Vec::new(), relocatable: None, code_bytes: 0, symbols: Vec::new() };
    let mut movable: Vec<(FuncId, Option<Relocatable>)> = Vec::new();
    for (job, code) in jobs.iter().zip(&compiled) {
        let relocs: Vec<ModuleReloc> = code
            .buffer
            .relocs()
            .iter()
            .map(|r| ModuleReloc::from_mach_reloc(r, &job.context.func, job.id))
            .collect();
        module
            .define_function_bytes(job.id, u64::from(code.buffer.alignment), code.code_buffer(), &relocs)
            .map_err(|e| backend(&job.name, e))?;
        defined.code_bytes += code.code_buffer().len();
        defined.symbols.push((job.id, code.code_buffer().len(), job.name.clone()));
        if keep.relocatable {
            let relocations: Option<_> = relocs.iter().map(Relocation::of).collect();
            let code = relocations.map(|relocations| Relocatable {
                name: job.name.clone(),
                alignment: u64::from(code.buffer.alignment),
                bytes: code.code_buffer().to_vec(),
                relocations,
            });
            movable.push((job.id, code));
        }
        if keep.text {
            defined.functions.push(CompiledFunction {
                name: job.name.clone(),
                clif: job.context.func.display().to_string(),
                code: code.code_buffer().to_vec(),
                notes: Vec::new(),
            });
        }
    }
    for Ready { id, name, code, relocations } in ready {
        let relocs: Vec<ModuleReloc> = relocations.iter().map(Relocation::in_module).collect();
        module
            .define_function_bytes(id, WIDE_ALIGNMENT, &code.bytes, &relocs)
            .map_err(|e| backend(&name, e))?;
        defined.code_bytes += code.bytes.len();
        defined.symbols.push((id, code.bytes.len(), name.clone()));
        if keep.text {
            defined.functions.push(CompiledFunction {
                name: name.clone(),
                clif: String::new(),
                code: code.bytes[..code.instructions].to_vec(),
                notes: code.notes.clone(),
            });
        }
        if keep.relocatable {
            let (alignment, bytes) = (WIDE_ALIGNMENT, code.bytes);
            movable.push((id, Some(Relocatable { name, alignment, bytes, relocations })));
        }
    }
    if keep.relocatable {
        movable.sort_by_key(|m| m.0);
        defined.relocatable = movable.into_iter().map(|m| m.1).collect();
    }
    Ok(defined)
}

pub(super) fn backend(function: &str, e: impl std::fmt::Display) -> CompileError {
    CompileError::Backend { function: function.into(), message: e.to_string() }
}

/// Of kernels with 256- and 512-bit vectors: a line of the cache, and where their constants need it.
const WIDE_ALIGNMENT: u64 = 64;

/// One function waiting for Cranelift.
struct Job {
    id: FuncId,
    name: String,
    context: Context,
    /// Scheduled bodies keep their order only at Cranelift's level `none`.
    scheduled: bool,
}

/// Code of a kernel that the emitter of wide vectors takes.
enum Wide {
    /// Its own.
    Own(Code),
    /// That of several kernels, by number.
    Shared(usize),
}

/// What the emitter of wide vectors makes of a program's kernels.
#[derive(Default)]
struct WideKernels {
    /// By kernel; `None` is left to Cranelift.
    kernels: Vec<Option<Wide>>,
    /// Code that kernels share, with its name.
    shared: Vec<(String, Code)>,
}

/// Compiles the kernels of programs that the emitter of wide vectors takes; those that are alike once.
fn wide_kernels(programs: &[&Program], isa: Isa) -> Vec<WideKernels> {
    // All programs' together, for those of a loop's body alone are too few for several threads.
    let each = |(number, p): (usize, &&Program)| (0..p.scheduled.len()).map(move |k| (number, k));
    let places: Vec<(usize, usize)> = programs.iter().enumerate().flat_map(each).collect();
    let all: Vec<&Scheduled> = places.iter().map(|&(p, k)| &programs[p].scheduled[k]).collect();
    let mut wide: Vec<WideKernels> = programs.iter().map(|_| WideKernels::default()).collect();
    let Some(vectors) = isa.vectors() else {
        places.iter().for_each(|&(p, _)| wide[p].kernels.push(None));
        return wide;
    };
    let mut firsts: FxHashMap<(usize, usize), usize> = FxHashMap::default();
    let mut alone = vec![true; all.len()];
    let mut first: Vec<usize> = Vec::with_capacity(all.len());
    for (i, &(p, k)) in places.iter().enumerate() {
        let known = *firsts.entry((p, programs[p].alike[k])).or_insert(i);
        alone[known] &= known == i;
        first.push(known);
    }
    let distinct: Vec<usize> = (0..all.len()).filter(|&k| first[k] == k).collect();
    let order: Vec<usize> = (0..distinct.len()).collect();
    let compiled = on_all_threads(&order, |i| {
        let (k, s) = (distinct[i], all[distinct[i]]);
        let buffers = if alone[k] { Buffers::Own } else { Buffers::Table };
        if s.units == 0 {
            None
        } else {
            x86::compile(programs[places[k].0], &s.function, vectors, buffers).ok()
        }
    });
    let mut own: FxHashMap<usize, Code> = FxHashMap::default();
    let mut shared: FxHashMap<usize, usize> = FxHashMap::default();
    for (&k, code) in distinct.iter().zip(compiled) {
        let Some(code) = code.flatten() else { continue };
        if alone[k] {
            own.insert(k, code);
        } else {
            let of_program = &mut wide[places[k].0].shared;
            shared.insert(k, of_program.len());
            of_program.push((format!("{}.shared", all[k].function.name), code));
        }
    }
    for (k, &(p, _)) in places.iter().enumerate() {
        let code = own.remove(&k).map(Wide::Own);
        wide[p].kernels.push(code.or_else(|| shared.get(&first[k]).copied().map(Wide::Shared)));
    }
    wide
}

/// Compiles the functions on all threads; the results are in the order of the jobs.
fn compile_all(
    jobs: &[Job],
    speed: &OwnedTargetIsa,
    none: &OwnedTargetIsa,
) -> Result<Vec<CompiledCode>, CompileError> {
    // Large functions first, so that no thread is left with one at the end.
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(jobs[i].context.func.dfg.num_insts()));
    let compiled = on_all_threads(&order, |i| {
        let job = &jobs[i];
        let isa = if job.scheduled { none } else { speed };
        let mut context = Context::for_function(job.context.func.clone());
        match context.compile(&**isa, &mut ControlPlane::default()) {
            Ok(_) => context.take_compiled_code().ok_or_else(|| backend(&job.name, "no code")),
            Err(e) => Err(backend(&job.name, format!("{:?}", e.inner))),
        }
    });
    let missing = || Err(backend("", "a compiling thread ended early"));
    compiled.into_iter().map(|r| r.unwrap_or_else(missing)).collect()
}

/// Steps of a program that one function runs: Cranelift takes more than in proportion for larger ones.
const ENTRY_STEPS: usize = 64;

/// What entry functions call.
struct Steps<'a> {
    program: &'a Program,
    kernels: &'a [FuncId],
    /// The checks by their sites.
    checks: &'a [(u64, FuncId)],
}

struct Generator<'m, M> {
    module: &'m mut M,
    linkage: Linkage,
    jobs: Vec<Job>,
    ready: Vec<Ready>,
}

/// A function that has code.
struct Ready {
    id: FuncId,
    name: String,
    code: Code,
    relocations: Vec<Relocation>,
}

impl<M: Module> Generator<'_, M> {
    fn signature(&self, params: usize, result: Option<Type>) -> Signature {
        let mut s = self.module.make_signature();
        s.params = vec![AbiParam::new(types::I64); params];
        s.returns = result.into_iter().map(AbiParam::new).collect();
        s
    }

    fn declare(&mut self, name: &str, signature: &Signature) -> Result<FuncId, CompileError> {
        self.module.declare_function(name, self.linkage, signature).map_err(|e| backend(name, e))
    }

    fn define(
        &mut self,
        id: FuncId,
        name: &str,
        signature: Signature,
        scheduled: bool,
        emit: impl FnOnce(&mut M, &mut Function, &mut FunctionBuilderContext),
    ) {
        let mut func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), signature);
        let mut fcx = FunctionBuilderContext::new();
        emit(self.module, &mut func, &mut fcx);
        self.jobs.push(Job { id, name: name.to_owned(), context: Context::for_function(func), scheduled });
    }

    /// Emits the functions of a program but the kernels that have code; returns the entry. Observers
    /// know its steps by numbers from `first_step` on. `entries` has those of its regions, by the names of
    /// their programs.
    fn functions(
        &mut self,
        program: &Program,
        first_step: usize,
        wide: WideKernels,
        entries: &FxHashMap<&str, FuncId>,
    ) -> Result<FuncId, CompileError> {
        let mut kernels = Vec::new();
        let mut shared = Vec::new();
        for (name, code) in wide.shared {
            let id = self.declare(&name, &self.signature(5, None))?;
            shared.push(id);
            self.ready.push(Ready { id, name, code, relocations: Vec::new() });
        }
        for (k, (s, code)) in program.scheduled.iter().zip(wide.kernels).enumerate() {
            if let Some(control) = program.controls.get(&k) {
                let signature = self.signature(1, Some(types::I32));
                let id = self.declare(&s.function.name, &signature)?;
                kernels.push(id);
                let bodies: Vec<FuncId> =
                    control.bodies.iter().map(|b| entries[b.assembled.program.name.as_str()]).collect();
                self.define(id, &s.function.name, signature, false, |module, func, fcx| {
                    let bodies: Vec<FuncRef> =
                        bodies.iter().map(|&b| module.declare_func_in_func(b, func)).collect();
                    let mut b = FunctionBuilder::new(func, fcx);
                    control::emit(&mut b, program, k, &bodies);
                    b.finalize(module.isa().frontend_config());
                });
                continue;
            }
            let signature = self.signature(4, None);
            let id = self.declare(&s.function.name, &signature)?;
            kernels.push(id);
            if let Some(code) = code {
                let (code, relocations) = match code {
                    Wide::Own(code) => (code, Vec::new()),
                    Wide::Shared(i) => {
                        let (code, distance) = x86::with_table(program, &s.function);
                        (code, vec![Relocation::of_jump(distance, shared[i])])
                    }
                };
                self.ready.push(Ready { id, name: s.function.name.clone(), code, relocations });
                continue;
            }
            self.define(id, &s.function.name, signature, s.function.scheduled, |module, func, fcx| {
                let mut b = FunctionBuilder::new(func, fcx);
                Emitter::kernel(&mut b, program, &s.function);
                b.finalize(module.isa().frontend_config());
            });
        }
        let mut checks = Vec::new();
        for step in &program.steps {
            let Step::Check { buffer, bound, site } = *step else { continue };
            let name = format!("check{site}");
            let signature = self.signature(1, None);
            let id = self.declare(&name, &signature)?;
            checks.push((site, id));
            self.define(id, &name, signature, false, |module, func, fcx| {
                let record = func.import_signature({
                    let mut s = module.make_signature();
                    s.params = vec![AbiParam::new(types::I64); 4];
                    s
                });
                let mut b = FunctionBuilder::new(func, fcx);
                emit_check(&mut b, program, buffer, bound, site, record);
                b.finalize(module.isa().frontend_config());
            });
        }
        let name = format!("entry.{}", program.name);
        let own = Steps { program, kernels: &kernels, checks: &checks };
        let mut parts = Vec::new();
        if program.steps.len() > ENTRY_STEPS {
            for (i, from) in (0..program.steps.len()).step_by(ENTRY_STEPS).enumerate() {
                let to = program.steps.len().min(from + ENTRY_STEPS);
                parts.push(self.entry(&format!("{name}.part{i}"), &own, from..to, first_step)?);
            }
            return self.sequence(&name, &parts);
        }
        self.entry(&name, &own, 0..program.steps.len(), first_step)
    }

    /// A function that runs a range of a program's steps.
    fn entry(
        &mut self,
        name: &str,
        own: &Steps<'_>,
        steps: Range<usize>,
        first_step: usize,
    ) -> Result<FuncId, CompileError> {
        let signature = self.signature(1, Some(types::I32));
        let id = self.declare(name, &signature)?;
        self.define(id, name, signature, false, |module, func, fcx| {
            let mut import = |params: usize, returns: &[Type]| {
                let mut s = module.make_signature();
                s.params = vec![AbiParam::new(types::I64); params];
                s.returns = returns.iter().copied().map(AbiParam::new).collect();
                func.import_signature(s)
            };
            let signatures = [import(4, &[]), import(2, &[types::I32])];
            let mut b = FunctionBuilder::new(func, fcx);
            emit_entry(&mut b, module, own, steps, first_step, signatures);
            b.finalize(module.isa().frontend_config());
        });
        Ok(id)
    }

    /// A function that runs others of the kind of [`Self::entry`] in order, up to the first that fails.
    fn sequence(&mut self, name: &str, parts: &[FuncId]) -> Result<FuncId, CompileError> {
        let signature = self.signature(1, Some(types::I32));
        let id = self.declare(name, &signature)?;
        self.define(id, name, signature, false, |module, func, fcx| {
            let parts: Vec<FuncRef> = parts.iter().map(|&p| module.declare_func_in_func(p, func)).collect();
            let mut b = FunctionBuilder::new(func, fcx);
            emit_sequence(&mut b, &parts);
            b.finalize(module.isa().frontend_config());
        });
        Ok(id)
    }
}

pub(super) const fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// Runs the steps in order; returns 1 after a failed check, what a kernel with regions or the observer
/// returns if it is not 0, else 0.
fn emit_entry<M: Module>(
    b: &mut FunctionBuilder<'_>,
    module: &mut M,
    own: &Steps<'_>,
    steps: Range<usize>,
    first_step: usize,
    [parallel_for, observe]: [SigRef; 2],
) {
    let program = own.program;
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let cx = b.block_params(entry)[0];
    let failed = b.create_block();
    let status = b.append_block_param(failed, types::I32);
    let zero = b.ins().iconst(types::I64, 0);
    let fault = b.ins().iconst(types::I32, 1);
    let observer = b.ins().load(types::I64, flags(), cx, abi::OFFSET_OBSERVE);
    for (step, number) in program.steps[steps.clone()].iter().zip(first_step + steps.start..) {
        match *step {
            Step::Run(k) if program.controls.contains_key(&k) => {
                let kernel = module.declare_func_in_func(own.kernels[k], b.func);
                let call = b.ins().call(kernel, &[cx]);
                let result = b.inst_results(call)[0];
                let next = b.create_block();
                b.ins().brif(result, failed, &[result.into()], next, &[]);
                b.switch_to_block(next);
            }
            Step::Run(k) => {
                let s = &program.scheduled[k];
                if s.units == 0 {
                    continue;
                }
                let kernel = module.declare_func_in_func(own.kernels[k], b.func);
                let units = b.ins().iconst(types::I64, s.units as i64);
                if s.parallel {
                    let spread = b.ins().load(types::I64, flags(), cx, abi::OFFSET_PARALLEL_FOR);
                    let pool = b.ins().load(types::I64, flags(), cx, abi::OFFSET_POOL);
                    let address = b.ins().func_addr(types::I64, kernel);
                    b.ins().call_indirect(parallel_for, spread, &[pool, address, cx, units]);
                } else {
                    b.ins().call(kernel, &[cx, zero, units, zero]);
                }
            }
            Step::Check { site, .. } => {
                if let Some(&(_, check)) = own.checks.iter().find(|c| c.0 == site) {
                    let check = module.declare_func_in_func(check, b.func);
                    b.ins().call(check, &[cx]);
                    let node = b.ins().load(types::I64, flags(), cx, abi::OFFSET_ERROR_NODE);
                    let next = b.create_block();
                    b.ins().brif(node, failed, &[fault.into()], next, &[]);
                    b.switch_to_block(next);
                }
            }
        }
        let (watched, next) = (b.create_block(), b.create_block());
        b.set_cold_block(watched);
        b.ins().brif(observer, watched, &[], next, &[]);
        b.switch_to_block(watched);
        let number = b.ins().iconst(types::I64, number as i64);
        let call = b.ins().call_indirect(observe, observer, &[cx, number]);
        let stop = b.inst_results(call)[0];
        b.ins().brif(stop, failed, &[stop.into()], next, &[]);
        b.switch_to_block(next);
    }
    let ok = b.ins().iconst(types::I32, 0);
    b.ins().return_(&[ok]);
    b.switch_to_block(failed);
    b.ins().return_(&[status]);
    b.seal_all_blocks();
}

/// Runs functions in order until one of them returns a status that is not 0, which is the result.
fn emit_sequence(b: &mut FunctionBuilder<'_>, parts: &[FuncRef]) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let cx = b.block_params(entry)[0];
    let done = b.create_block();
    let status = b.append_block_param(done, types::I32);
    for &part in parts {
        let call = b.ins().call(part, &[cx]);
        let result = b.inst_results(call)[0];
        let next = b.create_block();
        b.ins().brif(result, done, &[result.into()], next, &[]);
        b.switch_to_block(next);
    }
    let ok = b.ins().iconst(types::I32, 0);
    b.ins().jump(done, &[ok.into()]);
    b.switch_to_block(done);
    b.ins().return_(&[status]);
    b.seal_all_blocks();
}

/// The address of a buffer.
pub(super) fn address(b: &mut FunctionBuilder<'_>, cx: Value, buffer: &Buffer) -> Value {
    let (base, offset) = match buffer.place {
        Place::Arena(offset) => (b.ins().load(types::I64, flags(), cx, abi::OFFSET_ARENA), offset),
        Place::State(offset) => (b.ins().load(types::I64, flags(), cx, abi::OFFSET_STATE), offset),
        Place::Constant(offset) => (b.ins().load(types::I64, flags(), cx, abi::OFFSET_CONSTANTS), offset),
        Place::Input(i) | Place::Output(i) => {
            let ports = if matches!(buffer.place, Place::Input(_)) {
                abi::OFFSET_INPUTS
            } else {
                abi::OFFSET_OUTPUTS
            };
            let list = b.ins().load(types::I64, flags(), cx, ports);
            (b.ins().load(types::I64, flags(), list, 8 * i as i32), 0)
        }
    };
    b.ins().iadd_imm_s(base, offset as i64)
}

/// Reports the first element of an index buffer that is not in `0..bound`.
fn emit_check(
    b: &mut FunctionBuilder<'_>,
    program: &Program,
    buffer: u32,
    bound: i64,
    site: u64,
    record: SigRef,
) {
    let buffer = &program.buffers[buffer as usize];
    let n: usize = buffer.dims.iter().product();
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let cx = b.block_params(entry)[0];
    let base = address(b, cx, buffer);
    let (head, body, bad, done) = (b.create_block(), b.create_block(), b.create_block(), b.create_block());
    let i = b.append_block_param(head, types::I64);
    let zero = b.ins().iconst(types::I64, 0);
    b.ins().jump(head, &[zero.into()]);
    b.switch_to_block(head);
    let end = b.ins().iconst(types::I64, n as i64);
    let more = b.ins().icmp(IntCC::SignedLessThan, i, end);
    b.ins().brif(more, body, &[], done, &[]);
    b.switch_to_block(body);
    let size = buffer.dtype.size_bytes();
    let bytes = b.ins().ishl_imm_u(i, i64::from(size.trailing_zeros()));
    let address = b.ins().iadd(base, bytes);
    let value = if size == 8 && !fault!(37) {
        b.ins().load(types::I64, flags(), address, 0)
    } else {
        let narrow = b.ins().load(types::I32, flags(), address, 0);
        b.ins().sextend(types::I64, narrow)
    };
    let bound = b.ins().iconst(types::I64, bound);
    let ok = b.ins().icmp(IntCC::UnsignedLessThan, value, bound);
    let next = b.ins().iadd_imm_s(i, 1);
    b.ins().brif(ok, head, &[next.into()], bad, &[]);
    b.switch_to_block(bad);
    let report = b.ins().load(types::I64, flags(), cx, abi::OFFSET_RECORD_FAULT);
    let site = b.ins().iconst(types::I64, site as i64);
    b.ins().call_indirect(record, report, &[cx, site, i, value]);
    b.ins().jump(done, &[]);
    b.switch_to_block(done);
    b.ins().return_(&[]);
    b.seal_all_blocks();
}
