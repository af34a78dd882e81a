//! The whole pipeline: from a function of a module to an executable, with every stage at hand for
//! dumps.

use crate::assemble::{Assembled, Limits, assemble};
use crate::cache::{CodeCache, Key};
use crate::codegen::{self, CompiledFunction, Image, Isa, Keep, Placed};
use crate::error::CompileError;
use crate::fuse::{Fusion, fuse};
use crate::guard;
use crate::hoist::{self, Hoisted};
use crate::kernel::cost::{Cost, cost};
use crate::kernel::{self, KernelBody};
use crate::layout;
use crate::lower::Target;
use crate::memory_check::check_plan;
use crate::operands;
use crate::pass::{OptLevel, PassOptions, PassRecord};
use crate::pipeline::optimize;
use crate::program::{Program, Step};
use crate::stacked;
use crate::vector;
use graphc_ir::{Bindings, Function, Module, NodeId, Op};
use graphc_runtime::{
    AlignedBuffer, Executable, ExecutableParts, FaultSite, Fence, Guard, Port, StateLayout, StepInfo,
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How to compile.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// The graph passes and fusion.
    pub passes: PassOptions,
    /// Largest number of threads that a run will use: memory is planned for it.
    pub max_threads: usize,
    /// Vector instructions that generated code uses. It can be looked at where they are not
    /// [available](Isa::is_available); to run it is an error there.
    pub isa: Isa,
    /// Keeps CLIF and machine code of every function, for dumps.
    pub keep_code: bool,
    /// Largest arena, in bytes: what a run needs besides state, constants, inputs and outputs. To fit, steps
    /// are reordered and values computed again instead of kept, with the same bits in all results.
    pub budget: Option<u64>,
    /// What kernels store is looked at: a run ends with
    /// [`RuntimeError::NonFinite`](graphc_runtime::RuntimeError::NonFinite) at the first kernel that stores a NaN or
    /// an infinity, and the error names the node that made it. The results keep their bits; the arena is larger.
    pub nan_guard: bool,
    /// Memory of the arena is filled with NaN as soon as it holds no value any more, after each step: a run then
    /// gives the same results, unless something is read that should not be. For tests of the compiler.
    pub poison: bool,
    /// Each buffer of the arena has pages around it that nobody may access, next to it at that end: what a kernel reads
    /// or writes there ends the process. The arena is large, and has no budget. For tests of the compiler.
    pub fence: Option<Fence>,
    /// Where [`compile`] and [`compile_executable`] look for code before they generate some, and keep what they generated.
    /// Not used with `nan_guard`, `poison` or `fence`.
    pub cache: Option<CodeCache>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            passes: PassOptions::default(),
            max_threads: graphc_runtime::available_parallelism(),
            isa: Isa::default(),
            keep_code: false,
            budget: None,
            nan_guard: false,
            poison: false,
            fence: None,
            cache: CodeCache::from_environment(),
        }
    }
}

impl CompileOptions {
    /// The default options at this level.
    pub fn at(level: OptLevel) -> Self {
        Self { passes: PassOptions::at(level), ..Self::default() }
    }
}

/// What each stage made, and how long it took.
#[derive(Clone, Debug)]
pub struct Stages {
    /// The function with its dimensions bound, before the passes.
    pub bound: Function,
    /// The function after the passes.
    pub optimized: Function,
    /// What each pass did.
    pub passes: Vec<PassRecord>,
    /// Kernels, vector IR and memory plan.
    pub assembled: Assembled,
    /// CLIF and machine code, if they were kept.
    pub code: Vec<CompiledFunction>,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Stages by name with their times.
    pub times: Vec<(&'static str, Duration)>,
}

impl Stages {
    /// The programs of the function and, before it, of its regions, each with its function. Its steps are
    /// numbered in this order, see [`Executable::steps`].
    pub fn programs(&self) -> Vec<(&Function, &Assembled)> {
        programs(&self.optimized, &self.assembled)
    }

    /// Time from the bound function to executable code.
    pub fn total_time(&self) -> Duration {
        self.times.iter().map(|t| t.1).sum()
    }
}

fn programs<'a>(f: &'a Function, assembled: &'a Assembled) -> Vec<(&'a Function, &'a Assembled)> {
    let bodies = assembled.program.controls.values().flat_map(|c| &c.bodies);
    let inner = bodies.flat_map(|b| programs(&b.function, &b.assembled));
    inner.chain([(f, assembled)]).collect()
}

/// What is known of each step of a program.
fn steps<'a>(f: &'a Function, assembled: &'a Assembled) -> impl Iterator<Item = StepInfo> + use<'a> {
    let p = &assembled.program;
    let label = |nodes: Vec<NodeId>| nodes.into_iter().map(|n| f.label_at(n)).collect();
    let site = |step: &Step| if let Step::Check { site, .. } = step { Some(*site) } else { None };
    let first_site = p.steps.iter().filter_map(site).min().unwrap_or(0);
    p.steps.iter().map(move |step| match *step {
        Step::Run(k) => {
            let (kernel, nested) = (&p.kernels[k], p.controls.contains_key(&k));
            let Cost { flops, bytes } = cost(kernel, &p.buffers);
            let sources = label(assembled.nodes_of(f, k).0);
            StepInfo {
                name: kernel.name.clone(),
                flops,
                bytes,
                sources,
                parallel: p.scheduled[k].parallel,
                nested,
            }
        }
        Step::Check { buffer, site, .. } => StepInfo {
            name: format!("check{site}"),
            bytes: p.buffers[buffer as usize].bytes() as u64,
            sources: label(vec![assembled.checks[(site - first_site) as usize].node]),
            ..StepInfo::default()
        },
    })
}

/// Layout of a module's state in memory: the same for all of its functions.
///
/// # Errors
/// If the state does not fit in memory.
pub fn state_layout(module: &Module) -> Result<StateLayout, CompileError> {
    let entries = module.state.iter().map(|s| {
        let dims = s.ty.shape.as_static().unwrap_or_default();
        (s.name.to_string(), s.ty.dtype, dims)
    });
    StateLayout::new(entries).map_err(|e| CompileError::TooLarge { bytes: u64::MAX, what: e.to_string() })
}

/// Compiles function `name` of a verified module with its named dimensions bound to numbers.
///
/// # Errors
/// An unknown function, a dimension without a number, a binding that breaks a shape rule, or a
/// program that does not fit in memory or into the budget.
pub fn compile(
    module: &Module,
    name: &str,
    bindings: &Bindings,
    options: &CompileOptions,
) -> Result<Executable, CompileError> {
    let layout = Arc::new(state_layout(module)?);
    compile_executable(find(module, name)?, &layout, bindings, options)
}

fn find<'m>(module: &'m Module, name: &str) -> Result<&'m Function, CompileError> {
    module.function(name).ok_or_else(|| CompileError::UnknownFunction {
        name: name.to_owned(),
        known: module.functions.iter().map(|f| f.name.clone()).collect(),
    })
}

/// Like [`compile`], and gives what each stage made.
///
/// # Errors
/// As [`compile`].
pub fn compile_stages(
    module: &Module,
    name: &str,
    bindings: &Bindings,
    options: &CompileOptions,
) -> Result<(Executable, Stages), CompileError> {
    let layout = Arc::new(state_layout(module)?);
    compile_function(find(module, name)?, &layout, bindings, options)
}

/// Like [`compile_function`], without the stages: takes the code from the cache of `options` if it is there.
///
/// # Errors
/// As [`compile`]. A cache that cannot be read or written is none.
pub fn compile_executable(
    function: &Function,
    layout: &Arc<StateLayout>,
    bindings: &Bindings,
    options: &CompileOptions,
) -> Result<Executable, CompileError> {
    let cache =
        options.cache.as_ref().filter(|_| !options.nan_guard && !options.poison && options.fence.is_none());
    let Some((cache, key)) = cache.and_then(|c| Some((c, Key::of(function, layout, bindings, options)?)))
    else {
        return compile_function(function, layout, bindings, options).map(|c| c.0);
    };
    if let Some((frame, image)) = cache.load(&key)
        && let Ok(placed) = codegen::place(&image, &frame.name)
    {
        return frame.executable(layout, placed, options.isa, Watch::default());
    }
    let (executable, _) =
        generate(function, layout, bindings, options, Some(|f: &_, i: &_| cache.store(&key, f, i)))?;
    Ok(executable)
}

/// Compiles a function that need not be part of the module, such as a gradient, over state laid out
/// as `layout`. The cache is not used.
///
/// # Errors
/// As [`compile`].
pub fn compile_function(
    function: &Function,
    layout: &Arc<StateLayout>,
    bindings: &Bindings,
    options: &CompileOptions,
) -> Result<(Executable, Stages), CompileError> {
    let nothing: Option<fn(&Frame, &Image)> = None;
    generate(function, layout, bindings, options, nothing)
}

/// An executable but for its code and what it gets from outside.
#[derive(Serialize, Deserialize)]
pub(crate) struct Frame {
    name: String,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    arena_bytes: usize,
    constants: Vec<u8>,
    faults: Vec<FaultSite>,
    steps: Vec<StepInfo>,
    max_threads: usize,
}

/// What runs of an executable are watched with.
#[derive(Default)]
struct Watch {
    guard: Option<Guard>,
    poison: Vec<Vec<Range<usize>>>,
    gaps: Vec<Range<usize>>,
}

impl Frame {
    /// The executable with this code for `isa`, which was generated with this frame for state laid out as `state`.
    fn executable(
        self,
        state: &Arc<StateLayout>,
        placed: Placed,
        isa: Isa,
        watch: Watch,
    ) -> Result<Executable, CompileError> {
        let constants = AlignedBuffer::from_bytes(&self.constants, "constants").map_err(|e| {
            CompileError::TooLarge { bytes: self.constants.len() as u64, what: e.to_string() }
        })?;
        let parts = ExecutableParts {
            name: self.name,
            inputs: self.inputs,
            outputs: self.outputs,
            state: state.clone(),
            arena_bytes: self.arena_bytes,
            constants,
            faults: self.faults,
            steps: self.steps.into(),
            guard: watch.guard,
            poison: watch.poison,
            gaps: watch.gaps,
            entry: placed.entry,
            code: placed.code,
            max_threads: self.max_threads,
            lacking: (!isa.is_available()).then(|| isa.name()),
        };
        // SAFETY: `entry` was generated for exactly these ports, this state layout, these constants and
        // an arena of this size with scratch memory for `max_threads` workers; `code` owns its memory.
        Ok(unsafe { Executable::from_parts(parts) })
    }
}

/// Compiles a function; `keep` gets what it takes to make the executable again, if that is possible.
fn generate(
    function: &Function,
    layout: &Arc<StateLayout>,
    bindings: &Bindings,
    options: &CompileOptions,
    keep: Option<impl FnOnce(&Frame, &Image)>,
) -> Result<(Executable, Stages), CompileError> {
    let mut times = Vec::new();
    let mut clock = Instant::now();
    let mut lap = |stage: &'static str| {
        times.push((stage, clock.elapsed()));
        clock = Instant::now();
    };
    let bound = function.bind(bindings)?;
    reject_open_dims(&bound)?;
    lap("bind");
    let (optimized, passes) = optimize(&bound, &options.passes)?;
    lap("passes");
    let fusion = match options.passes.level {
        OptLevel::O0 => Fusion::None,
        OptLevel::O1 => Fusion::Inline,
        OptLevel::O2 | OptLevel::O3 => Fusion::Full,
    };
    let target = Target::of(options.isa, options.max_threads);
    let mut scheduler = Scheduler { options, fusion, layout, target, faults: Vec::new() };
    let (assembled, _) = scheduler.program(&optimized, "", 0..0, &mut lap)?;
    let faults = scheduler.faults;
    lap("schedule");
    let loc = |kernel: &str| {
        let all = programs(&optimized, &assembled);
        let nodes = all.iter().flat_map(|(f, a)| a.program.kernels.iter().map(move |k| (f, k)));
        let (f, k) = nodes.into_iter().find(|(_, k)| k.name == kernel)?;
        f.graph.node(*k.sources.first()?).origin.loc.clone()
    };
    let kept = Keep { text: options.keep_code, relocatable: keep.is_some() };
    let generated = codegen::generate(&assembled.program, options.isa, kept, loc)?;
    lap("codegen");

    let port = |name: &str, ty: &graphc_ir::TensorType| {
        Port::new(name, ty.dtype, ty.shape.as_static().unwrap_or_default())
    };
    let g = &optimized.graph;
    let p = &assembled.program;
    let frame = Frame {
        name: function.name.to_string(),
        inputs: optimized.inputs.iter().map(|&i| port(optimized.input_name(i), g.ty(i))).collect(),
        outputs: optimized.outputs.iter().map(|o| port(&o.name, g.ty(o.node))).collect(),
        arena_bytes: p.scratch_offset + p.scratch_stride * options.max_threads.max(1),
        constants: p.constants.clone(),
        faults,
        steps: programs(&optimized, &assembled).into_iter().flat_map(|(f, a)| steps(f, a)).collect(),
        max_threads: options.max_threads.max(1),
    };
    if let (Some(keep), Some(image)) = (keep, &generated.image) {
        keep(&frame, image);
    }
    let all = programs(&optimized, &assembled);
    let guard = options.nan_guard.then(|| guard::guard(&all));
    let freed = all.iter().filter(|_| options.poison).flat_map(|(_, a)| a.freed(options.max_threads));
    let watch = Watch { guard, poison: freed.collect(), gaps: assembled.gaps.clone() };
    let executable = frame.executable(layout, generated.placed, options.isa, watch)?;
    let stages = Stages {
        bound,
        optimized,
        passes,
        assembled,
        code: generated.functions,
        code_bytes: generated.code_bytes,
        times,
    };
    Ok((executable, stages))
}

/// From functions after the passes to programs.
struct Scheduler<'a> {
    options: &'a CompileOptions,
    fusion: Fusion,
    layout: &'a StateLayout,
    target: Target,
    /// Where the programs made so far can fail, by site.
    faults: Vec<FaultSite>,
}

impl Scheduler<'_> {
    /// The program of `f`; `path` comes before the names of its kernels. `lap` takes the time of
    /// the outermost function's stages, in which those of its regions are contained. `f` may be the
    /// body of a loop, whose inputs `same` are equal in all steps: then there are kernels to be run
    /// before it.
    fn program(
        &mut self,
        f: &Function,
        path: &str,
        same: Range<usize>,
        lap: &mut dyn FnMut(&'static str),
    ) -> Result<(Assembled, Vec<Hoisted>), CompileError> {
        let mut fused = fuse(f, self.fusion);
        lap("fuse");
        layout::choose(f, &mut fused);
        lap("layout");
        let invariant = same.clone().filter_map(|i| fused.buffer_of.get(&f.inputs[i]).copied()).collect();
        operands::make_direct(&mut fused, &invariant, &self.target);
        lap("operands");
        let hoisted = hoist::take(f, &mut fused, same);
        let mut bodies = FxHashMap::default();
        let mut kernels = Vec::with_capacity(fused.kernels.len());
        for mut kernel in std::mem::take(&mut fused.kernels) {
            kernel.name.insert_str(0, path);
            let KernelBody::Region { .. } = &kernel.body else {
                kernels.push(kernel);
                continue;
            };
            let node = kernel.sources[0];
            let path = format!("{}.", kernel.name);
            let regions = f.graph.op(node).regions();
            let mut programs = Vec::with_capacity(regions.len());
            for (i, region) in regions.iter().enumerate() {
                let body = match f.graph.op(node) {
                    Op::Scan(s) => stacked::body(s),
                    _ => region.function().clone(),
                };
                let path = if regions.len() > 1 { format!("{path}{i}.") } else { path.clone() };
                // What a scan gives its body after carries and sequences.
                let same = match f.graph.op(node) {
                    Op::Scan(s) => s.carries + s.sequences..body.inputs.len(),
                    _ => 0..0,
                };
                let (assembled, outside) = self.program(&body, &path, same, &mut |_| {})?;
                for each in outside {
                    kernels.push(each.place(&mut kernel, node, &mut fused.buffers));
                }
                programs.push((body, assembled));
            }
            bodies.insert(node, programs);
            kernels.push(kernel);
        }
        fused.kernels = kernels;
        if !bodies.is_empty() {
            lap("regions");
        }
        let (site, threads) = (self.faults.len() + 1, self.options.max_threads);
        let fence = self.options.fence;
        // The memory of a region is part of the arena around it, which alone has a budget.
        let budget = self.options.budget.filter(|_| path.is_empty() && fence.is_none());
        let limits = Limits { threads, budget, guard: self.options.nan_guard, fence };
        let assembled = assemble(f, fused, bodies, (path, site), self.layout, &self.target, limits)?;
        let g = &f.graph;
        self.faults.extend(assembled.checks.iter().map(|c| FaultSite {
            op: match c.axis {
                Some(axis) => format!("{} (axis {axis})", g.op(c.node).name()),
                None => g.op(c.node).name().to_owned(),
            },
            what: "index".to_owned(),
            bound: c.bound as i64,
            location: g.node(c.node).origin.loc.as_ref().map(ToString::to_string),
        }));
        if cfg!(debug_assertions) {
            check_plan(&assembled.requests, &assembled.plan).map_err(|errors| CompileError::BrokenPass {
                pass: "memory_plan",
                function: f.name.clone(),
                message: errors.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>().join("; "),
            })?;
            verify_program(&assembled.program)?;
        }
        Ok((assembled, hoisted))
    }
}

/// Checks the kernels and their schedules.
fn verify_program(p: &Program) -> Result<(), CompileError> {
    fn broken(p: &Program, pass: &'static str, at: &str, errors: &[impl ToString]) -> CompileError {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CompileError::BrokenPass {
            pass,
            function: p.name.as_str().into(),
            message: format!("{at}: {}", errors.join("; ")),
        }
    }
    for k in &p.kernels {
        kernel::verify::verify(k, &p.buffers).map_err(|e| broken(p, "fuse", &k.name, &e))?;
    }
    for s in &p.scheduled {
        let f = &s.function;
        vector::verify::verify(f, &p.buffers).map_err(|e| broken(p, "schedule", &f.name, &e))?;
    }
    Ok(())
}

fn reject_open_dims(f: &Function) -> Result<(), CompileError> {
    let mut open = None;
    f.visit_dims(&mut |d| open = open.take().or_else(|| d.names().first().cloned()));
    match open {
        Some(name) => Err(CompileError::UnboundDim { name, function: f.name.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dimension_that_no_type_has_must_be_bound_as_well() {
        let text = "graphc 1\nmodule @m\n\nregion @r(%c: f32[]) {\n  %0 = extent {dims = [K], dtype = f32} : f32[]\n  \
                    return out0 = %0\n}\n\nfn @f(%x: f32[]) {\n  %0 = scan(%x) {body = @r, length = 3, carries = 1, \
                    sequences = 0, reverse = false, recompute = false} : f32[]\n  return y = %0\n}\n";
        let module = Module::parse("m", text).unwrap();
        let compiled = |bindings: &Bindings| compile(&module, "f", bindings, &CompileOptions::default());
        let message = compiled(&Bindings::new()).err().map(|e| e.to_string());
        assert_eq!(message.as_deref(), Some("function `f`: dimension `K` is not bound to a number"));
        assert!(compiled(&Bindings::from_iter([("K", 5)])).is_ok());
    }
}
