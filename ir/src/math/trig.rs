//! `sin`, `cos`, `tan`.

use super::{Format, cmp_const, fma_const, format, horner, int, mul_const, shl, sign_bit};
use crate::{CmpKind, ScalarBuilder};

struct Trig {
    two_over_pi: f64,
    /// `pi / 2` in three parts, each the rounding error of those before; the first rounded down, so
    /// that the second is positive (see [`Reduced::low`]).
    half_pi: [f64; 3],
    /// Largest magnitude that is reduced.
    limit: f64,
    /// `(x - sin x) / x^3` in `x^2`.
    sin: &'static [f64],
    /// `(cos x - 1) / x^2` in `x^2`.
    cos: &'static [f64],
    /// `(x - tan x) / x^3` in `x^2`.
    tan: &'static [f64],
}

/// On `|x| <= 0.832`, because the error of `two_over_pi` shifts the borders of the quadrants of the
/// largest arguments; errors relative to the functions 2^-27.3, 2^-32.1, 2^-28.
static TRIG_F32: Trig = Trig {
    two_over_pi: 0.63661975,
    half_pi: [1.570_796_251_296_997, 7.54979e-8, -1.7151245e-15],
    limit: 1_048_576.0,
    sin: &[0.1666665, -0.008331838, 0.00019473353],
    cos: &[-0.5, 0.041666638, -0.0013886947, 2.439162e-05],
    tan: &[-0.33333376, -0.1333178, -0.054157346, -0.020793596, -0.012063929, 0.001418521, -0.0050962665],
};

/// On `|x| <= 0.788`; errors relative to the functions 2^-57.9, 2^-63.8, 2^-56.
static TRIG_F64: Trig = Trig {
    two_over_pi: std::f64::consts::FRAC_2_PI,
    half_pi: [std::f64::consts::FRAC_PI_2, 6.123233995736766e-17, -1.4973849048591698e-33],
    limit: 1_099_511_627_776.0,
    sin: &[
        0.1666666666666663,
        -0.00833333333332182,
        0.00019841269829332542,
        -2.755731352733232e-06,
        2.505073238719555e-08,
        -1.5895305753888338e-10,
    ],
    cos: &[
        -0.5,
        0.04166666666666659,
        -0.0013888888888872186,
        2.4801587288295583e-05,
        -2.755731401524441e-07,
        2.087567811010693e-09,
        -1.1357338454518429e-11,
    ],
    tan: &[
        -0.3333333333333272,
        -0.13333333333422429,
        -0.053968253922945075,
        -0.021869489698065618,
        -0.008863217912091121,
        -0.003592300353207639,
        -0.001454689606868678,
        -0.0005953518601314276,
        -0.00022153445772715269,
        -0.00013826491779706331,
        2.8835480547944296e-05,
        -9.17012656609213e-05,
        4.608945465508709e-05,
        -2.115466624463193e-05,
    ],
};

/// `x = n pi/2 + h - low` with an integer `n` and `|h| <= pi/4` nearly.
struct Reduced<V> {
    /// Bits whose low part is `n`.
    n: V,
    h: V,
    /// Subtracted, so that it is `+0` for both zeros and `h - low` keeps their sign.
    low: V,
}

/// Cody and Waite with fused steps. `x - n P0` is exact (a multiple of the last place of `P0`, or
/// nearly, and less than 1); `n P1` is taken with its error; their difference too, by the fast
/// two-sum, which is exact because the first is a multiple of the last place of the second. So
/// `h - low` has nearly twice the precision, whatever cancels.
#[inline(always)]
fn reduce<B: ScalarBuilder>(b: &mut B, fmt: &Format, k: &Trig, x: B::V) -> Reduced<B::V> {
    // Finite arguments beyond the limit become 0, infinities NaN.
    let magnitude = b.abs(x);
    let within = cmp_const(b, CmpKind::Le, magnitude, k.limit);
    let zero = b.sub(x, x);
    let x = b.select(within, x, zero);
    let magic = b.number(x, fmt.magic);
    let t = fma_const(b, x, k.two_over_pi, magic);
    let n = b.sub(t, magic);
    let r = fma_const(b, n, -k.half_pi[0], x);
    let w = mul_const(b, n, k.half_pi[1]);
    let minus_w = b.neg(w);
    let w_low = fma_const(b, n, k.half_pi[1], minus_w);
    let w_low = fma_const(b, n, k.half_pi[2], w_low);
    let h = b.sub(r, w);
    let back = b.sub(r, h);
    let low = b.sub(w, back);
    let low = b.add(low, w_low);
    Reduced { n: b.bitcast(fmt.int, t), h, low }
}

/// `sin(x + quarters pi/2)`.
#[inline(always)]
fn sin_shifted<B: ScalarBuilder>(b: &mut B, fmt: &Format, k: &Trig, x: B::V, quarters: i64) -> B::V {
    let Reduced { n, h, low } = reduce(b, fmt, k, x);
    // (h - low)^2, because the cosine needs its error of one rounding only.
    let cross = mul_const(b, low, -2.0);
    let cross = b.mul(cross, h);
    let z = b.fma(h, h, cross);
    let p = horner(b, z, k.sin);
    let hz = b.mul(h, z);
    let s = b.fma(hz, p, low);
    let sin = b.sub(h, s);
    let p = horner(b, z, k.cos);
    let one = b.number(x, 1.0);
    let cos = b.fma(z, p, one);
    let n = if quarters == 0 {
        n
    } else {
        let q = int(b, fmt, quarters);
        b.add(n, q)
    };
    let (one, zero) = (int(b, fmt, 1), int(b, fmt, 0));
    let odd = b.and(n, one);
    let even = b.cmp(CmpKind::Eq, odd, zero);
    let y = b.select(even, sin, cos);
    let y = b.bitcast(fmt.int, y);
    let sign = shl(b, n, if fmt.mantissa == 23 { 30 } else { 62 });
    let mask = sign_bit(b, fmt);
    let sign = b.and(sign, mask);
    let y = b.xor(y, sign);
    b.bitcast(fmt.float, y)
}

/// The sine of an angle in radians.
///
/// The angle less the nearest multiple `n` of pi/2 in twice the working precision (Cody and Waite;
/// see Muller, Elementary Functions, chapter 11), polynomials of sine and cosine on
/// `|x| <= pi/4`, one of them chosen by `n`.
///
/// Error: f32 < 1 ULP for `|x| <= 2^20` (all inputs), f64 < 1 ULP for `|x| <= 2^40`. Beyond,
/// where a reduction needs a table of the digits of `2/pi` (Payne and Hanek, 1983), a finite argument
/// is taken as 0. `sin(±0) = ±0`; NaN for infinities; the result is in `[-1, 1]`.
#[inline(always)]
pub fn sin<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "sin", &TRIG_F32, &TRIG_F64);
    sin_shifted(b, fmt, k, x, 0)
}

/// The cosine of an angle in radians.
///
/// Algorithm and range of [`sin`]: error f32 < 1 ULP for `|x| <= 2^20` (all inputs), f64 < 1
/// ULP for `|x| <= 2^40`; finite arguments beyond are taken as 0. `cos(0) = 1`; NaN for infinities.
#[inline(always)]
pub fn cos<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "cos", &TRIG_F32, &TRIG_F64);
    sin_shifted(b, fmt, k, x, 1)
}

/// The tangent of an angle in radians.
///
/// Reduction of [`sin`], a polynomial `t` of the tangent on `|x| <= pi/4`, and `-1 / t` in odd
/// quadrants.
///
/// Error: f32 < 2 ULP for `|x| <= 2^20` (all inputs), f64 < 2 ULP for `|x| <= 2^40`; finite
/// arguments beyond are taken as 0. `tan(±0) = ±0`; NaN for infinities; never infinite.
#[inline(always)]
pub fn tan<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "tan", &TRIG_F32, &TRIG_F64);
    let Reduced { n, h, low } = reduce(b, fmt, k, x);
    let z = b.mul(h, h);
    // tan' = 1 + tan^2 = 1 + z nearly.
    let low = b.fma(low, z, low);
    let p = horner(b, z, k.tan);
    let hz = b.mul(h, z);
    let s = b.fma(hz, p, low);
    let t = b.sub(h, s);
    let minus_one = b.number(x, -1.0);
    let inverse = b.div(minus_one, t);
    // To first order, what the rounding of t changes in it.
    let t_low = b.sub(h, t);
    let t_low = b.sub(t_low, s);
    let slope = b.mul(inverse, inverse);
    let inverse = b.fma(slope, t_low, inverse);
    let (one, zero) = (int(b, fmt, 1), int(b, fmt, 0));
    let odd = b.and(n, one);
    let even = b.cmp(CmpKind::Eq, odd, zero);
    b.select(even, t, inverse)
}
