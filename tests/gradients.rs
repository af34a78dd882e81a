//! Gradients of random composite functions, as compiled: against finite differences in f64, and bit
//! for bit against the interpreter. A failure shrinks to a function printed in the text form.

use graphc::ir::{Literal, Scalar, evaluate, print_function};
use graphc::{
    Bindings, CompileOptions, DType, FunctionBuilder, Module, ModuleBuilder, OptLevel, RunContext, State,
    Tensor, ThreadPool, Value, ValueMut, compile, cross_entropy, gradients, shape,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::Arc;

fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(24)
}

/// One operation of a random function: what, and which earlier values.
type Choice = (u8, usize, usize);

/// Declares a function of two matrices `x` and `y` and a scalar loss; gradients are outputs. All
/// operations are smooth where they are applied, but for `max` pooling and `relu` of values that are
/// unlikely to lie near a kink.
fn module(dtype: DType, dims: [usize; 2], choices: &[Choice]) -> Module {
    let m = ModuleBuilder::new("random");
    m.function("f", |f| {
        let inputs = [f.input("x", dtype, dims), f.input("y", dtype, dims)];
        let loss = compose(f, inputs, choices);
        f.output("loss", loss);
        for (i, g) in gradients(loss, &inputs).into_iter().enumerate() {
            f.output(&format!("g{i}"), g);
        }
    });
    m.build().unwrap_or_else(|e| panic!("{e}"))
}

fn extents(t: Tensor<'_>) -> Vec<usize> {
    t.shape().as_static().unwrap()
}

fn compose<'f>(f: &'f FunctionBuilder, inputs: [Tensor<'f>; 2], choices: &[Choice]) -> Tensor<'f> {
    let mut made: Vec<Tensor<'f>> = inputs.to_vec();
    for &(op, i, j) in choices {
        let (x, y) = (made[made.len() - 1 - i % made.len()], made[made.len() - 1 - j % made.len()]);
        let (dx, dy) = (extents(x), extents(y));
        let small = dx.iter().product::<usize>() <= 300;
        made.push(match op {
            0 => x.tanh(),
            1 => x.sigmoid() * 2.0,
            2 => (x * 0.5).exp() * 0.25,
            3 => (x.square() + 1.0).log(),
            4 => (x.square() + 0.5).sqrt(),
            5 => x.sin() + x * 0.25,
            6 => x.erf(),
            7 if dx == dy => x + y,
            8 if dx == dy => x * y * 0.5,
            9 if dx == dy => x / (y.square() + 1.0),
            10 => x.transpose(&[1, 0]),
            11 => x - x.mean(&[1]).reshape([dx[0], 1]),
            12 => x.softmax(1),
            13 => x.reduce_sum(&[0]).reshape([1, dx[1]]) * 0.25,
            14 => x + x.logsumexp(&[0]).reshape([1, dx[1]]) * 0.1,
            15 if dx[1] == dy[0] => x.dot(y) * 0.25,
            16 => x.dot_general(x, (&[], &[]), (&[1], &[1])) * 0.25,
            17 if dx[j % 2] > 1 => x.slice_axis(j % 2, 1, dx[j % 2]),
            18 => x.pad_axis(j % 2, 1, 1, 0.5),
            19 if dx[0] == dy[0] && dx[1] + dy[1] < 24 => f.concatenate(&[x, y], 1),
            20 => x.reverse(&[j % 2]),
            21 => x.reshape([dx[1], dx[0]]),
            22 if small && dx[0] >= 2 && dx[1] >= 2 => {
                let image = x.reshape([1, 1, dx[0], dx[1]]);
                let kernel = y.reduce_sum(&[0, 1]).tanh().broadcast_to([2, 1, 2, 2]);
                image.conv2d(kernel, 1, 1).reshape([2 * (dx[0] + 1), dx[1] + 1])
            }
            23 if dx[0] >= 2 && dx[1] >= 2 => {
                let pooled = x.reshape([1, 1, dx[0], dx[1]]).avg_pool2d(2, 1, 0, true);
                pooled.reshape([dx[0] - 1, dx[1] - 1])
            }
            24 => {
                let rows = f.iota(DType::I32, [3], 0);
                x.take(rows % f.full(DType::I32, [3], dx[0] as f64), 0)
            }
            25 => {
                x * cross_entropy(
                    y,
                    f.iota(DType::I32, [dy[0]], 0) % f.full(DType::I32, [dy[0]], dy[1] as f64),
                )
            }
            _ => x.gelu(),
        });
        // Growth is bounded, so that finite differences stay accurate.
        if made.len() > 2 {
            let last = made.len() - 1;
            made[last] = made[last].tanh() + made[last] * 0.1;
        }
    }
    let all = made.iter().map(|t| t.square().mean_all());
    all.reduce(|a, b| a + b).unwrap_or_else(|| f.scalar(inputs[0].dtype(), 0.0))
}

fn numbers(dtype: DType, dims: [usize; 2], seed: u64) -> Literal {
    Literal::from_fn(dtype, &dims, |i| {
        let h = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        Scalar::F64((h >> 40) as f64 / f64::from(1 << 23) - 1.0)
    })
}

/// Outputs of the compiled function, as bits would show them.
fn run(module: &Module, inputs: &[Literal], level: OptLevel, threads: usize) -> Vec<Vec<Scalar>> {
    let options = CompileOptions { max_threads: threads, ..CompileOptions::at(level) };
    let exe = compile(module, "f", &Bindings::new(), &options).unwrap_or_else(|e| panic!("{e}"));
    let mut cx = RunContext::new(&exe, Arc::new(ThreadPool::new(threads).unwrap())).unwrap();
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    macro_rules! typed {
        ($t:ty, $variant:ident) => {{
            let mut outputs: Vec<Vec<$t>> =
                exe.outputs().iter().map(|p| vec![0.0; p.num_elements()]).collect();
            let values: Vec<Value<'_>> = inputs.iter().map(|l| l.as_slice::<$t>().unwrap().into()).collect();
            let mut slots: Vec<ValueMut<'_>> = outputs.iter_mut().map(|o| o.as_mut_slice().into()).collect();
            exe.run(&mut cx, &mut state, &values, &mut slots).unwrap_or_else(|e| panic!("{e}"));
            outputs.into_iter().map(|o| o.into_iter().map(Scalar::$variant).collect()).collect()
        }};
    }
    if inputs[0].dtype() == DType::F32 { typed!(f32, F32) } else { typed!(f64, F64) }
}

fn same(a: Scalar, b: Scalar) -> bool {
    a == b || a.to_f64().is_nan() && b.to_f64().is_nan()
}

fn check_bits(module: &Module, inputs: &[Literal]) -> Result<(), String> {
    let expected =
        evaluate(&module.functions[0], inputs, |_| unreachable!("no state")).map_err(|e| e.to_string())?;
    for (level, threads) in [(OptLevel::O0, 1), (OptLevel::O3, 1), (OptLevel::O3, 2)] {
        for (n, (e, got)) in expected.outputs.iter().zip(run(module, inputs, level, threads)).enumerate() {
            if let Some(i) = (0..e.len()).find(|&i| !same(e.get(i), got[i])) {
                let (e, g) = (e.get(i), got[i]);
                return Err(format!(
                    "{level:?}, {threads} threads, output {n}[{i}]: interpreter {e}, compiled {g}"
                ));
            }
        }
    }
    Ok(())
}

fn check_gradients(module: &Module, inputs: &[Literal]) -> Result<(), String> {
    let outputs = run(module, inputs, OptLevel::O3, 1);
    for (n, x) in inputs.iter().enumerate() {
        let direction = |i: usize| ((i * 7919 + n * 31) % 1009) as f64 / 504.5 - 1.0;
        let exact: f64 = (0..x.len()).map(|i| outputs[n + 1][i].to_f64() * direction(i)).sum();
        let at = |h: f64| {
            let mut moved = inputs.to_vec();
            moved[n] =
                Literal::from_fn(DType::F64, x.dims(), |i| Scalar::F64(x.get(i).to_f64() + h * direction(i)));
            run(module, &moved, OptLevel::O3, 1)[0][0].to_f64()
        };
        let d = |h: f64| (at(h) - at(-h)) / (2.0 * h);
        // Richardson: the error of central differences falls from h^2 to h^4.
        let estimate = (4.0 * d(2e-4) - d(4e-4)) / 3.0;
        if (exact - estimate).abs() > 1e-6 * (1.0 + exact.abs()) {
            return Err(format!("gradient of input {n}: {exact}, finite differences {estimate}"));
        }
    }
    Ok(())
}

#[test]
fn random_functions_have_the_right_gradients_and_bits() {
    let choices = proptest::collection::vec((0u8..27, 0usize..4, 0usize..6), 1..14);
    let dims = (1usize..9, 1usize..9);
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&(dims, choices), |((m, n), choices)| {
        for dtype in [DType::F64, DType::F32] {
            let module = module(dtype, [m, n], &choices);
            let inputs = [numbers(dtype, [m, n], 1), numbers(dtype, [m, n], 2)];
            let mut result = check_bits(&module, &inputs);
            if dtype == DType::F64 {
                result = result.and_then(|()| check_gradients(&module, &inputs));
            }
            result.map_err(|e| {
                TestCaseError::fail(format!("{e}\n{}", print_function(&module, &module.functions[0])))
            })?;
        }
        Ok(())
    });
    ran.map_err(|e| e.to_string()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn gradients_of_gradients() {
    let f = |second: bool| {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::F64, [3, 4]);
            let loss = ((x.dot_general(x, (&[], &[]), (&[1], &[1])).tanh() + 1.5).log() * 0.5).mean_all();
            let g = gradients(loss, &[x])[0];
            // A Hessian-vector product: the gradient of the gradient along a fixed direction.
            let v = f.iota(DType::F64, [3, 4], 1) * 0.3 - 0.4;
            let along = (g * v).reduce_sum(&[0, 1]);
            f.output("along", along);
            if second {
                f.output("hvp", gradients(along, &[x])[0]);
            }
        });
        m.build().unwrap()
    };
    let x = numbers(DType::F64, [3, 4], 9);
    let hvp = run(&f(true), std::slice::from_ref(&x), OptLevel::O3, 1).swap_remove(1);
    let first = f(false);
    for (i, exact) in hvp.iter().map(|v| v.to_f64()).enumerate() {
        let at = |h: f64| {
            let moved = Literal::from_fn(DType::F64, x.dims(), |j| {
                Scalar::F64(x.get(j).to_f64() + if i == j { h } else { 0.0 })
            });
            run(&first, &[moved], OptLevel::O3, 1)[0][0].to_f64()
        };
        let d = |h: f64| (at(h) - at(-h)) / (2.0 * h);
        let estimate = (4.0 * d(1e-4) - d(2e-4)) / 3.0;
        assert!((exact - estimate).abs() < 1e-7, "element {i}: {exact} against {estimate}");
    }
}

#[test]
fn what_the_loss_does_not_use_has_zero_gradient() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let (x, y) = (f.input("x", DType::F32, [2, 2]), f.input("y", DType::F32, [3, 2]));
        let loss = x.floor().square().mean_all();
        let g = gradients(loss, &[x, y]);
        f.output("gx", g[0]);
        f.output("gy", g[1]);
    });
    let module = m.build().unwrap();
    let out =
        run(&module, &[numbers(DType::F32, [2, 2], 3), numbers(DType::F32, [3, 2], 4)], OptLevel::O3, 1);
    assert_eq!((out[0].len(), out[1].len()), (4, 6));
    assert!(out.iter().flatten().all(|v| v.bits() == 0), "{out:?}");
}

#[test]
fn a_missing_rule_is_an_error_that_names_the_operation() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, shape!["B", 4]);
        f.output("g", gradients(x.reduce_max(&[0]).mean_all(), &[x])[0]);
    });
    let message = m.build().unwrap_err().to_string();
    assert!(message.contains("reduce_max: no gradient rule"), "{message}");
    assert!(message.contains("tests/gradients.rs"), "{message}");
}
