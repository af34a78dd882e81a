//! What the machine can do: fused multiply-adds from registers, and memory too large for caches.

#![expect(unsafe_code, reason = "a function for instructions beyond the target's is unsafe to call")]

use std::hint::black_box;
use std::time::Instant;

/// Measured peaks.
pub(super) struct Peak {
    /// Fused multiply-adds on f32, each two operations, in 10^9 operations per second.
    pub(super) gflops: f64,
    /// Bytes read and written by an update in place, in 10^9 per second.
    pub(super) gb_s: f64,
}

/// Rounds of one measurement of multiply-adds.
const ROUNDS: u64 = 4_000_000;
/// Elements of each of the two arrays of the update: 256 MB in all.
const UPDATE: usize = 256_000_000 / 8;
/// Each measurement is repeated and the best counts.
const REPEATS: usize = 8;

/// The peaks of so many threads together.
pub(super) fn measure(threads: usize) -> Peak {
    Peak { gflops: best(|| multiply_adds(threads)), gb_s: update(threads) }
}

fn best(mut rate: impl FnMut() -> f64) -> f64 {
    (0..REPEATS).map(|_| rate()).fold(0.0, f64::max)
}

fn multiply_adds(threads: usize) -> f64 {
    let started = Instant::now();
    let flops: f64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| fma_chains(ROUNDS))).collect();
        threads.into_iter().map(|t| t.join().expect("the chains do not panic")).sum()
    });
    flops / started.elapsed().as_secs_f64() / 1e9
}

/// Runs independent chains of multiply-adds in the widest registers there are; the number of operations.
#[cfg(target_arch = "x86_64")]
fn fma_chains(rounds: u64) -> f64 {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };

    /// 16 chains hide a latency of 4 on two units twice over.
    const WIDE: usize = 16;
    #[target_feature(enable = "avx512f")]
    fn wide(rounds: u64) {
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(1.0)));
        let mut sums = [_mm512_setzero_ps(); WIDE];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// With both factors these are 14 of the 16 registers.
    const NARROW: usize = 12;
    #[target_feature(enable = "avx,fma")]
    fn narrow(rounds: u64) {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(1.0)));
        let mut sums = [b; NARROW];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has the instructions, as was just checked.
        unsafe { wide(rounds) };
        (rounds * 2 * 16 * WIDE as u64) as f64
    } else if is_x86_feature_detected!("avx") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the instructions, as was just checked.
        unsafe { narrow(rounds) };
        (rounds * 2 * 8 * NARROW as u64) as f64
    } else {
        portable_chains(rounds)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn fma_chains(rounds: u64) -> f64 {
    portable_chains(rounds)
}

/// Chains as the compiler finds them best.
fn portable_chains(rounds: u64) -> f64 {
    let (a, b) = (black_box(0.5f32), black_box(1.0f32));
    let mut sums = [b; 64];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = *sum * a + b;
        }
    }
    black_box(sums);
    (rounds * 2 * 64) as f64
}

/// `x = x + 2 y` over arrays that no cache holds, each thread on its part. In place, so that the bytes
/// counted are all that move: what is only written is read before, unless it bypasses the caches.
fn update(threads: usize) -> f64 {
    let (mut x, y) = (vec![1.0f32; UPDATE], vec![2.0f32; UPDATE]);
    let part = UPDATE.div_ceil(threads);
    best(|| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for (x, y) in x.chunks_mut(part).zip(y.chunks(part)) {
                scope.spawn(move || x.iter_mut().zip(y).for_each(|(x, y)| *x += 2.0 * y));
            }
        });
        black_box(&mut x);
        (3 * size_of::<f32>() * UPDATE) as f64 / started.elapsed().as_secs_f64() / 1e9
    })
}
