//! graphc-runtime: runs code that graphc generated.
//!
//! It owns the contract with generated code ([`abi`]), aligned memory, the thread pool, the
//! floating-point environment of a run, [`State`] (parameters and everything else that lives from
//! one step to the next) and [`Executable`] (one compiled function). It knows neither graphs nor
//! code generation: an [`Executable`] keeps its machine code alive through an opaque handle.
//!
//! ```
//! use graphc_runtime::ThreadPool;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! let pool = ThreadPool::new(2)?;
//! let sum = AtomicU64::new(0);
//! pool.run(1000, |begin, end, _worker| {
//!     sum.fetch_add((begin..end).sum(), Ordering::Relaxed);
//! });
//! assert_eq!(sum.into_inner(), 499_500);
//! # Ok::<(), graphc_runtime::RuntimeError>(())
//! ```

pub mod abi;
mod elements;
mod error;
mod executable;
#[cfg(all(target_os = "linux", not(miri)))]
mod fence;
mod fpenv;
mod guard;
mod memory;
mod pool;
mod process;
mod profile;
mod state;
mod sync;
mod value;

pub use elements::Elements;
pub use error::{PortSide, RuntimeError};
pub use executable::{Executable, ExecutableParts, FaultSite, Interrupter, Port, RunContext};
#[cfg(all(target_os = "linux", not(miri)))]
pub use fence::{Fenced, fence_buffers};
pub use fpenv::FpEnv;
pub use guard::{Explain, Guard, GuardedStep, MemoryBase, MemoryRange, NonFinite};
pub use memory::{ALIGNMENT, AlignedBuffer, Fence, GRANULE, HUGE_ALIGNMENT, SLACK_BYTES};
pub use pool::{MAX_THREADS, THREADS_VARIABLE, ThreadPool, available_parallelism};
pub use profile::{FunctionProfile, Profile, StepInfo, StepTime, TraceEvent};
pub use state::{State, StateEntry, StateLayout};
pub use value::{Element, Value, ValueMut};
