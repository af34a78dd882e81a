//! Conventions of elementwise operations at edges, where samples cannot judge: ties, zeros, NaN,
//! saturation, and the gradients there.

use graphc_ir::{CmpKind, DType, Literal, ModuleBuilder, Scalar, Tensor, evaluate, vjp};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// `body` of scalar inputs, and the gradients of its sum with respect to each.
fn eval(x: &[f64], body: impl for<'f> Fn(&[Tensor<'f>]) -> Tensor<'f>) -> (f64, Vec<f64>) {
    let m = ModuleBuilder::new("test");
    m.function("f", |f| {
        let x: Vec<_> = (0..x.len()).map(|i| f.input(&format!("x{i}"), DType::F64, [])).collect();
        let y = body(&x);
        f.output("y", y);
        for (i, g) in vjp(&[(y, f.scalar(DType::F64, 1.0))], &x).into_iter().enumerate() {
            f.output(&format!("g{i}"), g);
        }
    });
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    let x: Vec<Literal> = x.iter().map(|&v| Literal::scalar(Scalar::F64(v))).collect();
    let out = evaluate(&module.functions[0], &x, |_| unreachable!("no state")).unwrap().outputs;
    let out: Vec<f64> = out.iter().map(|l| l.get(0).to_f64()).collect();
    (out[0], out[1..].to_vec())
}

#[track_caller]
fn check(x: &[f64], body: impl for<'f> Fn(&[Tensor<'f>]) -> Tensor<'f>, y: f64, gradients: &[f64]) {
    let got = eval(x, body);
    let bits = |v: f64| if v.is_nan() { NAN.to_bits() } else { v.to_bits() };
    assert_eq!(bits(got.0), bits(y), "value {}, expected {y}", got.0);
    let same = got.1.iter().zip(gradients).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
    assert!(same && got.1.len() == gradients.len(), "gradients {:?}, expected {gradients:?}", got.1);
}

#[test]
fn extrema_give_ties_to_the_first_and_propagate_nan() {
    check(&[2.0, 2.0], |x| x[0].max(x[1]), 2.0, &[1.0, 0.0]);
    check(&[2.0, 2.0], |x| x[0].min(x[1]), 2.0, &[1.0, 0.0]);
    check(&[1.0, 2.0], |x| x[0].max(x[1]), 2.0, &[0.0, 1.0]);
    check(&[1.0, 2.0], |x| x[0].min(x[1]), 1.0, &[1.0, 0.0]);
    check(&[NAN, 2.0], |x| x[0].max(x[1]), NAN, &[1.0, 0.0]);
    check(&[2.0, NAN], |x| x[0].max(x[1]), NAN, &[0.0, 1.0]);
    check(&[2.0, NAN], |x| x[0].min(x[1]), NAN, &[0.0, 1.0]);
}

#[test]
fn clamp_follows_the_stated_convention() {
    let clamp =
        |x: f64, lo: f64, hi: f64, y, g: &[f64]| check(&[x, lo, hi], |x| x[0].clamp(x[1], x[2]), y, g);
    clamp(0.5, 0.0, 1.0, 0.5, &[1.0, 0.0, 0.0]);
    clamp(0.0, 0.0, 1.0, 0.0, &[1.0, 0.0, 0.0]);
    clamp(1.0, 0.0, 1.0, 1.0, &[1.0, 0.0, 0.0]);
    clamp(-2.0, 0.0, 1.0, 0.0, &[0.0, 1.0, 0.0]);
    clamp(2.0, 0.0, 1.0, 1.0, &[0.0, 0.0, 1.0]);
    clamp(0.5, 1.0, 0.0, 0.0, &[0.0, 0.0, 1.0]);
    clamp(NAN, 0.0, 1.0, NAN, &[0.0, 0.0, 0.0]);
    check(&[7.0], |x| x[0].clamp(-1.0, 6.0), 6.0, &[0.0]);
}

#[test]
fn kinks_and_steps() {
    check(&[0.0], |x| x[0].abs(), 0.0, &[0.0]);
    check(&[-0.0], |x| x[0].abs(), 0.0, &[0.0]);
    check(&[-3.0], |x| x[0].abs(), 3.0, &[-1.0]);
    check(&[-0.0], |x| x[0].sign(), -0.0, &[0.0]);
    check(&[NAN], |x| x[0].sign(), NAN, &[0.0]);
    check(&[-INF], |x| x[0].sign(), -1.0, &[0.0]);
    check(&[2.5], |x| x[0].round(), 2.0, &[0.0]);
    check(&[-0.5], |x| x[0].round(), -0.0, &[0.0]);
    check(&[-0.5], |x| x[0].ceil(), -0.0, &[0.0]);
    check(&[-0.5], |x| x[0].floor(), -1.0, &[0.0]);
    check(&[0.0], |x| x[0].rsqrt(), INF, &[-INF]);
    check(&[4.0], |x| x[0].rsqrt(), 0.5, &[-0.0625]);
    check(&[0.0], |x| x[0].sqrt(), 0.0, &[INF]);
    check(&[0.5], |x| x[0].recip(), 2.0, &[-4.0]);
    check(&[3.0], |x| x[0].stop_gradient() * x[0], 9.0, &[3.0]);
}

#[test]
fn remainders_have_the_sign_of_the_dividend() {
    check(&[7.5, 2.0], |x| x[0] % x[1], 1.5, &[1.0, -3.0]);
    check(&[-7.5, 2.0], |x| x[0] % x[1], -1.5, &[1.0, 3.0]);
    check(&[7.5, -2.0], |x| x[0] % x[1], 1.5, &[1.0, 3.0]);
    check(&[7.5], |x| x[0] % 2.0, 1.5, &[1.0]);
    assert!(eval(&[1.0, 0.0], |x| x[0] % x[1]).0.is_nan());
}

#[test]
fn select_keeps_what_is_not_chosen_out_of_the_gradient() {
    // The derivative of the branch not taken is infinite; an exact zero times it would be NaN, so
    // users keep that branch finite, but selecting itself never mixes.
    check(&[1.0, NAN], |x| x[0].gt(0.0).select(x[0], x[1]), 1.0, &[1.0, 0.0]);
    check(&[-1.0, NAN], |x| x[0].gt(0.0).select(x[1], x[0] * 3.0), -3.0, &[3.0, 0.0]);
}

#[test]
fn powers_at_the_edges() {
    check(&[0.0, 0.0], |x| x[0].pow(x[1]), 1.0, &[0.0, 0.0]);
    check(&[0.0, 2.0], |x| x[0].pow(x[1]), 0.0, &[0.0, 0.0]);
    check(&[0.0, 1.0], |x| x[0].pow(x[1]), 0.0, &[1.0, 0.0]);
    check(&[-2.0, 3.0], |x| x[0].pow(x[1]), -8.0, &[12.0, 0.0]);
}

#[test]
fn comparisons_of_nan_and_zeros() {
    let holds = |kind: CmpKind, a, b| eval(&[a, b], |x| x[0].compare(kind, x[1]).cast(DType::F64)).0 != 0.0;
    for kind in CmpKind::ALL {
        assert_eq!(holds(kind, NAN, 1.0), kind == CmpKind::Ne);
        assert_eq!(holds(kind, 0.0, -0.0), matches!(kind, CmpKind::Eq | CmpKind::Le | CmpKind::Ge));
    }
}

#[test]
fn casts_saturate() {
    let cast = |v: f64, to| eval(&[v], |x| x[0].cast(to).cast(DType::F64)).0;
    assert_eq!(cast(1e10, DType::I32), f64::from(i32::MAX));
    assert_eq!(cast(-INF, DType::I32), f64::from(i32::MIN));
    assert_eq!(cast(NAN, DType::I64), 0.0);
    assert_eq!(cast(-1.9, DType::I64), -1.0);
    assert_eq!(cast(NAN, DType::Bool), 1.0);
    assert_eq!(cast(1e300, DType::F32), INF);
    check(&[1.25], |x| x[0].cast(DType::F32).cast(DType::F64) * 3.0, 3.75, &[3.0]);
    check(&[1.25], |x| x[0].cast(DType::I32).cast(DType::F64), 1.0, &[0.0]);
}

#[test]
fn wrong_types_are_refused_by_name() {
    let refused = |body: &dyn Fn(Tensor<'_>, Tensor<'_>)| {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| body(f.full(DType::F32, [2], 1.0), f.full(DType::Bool, [2], 1.0)));
        m.build().unwrap_err().to_string()
    };
    let check = |body: &dyn Fn(Tensor<'_>, Tensor<'_>), part: &str| {
        let text = refused(body);
        assert!(text.contains(part) && text.contains("elementwise.rs"), "{text}");
    };
    check(&|_, b| _ = b.exp(), "exp: operand 0 is bool, must be a float");
    check(&|x, _| _ = x & x, "and: operand 0 is f32, must be an integer or bool");
    check(&|x, b| _ = x.max(b), "max: operand 1 is bool, operand 0 is f32: convert one with `cast`");
    check(&|_, b| _ = b.lt(b), "compare: operand 0 is bool, must be a number (bool has no order)");
    check(&|x, _| _ = x.bitcast(DType::I64), "bitcast: f32 and i64 differ in size");
    check(&|x, _| _ = x.select(x, x), "select: operand 0 is f32, must be bool");
    check(&|x, _| _ = x.check_index(3), "check_index: operand 0 is f32, must be i32 or i64");
    check(&|x, _| _ = x.rng_bits(x, 0, [2]), "rng_bits: the seed is f32[2], must be i64[]");
}
