//! What the elementary functions are measured with: references of higher precision and the error
//! in ULP. Shared by the unit tests and by `examples/ulp.rs`, which includes this file.

use super::{Native, Scalar, math};

/// A one-argument function, its reference and its promises for `f32`.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) f32: fn(f32) -> f32,
    pub(crate) reference: fn(f64) -> f64,
    /// Bound in ULP for arguments of magnitude up to `limit`.
    pub(crate) bound: f64,
    pub(crate) limit: f32,
    /// Results of arguments that are not NaN lie here, or are NaN.
    pub(crate) range: (f32, f32),
}

macro_rules! function {
    ($name:ident, $reference:expr, $bound:expr, $limit:expr, $range:expr) => {
        Function {
            name: stringify!($name),
            f32: |x| match math::$name(&mut Native, Scalar::F32(x)) {
                Scalar::F32(y) => y,
                other => panic!("{other:?} is not f32"),
            },
            reference: $reference,
            bound: $bound,
            limit: $limit,
            range: $range,
        }
    };
}

const INF: f32 = f32::INFINITY;
/// Largest angle that is reduced.
const ANGLE: f32 = 1_048_576.0;

/// Every one-argument function.
pub(crate) const FUNCTIONS: &[Function] = &[
    function!(exp, f64::exp, 0.9, INF, (0.0, INF)),
    function!(exp2, f64::exp2, 0.9, INF, (0.0, INF)),
    function!(expm1, f64::exp_m1, 0.91, INF, (-1.0, INF)),
    function!(log, f64::ln, 0.89, INF, (-INF, INF)),
    function!(log1p, f64::ln_1p, 0.89, INF, (-INF, INF)),
    function!(sin, f64::sin, 0.89, ANGLE, (-1.0, 1.0)),
    function!(cos, f64::cos, 0.89, ANGLE, (-1.0, 1.0)),
    function!(tan, f64::tan, 1.65, ANGLE, (f32::MIN, f32::MAX)),
    function!(atan, f64::atan, 1.0, INF, (-1.5707964, 1.5707964)),
    function!(tanh, f64::tanh, 1.0, INF, (-1.0, 1.0)),
    function!(sigmoid, sigmoid, 2.0, INF, (0.0, 1.0)),
    function!(erf, erf, 0.99, INF, (-1.0, 1.0)),
];

fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// `2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (1 3 .. (2n+1))`: all terms positive, so it is accurate
/// to a few units of the last place of `f64`.
pub(crate) fn erf(x: f64) -> f64 {
    let a = x.abs();
    // From here on it is 1 in f64.
    if a > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > sum.abs() * 1e-17 {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// `|got - exact|` in units of the spacing of `f32` at `exact`; 0 for two NaN, infinite for one. An
/// exact value beyond the largest `f32` has the spacing below that, so that infinity is 0.5 ULP off
/// where it is the correctly rounded result.
pub(crate) fn ulp_f32(got: f32, exact: f64) -> f64 {
    if got.is_nan() || exact.is_nan() {
        return if got.is_nan() == exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let exponent = ((exact.to_bits() >> 52 & 0x7ff) as i32 - 1023).clamp(-126, 127) - 23;
    let spacing = f64::from_bits(((exponent + 1023) as u64) << 52);
    // Infinity stands for 2^128 and all above.
    let top = 2f64.powi(128);
    let value = if got.is_infinite() { top.copysign(got as f64) } else { got as f64 };
    (value - exact.clamp(-top, top)).abs() / spacing
}
