//! Half floats: moved and stored as they are, computed with in f32, each result rounded once.

use graphc_ir::{DType, Literal, ModuleBuilder, Scalar, evaluate, gradients};

fn half(dtype: DType, dims: &[usize], values: &[f64]) -> Literal {
    Literal::from_fn(dtype, dims, |i| Scalar::F64(values[i]))
}

fn numbers(l: &Literal) -> Vec<f64> {
    (0..l.len()).map(|i| l.get(i).to_f64()).collect()
}

#[test]
fn arithmetic_rounds_once() {
    for dtype in [DType::BF16, DType::F16] {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", dtype, [4]);
            let y = x * x + 1.0;
            assert_eq!(y.dtype(), dtype);
            f.output("y", y);
            f.output("moved", x.reverse(&[0]));
            f.output("positive", x.gt(0.0));
            f.output("sum", x.reduce_sum(&[0]));
        });
        let module = m.build().unwrap();
        let x = [1.5, -0.3, 100.0, 1.0 / 3.0];
        let x = half(dtype, &[4], &x);
        let done = evaluate(&module.functions[0], std::slice::from_ref(&x), |_| unreachable!()).unwrap();
        let round = |v: f64| Scalar::F64(v).cast(dtype).to_f64();
        let x = numbers(&x);
        let y: Vec<f64> = x.iter().map(|&x| round(round(x * x) + 1.0)).collect();
        assert_eq!(numbers(&done.outputs[0]), y);
        assert_eq!(numbers(&done.outputs[1]), x.iter().rev().copied().collect::<Vec<_>>());
        assert_eq!(done.outputs[2].as_slice::<bool>().unwrap(), [true, false, true, true]);
        // Accumulated in f32: rounding every partial sum would lose the small ones.
        let sum: f32 = x.iter().map(|&x| x as f32).sum();
        assert!((numbers(&done.outputs[3])[0] - round(f64::from(sum))).abs() <= sum.into());
        assert_eq!(done.outputs[3].dtype(), dtype);
    }
}

#[test]
fn gradients_are_of_the_type_of_what_they_belong_to() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let w = f.input("w", DType::BF16, [2, 2]);
        let x = f.input("x", DType::F32, [3, 2]);
        // Used twice, repeated and moved.
        let wide = w.cast(DType::F32);
        let loss =
            x.dot(wide).tanh().mean_all() + w.slice(&[0..1, 0..2], &[1, 1]).mean_all().cast(DType::F32);
        let g = gradients(loss, &[w, x]);
        assert_eq!((g[0].dtype(), g[1].dtype()), (DType::BF16, DType::F32));
        f.output("gw", g[0]);
    });
    let module = m.build().unwrap();
    let w = half(DType::BF16, &[2, 2], &[0.5, -0.25, 1.0, 0.125]);
    let x = Literal::new(&[3, 2], vec![0.1f32, 0.2, -0.3, 0.4, 0.5, -0.6]).unwrap();
    let done = evaluate(&module.functions[0], &[w.clone(), x.clone()], |_| unreachable!()).unwrap();
    let (w, x, g) = (numbers(&w), numbers(&x), numbers(&done.outputs[0]));
    for i in 0..2 {
        for j in 0..2 {
            let product = |r: usize| x[2 * r] * w[j] + x[2 * r + 1] * w[2 + j];
            let sum: f64 = (0..3).map(|r| x[2 * r + i] * (1.0 - product(r).tanh().powi(2))).sum();
            let expected = sum / 6.0 + if i == 0 { 0.5 } else { 0.0 };
            assert!((g[2 * i + j] - expected).abs() < 0.01, "{g:?}: {i} {j} {expected}");
        }
    }
}

#[test]
fn nothing_is_promoted() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let (a, b) = (f.input("a", DType::BF16, [2]), f.input("b", DType::F16, [2]));
        f.output("sum", a + b);
        f.output("mixed", a * f.input("c", DType::F32, [2]));
    });
    let error = m.build().unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(lines[0].contains("bf16") && lines[0].contains("half_floats.rs"), "{error}");
    let text = "graphc 1\nmodule @m\nfn @f(%x: bf16[2]) {\n  %0 = exp(%x) : bf16[2]\n  return %0\n}\n";
    let error = graphc_ir::Module::parse("m.gir", text).unwrap_err().to_string();
    assert!(error.contains("operand 0 is bf16, must be a float: `cast` it to f32"), "{error}");
}
