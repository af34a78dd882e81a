//! Gradients, tangents and Hessian-vector products of small graphs against what another system (JAX,
//! in double precision) gives for them.
//!
//! Each folder of `tests/conformance` has a graph as JSON (`case.json`, in the terms of ONNX), its inputs
//! with a cotangent of each output and a tangent of each input, and the expected results. The scalar
//! that is differentiated is `sum(output * cotangent)` over all outputs.

use graphc::ir::{Literal, Scalar, evaluate};
use graphc::{
    Bindings, CompileOptions, DType, FunctionBuilder, ModuleBuilder, RunContext, State, Tensor, ThreadPool,
    Value, ValueMut, compile, gradients, hvp, jvp,
};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The tensors of a safetensors file: a length, a header of that length as JSON, then the data.
fn tensors(path: &Path) -> BTreeMap<String, Literal> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let entries: BTreeMap<String, Json> = serde_json::from_slice(&bytes[8..header]).unwrap();
    let tensor = |(name, entry): (String, Json)| {
        let shape: Vec<usize> = numbers(&entry["shape"]).into_iter().map(|d| d as usize).collect();
        let begin = header + entry["data_offsets"][0].as_u64().unwrap() as usize;
        let at = |i: usize, size: usize| &bytes[begin + i * size..begin + (i + 1) * size];
        let value = |i: usize| match entry["dtype"].as_str() {
            Some("F32") => f64::from(f32::from_le_bytes(at(i, 4).try_into().unwrap())),
            Some("F64") => f64::from_le_bytes(at(i, 8).try_into().unwrap()),
            other => panic!("{name}: element type {other:?}"),
        };
        let literal = Literal::from_fn(DType::F64, &shape, |i| Scalar::F64(value(i)));
        (name, literal)
    };
    entries.into_iter().filter(|(name, _)| name != "__metadata__").map(tensor).collect()
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().into_iter().flatten().map(|v| v.as_f64().unwrap()).collect()
}

fn name(json: &Json) -> &str {
    json["name"].as_str().unwrap()
}

/// A node of the graph, by the definitions of ONNX.
fn apply<'f>(op: &str, x: &[Tensor<'f>], constants: &[Option<Vec<i64>>], attributes: &Json) -> Tensor<'f> {
    let rank = x[0].rank();
    let axis = |a: i64| if a < 0 { (a + rank as i64) as usize } else { a as usize };
    let reduced = || -> Vec<usize> {
        let axes = constants.get(1).and_then(Option::as_ref);
        axes.map_or((0..rank).collect(), |axes| axes.iter().map(|&a| axis(a)).collect())
    };
    let keep = |y: Tensor<'f>| {
        if attributes["keepdims"] == 0 {
            return y;
        }
        let dims = x[0].shape().as_static().unwrap();
        let dims: Vec<usize> =
            dims.iter().enumerate().map(|(a, &d)| if reduced().contains(&a) { 1 } else { d }).collect();
        y.reshape(dims.as_slice())
    };
    match op {
        "Abs" => x[0].abs(),
        "Cos" => x[0].cos(),
        "Erf" => x[0].erf(),
        "Exp" => x[0].exp(),
        "Identity" => x[0],
        "Neg" => -x[0],
        "Relu" => x[0].relu(),
        "Sigmoid" => x[0].sigmoid(),
        "Sin" => x[0].sin(),
        "Sqrt" => x[0].sqrt(),
        "Softplus" => x[0].softplus(),
        "Softsign" => x[0] / (x[0].abs() + 1.0),
        "Tanh" => x[0].tanh(),
        "Add" => x[0] + x[1],
        "Sub" => x[0] - x[1],
        "Mul" => x[0] * x[1],
        "Div" => x[0] / x[1],
        "Pow" => x[0].pow(x[1]),
        "Max" => x[0].max(x[1]),
        "Clip" => x[0].max(x[1]).min(x[2]),
        "Greater" => x[0].gt(x[1]),
        "Where" => x[0].select(x[1], x[2]),
        "MatMul" if x[1].rank() <= 2 => x[0].dot(x[1]),
        // A vector times a batch of matrices.
        "MatMul" if rank == 1 => x[0].dot_general(x[1], (&[], &[]), (&[0], &[x[1].rank() - 2])),
        "Softmax" => x[0].softmax(attributes["axis"].as_i64().map_or(rank - 1, axis)),
        "LogSoftmax" => x[0].log_softmax(attributes["axis"].as_i64().map_or(rank - 1, axis)),
        "ReduceMax" => keep(x[0].reduce_max(&reduced())),
        "ReduceProd" => keep(x[0].reduce_prod(&reduced())),
        "ReduceLogSumExp" => keep(x[0].logsumexp(&reduced())),
        "ReduceSum" => keep(x[0].reduce_sum(&reduced())),
        "ReduceMean" => keep(x[0].mean(&reduced())),
        "Slice" => {
            let given = |i: usize| constants[i].clone().unwrap();
            given(3).iter().enumerate().fold(x[0], |y, (i, &a)| {
                let extent = y.shape()[axis(a)].as_const().unwrap();
                let place =
                    |p: i64| (if p < 0 { p + extent as i64 } else { p }).clamp(0, extent as i64) as usize;
                y.slice_axis(axis(a), place(given(1)[i]), place(given(2)[i]))
            })
        }
        _ => panic!("no rule for {op}"),
    }
}

/// The outputs of the graph for its inputs.
fn graph<'f>(f: &'f FunctionBuilder, case: &Json, inputs: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
    let mut values: BTreeMap<&str, Tensor<'f>> = BTreeMap::new();
    let mut integers: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    let named = case["inputs"].as_array().unwrap().iter().map(name);
    values.extend(named.zip(inputs.iter().copied()));
    for constant in case["initializers"].as_array().into_iter().flatten() {
        let (elements, shape) = (numbers(&constant["values"]), numbers(&constant["shape"]));
        let shape: Vec<usize> = shape.into_iter().map(|d| d as usize).collect();
        if constant["dtype"] == "int64" {
            integers.insert(name(constant), elements.iter().map(|&v| v as i64).collect());
        }
        let literal = Literal::from_fn(DType::F64, &shape, |i| Scalar::F64(elements[i]));
        values.insert(name(constant), f.constant(literal));
    }
    for node in case["nodes"].as_array().unwrap() {
        let operands: Vec<&str> =
            node["inputs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        let x: Vec<Tensor<'f>> = operands.iter().map(|o| values[o]).collect();
        let constants: Vec<_> = operands.iter().map(|o| integers.get(o).cloned()).collect();
        let y = apply(node["op"].as_str().unwrap(), &x, &constants, &node["attributes"]);
        values.insert(node["outputs"][0].as_str().unwrap(), y);
    }
    case["outputs"].as_array().unwrap().iter().map(|o| values[name(o)]).collect()
}

fn check(folder: &Path) {
    let case: Json = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let (given, expected) =
        (tensors(&folder.join("inputs.safetensors")), tensors(&folder.join("expected.safetensors")));
    let named = |kind: &str| case[kind].as_array().unwrap().iter().map(name).collect::<Vec<_>>();
    let (inputs, outputs) = (named("inputs"), named("outputs"));
    let m = ModuleBuilder::new(name(&case));
    m.function("f", |f| {
        let input = |n: &&str| f.input(n, DType::F64, given[*n].ty().shape);
        let x: Vec<Tensor<'_>> = inputs.iter().map(input).collect();
        let y = graph(f, &case, &x);
        let cotangent = |n: &&str| f.constant(given[&format!("cotangent.{n}")].clone());
        let weighted = y.iter().zip(&outputs).map(|(&y, n)| {
            let axes: Vec<usize> = (0..y.rank()).collect();
            (y * cotangent(n)).reduce_sum(&axes)
        });
        let loss = weighted.reduce(|a, b| a + b).expect("there is an output");
        let tangent = |n: &&str| f.constant(given[&format!("tangent.{n}")].clone());
        let pairs: Vec<_> = x.iter().copied().zip(inputs.iter().map(tangent)).collect();
        let all = [
            ("out", &outputs, y.clone()),
            ("grad", &inputs, gradients(loss, &x)),
            ("jvp", &outputs, jvp(&y, &pairs)),
            ("hvp", &inputs, hvp(loss, &pairs)),
        ];
        for (kind, names, results) in all {
            for (n, result) in names.iter().zip(results) {
                f.output(&format!("{kind}.{n}"), result);
            }
        }
    });
    let module = m.build().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let values: Vec<Literal> = inputs.iter().map(|n| given[*n].clone()).collect();
    let interpreted = evaluate(&module.functions[0], &values, |_| unreachable!("no state")).unwrap().outputs;

    let exe = compile(&module, "f", &Bindings::new(), &CompileOptions::default()).unwrap();
    let mut cx = RunContext::new(&exe, Arc::new(ThreadPool::new(1).unwrap())).unwrap();
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    let mut compiled: Vec<Vec<f64>> = exe.outputs().iter().map(|p| vec![0.0; p.num_elements()]).collect();
    let values: Vec<Value<'_>> = values.iter().map(|l| l.as_slice::<f64>().unwrap().into()).collect();
    let mut slots: Vec<ValueMut<'_>> = compiled.iter_mut().map(|o| o.as_mut_slice().into()).collect();
    exe.run(&mut cx, &mut state, &values, &mut slots).unwrap();

    assert_eq!(interpreted.len(), expected.len(), "{}", folder.display());
    let tolerance = case["tolerance"]["f64"].as_f64().unwrap();
    for ((output, own), compiled) in module.functions[0].outputs.iter().zip(&interpreted).zip(&compiled) {
        let what = format!("{}, {}", folder.display(), output.name);
        let want = &expected[&*output.name];
        assert_eq!(own.ty(), want.ty(), "{what}");
        let own: &[f64] = own.as_slice().unwrap();
        assert_eq!(own, compiled, "{what}: compiled");
        let want: &[f64] = want.as_slice().unwrap();
        let largest = want.iter().fold(0.01, |m: f64, v| m.max(v.abs()));
        for (i, (own, want)) in own.iter().zip(want).enumerate() {
            assert!((own - want).abs() <= tolerance * largest, "{what}[{i}]: {own}, expected {want}");
        }
    }
}

#[test]
fn derivatives_agree_with_another_system() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert_eq!(cases.len(), 25);
    cases.iter().for_each(|folder| check(folder));
}
