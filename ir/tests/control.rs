//! Control flow: meaning, gradients, text form and mistakes of `scan`, `while`, `cond` and `call`.

use graphc_ir::{
    DType, FunctionBuilder, Literal, Module, ModuleBuilder, Scalar, ScanOptions, Tensor, evaluate, gradients,
    jvp, verify, vmap,
};

/// A module with one function, checked and round-tripped through its text form.
fn module(body: impl FnOnce(&FunctionBuilder)) -> Module {
    let m = ModuleBuilder::new("m");
    m.function("f", body);
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e}\n{module}"));
    let text = module.to_string();
    let parsed = Module::parse("m.gir", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&parsed).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(parsed.to_string(), text);
    module
}

fn run(module: &Module, inputs: &[Literal]) -> Vec<Literal> {
    evaluate(&module.functions[0], inputs, |_| unreachable!("no state")).unwrap().outputs
}

fn f64s(dims: &[usize], seed: usize) -> Literal {
    let value = |i: usize| ((i * 37 + seed * 101) % 97) as f64 / 97.0 - 0.45;
    Literal::from_fn(DType::F64, dims, |i| Scalar::F64(value(i)))
}

/// Compares output 1.. of a function, the gradients of output 0, a scalar, with central differences.
fn check_gradients(module: &Module, inputs: &[Literal]) {
    let outputs = run(module, inputs);
    let eps = 1e-5;
    for (k, input) in inputs.iter().enumerate() {
        for i in 0..input.len() {
            let nudged = |by: f64| {
                let mut all = inputs.to_vec();
                let value = |j: usize| {
                    let v = input.get(j).to_f64();
                    Scalar::F64(if i == j { v + by } else { v })
                };
                all[k] = Literal::from_fn(DType::F64, input.dims(), value);
                run(module, &all)[0].get(0).to_f64()
            };
            let expected = (nudged(eps) - nudged(-eps)) / (2.0 * eps);
            let given = outputs[k + 1].get(i).to_f64();
            let error = (given - expected).abs() / (1.0 + expected.abs());
            assert!(error < 1e-7, "input {k}, element {i}: {given}, by differences {expected}\n{module}");
        }
    }
}

const STEPS: usize = 6;

/// A recurrent network: loss, and gradients for x, h0, w, u, b.
fn recurrent(options: ScanOptions) -> Module {
    module(|f| {
        let x = f.input("x", DType::F64, [STEPS, 2, 3]);
        let h = f.input("h", DType::F64, [2, 4]);
        let w = f.input("w", DType::F64, [3, 4]);
        let u = f.input("u", DType::F64, [4, 4]);
        let b = f.input("b", DType::F64, [4]);
        let scanned = f.scan_with(&options, &[h], &[x], |_, carry, x| {
            let h = (x[0].dot(w) + carry[0].dot(u) + b).tanh();
            (vec![h], vec![h * h])
        });
        let loss = scanned.stacked[0].reduce_sum(&[0, 1, 2]) + (scanned.carries[0] * 3.0).reduce_sum(&[0, 1]);
        f.output("loss", loss);
        let wrt = [x, h, w, u, b];
        for (name, g) in ["dx", "dh", "dw", "du", "db"].iter().zip(gradients(loss, &wrt)) {
            f.output(name, g);
        }
    })
}

fn recurrent_inputs() -> Vec<Literal> {
    let dims: [&[usize]; 5] = [&[STEPS, 2, 3], &[2, 4], &[3, 4], &[4, 4], &[4]];
    dims.iter().enumerate().map(|(i, d)| f64s(d, i)).collect()
}

#[test]
fn gradients_of_a_recurrence() {
    for reverse in [false, true] {
        for save_every in [0, 1, 2, 3] {
            let options = ScanOptions { reverse, save_every, ..ScanOptions::default() };
            check_gradients(&recurrent(options), &recurrent_inputs());
        }
    }
}

#[test]
fn what_is_computed_again_has_the_same_value() {
    let all = |save_every| {
        run(&recurrent(ScanOptions { save_every, ..ScanOptions::default() }), &recurrent_inputs())
    };
    let (saved, recomputed) = (all(0), all(2));
    for (a, b) in saved.iter().zip(&recomputed) {
        for i in 0..a.len() {
            assert!((a.get(i).to_f64() - b.get(i).to_f64()).abs() < 1e-12);
        }
    }
}

/// The types of the results of the outermost loops, in order: of the function itself, the one that saves what the
/// gradient needs, and that which goes back.
fn results_of_loops(m: &Module) -> Vec<Vec<String>> {
    let g = &m.functions[0].graph;
    let loops = g.ids().filter(|&id| g.op(id).name() == "scan");
    let results = loops.map(|id| {
        let operands: Vec<_> = g.operands(id).iter().map(|&o| g.ty(o).clone()).collect();
        g.op(id).results(&operands).unwrap().iter().map(ToString::to_string).collect()
    });
    results.collect()
}

#[test]
fn gradients_of_weights_are_products_after_the_loop() {
    let m = recurrent(ScanOptions::default());
    let g = &m.functions[0].graph;
    let products = g.ids().filter(|&id| g.op(id).name() == "dot_general");
    let factors: Vec<[usize; 2]> =
        products.map(|id| [0, 1].map(|i| g.ty(g.operands(id)[i]).shape.rank())).collect();
    assert_eq!(factors, [[3, 3]; 2], "over all steps at once, for w and u\n{m}");
}

#[test]
fn what_is_computed_again_is_not_saved() {
    let results = |save_every| {
        results_of_loops(&recurrent(ScanOptions { save_every, ..ScanOptions::default() })).swap_remove(1)
    };
    // The last carry, what is stacked, the carries before each block.
    assert_eq!(results(2), ["f64[2, 4]", "f64[3, 2, 2, 4]", "f64[3, 2, 4]"]);
    // Otherwise the carry before each step, and what it is after.
    assert_eq!(results(0), ["f64[2, 4]", "f64[6, 2, 4]", "f64[6, 2, 4]", "f64[6, 2, 4]"]);
}

#[test]
fn truncation_stops_gradients_between_blocks() {
    // h after two steps of h = w * h, in blocks of one: only the last step's w counts.
    let m = module(|f| {
        let w = f.input("w", DType::F64, []);
        let one = f.scalar(DType::F64, 1.0);
        let options = ScanOptions { length: Some(2.into()), truncate_every: 1, ..ScanOptions::default() };
        let h = f.scan_with(&options, &[one], &[], |_, h, _| (vec![h[0] * w], vec![])).carries[0];
        f.output("h", h);
        f.output("dw", gradients(h, &[w])[0]);
    });
    let values = run(&m, &[Literal::scalar(Scalar::F64(3.0))]);
    assert_eq!(values[0].get(0), Scalar::F64(9.0));
    assert_eq!(values[1].get(0), Scalar::F64(3.0));
}

#[test]
fn sequences_are_stacked_by_step_in_both_directions() {
    for reverse in [false, true] {
        let m = module(|f| {
            let x = f.input("x", DType::I64, [4]);
            let zero = f.scalar(DType::I64, 0.0);
            let options = ScanOptions { reverse, ..ScanOptions::default() };
            let s = f.scan_with(&options, &[zero], &[x], |_, c, x| {
                let sum = c[0] + x[0];
                (vec![sum], vec![sum, x[0]])
            });
            f.output("last", s.carries[0]);
            f.output("sums", s.stacked[0]);
            f.output("same", s.stacked[1]);
        });
        let x = Literal::new(&[4], vec![1i64, 2, 3, 4]).unwrap();
        let values = run(&m, std::slice::from_ref(&x));
        let sums = if reverse { vec![10i64, 9, 7, 4] } else { vec![1i64, 3, 6, 10] };
        assert_eq!(values, [Literal::scalar(Scalar::I64(10)), Literal::new(&[4], sums).unwrap(), x]);
    }
}

#[test]
fn a_scan_of_no_steps_gives_its_initial_values() {
    let m = module(|f| {
        let x = f.input("x", DType::F64, [0, 3]);
        let h = f.input("h", DType::F64, [3]);
        let s = f.scan(&[h], &[x], |_, h, x| (vec![h[0] * x[0]], vec![h[0]]));
        let loss = s.carries[0].reduce_sum(&[0]) + s.stacked[0].reduce_sum(&[0, 1]);
        f.output("loss", loss);
        gradients(loss, &[x, h]).iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), *g));
    });
    check_gradients(&m, &[f64s(&[0, 3], 0), f64s(&[3], 1)]);
}

/// Scans inside scans, with values of all levels used inside.
#[test]
fn nested_loops_use_values_around_them() {
    let m = module(|f| {
        let x = f.input("x", DType::F64, [3, 4]);
        let a = f.input("a", DType::F64, []);
        let outer = f.scan(&[a], &[x], |b, c, row| {
            let k = c[0] * 0.5;
            let inner =
                b.scan(&[k], &[row[0]], |_, s, e| (vec![s[0] * e[0].sin() + a * k + c[0]], vec![s[0]]));
            (vec![inner.carries[0]], vec![inner.stacked[0].reduce_sum(&[0])])
        });
        let loss = outer.carries[0] + outer.stacked[0].reduce_sum(&[0]);
        f.output("loss", loss);
        gradients(loss, &[x, a]).iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), *g));
    });
    check_gradients(&m, &[f64s(&[3, 4], 0), f64s(&[], 1)]);
}

#[test]
fn second_derivatives_of_a_scan() {
    // The gradient of the sum of the gradient.
    let m = module(|f| {
        let x = f.input("x", DType::F64, [4]);
        let w = f.input("w", DType::F64, []);
        let s = f.scan(&[w], &[x], |_, h, x| (vec![(h[0] * x[0] + w).sin()], vec![h[0] * h[0]]));
        let loss = s.carries[0] + s.stacked[0].reduce_sum(&[0]);
        let g = gradients(loss, &[x, w]);
        let total = g[0].reduce_sum(&[0]) + g[1];
        f.output("total", total);
        gradients(total, &[x, w]).iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), *g));
    });
    check_gradients(&m, &[f64s(&[4], 0), f64s(&[], 1)]);
}

#[test]
fn only_one_branch_counts() {
    let m = module(|f| {
        let x = f.input("x", DType::F64, [3]);
        let s = f.input("s", DType::F64, []);
        let positive = s.gt(0.0);
        let y = f.cond(positive, |_| vec![(x * s).sin()], |_| vec![x * x]);
        let loss = (y[0] * y[0]).reduce_sum(&[0]);
        f.output("loss", loss);
        gradients(loss, &[x, s]).iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), *g));
    });
    for s in [0.7, -0.7] {
        check_gradients(&m, &[f64s(&[3], 0), Literal::scalar(Scalar::F64(s))]);
    }
}

#[test]
fn a_while_loop_counts_its_steps() {
    // Collatz: steps from 27 to 1.
    let m = module(|f| {
        let n = f.input("n", DType::I64, []);
        let zero = f.scalar(DType::I64, 0.0);
        let results = f.while_loop(
            &[n, zero],
            |_, c| c[0].gt(1.0),
            |_, c| {
                let even = (c[0] % 2.0).eq(0.0);
                vec![even.select(c[0] / 2.0, c[0] * 3.0 + 1.0), c[1] + 1.0]
            },
        );
        f.output("steps", results[1]);
    });
    assert_eq!(run(&m, &[Literal::scalar(Scalar::I64(27))])[0].get(0), Scalar::I64(111));
}

#[test]
fn a_gradient_through_while_says_what_to_use() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, []);
        let y = f.while_loop(&[x], |_, c| c[0].lt(10.0), |_, c| vec![c[0] * 2.0])[0];
        f.output("dx", gradients(y, &[x])[0]);
    });
    let error = m.build().unwrap_err().to_string();
    assert!(
        error.contains("while: no gradient rule: the number of steps") && error.contains("use `scan`"),
        "{error}"
    );
}

#[test]
fn checkpoints_and_calls_have_the_gradient_of_what_they_compute() {
    let m = ModuleBuilder::new("m");
    let square_plus = m.region("square_plus", |f| {
        let x = f.input("x", DType::F64, [3]);
        let y = f.input("y", DType::F64, []);
        f.output("z", x * x + y);
    });
    m.function("f", |f| {
        let x = f.input("x", DType::F64, [3]);
        let y = f.input("y", DType::F64, []);
        let z = f.call(&square_plus, &[x, y])[0];
        let z = f.checkpoint(|_| vec![(z * y).exp().sin(), z])[0];
        let loss = z.reduce_sum(&[0]);
        f.output("loss", loss);
        gradients(loss, &[x, y]).iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), *g));
    });
    let m = m.build().unwrap();
    verify(&m).unwrap();
    check_gradients(&m, &[f64s(&[3], 0), f64s(&[], 1)]);
}

#[test]
fn gradients_of_the_users_own() {
    let m = module(|f| {
        let x = f.input("x", DType::F64, [3]);
        f.output("scaled", gradients(x.scale_gradient(-2.0).reduce_sum(&[0]), &[x])[0]);
        f.output("clipped", gradients((x.clip_gradient(0.5) * 3.0).reduce_sum(&[0]), &[x])[0]);
        let rounded = f.custom_gradient(&[x], |_, x| vec![x[0].round()], |_, _, _, ct| vec![ct[0]])[0];
        f.output("through", gradients((rounded * 4.0).reduce_sum(&[0]), &[x])[0]);
        f.output("value", rounded);
    });
    let values = run(&m, &[Literal::new(&[3], vec![0.2, 1.7, -2.6]).unwrap()]);
    let constant = |v: f64| Literal::new(&[3], vec![v; 3]).unwrap();
    assert_eq!(values[..3], [constant(-2.0), constant(0.5), constant(4.0)]);
    assert_eq!(values[3], Literal::new(&[3], vec![0.0, 2.0, -3.0]).unwrap());
}

#[test]
fn parameters_are_read_inside_regions() {
    let m = ModuleBuilder::new("m");
    let w = m.param("w", DType::F64, [2], graphc_ir::Initializer::Constant(2.0));
    m.function("f", |f| {
        let x = f.input("x", DType::F64, [3, 2]);
        let zero = f.full(DType::F64, [2], 0.0);
        let y = f.scan(&[zero], &[x], |b, c, x| (vec![c[0] + x[0] * b.read(&w)], vec![])).carries[0];
        f.output("y", y);
        f.output("dw", gradients(y.reduce_sum(&[0]), &[f.read(&w)])[0]);
    });
    let m = m.build().unwrap();
    verify(&m).unwrap();
    let x = Literal::new(&[3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let state = |_| Literal::new(&[2], vec![2.0, 2.0]).unwrap();
    let out = evaluate(&m.functions[0], &[x], state).unwrap().outputs;
    assert_eq!(out[0], Literal::new(&[2], vec![18.0, 24.0]).unwrap());
    assert_eq!(out[1], Literal::new(&[2], vec![9.0, 12.0]).unwrap());
}

fn mistake(body: impl FnOnce(&FunctionBuilder)) -> String {
    let m = ModuleBuilder::new("m");
    m.function("f", body);
    m.build().unwrap_err().to_string()
}

#[test]
fn mistakes_name_the_thing_and_the_line() {
    let error = mistake(|f| {
        let x = f.input("x", DType::F32, [4]);
        let zero = f.scalar(DType::F32, 0.0);
        f.scan(&[zero], &[x], |_, _, x| (vec![x[0].cast(DType::F64)], vec![]));
    });
    assert!(error.contains("scan: carry 0 is f32[], its next value f64[]"), "{error}");
    assert!(error.contains("control.rs:"), "{error}");
    let error = mistake(|f| {
        f.scan(&[], &[], |b, _, _| (vec![], vec![b.scalar(DType::F32, 0.0)]));
    });
    assert!(error.contains("without sequences the length must be given"), "{error}");
    let error = mistake(|f| {
        let x = f.input("x", DType::F32, []);
        f.cond(x, |_| vec![x], |_| vec![x]);
    });
    assert!(error.contains("the predicate is f32[], must be a bool scalar"), "{error}");
    let error = mistake(|f| {
        let x = f.input("x", DType::F32, [3]);
        f.cond(x.reduce_sum(&[0]).gt(0.0), |_| vec![x], |_| vec![x.reduce_sum(&[0])]);
    });
    assert!(error.contains("output 0 of `then` is f32[3], of `otherwise` f32[]"), "{error}");
}

#[test]
fn values_of_a_region_stay_inside() {
    let error = mistake(|f| {
        let x = f.input("x", DType::F32, [4]);
        let mut leaked: Option<Tensor<'_>> = None;
        let zero = f.scalar(DType::F32, 0.0);
        f.scan(&[zero], &[x], |_, c, x| {
            leaked = Some(x[0]);
            (vec![c[0] + x[0]], vec![])
        });
        f.output("y", leaked.unwrap());
    });
    assert!(error.contains("a value of another function is used here"), "{error}");
}

/// Functions of one tensor and one scalar with loops and branches, and whether they have a gradient in
/// reverse mode.
type Body = for<'f> fn(&'f FunctionBuilder, Tensor<'f>, Tensor<'f>) -> Tensor<'f>;
const FUNCTIONS: [(&str, bool, Body); 8] = [
    ("scan", true, |f, x, s| {
        let scanned = f.scan(&[s], &[x], |_, h, e| (vec![(h[0] * e[0] + s).sin()], vec![h[0] * h[0]]));
        scanned.carries[0] + scanned.stacked[0].reduce_sum(&[0])
    }),
    ("scan in reverse, recomputed", true, |f, x, s| {
        let options = ScanOptions { reverse: true, save_every: 2, ..ScanOptions::default() };
        f.scan_with(&options, &[s], &[x], |_, h, e| (vec![(h[0] * e[0] + s).sin()], vec![])).carries[0]
    }),
    ("cond", true, |f, x, s| {
        let sum = x.reduce_sum(&[0]);
        f.cond(sum.gt(s), |_| vec![sum * s], |_| vec![(sum - s).exp()])[0]
    }),
    ("checkpoint", true, |f, x, s| f.checkpoint(|_| vec![(x.reduce_sum(&[0]) * s).exp()])[0]),
    ("custom gradient of x * s", true, |f, x, s| {
        let product = f.custom_gradient(
            &[x, s],
            |_, x| vec![(x[0] * x[1]).reduce_sum(&[0])],
            |_, x, _, ct| vec![x[1] * ct[0] + x[0] * 0.0, (x[0] * ct[0]).reduce_sum(&[0])],
        );
        product[0]
    }),
    ("while", false, |f, x, s| {
        let start = x.square().reduce_sum(&[0]) + 1.0;
        f.while_loop(&[start], |_, c| c[0].lt(50.0), |_, c| vec![c[0] * (s.square() + 1.5)])[0]
    }),
    // The first result is no float, and what is carried depends on nothing that moves before the first step.
    ("scan that counts", true, |f, x, s| {
        let start = [f.scalar(DType::I32, 1.0), f.scalar(DType::F64, 0.5)];
        let scanned = f.scan(&start, &[x], |_, c, e| {
            (vec![c[0] + 1.0, (c[1] * e[0] + s).sin() * c[0].cast(DType::F64)], vec![])
        });
        scanned.carries[1]
    }),
    ("while that counts", false, |f, x, s| {
        let start = [f.scalar(DType::I32, 0.0), f.scalar(DType::F64, 0.5)];
        let sum = x.reduce_sum(&[0]);
        f.while_loop(&start, |_, c| c[0].lt(3.0), |_, c| vec![c[0] + 1.0, c[1] * s + sum])[1]
    }),
];

#[test]
fn tangents_agree_with_gradients_and_differences() {
    for (name, has_gradient, body) in FUNCTIONS {
        if name.starts_with("custom") {
            continue;
        }
        let m = module(|f| {
            let (x, s) = (f.input("x", DType::F64, [4]), f.input("s", DType::F64, []));
            let (dx, ds) = (f.input("dx", DType::F64, [4]), f.input("ds", DType::F64, []));
            let y = body(f, x, s);
            f.output("y", y);
            f.output("tangent", jvp(&[y], &[(x, dx), (s, ds)])[0]);
            if has_gradient {
                let g = gradients(y, &[x, s]);
                f.output("product", (g[0] * dx).reduce_sum(&[0]) + g[1] * ds);
            }
        });
        let at = |eps: f64| {
            let (x, dx, s) = (f64s(&[4], 1), f64s(&[4], 2), 0.3);
            let moved = |i: usize| Scalar::F64(x.get(i).to_f64() + eps * dx.get(i).to_f64());
            let x = Literal::from_fn(DType::F64, &[4], moved);
            let scalar = |v: f64| Literal::scalar(Scalar::F64(v));
            run(&m, &[x, scalar(s + eps * 0.7), dx, scalar(0.7)])
        };
        let (here, eps) = (at(0.0), 1e-5);
        let value = |l: &Literal| l.get(0).to_f64();
        let expected = (value(&at(eps)[0]) - value(&at(-eps)[0])) / (2.0 * eps);
        for given in &here[1..] {
            let error = (value(given) - expected).abs() / (1.0 + expected.abs());
            assert!(error < 1e-7, "{name}: {} by differences {expected}\n{m}", value(given));
        }
    }
}

#[test]
fn a_map_over_a_batch_gives_every_example_what_it_has_alone() {
    for (name, has_gradient, body) in FUNCTIONS {
        let all = |f: &FunctionBuilder, xs: bool, ss: bool| {
            let shape = |mapped: bool, dims: &[usize]| -> Vec<usize> {
                if mapped { [&[3], dims].concat() } else { dims.to_vec() }
            };
            let x = f.input("x", DType::F64, shape(xs, &[4]).as_slice());
            let s = f.input("s", DType::F64, shape(ss, &[]).as_slice());
            let mut inputs = Vec::new();
            if xs {
                inputs.push((x, 0));
            }
            if ss {
                inputs.push((s, 0));
            }
            let results = |x, s| {
                let y = body(f, x, s);
                let mut results = vec![y];
                if has_gradient {
                    results.extend(gradients(y, &[x, s]));
                }
                results
            };
            let results = if inputs.is_empty() {
                results(x, s)
            } else {
                vmap(&inputs, |e| results(if xs { e[0] } else { x }, if ss { e[e.len() - 1] } else { s }))
            };
            results.iter().enumerate().for_each(|(i, y)| f.output(&format!("y{i}"), *y));
        };
        let alone = module(|f| all(f, false, false));
        let (x, s) = (f64s(&[3, 4], 3), f64s(&[3], 4));
        for (xs, ss) in [(true, false), (false, true), (true, true)] {
            let m = module(|f| all(f, xs, ss));
            let x0 = x.element(0);
            let s0 = s.element(0);
            let batch =
                run(&m, &[if xs { x.clone() } else { x0.clone() }, if ss { s.clone() } else { s0.clone() }]);
            for i in 0..3 {
                let one = |mapped: bool, all: &Literal, first: &Literal| {
                    if mapped { all.element(i) } else { first.clone() }
                };
                let expected = run(&alone, &[one(xs, &x, &x0), one(ss, &s, &s0)]);
                assert_eq!(batch.len(), expected.len(), "{name}");
                for (n, (b, e)) in batch.iter().zip(&expected).enumerate() {
                    assert_eq!(b.element(i), *e, "{name}, {xs} {ss}: result {n} of example {i}\n{m}");
                }
            }
        }
    }
}
