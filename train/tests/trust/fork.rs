//! A process that is forked has the memory of a thread pool, and not its threads.

use crate::load::{compiled, steps};
use graphc_runtime::{RunContext, RuntimeError, State, ThreadPool};
use std::io;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[test]
fn a_forked_process_says_what_it_lacks() {
    let exe = Arc::new(compiled(1));
    let alone = Arc::new(ThreadPool::new(1).unwrap());
    let pool = Arc::new(ThreadPool::new(2).unwrap());
    let expected = steps(&exe, &alone, 2);
    assert!(steps(&exe, &pool, 2) == expected);
    let parent = std::process::id();

    let (in_child, pool_in_child, expected_in_child) = (exe.clone(), pool.clone(), expected.clone());
    let mut dropped = Some(ThreadPool::new(3).unwrap());
    let check = move || {
        let (exe, pool, expected) = (&in_child, &pool_in_child, &expected_in_child);
        let mut state = State::zeros(exe.state_layout().clone()).unwrap();
        let mut cx = RunContext::new(exe, pool.clone()).unwrap();
        let (x, i) = ([0f32; 8 * 17], [0i32; 4]);
        let (mut rows, mut sum) = ([0f32; 4 * 24], 0f32);
        let outputs = &mut [(&mut rows).into(), (&mut sum).into()];
        let error = exe.run(&mut cx, &mut state, &[(&x).into(), (&i).into()], outputs).unwrap_err();
        assert!(matches!(error, RuntimeError::Forked { parent: p } if p == parent));
        assert!(error.to_string().contains("make a new pool"), "{error}");
        // Closures run on this thread, in one piece.
        let units = AtomicU64::new(0);
        pool.run(5, |begin, end, worker| {
            assert_eq!((begin, end, worker), (0, 5, 0));
            units.fetch_add(end - begin, Ordering::Relaxed);
        });
        assert_eq!(units.into_inner(), 5);
        // A pool without its threads can go, and what the error says helps.
        drop(dropped.take());
        assert!(steps(exe, &alone, 2) == *expected);
        let new = Arc::new(ThreadPool::new(2).unwrap());
        assert!(steps(exe, &new, 2) == *expected);
    };
    let mut program = Command::new("true");
    // SAFETY: the child allocates, locks and starts threads, which it may on Linux: its C library makes its
    // allocator usable after a fork, and locks of this process's own are free or belong to the pool, which does
    // not take them.
    unsafe { program.pre_exec(checked(check)) };
    assert!(program.status().unwrap().success());
    assert!(steps(&exe, &pool, 2) == expected, "the parent goes on");
}

/// Runs a check in a process that has just been forked; an error if it panics.
fn checked(mut check: impl FnMut() + Send + Sync + 'static) -> impl FnMut() -> io::Result<()> + Send + Sync {
    move || {
        // The parent waits for this process; it must not do so for ever.
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(60));
            std::process::abort();
        });
        // Only a number gets to the parent; the message goes to standard error.
        catch_unwind(AssertUnwindSafe(&mut check)).map_err(|_| io::Error::from_raw_os_error(1))
    }
}
