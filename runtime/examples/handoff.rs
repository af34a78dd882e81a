//! Measures what a `parallel_for` costs beyond its work: hand-off to the workers and back.
//!
//! `cargo run --release -p graphc-runtime --example handoff [threads]` prints, for several spin
//! times and several pauses between calls, the median, 10th and 90th percentile of an empty call in
//! nanoseconds.

use graphc_runtime::{RuntimeError, ThreadPool};
use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

fn main() -> Result<(), RuntimeError> {
    let n_threads = match std::env::args().nth(1) {
        Some(n) => n.parse().unwrap_or(2),
        None => std::thread::available_parallelism().map_or(2, |n| n.get()),
    };
    let clock = measure(10_000, Duration::ZERO, || {});
    println!("{n_threads} threads; reading the clock takes {} ns (subtracted)", clock[1]);
    println!("{:>8} {:>9} {:>9} {:>9} {:>9}", "spin us", "pause us", "p10 ns", "median", "p90");
    for spin_us in [0, 5, 10, 20, 40, 80] {
        let pool = ThreadPool::with_spin(n_threads, Duration::from_micros(spin_us))?;
        for pause_us in [0, 2, 10, 30, 100, 1000] {
            let n = if pause_us < 100 { 5_000 } else { 500 };
            let t = measure(n, Duration::from_micros(pause_us), || {
                pool.run(n_threads as u64, |begin, _, _| {
                    black_box(begin);
                });
            });
            let t = t.map(|ns| ns.saturating_sub(clock[1]));
            println!("{spin_us:>8} {pause_us:>9} {:>9} {:>9} {:>9}", t[0], t[1], t[2]);
        }
    }
    Ok(())
}

/// 10th percentile, median and 90th percentile of the time `f` takes, in ns, over `n` calls with a
/// busy pause before each.
fn measure(n: usize, pause: Duration, mut f: impl FnMut()) -> [u128; 3] {
    let mut times: Vec<u128> = (0..n)
        .map(|_| {
            let start = Instant::now();
            while start.elapsed() < pause {
                spin_loop();
            }
            let start = Instant::now();
            f();
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    [times[n / 10], times[n / 2], times[n * 9 / 10]]
}
