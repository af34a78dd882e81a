//! Accuracy, special values, cost, and one meaning for every builder.

use super::*;
use crate::{Native, Scalar, ScalarFn, ScalarId, math};
use reference::{FUNCTIONS, ulp_f32};

#[path = "reference.rs"]
mod reference;

/// Largest of some errors, with where it is.
fn max_ulp<T>(errors: impl Iterator<Item = (T, f64)>) -> Option<(T, f64)> {
    errors.fold(None, |worst, e| match worst {
        Some((_, ulp)) if ulp >= e.1 => worst,
        _ => Some(e),
    })
}

/// Bit patterns that fail first: the neighbourhoods of zeros, powers of two, multiples of pi/4,
/// ends of the ranges and thresholds in the code.
fn notable_f32() -> Vec<f32> {
    let mut centres = vec![0.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN, 1.0e5, 1.0e9];
    centres.extend((-149..128).map(|e| 2f64.powi(e) as f32));
    centres.extend((1..200).map(|n| n as f32 * std::f32::consts::FRAC_PI_4));
    centres.extend([0.346_573_6, 0.6, 0.75, 0.85, 1.0, 3.93, 9.01, 10.0, 16.64, 17.33, 18.0, 30.0]);
    centres.extend([87.336_55, 88.722_84, 89.0, 103.278_93, 103.972_08, 104.0, 126.0, 149.0, 150.0, 151.0]);
    let around = |c: f32| (-4i32..=4).map(move |d| f32::from_bits(c.to_bits().wrapping_add_signed(d)));
    centres.into_iter().flat_map(around).flat_map(|x| [x, -x]).collect()
}

#[test]
fn f32_functions_keep_their_bounds() {
    for f in FUNCTIONS {
        let dense = (0..=u32::MAX).step_by(4099).map(f32::from_bits);
        let errors = dense.chain(notable_f32()).map(|x| {
            let y = (f.f32)(x);
            assert!(y.is_nan() || (f.range.0 <= y && y <= f.range.1), "{}({x:e}) = {y:e}", f.name);
            if x.abs() > f.limit && x.is_finite() {
                assert!(y.is_finite(), "{}({x:e}) = {y:e}", f.name);
                return (x, 0.0);
            }
            (x, ulp_f32(y, (f.reference)(x as f64)))
        });
        let (x, ulp) = max_ulp(errors).unwrap();
        assert!(ulp <= f.bound, "{}: {ulp} ulp at {x:e}, bound {}", f.name, f.bound);
    }
}

type Unary = fn(&mut Native, Scalar) -> Scalar;

/// The functions by name, with their bounds for f64.
const UNARY: &[(&str, Unary, f64)] = &[
    ("exp", math::exp, 1.0),
    ("exp2", math::exp2, 1.0),
    ("expm1", math::expm1, 1.0),
    ("log", math::log, 1.0),
    ("log1p", math::log1p, 1.0),
    ("sin", math::sin, 1.0),
    ("cos", math::cos, 1.0),
    ("tan", math::tan, 2.0),
    ("atan", math::atan, 2.0),
    ("tanh", math::tanh, 2.0),
    ("sigmoid", math::sigmoid, 2.0),
    ("erf", math::erf, 1.0),
];

fn f64_of(v: Scalar) -> f64 {
    match v {
        Scalar::F64(v) => v,
        other => panic!("{other:?} is not f64"),
    }
}

fn f32_of(v: Scalar) -> f32 {
    match v {
        Scalar::F32(v) => v,
        other => panic!("{other:?} is not f32"),
    }
}

fn pow64(x: f64, y: f64) -> f64 {
    f64_of(math::pow(&mut Native, Scalar::F64(x), Scalar::F64(y)))
}

fn pow32(x: f32, y: f32) -> f32 {
    f32_of(math::pow(&mut Native, Scalar::F32(x), Scalar::F32(y)))
}

/// `|got - exact|` in units of the spacing at `exact`, which is `rest` such units above `nearest`.
fn ulp_f64(got: f64, nearest: f64, rest: f64) -> f64 {
    if got == nearest && !nearest.is_finite() {
        return 0.0;
    }
    // In two factors, because the inverse of the spacing may be too large for a float.
    let exponent = ((nearest.to_bits() >> 52 & 0x7ff) as i32).max(1);
    let up = 1075 - exponent;
    ((got - nearest) * 2f64.powi(up / 2) * 2f64.powi(up - up / 2) - rest).abs()
}

#[test]
fn f64_functions_keep_their_bounds() {
    let table = include_str!("reference_f64.txt");
    for (name, bound) in UNARY.iter().map(|f| (f.0, f.2)).chain([("pow", 2.0)]) {
        let rows = table.lines().filter_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        let errors = rows.map(|row| {
            let (bits, rest) = row.rsplit_once(' ').unwrap();
            let bits = bits.split(' ').map(|v| u64::from_str_radix(v, 16).unwrap());
            let v: Vec<f64> = bits.map(f64::from_bits).collect();
            let got = match UNARY.iter().find(|f| f.0 == name) {
                Some(f) => f64_of((f.1)(&mut Native, Scalar::F64(v[0]))),
                None => pow64(v[0], v[1]),
            };
            (v[0], ulp_f64(got, v[v.len() - 1], rest.parse().unwrap()))
        });
        let (x, ulp) = max_ulp(errors).unwrap();
        println!("{name:8} {ulp:.3} ulp at {x:e}");
        assert!(ulp <= bound, "{name}: {ulp} ulp at {x:e}, bound {bound}");
    }
}

/// The `f64` functions on `f32` arguments agree with the standard library nearly to the last place.
#[test]
fn f64_functions_agree_with_the_references() {
    for (f, (name, f64_function, _)) in FUNCTIONS.iter().zip(UNARY) {
        assert_eq!(f.name, *name);
        for bits in (0..=u32::MAX).step_by(4099 * 16) {
            let x = f32::from_bits(bits) as f64;
            let (got, expected) = (f64_of(f64_function(&mut Native, Scalar::F64(x))), (f.reference)(x));
            let close = (got - expected).abs() <= expected.abs() * 1e-14 + f64::MIN_POSITIVE;
            let beyond = x.abs() > 2f64.powi(40) && f.limit.is_finite();
            assert!(
                close || got == expected || (got.is_nan() && expected.is_nan()) || beyond,
                "{name}({x:e}) = {got:e}, not {expected:e}"
            );
            assert!(
                !beyond || !x.is_finite() || (got.is_finite() && got.abs() <= 1.0),
                "{name}({x:e}) = {got}"
            );
        }
    }
}

#[test]
fn special_values() {
    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    let table: &[(&str, &[(f64, f64)])] = &[
        ("exp", &[(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e30, INF), (-1e30, 0.0)]),
        ("exp2", &[(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (10.0, 1024.0), (-1.0, 0.5)]),
        ("expm1", &[(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (-1e30, -1.0), (1e30, INF)]),
        (
            "log",
            &[(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (-INF, NAN), (-1e-40, NAN)],
        ),
        (
            "log1p",
            &[(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-1.5, NAN), (-INF, NAN), (-1e30, NAN)],
        ),
        ("sin", &[(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)]),
        ("cos", &[(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)]),
        ("tan", &[(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)]),
        ("atan", &[(0.0, 0.0), (-0.0, -0.0)]),
        ("tanh", &[(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (50.0, 1.0), (-1e30, -1.0)]),
        ("sigmoid", &[(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (60.0, 1.0), (-1e30, 0.0)]),
        ("erf", &[(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (7.0, 1.0), (-1e30, -1.0)]),
    ];
    for ((name, f, _), (same, cases)) in UNARY.iter().zip(table) {
        assert_eq!(name, same);
        for dtype in [DType::F32, DType::F64] {
            for &(x, y) in cases.iter().chain(&[(NAN, NAN), (-NAN, NAN)]) {
                let got = f(&mut Native, Scalar::from_f64(dtype, x)).to_f64();
                let same = if y.is_nan() { got.is_nan() } else { got.to_bits() == y.to_bits() };
                assert!(same, "{name}({x:?}) = {got:?}, not {y:?}, in {dtype:?}");
            }
        }
        // Any payload: exponent tricks work on the bits of NaN too.
        for payload in 1..2000 {
            for sign in [0u32, 1 << 31] {
                for quiet in [0, 1 << 22] {
                    let x = f32::from_bits(0x7f80_0000 | payload | sign | quiet);
                    assert!(f32_of(f(&mut Native, Scalar::F32(x))).is_nan(), "{name}({x:?})");
                }
                let x = f64::from_bits(0x7ff0 << 48 | payload as u64 | (sign as u64) << 32);
                assert!(f64_of(f(&mut Native, Scalar::F64(x))).is_nan(), "{name}({x:?})");
            }
        }
    }
}

/// Integer powers of two are exact, down to the smallest subnormal.
#[test]
fn exp2_is_exact_at_integers() {
    for n in -1080..1030 {
        let got = f64_of(math::exp2(&mut Native, Scalar::F64(n as f64)));
        let expected = match n {
            ..-1074 => 0.0,
            -1074..-1022 => f64::from_bits(1 << (n + 1074)),
            -1022..1024 => f64::from_bits(((n + 1023) as u64) << 52),
            _ => f64::INFINITY,
        };
        assert_eq!(got, expected, "exp2({n})");
    }
}

#[test]
fn f64_keeps_subnormals() {
    for i in 1..200u64 {
        let x = f64::from_bits(i * i * i * 7);
        for f in [math::expm1, math::log1p, math::sin, math::tan, math::tanh] {
            assert_eq!(f64_of(f(&mut Native, Scalar::F64(x))), x);
            assert_eq!(f64_of(f(&mut Native, Scalar::F64(-x))), -x);
        }
        let x = -708.0 - i as f64 * 0.19;
        let (got, expected) = (f64_of(math::exp(&mut Native, Scalar::F64(x))), x.exp());
        assert!(got.to_bits().abs_diff(expected.to_bits()) <= 1, "exp({x})");
    }
}

#[test]
fn pow_f32_keeps_its_bound() {
    // A generator of its own, so that the sample is the same everywhere.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let unit = |u: u32| u as f64 / 2f64.powi(32);
    let errors = (0..300_000).map(|i| {
        let x = match i % 4 {
            0 => f32::from_bits(next() & 0x7fff_ffff),
            1 => f32::from_bits(next() & 0x007f_ffff),
            2 => (1.0 + (unit(next()) - 0.5) * 2f64.powi(-((next() % 20) as i32))) as f32,
            _ => (0.5 + unit(next()) * 1.5) as f32,
        };
        // An exponent for which the result is in range, or nearly.
        let log = (x as f64).log2();
        let y = match i % 3 {
            0 => (unit(next()) * 10.0 - 5.0) as f32,
            _ => ((unit(next()) * 282.0 - 152.0) / log) as f32,
        };
        let y = if y.is_finite() { y } else { 2.0 };
        ((x, y), ulp_f32(pow32(x, y), (x as f64).powf(y as f64)))
    });
    let (at, ulp) = max_ulp(errors).unwrap();
    println!("pow      {ulp:.3} ulp at {at:?}");
    assert!(ulp <= 1.0, "pow: {ulp} ulp at {at:?}");
}

/// The standard library follows C99 here.
#[test]
fn pow_special_cases() {
    let values = [
        0.0,
        1e-45,
        1e-40,
        1e-30,
        0.25,
        0.5,
        0.75,
        1.0,
        1.5,
        2.0,
        3.0,
        4.0,
        5.0,
        7.5,
        1e4,
        8388607.0,
        8388608.0,
        16777215.0,
        16777216.0,
        1e10,
        1e30,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
    ];
    for x in values.iter().flat_map(|&v| [v, -v]) {
        for y in values.iter().flat_map(|&v| [v, -v]) {
            let (got, expected) = (pow32(x, y), (x as f64).powf(y as f64));
            let zero = got == 0.0 && (expected as f32) == 0.0;
            assert!(
                ulp_f32(got, expected) <= 1.0
                    && (!zero || got.is_sign_negative() == expected.is_sign_negative()),
                "pow({x:e}, {y:e}) = {got:e}, not {expected:e}"
            );
            let (x, y) = (x as f64, y as f64);
            let got = pow64(x, y);
            let same = if expected.is_nan() {
                got.is_nan()
            } else if expected.is_finite() && expected != 0.0 {
                got.to_bits().abs_diff(expected.to_bits()) <= 2
            } else {
                got.to_bits() == expected.to_bits()
            };
            assert!(same, "pow({x:e}, {y:e}) = {got:e}, not {expected:e}");
        }
    }
}

/// Recordings of all functions of one argument, in the order of [`UNARY`].
fn recorded(dtype: DType) -> Vec<ScalarFn> {
    let functions: [fn(&mut ScalarFn, ScalarId) -> ScalarId; 12] = [
        math::exp,
        math::exp2,
        math::expm1,
        math::log,
        math::log1p,
        math::sin,
        math::cos,
        math::tan,
        math::atan,
        math::tanh,
        math::sigmoid,
        math::erf,
    ];
    functions.iter().map(|f| ScalarFn::record(&[dtype], |b, x| f(b, x[0]))).collect()
}

fn same_bits(a: Scalar, b: Scalar) -> bool {
    a == b || (a.to_f64().is_nan() && b.to_f64().is_nan())
}

#[test]
fn recording_and_evaluation_agree() {
    for dtype in [DType::F32, DType::F64] {
        for ((name, f, _), rec) in UNARY.iter().zip(recorded(dtype)) {
            for x in notable_f32().into_iter().step_by(7) {
                let x = Scalar::F32(x).cast(dtype);
                assert!(same_bits(f(&mut Native, x), rec.emit(&mut Native, &[x])), "{name}({x})");
            }
        }
        let rec = ScalarFn::record(&[dtype; 2], |b, v| math::pow(b, v[0], v[1]));
        for x in notable_f32().into_iter().step_by(101) {
            for y in [-2.5f32, 0.0, 0.5, 3.0] {
                let (x, y) = (Scalar::F32(x).cast(dtype), Scalar::F32(y).cast(dtype));
                assert!(
                    same_bits(math::pow(&mut Native, x, y), rec.emit(&mut Native, &[x, y])),
                    "pow({x}, {y})"
                );
            }
        }
    }
}

/// Instructions other than constants and changes of type, which cost nothing in a loop.
fn cost(f: &ScalarFn) -> usize {
    f.insts().iter().filter(|i| !matches!(i.op, ScalarOp::Const(_) | ScalarOp::Bitcast(_))).count()
}

/// What the functions cost is part of what they are: a change shows here.
#[test]
fn instruction_counts() {
    let mut lines = String::new();
    let pow = |dtype| ScalarFn::record(&[dtype; 2], |b, v| math::pow(b, v[0], v[1]));
    let all = |dtype| recorded(dtype).into_iter().chain([pow(dtype)]);
    let names = UNARY.iter().map(|f| f.0).chain(["pow"]);
    for ((name, single), double) in names.zip(all(DType::F32)).zip(all(DType::F64)) {
        lines += &format!("{name} {} {}\n", cost(&single), cost(&double));
        // One width of lanes: nothing but the float, the integer of its size, and masks.
        for (f, wide) in [(&single, 4), (&double, 8)] {
            assert!(
                f.insts().iter().all(|i| i.dtype == DType::Bool || i.dtype.size_bytes() == wide),
                "{name}"
            );
        }
    }
    expect_test::expect![[r#"
        exp 18 23
        exp2 17 23
        expm1 28 33
        log 33 37
        log1p 38 42
        sin 33 39
        cos 34 40
        tan 34 41
        atan 27 35
        tanh 28 37
        sigmoid 19 24
        erf 30 53
        pow 99 110
    "#]]
    .assert_eq(&lines);
}

#[test]
#[should_panic(expected = "elementary functions take f32 or f64")]
fn other_types_are_refused() {
    math::exp(&mut Native, Scalar::I32(1));
}
