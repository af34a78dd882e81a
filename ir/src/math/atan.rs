//! `atan`.

use super::{cmp_const, format, horner, with_sign_of};
use crate::{CmpKind, ScalarBuilder};

struct Atan {
    /// `pi/2` and `pi/4` rounded, and what the rounding left out.
    half: (f64, f64),
    quarter: (f64, f64),
    /// `(atan t - t) / t^3` in `t^2`.
    poly: &'static [f64],
}

/// Arguments from here on are reduced by `pi/4`: small enough for the reduced one to be below 1/4 there,
/// so that its rounding errors matter little.
const QUARTER: f64 = 0.66;
/// Arguments from here on are reduced by `pi/2`: `1 + sqrt(2)`.
const HALF: f64 = 2.414213562373095;

/// Error relative to the function on `|t| <= 0.66`: 2^-30.6.
static ATAN_F32: Atan = Atan {
    half: (1.570796370506287, -4.371139000186241e-8),
    quarter: (0.7853981852531433, -2.1855695000931206e-8),
    poly: &[-0.33333322, 0.19999311, -0.14271447, 0.109686241, -0.0830588982, 0.0516302756, -0.0178208155],
};

/// Error relative to the function on `|t| <= 0.66`: 2^-59.4.
static ATAN_F64: Atan = Atan {
    half: (std::f64::consts::FRAC_PI_2, 6.123233995736766e-17),
    quarter: (std::f64::consts::FRAC_PI_4, 3.061616997868383e-17),
    poly: &[
        -0.33333333333333237,
        0.19999999999976512,
        -0.14285714283723586,
        0.1111111102537868,
        -0.0909090688545381,
        0.0769227060126406,
        -0.0666623538172982,
        0.05878757471898244,
        -0.052411535396815874,
        0.04661577207806735,
        -0.04004224050182481,
        0.03112658939227164,
        -0.019707344572886917,
        0.008645448913719666,
        -0.0019013946935294576,
    ],
};

/// The angle in radians whose tangent is `x`, from `-pi/2` to `pi/2`.
///
/// `atan x = pi/4 + atan((x - 1) / (x + 1))` for middling `|x|` and `pi/2 + atan(-1 / x)` for large ones
/// (Moshier, Methods and Programs for Mathematical Functions, 1989), then an odd polynomial.
///
/// Error: f32 < 1 ULP (all inputs), f64 < 2 ULP. `atan(±0) = ±0`, `atan(±inf) = ±pi/2`.
#[inline(always)]
pub fn atan<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "atan", &ATAN_F32, &ATAN_F64);
    let a = b.abs(x);
    let large = cmp_const(b, CmpKind::Gt, a, HALF);
    // Not `>=`: NaN stays in the first case and reaches the result.
    let middling = cmp_const(b, CmpKind::Gt, a, QUARTER);
    let (zero, one, minus_one) = (b.number(x, 0.0), b.number(x, 1.0), b.number(x, -1.0));
    let (less, more) = (b.sub(a, one), b.add(a, one));
    let mut choose = |of_large, of_middling, of_small| {
        let rest = b.select(middling, of_middling, of_small);
        b.select(large, of_large, rest)
    };
    let above = choose(minus_one, less, a);
    let below = choose(a, more, one);
    let [base, low] = [[k.half.0, k.quarter.0], [k.half.1, k.quarter.1]].map(|[half, quarter]| {
        let (half, quarter) = (b.number(x, half), b.number(x, quarter));
        let rest = b.select(middling, quarter, zero);
        b.select(large, half, rest)
    });
    let t = b.div(above, below);
    let z = b.mul(t, t);
    let p = horner(b, z, k.poly);
    let tz = b.mul(t, z);
    let s = b.fma(tz, p, low);
    let s = b.add(t, s);
    let y = b.add(base, s);
    with_sign_of(b, fmt, y, x)
}
