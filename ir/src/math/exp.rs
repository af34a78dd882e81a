//! `exp`, `exp2`, `expm1`.
//!
//! All three write the argument as `n ln 2 + r` with an integer `n` and `|r| <= ln(2)/2`
//! (Cody and Waite), take a polynomial of `r` and scale by `2^n`.

use super::{Format, add_const, clamp, cmp_const, fma_const, format, horner, mul_const, shl, shr};
use crate::{CmpKind, ScalarBuilder};

pub(super) struct Exp {
    /// `1 / ln 2`
    pub(super) log2e: f64,
    /// `ln 2` in two parts, the second the rounding error of the first. `x - n ln2[0]` is exact with
    /// a fused step: it is a multiple of the last place of `ln2[0]` and less than 1.
    pub(super) ln2: [f64; 2],
    /// Below it `exp` rounds to 0.
    pub(super) lo: f64,
    /// At it `exp` is infinite.
    hi: f64,
    /// Below it `expm1` rounds to -1.
    lo_m1: f64,
    /// `1, 1, q0, q1, ..` with `exp(r) = 1 + r + r^2 q(r)` on `|r| <= 0.34667`.
    pub(super) poly: &'static [f64],
    /// `q` of one degree more: where `e^r - 1` loses two bits to `e^r`, `expm1` needs it.
    m1: &'static [f64],
}

/// Errors relative to `exp`: of degree 6, 2^-28.2; of degree 7, 2^-31.2.
pub(super) static EXP_F32: Exp = Exp {
    log2e: std::f32::consts::LOG2_E as f64,
    ln2: [std::f32::consts::LN_2 as f64, -1.9046542e-9],
    lo: -104.0,
    hi: 89.0,
    lo_m1: -18.0,
    poly: &[1.0, 1.0, 0.49999994, 0.16666517, 0.04166811, 0.008369185, 0.0013837996],
    m1: &[0.5, 0.16666648, 0.04166648, 0.008337868, 0.001393333, 0.00017338505],
};

/// Errors relative to `exp`: of degree 11, 2^-57.9; of degree 12, 2^-63.6.
pub(super) static EXP_F64: Exp = Exp {
    log2e: std::f64::consts::LOG2_E,
    ln2: [std::f64::consts::LN_2, 2.3190468138462996e-17],
    lo: -746.0,
    hi: 710.0,
    lo_m1: -38.0,
    poly: &[
        1.0,
        1.0,
        0.5000000000000011,
        0.16666666666666444,
        0.04166666666652827,
        0.008333333333484568,
        0.0013888888943924154,
        0.00019841269514103197,
        2.4801492878489892e-05,
        2.7557588458622703e-06,
        2.763031575884324e-07,
        2.4997262278963137e-08,
    ],
    m1: &[
        0.5,
        0.16666666666666688,
        0.041666666666666824,
        0.008333333333313894,
        0.0013888888888778186,
        0.000198412699033637,
        2.4801587557906e-05,
        2.7557228691400395e-06,
        2.7557069732351906e-07,
        2.5113928716634233e-08,
        2.0976835914081023e-09,
    ],
};

/// `2^f` on `|f| <= 0.5003`, degree 6, relative error 2^-27.5.
pub(super) static EXP2_F32: &[f64] =
    &[1.0, 0.69314724, 0.24022655, 0.055502728, 0.009617065, 0.0013417739, 0.00015824026];

/// `2^f` on `|f| <= 0.5003`, degree 12, relative error 2^-59.7.
pub(super) static EXP2_F64: &[f64] = &[
    1.0,
    std::f64::consts::LN_2,
    0.2402265069591007,
    0.05550410866482338,
    0.00961812910763023,
    0.0013333558146032924,
    0.00015403530388895405,
    1.5252734167966559e-05,
    1.321549130500869e-06,
    1.0177931512485217e-07,
    7.052971600210278e-09,
    4.4734865744971427e-10,
    2.8676796140042104e-11,
];

/// `p * 2^n` for `p` near 1 and `t = magic + 2 bias + n`. The factor is taken in two halves of
/// nearly equal exponent, so that the only rounding is that of the last product: overflow and
/// gradual underflow are its own. The bias in `t` makes the halves of its low bits stored exponents.
#[inline(always)]
pub(super) fn scale<B: ScalarBuilder>(b: &mut B, fmt: &Format, p: B::V, t: B::V) -> B::V {
    let i = b.bitcast(fmt.int, t);
    let half = shr(b, i, 1);
    let rest = b.sub(i, half);
    let (s0, s1) = (shl(b, half, fmt.mantissa), shl(b, rest, fmt.mantissa));
    let (s0, s1) = (b.bitcast(fmt.float, s0), b.bitcast(fmt.float, s1));
    let p = b.mul(p, s0);
    b.mul(p, s1)
}

/// `e^x`.
///
/// `x = n ln 2 + r`, a polynomial for `e^r`, and `2^n` in two factors (Cody and Waite, chapter 6;
/// Muller et al., Handbook, section 10.2). The argument is first held to the interval outside which
/// the result is 0 or infinite, so that those come from the scaling.
///
/// Error: f32 < 0.9 ULP (all inputs), f64 < 1 ULP. `exp(±0) = 1`, `exp(-inf) = 0`,
/// `exp(inf) = inf`; the result is never negative and underflows gradually.
#[inline(always)]
pub fn exp<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "exp", &EXP_F32, &EXP_F64);
    let x = clamp(b, x, k.lo, k.hi);
    let magic = b.number(x, fmt.magic + 2.0 * fmt.bias);
    let t = fma_const(b, x, k.log2e, magic);
    let n = b.sub(t, magic);
    let r = fma_const(b, n, -k.ln2[0], x);
    let r = fma_const(b, n, -k.ln2[1], r);
    let p = horner(b, r, k.poly);
    scale(b, fmt, p, t)
}

/// `2^x`.
///
/// As [`exp`](fn@exp), with an exact reduction `x = n + f`, `|f| <= 1/2`.
///
/// Error: f32 < 0.9 ULP (all inputs), f64 < 1 ULP. Exact at integers, `exp2(-inf) = 0`,
/// `exp2(inf) = inf`; never negative, gradual underflow.
#[inline(always)]
pub fn exp2<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, (lo, hi, poly)) = format(b, x, "exp2", (-151.0, 128.0, EXP2_F32), (-1076.0, 1024.0, EXP2_F64));
    let x = clamp(b, x, lo, hi);
    let magic = b.number(x, fmt.magic + 2.0 * fmt.bias);
    let t = b.add(x, magic);
    let n = b.sub(t, magic);
    let f = b.sub(x, n);
    let p = horner(b, f, poly);
    scale(b, fmt, p, t)
}

/// `e^x - 1`, accurate where `e^x` is near 1.
///
/// With `x = n ln 2 + r` and `s = 2^n`: `(s - 1) + s r` is taken with its rounding error (Dekker's
/// fast two-sum: `|s - 1| >= |s r|`, or `n = 0` and it is exact), to which `s (e^r - 1 - r)` is
/// added. All in halves, because `2^128` is not a float. Below 2^-25 (2^-54) the result is `x`.
///
/// Error: f32 < 1 ULP (all inputs), f64 < 1 ULP. `expm1(±0) = ±0`, `expm1(-inf) = -1`,
/// `expm1(inf) = inf`.
#[inline(always)]
pub fn expm1<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "expm1", &EXP_F32, &EXP_F64);
    let y = clamp(b, x, k.lo_m1, k.hi);
    let magic = b.number(x, fmt.magic + fmt.bias - 1.0);
    let t = fma_const(b, y, k.log2e, magic);
    let n = b.sub(t, magic);
    let r0 = fma_const(b, n, -k.ln2[0], y);
    // The second part of the reduction is kept apart from the exact first one.
    let dr = mul_const(b, n, -k.ln2[1]);
    let r = b.add(r0, dr);
    let q = horner(b, r, k.m1);
    let rr = b.mul(r, r);
    let tail = b.fma(rr, q, dr);
    let i = b.bitcast(fmt.int, t);
    let s = shl(b, i, fmt.mantissa);
    let s = b.bitcast(fmt.float, s); // 2^(n-1)
    let s1 = add_const(b, s, -0.5);
    let head = b.fma(s, r0, s1);
    let e = b.sub(s1, head);
    let e = b.fma(s, r0, e);
    // What s - 1/2 lost to rounding where s is large.
    let lost = b.sub(s, s1);
    let lost = add_const(b, lost, -0.5);
    let e = b.add(e, lost);
    let tail = b.fma(s, tail, e);
    let half = b.add(head, tail);
    let result = b.add(half, half);
    let magnitude = b.abs(x);
    let tiny = cmp_const(b, CmpKind::Lt, magnitude, fmt.tiny);
    b.select(tiny, x, result)
}
