//! One function run in many ways: by the interpreter, and compiled at every level, with every set of
//! vector instructions that the machine has, on one, two and three threads. All must give the same bits
//! (any NaN equals any NaN), in outputs and in the state that the function leaves.
//!
//! ```
//! use graphc::differential::{Config, Values, compare};
//! use graphc::{DType, ModuleBuilder};
//!
//! let m = ModuleBuilder::new("m");
//! m.function("f", |f| {
//!     let x = f.input("x", DType::F32, [3, 5]);
//!     f.output("y", x.softmax(1));
//! });
//! let module = m.build()?;
//! let values = Values::drawn(&module, &module.functions[0], 1);
//! for config in Config::all() {
//!     assert_eq!(compare(&module, &module.functions[0], &values, &config), Ok(()));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod locate;
mod values;

pub use locate::{NodeDifference, Run, locate};
pub use values::Values;

use crate::compiler::{CompileError, Stages, compile_function, remove_dead, state_layout};
use crate::ir::evaluate;
#[cfg(all(target_os = "linux", not(miri)))]
use crate::runtime::Fenced;
use crate::runtime::{Elements, Fence, RuntimeError, StateLayout};
use crate::{
    Bindings, CompileOptions, Executable, Function, Isa, Literal, Module, OptLevel, RunContext, State,
    TensorType, ThreadPool, Value, ValueMut,
};
use graphc_ir::Scalar;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

/// A way to compile and run a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// How much is optimized.
    pub level: OptLevel,
    /// Vector instructions.
    pub isa: Isa,
    /// Threads, from 1 to [`Config::MAX_THREADS`].
    pub threads: usize,
    /// See [`CompileOptions::poison`].
    pub poison: bool,
    /// See [`CompileOptions::fence`]; inputs and outputs are fenced there, too.
    pub fence: Option<Fence>,
    /// Whether batched products of any size become loops ([`PassOptions::wide`](crate::PassOptions::wide)).
    pub loops: bool,
    /// Whether the arena is as small as it can be made ([`CompileOptions::budget`]), unless there is a fence.
    pub tight: bool,
}

impl Config {
    /// Memory is planned for so many threads, however many run.
    pub const MAX_THREADS: usize = 3;

    /// Every level, with every set of vector instructions that this machine has, on every number of
    /// threads; the simplest first.
    pub fn all() -> Vec<Self> {
        let isas: Vec<Isa> = Isa::ALL.into_iter().filter(|i| i.is_available()).collect();
        let mut all = Vec::new();
        for level in [OptLevel::O0, OptLevel::O1, OptLevel::O2, OptLevel::O3] {
            for &isa in &isas {
                all.extend((1..=Self::MAX_THREADS).map(|threads| Self {
                    level,
                    isa,
                    threads,
                    poison: false,
                    fence: None,
                    loops: false,
                    tight: false,
                }));
            }
        }
        all
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.threads == 1 { "" } else { "s" };
        let poison = if self.poison { ", poison" } else { "" };
        let loops = if self.loops { ", loops over batches" } else { "" };
        let tight = if self.tight { ", least memory" } else { "" };
        write!(f, "{:?}, {}, {} thread{s}{poison}{loops}{tight}", self.level, self.isa, self.threads)?;
        self.fence.map_or(Ok(()), |end| write!(f, ", fenced at the {}", format!("{end:?}").to_lowercase()))
    }
}

/// What a run gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// Outputs in order; none if the run failed.
    pub outputs: Vec<Literal>,
    /// State after the run, in the order of the module: as before if the run failed.
    pub state: Vec<Literal>,
    /// Why the run failed: an index out of range.
    pub failure: Option<String>,
    /// Why it may fail: of what no result needs an index is out of range, and passes may leave that in or not.
    pub may_fail: Option<String>,
}

/// Why a configuration is not as good as the interpreter.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// An element differs.
    Element(ElementDifference),
    /// Generated code failed where the interpreter does not.
    Failure(String),
    /// The interpreter fails, generated code does not.
    NoFailure(String),
    /// The function was not compiled.
    Compile(String),
    /// Compiler or runtime panicked.
    Panic(String),
}

/// An element that differs.
#[derive(Clone, Debug)]
pub struct ElementDifference {
    /// `output NAME` or `state NAME`.
    pub place: String,
    /// Position among the outputs, or behind them among the state.
    pub position: usize,
    /// Its type.
    pub ty: TensorType,
    /// Which element, row-major: the first that differs.
    pub element: usize,
    /// How many differ.
    pub count: usize,
    /// What the interpreter gives.
    pub expected: Scalar,
    /// What generated code gives.
    pub got: Scalar,
}

impl PartialEq for ElementDifference {
    fn eq(&self, other: &Self) -> bool {
        (self.position, self.element, self.count) == (other.position, other.element, other.count)
            && same(self.expected, other.expected)
            && same(self.got, other.got)
    }
}

impl fmt::Display for ElementDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, ty, element, count, expected, got, .. } = self;
        write!(f, "{place} : {ty}, element {element}: interpreter {expected:?}, generated {got:?}")?;
        if *count > 1 { write!(f, " ({count} elements differ)") } else { Ok(()) }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element(d) => d.fmt(f),
            Self::Failure(e) => write!(f, "generated code fails, the interpreter does not: {e}"),
            Self::NoFailure(e) => write!(f, "the interpreter fails, generated code does not: {e}"),
            Self::Compile(e) => write!(f, "not compiled: {e}"),
            Self::Panic(e) => write!(f, "panicked: {e}"),
        }
    }
}

/// Equal bits, or both NaN.
fn same(a: Scalar, b: Scalar) -> bool {
    a == b || (a.dtype() == b.dtype() && a.to_f64().is_nan() && b.to_f64().is_nan())
}

/// What the interpreter gives for a function whose dimensions are numbers.
///
/// # Panics
/// If the values do not fit the function.
pub fn interpret(function: &Function, values: &Values) -> Results {
    let state = |id: crate::ir::StateId| values.state[id.index()].clone();
    let whole = evaluate(function, &values.inputs, state);
    let may_fail = whole.as_ref().err().map(ToString::to_string);
    match whole.or_else(|_| evaluate(&remove_dead(function), &values.inputs, state)) {
        Ok(evaluation) => {
            let mut state = values.state.clone();
            evaluation.updates.into_iter().for_each(|(id, value)| state[id.index()] = value);
            Results { outputs: evaluation.outputs, state, failure: None, may_fail }
        }
        Err(e) => {
            let failure = Some(e.to_string());
            Results { outputs: Vec::new(), state: values.state.clone(), failure, may_fail }
        }
    }
}

/// Compiles and runs a function whose dimensions are numbers.
///
/// # Errors
/// [`Mismatch::Compile`] and [`Mismatch::Panic`].
pub fn execute(
    module: &Module,
    function: &Function,
    values: &Values,
    config: &Config,
) -> Result<Results, Mismatch> {
    execute_with(module, function, values, &options(config), config.threads).map(|r| r.0)
}

/// How to compile for a configuration.
pub fn options(config: &Config) -> CompileOptions {
    let &Config { level, isa, threads: _, poison, fence, loops, tight } = config;
    let budget = tight.then_some(0);
    let max_threads = Config::MAX_THREADS;
    let mut options = CompileOptions { max_threads, isa, poison, fence, budget, ..CompileOptions::at(level) };
    if loops {
        options.passes.wide = 1;
    }
    options
}

/// Like [`execute`] with options of the caller's own, on so many threads (at most
/// [`Config::MAX_THREADS`]); gives what each stage of the compiler made, too. A budget that is too small stands for the least that is
/// found.
///
/// # Errors
/// As [`execute`].
pub fn execute_with(
    module: &Module,
    function: &Function,
    values: &Values,
    options: &CompileOptions,
    threads: usize,
) -> Result<(Results, Stages), Mismatch> {
    caught(|| compile_and_run(module, function, values, options, threads))?
}

/// What `f` gives. Nothing that a panic may leave half done may be used again.
///
/// # Errors
/// [`Mismatch::Panic`] if it panics.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Mismatch> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Mismatch::Panic(text.unwrap_or_else(|| "no message".to_owned()))
    })
}

fn pool(threads: usize) -> Result<Arc<ThreadPool>, Mismatch> {
    static POOLS: LazyLock<Vec<Option<Arc<ThreadPool>>>> =
        LazyLock::new(|| (1..=Config::MAX_THREADS).map(|n| ThreadPool::new(n).ok().map(Arc::new)).collect());
    let pool = POOLS.get(threads.wrapping_sub(1)).cloned().flatten();
    pool.ok_or_else(|| Mismatch::Compile(format!("there is no pool of {threads} threads")))
}

/// Compiles a function whose dimensions are numbers, for instructions that this machine may lack; a budget that is too small
/// stands for the least that is found.
///
/// # Errors
/// [`Mismatch::Compile`] and [`Mismatch::Panic`].
pub fn compiles(module: &Module, function: &Function, options: &CompileOptions) -> Result<(), Mismatch> {
    caught(|| compile(module, function, options)).flatten().map(|_| ())
}

fn compile_error(e: &dyn fmt::Display) -> Mismatch {
    Mismatch::Compile(e.to_string())
}

fn compile(
    module: &Module,
    function: &Function,
    options: &CompileOptions,
) -> Result<(Arc<StateLayout>, Executable, Stages), Mismatch> {
    let layout = Arc::new(state_layout(module).map_err(|e| compile_error(&e))?);
    let compile = |options: &CompileOptions| compile_function(function, &layout, &Bindings::new(), options);
    let compiled = match compile(options) {
        Err(CompileError::Budget { least, .. }) => {
            compile(&CompileOptions { budget: Some(least), ..options.clone() })
        }
        compiled => compiled,
    };
    let (exe, stages) = compiled.map_err(|e| compile_error(&e))?;
    Ok((layout, exe, stages))
}

fn compile_and_run(
    module: &Module,
    function: &Function,
    values: &Values,
    options: &CompileOptions,
    threads: usize,
) -> Result<(Results, Stages), Mismatch> {
    let (layout, exe, stages) = compile(module, function, options)?;
    let mut cx = RunContext::new(&exe, pool(threads)?).map_err(|e| compile_error(&e))?;
    // NaN in every float type: what is read before it is written shows.
    cx.fill_arena(0xff);
    let mut state = State::zeros(layout).map_err(|e| compile_error(&e))?;
    for (var, value) in module.state.iter().zip(&values.state) {
        state.copy_from(&var.name, Elements::from(value).value()).map_err(|e| compile_error(&e))?;
    }
    let hold = |elements| Held::new(elements, options.fence).map_err(|e| compile_error(&e));
    let inputs: Vec<Held> = values.inputs.iter().map(|v| hold(v.into())).collect::<Result<_, _>>()?;
    let inputs: Vec<Value<'_>> = inputs.iter().map(Held::value).collect();
    let ports = exe.outputs();
    let unwritten = ports.iter().map(|p| hold(Elements::from_fn(p.dtype, p.num_elements(), |_| 77.0)));
    let mut outputs: Vec<Held> = unwritten.collect::<Result<_, _>>()?;
    let mut slots: Vec<ValueMut<'_>> = outputs.iter_mut().map(Held::value_mut).collect();
    let failure = exe.run(&mut cx, &mut state, &inputs, &mut slots).err().map(|e| e.to_string());
    let literal = |dtype, dims: &[usize], value: Value<'_>| {
        let mut elements = Elements::zeros(dtype, value.len());
        elements.write(0, value);
        Literal::from_fn(dtype, dims, |i| elements.get(i))
    };
    let outputs = match failure {
        Some(_) => Vec::new(),
        None => ports.iter().zip(&outputs).map(|(p, v)| literal(p.dtype, &p.dims, v.value())).collect(),
    };
    let state = state.iter().map(|(entry, value)| literal(entry.dtype, &entry.dims, value)).collect();
    Ok((Results { outputs, state, failure, may_fail: None }, stages))
}

/// An input or output. Fenced, it ends where a page begins that nobody may access, or begins where one ends.
enum Held {
    Plain(Elements),
    #[cfg(all(target_os = "linux", not(miri)))]
    Fenced(Fenced),
}

impl Held {
    fn new(elements: Elements, fence: Option<Fence>) -> Result<Self, RuntimeError> {
        #[cfg(all(target_os = "linux", not(miri)))]
        if let Some(end) = fence {
            return Fenced::new(elements.value(), end).map(Self::Fenced);
        }
        let _ = fence;
        Ok(Self::Plain(elements))
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Plain(elements) => elements.value(),
            #[cfg(all(target_os = "linux", not(miri)))]
            Self::Fenced(fenced) => fenced.value(),
        }
    }

    fn value_mut(&mut self) -> ValueMut<'_> {
        match self {
            Self::Plain(elements) => elements.value_mut(),
            #[cfg(all(target_os = "linux", not(miri)))]
            Self::Fenced(fenced) => fenced.value_mut(),
        }
    }
}

/// Compares what generated code gives with what the interpreter gives.
///
/// Where the interpreter fails generated code may succeed if it was made at a `level` above
/// [`OptLevel::O0`], as passes may drop an index that nothing needs; if it fails too, it must have left the state
/// alone.
///
/// # Errors
/// The first element that differs, or a failure of generated code alone.
pub fn same_results(
    module: &Module,
    function: &Function,
    expected: &Results,
    got: &Results,
    level: OptLevel,
) -> Result<(), Mismatch> {
    match (&expected.failure, &got.failure) {
        (None, Some(_)) if expected.may_fail.is_some() => return Ok(()),
        (None, Some(e)) => return Err(Mismatch::Failure(e.clone())),
        (Some(e), None) if level == OptLevel::O0 => return Err(Mismatch::NoFailure(e.clone())),
        (Some(_), None) => return Ok(()),
        _ => {}
    }
    let names = function.outputs.iter().map(|o| format!("output {}", o.name));
    let names =
        names.take(expected.outputs.len()).chain(module.state.iter().map(|s| format!("state {}", s.name)));
    let pairs = expected.outputs.iter().chain(&expected.state).zip(got.outputs.iter().chain(&got.state));
    for (position, (place, (e, g))) in names.zip(pairs).enumerate() {
        let mut differing = (0..e.len()).filter(|&i| !same(e.get(i), g.get(i)));
        if let Some(element) = differing.next() {
            return Err(Mismatch::Element(ElementDifference {
                place,
                position,
                ty: e.ty(),
                element,
                count: 1 + differing.count(),
                expected: e.get(element),
                got: g.get(element),
            }));
        }
    }
    Ok(())
}

/// Runs a function whose dimensions are numbers by the interpreter and as `config` says.
///
/// # Errors
/// How the two differ.
pub fn compare(
    module: &Module,
    function: &Function,
    values: &Values,
    config: &Config,
) -> Result<(), Mismatch> {
    let expected = interpret(function, values);
    same_results(module, function, &expected, &execute(module, function, values, config)?, config.level)
}
