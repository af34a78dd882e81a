//! One compiled function, what it needs to run, and the checked way to call it.

use crate::abi::{self, Context, EntryFn, RunFault};
use crate::error::{PortSide, RuntimeError};
use crate::fpenv::FpEnv;
use crate::memory::AlignedBuffer;
use crate::pool::{PoolRef, ThreadPool, parallel_for};
use crate::state::{State, StateLayout};
use crate::value::{Value, ValueMut};
use graphc_ir::{DType, TensorType, checked_product};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// An input or output of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultSite {
    /// Operation, such as `gather`.
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
    /// The code.
    pub entry: EntryFn,
    /// Keeps the memory of the code alive.
    pub code: Arc<dyn Any + Send + Sync>,
    /// Worker indices given to its kernels stay below this number; 0 counts as 1.
    pub max_threads: usize,
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
    /// [`RuntimeError::StateLayout`] when the arguments do not fit the declaration, and
    /// [`RuntimeError::OutOfMemory`] when the arena has to grow and cannot.
    /// [`RuntimeError::IndexOutOfRange`] when the function met such an index: outputs and state then
    /// hold what was written until then.
    pub fn run(
        &self,
        cx: &mut RunContext,
        state: &mut State,
        inputs: &[Value<'_>],
        outputs: &mut [ValueMut<'_>],
    ) -> Result<(), RuntimeError> {
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
        cx.reserve(self)?;

        cx.inputs.clear();
        cx.inputs.extend(inputs.iter().map(Value::as_ptr));
        cx.outputs.clear();
        cx.outputs.extend(outputs.iter_mut().map(ValueMut::as_mut_ptr));
        let pool = PoolRef { pool: &cx.pool, max_threads: self.max_threads() };
        let mut context = Context {
            arena: cx.arena.as_mut_ptr(),
            state: state.as_mut_ptr(),
            constants: parts.constants.as_ptr(),
            inputs: cx.inputs.as_ptr(),
            outputs: cx.outputs.as_ptr(),
            parallel_for,
            pool: (&raw const pool).cast(),
            record_fault: abi::record_fault,
            error: RunFault::default(),
        };
        let status = {
            let _env = FpEnv::enter();
            // SAFETY: `from_parts` was promised that the entry runs correctly on such a context. The
            // context is as promised: the arena has at least `arena_bytes`, layout and ports were checked
            // above; arena, state and outputs are borrowed exclusively, constants and inputs shared,
            // all until the end of this function; `parts.code` is alive with `self`.
            unsafe { (parts.entry)(&raw mut context) }
        };
        if status == 0 && context.error.node == 0 {
            return Ok(());
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

/// Memory and threads for runs, one at a time: the arena and a share in a pool. It may be used with
/// any executable; the arena grows to the largest one used.
#[derive(Debug)]
pub struct RunContext {
    arena: AlignedBuffer,
    pool: Arc<ThreadPool>,
    /// Argument pointers of the current run; meaningless between runs. Kept for their capacity.
    inputs: Vec<*const u8>,
    outputs: Vec<*mut u8>,
}

// SAFETY: the pointers are dead between runs, when the context can move to another thread: every run sets
// them anew before generated code sees them. All else is Send.
unsafe impl Send for RunContext {}
// SAFETY: a shared reference gives access to the arena's size and the pool only.
unsafe impl Sync for RunContext {}

impl RunContext {
    /// A context large enough for `executable`.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn new(executable: &Executable, pool: Arc<ThreadPool>) -> Result<Self, RuntimeError> {
        let arena = AlignedBuffer::zeroed(0, "the arena")?;
        let mut cx = Self { arena, pool, inputs: Vec::new(), outputs: Vec::new() };
        cx.reserve(executable)?;
        Ok(cx)
    }

    /// Size of the arena, in bytes.
    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<ThreadPool> {
        &self.pool
    }

    /// Sets every byte of the arena. The result of a run does not depend on what the arena held
    /// before; tests use this to show it.
    pub fn fill_arena(&mut self, byte: u8) {
        self.arena.as_mut_slice().fill(byte);
    }

    /// Grows to what `executable` needs.
    fn reserve(&mut self, executable: &Executable) -> Result<(), RuntimeError> {
        let parts = &executable.parts;
        if self.arena.len() < parts.arena_bytes {
            // The old arena goes first, so that both never exist together.
            self.arena = AlignedBuffer::zeroed(0, "the arena")?;
            let what = format!("the arena of `{}`", parts.name);
            self.arena = AlignedBuffer::zeroed(parts.arena_bytes, &what)?;
        }
        self.inputs.clear();
        self.inputs.reserve(parts.inputs.len());
        self.outputs.clear();
        self.outputs.reserve(parts.outputs.len());
        Ok(())
    }
}
