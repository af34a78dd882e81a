//! `tanh` and `sigmoid`.

use super::exp::{EXP_F32, EXP_F64, reduced_exp};
use super::{clamp, cmp_const, fma_const, format, horner, shl, shr, with_sign_of};
use crate::{CmpKind, ScalarBuilder};

struct Tanh {
    /// Below it the polynomial `small` is used.
    split: f64,
    /// Above it the result rounds to 1.
    hi: f64,
    /// `2 / ln 2`
    two_log2e: f64,
    /// `ln(2) / 2`
    half_ln2: f64,
    /// `(tanh x - x) / x^3` in `x^2`.
    small: &'static [f64],
    /// `exp(2 r)` on `|r| <= 0.17335`.
    exp2r: &'static [f64],
}

/// Errors relative to the functions: 2^-29.1 on `|x| <= 0.75`, and 2^-28.2.
static TANH_F32: Tanh = Tanh {
    split: 0.75,
    hi: 10.0,
    two_log2e: 2.88539,
    half_ln2: 0.3465736,
    small: &[-0.33333316, 0.1333272, -0.05389454, 0.02145782, -0.007665872, 0.0017418013],
    exp2r: &[1.0, 2.0, 1.9999998, 1.3333213, 0.66668963, 0.26781434, 0.088569775],
};

/// Errors relative to the functions: 2^-57.7 on `|x| <= 0.6`, and 2^-55.3.
static TANH_F64: Tanh = Tanh {
    split: 0.6,
    hi: 20.0,
    two_log2e: 2.8853900817779268,
    half_ln2: 0.34657359027997264,
    small: &[
        -0.33333333333333126,
        0.13333333333299768,
        -0.05396825394933598,
        0.021869488003365252,
        -0.008863226786921384,
        0.0035920374496487585,
        -0.0014552157011416891,
        0.000587189454914491,
        -0.0002303988417861408,
        7.931618084749687e-05,
        -1.7179787169270914e-05,
    ],
    exp2r: &[
        1.0,
        2.0000000000000013,
        2.0000000000000027,
        1.3333333333324682,
        0.6666666666649522,
        0.2666666668235485,
        0.0888888891978721,
        0.025396813811168588,
        0.006349183618921635,
        0.001411307766913692,
        0.00028291838346838124,
        4.69901976389477e-05,
    ],
};

/// The hyperbolic tangent.
///
/// For small `|x|` an odd polynomial, else `1 - 2 / (e^(2|x|) + 1)` (Cody and Waite, chapter 13): the
/// fraction is small enough there for its error not to matter, so one constant for `ln 2` does in
/// its argument reduction.
///
/// Error: f32 < TANHERR32 ULP (all inputs), f64 < 2 ULP. `tanh(±0) = ±0`, `tanh(±inf) = ±1`;
/// never beyond 1.
#[inline(always)]
pub fn tanh<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "tanh", &TANH_F32, &TANH_F64);
    let magnitude = b.abs(x);
    let z = b.mul(x, x);
    let p = horner(b, z, k.small);
    let z = b.mul(magnitude, z);
    let small = b.fma(z, p, magnitude);

    let hi = b.number(x, k.hi);
    let y = b.min(magnitude, hi);
    let magic = b.number(x, fmt.magic + fmt.bias);
    let t = fma_const(b, y, k.two_log2e, magic);
    let n = b.sub(t, magic);
    let r = fma_const(b, n, -k.half_ln2, y);
    let p = horner(b, r, k.exp2r);
    let i = b.bitcast(fmt.int, t);
    let s = shl(b, i, fmt.mantissa);
    let s = b.bitcast(fmt.float, s);
    let (one, two) = (b.number(x, 1.0), b.number(x, 2.0));
    let d = b.fma(s, p, one);
    let q = b.div(two, d);
    let large = b.sub(one, q);

    let is_small = cmp_const(b, CmpKind::Lt, magnitude, k.split);
    let y = b.select(is_small, small, large);
    with_sign_of(b, fmt, y, x)
}

/// The logistic function `1 / (1 + e^-x)`.
///
/// With `e^x = 2^n p` as in [`super::exp`] and `n = i + j` with nearly equal parts, it is
/// `2^i p / (2^-j + 2^i p)`: neither overflows, and the quotient underflows gradually.
///
/// Error: f32 < SIGMOIDERR32 ULP (all inputs), f64 < 2 ULP. `sigmoid(±0) = 1/2`,
/// `sigmoid(-inf) = 0`, `sigmoid(inf) = 1`; never outside `[0, 1]`.
#[inline(always)]
pub fn sigmoid<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, (k, hi)) = format(b, x, "sigmoid", (&EXP_F32, 30.0), (&EXP_F64, 50.0));
    let x = clamp(b, x, k.lo, hi);
    let (t, p) = reduced_exp(b, fmt, k, x);
    let i = b.bitcast(fmt.int, t);
    let half = shr(b, i, 1);
    let s = shl(b, half, fmt.mantissa);
    let s = b.bitcast(fmt.float, s);
    let p = b.mul(p, s);
    // The low bits of i - half are bias + j; negated, they are those of -4 2^-j.
    let rest = b.sub(half, i);
    let rest = shl(b, rest, fmt.mantissa);
    let rest = b.bitcast(fmt.float, rest);
    let d = fma_const(b, rest, -0.25, p);
    b.div(p, d)
}
