//! Work of the compiler on all threads of the machine.

use graphc_runtime::available_parallelism;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pieces of work for which a thread is started at least.
const PIECES: usize = 4;

/// `work` of every index in `order`, begun in that order on all threads; results are by index.
/// Missing ones are those of a thread that ended early.
pub(crate) fn on_all_threads<T: Send>(order: &[usize], work: impl Fn(usize) -> T + Sync) -> Vec<Option<T>> {
    let results: Vec<Mutex<Option<T>>> = order.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = work(i);
            if let Ok(mut slot) = results[i].lock() {
                *slot = Some(result);
            }
        }
    };
    let threads = available_parallelism().min(order.len() / PIECES);
    std::thread::scope(|s| {
        for _ in 1..threads {
            s.spawn(run);
        }
        run();
    });
    results.into_iter().map(|r| r.into_inner().ok().flatten()).collect()
}
