//! The loops that are measured, with vectors of each width.

#![expect(unsafe_code, reason = "a function for instructions beyond the target's is unsafe to call")]

use crate::Isa;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::hint::black_box;

/// Rounds of multiply-adds between two looks at the clock.
const ROUNDS: usize = 100_000;
/// Chains of multiply-adds: they hide a latency of 4 on two units, and with both factors they are 14 of the 16
/// registers that narrow vectors have.
const CHAINS: usize = 12;
/// Vectors that one round of the update reads and writes.
const UNROLLED: usize = 4;

/// Chains of multiply-adds of one type of vectors.
#[cfg(target_arch = "x86_64")]
macro_rules! chains {
    ($name:ident, $features:literal, $vector:ty, $set:ident, $fma:ident) => {
        #[target_feature(enable = $features)]
        fn $name() -> f64 {
            let (a, b) = ($set(black_box(0.5)), $set(black_box(1.0)));
            let mut sums = [b; CHAINS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = $fma(*sum, a, b);
                }
            }
            black_box(sums);
            (ROUNDS * CHAINS * 2 * size_of::<$vector>() / size_of::<f32>()) as f64
        }
    };
}

/// The update in place with one type of vectors.
#[cfg(target_arch = "x86_64")]
macro_rules! update {
    ($name:ident, $features:literal, $vector:ty, $set:ident, $fma:ident) => {
        #[target_feature(enable = $features)]
        fn $name(x: &mut [$vector], y: &[$vector]) {
            let two = $set(2.0);
            let (x, y) = (x.as_chunks_mut::<UNROLLED>().0, y.as_chunks::<UNROLLED>().0);
            for (x, y) in x.iter_mut().zip(y) {
                for (x, y) in x.iter_mut().zip(y) {
                    *x = $fma(*y, two, *x);
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
chains!(chains_128, "avx,fma", __m128, _mm_set1_ps, _mm_fmadd_ps);
#[cfg(target_arch = "x86_64")]
chains!(chains_256, "avx,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps);
#[cfg(target_arch = "x86_64")]
chains!(chains_512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps);
#[cfg(target_arch = "x86_64")]
update!(update_256, "avx,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps);
#[cfg(target_arch = "x86_64")]
update!(update_512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps);

/// Multiply-adds from registers with vectors as wide as those of an available `isa`: the number of operations.
pub(super) fn multiply_adds(isa: Isa) -> f64 {
    #[cfg(target_arch = "x86_64")]
    match isa {
        // SAFETY: the CPU has AVX-512, as is checked here.
        Isa::Avx512 if is_x86_feature_detected!("avx512f") => return unsafe { chains_512() },
        // SAFETY: the CPU has AVX and FMA, as is checked here.
        Isa::Avx2 if has_fma() => return unsafe { chains_256() },
        // SAFETY: the CPU has AVX and FMA, as is checked here.
        Isa::Portable if has_fma() => return unsafe { chains_128() },
        _ => {}
    }
    let _ = isa;
    portable_chains()
}

#[cfg(target_arch = "x86_64")]
fn has_fma() -> bool {
    is_x86_feature_detected!("avx") && is_x86_feature_detected!("fma")
}

/// Chains as Rust's compiler finds them best.
fn portable_chains() -> f64 {
    let (a, b) = (black_box(0.5f32), black_box(1.0f32));
    let mut sums = [b; 64];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = *sum * a + b;
        }
    }
    black_box(sums);
    (ROUNDS * 2 * 64) as f64
}

/// `x = x + 2 y` over two arrays, with the widest vectors of the machine. `y` is zero, so that the numbers stay what they
/// are however often it is run.
pub(super) enum Update {
    #[cfg(target_arch = "x86_64")]
    Wide(Vec<__m512>, Vec<__m512>),
    #[cfg(target_arch = "x86_64")]
    Narrow(Vec<__m256>, Vec<__m256>),
    Portable(Vec<f32>, Vec<f32>),
}

impl Update {
    /// Arrays of so many bytes together.
    pub(super) fn new(bytes: usize) -> Self {
        let n = bytes / 2 / size_of::<f32>();
        #[cfg(target_arch = "x86_64")]
        {
            /// `[1.0; n]` and `[0.0; n]`, rounded down to whole rounds.
            fn arrays<V: Copy>(n: usize, lanes: usize, one: V, zero: V) -> (Vec<V>, Vec<V>) {
                let n = n / lanes / UNROLLED * UNROLLED;
                (vec![one; n], vec![zero; n])
            }
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the CPU has AVX-512, as was just checked.
                let (one, zero) = unsafe { (_mm512_set1_ps(1.0), _mm512_set1_ps(0.0)) };
                let (x, y) = arrays(n, 16, one, zero);
                return Self::Wide(x, y);
            }
            if has_fma() {
                // SAFETY: the CPU has AVX, as was just checked.
                let (one, zero) = unsafe { (_mm256_set1_ps(1.0), _mm256_set1_ps(0.0)) };
                let (x, y) = arrays(n, 8, one, zero);
                return Self::Narrow(x, y);
            }
        }
        Self::Portable(vec![1.0; n], vec![0.0; n])
    }

    /// Runs over both arrays once; the number of bytes read and written.
    pub(super) fn run(&mut self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide(x, y) => {
                // SAFETY: the CPU has AVX-512, else this would not be the case.
                unsafe { update_512(x, y) };
                3 * size_of_val(y.as_slice())
            }
            #[cfg(target_arch = "x86_64")]
            Self::Narrow(x, y) => {
                // SAFETY: the CPU has AVX and FMA, else this would not be the case.
                unsafe { update_256(x, y) };
                3 * size_of_val(y.as_slice())
            }
            Self::Portable(x, y) => {
                x.iter_mut().zip(&*y).for_each(|(x, y)| *x += 2.0 * y);
                black_box(x);
                3 * size_of_val(y.as_slice())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted() {
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            assert!(multiply_adds(isa) >= (ROUNDS * 2 * CHAINS) as f64, "{isa}");
        }
        assert_eq!(Update::new(1 << 12).run(), 3 << 11);
    }
}
