//! A compiled function with all that it takes to run it.

use super::generator::initial_state;
use super::round;
use super::timing::{Timing, measure, peak_memory_mb};
use crate::Failure;
use crate::profile::{rows, take_profile};
use graphc::compiler::{CodeCache, Stages, compile_function, state_layout};
use graphc::machine::Machine;
use graphc::runtime::{Elements, StateLayout};
use graphc::{
    Bindings, CompileOptions, Executable, Isa, Module, RunContext, State, ThreadPool, Value, ValueMut,
};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Threads and instructions that everything measured uses.
pub(super) struct Setup {
    pub(super) pool: Arc<ThreadPool>,
    pub(super) isa: Isa,
}

/// A function, what each stage made of it, and the time that took.
pub(super) type Compiled = (Executable, Stages, Duration);

impl Setup {
    /// Compiles the first function of `module`, whose extents are all numbers; gives the time from the module to
    /// executable code too.
    pub(super) fn compile(&self, module: &Module) -> Result<Compiled, Failure> {
        let options = self.options();
        let started = Instant::now();
        let layout = Arc::new(state_layout(module).map_err(Failure::other)?);
        let compiled = compile_function(&module.functions[0], &layout, &Bindings::new(), &options);
        let (executable, stages) = compiled.map_err(Failure::other)?;
        Ok((executable, stages, started.elapsed()))
    }

    /// As [`compile`](Self::compile), with a cache; gives the time.
    pub(super) fn compile_with(&self, cache: &CodeCache, module: &Module) -> Result<Duration, Failure> {
        let options = CompileOptions { cache: Some(cache.clone()), ..self.options() };
        let started = Instant::now();
        graphc::compile(module, &module.functions[0].name, &Bindings::new(), &options)
            .map_err(Failure::other)?;
        Ok(started.elapsed())
    }

    fn options(&self) -> CompileOptions {
        let max_threads = self.pool.num_threads();
        CompileOptions { max_threads, isa: self.isa, ..CompileOptions::default() }
    }
}

/// The first function of a module, compiled, with its state, inputs and outputs in place.
pub(super) struct Prepared {
    executable: Executable,
    cx: RunContext,
    state: State,
    inputs: Vec<Elements>,
    outputs: Vec<Elements>,
    /// Time from the graph to executable code.
    pub(super) compile: Duration,
    /// Size of the memory plan, in bytes.
    pub(super) plan_bytes: usize,
}

impl Prepared {
    /// Compiles the first function of `module`, whose extents are all numbers, for these inputs.
    pub(super) fn new(module: &Module, inputs: Vec<Elements>, setup: &Setup) -> Result<Self, Failure> {
        Self::with_state(module, inputs, setup, initial_state)
    }

    /// As [`new`](Self::new), with the state that `initial` gives.
    pub(super) fn with_state(
        module: &Module,
        inputs: Vec<Elements>,
        setup: &Setup,
        initial: impl FnOnce(&Module, Arc<StateLayout>) -> Result<State, Failure>,
    ) -> Result<Self, Failure> {
        let compiled = setup.compile(module)?;
        Self::with_compiled(module, compiled, inputs, setup, initial)
    }

    /// As [`with_state`](Self::with_state), of what [`Setup::compile`] gave.
    pub(super) fn with_compiled(
        module: &Module,
        (executable, stages, compile): Compiled,
        inputs: Vec<Elements>,
        setup: &Setup,
        initial: impl FnOnce(&Module, Arc<StateLayout>) -> Result<State, Failure>,
    ) -> Result<Self, Failure> {
        let cx = RunContext::new(&executable, setup.pool.clone()).map_err(Failure::other)?;
        let state = initial(module, executable.state_layout().clone())?;
        let outputs = executable.outputs().iter().map(|p| Elements::zeros(p.dtype, p.num_elements()));
        let (outputs, plan_bytes) = (outputs.collect(), stages.assembled.plan.bytes);
        Ok(Self { executable, cx, state, inputs, outputs, compile, plan_bytes })
    }

    /// Runs the function once.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        self.call()()
    }

    /// Measures runs, see [`measure`].
    pub(super) fn measure(
        &mut self,
        seconds: f64,
        min_iters: usize,
        inner: usize,
    ) -> Result<Timing, Failure> {
        measure(seconds, min_iters, inner, self.call())
    }

    /// A call runs the function; what it borrows is looked up once.
    fn call(&mut self) -> impl FnMut() -> Result<(), Failure> {
        let Self { executable, cx, state, inputs, outputs, .. } = self;
        let inputs: Vec<Value<'_>> = inputs.iter().map(Elements::value).collect();
        let mut outputs: Vec<ValueMut<'_>> = outputs.iter_mut().map(Elements::value_mut).collect();
        move || executable.run(cx, state, &inputs, &mut outputs).map_err(Failure::other)
    }

    /// Runs the function once. Its floating-point operations, and the least time that the machine needs for them, in microseconds: of
    /// each execution of a step the longer of its arithmetic and its bytes.
    pub(super) fn work_and_bound(&mut self, machine: &Machine, setup: &Setup) -> Result<(u64, f64), Failure> {
        self.cx.start_profile(false);
        self.run()?;
        let times = take_profile(&mut self.cx, self.executable.name())?;
        let flops = times.steps.iter().zip(&times.times).map(|(step, time)| step.flops * time.count).sum();
        let rows = rows(&times, machine, setup.isa, setup.pool.num_threads());
        Ok((flops, rows.iter().map(|r| r.bound_us).sum()))
    }

    /// What is known of every step that is measured: its times, with that of the first run, and its memory.
    pub(super) fn row(&self, name: &str, timing: &Timing, first_step: Duration) -> serde_json::Value {
        json!({
            "workload": name,
            "median_us": round(timing.median_us, 2),
            "min_us": round(timing.min_us, 2),
            "p10_us": round(timing.p10_us, 2),
            "iters": timing.iters,
            "cpus": round(timing.cpus, 2),
            "other_cpus": round(timing.other_cpus, 2),
            "first_step_s": round(first_step.as_secs_f64(), 5),
            "compile_s": round(self.compile.as_secs_f64(), 5),
            "peak_rss_mb": round(peak_memory_mb(), 1),
            "plan_peak_bytes": self.plan_bytes,
        })
    }

    /// Memory that was planned, in MiB: arena with scratch memory, state and constants.
    pub(super) fn planned_mb(&self) -> f64 {
        let (arena, state) = (self.cx.arena_bytes(), self.executable.state_layout().bytes());
        (arena + state + self.executable.constants_bytes()) as f64 / f64::from(1 << 20)
    }

    /// The state as the last run left it.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The first element of the first output, if it is an `f32`.
    pub(super) fn loss(&self) -> Option<f32> {
        self.outputs.first()?.value().get::<f32>()?.first().copied()
    }
}
