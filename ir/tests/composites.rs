//! Composites: values against straightforward formulas in f64, gradients against finite differences,
//! finiteness at extreme inputs, and the moments of random numbers.

mod common;

use common::{cases, check_gradient};
use graphc_ir::composite::{RandomStream, bce_with_logits, cross_entropy, initialize, mse, stream_id};
use graphc_ir::testing::{dims, uniform};
use graphc_ir::{
    Bindings, DType, EvalError, FunctionBuilder, Initializer, Literal, ModuleBuilder, Scalar, StateVar,
    Tensor, TensorType, evaluate, gradients, shape, vjp,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn property<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&strategy, test).unwrap_or_else(|e| panic!("{e}"));
}

fn f64s(x: &Literal) -> Vec<f64> {
    (0..x.len()).map(|i| x.get(i).to_f64()).collect()
}

fn vector<T: graphc_ir::Element>(values: &[T]) -> Literal {
    Literal::new(&[values.len()], values.to_vec()).unwrap()
}

/// `body(x)` evaluated.
fn value(
    operands: &[Literal],
    body: impl for<'f> Fn(&'f FunctionBuilder, &[Tensor<'f>]) -> Tensor<'f>,
) -> Vec<f64> {
    let m = ModuleBuilder::new("test");
    m.function("f", |f| {
        let input = |(i, l): (usize, &Literal)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape);
        let x: Vec<_> = operands.iter().enumerate().map(input).collect();
        f.output("y", body(f, &x));
    });
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    f64s(&evaluate(&module.functions[0], operands, |_| unreachable!("no state")).unwrap().outputs[0])
}

/// The gradient of `sum(body(x))` with respect to the first operand.
fn slope(
    operands: &[Literal],
    body: impl for<'f> Fn(&'f FunctionBuilder, &[Tensor<'f>]) -> Tensor<'f>,
) -> Vec<f64> {
    value(operands, |f, x| {
        let y = body(f, x);
        vjp(&[(y, y.full_like(1.0))], &x[..1])[0]
    })
}

fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), expected.len());
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        prop_assert!((g - e).abs() <= tolerance * (1.0 + e.abs()), "{what}[{i}]: {g}, expected {e}");
    }
    Ok(())
}

type Activation = (&'static str, for<'f> fn(Tensor<'f>) -> Tensor<'f>, fn(f64) -> f64, f64);

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function by its Taylor series.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// Name, composite, formula, and the derivative at 0.
const ACTIVATIONS: [Activation; 8] = [
    ("relu", |x| x.relu(), |x| x.max(0.0), 0.0),
    ("leaky_relu", |x| x.leaky_relu(0.1), |x| if x > 0.0 { x } else { 0.1 * x }, 0.1),
    ("elu", |x| x.elu(1.5), |x| if x > 0.0 { x } else { 1.5 * (x.exp() - 1.0) }, 1.5),
    ("gelu", |x| x.gelu(), |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt())), 0.5),
    (
        "gelu_tanh",
        |x| x.gelu_tanh(),
        |x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
        0.5,
    ),
    ("silu", |x| x.silu(), |x| x * sigmoid(x), 0.5),
    ("softplus", |x| x.softplus(), |x| (1.0 + x.exp()).ln(), 0.5),
    ("log_sigmoid", |x| x.log_sigmoid(), |x| sigmoid(x).ln(), 0.5),
];

#[test]
fn activations_have_the_values_and_gradients_of_their_formulas() {
    for (name, activation, formula, at_zero) in ACTIVATIONS {
        property(dims(3).prop_flat_map(|d| uniform(DType::F64, d, -3.0, 3.0)), |x| {
            let expected: Vec<f64> = f64s(&x).into_iter().map(formula).collect();
            close(name, &value(std::slice::from_ref(&x), |_, x| activation(x[0])), &expected, 1e-13)?;
            // Away from the kink that some have at 0.
            let x = Literal::from_fn(DType::F64, x.dims(), |i| {
                let v = x.get(i).to_f64();
                Scalar::F64(v + 0.1f64.copysign(v))
            });
            check_gradient(&[x], |_, x| activation(x[0]))
        });
        for dtype in [DType::F32, DType::F64] {
            let zero = Literal::full(&[1], Scalar::from_f64(dtype, 0.0));
            let derivative = slope(&[zero], |_, x| activation(x[0]))[0];
            assert!((derivative - at_zero).abs() < 1e-6, "{name}'(0) is {derivative}, not {at_zero}");
            let extreme = [-1e4, -200.0, -90.0, 90.0, 200.0, 1e4];
            let x = Literal::from_fn(dtype, &[6], |i| Scalar::F64(extreme[i]));
            for v in [
                value(std::slice::from_ref(&x), |_, x| activation(x[0])),
                slope(&[x], |_, x| activation(x[0])),
            ] {
                assert!(v.iter().all(|v| v.is_finite()), "{name} {dtype} at {extreme:?}: {v:?}");
            }
            let nan = Literal::full(&[1], Scalar::from_f64(dtype, f64::NAN));
            assert!(value(&[nan], |_, x| activation(x[0]))[0].is_nan(), "{name} of NaN");
        }
    }
}

/// A tensor and one of its axes.
fn with_axis() -> impl Strategy<Value = (Literal, usize)> {
    (dims(3), 1usize..9, any::<prop::sample::Index>()).prop_flat_map(|(mut d, extent, at)| {
        let axis = at.index(d.len() + 1);
        d.insert(axis, extent);
        (uniform(DType::F64, d, -5.0, 5.0), Just(axis))
    })
}

/// Applies `f` to every row of `x` along `axis`.
fn along(x: &Literal, axis: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let d = x.dims();
    let stride: usize = d[axis + 1..].iter().product();
    let mut out = f64s(x);
    for start in 0..out.len() {
        if (start / stride).is_multiple_of(d[axis]) {
            let at = |i: usize| start + i * stride;
            let row: Vec<f64> = (0..d[axis]).map(|i| out[at(i)]).collect();
            for (i, v) in f(&row).into_iter().enumerate() {
                out[at(i)] = v;
            }
        }
    }
    out
}

#[test]
fn softmax_and_log_softmax_agree_with_their_formulas() {
    property(with_axis(), |(x, axis)| {
        let exp_sum = |row: &[f64]| row.iter().map(|v| v.exp()).sum::<f64>();
        let softmax = along(&x, axis, |row| row.iter().map(|v| v.exp() / exp_sum(row)).collect());
        let log_softmax = along(&x, axis, |row| row.iter().map(|v| v - exp_sum(row).ln()).collect());
        let operands = [x];
        close("softmax", &value(&operands, |_, x| x[0].softmax(axis)), &softmax, 1e-13)?;
        close("log_softmax", &value(&operands, |_, x| x[0].log_softmax(axis)), &log_softmax, 1e-13)?;
        check_gradient(&operands, |_, x| x[0].softmax(axis))?;
        check_gradient(&operands, |_, x| x[0].log_softmax(axis))
    });
}

#[test]
fn reductions_agree_with_their_formulas() {
    property(with_axis(), |(x, axis)| {
        let n = x.dims()[axis] as f64;
        let first = |values: Vec<f64>| {
            let stride: usize = x.dims()[axis + 1..].iter().product();
            let kept = (0..values.len()).filter(|i| (i / stride).is_multiple_of(x.dims()[axis]));
            kept.map(|i| values[i]).collect::<Vec<f64>>()
        };
        let mean = |row: &[f64]| row.iter().sum::<f64>() / n;
        let means = first(along(&x, axis, |row| vec![mean(row)]));
        let spread = |row: &[f64]| row.iter().map(|v| (v - mean(row)).powi(2)).sum::<f64>() / n;
        let variances = first(along(&x, axis, |row| vec![spread(row)]));
        let sums = first(along(&x, axis, |row| vec![row.iter().map(|v| v.exp()).sum::<f64>().ln()]));
        let operands = [x.clone()];
        close("mean", &value(&operands, |_, x| x[0].mean(&[axis])), &means, 1e-13)?;
        close("variance", &value(&operands, |_, x| x[0].variance(&[axis])), &variances, 1e-13)?;
        close("logsumexp", &value(&operands, |_, x| x[0].logsumexp(&[axis])), &sums, 1e-13)?;
        check_gradient(&operands, |_, x| x[0].mean(&[axis]))?;
        check_gradient(&operands, |_, x| x[0].variance(&[axis]))?;
        check_gradient(&operands, |_, x| x[0].logsumexp(&[axis]))
    });
}

#[test]
fn logsumexp_of_infinities() {
    let inf = f64::INFINITY;
    let of = |v: &[f64]| value(&[vector(v)], |_, x| x[0].logsumexp(&[0]))[0];
    assert_eq!(of(&[-inf, -inf]), -inf);
    assert_eq!(of(&[-inf, 3.0]), 3.0);
    assert_eq!(of(&[inf, 3.0]), inf);
    assert!(of(&[inf, f64::NAN]).is_nan());
    assert_eq!(of(&[1e4, -1e4]), 1e4);
}

#[test]
fn losses_agree_with_their_formulas() {
    let case = (1usize..6, 1usize..7).prop_flat_map(|(b, c)| {
        let labels = proptest::collection::vec(0..c as i32, b);
        let x = || uniform(DType::F64, vec![b, c], -4.0, 4.0);
        (x(), x(), uniform(DType::F64, vec![b, c], 0.0, 1.0), labels)
    });
    property(case, |(x, y, t, labels)| {
        let n = x.len() as f64;
        let pairs = || f64s(&x).into_iter().zip(f64s(&y));
        let expected = pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / n;
        let operands = [x.clone(), y.clone()];
        close("mse", &value(&operands, |_, x| mse(x[0], x[1])), &[expected], 1e-13)?;
        check_gradient(&operands, |_, x| mse(x[0], x[1]))?;

        let term = |(x, t): (f64, f64)| -t * sigmoid(x).ln() - (1.0 - t) * (1.0 - sigmoid(x)).ln();
        let expected = f64s(&x).into_iter().zip(f64s(&t)).map(term).sum::<f64>() / n;
        let operands = [x.clone(), t.clone()];
        close("bce", &value(&operands, |_, x| bce_with_logits(x[0], x[1])), &[expected], 1e-12)?;
        check_gradient(&[x.clone(), t.clone()], |_, x| bce_with_logits(x[0], x[1]))?;

        let log_p = along(&x, 1, |row| {
            let sum = row.iter().map(|v| v.exp()).sum::<f64>();
            row.iter().map(|v| v - sum.ln()).collect()
        });
        let c = x.dims()[1];
        let picked = labels.iter().enumerate().map(|(i, &l)| -log_p[i * c + l as usize]);
        let expected = picked.sum::<f64>() / labels.len() as f64;
        for dtype in [DType::I32, DType::I64] {
            let labels = Literal::from_fn(dtype, &[labels.len()], |i| Scalar::I32(labels[i]));
            let operands = [x.clone(), labels];
            close("cross_entropy", &value(&operands, |_, x| cross_entropy(x[0], x[1])), &[expected], 1e-13)?;
            check_gradient(&operands, |_, x| cross_entropy(x[0], x[1]))?;
        }
        Ok(())
    });
}

#[test]
fn extreme_logits_stay_finite() {
    for dtype in [DType::F32, DType::F64] {
        let extreme = [1e4, -1e4, 0.0, -1e4, -1e4, -1e4, 1e4, 1e4, -1e4];
        let x = Literal::from_fn(dtype, &[3, 3], |i| Scalar::F64(extreme[i]));
        let labels = vector(&[1i32, 0, 2]);
        let targets = Literal::from_fn(dtype, &[3, 3], |i| Scalar::F64((i % 2) as f64));
        let finite = |what: &str, v: Vec<f64>| assert!(v.iter().all(|v| v.is_finite()), "{what}: {v:?}");
        for axis in [0, 1] {
            finite("softmax", value(std::slice::from_ref(&x), |_, x| x[0].softmax(axis)));
            finite("softmax'", slope(std::slice::from_ref(&x), |_, x| x[0].softmax(axis)));
            finite("log_softmax", value(std::slice::from_ref(&x), |_, x| x[0].log_softmax(axis)));
            finite("log_softmax'", slope(std::slice::from_ref(&x), |_, x| x[0].log_softmax(axis)));
            finite("logsumexp'", slope(std::slice::from_ref(&x), |_, x| x[0].logsumexp(&[axis])));
        }
        let operands = [x.clone(), labels];
        let loss = value(&operands, |_, x| cross_entropy(x[0], x[1]))[0];
        // Rows: 20000 below the maximum; a tie of three; 20000 below a tie of two.
        let expected = (2e4 + 3f64.ln() + (2e4 + 2f64.ln())) / 3.0;
        assert!((loss - expected).abs() < 1e-2, "{loss}, expected {expected}");
        finite("cross_entropy'", slope(&operands, |_, x| cross_entropy(x[0], x[1])));
        let operands = [x, targets];
        finite("bce", value(&operands, |_, x| bce_with_logits(x[0], x[1])));
        finite("bce'", slope(&operands, |_, x| bce_with_logits(x[0], x[1])));
    }
    // A masked class, at -infinity, that is not the label costs nothing and harms nothing.
    let x = Literal::new(&[1, 3], vec![0.0f64, f64::NEG_INFINITY, 0.0]).unwrap();
    let operands = [x, vector(&[2i32])];
    assert!((value(&operands, |_, x| cross_entropy(x[0], x[1]))[0] - 2f64.ln()).abs() < 1e-15);
    assert_eq!(slope(&operands, |_, x| cross_entropy(x[0], x[1])), [0.5, 0.0, -0.5]);
}

#[test]
fn a_named_batch_trains_and_a_bad_label_is_named() {
    let m = ModuleBuilder::new("m");
    m.function("loss", |f| {
        let x = f.input("x", DType::F32, shape!["B", "C"]);
        let labels = f.input("labels", DType::I64, shape!["B"]);
        let loss = cross_entropy(x, labels);
        f.output("loss", loss);
        f.output("gradient", gradients(loss, &[x])[0]);
    });
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    let run = |labels: &[i64]| {
        let n = labels.len();
        let f = module.functions[0].bind(&Bindings::new().with("B", n).with("C", 4)).unwrap();
        let x = Literal::full(&[n, 4], Scalar::F32(1.0));
        evaluate(&f, &[x, vector(labels)], |_| unreachable!("no state"))
    };
    for n in [1, 2, 5] {
        let out = run(&vec![3; n]).unwrap().outputs;
        assert!((out[0].get(0).to_f64() - 4f64.ln()).abs() < 1e-6);
        assert!((out[1].get(3).to_f64() + 0.75 / n as f64).abs() < 1e-6);
    }
    let error = run(&[0, 4, 9]).unwrap_err();
    assert_eq!(error, EvalError::IndexOutOfRange { op: "check_index", position: 1, value: 4, bound: 4 });
}

#[test]
fn one_hot_of_known_labels() {
    let out = value(&[vector(&[2i64, 0])], |_, x| x[0].one_hot(3, DType::F32));
    assert_eq!(out, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
}

/// Draws with `body` from the stream `name` at seed 7, step 3.
fn draw(name: &str, body: impl for<'f> Fn(RandomStream<'_, 'f>) -> Tensor<'f>) -> Vec<f64> {
    value(&[], |f, _| {
        let scalar = |v| f.scalar(DType::I64, v);
        body(RandomStream::new(name, scalar(7.0), scalar(3.0)))
    })
}

/// Mean, variance, skewness and kurtosis.
fn moments(x: &[f64]) -> [f64; 4] {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let central = |k: i32| x.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
    let var = central(2);
    [mean, var, central(3) / var.powf(1.5), central(4) / (var * var)]
}

fn near(what: &str, got: [f64; 4], expected: [f64; 4], tolerance: f64) {
    let ok = got.iter().zip(&expected).all(|(g, e)| (g - e).abs() < tolerance * (1.0 + e.abs()));
    assert!(ok, "{what}: moments {got:?}, expected {expected:?}");
}

#[test]
fn uniform_and_normal_numbers_have_the_right_moments() {
    for dtype in [DType::F32, DType::F64] {
        let u = draw("u", |s| s.uniform(dtype, [100, 100], -1.0, 3.0));
        near("uniform", moments(&u), [1.0, 16.0 / 12.0, 0.0, 1.8], 0.05);
        assert!(u.iter().all(|v| (-1.0..3.0).contains(v)));
        let z = draw("z", |s| s.normal(dtype, [10_000], 2.0, 0.5));
        near("normal", moments(&z), [2.0, 0.25, 0.0, 3.0], 0.08);
        let other = draw("y", |s| s.normal(dtype, [10_000], 2.0, 0.5));
        let covariance = z.iter().zip(&other).map(|(a, b)| (a - 2.0) * (b - 2.0)).sum::<f64>() / 1e4;
        assert!(covariance.abs() < 0.01, "streams are correlated: {covariance}");
    }
    let heads = draw("coin", |s| s.bernoulli([10_000], 0.3)).iter().sum::<f64>() / 1e4;
    assert!((heads - 0.3).abs() < 0.015, "{heads}");
    assert!(draw("coin", |s| s.bernoulli([1000], 1.0)).iter().all(|&v| v == 1.0));
    assert!(draw("coin", |s| s.bernoulli([1000], 0.0)).iter().all(|&v| v == 0.0));
}

#[test]
fn uniform_numbers_never_reach_the_upper_end() {
    // Half of all draws would round up to the end, were it not for the limit.
    let u = draw("u", |s| s.uniform(DType::F32, [1000], 1.0, f64::from(1f32.next_up())));
    assert!(u.iter().all(|&v| v == 1.0));
    assert!(draw("u", |s| s.uniform(DType::F64, [10], 5.0, 5.0)).iter().all(|&v| v == 5.0));
}

#[test]
fn streams_are_hashes_of_names() {
    // Test vectors of the FNV authors.
    assert_eq!([stream_id(""), stream_id("a"), stream_id("foobar")], [0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968]);
}

#[test]
fn known_bits_become_known_numbers() {
    // Counter and key are zero: the first known answer of Random123.
    let bits = value(&[], |f, _| {
        let zero = f.scalar(DType::I64, 0.0);
        zero.rng_bits(zero, 0, [4])
    });
    let words = [0x6627_e8d5u32, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
    assert_eq!(bits, words.map(|w| f64::from(w as i32)));
    let bits = draw("u", |s| s.bits([3]));
    let numbers = draw("u", |s| s.uniform(DType::F32, [3], 0.0, 1.0));
    for (bits, number) in bits.iter().zip(&numbers) {
        assert_eq!(f64::from(*bits as i32 & 0xff_ffff) / f64::from(1 << 24), *number);
    }
}

#[test]
fn initial_values_depend_on_name_and_seed_alone() {
    let init = |name: &str, init, seed: f64| {
        let ty = TensorType::new(DType::F32, [50, 40]);
        let variable = StateVar { name: name.into(), ty, init, trainable: true };
        value(&[], |f, _| initialize(f, &variable, f.scalar(DType::I64, seed)))
    };
    assert!(init("w", Initializer::Constant(2.5), 1.0).iter().all(|&v| v == 2.5));
    let uniform = Initializer::Uniform { lo: -0.5, hi: 0.5 };
    assert_eq!(init("w", uniform, 1.0), init("w", uniform, 1.0));
    assert_ne!(init("w", uniform, 1.0), init("w", uniform, 2.0));
    assert_ne!(init("w", uniform, 1.0), init("v", uniform, 1.0));
    near("uniform", moments(&init("w", uniform, 1.0)), [0.0, 1.0 / 12.0, 0.0, 1.8], 0.1);
    let normal = Initializer::Normal { mean: 0.0, std: 3.0 };
    near("normal", moments(&init("w", normal, 1.0)), [0.0, 9.0, 0.0, 3.0], 0.15);
}

#[test]
fn mistakes_are_recorded() {
    let errors = |body: &dyn Fn(&FunctionBuilder)| {
        let m = ModuleBuilder::new("m");
        m.function("f", body);
        m.build().unwrap_err().to_string()
    };
    let check = |body: &dyn Fn(&FunctionBuilder), part: &str| {
        let text = errors(body);
        assert!(text.contains(part), "{text}");
    };
    check(
        &|f| _ = f.full(DType::F32, [2], 0.0).softmax(1),
        "softmax: axis 1 is not below the rank of f32[2]",
    );
    check(&|f| _ = f.full(DType::I32, [2], 0.0).mean(&[0]), "mean: operand 0 is i32, must be a float");
    check(&|f| _ = f.full(DType::F32, [2], 0.0).one_hot(2, DType::F32), "check_index: operand 0 is f32");
    let (x, y) = ([2, 3], [3]);
    check(
        &|f| _ = cross_entropy(f.full(DType::F32, x, 0.0), f.full(DType::I32, y, 0.0)),
        "labels i32[3] must have the shape of logits f32[2, 3] without the last axis",
    );
    check(&|f| _ = mse(f.full(DType::F32, x, 0.0), f.full(DType::F32, y, 0.0)), "mse: operands are");
    fn stream(f: &FunctionBuilder) -> RandomStream<'_, '_> {
        RandomStream::new("s", f.scalar(DType::I64, 0.0), f.scalar(DType::I64, 0.0))
    }
    check(&|f| _ = stream(f).uniform(DType::I32, [2], 0.0, 1.0), "random numbers of type i32");
    check(&|f| _ = stream(f).uniform(DType::F32, [2], 1.0, 0.0), "uniform random numbers on [1, 0)");
    check(&|f| _ = stream(f).bernoulli([2], 1.5), "probability 1.5 is not in 0..=1");
}
