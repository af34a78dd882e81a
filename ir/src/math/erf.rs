//! The error function.

use super::exp::{EXP2_F32, EXP2_F64};
use super::{cmp_const, format, horner, shl, with_sign_of};
use crate::{CmpKind, ScalarBuilder};

struct Erf {
    /// Above it the result rounds to 1.
    hi: f64,
    /// Twice the bias plus one: makes the sign bit set in a scale factor.
    negative_bias: f64,
    /// `erf(x) / x - 1` in `x^2` on `|x| <= 1`.
    small: &'static [f64],
    /// `log2(1 - erf(x))` on `1 ..= hi`.
    large: &'static [f64],
    exp2: &'static [f64],
}

/// Error of `small` relative to `erf` 2^-29.4; of `large` in `erf`, absolute, 2^-29.8.
static ERF_F32: Erf = Erf {
    hi: 3.93,
    negative_bias: 127.0 + 256.0,
    small: &[0.12837917, -0.37612626, 0.11283579, -0.026853347, 0.005187162, -0.00079978525, 7.806897e-05],
    large: &[-0.000510383, -1.6259748, -0.9207655, -0.14865105, 0.03145819, -0.004240892, 0.00026771904],
    exp2: EXP2_F32,
};

/// Error of `small` relative to `erf` 2^-56; of `large` in `erf`, absolute, 2^-57.
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
        -7.405048612722239e-07,
        -1.627899561605869,
        -0.918483223287952,
        -0.14816807833991325,
        0.02739394329673922,
        0.0005966217523218396,
        -0.0027684683325591413,
        0.001115277366079142,
        -0.0001970135215517762,
        -2.816321987963145e-05,
        3.250718692754113e-05,
        -1.237629884069971e-05,
        3.0509478776425476e-06,
        -5.331586742712483e-07,
        6.626606782790875e-08,
        -5.611958969531088e-09,
        2.9146563811002697e-10,
        -7.018640126390519e-12,
    ],
    exp2: EXP2_F64,
};

/// `2/sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x`.
///
/// For `|x| < 1` an odd polynomial; beyond, `1 - 2^q(|x|)` with a polynomial `q` for the base-2
/// logarithm of the complement. (The logarithm of the complement is smooth where the complement
/// spans many magnitudes; compare W. J. Cody, "Rational Chebyshev approximations for the error
/// function", Math. Comp. 23 (1969), which takes out `e^(-x^2)` instead.)
///
/// Error: f32 < ERFERR32 ULP (all inputs), f64 < 1 ULP. `erf(±0) = ±0`, `erf(±inf) = ±1`; never
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
    // -2^n from the low bits of the sum.
    let magic = b.number(x, fmt.magic + k.negative_bias);
    let t = b.add(q, magic);
    let n = b.sub(t, magic);
    let f = b.sub(q, n);
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
