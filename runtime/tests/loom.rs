//! The thread pool in all orders that its threads' accesses may have, stale values of relaxed loads among them.
//! `RUSTFLAGS="--cfg loom" cargo test --release -p graphc-runtime --test loom`; without that there is nothing here.

#![cfg(loom)]

use graphc_runtime::ThreadPool;
use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Waits are parked at once.
const PARK: Duration = Duration::ZERO;

/// Waits are spun to their end.
const SPIN: Duration = Duration::from_secs(3600);

/// Runs `test` in all orders in which threads are preempted at most three times (or as often as LOOM_MAX_PREEMPTIONS says),
/// however often they wait.
fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(test);
}

fn pool(n_threads: usize, spin: Duration) -> ThreadPool {
    ThreadPool::with_spin(n_threads, spin).unwrap()
}

/// Runs `n_units`, and checks that each ran once and that this is seen afterwards. All accesses are relaxed loads and
/// stores: it is the pool that must order them.
fn check_covers(pool: &ThreadPool, n_units: usize) {
    let counts: Vec<_> = (0..n_units).map(|_| AtomicU64::new(0)).collect();
    let add = |count: &AtomicU64| count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    pool.run(n_units as u64, |begin, end, _| counts[begin as usize..end as usize].iter().for_each(add));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}

#[test]
fn a_pool_without_work_ends() {
    for (n_threads, spin) in [(2, PARK), (2, SPIN), (3, PARK)] {
        model(move || drop(pool(n_threads, spin)));
    }
}

#[test]
fn jobs_follow_each_other() {
    for spin in [PARK, SPIN] {
        model(move || {
            let pool = pool(2, spin);
            for n_units in [2, 3, 2] {
                check_covers(&pool, n_units);
            }
        });
    }
}

/// The second worker has no piece of the first job.
#[test]
fn workers_may_have_no_piece() {
    model(|| {
        let pool = pool(3, PARK);
        check_covers(&pool, 2);
        check_covers(&pool, 3);
    });
}

#[test]
fn panics_reach_the_caller() {
    model(|| {
        let pool = pool(2, PARK);
        for guilty in [0..1, 1..2, 0..2] {
            // What `panic!` does without its message.
            let piece = |_, _, worker| {
                if guilty.contains(&worker) {
                    resume_unwind(Box::new(worker));
                }
            };
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(2, piece)));
            assert_eq!(*caught.unwrap_err().downcast::<usize>().unwrap(), guilty.start);
        }
        check_covers(&pool, 2);
    });
}

#[test]
fn pieces_use_their_own_pool() {
    model(|| {
        let pool = pool(2, PARK);
        pool.run(2, |_, _, _| check_covers(&pool, 2));
        check_covers(&pool, 2);
    });
}

#[test]
fn two_threads_share_a_pool() {
    model(|| {
        let pool = Arc::new(pool(2, PARK));
        let other = thread::spawn({
            let pool = Arc::clone(&pool);
            move || check_covers(&pool, 2)
        });
        check_covers(&pool, 2);
        other.join().unwrap();
    });
}
