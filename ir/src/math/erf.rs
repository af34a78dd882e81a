//! The error function.

use super::exp::{EXP2_F32, EXP2_F64};
use super::{cmp_const, format, horner, shl, with_sign_of};
use crate::{CmpKind, ScalarBuilder};

struct Erf {
    /// Above it the result rounds to 1.
    hi: f64,
    /// The bias with the sign bit above it, for a scale factor `-2^n`.
    negative_bias: f64,
    /// `erf(x) / x - 1` in `x^2` on `|x| <= 1`.
    small: &'static [f64],
    /// `log2(1 - erf(x)) / x` in `x` on `1 ..= hi`.
    large: &'static [f64],
    exp2: &'static [f64],
}

/// Error of `small` relative to `erf` 2^-29.4; of `large` in `erf`, absolute, 2^-28.6.
static ERF_F32: Erf = Erf {
    hi: 3.93,
    negative_bias: 127.0 + 256.0,
    small: &[0.12837917, -0.37612626, 0.11283579, -0.026853347, 0.005187162, -0.00079978525, 7.806897e-05],
    large: &[-1.628046, -0.9173327, -0.15162213, 0.032873202, -0.0045922264, 0.00030322577],
    exp2: EXP2_F32,
};

/// Error of `small` relative to `erf` 2^-56; of `large` in `erf`, absolute, 2^-58.
static ERF_F64: Erf = Erf {
    hi: 5.93,
    negative_bias: 1023.0 + 2048.0,
    small: &[
        0.12837916709551256,
        -0.37612638903183343,
        0.11283791670936949,
        -0.02686617064195246,
        0.0052239775966233136,
        -0.0008548325477086443,
        0.00012055280194099521,
        -1.4924458725751034e-05,
        1.644405330582688e-06,
        -1.6183165161269267e-07,
        1.3612813133748538e-08,
        -7.600033164238048e-10,
    ],
    large: &[
        -1.6279069436506746,
        -0.9184489167570437,
        -0.14826681159889216,
        0.027591093698017884,
        0.00030662781083060065,
        -0.002442881004034719,
        0.0008300301430873162,
        6.463775688467748e-07,
        -0.00013729277915897634,
        8.062215325330202e-05,
        -2.9275557371693545e-05,
        7.743880331455006e-06,
        -1.549560122046723e-06,
        2.3417179609953637e-07,
        -2.6026416189164958e-08,
        2.01173286030004e-09,
        -9.667935978962484e-11,
        2.175431610758171e-12,
    ],
    exp2: EXP2_F64,
};

/// `2/sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x`.
///
/// For `|x| < 1` an odd polynomial; beyond, `1 - 2^(|x| q(|x|))` with a polynomial `q`
/// for the base-2 logarithm of the complement. (The logarithm of the complement is smooth where the complement
/// spans many magnitudes; compare W. J. Cody, "Rational Chebyshev approximations for the error
/// function", Math. Comp. 23 (1969), which takes out `e^(-x^2)` instead.)
///
/// Error: f32 < 1 ULP (all inputs), f64 < 1 ULP. `erf(±0) = ±0`, `erf(±inf) = ±1`; never
/// beyond 1.
#[inline(always)]
pub fn erf<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "erf", &ERF_F32, &ERF_F64);
    let magnitude = b.abs(x);
    let z = b.mul(x, x);
    let p = horner(b, z, k.small);
    let small = b.fma(magnitude, p, magnitude);

    let hi = b.number(x, k.hi);
    let y = b.min(magnitude, hi);
    let q = horner(b, y, k.large);
    // y q = n + f, and -2^n from the low bits of the sum with the magic number.
    let magic = b.number(x, fmt.magic + k.negative_bias);
    let t = b.fma(y, q, magic);
    let minus_n = b.sub(magic, t);
    let f = b.fma(y, q, minus_n);
    let p = horner(b, f, k.exp2);
    let i = b.bitcast(fmt.int, t);
    let s = shl(b, i, fmt.mantissa);
    let s = b.bitcast(fmt.float, s);
    let one = b.number(x, 1.0);
    let large = b.fma(s, p, one);

    let is_small = cmp_const(b, CmpKind::Lt, magnitude, 1.0);
    let y = b.select(is_small, small, large);
    with_sign_of(b, fmt, y, x)
}
