//! What the property tests share: number of cases, and gradients against finite differences.

#![allow(dead_code, reason = "each test program uses a part")]

use graphc_ir::{DType, FunctionBuilder, Literal, ModuleBuilder, Scalar, Tensor, evaluate, vjp};
use proptest::prelude::*;

/// Cases per property.
pub(crate) fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(64)
}

/// Values in -1..1 that look random.
pub(crate) fn noise(seed: usize, i: usize) -> f64 {
    (((i * 7919 + seed * 104_729 + 13) % 1009) as f64 / 504.5) - 1.0
}

/// `sum(cotangent * body(operands))` and its gradients, from one function.
fn value_and_gradients(
    operands: &[Literal],
    body: &impl for<'f> Fn(&'f FunctionBuilder, &[Tensor<'f>]) -> Tensor<'f>,
) -> (f64, Vec<Literal>) {
    let m = ModuleBuilder::new("test");
    m.function("f", |f| {
        let input = |(i, l): (usize, &Literal)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape);
        let x: Vec<_> = operands.iter().enumerate().map(input).collect();
        let y = body(f, &x);
        let dims = y.shape().as_static().unwrap();
        let ct = f.constant(Literal::from_fn(DType::F64, &dims, |i| Scalar::F64(noise(1, i))));
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

/// A function of `operands` as inputs, evaluated on them.
pub(crate) fn run(
    operands: &[Literal],
    body: impl for<'f> FnOnce(&'f FunctionBuilder, &[Tensor<'f>]) -> Vec<Tensor<'f>>,
) -> Vec<Literal> {
    let m = ModuleBuilder::new("test");
    m.function("f", |f| {
        let input = |(i, l): (usize, &Literal)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape);
        let x: Vec<_> = operands.iter().enumerate().map(input).collect();
        for (i, y) in body(f, &x).into_iter().enumerate() {
            f.output(&format!("y{i}"), y);
        }
    });
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    evaluate(&module.functions[0], operands, |_| unreachable!("no state")).unwrap().outputs
}

/// The f64 values of a literal.
pub(crate) fn values(l: &Literal) -> impl Iterator<Item = f64> + '_ {
    (0..l.len()).map(|i| l.get(i).to_f64())
}

/// The sum of products of two lists of tensors, and the sum of their magnitudes.
pub(crate) fn inner(a: &[Literal], b: &[Literal]) -> (f64, f64) {
    let terms = a.iter().zip(b).flat_map(|(a, b)| values(a).zip(values(b)).map(|(a, b)| a * b));
    terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
}

/// Compares the gradients of `body`, an f64 tensor, with finite differences: along one direction
/// for each f64 operand, near which `body` must be smooth.
pub(crate) fn check_gradient(
    operands: &[Literal],
    body: impl for<'f> Fn(&'f FunctionBuilder, &[Tensor<'f>]) -> Tensor<'f>,
) -> Result<(), TestCaseError> {
    let (_, gradients) = value_and_gradients(operands, &body);
    let mut g = gradients.iter();
    for (n, x) in operands.iter().enumerate().filter(|(_, x)| x.dtype() == DType::F64) {
        let gradient = g.next().unwrap();
        let direction = |i: usize| noise(n + 2, i);
        let exact: f64 = (0..x.len()).map(|i| gradient.get(i).to_f64() * direction(i)).sum();
        let at = |h: f64| {
            let mut moved = operands.to_vec();
            moved[n] =
                Literal::from_fn(DType::F64, x.dims(), |i| Scalar::F64(x.get(i).to_f64() + h * direction(i)));
            value_and_gradients(&moved, &body).0
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
