//! Every operation's own samples: shape rule, reference semantics and gradient agree.

use graphc_ir::testing::Sample;
use graphc_ir::{DType, Literal, ModuleBuilder, Op, Scalar, evaluate, vjp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(64)
}

/// The sample with float operands widened to f64, where finite differences are accurate.
fn widened(s: &Sample) -> Vec<Literal> {
    let widen = |l: &Literal| match l.dtype() {
        DType::F32 => Literal::from_fn(DType::F64, l.dims(), |i| l.get(i)),
        _ => l.clone(),
    };
    s.operands.iter().map(widen).collect()
}

/// `sum(cotangent * op(operands))` and its gradients, from one function.
fn value_and_gradients(op: &Op, operands: &[Literal], cotangent: &Literal) -> (f64, Vec<Literal>) {
    let m = ModuleBuilder::new("sample");
    m.function("f", |f| {
        let name = |i: usize| format!("x{i}");
        let x: Vec<_> =
            operands.iter().enumerate().map(|(i, l)| f.input(&name(i), l.dtype(), l.ty().shape)).collect();
        let y = f.push(op.clone(), &x);
        let ct = f.constant(cotangent.clone());
        let floats: Vec<_> = x.iter().copied().filter(|t| t.dtype().is_float()).collect();
        let axes: Vec<usize> = (0..y.rank()).collect();
        f.output("value", (y * ct).reduce_sum(&axes));
        for (i, g) in vjp(&[(y, ct)], &floats).into_iter().enumerate() {
            f.output(&format!("g{i}"), g);
        }
    });
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    let out = evaluate(&module.functions[0], operands, |_| unreachable!("no state")).unwrap().outputs;
    (out[0].get(0).to_f64(), out[1..].to_vec())
}

fn check_gradient(s: &Sample) -> Result<(), TestCaseError> {
    let operands = widened(s);
    let types: Vec<_> = operands.iter().map(Literal::ty).collect();
    let Ok(out) = s.op.infer(&types) else { return Ok(()) };
    if !s.smooth || out.dtype != DType::F64 {
        return Ok(());
    }
    let dims = out.shape.as_static().unwrap();
    let noise = |seed: usize, i: usize| (((i * 7919 + seed * 104_729 + 13) % 1009) as f64 / 504.5) - 1.0;
    let cotangent = Literal::from_fn(DType::F64, &dims, |i| Scalar::F64(noise(1, i)));
    let (_, gradients) = value_and_gradients(&s.op, &operands, &cotangent);
    let mut g = gradients.iter();
    for (n, x) in operands.iter().enumerate().filter(|(_, x)| x.dtype() == DType::F64) {
        let gradient = g.next().unwrap();
        let direction = |i: usize| noise(n + 2, i);
        let exact: f64 = (0..x.len()).map(|i| gradient.get(i).to_f64() * direction(i)).sum();
        let at = |h: f64| {
            let mut moved = operands.clone();
            moved[n] =
                Literal::from_fn(DType::F64, x.dims(), |i| Scalar::F64(x.get(i).to_f64() + h * direction(i)));
            value_and_gradients(&s.op, &moved, &cotangent).0
        };
        let d = |h: f64| (at(h) - at(-h)) / (2.0 * h);
        // Richardson: the error of central differences falls from h^2 to h^4.
        let estimate = (4.0 * d(5e-4) - d(1e-3)) / 3.0;
        let scale = 1.0 + exact.abs() + (0..x.len()).map(|i| gradient.get(i).to_f64().abs()).sum::<f64>();
        prop_assert!(
            (exact - estimate).abs() <= 1e-7 * scale,
            "gradient of operand {n}: rule {exact}, finite differences {estimate}"
        );
    }
    Ok(())
}

fn check(s: &Sample) -> Result<(), TestCaseError> {
    let out = s.op.infer(&s.types()).map_err(|e| TestCaseError::fail(format!("refused: {e}")))?;
    let static_out = graphc_ir::StaticType::of(&out).unwrap();
    let operands: Vec<&Literal> = s.operands.iter().collect();
    let value = s.op.eval(&operands, &static_out).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(value.ty(), out);
    check_gradient(s)
}

#[test]
fn every_operation_agrees_with_its_rules() {
    let mut failures = Vec::new();
    for (name, samples) in Op::all_samples() {
        let Some(samples) = samples else { continue };
        let mut runner =
            TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        if let Err(e) = runner.run(&samples, |s| check(&s)) {
            failures.push(format!("{name}: {e}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
