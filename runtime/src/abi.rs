//! The contract between generated code and the runtime: the context a function receives, the
//! signatures on both sides, and what either may assume. Nothing here runs anything but
//! [`serial_parallel_for`].
//!
//! # Memory
//!
//! | pointer | alignment | accessible | contents on entry |
//! |---|---|---|---|
//! | `arena` | [`ALIGNMENT`](crate::ALIGNMENT) | `arena_bytes` + slack | unspecified |
//! | `state` | the same | layout's bytes + slack | the state; a bool is one byte, 0 or 1 |
//! | `constants` | the same | bytes + slack, **read only** | as given to the executable |
//! | `inputs[i]` | of one element | exactly the port's bytes, **read only** | the input |
//! | `outputs[i]` | of one element | exactly the port's bytes | unspecified |
//!
//! Slack is [`SLACK_BYTES`](crate::SLACK_BYTES). It may be read and, but for the constants, be
//! overwritten with anything; its contents mean nothing.
//!
//! Inputs and outputs are the user's slices: only element-aligned and without slack, so vector
//! code uses unaligned accesses and masked tails there. Two inputs may be the same memory; outputs,
//! state and arena overlap nothing else. Generated code writes only 0 or 1 to a bool in state or
//! outputs.
//!
//! # Threads
//!
//! Entry code runs on one thread. `cx.parallel_for(cx.pool, kernel, cx, n_units)` covers units
//! `0..n_units` with disjoint pieces `kernel(cx, begin, end, worker)`, and returns when all are
//! done; what pieces wrote is then visible to the caller. No piece is empty and `n_units == 0`
//! calls nothing. The number of pieces is T = min(pool threads, executable's `max_threads`,
//! `n_units`), piece t is [`piece`]`(n_units, T, t)` and its worker index is t; or, when the pool
//! is in use by someone else, there is one piece with worker index 0. Worker indices are unique
//! among the pieces of one call, hence scratch at `worker * size` is private. Kernels do not call
//! `parallel_for` (scratch of the outer piece would be shared). To use fewer threads, pass fewer
//! units.
//!
//! All functions follow the C calling convention of the target. Code that uses ymm or zmm
//! registers executes `vzeroupper` before it returns or calls the runtime. Every piece runs with
//! the default floating-point environment: round to nearest even, subnormals kept, exceptions
//! masked. No frame of generated code is ever unwound.
//!
//! # Loops
//!
//! A function may run others, the bodies of its loops and branches, with contexts that it makes in its
//! own arena: their arenas lie there too, their inputs and outputs are wherever it says, all else is
//! taken over. Before each step of a loop it loads the byte at `cx.interrupt`, which another thread may
//! set, and returns [`INTERRUPTED`] if it is not 0.
//!
//! # Observers
//!
//! After each step (a kernel or an index check), entry code calls `cx.observe(cx, step)`, unless it is
//! null, on its own thread and with the context of the function that the step belongs to. Steps are
//! numbered in the order of `ExecutableParts::steps`. What it returns ends the run unless it is 0.
//!
//! # Faults
//!
//! A fault site is numbered from 1 in the order of `ExecutableParts::faults`. Entry code, outside
//! `parallel_for`, may write `cx.error` itself. Kernels call `cx.record_fault(cx, site, position,
//! value)`, which any number of workers may do at a time and which keeps the fault that is smallest
//! by (site, position). A piece that meets its units in order and stops at its first fault hence
//! yields the same report for any number of threads. After the `parallel_for`, entry code loads
//! `cx.error.node` and, when it is not 0, returns 1. Kernels do not read `cx.error`.

use core::ffi::c_void;
use core::mem::offset_of;

/// What a generated function receives. Lives for one call; every pointer is valid for its
/// duration. Loaded by offset: see the `OFFSET_*` constants.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    /// Base of the memory for intermediate values.
    pub arena: *mut u8,
    /// Base of the state.
    pub state: *mut u8,
    /// Base of the constants.
    pub constants: *const u8,
    /// One pointer per input.
    pub inputs: *const *const u8,
    /// One pointer per output.
    pub outputs: *const *mut u8,
    /// Runs a kernel on the pool.
    pub parallel_for: ParallelFor,
    /// First argument of `parallel_for`, opaque.
    pub pool: *const c_void,
    /// Reports a fault from inside a kernel.
    pub record_fault: RecordFault,
    /// Points to a byte; once it is not 0, loops end the run at their next step.
    pub interrupt: *const u8,
    /// Called after each step, if somebody wants to know.
    pub observe: Option<Observe>,
    /// For `observe`, opaque.
    pub observer: *mut c_void,
    /// The fault of this run, if any.
    pub error: RunFault,
}

/// A run-time fault: an index out of range.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunFault {
    /// Fault site, counted from 1; 0 when there is no fault.
    pub node: u64,
    /// Linear position of the offending element in its operand.
    pub position: i64,
    /// The offending value.
    pub value: i64,
}

/// A kernel: processes units `begin..end` as worker `worker`.
pub type KernelFn = unsafe extern "C" fn(cx: *mut Context, begin: u64, end: u64, worker: u64);

/// Runs `kernel` over units `0..n_units` and returns when all are done.
pub type ParallelFor =
    unsafe extern "C" fn(pool: *const c_void, kernel: KernelFn, cx: *mut Context, n_units: u64);

/// Reports a fault at `site` (from 1) for the element at `position` holding `value`.
pub type RecordFault = unsafe extern "C" fn(cx: *mut Context, site: u64, position: i64, value: i64);

/// Learns that a step is done; what it returns ends the run unless it is 0.
pub type Observe = unsafe extern "C" fn(cx: *mut Context, step: u64) -> i32;

/// What [`EntryFn`] returns when the run has been interrupted.
pub const INTERRUPTED: i32 = 2;

/// What [`EntryFn`] returns when the observer has ended the run.
pub const STOPPED: i32 = 3;

/// A generated function. Returns 0, 1 after recording a fault in `cx.error`, [`INTERRUPTED`] or
/// [`STOPPED`].
pub type EntryFn = unsafe extern "C" fn(cx: *mut Context) -> i32;

/// Offset of [`Context::arena`], in bytes.
pub const OFFSET_ARENA: i32 = offset_of!(Context, arena) as i32;
/// Offset of [`Context::state`], in bytes.
pub const OFFSET_STATE: i32 = offset_of!(Context, state) as i32;
/// Offset of [`Context::constants`], in bytes.
pub const OFFSET_CONSTANTS: i32 = offset_of!(Context, constants) as i32;
/// Offset of [`Context::inputs`], in bytes.
pub const OFFSET_INPUTS: i32 = offset_of!(Context, inputs) as i32;
/// Offset of [`Context::outputs`], in bytes.
pub const OFFSET_OUTPUTS: i32 = offset_of!(Context, outputs) as i32;
/// Offset of [`Context::parallel_for`], in bytes.
pub const OFFSET_PARALLEL_FOR: i32 = offset_of!(Context, parallel_for) as i32;
/// Offset of [`Context::pool`], in bytes.
pub const OFFSET_POOL: i32 = offset_of!(Context, pool) as i32;
/// Offset of [`Context::record_fault`], in bytes.
pub const OFFSET_RECORD_FAULT: i32 = offset_of!(Context, record_fault) as i32;
/// Offset of [`Context::interrupt`], in bytes.
pub const OFFSET_INTERRUPT: i32 = offset_of!(Context, interrupt) as i32;
/// Offset of [`Context::observe`], in bytes.
pub const OFFSET_OBSERVE: i32 = offset_of!(Context, observe) as i32;
/// Offset of [`Context::observer`], in bytes.
pub const OFFSET_OBSERVER: i32 = offset_of!(Context, observer) as i32;
/// Offset of [`RunFault::node`] in [`Context`], in bytes.
pub const OFFSET_ERROR_NODE: i32 = (offset_of!(Context, error) + offset_of!(RunFault, node)) as i32;
/// Offset of [`RunFault::position`] in [`Context`], in bytes.
pub const OFFSET_ERROR_POSITION: i32 = (offset_of!(Context, error) + offset_of!(RunFault, position)) as i32;
/// Offset of [`RunFault::value`] in [`Context`], in bytes.
pub const OFFSET_ERROR_VALUE: i32 = (offset_of!(Context, error) + offset_of!(RunFault, value)) as i32;

/// Units of piece `index` of `n_pieces`: `n*t/T .. n*(t+1)/T`. The pieces cover `0..n_units` in
/// order without overlap, and differ in size by at most one.
///
/// # Panics
/// If `n_pieces` is 0.
pub fn piece(n_units: u64, n_pieces: u64, index: u64) -> (u64, u64) {
    // At most n_units when index <= n_pieces; the product is what may exceed 64 bits.
    let bound = |i: u64| (u128::from(n_units) * u128::from(i) / u128::from(n_pieces)) as u64;
    (bound(index), bound(index + 1))
}

/// A [`ParallelFor`] without threads: one piece with worker index 0. Ignores `pool`.
///
/// # Safety
/// `kernel` may be called with `cx` for units `0..n_units`.
pub unsafe extern "C" fn serial_parallel_for(
    _pool: *const c_void,
    kernel: KernelFn,
    cx: *mut Context,
    n_units: u64,
) {
    if n_units > 0 {
        // SAFETY: by the contract of this function.
        unsafe { kernel(cx, 0, n_units, 0) }
    }
}

/// The [`RecordFault`] of the runtime: keeps the fault smallest by (site, position).
///
/// # Safety
/// `cx` points to a context that lives through the call and whose `error` nobody accesses
/// meanwhile but through this function.
pub unsafe extern "C" fn record_fault(cx: *mut Context, site: u64, position: i64, value: i64) {
    // One lock for all contexts: a fault ends the run, so there is nothing to make fast.
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: `cx` is alive, and LOCK makes this access to `error` the only one.
    let error = unsafe { &mut (*cx).error };
    if error.node == 0 || (site, position) < (error.node, error.position) {
        *error = RunFault { node: site, position, value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_unit_once_and_evenly() {
        for n_units in [1, 2, 3, 7, 64, 1000, u64::MAX] {
            for n_pieces in (1..=9).filter(|&t| t <= n_units) {
                let mut next = 0;
                for t in 0..n_pieces {
                    let (begin, end) = piece(n_units, n_pieces, t);
                    assert_eq!(begin, next);
                    assert!((0..=1).contains(&(end - begin - n_units / n_pieces)));
                    next = end;
                }
                assert_eq!(next, n_units);
            }
        }
    }
}
