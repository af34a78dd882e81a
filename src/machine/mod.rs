//! What this machine can do at most: multiply-adds per second by width of vectors, and bytes per second by
//! level of the memory. Times of kernels are compared with it (the roofline model: Williams, Waterman and
//! Patterson, "Roofline: an insightful visual performance model", 2009).
//!
//! Measuring takes some seconds, so the record is kept in the user's cache directory:
//!
//! ```no_run
//! use graphc::{Isa, machine::Machine};
//!
//! let machine = Machine::known();
//! let (flops, bytes) = (2.0 * 512f64.powi(3), 3.0 * 4.0 * 512f64.powi(2));
//! let compute_s = flops / (machine.gflops(Isa::host(), 1) * 1e9);
//! let memory_s = bytes / (machine.gb_s(bytes as usize, 1) * 1e9);
//! println!("a product of 512 x 512 takes at least {:.0} us", compute_s.max(memory_s) * 1e6);
//! ```

mod caches;
mod vectors;

use crate::Isa;
use graphc_runtime::available_parallelism;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use vectors::Update;

/// Each measurement is repeated so often, and the best counts: others use the machine too.
const REPEATS: usize = 8;
/// Shortest time of one repetition.
const TIME: Duration = Duration::from_millis(15);
/// Bytes of both arrays in main memory, of all threads together: no cache holds them.
const MAIN_MEMORY: usize = 256_000_000;
/// Bytes between two looks at the clock.
const CLOCKED: usize = 1 << 20;

/// Peaks of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Number of threads that run at once.
    pub threads: usize,
    /// Arithmetic, narrow vectors first, for one thread and for all.
    pub arithmetic: Vec<Arithmetic>,
    /// Caches, small ones first, and main memory, for one thread and for all.
    pub memory: Vec<Memory>,
}

/// Peak of arithmetic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arithmetic {
    /// Width of the vectors in bits.
    pub bits: usize,
    /// Number of threads.
    pub threads: usize,
    /// Operations on `f32` in 10^9 per second, of all threads together; a fused multiply-add is two.
    pub gflops: f64,
}

/// Peak of a level of the memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// `L1`, `L2`, .. or `memory`.
    pub level: String,
    /// Size in bytes; none for main memory.
    pub bytes: Option<usize>,
    /// Number of threads.
    pub threads: usize,
    /// Bytes read and written by `x = x + 2 y` in place, in 10^9 per second, of all threads together.
    pub gb_s: f64,
}

impl Machine {
    /// The record of this machine: read from [`record_path`](Self::record_path), or measured and written there. A
    /// record of another processor or number of threads does not count; one that cannot be written is
    /// measured again next time.
    pub fn known() -> Self {
        let path = Self::record_path();
        let read = path.as_ref().and_then(|p| std::fs::read(p).ok());
        let record = read.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        record.filter(Self::is_this).unwrap_or_else(Self::measure_again)
    }

    /// Measures, and writes the record.
    pub fn measure_again() -> Self {
        let machine = Self::measure();
        if let Some(path) = Self::record_path()
            && let Some(dir) = path.parent()
            && let Ok(text) = serde_json::to_vec_pretty(&machine)
        {
            // Without a record all works, only slower.
            let _ = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, text));
        }
        machine
    }

    /// Measures: some seconds. Other work on the machine makes the figures too low.
    pub fn measure() -> Self {
        let threads = available_parallelism();
        let counts: &[usize] = if threads > 1 { &[1, threads] } else { &[1] };
        let isas = Isa::ALL.into_iter().filter(|i| i.is_available());
        let arithmetic = isas.flat_map(|isa| {
            counts.iter().map(move |&threads| Arithmetic {
                bits: bits(isa),
                threads,
                gflops: peak_gflops(isa, threads),
            })
        });
        let caches = caches::data_caches().into_iter().map(|c| (format!("L{}", c.level), Some(c)));
        let levels = caches.chain([("memory".to_owned(), None)]);
        let memory = levels.flat_map(|(level, cache)| {
            counts.iter().map(move |&threads| Memory {
                level: level.clone(),
                bytes: cache.map(|c| c.bytes),
                threads,
                gb_s: match cache {
                    Some(c) => update_gb_s(threads, c.bytes_per_thread(threads) / 2),
                    None => memory_gb_s(threads),
                },
            })
        });
        Self { cpu: caches::processor(), threads, arithmetic: arithmetic.collect(), memory: memory.collect() }
    }

    /// Where the record is: in `$XDG_CACHE_HOME/graphc`, or where the system keeps caches of users. None
    /// for a user without a home. Builds for debugging have one of their own, for they measure themselves: their
    /// figures are far below the machine's.
    pub fn record_path() -> Option<PathBuf> {
        use etcetera::BaseStrategy;
        let dirs = etcetera::choose_base_strategy().ok()?;
        let file = if cfg!(debug_assertions) { "machine-debug.json" } else { "machine.json" };
        Some(dirs.cache_dir().join("graphc").join(file))
    }

    /// Most operations on `f32`, in 10^9 per second, with these instructions and so many threads.
    pub fn gflops(&self, isa: Isa, threads: usize) -> f64 {
        let of_width = self.arithmetic.iter().filter(|a| a.bits == bits(isa));
        scaled(of_width.map(|a| (a.threads, a.gflops)), threads)
    }

    /// Most bytes, in 10^9 per second, read and written by so many threads that work on this many bytes in
    /// all: the peak of the smallest level that holds them.
    pub fn gb_s(&self, working_set: usize, threads: usize) -> f64 {
        let holds = |m: &&Memory| m.bytes.is_none_or(|bytes| working_set <= bytes * copies(m, threads));
        let level = self.memory.iter().find(holds).map(|m| &m.level);
        let of_level = self.memory.iter().filter(|m| Some(&m.level) == level);
        scaled(of_level.map(|m| (m.threads, m.gb_s)), threads)
    }

    fn is_this(&self) -> bool {
        self.cpu == caches::processor() && self.threads == available_parallelism()
    }
}

/// How many of a level's caches so many threads use: each its own of the small ones, one of the last.
fn copies(m: &Memory, threads: usize) -> usize {
    if m.level == "L1" || m.level == "L2" { threads } else { 1 }
}

/// What so many threads reach: the measured peak of their number, or as many times that of one thread as there
/// are threads, but no more than the peak of all.
fn scaled(measured: impl Iterator<Item = (usize, f64)> + Clone, threads: usize) -> f64 {
    let of = |n: usize| measured.clone().find(|m| m.0 == n).map(|m| m.1);
    let most = measured.clone().map(|m| m.1).fold(0.0, f64::max);
    of(threads).unwrap_or_else(|| (of(1).unwrap_or(0.0) * threads as f64).min(most))
}

fn bits(isa: Isa) -> usize {
    match isa {
        Isa::Portable => 128,
        Isa::Avx2 => 256,
        Isa::Avx512 => 512,
    }
}

/// Measures fused multiply-adds from registers, in 10^9 operations on `f32` per second, with vectors as wide as
/// those of `isa`, which must be [available](Isa::is_available), on so many threads together.
pub fn peak_gflops(isa: Isa, threads: usize) -> f64 {
    together(threads, || (), |()| vectors::multiply_adds(isa)) / 1e9
}

/// Measures `x = x + 2 y` in place over arrays that no cache holds, in 10^9 bytes read and written per second, on so many
/// threads together. In place, so that the bytes counted are all that move: what is only written is read
/// before, unless it bypasses the caches.
pub fn memory_gb_s(threads: usize) -> f64 {
    update_gb_s(threads, MAIN_MEMORY / threads)
}

/// The same over two arrays of so many bytes together on each thread.
fn update_gb_s(threads: usize, bytes: usize) -> f64 {
    let rounds = (CLOCKED / bytes.max(1)).max(1);
    let step = |update: &mut Update| (0..rounds).map(|_| update.run() as f64).sum();
    together(threads, || Update::new(bytes), step) / 1e9
}

/// Work per second of so many threads that call `step`, which gives the work it did, at the same time. Each has a
/// state of its own.
fn together<S>(threads: usize, state: impl Fn() -> S + Sync, step: impl Fn(&mut S) -> f64 + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let rates = || -> Vec<f64> {
        let mut state = state();
        let mut rate = || {
            barrier.wait();
            let (started, mut work) = (Instant::now(), 0.0);
            while started.elapsed() < TIME {
                work += step(&mut state);
            }
            work / started.elapsed().as_secs_f64()
        };
        (0..REPEATS).map(|_| rate()).collect()
    };
    let of_threads: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(rates)).collect();
        threads.into_iter().map(|t| t.join().expect("measuring does not panic")).collect()
    });
    (0..REPEATS).map(|i| of_threads.iter().map(|rates| rates[i]).sum()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let arithmetic = [(128, 1, 50.0), (128, 4, 180.0), (256, 1, 100.0), (256, 4, 350.0)];
        let memory = [("L1", Some(32 << 10), 1, 200.0), ("L1", Some(32 << 10), 4, 800.0)];
        let main = [("memory", None, 1, 10.0), ("memory", None, 4, 25.0)];
        Machine {
            cpu: "a machine".to_owned(),
            threads: 4,
            arithmetic: arithmetic
                .map(|(bits, threads, gflops)| Arithmetic { bits, threads, gflops })
                .to_vec(),
            memory: memory
                .into_iter()
                .chain(main)
                .map(|(level, bytes, threads, gb_s)| Memory { level: level.to_owned(), bytes, threads, gb_s })
                .collect(),
        }
    }

    #[test]
    fn peaks_are_those_of_the_width_the_level_and_the_threads() {
        let m = machine();
        assert_eq!(m.gflops(Isa::Portable, 1), 50.0);
        assert_eq!(m.gflops(Isa::Avx2, 2), 200.0);
        assert_eq!(m.gflops(Isa::Avx2, 4), 350.0);
        assert_eq!(m.gflops(Isa::Avx512, 1), 0.0);
        assert_eq!(m.gb_s(32 << 10, 1), 200.0);
        assert_eq!(m.gb_s(33 << 10, 1), 10.0);
        assert_eq!(m.gb_s(33 << 10, 2), 400.0);
        assert_eq!(m.gb_s(1 << 30, 3), 25.0);
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let text = serde_json::to_string(&machine()).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), machine());
    }

    #[test]
    fn work_is_added_up_over_threads() {
        // Each call of one unit takes a millisecond at least.
        let step = |(): &mut ()| {
            std::thread::sleep(Duration::from_millis(1));
            1.0
        };
        let (one, two) = (together(1, || (), step), together(2, || (), step));
        assert!(one > 0.0 && one <= 1000.0, "{one}");
        assert!(two > 0.0 && two <= 2000.0, "{two}");
    }
}
