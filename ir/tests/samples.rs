//! Every operation's own samples: shape rule, reference semantics and rules of differentiation and
//! batching agree.

mod common;

use common::{cases, inner, noise, run, values};
use graphc_ir::testing::Sample;
use graphc_ir::{DType, Literal, ModuleBuilder, Op, Scalar, Tensor, evaluate, jvp, vjp, vmap};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Operations whose derivatives are sums of products of operands and cotangents: on small integers
/// they are exact.
const EXACT: &[&str] = &[
    "abs",
    "add",
    "broadcast",
    "cast",
    "clamp",
    "concatenate",
    "convolution",
    "dot_general",
    "gather",
    "max",
    "min",
    "mul",
    "neg",
    "pad",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "reduce_window_max",
    "reduce_window_sum",
    "reshape",
    "reverse",
    "scatter",
    "select",
    "select_and_gather",
    "select_and_scatter",
    "slice",
    "square",
    "sub",
    "transpose",
];

/// Checks samples of every operation.
fn check_samples(check: impl Fn(&Sample) -> Result<(), TestCaseError>) {
    let only = std::env::var("GRAPHC_OP").ok();
    let mut failures = Vec::new();
    for (name, samples) in Op::all_samples() {
        let Some(samples) = samples.filter(|_| only.as_ref().is_none_or(|only| only == name)) else {
            continue;
        };
        let mut runner =
            TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        if let Err(e) = runner.run(&samples, |s| check(&s)) {
            failures.push(format!("{name}: {e}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The sample with float operands as f64, each element changed by `f`; `None` if the result is no
/// float then.
fn in_f64(s: &Sample, f: impl Fn(f64) -> f64) -> Option<(Vec<Literal>, Vec<usize>)> {
    let float = |l: &Literal| {
        if !l.dtype().is_float() {
            return l.clone();
        }
        Literal::from_fn(DType::F64, l.dims(), |i| Scalar::F64(f(l.get(i).to_f64())))
    };
    let operands: Vec<Literal> = s.operands.iter().map(float).collect();
    let types: Vec<_> = operands.iter().map(Literal::ty).collect();
    let out = s.op.infer(&types).ok().filter(|t| t.dtype == DType::F64)?;
    Some((operands, out.shape.as_static().unwrap()))
}

fn random(seed: usize, dims: &[usize], f: impl Fn(f64) -> f64) -> Literal {
    Literal::from_fn(DType::F64, dims, |i| Scalar::F64(f(noise(seed, i))))
}

/// A direction for each f64 operand.
fn directions(operands: &[Literal], seed: usize, f: impl Fn(f64) -> f64) -> Vec<Literal> {
    let floats = operands.iter().enumerate().filter(|(_, x)| x.dtype() == DType::F64);
    floats.map(|(i, x)| random(seed + i, x.dims(), &f)).collect()
}

fn floats<'f>(x: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
    x.iter().copied().filter(|t| t.dtype().is_float()).collect()
}

fn constants<'f>(x: &[Tensor<'f>], literals: &[Literal]) -> Vec<Tensor<'f>> {
    literals.iter().map(|l| x[0].builder().constant(l.clone())).collect()
}

fn pairs<'f>(x: &[Tensor<'f>], directions: &[Literal]) -> Vec<(Tensor<'f>, Tensor<'f>)> {
    floats(x).into_iter().zip(constants(x, directions)).collect()
}

#[test]
fn every_operation_agrees_with_its_rules() {
    check_samples(|s| {
        let out = s.op.infer(&s.types()).map_err(|e| TestCaseError::fail(format!("refused: {e}")))?;
        let static_out = graphc_ir::StaticType::of(&out).unwrap();
        let operands: Vec<&Literal> = s.operands.iter().collect();
        let value = s.op.eval(&operands, &static_out).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(value.ty(), out);
        match in_f64(s, |x| x) {
            Some((operands, _)) if s.smooth => {
                common::check_gradient(&operands, |f, x| f.push(s.op.clone(), x))
            }
            _ => Ok(()),
        }
    });
}

/// `<u, J v>` and `<J^T u, v>`, each with the sum of the magnitudes of its terms, and whether all of
/// `J v` and `J^T u` is finite.
fn both_sides(op: &Op, x: &[Literal], u: &Literal, v: &[Literal]) -> ([(f64, f64); 2], bool) {
    let out = run(x, |f, x| {
        let y = f.push(op.clone(), x);
        let mut out = jvp(&[y], &pairs(x, v));
        out.extend(vjp(&[(y, f.constant(u.clone()))], &floats(x)));
        out
    });
    let finite = out.iter().all(|l| values(l).all(f64::is_finite));
    ([inner(&out[..1], std::slice::from_ref(u)), inner(&out[1..], v)], finite)
}

#[test]
fn forward_and_reverse_rules_are_adjoint() {
    assert!(EXACT.iter().all(|name| Op::NAMES.contains(name)), "the list names operations");
    check_samples(|s| {
        if s.operands.is_empty() {
            return Ok(());
        }
        // Also at kinks and special values, where both must follow one convention. Huge values would
        // leave nothing of the others.
        let tame = |x: f64| if x.is_finite() { x.clamp(-1e3, 1e3) } else { x };
        let Some((x, out)) = in_f64(s, tame) else { return Ok(()) };
        let u = random(1, &out, |r| r);
        let ([(forward, size), (reverse, _)], finite) = both_sides(&s.op, &x, &u, &directions(&x, 2, |r| r));
        prop_assert!(finite || !s.smooth, "a derivative at a smooth point is not finite");
        prop_assert!(
            !finite || (forward - reverse).abs() <= 1e-10 * size,
            "<u, J v> is {forward}, <J^T u, v> is {reverse}"
        );
        if EXACT.contains(&s.op.name()) {
            // Small integers; ties are frequent.
            let round = |x: f64| if x.is_nan() { 0.0 } else { x.round().clamp(-2.0, 2.0) };
            let Some((x, out)) = in_f64(s, round) else { return Ok(()) };
            let small = |r: f64| (3.0 * r).round();
            let u = random(1, &out, small);
            let ([forward, reverse], _) = both_sides(&s.op, &x, &u, &directions(&x, 2, small));
            prop_assert_eq!(forward.0, reverse.0, "<u, J v> and <J^T u, v> on small integers");
        }
        Ok(())
    });
}

/// The largest difference of elements, NaN being infinitely far, and the largest magnitude.
fn difference(a: &[Literal], b: &[Literal]) -> (f64, f64) {
    let elements = a.iter().zip(b).flat_map(|(a, b)| values(a).zip(values(b)));
    elements.fold((0.0, 0.0), |(difference, largest), (a, b)| {
        let own = if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
        (f64::max(difference, own), f64::max(largest, a.abs()))
    })
}

#[test]
fn second_derivatives_agree() {
    check_samples(|s| {
        let Some((operands, out)) = in_f64(s, |x| x).filter(|(x, _)| s.smooth && !x.is_empty()) else {
            return Ok(());
        };
        let (u, v, w) =
            (random(1, &out, |r| r), directions(&operands, 2, |r| r), directions(&operands, 7, |r| r));
        let n = v.len();
        let out = run(&operands, |f, x| {
            let y = f.push(s.op.clone(), x);
            let first = vjp(&[(y, f.constant(u.clone()))], &floats(x));
            // Reverse over reverse, forward over reverse, forward over forward.
            let cotangents: Vec<_> = first.iter().copied().zip(constants(x, &v)).collect();
            let mut out = vjp(&cotangents, &floats(x));
            out.extend(jvp(&first, &pairs(x, &v)));
            out.extend(jvp(&jvp(&[y], &pairs(x, &v)), &pairs(x, &w)));
            out
        });
        let (reverse, forward) = (&out[..n], &out[n..2 * n]);
        let (difference, largest) = difference(reverse, forward);
        prop_assert!(
            difference <= 1e-9 * (1.0 + largest),
            "reverse over reverse {reverse:?}, forward over reverse {forward:?}"
        );
        let (a, size) = inner(forward, &w);
        let (b, _) = inner(&out[2 * n..], std::slice::from_ref(&u));
        prop_assert!((a - b).abs() <= 1e-9 * (1.0 + size), "over reverse {a}, forward over forward {b}");
        Ok(())
    });
}

/// Equal bits, any NaN being equal to any NaN.
fn same(a: &Literal, b: &Literal) -> bool {
    a.ty() == b.ty()
        && (0..a.len()).all(|i| {
            let (a, b) = (a.get(i), b.get(i));
            a == b || a.to_f64().is_nan() && b.to_f64().is_nan()
        })
}

/// Examples of one type with the batch as axis `axis`.
fn stacked(examples: &[Literal], axis: usize) -> Literal {
    let mut dims = examples[0].dims().to_vec();
    dims.insert(axis, examples.len());
    let mut at = graphc_ir::indices(&dims);
    Literal::from_fn(examples[0].dtype(), &dims, |_| {
        let mut index = at.next().unwrap();
        let example = &examples[index.remove(axis)];
        example.get(graphc_ir::linear_index(&index, example.dims()))
    })
}

#[test]
fn a_batch_gives_the_bits_of_its_examples() {
    check_samples(|s| {
        // Every choice of mapped operands (of the first three).
        for mapped in 1..1usize << s.operands.len().min(3) {
            let mapped = |i: usize| mapped >> i & 1 == 1;
            let n_examples = 1 + (s.operands[0].len() + usize::from(mapped(0))) % 3;
            // Each example has the elements of a mapped operand in another order.
            let example = |b: usize, i: usize| {
                let x = &s.operands[i];
                let by = if mapped(i) { b } else { 0 };
                Literal::from_fn(x.dtype(), x.dims(), |i| x.get((i + by) % x.len()))
            };
            let axis = |i: usize| (i + n_examples) % (s.operands[i].dims().len() + 1);
            let inputs: Vec<Literal> = (0..s.operands.len())
                .map(|i| {
                    let examples: Vec<Literal> = (0..n_examples).map(|b| example(b, i)).collect();
                    if mapped(i) { stacked(&examples, axis(i)) } else { examples[0].clone() }
                })
                .collect();
            let m = ModuleBuilder::new("m");
            m.function("f", |f| {
                let input = |(i, l): (usize, &Literal)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape);
                let x: Vec<_> = inputs.iter().enumerate().map(input).collect();
                let batched: Vec<_> = (0..x.len()).filter(|&i| mapped(i)).map(|i| (x[i], axis(i))).collect();
                let y = vmap(&batched, |examples| {
                    let mut examples = examples.iter();
                    let operand = |i: usize| if mapped(i) { *examples.next().unwrap() } else { x[i] };
                    let operands: Vec<_> = (0..x.len()).map(operand).collect();
                    vec![f.push(s.op.clone(), &operands)]
                });
                f.output("y", y[0]);
            });
            let module = match m.build() {
                Ok(module) => module,
                Err(e) if matches!(s.op, Op::RngBits(_)) => {
                    let message = e.to_string();
                    prop_assert!(message.contains("rng_bits: no batching rule"), "{message}");
                    prop_assert!(message.contains("declared at ir/tests/samples.rs"), "{message}");
                    continue;
                }
                Err(e) => return Err(TestCaseError::fail(e.to_string())),
            };
            let got = evaluate(&module.functions[0], &inputs, |_| unreachable!("no state"));
            let got = got.map_err(|e| TestCaseError::fail(e.to_string()))?.outputs.swap_remove(0);
            let out = graphc_ir::StaticType::of(&s.op.infer(&s.types()).unwrap()).unwrap();
            let alone = |b: usize| {
                let operands: Vec<Literal> = (0..s.operands.len()).map(|i| example(b, i)).collect();
                s.op.eval(&operands.iter().collect::<Vec<_>>(), &out).unwrap()
            };
            let expected = stacked(&(0..n_examples).map(alone).collect::<Vec<_>>(), 0);
            prop_assert!(same(&got, &expected), "a batch gives {got:?}, its examples {expected:?}");
        }
        Ok(())
    });
}
