//! Indexing: the cases that ONNX documents its operators with, gradients where updates meet, and
//! forward rules against reverse ones.

mod common;

use common::cases;
use graphc_ir::ops::VjpCx;
use graphc_ir::testing::{Sample, uniform};
use graphc_ir::{
    Combine, DType, EvalError, FunctionBuilder, Literal, ModuleBuilder, Op, Scalar, Tensor, evaluate, shape,
    vjp,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

fn f32s(dims: &[usize], values: &[f32]) -> Literal {
    Literal::new(dims, values.to_vec()).unwrap()
}

fn i64s(dims: &[usize], values: &[i64]) -> Literal {
    Literal::new(dims, values.to_vec()).unwrap()
}

/// Evaluates a function of some operands with several results.
fn run(
    operands: &[Literal],
    body: impl for<'f> FnOnce(&'f FunctionBuilder, &[Tensor<'f>]) -> Vec<Tensor<'f>>,
) -> Result<Vec<Literal>, EvalError> {
    let m = ModuleBuilder::new("test");
    m.function("f", |f| {
        let input = |(i, l): (usize, &Literal)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape);
        let x: Vec<_> = operands.iter().enumerate().map(input).collect();
        for (i, y) in body(f, &x).into_iter().enumerate() {
            f.output(&format!("y{i}"), y);
        }
    });
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    evaluate(&module.functions[0], operands, |_| unreachable!("no state")).map(|e| e.outputs)
}

/// The one result of a function.
fn value(operands: &[Literal], body: impl for<'f> Fn(&[Tensor<'f>]) -> Tensor<'f>) -> Literal {
    run(operands, |_, x| vec![body(x)]).unwrap().remove(0)
}

/// The cases of ONNX's page on the operator `Gather`.
#[test]
fn take_is_onnx_gather() {
    let x = f32s(&[3, 2], &[1.0, 1.2, 2.3, 3.4, 4.5, 5.7]);
    let rows = value(&[x, i64s(&[2, 2], &[0, 1, 1, 2])], |x| x[0].take(x[1], 0));
    assert_eq!(rows, f32s(&[2, 2, 2], &[1.0, 1.2, 2.3, 3.4, 2.3, 3.4, 4.5, 5.7]));
    let x = f32s(&[3, 3], &[1.0, 1.2, 1.9, 2.3, 3.4, 3.9, 4.5, 5.7, 5.9]);
    let columns = value(&[x, i64s(&[1, 2], &[0, 2])], |x| x[0].take(x[1], 1));
    assert_eq!(columns, f32s(&[3, 1, 2], &[1.0, 1.9, 2.3, 3.9, 4.5, 5.9]));
    let x = f32s(&[10], &[0., 1., 2., 3., 4., 5., 6., 7., 8., 9.]);
    let from_end = value(&[x, i64s(&[3], &[0, -9, -10])], |x| x[0].take(x[1].wrap_index(10), 0));
    assert_eq!(from_end, f32s(&[3], &[0., 1., 0.]));
}

/// The cases of ONNX's page on `GatherElements`.
#[test]
fn take_along_axis_is_onnx_gather_elements() {
    let x = f32s(&[2, 2], &[1., 2., 3., 4.]);
    let y = value(&[x, i64s(&[2, 2], &[0, 0, 1, 0])], |x| x[0].take_along_axis(x[1], 1));
    assert_eq!(y, f32s(&[2, 2], &[1., 1., 4., 3.]));
    let x = f32s(&[3, 3], &[1., 2., 3., 4., 5., 6., 7., 8., 9.]);
    let y = value(&[x.clone(), i64s(&[2, 3], &[1, 2, 0, 2, 0, 0])], |x| x[0].take_along_axis(x[1], 0));
    assert_eq!(y, f32s(&[2, 3], &[4., 8., 3., 7., 2., 3.]));
    let indices = i64s(&[2, 3], &[-1, -2, 0, -2, 0, 0]);
    let y = value(&[x, indices], |x| x[0].take_along_axis(x[1].wrap_index(3), 0));
    assert_eq!(y, f32s(&[2, 3], &[7., 5., 3., 4., 2., 3.]));
}

/// The cases of ONNX's page on `GatherND`.
#[test]
fn gather_nd_is_onnx_gather_nd() {
    let x = f32s(&[2, 2], &[0., 1., 2., 3.]);
    let nd =
        |x: &Literal, i: Literal, batch: usize| value(&[x.clone(), i], move |x| x[0].gather_nd(x[1], batch));
    assert_eq!(nd(&x, i64s(&[2, 2], &[0, 0, 1, 1]), 0), f32s(&[2], &[0., 3.]));
    assert_eq!(nd(&x, i64s(&[2, 1], &[1, 0]), 0), f32s(&[2, 2], &[2., 3., 0., 1.]));
    let x = f32s(&[2, 2, 2], &[0., 1., 2., 3., 4., 5., 6., 7.]);
    assert_eq!(nd(&x, i64s(&[2, 2], &[0, 1, 1, 0]), 0), f32s(&[2, 2], &[2., 3., 4., 5.]));
    let indices = i64s(&[2, 1, 2], &[0, 1, 1, 0]);
    assert_eq!(nd(&x, indices, 0), f32s(&[2, 1, 2], &[2., 3., 4., 5.]));
    assert_eq!(nd(&x, i64s(&[2, 1], &[1, 0]), 1), f32s(&[2, 2], &[2., 3., 4., 5.]));
    assert_eq!(nd(&x, i64s(&[2, 2, 3], &[0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1]), 0), {
        f32s(&[2, 2], &[0., 1., 4., 7.])
    });
}

/// The cases of ONNX's page on `ScatterElements`.
#[test]
fn put_along_axis_is_onnx_scatter_elements() {
    let zeros = f32s(&[3, 3], &[0.0; 9]);
    let updates = f32s(&[2, 3], &[1.0, 1.1, 1.2, 2.0, 2.1, 2.2]);
    let y = value(&[zeros, i64s(&[2, 3], &[1, 0, 2, 0, 2, 1]), updates], |x| {
        x[0].put_along_axis(Combine::Assign, x[1], x[2], 0)
    });
    assert_eq!(y, f32s(&[3, 3], &[2.0, 1.1, 0.0, 1.0, 0.0, 2.2, 0.0, 2.1, 1.2]));
    let row = f32s(&[1, 5], &[1., 2., 3., 4., 5.]);
    let along = |combine, indices: &[i64]| {
        let operands = [row.clone(), i64s(&[1, 2], indices), f32s(&[1, 2], &[1.1, 2.1])];
        let y = value(&operands, |x| x[0].put_along_axis(combine, x[1].wrap_index(5), x[2], 1));
        y.as_slice::<f32>().unwrap().to_vec()
    };
    assert_eq!(along(Combine::Assign, &[1, 3]), [1.0, 1.1, 3.0, 2.1, 5.0]);
    assert_eq!(along(Combine::Assign, &[1, -3]), [1.0, 1.1, 2.1, 4.0, 5.0]);
    assert_eq!(along(Combine::Add, &[1, 1]), [1.0, 2.0 + 1.1 + 2.1, 3.0, 4.0, 5.0]);
    assert_eq!(along(Combine::Mul, &[1, 1]), [1.0, 2.0 * 1.1 * 2.1, 3.0, 4.0, 5.0]);
    assert_eq!(along(Combine::Max, &[1, 1]), [1.0, 2.1, 3.0, 4.0, 5.0]);
    assert_eq!(along(Combine::Min, &[1, 1]), [1.0, 1.1, 3.0, 4.0, 5.0]);
    // The last of two wins.
    assert_eq!(along(Combine::Assign, &[1, 1]), [1.0, 2.1, 3.0, 4.0, 5.0]);
}

/// The cases of ONNX's page on `ScatterND`.
#[test]
fn scatter_nd_is_onnx_scatter_nd() {
    let x = f32s(&[8], &[1., 2., 3., 4., 5., 6., 7., 8.]);
    let indices = i64s(&[4, 1], &[4, 3, 1, 7]);
    let y = value(&[x, indices, f32s(&[4], &[9., 10., 11., 12.])], |x| {
        x[0].scatter_nd(Combine::Assign, x[1], x[2])
    });
    assert_eq!(y, f32s(&[8], &[1., 11., 3., 10., 9., 6., 7., 12.]));
    let rows = [[1., 2., 3., 4.], [5., 6., 7., 8.], [8., 7., 6., 5.], [4., 3., 2., 1.]];
    let up = rows.concat();
    let down: Vec<f32> = rows.iter().rev().flat_map(|r| *r).collect();
    let x = f32s(&[4, 4, 4], &[up.clone(), up, down.clone(), down].concat());
    let fives = |n: f32| vec![n; 4];
    let part = [fives(5.), fives(6.), fives(7.), fives(8.)].concat();
    let other = [fives(1.), fives(2.), fives(3.), fives(4.)].concat();
    let updates = f32s(&[2, 4, 4], &[part.clone(), other.clone()].concat());
    let scattered = |combine, indices: &[i64]| {
        let y = value(&[x.clone(), i64s(&[2, 1], indices), updates.clone()], |x| {
            x[0].scatter_nd(combine, x[1], x[2])
        });
        y.as_slice::<f32>().unwrap().to_vec()
    };
    let old = x.as_slice::<f32>().unwrap();
    let assigned = scattered(Combine::Assign, &[0, 2]);
    assert_eq!(assigned, [&part, &old[16..32], &other, &old[48..]].concat());
    let combined = |op: fn(f32, f32) -> f32| -> Vec<f32> {
        let first = (0..16).map(|i| op(op(old[i], part[i]), other[i]));
        first.chain(old[16..].iter().copied()).collect()
    };
    assert_eq!(scattered(Combine::Add, &[0, 0]), combined(|a, b| a + b));
    assert_eq!(scattered(Combine::Mul, &[0, 0]), combined(|a, b| a * b));
    assert_eq!(scattered(Combine::Max, &[0, 0]), combined(f32::max));
    assert_eq!(scattered(Combine::Min, &[0, 0]), combined(f32::min));
}

/// Several axes, not neighbours and not in order: their picked part lies at the first of them.
#[test]
fn axes_may_be_indexed_in_any_order() {
    let x = Literal::from_fn(DType::F32, &[2, 3, 4], |i| Scalar::F32(i as f32));
    let y =
        value(&[x, i64s(&[2], &[3, 0]), i64s(&[2], &[1, 0])], |x| x[0].gather(&[x[1], x[2]], &[2, 0], &[]));
    // x[1, :, 3] and x[0, :, 0]
    assert_eq!(y, f32s(&[2, 3], &[15., 19., 23., 0., 4., 8.]));
}

#[test]
fn dynamic_slices_start_where_scalars_say() {
    let x = Literal::from_fn(DType::F32, &[3, 4], |i| Scalar::F32(i as f32));
    let (one, two) = (i64s(&[], &[1]), i64s(&[], &[2]));
    let y = run(&[x.clone(), one.clone(), two.clone(), f32s(&[2, 1], &[-1., -2.])], |_, x| {
        vec![x[0].dynamic_slice(&x[1..3], [2, 2]), x[0].dynamic_update_slice(x[3], &x[1..3])]
    });
    let y = y.unwrap();
    assert_eq!(y[0], f32s(&[2, 2], &[6., 7., 10., 11.]));
    assert_eq!(y[1], f32s(&[3, 4], &[0., 1., 2., 3., 4., 5., -1., 7., 8., 9., -2., 11.]));
    // Not clamped.
    let error = |op, position, value, bound| Err(EvalError::IndexOutOfRange { op, position, value, bound });
    let slice = |start: i64| {
        run(&[x.clone(), one.clone(), i64s(&[], &[start])], |_, x| vec![x[0].dynamic_slice(&x[1..], [2, 2])])
    };
    assert_eq!(slice(3), error("dynamic_slice", 0, 3, 3));
    assert_eq!(slice(-1), error("dynamic_slice", 0, -1, 3));
    let update = run(&[x.clone(), two.clone(), one.clone(), f32s(&[2, 1], &[0.; 2])], |_, x| {
        vec![x[0].dynamic_update_slice(x[3], &x[1..3])]
    });
    assert_eq!(update, error("dynamic_update_slice", 0, 2, 2));
}

/// Cotangents of `x` and of the updates of a scatter along axis 0, for the cotangent 1, 2, 3.
fn cotangents(combine: Combine, x: &[f32; 3], indices: &[i64], updates: &[f32]) -> [Vec<f32>; 2] {
    let n = updates.len();
    let operands = [f32s(&[3], x), i64s(&[n], indices), f32s(&[n], updates), f32s(&[3], &[1., 2., 3.])];
    let g = run(&operands, |_, x| {
        let y = x[0].scatter(combine, &[x[1]], x[2], &[0], &[]);
        vjp(&[(y, x[3])], &[x[0], x[2]])
    });
    let g = g.unwrap();
    [0, 1].map(|i| g[i].as_slice::<f32>().unwrap().to_vec())
}

#[test]
fn gradients_where_updates_meet() {
    let nan = f32::NAN;
    let x = [5., 1., 2.];
    let check = |combine, indices: &[i64], updates: &[f32], of_x: [f32; 3], of_updates: &[f32]| {
        let [a, b] = cotangents(combine, &x, indices, updates);
        assert_eq!((a.as_slice(), b.as_slice()), (of_x.as_slice(), of_updates), "{combine:?}");
    };
    check(Combine::Add, &[1, 1, 2], &[1., 2., 3.], [1., 2., 3.], &[2., 2., 3.]);
    // The last update of a place stays.
    check(Combine::Assign, &[1, 1, 2], &[1., 2., 3.], [1., 0., 0.], &[0., 2., 3.]);
    // 5 stays, 4 wins against 1, 2 ties with 2.
    check(Combine::Max, &[0, 1, 1, 2], &[4., 4., 4., 2.], [1., 0., 3.], &[0., 2., 0., 0.]);
    check(Combine::Min, &[0, 1, 1, 2], &[4., 4., 0., 2.], [0., 0., 3.], &[1., 0., 2., 0.]);
    // The first NaN wins.
    check(Combine::Max, &[1, 1, 1], &[9., nan, nan], [1., 0., 3.], &[0., 2., 0.]);
    // Factors of zero: one lets the others' product through to itself, two let nothing through.
    check(Combine::Mul, &[0, 0, 1, 1], &[0., 3., 0., 0.], [0., 0., 3.], &[15., 0., 0., 0.]);
    check(Combine::Mul, &[0, 0, 1], &[2., 3., 4.], [6., 8., 3.], &[15., 10., 2.]);
}

/// `vjp` and `jvp` of the operations that index are adjoint: `<jvp(t), c> = <t, vjp(c)>`.
#[test]
fn forward_rules_are_adjoint_to_reverse_rules() {
    let names = [
        "gather",
        "scatter",
        "dynamic_slice",
        "dynamic_update_slice",
        "select_and_gather",
        "select_and_scatter",
    ];
    let mut checked = 0;
    for (name, samples) in Op::all_samples().into_iter().filter(|(n, _)| names.contains(n)) {
        checked += 1;
        let mut runner =
            TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        runner.run(&samples.unwrap(), |s| adjoint(&s)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    assert_eq!(checked, names.len());
}

fn adjoint(s: &Sample) -> Result<(), TestCaseError> {
    if !s.smooth || !s.operands[0].dtype().is_float() {
        return Ok(());
    }
    let widen = |l: &Literal| {
        if l.dtype().is_float() { Literal::from_fn(DType::F64, l.dims(), |i| l.get(i)) } else { l.clone() }
    };
    let operands: Vec<Literal> = s.operands.iter().map(widen).collect();
    let types: Vec<_> = operands.iter().map(Literal::ty).collect();
    let out = s.op.infer(&types).unwrap();
    let mut runner = TestRunner::deterministic();
    let mut random = |dims: &[usize]| {
        uniform(DType::F64, dims.to_vec(), -1.0, 1.0).new_tree(&mut runner).unwrap().current()
    };
    let tangents: Vec<Option<Literal>> =
        operands.iter().map(|l| l.dtype().is_float().then(|| random(l.dims()))).collect();
    let cotangent = random(&out.shape.as_static().unwrap());
    let products = run(&operands, |f, x| {
        let y = f.push(s.op.clone(), x);
        let cx = VjpCx { operands: x, result: y };
        let t: Vec<_> = tangents.iter().map(|t| t.clone().map(|t| f.constant(t))).collect();
        let c = f.constant(cotangent.clone());
        let all = |t: Tensor<'_>| (0..t.rank()).collect::<Vec<_>>();
        let forward = s.op.jvp(&cx, &t).unwrap();
        let forward = forward.map_or_else(|| f.scalar(DType::F64, 0.0), |y| (y * c).reduce_sum(&all(y)));
        let mut reverse = f.scalar(DType::F64, 0.0);
        for (ct, t) in s.op.vjp(&cx, c).unwrap().into_iter().zip(t) {
            if let (Some(ct), Some(t)) = (ct, t) {
                reverse = reverse + (ct * t).reduce_sum(&all(t));
            }
        }
        vec![forward, reverse]
    });
    let products = products.unwrap();
    let (a, b) = (products[0].get(0).to_f64(), products[1].get(0).to_f64());
    prop_assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{a} forward, {b} in reverse");
    Ok(())
}

fn mistakes(body: impl Fn(&FunctionBuilder)) -> String {
    let m = ModuleBuilder::new("m");
    m.function("f", body);
    m.build().unwrap_err().to_string()
}

#[test]
fn refusals_name_axes_and_extents() {
    let check =
        |what: &str, body: &dyn for<'f> Fn(Tensor<'f>, Tensor<'f>, &'f FunctionBuilder) -> Tensor<'f>| {
            let message = mistakes(|f| {
                let x = f.input("x", DType::F32, shape![4, "B", 3]);
                let i = f.input("i", DType::I32, shape![5, "B", 3]);
                f.output("y", body(x, i, f));
            });
            assert!(message.contains(what), "{message}");
        };
    check("axis 3 is not below the rank 3 of operand 0", &|x, i, _| x.take(i, 3));
    check("axis 1 of operand 0 is named twice", &|x, i, _| x.gather(&[i, i], &[1, 1], &[]));
    check("axis 2 of operand 0 is named twice", &|x, i, _| x.gather(&[i], &[2], &[(2, 2)]));
    check("axis 1 of the indices is named twice", &|x, i, _| x.gather(&[i], &[0], &[(1, 1), (2, 1)]));
    check("axis 7 is not below the rank 3 of the indices", &|x, i, _| x.gather(&[i], &[0], &[(1, 7)]));
    check("2 operands of indices for 1 axes", &|x, i, _| x.gather(&[i, i], &[1], &[]));
    check("at least one axis must be indexed", &|x, _, _| x.gather(&[], &[], &[]));
    check("operand 1 is f32, must be i32 or i64", &|x, _, _| x.take(x, 0));
    check("axis 0 of the indices has extent 5, axis 0 of operand 0 has extent 4", &|x, i, _| {
        x.take_along_axis(i, 1)
    });
    check("axis 0 of the indices has extent 5, axis 1 of operand 0 has extent B", &|x, i, _| {
        x.gather(&[i], &[0], &[(1, 0)])
    });
    check("take_along_axis: indices i32[] must have the rank of f32[4, B, 3]", &|x, _, f| {
        x.take_along_axis(f.scalar(DType::I32, 0.0), 1)
    });
    check("gather_nd: the last axis of indices i32[4] must have the number of axes indexed", &|x, _, f| {
        x.gather_nd(f.full(DType::I32, [4], 0.0), 0)
    });
    check("the updates have shape [4, B, 3], must have [5, B, 3]", &|x, i, _| {
        x.put_along_axis(Combine::Add, i, x, 0)
    });
    check("the updates are i32, operand 0 is f32", &|x, i, _| x.put_along_axis(Combine::Add, i, i, 0));
    check("operand 0 is bool, must be a number", &|x, i, _| x.is_nan().scatter_add(i, x.is_nan(), 0));
    let scalar = |f: &FunctionBuilder| f.scalar(DType::I32, 0.0).id().unwrap();
    check("axis 0: 5 positions do not fit in the extent 4", &|x, _, f| {
        let s = f.tensor(scalar(f));
        x.dynamic_slice(&[s; 3], shape![5, "B", 3])
    });
    check("axis 1: 2 of B positions: a named extent can only be taken whole", &|x, _, f| {
        let s = f.tensor(scalar(f));
        x.dynamic_slice(&[s; 3], [1, 2, 3])
    });
    check("2 starts for an operand of rank 3", &|x, _, f| {
        let s = f.tensor(scalar(f));
        x.dynamic_slice(&[s; 2], shape![4, "B", 3])
    });
    check("a start is a scalar", &|x, i, f| {
        let s = f.tensor(scalar(f));
        x.dynamic_update_slice(x, &[s, i, s])
    });
}

/// Dimensions may be named, in gradients as well.
#[test]
fn named_dimensions_pass_through() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, shape!["B", "V", 3]);
        let i = f.input("i", DType::I64, shape!["B", "T"]);
        let rows = x.gather(&[i], &[1], &[(0, 0)]);
        f.output("rows", rows);
        for combine in Combine::ALL {
            let y = x.scatter(combine, &[i], rows, &[1], &[(0, 0)]);
            f.output(combine.name(), vjp(&[(y, y)], &[x])[0]);
        }
    });
    let m = m.build().unwrap_or_else(|e| panic!("{e}"));
    let f = &m.functions[0];
    let types: Vec<String> = f.outputs.iter().map(|o| f.graph.ty(o.node).to_string()).collect();
    assert_eq!(types, [&["f32[B, T, 3]"][..], &["f32[B, V, 3]"; 5]].concat());
}
