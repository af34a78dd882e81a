//! `log` and `log1p`.

use super::{
    Format, add_const, cmp_const, fma_const, format, horner, int, mul_const, select_const, shl, shr,
};
use crate::{CmpKind, DType, ScalarBuilder, ScalarOp};

pub(super) struct Log {
    /// `ln 2` in two parts.
    ln2: [f64; 2],
    /// The polynomial, see [`tail`].
    poly: &'static [f64],
    /// Bits of the float above `sqrt(1/2)`.
    pub(super) sqrt_half: i64,
    /// The smallest normal number.
    min_normal: f64,
    /// `2^mantissa`
    unit: f64,
}

/// `log(1 + f) = f + f^2 (c0 + c1 f + ..)` on `sqrt(1/2) - 1 ..= sqrt(2) - 1`; degree 11 in all,
/// relative error 2^-30.2.
pub(super) static LOG_F32: Log = Log {
    ln2: [std::f32::consts::LN_2 as f64, -1.9046542e-9],
    poly: &[
        -0.5,
        0.33333313,
        -0.25000018,
        0.20002055,
        -0.16667654,
        0.14220583,
        -0.12410615,
        0.1188507,
        -0.11650577,
        0.06727315,
    ],
    sqrt_half: 0x3f35_04f3,
    min_normal: f32::MIN_POSITIVE as f64,
    unit: 8_388_608.0,
};

/// `log((1 + s) / (1 - s)) = 2 s + s z (c0 + c1 z + ..)` with `z = s^2` on `0 ..= 0.02944`; relative
/// error 2^-59.5.
pub(super) static LOG_F64: Log = Log {
    ln2: [std::f64::consts::LN_2, 2.3190468138462996e-17],
    poly: &[
        0.6666666666666734,
        0.3999999999941707,
        0.28571428741885313,
        0.2222219862248899,
        0.18183561857667213,
        0.1531411168037433,
        0.1479535565443079,
    ],
    sqrt_half: 0x3fe6_a09e_667f_3bcd,
    min_normal: f64::MIN_POSITIVE,
    unit: 4_503_599_627_370_496.0,
};

/// `(e, stored, i)` where `x = 2^(e + down) m` with `m` in `sqrt(1/2) ..= sqrt(2)`, for a positive
/// finite normal `x`: `e` as a float, `e + lift` as an integer, and an integer whose low bits give
/// the significand. `offset` is that of [`exponent_offset`].
#[inline(always)]
fn split<B: ScalarBuilder>(b: &mut B, fmt: &Format, x: B::V, offset: B::V) -> (B::V, B::V, B::V) {
    let bits = b.bitcast(fmt.int, x);
    let i = b.sub(bits, offset);
    if fmt.int == DType::I32 {
        let e = b.op(ScalarOp::ShrA(fmt.mantissa), &[i]);
        (b.cast(fmt.float, e), e, i)
    } else {
        // There is no cheap conversion of 64-bit integers, and no arithmetic shift of them, in
        // many vector units: the offset makes the exponent positive, and the integer becomes a significand.
        let e = shr(b, i, fmt.mantissa);
        let unit = b.i64(0x4330 << 48);
        let f = b.or(e, unit);
        let f = b.bitcast(fmt.float, f);
        (add_const(b, f, -(LOG_F64.unit + LIFT_F64 as f64)), e, i)
    }
}

/// What f64 exponents are stored with, here: those of subnormal numbers are to be positive too.
const LIFT_F64: i64 = 2 * 1023;

/// What [`split`] adds to the exponent in its integer.
fn lift(fmt: &Format) -> i64 {
    if fmt.int == DType::I32 { 0 } else { LIFT_F64 }
}

/// What [`split`] subtracts from the bits of a number scaled up by `2^down`.
fn exponent_offset(fmt: &Format, k: &Log, down: i64) -> i64 {
    k.sqrt_half + ((down - lift(fmt)) << fmt.mantissa)
}

/// `(e, m)` with `x = 2^e m` and `m` in `sqrt(1/2) ..= sqrt(2)` for a positive finite `x`, subnormal
/// or not; unspecified for others.
#[inline(always)]
pub(super) fn exponent_and_significand<B: ScalarBuilder>(
    b: &mut B,
    fmt: &Format,
    k: &Log,
    x: B::V,
) -> (B::V, B::V) {
    let small = cmp_const(b, CmpKind::Lt, x, k.min_normal);
    let up = mul_const(b, x, k.unit);
    let x = b.select(small, up, x);
    let offset_up = int(b, fmt, exponent_offset(fmt, k, fmt.mantissa as i64));
    let offset = int(b, fmt, exponent_offset(fmt, k, 0));
    let offset = b.select(small, offset_up, offset);
    let (e, _, i) = split(b, fmt, x, offset);
    let mask = int(b, fmt, (1i64 << fmt.mantissa) - 1);
    let low = b.and(i, mask);
    let base = int(b, fmt, k.sqrt_half);
    let m = b.add(low, base);
    (e, b.bitcast(fmt.float, m))
}

/// `log(1 + f) - f` for `1 + f` in `sqrt(1/2) ..= sqrt(2)`.
#[inline(always)]
fn tail<B: ScalarBuilder>(b: &mut B, fmt: &Format, k: &Log, f: B::V) -> B::V {
    let ff = b.mul(f, f);
    if fmt.float == DType::F32 {
        let p = horner(b, f, k.poly);
        return b.mul(ff, p);
    }
    // With s = f / (2 + f), 2 s = f - s f and so log(1 + f) = f - f^2/2 + s (f^2/2 + s^2 p(s^2)).
    let d = add_const(b, f, 2.0);
    let s = b.div(f, d);
    let z = b.mul(s, s);
    let p = horner(b, z, k.poly);
    let minus_half = mul_const(b, ff, -0.5);
    let zp = b.mul(z, p);
    let inner = b.sub(zp, minus_half);
    b.fma(s, inner, minus_half)
}

/// `e ln 2 + f + lo`, where `|e ln 2| > |f|` or `e = 0`: the rounding error of the large sum is
/// recovered (Dekker's fast two-sum; what is subtracted is exact with a fused step) and added to
/// the small terms.
#[inline(always)]
fn combine<B: ScalarBuilder>(b: &mut B, k: &Log, e: B::V, f: B::V, lo: B::V) -> B::V {
    let lo = fma_const(b, e, k.ln2[1], lo);
    let head = fma_const(b, e, k.ln2[0], f);
    let back = fma_const(b, e, -k.ln2[0], head);
    let error = b.sub(f, back);
    let lo = b.add(lo, error);
    b.add(head, lo)
}

/// `result` for positive finite arguments and the limits elsewhere; `x` is the argument and the
/// logarithm's singularity is at `zero`.
#[inline(always)]
fn edges<B: ScalarBuilder>(b: &mut B, x: B::V, zero: f64, result: B::V) -> B::V {
    let finite = cmp_const(b, CmpKind::Lt, x, f64::INFINITY);
    let result = b.select(finite, result, x);
    let below = cmp_const(b, CmpKind::Lt, x, zero);
    let result = select_const(b, below, f64::NAN, result);
    let at = cmp_const(b, CmpKind::Eq, x, zero);
    select_const(b, at, f64::NEG_INFINITY, result)
}

/// The natural logarithm.
///
/// `x = 2^e m` with `m` in `sqrt(1/2) ..= sqrt(2)`, and with the exact `f = m - 1` the result is
/// `e ln 2 + log(1 + f)`: for f32 by a polynomial of `f`, for f64 by the series in `s = f / (2 + f)`
/// (Muller, Elementary Functions; the arrangement of terms is that of fdlibm's documentation). The
/// large terms are summed with their rounding error.
///
/// Error: f32 < 0.9 ULP (all inputs), f64 < 1 ULP. `log(±0) = -inf`, `log(1) = +0`,
/// `log(inf) = inf`, NaN below 0.
#[inline(always)]
pub fn log<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "log", &LOG_F32, &LOG_F64);
    let (e, m) = exponent_and_significand(b, fmt, k, x);
    let f = add_const(b, m, -1.0);
    let lo = tail(b, fmt, k, f);
    let result = combine(b, k, e, f, lo);
    edges(b, x, 0.0, result)
}

/// `log(1 + x)`, accurate where `x` is near 0.
///
/// The exponent `e` is that of the rounded `1 + x`, and `f = (1 + x) / 2^e - 1` is formed from `x`
/// itself as `s x + (s - 1)` with `s = 2^-e`, with its rounding error; then as [`log`]. The scaling
/// is by `4 s`, which is never subnormal. Below 2^-25 (2^-54) the result is `x`.
///
/// Error: f32 < 1 ULP (all inputs), f64 < 1 ULP. `log1p(±0) = ±0`, `log1p(-1) = -inf`,
/// `log1p(inf) = inf`, NaN below -1.
#[inline(always)]
pub fn log1p<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "log1p", &LOG_F32, &LOG_F64);
    let u = add_const(b, x, 1.0);
    let offset = int(b, fmt, exponent_offset(fmt, k, 0));
    let (e, stored, _) = split(b, fmt, u, offset);
    // The stored exponent of 4 / 2^e.
    let four = int(b, fmt, fmt.bias as i64 + 2 + lift(fmt));
    let s = b.sub(four, stored);
    let s = shl(b, s, fmt.mantissa);
    let s = b.bitcast(fmt.float, s);
    let quarter = mul_const(b, x, 0.25);
    let minus_one = b.number(x, -1.0);
    let s1 = fma_const(b, s, 0.25, minus_one);
    let f = b.fma(s, quarter, s1);
    // Exact: s x and s - 1 are within a factor of 2 of each other, or the second is the larger.
    let error = b.sub(s1, f);
    let error = b.fma(s, quarter, error);
    let lo = tail(b, fmt, k, f);
    // Times the derivative 1 / (1 + f): there is an error only where e = 1 and f < -1/4.
    let lo = fma_const(b, error, 1.375, lo);
    let result = combine(b, k, e, f, lo);
    let magnitude = b.abs(x);
    let tiny = cmp_const(b, CmpKind::Lt, magnitude, fmt.tiny);
    let result = b.select(tiny, x, result);
    edges(b, x, -1.0, result)
}
