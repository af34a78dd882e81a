//! `tanh` and `sigmoid`.

use super::exp::{EXP_F32, EXP_F64, Exp};
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

/// Errors relative to the functions: 2^-26.9 on `|x| <= 0.85`, and 2^-28.2.
static TANH_F32: Tanh = Tanh {
    split: 0.85,
    hi: 10.0,
    two_log2e: 2.88539,
    half_ln2: 0.3465736,
    small: &[-0.33333266, 0.13331479, -0.053796418, 0.021120979, -0.0071427054, 0.0014401322],
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
/// Error: f32 < 1 ULP (all inputs), f64 < 2 ULP. `tanh(±0) = ±0`, `tanh(±inf) = ±1`;
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

struct Sigmoid {
    exp: &'static Exp,
    /// Above it the result rounds to 1.
    hi: f64,
    /// `4 - 4 e^-r`, without its first factor `r`: the polynomial of [`Exp`] with signs and a factor.
    poly: [f64; 11],
}

/// `-4 (-1)^i c_i` of the coefficients from the linear one on; the rest 0.
const fn sigmoid_poly(c: &[f64]) -> [f64; 11] {
    let mut out = [0.0; 11];
    let mut i = 1;
    while i < c.len() {
        out[i - 1] = if i % 2 == 0 { -4.0 * c[i] } else { 4.0 * c[i] };
        i += 1;
    }
    out
}

static SIGMOID_F32: Sigmoid = Sigmoid { exp: &EXP_F32, hi: 30.0, poly: sigmoid_poly(EXP_F32.poly) };
static SIGMOID_F64: Sigmoid = Sigmoid { exp: &EXP_F64, hi: 50.0, poly: sigmoid_poly(EXP_F64.poly) };

/// The logistic function `1 / (1 + e^-x)`.
///
/// With `e^-x = 2^n e^-r`, reduced as in [`super::exp()`], and `n = i + j` with nearly equal parts, it
/// is `2^-j / (2^-j + 2^i + 2^i (e^-r - 1))`: nothing overflows, the quotient underflows gradually,
/// and the denominator is rounded once.
///
/// Error: f32 < 2 ULP (all inputs), f64 < 2 ULP. `sigmoid(±0) = 1/2`,
/// `sigmoid(-inf) = 0`, `sigmoid(inf) = 1`; never outside `[0, 1]`.
#[inline(always)]
pub fn sigmoid<B: ScalarBuilder>(b: &mut B, x: B::V) -> B::V {
    let (fmt, k) = format(b, x, "sigmoid", &SIGMOID_F32, &SIGMOID_F64);
    let x = clamp(b, x, k.exp.lo, k.hi);
    let magic = b.number(x, fmt.magic + 2.0 * fmt.bias);
    let t = fma_const(b, x, -k.exp.log2e, magic);
    let n = b.sub(t, magic);
    let r = fma_const(b, n, k.exp.ln2[0], x);
    let r = fma_const(b, n, k.exp.ln2[1], r);
    let p = horner(b, r, &k.poly[..k.exp.poly.len() - 1]);
    let p = b.mul(r, p);
    let bits = b.bitcast(fmt.int, t);
    let half = shr(b, bits, 1);
    let s = shl(b, half, fmt.mantissa);
    let s = b.bitcast(fmt.float, s); // 2^i
    // The low bits of bits - half are bias + j; negated, they are those of -4 2^-j. So the fraction
    // is taken with -4 above and below.
    let rest = b.sub(half, bits);
    let rest = shl(b, rest, fmt.mantissa);
    let rest = b.bitcast(fmt.float, rest);
    // In this order nothing is lost where 2^-j is the last place of 2^i.
    let d = b.fma(s, p, rest);
    let d = fma_const(b, s, -4.0, d);
    b.div(rest, d)
}
