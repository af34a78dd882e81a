//! Gradients, tangents and Hessian-vector products of small graphs against what another system (JAX,
//! in double precision) gives for them.
//!
//! Each folder of `tests/conformance` has a graph as JSON (`case.json`, in the terms of ONNX), its inputs
//! with a cotangent of each output and a tangent of each input, and the expected results. The scalar
//! that is differentiated is `sum(output * cotangent)` over all outputs.

use graphc::ir::composite::ConvTransposeConfig;
use graphc::ir::ops::ConvConfig;
use graphc::ir::{Combine, Literal, Scalar, ScanOptions, Window, evaluate};
use graphc::runtime::Elements;
use graphc::{
    Bindings, CompileOptions, DType, FunctionBuilder, ModuleBuilder, RunContext, Shape, State, Tensor,
    ThreadPool, Value, ValueMut, compile, gradients, hvp, jvp,
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
            Some("F32") => Scalar::F64(f32::from_le_bytes(at(i, 4).try_into().unwrap()).into()),
            Some("F64") => Scalar::F64(f64::from_le_bytes(at(i, 8).try_into().unwrap())),
            Some("I64") => Scalar::I64(i64::from_le_bytes(at(i, 8).try_into().unwrap())),
            other => panic!("{name}: element type {other:?}"),
        };
        let dtype = if entry["dtype"] == "I64" { DType::I64 } else { DType::F64 };
        let literal = Literal::from_fn(dtype, &shape, value);
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

/// What a node has beside its operands.
struct Attributes<'a>(&'a Json);

impl Attributes<'_> {
    fn int(&self, name: &str, default: i64) -> i64 {
        self.0[name].as_i64().unwrap_or(default)
    }
    fn float(&self, name: &str, default: f64) -> f64 {
        self.0[name].as_f64().unwrap_or(default)
    }
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }
    /// One number per axis.
    fn sizes(&self, name: &str, n: usize, default: usize) -> Vec<usize> {
        match &self.0[name] {
            Json::Null => vec![default; n],
            list => numbers(list).into_iter().map(|v| v as usize).collect(),
        }
    }
    /// Padding before and after each axis, for windows of these extents with steps of one.
    fn padding(&self, windows: &[usize]) -> Vec<(i64, i64)> {
        let n = windows.len();
        if self.text("auto_pad") == "SAME_LOWER" {
            // The odd position goes before.
            return windows.iter().map(|&w| (w as i64 / 2, (w as i64 - 1) / 2)).collect();
        }
        let pads = self.sizes("pads", 2 * n, 0);
        (0..n).map(|a| (pads[a] as i64, pads[a + n] as i64)).collect()
    }
}

fn extents(x: Tensor<'_>) -> Vec<usize> {
    x.shape().as_static().unwrap()
}

/// Products of matrices over the leading axes, which both have.
fn matmul<'f>(x: Tensor<'f>, y: Tensor<'f>) -> Tensor<'f> {
    match (x.rank(), y.rank()) {
        (_, ..=2) => x.dot(y),
        // A vector times a batch of matrices.
        (1, rank) => x.dot_general(y, (&[], &[]), (&[0], &[rank - 2])),
        (rank, _) => {
            let batch: Vec<usize> = (0..rank - 2).collect();
            x.dot_general(y, (&batch, &batch), (&[rank - 1], &[rank - 2]))
        }
    }
}

/// The recurrent operators of one direction: all states, and the last ones.
fn recurrent<'f>(op: &str, x: &[Option<Tensor<'f>>], attributes: &Attributes<'_>) -> Vec<Tensor<'f>> {
    let given = |i: usize| x.get(i).copied().flatten();
    let [input, weight, recurrence] = [0, 1, 2].map(|i| given(i).unwrap());
    let (f, dtype) = (input.builder(), input.dtype());
    let (batch, hidden) = (extents(input)[1], attributes.int("hidden_size", 0) as usize);
    let (w, r) = (weight.squeeze(0).transpose(&[1, 0]), recurrence.squeeze(0).transpose(&[1, 0]));
    let gates = extents(w)[1] / hidden;
    let bias = given(3).unwrap().squeeze(0).split(&[gates * hidden; 2], 0);
    let start = |i: usize| given(i).map_or(f.full(dtype, [batch, hidden], 0.0), |h| h.squeeze(0));
    let starts = if op == "LSTM" { vec![start(5), start(6)] } else { vec![start(5)] };
    let options =
        ScanOptions { reverse: attributes.text("direction") == "reverse", ..ScanOptions::default() };
    let scanned = f.scan_with(&options, &starts, &[input], |_, h, x| {
        let given = (x[0].dot(w) + bias[0]).chunk(gates, 1);
        let next = match op {
            "RNN" => {
                let y = given[0] + h[0].dot(r) + bias[1];
                vec![if attributes.0["activations"][0] == "Relu" { y.relu() } else { y.tanh() }]
            }
            "LSTM" => {
                let own = (h[0].dot(r) + bias[1]).chunk(gates, 1);
                let [input, output, forget] = [0, 1, 2].map(|g| (given[g] + own[g]).sigmoid());
                let cell = forget * h[1] + input * (given[3] + own[3]).tanh();
                vec![output * cell.tanh(), cell]
            }
            "GRU" => {
                let (r, bias) = (r.chunk(gates, 1), bias[1].chunk(gates, 0));
                let [update, reset] = [0, 1].map(|g| (given[g] + h[0].dot(r[g]) + bias[g]).sigmoid());
                let new = (given[2] + (reset * h[0]).dot(r[2]) + bias[2]).tanh();
                vec![(update * -1.0 + 1.0) * new + update * h[0]]
            }
            _ => panic!("no rule for {op}"),
        };
        (next.clone(), vec![next[0]])
    });
    let last = scanned.carries.iter().map(|h| h.unsqueeze(0));
    std::iter::once(scanned.stacked[0].unsqueeze(1)).chain(last).collect()
}

/// The results of a node, by the definitions of ONNX.
fn apply<'f>(
    op: &str,
    x: &[Option<Tensor<'f>>],
    constants: &[Option<Vec<i64>>],
    attributes: &Json,
) -> Vec<Tensor<'f>> {
    let attributes = Attributes(attributes);
    if matches!(op, "RNN" | "LSTM" | "GRU") {
        return recurrent(op, x, &attributes);
    }
    let optional = |i: usize| x.get(i).copied().flatten();
    let present: Vec<Tensor<'f>> = x.iter().copied().flatten().collect();
    let x = present;
    let rank = x[0].rank();
    let (f, dtype) = (x[0].builder(), x[0].dtype());
    let axis_of = |a: i64, rank: usize| if a < 0 { (a + rank as i64) as usize } else { a as usize };
    let axis = |a: i64| axis_of(a, rank);
    let integers = |i: usize| constants[i].clone().unwrap();
    let reduced = || -> Vec<usize> {
        let axes = constants.get(1).and_then(Option::as_ref);
        axes.map_or((0..rank).collect(), |axes| axes.iter().map(|&a| axis(a)).collect())
    };
    let keep = |y: Tensor<'f>| {
        if attributes.int("keepdims", 1) == 0 {
            return y;
        }
        let dims = extents(x[0]).into_iter().enumerate();
        y.reshape(dims.map(|(a, d)| if reduced().contains(&a) { 1 } else { d }).collect::<Shape>())
    };
    // One number per channel, for any number of axes after it.
    let per_channel = |v: Tensor<'f>, rank: usize| {
        let dims: Shape = (1..rank).map(|a| if a == 1 { extents(v)[0] } else { 1 }).collect();
        v.reshape(dims)
    };
    // Negative indices count from the end of the axis.
    let wrapped = |along: i64| x[1].wrap_index(extents(x[0])[axis(along)]);
    let y = match op {
        "Abs" => x[0].abs(),
        "Atan" => x[0].atan(),
        "Celu" => {
            let alpha = attributes.float("alpha", 1.0);
            x[0].max(0.0) + (((x[0] / alpha).expm1()) * alpha).min(0.0)
        }
        "Cos" => x[0].cos(),
        "Elu" => x[0].elu(attributes.float("alpha", 1.0)),
        "Erf" => x[0].erf(),
        "Exp" => x[0].exp(),
        "Gelu" if attributes.text("approximate") == "tanh" => x[0].gelu_tanh(),
        "HardSwish" => x[0] * (x[0] / 6.0 + 0.5).clamp(0.0, 1.0),
        "Identity" => x[0],
        "Log" => x[0].log(),
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
        "Sum" => x.iter().copied().reduce(|a, b| a + b).unwrap(),
        "Pow" => x[0].pow(x[1]),
        "Max" => x[0].max(x[1]),
        "Clip" => x[0].max(x[1]).min(x[2]),
        "Greater" => x[0].gt(x[1]),
        "Where" => x[0].select(x[1], x[2]),
        "MatMul" => matmul(x[0], x[1]),
        "Gemm" => x[0].dot(x[1]) + x[2],
        "Einsum" => f.einsum(attributes.text("equation"), &x),
        "Softmax" => x[0].softmax(axis(attributes.int("axis", -1))),
        "LogSoftmax" => x[0].log_softmax(axis(attributes.int("axis", -1))),
        "ReduceL2" => keep(x[0].norm(&reduced())),
        "ReduceMax" => keep(x[0].reduce_max(&reduced())),
        "ReduceProd" => keep(x[0].reduce_prod(&reduced())),
        "ReduceLogSumExp" => keep(x[0].logsumexp(&reduced())),
        "ReduceSum" => keep(x[0].reduce_sum(&reduced())),
        "ReduceSumSquare" => keep(x[0].square().reduce_sum(&reduced())),
        "ReduceMean" => keep(x[0].mean(&reduced())),
        "GlobalAveragePool" => {
            let dims = extents(x[0]);
            let y = x[0].mean(&(2..rank).collect::<Vec<_>>());
            y.reshape(dims.iter().enumerate().map(|(a, &d)| if a < 2 { d } else { 1 }).collect::<Shape>())
        }
        "AveragePool" => {
            let size = attributes.sizes("kernel_shape", rank - 2, 1);
            let strides = attributes.sizes("strides", rank - 2, 1);
            x[0].avg_pool(&size, &strides, &attributes.padding(&size), false)
        }
        "MaxPool" => {
            let with = |n: usize| vec![n; 2];
            let all = |name: &str| [with(1), attributes.sizes(name, rank - 2, 1)].concat();
            let padding = attributes.padding(&attributes.sizes("kernel_shape", rank - 2, 1));
            x[0].reduce_window_max(Window {
                size: all("kernel_shape"),
                strides: all("strides"),
                padding: [vec![(0, 0); 2], padding].concat(),
                dilation: all("dilations"),
            })
        }
        "Conv" => {
            let windows = &extents(x[1])[2..];
            let config = ConvConfig::new(rank - 2)
                .strides(&attributes.sizes("strides", rank - 2, 1))
                .rhs_dilation(&attributes.sizes("dilations", rank - 2, 1))
                .padding(&attributes.padding(windows));
            let y = x[0].conv(x[1], &config);
            x.get(2).map_or(y, |&bias| y + per_channel(bias, rank))
        }
        "ConvTranspose" => {
            let strides = attributes.sizes("strides", rank - 2, 1);
            x[0].conv_transpose(x[1], &ConvTransposeConfig { strides, ..ConvTransposeConfig::new(rank - 2) })
        }
        "BatchNormalization" => {
            let axes: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
            let (mean, variance) = (x[0].mean(&axes), x[0].variance(&axes));
            let y = (x[0] - per_channel(mean, rank)) / per_channel((variance + 1e-5).sqrt(), rank);
            let momentum = attributes.float("momentum", 0.9);
            let running = |old: Tensor<'f>, new: Tensor<'f>| old * momentum + new * (1.0 - momentum);
            return vec![
                y * per_channel(x[1], rank) + per_channel(x[2], rank),
                running(x[3], mean),
                running(x[4], variance),
            ];
        }
        "LayerNormalization" => {
            let last = rank - 1;
            let centred = x[0] - x[0].mean(&[last]).unsqueeze(last);
            centred / (x[0].variance(&[last]) + 1e-5).sqrt().unsqueeze(last) * x[1] + x[2]
        }
        "SoftmaxCrossEntropyLoss" => {
            let classes = extents(x[0])[1];
            let of_label = x[1].one_hot(classes, dtype);
            let log_p = x[0].transpose(&[0, 2, 1]).log_softmax(2);
            -(log_p * of_label).reduce_sum(&[2]).mean_all()
        }
        "CumSum" => {
            let axis = axis(integers(1)[0]);
            let turned =
                |y: Tensor<'f>| if attributes.int("reverse", 0) == 1 { y.reverse(&[axis]) } else { y };
            let sum = turned(x[0]).cumsum(axis);
            let whole = extents(sum)[axis];
            let exclusive = attributes.int("exclusive", 0) == 1;
            turned(if exclusive { sum.pad_axis(axis, 1, 0, 0.0).slice_axis(axis, 0, whole) } else { sum })
        }
        "Transpose" => {
            let permutation = attributes.sizes("perm", rank, 0);
            x[0].transpose(&permutation)
        }
        "Reshape" | "Flatten" => {
            let wanted = if op == "Flatten" {
                let n = attributes.int("axis", 1) as usize;
                vec![extents(x[0])[..n].iter().product::<usize>() as i64, -1]
            } else {
                integers(1)
            };
            let known: i64 = wanted.iter().filter(|&&d| d > 0).product();
            let all: usize = extents(x[0]).iter().product();
            let dims = wanted.iter().map(|&d| if d < 0 { all / known as usize } else { d as usize });
            x[0].reshape(dims.collect::<Shape>())
        }
        "Squeeze" => x[0].squeeze(axis(integers(1)[0])),
        "Unsqueeze" => x[0].unsqueeze(axis_of(integers(1)[0], rank + 1)),
        "Expand" => x[0].broadcast_to(integers(1).iter().map(|&d| d as usize).collect::<Shape>()),
        "Concat" => f.concatenate(&x, axis(attributes.int("axis", 0))),
        "Split" => {
            let parts: Vec<usize> = integers(1).iter().map(|&d| d as usize).collect();
            return x[0].split(&parts, axis(attributes.int("axis", 0)));
        }
        "Pad" => {
            let pads = integers(1);
            let (low, high) = pads.split_at(rank);
            let value = optional(2).unwrap_or_else(|| f.scalar(dtype, 0.0));
            x[0].pad(value, low, high, &vec![0; rank])
        }
        "DepthToSpace" => {
            let (b, d) = (attributes.int("blocksize", 1) as usize, extents(x[0]));
            let c = d[1] / (b * b);
            let y = if attributes.text("mode") == "CRD" {
                x[0].reshape([d[0], c, b, b, d[2], d[3]]).transpose(&[0, 1, 4, 2, 5, 3])
            } else {
                x[0].reshape([d[0], b, b, c, d[2], d[3]]).transpose(&[0, 3, 4, 1, 5, 2])
            };
            y.reshape([d[0], c, d[2] * b, d[3] * b])
        }
        "Resize" => {
            // Twice as many positions along the last two axes: quarters of neighbours.
            (rank - 2..rank).fold(x[0], |y, axis| {
                let n = extents(y)[axis];
                let first = y.slice_axis(axis, 0, 1);
                let last = y.slice_axis(axis, n - 1, n);
                let before = f.concatenate(&[first, y.slice_axis(axis, 0, n - 1)], axis);
                let after = f.concatenate(&[y.slice_axis(axis, 1, n), last], axis);
                let both = [before * 0.25 + y * 0.75, y * 0.75 + after * 0.25];
                let mut dims = extents(y);
                dims[axis] = 2 * n;
                f.stack(&both, axis + 1).reshape(dims.as_slice())
            })
        }
        "Gather" => x[0].take(wrapped(attributes.int("axis", 0)), axis(attributes.int("axis", 0))),
        "GatherElements" => {
            let along = attributes.int("axis", 0);
            x[0].take_along_axis(wrapped(along), axis(along))
        }
        "GatherND" if extents(x[1]).last() == Some(&1) => {
            let batch = attributes.int("batch_dims", 0);
            x[0].gather_nd(wrapped(batch), batch as usize)
        }
        "ScatterElements" if attributes.text("reduction") == "add" => {
            let along = attributes.int("axis", 0);
            x[0].put_along_axis(Combine::Add, wrapped(along), x[2], axis(along))
        }
        // The JSON leaves out the body of the loop, which is that of discounted returns.
        "Scan" => {
            let options = ScanOptions { reverse: true, ..ScanOptions::default() };
            let scanned = f.scan_with(&options, &x[..1], &x[1..], |_, sum, reward| {
                let next = sum[0] * 0.9 + reward[0];
                (vec![next], vec![next * next])
            });
            // In the order of the steps.
            return vec![scanned.carries[0], scanned.stacked[0].reverse(&[0])];
        }
        "Slice" => integers(3).iter().enumerate().fold(x[0], |y, (i, &a)| {
            let extent = extents(y)[axis(a)] as i64;
            let place = |p: i64| (if p < 0 { p + extent } else { p }).clamp(0, extent) as usize;
            y.slice_axis(axis(a), place(integers(1)[i]), place(integers(2)[i]))
        }),
        _ => panic!("no rule for {op}"),
    };
    vec![y]
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
        let dtype = if constant["dtype"] == "int64" { DType::I64 } else { DType::F64 };
        if dtype == DType::I64 {
            integers.insert(name(constant), elements.iter().map(|&v| v as i64).collect());
        }
        let literal = Literal::from_fn(dtype, &shape, |i| Scalar::F64(elements[i]));
        values.insert(name(constant), f.constant(literal));
    }
    for node in case["nodes"].as_array().unwrap() {
        let operands: Vec<&str> =
            node["inputs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        // An operand without name is left out.
        let x: Vec<Option<Tensor<'f>>> = operands.iter().map(|o| values.get(o).copied()).collect();
        let constants: Vec<_> = operands.iter().map(|o| integers.get(o).cloned()).collect();
        let results = apply(node["op"].as_str().unwrap(), &x, &constants, &node["attributes"]);
        let names = node["outputs"].as_array().unwrap().iter().map(|o| o.as_str().unwrap());
        values.extend(names.zip(results));
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
        let input = |n: &&str| f.input(n, given[*n].dtype(), given[*n].ty().shape);
        let all: Vec<Tensor<'_>> = inputs.iter().map(input).collect();
        let y = graph(f, &case, &all);
        // Indices and labels have no gradients.
        let (x, inputs): (Vec<_>, Vec<_>) =
            all.into_iter().zip(inputs.iter().copied()).filter(|(x, _)| x.dtype() == DType::F64).unzip();
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
    let elements: Vec<Elements> = values.iter().map(Elements::from).collect();
    let values: Vec<Value<'_>> = elements.iter().map(Elements::value).collect();
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
    assert_eq!(cases.len(), 62);
    cases.iter().for_each(|folder| check(folder));
}
