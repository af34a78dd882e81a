//! Elementary functions as polynomials of our own, generic over [`crate::ScalarBuilder`]: one
//! definition gives the same bits in the interpreter and in every code generator.
//!
//! Each function is straight-line and lane-wise: no table, no branch, no other lane width than that
//! of its argument. Special values fall out of the arithmetic where they can and are selected where
//! they cannot. A fused multiply-add is part of the meaning.
//!
//! Bounds are in ULP of the correctly rounded result's format: `|computed - exact| / ulp(exact)`,
//! where `ulp` is the spacing of floats at the exact value (that of subnormals at the bottom). Those
//! of one-argument `f32` functions are measured on all 2^32 inputs with the `ulp` example
//! (`cargo run --release -p graphc-ir --example ulp`); those of `f64` on samples against values of
//! 60 digits. Subnormal arguments and results are not flushed. A NaN gives a NaN of unspecified
//! sign and payload.
//!
//! General sources: W. J. Cody and W. Waite, "Software Manual for the Elementary Functions" (1980);
//! J.-M. Muller, "Elementary Functions" (3rd ed., 2016); J.-M. Muller et al., "Handbook of
//! Floating-Point Arithmetic" (2nd ed., 2018). All coefficients are minimax fits made for these
//! intervals with the Remez exchange, rounded to the format from the lowest degree up, the
//! remaining ones refitted after each. `f32` tables hold the shortest decimals of `f32` values.

mod atan;
mod erf;
mod exp;
mod half;
mod log;
mod philox;
mod pow;
mod tanh;
#[cfg(test)]
mod tests;
mod trig;

pub use atan::atan;
pub use erf::erf;
pub use exp::{exp, exp2, expm1};
pub use half::{round_to_half, widen_half};
pub use log::{log, log1p};
pub use philox::philox4x32_10;
pub use pow::pow;
pub use tanh::{sigmoid, tanh};
pub use trig::{cos, sin, tan};

use crate::{DType, ScalarBuilder, ScalarOp};

/// What the algorithms need to know of a float format.
struct Format {
    float: DType,
    /// The integers of the same size.
    int: DType,
    /// Explicit bits of the significand.
    mantissa: u8,
    /// Exponent of 1 as stored.
    bias: f64,
    /// `1.5 * 2^mantissa`. Adding it rounds to an integer, which is then in the low bits of the sum
    /// as two's complement: a conversion that costs an addition (Muller et al., Handbook, 5.3.4).
    magic: f64,
    /// `2^-(mantissa + 2)`: below it, functions with `f(x) = x + O(x^2)` are `x`.
    tiny: f64,
}

static F32: Format = Format {
    float: DType::F32,
    int: DType::I32,
    mantissa: 23,
    bias: 127.0,
    magic: 12_582_912.0,
    tiny: 1.0 / (1u64 << 25) as f64,
};

static F64: Format = Format {
    float: DType::F64,
    int: DType::I64,
    mantissa: 52,
    bias: 1023.0,
    magic: 6_755_399_441_055_744.0,
    tiny: 1.0 / (1u64 << 54) as f64,
};

/// The format of `x` and the one of two tables that belongs to it.
#[inline(always)]
fn format<B: ScalarBuilder, K>(b: &B, x: B::V, name: &str, single: K, double: K) -> (&'static Format, K) {
    match b.dtype(x) {
        DType::F32 => (&F32, single),
        DType::F64 => (&F64, double),
        other => panic!("{name} of {other:?}: elementary functions take f32 or f64"),
    }
}

/// `c[0] + c[1] x + c[2] x^2 + ...` by Horner's rule with fused steps.
#[inline(always)]
fn horner<B: ScalarBuilder>(b: &mut B, x: B::V, c: &[f64]) -> B::V {
    let mut p = b.number(x, c[c.len() - 1]);
    for &c in c[..c.len() - 1].iter().rev() {
        let c = b.number(x, c);
        p = b.fma(p, x, c);
    }
    p
}

/// `a * k + c` with a constant `k`.
#[inline(always)]
fn fma_const<B: ScalarBuilder>(b: &mut B, a: B::V, k: f64, c: B::V) -> B::V {
    let k = b.number(a, k);
    b.fma(a, k, c)
}

/// `a + k` with a constant `k`.
#[inline(always)]
fn add_const<B: ScalarBuilder>(b: &mut B, a: B::V, k: f64) -> B::V {
    let k = b.number(a, k);
    b.add(a, k)
}

/// `a * k` with a constant `k`.
#[inline(always)]
fn mul_const<B: ScalarBuilder>(b: &mut B, a: B::V, k: f64) -> B::V {
    let k = b.number(a, k);
    b.mul(a, k)
}

/// `a kind k` with a constant `k`.
#[inline(always)]
fn cmp_const<B: ScalarBuilder>(b: &mut B, kind: crate::CmpKind, a: B::V, k: f64) -> B::V {
    let k = b.number(a, k);
    b.cmp(kind, a, k)
}

/// `c ? k : a` with a constant `k`.
#[inline(always)]
fn select_const<B: ScalarBuilder>(b: &mut B, c: B::V, k: f64, a: B::V) -> B::V {
    let k = b.number(a, k);
    b.select(c, k, a)
}

/// `a` held to `lo..=hi`; a NaN stays.
#[inline(always)]
fn clamp<B: ScalarBuilder>(b: &mut B, a: B::V, lo: f64, hi: f64) -> B::V {
    let (lo, hi) = (b.number(a, lo), b.number(a, hi));
    let a = b.min(a, hi);
    b.max(a, lo)
}

/// `i << n`
#[inline(always)]
fn shl<B: ScalarBuilder>(b: &mut B, i: B::V, n: u8) -> B::V {
    b.op(ScalarOp::Shl(n), &[i])
}

/// `i >> n` with zeros entering. Preferred where the sign is known: not every vector unit has the
/// arithmetic shift of 64-bit lanes.
#[inline(always)]
fn shr<B: ScalarBuilder>(b: &mut B, i: B::V, n: u8) -> B::V {
    b.op(ScalarOp::ShrL(n), &[i])
}

/// An integer constant of the format's integer type.
#[inline(always)]
fn int<B: ScalarBuilder>(b: &mut B, fmt: &Format, value: i64) -> B::V {
    if fmt.int == DType::I32 { b.i32(value as i32) } else { b.i64(value) }
}

/// `|a|` with the sign of `x`, for `a >= 0`.
#[inline(always)]
fn with_sign_of<B: ScalarBuilder>(b: &mut B, fmt: &Format, a: B::V, x: B::V) -> B::V {
    let sign = sign_bit(b, fmt);
    let (a, x) = (b.bitcast(fmt.int, a), b.bitcast(fmt.int, x));
    let s = b.and(x, sign);
    let r = b.or(a, s);
    b.bitcast(fmt.float, r)
}

/// The integer with only the sign bit of a float set.
#[inline(always)]
fn sign_bit<B: ScalarBuilder>(b: &mut B, fmt: &Format) -> B::V {
    int(b, fmt, if fmt.int == DType::I32 { i32::MIN as i64 } else { i64::MIN })
}
