//! Many executables on many threads, and thousands of them one after the other.

use graphc_compiler::{CompileOptions, compile};
use graphc_ir::{Bindings, DType, Initializer, Module, ModuleBuilder};
use graphc_runtime::{Executable, RunContext, State, ThreadPool};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A number from the environment, which makes a test longer.
fn setting(name: &str, normally: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(normally)
}

/// A step that updates state: a product, a sum and a gather, with an index check that may fail.
fn module(n: usize) -> Module {
    let m = ModuleBuilder::new("m");
    let w = m.state("w", DType::F32, [16 + n, 24], Initializer::Constant(0.01 * n as f64));
    m.function("step", |f| {
        let (x, i) = (f.input("x", DType::F32, [8, 16 + n]), f.input("i", DType::I32, [4]));
        let y = x.dot(f.read(&w)).tanh();
        f.output("rows", y.take(i, 0));
        f.output("sum", y.reduce_sum(&[0, 1]));
        f.update(&w, f.read(&w) + x.transpose(&[1, 0]).dot(y) * 0.125);
    });
    m.build().unwrap()
}

pub(crate) fn compiled(n: usize) -> Executable {
    let options = CompileOptions { max_threads: 3, ..CompileOptions::default() };
    compile(&module(n), "step", &Bindings::new(), &options).unwrap()
}

/// Steps of an executable on this pool: the bits of all outputs and of the state at the end.
pub(crate) fn steps(exe: &Executable, pool: &Arc<ThreadPool>, n: usize) -> Vec<u32> {
    let mut cx = RunContext::new(exe, pool.clone()).unwrap();
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    let (mut rows, mut sum) = (vec![0f32; 4 * 24], 0f32);
    let mut bits = Vec::new();
    for step in 0..n {
        let features = exe.inputs()[0].num_elements();
        let x: Vec<f32> = (0..features).map(|i| ((i * 7 + step * 3) % 11) as f32 * 0.1 - 0.5).collect();
        let index = [0i32, 7, 3, step as i32 % 8];
        let outputs = &mut [(&mut rows).into(), (&mut sum).into()];
        exe.run(&mut cx, &mut state, &[(&x).into(), (&index).into()], outputs).unwrap();
        bits.extend(rows.iter().chain([&sum]).map(|v| v.to_bits()));
        // A step that fails changes nothing.
        let wrong = [0i32, 8, 0, 0];
        let outputs = &mut [(&mut rows).into(), (&mut sum).into()];
        exe.run(&mut cx, &mut state, &[(&x).into(), (&wrong).into()], outputs).unwrap_err();
    }
    bits.extend(state.get::<f32>("w").unwrap().iter().map(|v| v.to_bits()));
    bits
}

/// 64 executables on 8 threads, which share pools, are replaced while others run, and give the bits that each has alone.
/// GRAPHC_LOAD_SECONDS is how long, 3.
#[test]
fn many_executables_on_many_threads() {
    let serial = Arc::new(ThreadPool::new(1).unwrap());
    let pools = [1, 2, 3].map(|n| Arc::new(ThreadPool::new(n).unwrap()));
    let executables: Vec<_> = (0..64).map(|n| Arc::new(compiled(n % 16))).collect();
    let expected: Vec<Vec<u32>> = executables[..16].iter().map(|exe| steps(exe, &serial, 5)).collect();
    let end = Instant::now() + Duration::from_secs(setting("GRAPHC_LOAD_SECONDS", 3));
    let (runs, progress) = (AtomicU64::new(0), [const { AtomicU64::new(0) }; 8]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Who waits for ever is named instead of waited for.
        scope.spawn(|| {
            let mut last = [0; 8];
            let mut since = Instant::now();
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
                let now = progress.each_ref().map(|p| p.load(Ordering::Relaxed));
                if now != last {
                    (last, since) = (now, Instant::now());
                }
                if since.elapsed() > Duration::from_secs(60) {
                    eprintln!("deadlock: no thread has got on for a minute: {now:?}");
                    std::process::abort();
                }
            }
        });
        let workers: Vec<_> = (0..8)
            .map(|thread| {
                let (executables, expected, pools, runs, progress) =
                    (&executables, &expected, &pools, &runs, &progress);
                scope.spawn(move || {
                    let mut at = thread * 7;
                    while Instant::now() < end {
                        at = (at * 5 + thread + 1) % 64;
                        let bits = if at % 32 == 31 {
                            // A new one, which goes at once.
                            steps(&compiled(at % 16), &pools[at % 3], 5)
                        } else {
                            steps(&executables[at], &pools[at % 3], 5)
                        };
                        assert!(bits == expected[at % 16], "executable {at} on thread {thread}");
                        runs.fetch_add(1, Ordering::Relaxed);
                        progress[thread].fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    println!("{} runs of 10 steps", runs.into_inner());
}

/// A callback that panics while others use the pool reaches its caller, and the pool goes on; so do runs that are nested in a
/// piece of the same pool.
#[test]
fn pools_survive_panics_and_nesting() {
    let pool = Arc::new(ThreadPool::new(3).unwrap());
    let exe = compiled(1);
    let expected = steps(&exe, &pool, 3);
    for guilty in 0..3 {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(3, |_, _, worker| {
                assert!(steps(&exe, &pool, 3) == expected);
                assert!(worker != guilty, "a callback");
            });
        }));
        assert!(caught.is_err());
        assert!(steps(&exe, &pool, 3) == expected);
    }
}

/// Bytes of memory that the process has in use.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

const CYCLES: &str = "GRAPHC_CYCLES_HERE";

/// Compiles, runs and drops executables, in a process of its own: memory must not grow. GRAPHC_CYCLES is how many, 200.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow() {
    let cycles = setting("GRAPHC_CYCLES", 200);
    let Ok(here) = std::env::var(CYCLES) else {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "load::memory_does_not_grow", "--nocapture"])
            .env(CYCLES, cycles.to_string())
            .status();
        assert!(status.unwrap().success());
        return;
    };
    let cycles: u64 = here.parse().unwrap();
    let pool = Arc::new(ThreadPool::new(2).unwrap());
    let cycle = |i: u64| drop(steps(&compiled(i as usize % 3), &pool, 1));
    let warm = cycles / 4;
    (0..warm).for_each(cycle);
    let before = resident();
    (warm..cycles).for_each(cycle);
    let after = resident();
    println!("{cycles} cycles: {before} bytes after a quarter, {after} at the end");
    // A cycle that lost its code alone would lose a page or more.
    let lost = after.saturating_sub(before);
    assert!(lost < (cycles - warm) * 2048 + (1 << 20), "{lost} bytes more");
}
