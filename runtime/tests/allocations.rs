//! A run allocates nothing once its context is warm.

use graphc_ir::DType;
use graphc_runtime::abi::Context;
use graphc_runtime::{AlignedBuffer, Executable, ExecutableParts, Port, RunContext, State, ThreadPool};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// y = x + 1 over 100 units.
unsafe extern "C" fn increment(cx: *mut Context) -> i32 {
    unsafe extern "C" fn kernel(cx: *mut Context, begin: u64, end: u64, _worker: u64) {
        for i in begin as usize..end as usize {
            // SAFETY: input and output have 100 elements, and pieces are disjoint.
            unsafe {
                let x = (*(*cx).inputs).cast::<i64>().add(i).read();
                (*(*cx).outputs).cast::<i64>().add(i).write(x + 1);
            }
        }
    }
    // SAFETY: the context is as the ABI says.
    unsafe { ((*cx).parallel_for)((*cx).pool, kernel, cx, 100) };
    0
}

#[test]
fn a_warm_run_allocates_nothing() {
    let parts = ExecutableParts {
        name: "increment".into(),
        inputs: vec![Port::new("x", DType::I64, [100])],
        outputs: vec![Port::new("y", DType::I64, [100])],
        state: Arc::default(),
        arena_bytes: 4096,
        constants: AlignedBuffer::zeroed(0, "constants").unwrap(),
        faults: Vec::new(),
        steps: Arc::default(),
        guard: None,
        poison: Vec::new(),
        gaps: Vec::new(),
        entry: increment,
        code: Arc::new(()),
        max_threads: 2,
        lacking: None,
    };
    // SAFETY: `increment` keeps the contract for these parts.
    let increment = unsafe { Executable::from_parts(parts) };
    let mut cx = RunContext::new(&increment, Arc::new(ThreadPool::new(2).unwrap())).unwrap();
    let mut state = State::zeros(Arc::default()).unwrap();
    let (x, mut y) = ([41i64; 100], [0i64; 100]);
    let mut step = || increment.run(&mut cx, &mut state, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
    for _ in 0..100 {
        step();
    }
    // Something else in the process (the test harness) may allocate now and then, so that the best of
    // many short stretches counts.
    let allocations = (0..100)
        .map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            (0..10).for_each(|_| step());
            ALLOCATIONS.load(Ordering::Relaxed) - before
        })
        .min();
    assert_eq!(allocations, Some(0));
    assert_eq!(y, [42; 100]);
}
