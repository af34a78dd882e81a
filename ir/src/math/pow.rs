//! `pow`.

use super::exp::{EXP2_F32, EXP2_F64, scale};
use super::log::{LOG_F32, LOG_F64, Log, exponent_and_significand};
use super::{
    Format, add_const, clamp, cmp_const, fma_const, format, horner, mul_const, select_const, sign_bit,
};
use crate::{CmpKind, ScalarBuilder, ScalarOp};

struct Pow {
    log: &'static Log,
    /// `2 / ln 2` in two parts.
    k0: [f64; 2],
    /// `2 / (3 ln 2)` in two parts.
    k1: [f64; 2],
    /// `log2((1 + s) / (1 - s)) = s (k0 + k1 z + z^2 r(z))`, `z = s^2` on `0 ..= 0.02944`.
    r: &'static [f64],
    exp2: &'static [f64],
    /// Powers of two beyond this overflow or underflow.
    limit: f64,
}

/// Error of the series relative to the logarithm 2^-36.8.
static POW_F32: Pow = Pow {
    log: &LOG_F32,
    k0: [2.88539, 3.851926e-8],
    k1: [0.9617967, -7.028462e-9],
    r: &[0.5770802, 0.41184995, 0.3378197],
    exp2: EXP2_F32,
    limit: 160.0,
};

/// Error of the series relative to the logarithm 2^-66.3.
static POW_F64: Pow = Pow {
    log: &LOG_F64,
    k0: [2.8853900817779268, 4.0710547481862066e-17],
    k1: [0.9617966939259756, 5.0577616648125907e-17],
    r: &[
        0.5770780163556178,
        0.41219858309199076,
        0.3205989022649373,
        0.26230770184346763,
        0.22198396619356836,
        0.19125586605139744,
        0.19037911469778013,
    ],
    exp2: EXP2_F64,
    limit: 1100.0,
};

/// `log2(x)` as an unevaluated sum, for positive finite `x`.
#[inline(always)]
fn log2_twofold<B: ScalarBuilder>(b: &mut B, fmt: &Format, k: &Pow, x: B::V) -> (B::V, B::V) {
    let (e, m) = exponent_and_significand(b, fmt, k.log, x);
    // s + s_low = (m - 1) / (m + 1), with the rounding error of the denominator.
    let f = add_const(b, m, -1.0);
    let d = add_const(b, m, 1.0);
    let back = add_const(b, d, -1.0);
    let d_low = b.sub(m, back);
    let one = b.number(x, 1.0);
    let inverse = b.div(one, d);
    let s = b.mul(f, inverse);
    let minus_s = b.neg(s);
    let rest = b.fma(minus_s, d, f);
    let rest = b.fma(minus_s, d_low, rest);
    let s_low = b.mul(rest, inverse);
    // z + z_low = s^2.
    let z = b.mul(s, s);
    let minus_z = b.neg(z);
    let z_low = b.fma(s, s, minus_z);
    let twice = b.add(s, s);
    let z_low = b.fma(twice, s_low, z_low);
    // c + c_low = k0 + k1 z + z^2 r(z); the products are kept negated for the fused steps.
    let minus_k1z = mul_const(b, z, -k.k1[0]);
    let k1z_low = fma_const(b, z, k.k1[0], minus_k1z);
    let k1z_low = fma_const(b, z, k.k1[1], k1z_low);
    let k1z_low = fma_const(b, z_low, k.k1[0], k1z_low);
    let k0 = b.number(x, k.k0[0]);
    let c = b.sub(k0, minus_k1z);
    let c_low = b.sub(k0, c);
    let c_low = b.sub(c_low, minus_k1z);
    let r = horner(b, z, k.r);
    let zz = b.mul(z, z);
    let r = b.fma(zz, r, k1z_low);
    let r = add_const(b, r, k.k0[1]);
    let c_low = b.add(c_low, r);
    // (s + s_low) (c + c_low) + e.
    let minus_l = b.mul(minus_s, c);
    let l_low = b.fma(s, c, minus_l);
    let l_low = b.fma(s, c_low, l_low);
    let l_low = b.fma(s_low, c, l_low);
    let h = b.sub(e, minus_l);
    let h_low = b.sub(e, h);
    let h_low = b.sub(h_low, minus_l);
    let h_low = b.add(h_low, l_low);
    // The second part was up to 2^-12 of the first; now it is less than a last place of it, so that
    // the fraction of the power is determined by the first.
    let sum = b.add(h, h_low);
    let h = b.sub(h, sum);
    (sum, b.add(h, h_low))
}

/// `x^y`.
///
/// `2^(y log2 |x|)`, where the logarithm is formed in about twice the working precision from
/// `log2((1 + s) / (1 - s))`, `s = (m - 1) / (m + 1)`, with the two leading terms of the series in
/// two parts, and the product with `y` too (the plan of fdlibm's `pow`; twofold arithmetic after
/// T. J. Dekker, "A floating-point technique for extending the available precision", Numer. Math.
/// 18 (1971), with fused steps).
///
/// Error: f32 < 1 ULP, f64 < 2 ULP (dense samples). Special cases are those of C99 Annex F:
/// `pow(x, ±0) = 1` and `pow(1, y) = 1` even for NaN, `pow(-1, ±inf) = 1`; a negative finite `x`
/// with a non-integral `y` gives NaN; zeros and infinities of `x` give zeros and infinities, with
/// the sign of `x` if `y` is an odd integer; `pow(x, ±inf)` is the limit for `|x|`.
#[inline(always)]
pub fn pow<B: ScalarBuilder>(b: &mut B, x: B::V, y: B::V) -> B::V {
    let (fmt, k) = format(b, x, "pow", &POW_F32, &POW_F64);
    let magnitude = b.abs(x);
    let (h, h_low) = log2_twofold(b, fmt, k, magnitude);
    // Infinities and NaN are their own logarithm here.
    let finite = cmp_const(b, CmpKind::Lt, magnitude, f64::INFINITY);
    let h = b.select(finite, h, magnitude);
    let zero = cmp_const(b, CmpKind::Eq, x, 0.0);
    let h = select_const(b, zero, f64::NEG_INFINITY, h);

    let p = b.mul(y, h);
    let minus_p = b.neg(p);
    let p_low = b.fma(y, h, minus_p);
    let p_low = b.fma(y, h_low, p_low);
    // pow(±1, ±inf) must not see 0 * inf.
    let unit = cmp_const(b, CmpKind::Eq, magnitude, 1.0);
    let p = select_const(b, unit, 0.0, p);
    let size = b.abs(p);
    let in_range = cmp_const(b, CmpKind::Lt, size, k.limit);
    let none = b.number(x, 0.0);
    let p_low = b.select(in_range, p_low, none);
    let p_low = b.select(unit, none, p_low);
    let p = clamp(b, p, -k.limit, k.limit);
    let magic = b.number(x, fmt.magic + 2.0 * fmt.bias);
    let t = b.add(p, magic);
    let n = b.sub(t, magic);
    let f = b.sub(p, n);
    let f = b.add(f, p_low);
    let r = horner(b, f, k.exp2);
    let r = scale(b, fmt, r, t);

    // The sign of x if y is an odd integer; every float is even from 2^(mantissa + 1) on.
    let whole = b.op(ScalarOp::Trunc, &[y]);
    let integral = b.cmp(CmpKind::Eq, whole, y);
    let half = mul_const(b, y, 0.5);
    let half_whole = b.op(ScalarOp::Trunc, &[half]);
    let uneven = b.cmp(CmpKind::Ne, half_whole, half);
    let odd = b.and(integral, uneven);
    let mask = sign_bit(b, fmt);
    let bits = b.bitcast(fmt.int, x);
    let sign = b.and(bits, mask);
    let plus = super::int(b, fmt, 0);
    let sign = b.select(odd, sign, plus);
    let r = b.bitcast(fmt.int, r);
    let r = b.or(r, sign);
    let r = b.bitcast(fmt.float, r);

    let negative = cmp_const(b, CmpKind::Lt, x, 0.0);
    let fractional = b.op(ScalarOp::Not, &[integral]);
    let undefined = b.and(negative, fractional);
    let undefined = b.and(undefined, finite);
    let r = select_const(b, undefined, f64::NAN, r);
    let trivial = cmp_const(b, CmpKind::Eq, y, 0.0);
    let one_to = cmp_const(b, CmpKind::Eq, x, 1.0);
    let trivial = b.or(trivial, one_to);
    select_const(b, trivial, 1.0, r)
}
