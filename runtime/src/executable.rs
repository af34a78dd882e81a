//! One compiled function, what it needs to run, and the checked way to call it.

use crate::abi::{self, Context, EntryFn, RunFault};
use crate::error::{PortSide, RuntimeError};
use crate::fpenv::FpEnv;
use crate::guard::{self, Guard, NonFinite};
use crate::memory::AlignedBuffer;
use crate::pool::{PoolRef, ThreadPool, parallel_for};
use crate::profile::{Profile, StepInfo};
use crate::state::{State, StateLayout};
use crate::value::{Value, ValueMut};
use graphc_ir::{DType, TensorType, checked_product};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// An input or output of a function.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Name, for errors.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub dims: Vec<usize>,
}

impl Port {
    /// A port.
    pub fn new(name: impl Into<String>, dtype: DType, dims: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, dims: dims.into() }
    }

    /// Number of elements. `usize::MAX`, which no slice of elements has, beyond
    /// [`MAX_ELEMENTS`](graphc_ir::MAX_ELEMENTS).
    pub fn num_elements(&self) -> usize {
        checked_product(&self.dims).unwrap_or(usize::MAX)
    }

    /// Type of the tensor.
    pub fn tensor_type(&self) -> TensorType {
        TensorType::new(self.dtype, self.dims.as_slice())
    }
}

/// A place in a function where an index is checked at run time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FaultSite {
    /// Operation, such as `gather`, and the axis that is indexed if there are several.
    pub op: String,
    /// What is checked, such as `index` or `label`.
    pub what: String,
    /// Legal values are `0..bound`.
    pub bound: i64,
    /// Where the user's program created the operation, as `file:line:column`.
    pub location: Option<String>,
}

/// Everything an [`Executable`] is made of.
pub struct ExecutableParts {
    /// Name of the function.
    pub name: String,
    /// Inputs, in the order of `Context::inputs`.
    pub inputs: Vec<Port>,
    /// Outputs, in the order of `Context::outputs`.
    pub outputs: Vec<Port>,
    /// Layout of the state it works on; empty if it uses none.
    pub state: Arc<StateLayout>,
    /// Size of the arena, in bytes, per-worker scratch for `max_threads` workers included.
    pub arena_bytes: usize,
    /// Constants.
    pub constants: AlignedBuffer,
    /// Fault sites; site number n is `faults[n - 1]`.
    pub faults: Vec<FaultSite>,
    /// The steps that observers hear of, by number.
    pub steps: Arc<[StepInfo]>,
    /// What is needed to stop at values that are not finite, if the code was generated for it.
    pub guard: Option<Guard>,
    /// By number of the step, what of the arena holds no value after it: it is filled with NaN. Empty unless the
    /// compiler is tested.
    pub poison: Vec<Vec<Range<usize>>>,
    /// What of the arena nobody may access, in order, multiples of [`GRANULE`](crate::GRANULE): runs fault there.
    /// Empty unless the compiler is tested.
    pub gaps: Vec<Range<usize>>,
    /// The code.
    pub entry: EntryFn,
    /// Keeps the memory of the code alive.
    pub code: Arc<dyn Any + Send + Sync>,
    /// Worker indices given to its kernels stay below this number; 0 counts as 1.
    pub max_threads: usize,
    /// Name of the instructions that the code has and this machine lacks, if any: then it is not run.
    pub lacking: Option<&'static str>,
}

/// One compiled function. Immutable; any number of threads may run it at a time, each with a
/// [`RunContext`] and a [`State`] of its own.
pub struct Executable {
    parts: ExecutableParts,
}

impl Executable {
    /// An executable of these parts.
    ///
    /// # Safety
    /// `parts.entry` keeps the contract of [`abi`] for a context with an arena of `parts.arena_bytes`
    /// bytes, a state of layout `parts.state`, `parts.constants`, and inputs and outputs of the
    /// declared element types and extents. In particular, for all values of inputs and state:
    /// - it touches only the memory that [`abi`] lists, and writes neither constants nor inputs;
    /// - it writes only 0 and 1 to the bytes of bool outputs and bool state, and every byte it writes
    ///   elsewhere is initialized;
    /// - it calls the observer with the numbers of `parts.steps`; where `parts.guard` has a step, its memory lies
    ///   in the context that the observer is called with, and so do the ranges of `parts.poison`, in which nothing
    ///   is read before it is written again;
    /// - its kernels are free of data races when run as [`abi`] says with up to `parts.max_threads` workers;
    /// - it does not unwind, and leaves the floating-point environment as it found it.
    ///
    /// `parts.entry` and all it calls stay valid while `parts.code` is alive, and may be called from
    /// any thread and from several at a time.
    pub unsafe fn from_parts(parts: ExecutableParts) -> Self {
        Self { parts }
    }

    /// Name of the function.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Inputs, in order.
    pub fn inputs(&self) -> &[Port] {
        &self.parts.inputs
    }

    /// Outputs, in order.
    pub fn outputs(&self) -> &[Port] {
        &self.parts.outputs
    }

    /// Layout of the state it works on.
    pub fn state_layout(&self) -> &Arc<StateLayout> {
        &self.parts.state
    }

    /// Its steps, which a [`Profile`] has times of.
    pub fn steps(&self) -> &Arc<[StepInfo]> {
        &self.parts.steps
    }

    /// Size of its arena, in bytes.
    pub fn arena_bytes(&self) -> usize {
        self.parts.arena_bytes
    }

    /// Size of its constants, in bytes.
    pub fn constants_bytes(&self) -> usize {
        self.parts.constants.len()
    }

    /// Largest number of threads its kernels use.
    pub fn max_threads(&self) -> usize {
        self.parts.max_threads.max(1)
    }

    /// What keeps the code alive, as given to [`Executable::from_parts`].
    pub fn code(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.parts.code
    }

    /// Runs the function: reads `inputs`, writes `outputs` and updates `state`. Allocates nothing
    /// once `cx` has run a function of this size.
    ///
    /// The function runs in the default floating-point environment (round to nearest even,
    /// subnormals kept), whatever the calling thread has set.
    ///
    /// # Errors
    /// Before anything is read or written: [`RuntimeError::PortCount`], [`RuntimeError::PortType`],
    /// [`RuntimeError::StateLayout`] when the arguments do not fit the declaration,
    /// [`RuntimeError::OutOfMemory`] when the arena has to grow and cannot, [`RuntimeError::Instructions`] when the code is
    /// not for this machine, and [`RuntimeError::Forked`] when the pool has threads in the process that this one was forked
    /// from.
    /// [`RuntimeError::IndexOutOfRange`] when the function met such an index: the state is as it was, outputs
    /// hold what was written until then. With [`RuntimeError::Interrupted`] and [`RuntimeError::NonFinite`] state does, too.
    pub fn run(
        &self,
        cx: &mut RunContext,
        state: &mut State,
        inputs: &[Value<'_>],
        outputs: &mut [ValueMut<'_>],
    ) -> Result<(), RuntimeError> {
        let started = cx.profile.is_some().then(Instant::now);
        let parts = &self.parts;
        self.check_count(PortSide::Input, parts.inputs.len(), inputs.len())?;
        self.check_count(PortSide::Output, parts.outputs.len(), outputs.len())?;
        for (port, value) in parts.inputs.iter().zip(inputs) {
            self.check_type(PortSide::Input, port, value.dtype(), value.len())?;
        }
        for (port, value) in parts.outputs.iter().zip(&*outputs) {
            self.check_type(PortSide::Output, port, value.dtype(), value.len())?;
        }
        self.check_state(state)?;
        if let Some(parent) = cx.pool.parent() {
            return Err(RuntimeError::Forked { parent });
        }
        cx.reserve(self)?;

        cx.inputs.clear();
        cx.inputs.extend(inputs.iter().map(Value::as_ptr));
        cx.outputs.clear();
        cx.outputs.extend(outputs.iter_mut().map(ValueMut::as_mut_ptr));
        let mut profile = cx.profile.take();
        let function = profile.as_mut().map_or(0, |p| p.function(self));
        // The observer has the profile for itself, so pieces are noted through a pointer of their own.
        let log = profile.as_mut().and_then(|p| p.take_log());
        let pool = PoolRef { pool: &cx.pool, max_threads: self.max_threads(), log: log.as_ref() };
        let mut observer = Observer {
            parts,
            pool: &pool,
            profile: profile.as_deref_mut().zip(started).map(|(p, last)| (p, function, last)),
            found: None,
        };
        let observed = observer.profile.is_some() || parts.guard.is_some() || !parts.poison.is_empty();
        let mut context = Context {
            arena: cx.arena.as_mut_ptr(),
            state: state.as_mut_ptr(),
            constants: parts.constants.as_ptr(),
            inputs: cx.inputs.as_ptr(),
            outputs: cx.outputs.as_ptr(),
            parallel_for,
            pool: (&raw const pool).cast(),
            record_fault: abi::record_fault,
            interrupt: cx.interrupt.as_ptr().cast(),
            observe: observed.then_some(observe),
            observer: (&raw mut observer).cast(),
            error: RunFault::default(),
        };
        let status = {
            let _env = FpEnv::enter();
            // SAFETY: `from_parts` was promised that the entry runs correctly on such a context.
            // The context is as promised: the arena has at least `arena_bytes`, layout and ports
            // were checked above; arena, state and outputs are borrowed exclusively, constants and
            // inputs shared, all until the end of this function; `parts.code` is alive with `self`.
            unsafe { (parts.entry)(&raw mut context) }
        };
        let found = observer.found.take();
        if let (Some(p), Some(started)) = (&mut profile, started) {
            p.run(function, started.elapsed());
            p.put_log(log);
        }
        cx.profile = profile;
        if let Some(found) = found {
            return Err(RuntimeError::NonFinite { function: self.name().into(), found: Box::new(found) });
        }
        if status == 0 && context.error.node == 0 {
            return Ok(());
        }
        if status == abi::INTERRUPTED {
            cx.interrupt.store(false, Ordering::Relaxed);
            return Err(RuntimeError::Interrupted { function: self.name().into() });
        }
        Err(self.fault(status, context.error))
    }

    fn check_count(&self, side: PortSide, expected: usize, got: usize) -> Result<(), RuntimeError> {
        if expected == got {
            return Ok(());
        }
        Err(RuntimeError::PortCount { function: self.name().into(), side, expected, got })
    }

    fn check_type(&self, side: PortSide, port: &Port, dtype: DType, len: usize) -> Result<(), RuntimeError> {
        if port.dtype == dtype && port.num_elements() == len {
            return Ok(());
        }
        Err(RuntimeError::PortType {
            function: self.name().into(),
            side,
            port: port.name.as_str().into(),
            expected: Box::new(port.tensor_type()),
            got_dtype: dtype,
            got_elements: len,
        })
    }

    fn check_state(&self, state: &State) -> Result<(), RuntimeError> {
        if Arc::ptr_eq(state.layout(), &self.parts.state) {
            return Ok(());
        }
        match self.parts.state.difference(state.layout()) {
            None => Ok(()),
            Some(difference) => {
                Err(RuntimeError::StateLayout { function: self.name().into(), difference: difference.into() })
            }
        }
    }

    #[cold]
    fn fault(&self, status: i32, fault: RunFault) -> RuntimeError {
        let site = usize::try_from(fault.node).ok().and_then(|n| n.checked_sub(1));
        match site.and_then(|i| self.parts.faults.get(i)) {
            Some(site) => RuntimeError::IndexOutOfRange {
                op: site.op.as_str().into(),
                what: site.what.as_str().into(),
                position: fault.position,
                value: fault.value,
                bound: site.bound,
                location: site.location.as_deref().map(Into::into),
                function: self.name().into(),
            },
            None => RuntimeError::UnknownFault { function: self.name().into(), site: fault.node, status },
        }
    }
}

/// Makes NaN of every float type. A quiet one: no byte makes signalling ones of all.
const NAN_BYTE: u8 = 0xff;

/// What listens to the steps of a run.
struct Observer<'a> {
    parts: &'a ExecutableParts,
    pool: &'a PoolRef<'a>,
    /// With the position of the function, and when the step before was done.
    profile: Option<(&'a mut Profile, usize, Instant)>,
    /// What ended the run.
    found: Option<NonFinite>,
}

/// The [`abi::Observe`] of the runtime.
///
/// # Safety
/// `cx` is the context of a run, or of one inside of it, whose `observer` is an [`Observer`] that nobody else
/// accesses during the call.
unsafe extern "C" fn observe(cx: *mut Context, step: u64) -> i32 {
    // SAFETY: by the contract of this function.
    let observer = unsafe { &mut *(*cx).observer.cast::<Observer<'_>>() };
    let step = step as usize;
    if let Some((profile, function, last)) = &mut observer.profile {
        let now = Instant::now();
        profile.step(*function, step, *last, now, observer.pool.log);
        // What observing takes itself counts for the step that follows.
        *last = now;
    }
    for free in observer.parts.poison.get(step).into_iter().flatten() {
        // SAFETY: the range lies in the arena of the context, and the step is done, by the contract of
        // `Executable::from_parts`.
        unsafe { std::ptr::write_bytes((*cx).arena.add(free.start), NAN_BYTE, free.len()) };
    }
    let Some(guard) = &observer.parts.guard else { return 0 };
    let Some(Some(guarded)) = guard.steps.get(step) else { return 0 };
    // SAFETY: the step is done, and its memory lies where the guard says, by the contract of
    // `Executable::from_parts`.
    if !unsafe { guard::found(cx, guarded, observer.pool.pool) } {
        return 0;
    }
    // SAFETY: as above.
    let contents = unsafe { guard::contents(cx, guarded) };
    observer.found = Some((guard.explain)(step, &contents));
    abi::STOPPED
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable")
            .field("name", &self.parts.name)
            .field("inputs", &self.parts.inputs)
            .field("outputs", &self.parts.outputs)
            .field("arena_bytes", &self.parts.arena_bytes)
            .finish_non_exhaustive()
    }
}

/// Ends runs of one [`RunContext`], from any thread.
#[derive(Clone, Debug)]
pub struct Interrupter(Arc<AtomicBool>);

impl Interrupter {
    /// Makes the run under way, or else the next one, end with [`RuntimeError::Interrupted`] before
    /// the next step of a loop (`scan`, `while`); what has no loop runs to its end.
    pub fn interrupt(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Memory and threads for runs, one at a time: the arena and a share in a pool. It may be used with
/// any executable; the arena grows to the largest one used.
#[derive(Debug)]
pub struct RunContext {
    arena: AlignedBuffer,
    /// [`ExecutableParts::gaps`] of what it was made for.
    gaps: Vec<Range<usize>>,
    pool: Arc<ThreadPool>,
    /// Argument pointers of the current run; meaningless between runs. Kept for their capacity.
    inputs: Vec<*const u8>,
    outputs: Vec<*mut u8>,
    interrupt: Arc<AtomicBool>,
    profile: Option<Box<Profile>>,
}

// SAFETY: the pointers are dead between runs, when the context can move to another thread: every
// run sets them anew before generated code sees them. All else is Send.
unsafe impl Send for RunContext {}
// SAFETY: a shared reference gives access to the arena's size and the pool only.
unsafe impl Sync for RunContext {}

impl RunContext {
    /// A context large enough for `executable`.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`], and [`RuntimeError::Instructions`] when the code is not for this machine.
    pub fn new(executable: &Executable, pool: Arc<ThreadPool>) -> Result<Self, RuntimeError> {
        let arena = AlignedBuffer::zeroed(0, "the arena")?;
        let interrupt = Arc::new(AtomicBool::new(false));
        let (inputs, outputs) = (Vec::new(), Vec::new());
        let gaps = Vec::new();
        let mut cx = Self { arena, gaps, pool, inputs, outputs, interrupt, profile: None };
        cx.reserve(executable)?;
        Ok(cx)
    }

    /// Size of the arena, in bytes.
    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// A handle with which another thread ends a run of this context.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(self.interrupt.clone())
    }

    /// From now on notes how long each step of a run takes, and with `trace` when, until
    /// [`Self::take_profile`]. A trace grows with every step that runs.
    pub fn start_profile(&mut self, trace: bool) {
        self.profile = Some(Box::new(Profile::new(trace, self.pool.num_threads())));
    }

    /// What has been noted since [`Self::start_profile`], which ends; `None` if it was not called.
    pub fn take_profile(&mut self) -> Option<Profile> {
        self.profile.take().map(|p| *p)
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<ThreadPool> {
        &self.pool
    }

    /// Sets every byte of the arena. The result of a run does not depend on what the arena held
    /// before; tests use this to show it.
    pub fn fill_arena(&mut self, byte: u8) {
        self.arena.fill(byte);
    }

    /// Grows to what `executable` needs.
    fn reserve(&mut self, executable: &Executable) -> Result<(), RuntimeError> {
        let parts = &executable.parts;
        if let Some(instructions) = parts.lacking {
            return Err(RuntimeError::Instructions { function: parts.name.as_str().into(), instructions });
        }
        if self.arena.len() < parts.arena_bytes || self.gaps != parts.gaps {
            // The old arena goes first, so that both never exist together.
            self.arena = AlignedBuffer::zeroed(0, "the arena")?;
            let what = format!("the arena of `{}`", parts.name);
            self.arena = match &parts.gaps[..] {
                [] => AlignedBuffer::zeroed(parts.arena_bytes, &what)?,
                gaps => AlignedBuffer::with_gaps(parts.arena_bytes, gaps, &what)?,
            };
            self.gaps.clone_from(&parts.gaps);
        }
        self.inputs.clear();
        self.inputs.reserve(parts.inputs.len());
        self.outputs.clear();
        self.outputs.reserve(parts.outputs.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{GuardedStep, MemoryBase};
    use std::slice::from_raw_parts;

    const N: usize = 1000;
    const DIMS: [usize; 2] = [20, 50];
    const SCRATCH: usize = 64;

    /// y = w * x + c, all positive; w += 1. Each worker goes through scratch of its own.
    unsafe extern "C" fn axpy(cx: *mut Context) -> i32 {
        unsafe extern "C" fn kernel(cx: *mut Context, begin: u64, end: u64, worker: u64) {
            // SAFETY: pieces are disjoint; the arena has room for one scratch per worker.
            unsafe {
                let (x, y) = ((*(*cx).inputs).cast::<f32>(), (*(*cx).outputs).cast::<f32>());
                let (w, c) = ((*cx).state.cast::<f32>().read(), (*cx).constants.cast::<f32>().read());
                let scratch = (*cx).arena.add(SCRATCH * worker as usize).cast::<f32>();
                for i in begin as usize..end as usize {
                    scratch.write(w * x.add(i).read());
                    y.add(i).write(scratch.read() + c);
                }
            }
        }
        // SAFETY: the context is as `abi` says, with the ports declared in `axpy_parts`.
        unsafe {
            ((*cx).parallel_for)((*cx).pool, kernel, cx, N as u64);
            let y = from_raw_parts((*(*cx).outputs).cast::<f32>(), N);
            (*(*cx).outputs.add(1)).cast::<bool>().write(y.iter().all(|&y| y > 0.0));
            *(*cx).state.cast::<f32>() += 1.0;
        }
        0
    }

    fn layout() -> Arc<StateLayout> {
        Arc::new(StateLayout::new([("w".to_owned(), DType::F32, vec![])]).unwrap())
    }

    fn axpy_parts(max_threads: usize) -> ExecutableParts {
        ExecutableParts {
            name: "axpy".into(),
            inputs: vec![Port::new("x", DType::F32, DIMS)],
            outputs: vec![Port::new("y", DType::F32, DIMS), Port::new("positive", DType::Bool, [])],
            state: layout(),
            arena_bytes: SCRATCH * max_threads,
            constants: AlignedBuffer::from_bytes(&0.5f32.to_ne_bytes(), "constants").unwrap(),
            faults: Vec::new(),
            steps: Arc::default(),
            guard: None,
            poison: Vec::new(),
            gaps: Vec::new(),
            entry: axpy,
            code: Arc::new(()),
            max_threads,
            lacking: None,
        }
    }

    /// y[i] = table[index[i]], checked.
    unsafe extern "C" fn gather(cx: *mut Context) -> i32 {
        unsafe extern "C" fn kernel(cx: *mut Context, begin: u64, end: u64, _worker: u64) {
            // SAFETY: pieces are disjoint.
            unsafe {
                let (table, index) = ((*(*cx).inputs).cast::<i64>(), (*(*cx).inputs.add(1)).cast::<i32>());
                let y = (*(*cx).outputs).cast::<i64>();
                for i in begin as usize..end as usize {
                    let k = index.add(i).read();
                    if !(0..10).contains(&k) {
                        return ((*cx).record_fault)(cx, 2, i as i64, k.into());
                    }
                    y.add(i).write(table.add(k as usize).read());
                }
            }
        }
        // SAFETY: the context is as `abi` says, with the ports declared in `gather_parts`.
        unsafe {
            ((*cx).parallel_for)((*cx).pool, kernel, cx, 16);
            i32::from((*cx).error.node != 0)
        }
    }

    fn gather_parts() -> ExecutableParts {
        let site = |op: &str, location: Option<&str>| FaultSite {
            op: op.into(),
            what: "index".into(),
            bound: 10,
            location: location.map(Into::into),
        };
        ExecutableParts {
            name: "loss".into(),
            inputs: vec![Port::new("table", DType::I64, [10]), Port::new("index", DType::I32, [16])],
            outputs: vec![Port::new("y", DType::I64, [16])],
            state: Arc::default(),
            arena_bytes: 0,
            constants: AlignedBuffer::zeroed(0, "constants").unwrap(),
            steps: Arc::default(),
            guard: None,
            poison: Vec::new(),
            gaps: Vec::new(),
            faults: vec![site("scatter", None), site("gather", Some("examples/x.rs:10:5"))],
            entry: gather,
            code: Arc::new(()),
            max_threads: 8,
            lacking: None,
        }
    }

    fn pool(n_threads: usize) -> Arc<ThreadPool> {
        Arc::new(ThreadPool::new(n_threads).unwrap())
    }

    #[test]
    fn runs_give_equal_bits_for_any_number_of_threads() {
        let x: Vec<f32> = (0..N).map(|i| i as f32 * 0.37).collect();
        for n_threads in 1..=4 {
            // SAFETY: `axpy` keeps the contract for these parts.
            let axpy = unsafe { Executable::from_parts(axpy_parts(3)) };
            let mut cx = RunContext::new(&axpy, pool(n_threads)).unwrap();
            let mut state = State::zeros(layout()).unwrap();
            state.copy_from("w", &2.0f32).unwrap();
            let (mut y, mut positive) = (vec![0.0f32; N], false);
            for step in 0..3 {
                cx.fill_arena(0xFF);
                let outputs = &mut [(&mut y).into(), (&mut positive).into()];
                axpy.run(&mut cx, &mut state, &[(&x).into()], outputs).unwrap();
                let w = 2.0 + step as f32;
                assert!(y.iter().zip(&x).all(|(y, x)| *y == w * x + 0.5));
                assert!(positive);
            }
            assert_eq!(state.get::<f32>("w").unwrap(), [5.0]);
        }
    }

    #[test]
    fn arguments_are_checked_before_the_run() {
        // SAFETY: `axpy` keeps the contract for these parts.
        let axpy = unsafe { Executable::from_parts(axpy_parts(1)) };
        let mut cx = RunContext::new(&axpy, pool(1)).unwrap();
        let mut check = |state: &mut State, inputs: &[Value<'_>], outputs: &mut [ValueMut<'_>], message| {
            assert_eq!(axpy.run(&mut cx, state, inputs, outputs).unwrap_err().to_string(), message);
        };
        let x = [0.0f32; N];
        let (mut y, mut flag, mut number) = ([0.0f32; N], false, 0i32);
        let state = &mut State::zeros(layout()).unwrap();
        check(state, &[], &mut [], "`axpy` has 1 input, got 0");
        check(state, &[(&x).into()], &mut [(&mut y).into()], "`axpy` has 2 outputs, got 1");
        check(
            state,
            &[x[1..].into()],
            &mut [(&mut y).into(), (&mut flag).into()],
            "input `x`: expected f32[20, 50] (1000 elements), got 999 elements of f32 (in `axpy`)",
        );
        check(
            state,
            &[(&[1i32; N]).into()],
            &mut [(&mut y).into(), (&mut flag).into()],
            "input `x`: expected f32[20, 50] (1000 elements), got 1000 elements of i32 (in `axpy`)",
        );
        check(
            state,
            &[(&x).into()],
            &mut [(&mut y).into(), (&mut number).into()],
            "output `positive`: expected bool[] (1 element), got 1 element of i32 (in `axpy`)",
        );
        check(
            &mut State::zeros(Arc::default()).unwrap(),
            &[(&x).into()],
            &mut [(&mut y).into(), (&mut flag).into()],
            "the state does not belong to `axpy`: entry 0: expected `w` f32[], got no entry",
        );
        assert_eq!(y, [0.0; N]);
    }

    #[test]
    fn the_same_fault_is_reported_for_any_number_of_threads() {
        // SAFETY: `gather` keeps the contract for these parts.
        let gather = unsafe { Executable::from_parts(gather_parts()) };
        let table: Vec<i64> = (100..110).collect();
        let mut bad = [1i32; 16];
        (bad[3], bad[4], bad[15]) = (12, -1, 99);
        let mut y = [0i64; 16];
        let mut state = State::zeros(Arc::default()).unwrap();
        for n_threads in [1, 2, 3, 8] {
            let mut cx = RunContext::new(&gather, pool(n_threads)).unwrap();
            let mut run = |index: &[i32; 16]| {
                gather.run(&mut cx, &mut state, &[(&table).into(), index.into()], &mut [(&mut y).into()])
            };
            for _ in 0..if cfg!(miri) { 2 } else { 200 } {
                assert_eq!(
                    run(&bad).unwrap_err().to_string(),
                    "gather: index 12 at position 3 is out of range 0..10 (in `loss` at examples/x.rs:10:5)"
                );
                run(&[7; 16]).unwrap();
            }
            assert_eq!(y, [107; 16]);
        }
    }

    #[test]
    fn an_unknown_fault_is_an_error() {
        unsafe extern "C" fn broken(_: *mut Context) -> i32 {
            1
        }
        // SAFETY: `broken` touches nothing.
        let broken = unsafe { Executable::from_parts(ExecutableParts { entry: broken, ..axpy_parts(1) }) };
        let mut cx = RunContext::new(&broken, pool(1)).unwrap();
        let mut state = State::zeros(layout()).unwrap();
        let (x, mut y, mut flag) = ([0.0f32; N], [0.0f32; N], false);
        let outputs = &mut [(&mut y).into(), (&mut flag).into()];
        let error = broken.run(&mut cx, &mut state, &[(&x).into()], outputs).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`axpy` reported unknown fault site 0 (status 1); this is a bug in graphc"
        );
    }

    #[test]
    fn the_observer_sees_steps_and_their_memory() {
        /// `axpy` as the one step of a function.
        unsafe extern "C" fn step(cx: *mut Context) -> i32 {
            // SAFETY: the context is as `axpy` needs it, and of the step.
            unsafe {
                axpy(cx);
                (*cx).observe.map_or(0, |observe| observe(cx, 0))
            }
        }
        let y = (MemoryBase::Output(0), N * size_of::<f32>());
        let explain = |step: usize, memory: &[Vec<u8>]| NonFinite {
            kernel: format!("k{step}"),
            message: format!("{} bytes", memory[0].len()),
            node: None,
            from_outside: true,
        };
        let parts = ExecutableParts {
            steps: [StepInfo::default()].into(),
            guard: Some(Guard {
                steps: vec![Some(GuardedStep { results: vec![(y, DType::F32)], memory: vec![y] })],
                explain: Box::new(explain),
            }),
            poison: vec![vec![0..SCRATCH]],
            entry: step,
            ..axpy_parts(2)
        };
        // SAFETY: `step` keeps the contract for these parts: it is done with its scratch.
        let axpy = unsafe { Executable::from_parts(parts) };
        let mut cx = RunContext::new(&axpy, pool(2)).unwrap();
        cx.start_profile(true);
        let mut state = State::zeros(layout()).unwrap();
        state.copy_from("w", &1.0f32).unwrap();
        let (mut x, mut y, mut positive) = ([1.0f32; N], [0.0f32; N], false);
        let mut run = |x: &[f32; N]| {
            let outputs = &mut [(&mut y).into(), (&mut positive).into()];
            axpy.run(&mut cx, &mut state, &[x.into()], outputs)
        };
        run(&x).unwrap();
        x[N - 1] = f32::INFINITY;
        let error = run(&x).unwrap_err();
        assert!(
            matches!(&error, RuntimeError::NonFinite { found, .. } if found.to_string() == "kernel k0: 4000 bytes")
        );
        assert_eq!(cx.arena.as_slice()[..SCRATCH], [NAN_BYTE; SCRATCH]);
        let profile = cx.take_profile().unwrap();
        assert_eq!((profile.functions[0].runs, profile.functions[0].times[0].count), (2, 2));
        let workers: Vec<_> = profile.events.iter().map(|e| e.worker).collect();
        assert_eq!(workers, [1, 0, 1, 0]);
    }

    #[test]
    fn a_context_grows_and_serves_any_executable() {
        // SAFETY: `gather` and `axpy` keep the contract for these parts.
        let (gather, axpy) =
            unsafe { (Executable::from_parts(gather_parts()), Executable::from_parts(axpy_parts(4))) };
        let mut cx = RunContext::new(&gather, pool(2)).unwrap();
        assert_eq!(cx.arena_bytes(), 0);
        let (x, mut y, mut flag) = ([1.0f32; N], [0.0f32; N], true);
        let outputs = &mut [(&mut y).into(), (&mut flag).into()];
        axpy.run(&mut cx, &mut State::zeros(layout()).unwrap(), &[(&x).into()], outputs).unwrap();
        assert_eq!(cx.arena_bytes(), 4 * SCRATCH);
        assert_eq!(y, [0.5; N]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri's allocator does not refuse")]
    fn an_arena_that_does_not_fit_is_an_error() {
        let parts = ExecutableParts { arena_bytes: 1 << 60, ..axpy_parts(1) };
        // SAFETY: `axpy` keeps the contract for a larger arena than it needs.
        let axpy = unsafe { Executable::from_parts(parts) };
        assert_eq!(
            RunContext::new(&axpy, pool(1)).unwrap_err().to_string(),
            "out of memory: the arena of `axpy` needs 1152921504606846976 bytes"
        );
    }

    #[test]
    fn code_for_another_machine_is_not_run() {
        let parts = ExecutableParts { lacking: Some("avx1024"), ..axpy_parts(1) };
        // SAFETY: `axpy` keeps the contract.
        let (foreign, axpy) =
            unsafe { (Executable::from_parts(parts), Executable::from_parts(axpy_parts(1))) };
        let expected = "`axpy` was compiled for avx1024, which this machine does not have";
        assert_eq!(RunContext::new(&foreign, pool(1)).unwrap_err().to_string(), expected);
        let mut cx = RunContext::new(&axpy, pool(1)).unwrap();
        let (x, mut y, mut flag) = ([1.0f32; N], [77.0f32; N], true);
        let outputs = &mut [(&mut y).into(), (&mut flag).into()];
        let error = foreign.run(&mut cx, &mut State::zeros(layout()).unwrap(), &[(&x).into()], outputs);
        assert_eq!(error.unwrap_err().to_string(), expected);
        assert_eq!(y, [77.0; N]);
    }

    #[test]
    fn executables_and_contexts_move_between_threads() {
        fn assert_send<T: Send>() {}
        fn assert_sync<T: Sync>() {}
        assert_send::<Executable>();
        assert_sync::<Executable>();
        assert_send::<RunContext>();
        assert_send::<State>();
        assert_sync::<State>();
    }
}
