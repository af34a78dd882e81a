//! A small thread pool for kernels: static partition, short spin, then park.
//!
//! The thread that calls is worker 0 and does its share. There is no queue: while one call uses
//! the pool, another call (nested in a piece, or from another thread) runs all its units on its own
//! thread. Pieces depend on the number of units and threads only, never on timing.
//!
//! # Protocol
//!
//! Whoever sets `busy` owns the pool until it clears it. The owner writes `job`, then `pending` =
//! number of pieces for others, then publishes a new `word` = (sequence number, number of pieces).
//! Workers with an index below the number of pieces run theirs and decrement `pending`; others
//! ignore the word. The owner waits for `pending == 0` before it gives up the pool, so `job` never
//! changes under a worker that is to run it. A worker about to park sets its `sleeping` flag and
//! then looks at `word` once more, the owner publishes `word` and then looks at the flags; both with
//! a sequentially consistent fence in between, so at least one sees the other. So do the owner that is
//! about to block, with `owner_waits` and `pending`, and the worker that is the last to be done.

use crate::abi::{self, Context, KernelFn};
use crate::error::RuntimeError;
use crate::fpenv::FpEnv;
use crate::process::Process;
use crate::profile::PieceLog;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, UnsafeCell, fence};
use crate::sync::{spin_loop, thread};
use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Largest number of threads of a pool.
pub const MAX_THREADS: usize = 1024;

/// Environment variable that sets the number of threads of [`ThreadPool::global`].
pub const THREADS_VARIABLE: &str = "GRAPHC_THREADS";

/// How long an idle worker spins before it parks. Waking a parked thread costs some 5 to 50 µs, so
/// spinning that long costs at most as much again; kernels of one step follow each other faster.
const SPIN: Duration = Duration::from_micros(40);

/// The owner waits this many times longer before it blocks: the pieces it waits for are running, and
/// waking it would delay the whole step.
const OWNER_PATIENCE: u32 = 4;

/// Low bits of the word: number of pieces.
const PIECES_BITS: u32 = 16;
const PIECES_MASK: u64 = (1 << PIECES_BITS) - 1;

/// The word that ends the workers. Its number of pieces exceeds every index, and 2^48 calls do
/// not happen.
const SHUTDOWN: u64 = u64::MAX;

type Payload = Box<dyn Any + Send>;

/// Runs one piece: what, its data, begin, end, worker.
type Call = unsafe fn(*const (), u64, u64, usize);

#[derive(Clone, Copy)]
struct Job {
    call: Call,
    data: *const (),
    n_units: u64,
    n_pieces: u64,
}

/// Keeps what different threads write on different cache lines (two, for adjacent-line prefetch).
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    word: Padded<AtomicU64>,
    pending: Padded<AtomicU64>,
    /// By worker index; 0 is unused.
    sleeping: Box<[Padded<AtomicBool>]>,
    job: UnsafeCell<Job>,
    busy: AtomicBool,
    /// The owner is about to block, or blocks, on `done`.
    owner_waits: AtomicBool,
    done_lock: Mutex<()>,
    done: Condvar,
    panicked: AtomicBool,
    panics: Mutex<Vec<Payload>>,
    spin: Duration,
}

// SAFETY: `job` is the only part that is not Send and Sync. It is written by the owner of the pool
// only, while no worker has a piece to run, and read by workers after they saw the word published
// after it (see the protocol). Its data is shared between threads only as `dispatch`'s callers allow.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Threads that run the pieces of one loop at a time. See [`abi`] for the guarantees pieces have.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<thread::JoinHandle<()>>,
    /// Where the workers are; `None` if there are none.
    process: Option<Process>,
}

impl ThreadPool {
    /// A pool of `n_threads` threads, the caller's included: `n_threads - 1` are started, named
    /// `graphc-1`, `graphc-2`, ...
    ///
    /// # Errors
    /// [`RuntimeError::ThreadCount`] unless `1 <= n_threads <= `[`MAX_THREADS`];
    /// [`RuntimeError::ThreadSpawn`] if the system does not start a thread.
    pub fn new(n_threads: usize) -> Result<Self, RuntimeError> {
        // With more threads than processors, spinning only keeps others from running.
        let spin = if n_threads > available_parallelism() { Duration::ZERO } else { SPIN };
        Self::with_spin(n_threads, spin)
    }

    /// As [`ThreadPool::new`]; idle workers spin for `spin` before they park.
    ///
    /// # Errors
    /// As [`ThreadPool::new`].
    pub fn with_spin(n_threads: usize, spin: Duration) -> Result<Self, RuntimeError> {
        if !(1..=MAX_THREADS).contains(&n_threads) {
            return Err(RuntimeError::ThreadCount { given: n_threads.to_string().into(), max: MAX_THREADS });
        }
        unsafe fn nothing(_: *const (), _: u64, _: u64, _: usize) {}
        let shared = Arc::new(Shared {
            word: Padded(AtomicU64::new(0)),
            pending: Padded(AtomicU64::new(0)),
            sleeping: (0..n_threads).map(|_| Padded(AtomicBool::new(false))).collect(),
            job: UnsafeCell::new(Job { call: nothing, data: std::ptr::null(), n_units: 0, n_pieces: 0 }),
            busy: AtomicBool::new(false),
            owner_waits: AtomicBool::new(false),
            done_lock: Mutex::new(()),
            done: Condvar::new(),
            panicked: AtomicBool::new(false),
            panics: Mutex::new(Vec::new()),
            spin,
        });
        // Dropping the unfinished pool on an error ends the threads already started.
        let process = (n_threads > 1).then(Process::current);
        let mut pool = Self { shared, workers: Vec::with_capacity(n_threads - 1), process };
        for index in 1..n_threads {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new()
                .name(format!("graphc-{index}"))
                .spawn(move || shared.work(index))
                .map_err(|source| RuntimeError::ThreadSpawn { index, source })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// The pool of the process, started on first use with as many threads as [`THREADS_VARIABLE`]
    /// says, by default one per available processor.
    ///
    /// # Errors
    /// [`RuntimeError::ThreadCount`] if the variable is not a valid number of threads;
    /// [`RuntimeError::ThreadSpawn`].
    pub fn global() -> Result<Arc<Self>, RuntimeError> {
        static GLOBAL: OnceLock<Arc<ThreadPool>> = OnceLock::new();
        if let Some(pool) = GLOBAL.get() {
            return Ok(Arc::clone(pool));
        }
        let pool = Arc::new(Self::new(threads_from(std::env::var_os(THREADS_VARIABLE).as_deref())?)?);
        // If another thread was faster, its pool stays and this one ends.
        Ok(Arc::clone(GLOBAL.get_or_init(|| pool)))
    }

    /// Number of threads, the caller's included.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The process in which the workers are, if this one was forked from it.
    pub(crate) fn parent(&self) -> Option<u32> {
        self.process.as_ref().filter(|p| !p.is_current()).map(Process::id)
    }

    /// Calls `piece(begin, end, worker)` for disjoint pieces that cover units `0..n_units`, on the
    /// threads of the pool, and returns when all are done. If the pool is in use, or this process is a
    /// fork of the one that made it, there is one piece.
    ///
    /// # Panics
    /// With the panic of a piece, if one panics; all other pieces run first.
    pub fn run<F: Fn(u64, u64, usize) + Sync>(&self, n_units: u64, piece: F) {
        unsafe fn call<F: Fn(u64, u64, usize)>(data: *const (), begin: u64, end: u64, worker: usize) {
            // SAFETY: `data` is the closure below, which outlives `dispatch`.
            let piece = unsafe { &*data.cast::<F>() };
            piece(begin, end, worker);
        }
        let max_threads = if self.parent().is_some() { 1 } else { MAX_THREADS };
        // SAFETY: `call` and the closure have one type; the closure is Sync and `dispatch` returns
        // only after the last piece.
        let result = unsafe { self.dispatch(call::<F>, (&raw const piece).cast(), n_units, max_threads) };
        if let Err(payload) = result {
            resume_unwind(payload);
        }
    }

    /// Runs pieces and waits for all, with more than one thread in the process of the workers only. Returns the panic of one of them if any panicked.
    ///
    /// # Safety
    /// `call(data, begin, end, worker)` may be called from several threads at a time, until
    /// `dispatch` returns.
    unsafe fn dispatch(
        &self,
        call: Call,
        data: *const (),
        n_units: u64,
        max_threads: usize,
    ) -> Result<(), Payload> {
        if n_units == 0 {
            return Ok(());
        }
        let shared = &*self.shared;
        let n_pieces = n_units.min(self.num_threads().min(max_threads) as u64);
        if n_pieces <= 1 || shared.busy.swap(true, Ordering::Acquire) {
            let job = Job { call, data, n_units, n_pieces: 1 };
            // SAFETY: the caller allows it.
            return unsafe { job.run_piece(0) };
        }
        let job = Job { call, data, n_units, n_pieces };
        // SAFETY: this thread owns the pool, and no worker reads the job before the next word:
        // pieces of the previous one are all done.
        shared.job.with_mut(|slot| unsafe { *slot = job });
        shared.pending.0.store(n_pieces - 1, Ordering::Relaxed);
        let sequence = (shared.word.0.load(Ordering::Relaxed) >> PIECES_BITS) + 1;
        shared.word.0.store(sequence << PIECES_BITS | n_pieces, Ordering::Release);
        fence(Ordering::SeqCst);
        for index in 1..n_pieces as usize {
            if shared.sleeping[index].0.load(Ordering::Relaxed) {
                self.workers[index - 1].thread().unpark();
            }
        }
        // SAFETY: the caller allows it.
        let result = unsafe { job.run_piece(0) };
        shared.wait_for_pieces();
        let mut panics = Vec::new();
        if shared.panicked.load(Ordering::Relaxed) {
            shared.panicked.store(false, Ordering::Relaxed);
            panics = std::mem::take(&mut *lock(&shared.panics));
        }
        shared.busy.store(false, Ordering::Release);
        // The caller's own panic goes first: it is piece 0.
        result.and(panics.into_iter().next().map_or(Ok(()), Err))
    }
}

impl Job {
    /// Runs piece `index` in the default floating-point environment.
    ///
    /// # Safety
    /// `call` may be called with `data`, now, on this thread.
    unsafe fn run_piece(&self, index: u64) -> Result<(), Payload> {
        let (begin, end) = abi::piece(self.n_units, self.n_pieces, index);
        let _env = FpEnv::enter();
        // SAFETY: by the contract of this function. What a panicking piece leaves half done is the
        // business of whoever gets the panic.
        catch_unwind(AssertUnwindSafe(|| unsafe { (self.call)(self.data, begin, end, index as usize) }))
    }
}

impl Shared {
    /// The life of worker `index`.
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            self.next_word(index, &mut seen);
            if seen == SHUTDOWN {
                return;
            }
            // SAFETY: the word just seen counts this worker, so the owner neither changes the job nor
            // lets its data go before this worker decrements `pending`.
            let job = self.job.with(|slot| unsafe { *slot });
            // SAFETY: as above.
            if let Err(payload) = unsafe { job.run_piece(index as u64) } {
                // All of them are for the owner: to drop one here could panic again, outside of any catch.
                lock(&self.panics).push(payload);
                self.panicked.store(true, Ordering::Relaxed);
            }
            let was_last = self.pending.0.fetch_sub(1, Ordering::Release) == 1;
            fence(Ordering::SeqCst);
            if was_last && self.owner_waits.load(Ordering::Relaxed) {
                // Under the lock, so that it does not come between the owner's check and its wait.
                let _guard = lock(&self.done_lock);
                self.done.notify_one();
            }
        }
    }

    /// Waits for a word other than `seen` that counts worker `index`, and puts it in `seen`.
    fn next_word(&self, index: usize, seen: &mut u64) {
        let mut arrived = || {
            let word = self.word.0.load(Ordering::Acquire);
            let new = word != *seen;
            *seen = word;
            new && (index as u64) < (word & PIECES_MASK)
        };
        if spin_until(self.spin, &mut arrived) {
            return;
        }
        self.sleeping[index].0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while !arrived() {
            thread::park();
        }
        self.sleeping[index].0.store(false, Ordering::Relaxed);
    }

    /// Waits until all workers have done their pieces. Called by the owner.
    fn wait_for_pieces(&self) {
        if spin_until(self.spin * OWNER_PATIENCE, || self.pending.0.load(Ordering::Acquire) == 0) {
            return;
        }
        self.owner_waits.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut guard = lock(&self.done_lock);
        while self.pending.0.load(Ordering::Acquire) != 0 {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.owner_waits.store(false, Ordering::Relaxed);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        if self.parent().is_some() {
            // Nobody is there to be joined, and the system may have given their stacks to others.
            std::mem::forget(std::mem::take(&mut self.workers));
            return;
        }
        self.shared.word.0.store(SHUTDOWN, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Workers catch every panic.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("num_threads", &self.num_threads()).finish_non_exhaustive()
    }
}

/// What `Context::pool` points to.
pub(crate) struct PoolRef<'a> {
    pub(crate) pool: &'a ThreadPool,
    /// Worker indices stay below it: the code has scratch memory for so many.
    pub(crate) max_threads: usize,
    /// Where to note when pieces ran, if somebody wants to know.
    pub(crate) log: Option<&'a PieceLog>,
}

/// The [`abi::ParallelFor`] of the runtime. `pool` points to a [`PoolRef`].
///
/// # Safety
/// `pool` points to a live `PoolRef`; `kernel` may be called with `cx` for disjoint pieces of
/// `0..n_units` from several threads at a time.
pub(crate) unsafe extern "C" fn parallel_for(
    pool: *const c_void,
    kernel: KernelFn,
    cx: *mut Context,
    n_units: u64,
) {
    struct Launch<'a> {
        kernel: KernelFn,
        cx: *mut Context,
        log: Option<&'a PieceLog>,
    }
    unsafe fn call(data: *const (), begin: u64, end: u64, worker: usize) {
        // SAFETY: `data` is the `Launch` below, which outlives `dispatch`; the kernel may be called
        // by the contract of `parallel_for`.
        unsafe {
            let launch = &*data.cast::<Launch<'_>>();
            let started = launch.log.map(|_| Instant::now());
            (launch.kernel)(launch.cx, begin, end, worker as u64);
            if let (Some(log), Some(started)) = (launch.log, started) {
                log.add(worker, started, Instant::now());
            }
        }
    }
    // SAFETY: the caller passes a live PoolRef.
    let handle = unsafe { &*pool.cast::<PoolRef<'_>>() };
    let launch = Launch { kernel, cx, log: handle.log };
    // SAFETY: `call` fits its data and may run concurrently by the contract above.
    let result =
        unsafe { handle.pool.dispatch(call, (&raw const launch).cast(), n_units, handle.max_threads) };
    // A kernel is `extern "C"`: it cannot unwind, so there is no panic to pass on.
    debug_assert!(result.is_ok(), "kernels do not unwind");
}

/// Locks; a panic of another holder does not matter to what these locks protect.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spins until `done`, for about `limit`. Returns whether it was done.
fn spin_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    /// Tries between looks at the clock: a look costs about as much as one or two tries.
    const TRIES: u32 = 32;
    if done() {
        return true;
    }
    if limit.is_zero() {
        return false;
    }
    let start = Instant::now();
    loop {
        for _ in 0..TRIES {
            spin_loop();
            if done() {
                return true;
            }
        }
        if start.elapsed() >= limit {
            return false;
        }
    }
}

/// How many threads can run at a time, up to [`MAX_THREADS`]: what the system said when it was first asked, for which it reads
/// files each time.
pub fn available_parallelism() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_THREADS))
}

/// Number of threads from the value of [`THREADS_VARIABLE`]. Unset or empty: the default.
fn threads_from(variable: Option<&std::ffi::OsStr>) -> Result<usize, RuntimeError> {
    let Some(text) = variable.filter(|text| !text.is_empty()) else {
        return Ok(available_parallelism());
    };
    let text = text.to_string_lossy();
    match text.trim().parse() {
        Ok(n) if (1..=MAX_THREADS).contains(&n) => Ok(n),
        _ => Err(RuntimeError::ThreadCount { given: text.into(), max: MAX_THREADS }),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    /// Fewer repetitions under Miri, which is some thousand times slower.
    const fn times(n: usize) -> usize {
        if cfg!(miri) { n / 1000 + 3 } else { n }
    }

    /// Runs `n_units` and checks that each unit was run exactly once, by a legal worker, and that
    /// no worker index was in use twice at a time.
    fn check_covers(pool: &ThreadPool, n_units: usize) {
        let counts: Vec<_> = (0..n_units).map(|_| AtomicUsize::new(0)).collect();
        let in_use: Vec<_> = (0..pool.num_threads()).map(|_| AtomicBool::new(false)).collect();
        pool.run(n_units as u64, |begin, end, worker| {
            assert!(begin < end);
            assert!(!in_use[worker].swap(true, Ordering::Relaxed));
            for count in &counts[begin as usize..end as usize] {
                count.fetch_add(1, Ordering::Relaxed);
            }
            in_use[worker].store(false, Ordering::Relaxed);
        });
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn every_unit_runs_once() {
        for n_threads in [1, 2, 3, 5] {
            let pool = ThreadPool::new(n_threads).unwrap();
            assert_eq!(pool.num_threads(), n_threads);
            for n_units in [0, 1, 2, 3, 4, 5, 6, 17, 100] {
                check_covers(&pool, n_units);
            }
        }
    }

    #[test]
    fn pieces_are_the_static_partition() {
        let pool = ThreadPool::new(3).unwrap();
        let pieces = Mutex::new(Vec::new());
        pool.run(10, |begin, end, worker| pieces.lock().unwrap().push((worker, begin, end)));
        let mut pieces = pieces.into_inner().unwrap();
        pieces.sort_unstable();
        assert_eq!(pieces, [(0, 0, 3), (1, 3, 6), (2, 6, 10)]);
    }

    #[test]
    fn many_small_calls() {
        let pool = ThreadPool::new(2).unwrap();
        let total = AtomicU64::new(0);
        let n = times(100_000) as u64;
        for _ in 0..n {
            pool.run(2, |begin, end, _| {
                total.fetch_add(end - begin, Ordering::Relaxed);
            });
        }
        assert_eq!(total.into_inner(), 2 * n);
    }

    /// Without spinning every hand-off goes through park and unpark, on both sides.
    #[test]
    fn parked_threads_wake() {
        let pool = ThreadPool::with_spin(4, Duration::ZERO).unwrap();
        for i in 0..times(3_000) {
            check_covers(&pool, 1 + i % 9);
        }
    }

    #[test]
    fn nested_calls_run_on_the_caller() {
        let pool = ThreadPool::new(3).unwrap();
        let total = AtomicU64::new(0);
        for _ in 0..times(1_000) {
            pool.run(3, |_, _, _| {
                let outer = thread::current().id();
                pool.run(5, |begin, end, worker| {
                    assert_eq!((begin, end, worker), (0, 5, 0));
                    assert_eq!(thread::current().id(), outer);
                    total.fetch_add(end - begin, Ordering::Relaxed);
                });
            });
        }
        assert_eq!(total.into_inner(), 15 * times(1_000) as u64);
    }

    #[test]
    fn threads_share_a_pool() {
        let pool = ThreadPool::new(2).unwrap();
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    for i in 0..times(5_000) {
                        check_covers(&pool, i % 7);
                    }
                });
            }
        });
    }

    #[test]
    fn panics_reach_the_caller_after_all_pieces_ran() {
        let pool = ThreadPool::new(3).unwrap();
        for guilty in [0, 1, 2] {
            let ran = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(3, |_, _, worker| {
                    if worker == guilty {
                        std::panic::panic_any(worker);
                    }
                    ran.fetch_add(1, Ordering::Relaxed);
                });
            }));
            assert_eq!(*result.unwrap_err().downcast::<usize>().unwrap(), guilty);
            assert_eq!(ran.into_inner(), 2);
            check_covers(&pool, 9);
        }
        let payload = Arc::new(());
        let all = catch_unwind(AssertUnwindSafe(|| {
            pool.run(3, |_, _, worker| std::panic::panic_any((worker, Arc::clone(&payload))));
        }));
        assert_eq!(all.unwrap_err().downcast::<(usize, Arc<()>)>().unwrap().0, 0);
        assert_eq!(Arc::strong_count(&payload), 1, "nobody keeps those that were not passed on");
        let nested = catch_unwind(AssertUnwindSafe(|| {
            pool.run(3, |_, _, _| pool.run(2, |_, _, _| std::panic::panic_any("inner")));
        }));
        assert_eq!(*nested.unwrap_err().downcast::<&str>().unwrap(), "inner");
        check_covers(&pool, 9);
    }

    #[test]
    fn kernels_get_only_as_many_workers_as_they_have_scratch_for() {
        unsafe extern "C" fn kernel(cx: *mut Context, begin: u64, end: u64, worker: u64) {
            assert!(worker < 2);
            // SAFETY: the test passes a vector of counters as its context.
            let counts = unsafe { &*cx.cast::<Vec<AtomicUsize>>() };
            for count in &counts[begin as usize..end as usize] {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        let pool = ThreadPool::new(4).unwrap();
        let handle = PoolRef { pool: &pool, max_threads: 2, log: None };
        let mut counts: Vec<_> = (0..7).map(|_| AtomicUsize::new(0)).collect();
        let cx = (&raw mut counts).cast();
        // SAFETY: the handle lives, and the kernel takes such a context from any thread.
        unsafe { parallel_for((&raw const handle).cast(), kernel, cx, 7) };
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn thread_counts_are_checked() {
        let check = |text: &str, expected: Result<usize, &str>| {
            let got = threads_from(Some(text.as_ref())).map_err(|e| e.to_string());
            assert_eq!(got, expected.map_err(str::to_owned));
        };
        check(" 3 ", Ok(3));
        check("", Ok(available_parallelism()));
        check("0", Err("thread count `0` is not in 1..=1024"));
        check("many", Err("thread count `many` is not in 1..=1024"));
        check("1025", Err("thread count `1025` is not in 1..=1024"));
        assert_eq!(threads_from(None).unwrap(), available_parallelism());
        assert!(ThreadPool::new(0).is_err());
    }
}
