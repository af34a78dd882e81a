//! Operations that move data, slide windows and convolve: shape rules, refusals, known values.

use graphc_ir::ops::{
    CheckIndex, ConvConfig, Convolution, DynamicSlice, Gather, IsNan, Pad, ReduceWindowMax, Slice, Tanh,
};
use graphc_ir::{
    Bindings, BuildErrors, DType, Dim, EvalError, FunctionBuilder, Literal, Module, ModuleBuilder, Op,
    Tensor, TensorType, Window, evaluate, gradients, shape,
};

fn module(body: impl FnOnce(&FunctionBuilder)) -> Result<Module, BuildErrors> {
    let m = ModuleBuilder::new("test");
    m.function("f", body);
    m.build()
}

/// Value of `body` of an `f64` constant.
fn run(x: &Literal, body: impl for<'f> FnOnce(Tensor<'f>) -> Tensor<'f>) -> Literal {
    let module = module(|f| f.output("y", body(f.constant(x.clone())))).unwrap_or_else(|e| panic!("{e}"));
    evaluate(&module.functions[0], &[], |_| unreachable!()).unwrap().outputs.remove(0)
}

fn f64s(dims: &[usize], values: &[f64]) -> Literal {
    Literal::new(dims, values.to_vec()).unwrap()
}

fn refusal(op: impl Into<Op>, operands: &[TensorType]) -> String {
    match op.into().infer(operands) {
        Ok(ty) => panic!("accepted as {ty}"),
        Err(e) => e.to_string(),
    }
}

fn check_refusal(op: impl Into<Op>, operands: &[TensorType], expected: &str) {
    let message = refusal(op, operands);
    assert!(message.contains(expected), "`{message}` does not say `{expected}`");
}

fn f32(shape: impl Into<graphc_ir::Shape>) -> TensorType {
    TensorType::new(DType::F32, shape)
}

/// A text module has no builder that would convert operands.
#[test]
fn types_that_an_operation_cannot_compute_with_are_refused() {
    let half = |dims: &[usize]| TensorType::new(DType::BF16, dims);
    let u8s = |dims: &[usize]| TensorType::new(DType::U8, dims);
    check_refusal(Tanh {}, &[half(&[2])], "operand 0 is bf16, must be a float: `cast` it to f32");
    check_refusal(IsNan {}, &[half(&[2])], "operand 0 is bf16, must be a float: `cast` it to f32");
    let images = [half(&[1, 1, 4]), half(&[1, 1, 2])];
    check_refusal(
        Convolution::from(ConvConfig::new(1)),
        &images,
        "operand 0 is bf16, must be a float: `cast` it to f32",
    );
    check_refusal(CheckIndex { bound: 3.into() }, &[u8s(&[2])], "operand 0 is u8, must be i32 or i64");
    let gather = Gather { axes: vec![0], batch: vec![] };
    check_refusal(gather, &[f32([4]), u8s(&[2])], "operand 1 is u8, must be i32 or i64");
    let slice = DynamicSlice { sizes: [2].into() };
    check_refusal(slice, &[f32([4]), u8s(&[])], "operand 1 is u8, must be i32 or i64");
}

#[test]
fn a_tie_gives_the_gradient_to_the_first() {
    let x = f64s(&[2, 3], &[1.0, 5.0, 5.0, 5.0, 5.0, 0.0]);
    let gradient = |reduce: for<'f> fn(Tensor<'f>) -> Tensor<'f>| run(&x, |x| gradients(reduce(x), &[x])[0]);
    assert_eq!(gradient(|x| x.reduce_max(&[0, 1])), f64s(&[2, 3], &[0.0, 1.0, 0.0, 0.0, 0.0, 0.0]));
    assert_eq!(
        gradient(|x| x.reduce_max(&[1]).reduce_sum(&[0])),
        f64s(&[2, 3], &[0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    );
    let negated = f64s(&[2, 3], &[-1.0, -5.0, -5.0, -5.0, -5.0, 0.0]);
    let of_minimum = run(&negated, |x| gradients(x.reduce_min(&[0]).reduce_sum(&[0]), &[x])[0]);
    assert_eq!(of_minimum, f64s(&[2, 3], &[0.0, 1.0, 1.0, 1.0, 0.0, 0.0]));
    let nan = f64s(&[4], &[1.0, f64::NAN, 7.0, f64::NAN]);
    let to_nan = run(&nan, |x| gradients(x.reduce_max(&[0]), &[x])[0]);
    assert_eq!(to_nan, f64s(&[4], &[0.0, 1.0, 0.0, 0.0]));
}

#[test]
fn a_product_with_zeros_has_the_right_gradient() {
    let gradient = |x: &[f64]| run(&f64s(&[x.len()], x), |x| gradients(x.reduce_prod(&[0]), &[x])[0]);
    assert_eq!(gradient(&[2.0, 3.0, 5.0]), f64s(&[3], &[15.0, 10.0, 6.0]));
    assert_eq!(gradient(&[2.0, 0.0, 5.0]), f64s(&[3], &[0.0, 10.0, 0.0]));
    assert_eq!(gradient(&[0.0, 0.0, 5.0]), f64s(&[3], &[0.0, 0.0, 0.0]));
    // The mixed second derivative of x*y*z at (0, 0, 5) is 5.
    let second = run(&f64s(&[3], &[0.0, 0.0, 5.0]), |x| {
        let first = gradients(x.reduce_prod(&[0]), &[x])[0];
        gradients(first.slice_axis(0, 0, 1).reduce_sum(&[0]), &[x])[0]
    });
    assert_eq!(second, f64s(&[3], &[0.0, 5.0, 0.0]));
}

#[test]
fn an_average_counts_padding_on_request() {
    let x = f64s(&[1, 1, 3], &[3.0, 6.0, 9.0]);
    let pool = |include| run(&x, |x| x.avg_pool(&[3], &[2], &[(1, 1)], include));
    assert_eq!(pool(true), f64s(&[1, 1, 2], &[3.0, 5.0]));
    assert_eq!(pool(false), f64s(&[1, 1, 2], &[4.5, 7.5]));
    assert_eq!(run(&x, |x| x.max_pool(&[2], &[1], &[(1, 0)])), f64s(&[1, 1, 3], &[3.0, 6.0, 9.0]));
    assert_eq!(run(&x, |x| x.global_avg_pool()), f64s(&[1, 1], &[6.0]));
}

#[test]
fn convolution_of_known_values() {
    let x = f64s(&[1, 1, 3], &[1.0, 2.0, 3.0]);
    let conv = |w: &[f64], config: ConvConfig| {
        run(&x, |x| x.conv(x.builder().constant(f64s(&[1, 1, w.len()], w)), &config))
    };
    let plain = ConvConfig::new(1);
    assert_eq!(conv(&[1.0, 10.0], plain.clone()), f64s(&[1, 1, 2], &[21.0, 32.0]));
    assert_eq!(conv(&[1.0, 10.0], plain.clone().padding(&[(1, -1)])), f64s(&[1, 1, 2], &[10.0, 21.0]));
    // A transposed convolution: the kernel meets one element or two.
    let transposed = plain.lhs_dilation(&[2]).padding(&[(1, 1)]);
    let y = conv(&[1.0, 10.0, 100.0], transposed);
    assert_eq!(y, f64s(&[1, 1, 5], &[10.0, 201.0, 20.0, 302.0, 30.0]));
}

#[test]
fn holes_are_no_terms_but_padding_is() {
    let x = f64s(&[1, 1, 2], &[1.0, 2.0]);
    let y = run(&x, |x| {
        let w = x.builder().constant(f64s(&[1, 1, 2], &[1.0, f64::INFINITY]));
        x.conv(w, &ConvConfig::new(1).lhs_dilation(&[2]).padding(&[(0, 2)]))
    });
    let y: Vec<f64> = y.as_slice().unwrap().to_vec();
    // Windows (1, hole), (hole, 2), (2, hole), (hole, padding).
    assert_eq!((y[0], y[1], y[2]), (1.0, f64::INFINITY, 2.0));
    assert!(y[3].is_nan());
}

#[test]
fn named_batches_train_through_grouped_convolutions_and_pools() {
    let build = |n: Dim| {
        module(|f| {
            let x = f.input("x", DType::F64, shape![n, 4, 6]);
            let w = f.constant(Literal::from_fn(DType::F64, &[4, 2, 3], |i| {
                graphc_ir::Scalar::F64((i % 7) as f64 - 3.0)
            }));
            let y = x.conv(w, &ConvConfig::new(1).padding(&[(1, 1)]).groups(2));
            let y = y.max_pool(&[2], &[2], &[(0, 0)]).global_avg_pool();
            let loss = y.reduce_sum(&[0, 1]);
            for (i, g) in gradients(loss, &[x, w]).into_iter().enumerate() {
                f.output(&format!("g{i}"), g);
            }
        })
    };
    let named = build(Dim::from("B")).unwrap_or_else(|e| panic!("{e}"));
    let f = &named.functions[0];
    assert_eq!(f.graph.ty(f.outputs[0].node).shape, shape!["B", 4, 6]);
    assert_eq!(f.graph.ty(f.outputs[1].node).shape, shape![4, 2, 3]);
    for n in [0, 1, 3] {
        let fixed = build(n.into()).unwrap_or_else(|e| panic!("{e}"));
        let bound = f.bind(&Bindings::new().with("B", n)).unwrap_or_else(|e| panic!("{e}"));
        let x = Literal::from_fn(DType::F64, &[n, 4, 6], |i| graphc_ir::Scalar::F64((i * 37 % 101) as f64));
        let value =
            |f: &graphc_ir::Function| evaluate(f, std::slice::from_ref(&x), |_| unreachable!()).unwrap();
        assert_eq!(value(&bound), value(&fixed.functions[0]));
    }
}

#[test]
fn named_dimensions_pass_through_whole() {
    let m = module(|f| {
        let x = f.input("x", DType::F32, shape!["B", 5]);
        let i = f.input("i", DType::I32, shape!["T"]);
        f.output("a", x.slice_axis(1, 1, 3).pad_axis(1, 2, -1, 0.5).reverse(&[0, 1]));
        f.output("b", x.take(i, 1));
        f.output("c", f.concatenate(&[x, x], 1));
        f.output("d", x.argmax(0));
        f.output("e", f.iota(DType::F32, shape!["B", 3], 0));
        let loss = (x.take(i, 0) * 2.0).reduce_sum(&[0, 1]) + x.reduce_max(&[1]).reduce_sum(&[0]);
        f.output("g", gradients(loss, &[x])[0]);
    })
    .unwrap_or_else(|e| panic!("{e}"));
    let f = &m.functions[0];
    let types: Vec<String> = f.outputs.iter().map(|o| f.graph.ty(o.node).to_string()).collect();
    assert_eq!(types.join(" "), "f32[B, 3] f32[B, T] f32[B, 10] i32[5] f32[B, 3] f32[B, 5]");
}

#[test]
fn binding_a_name_keeps_slices_whole() {
    let mut op = Op::from(Slice { starts: vec![0.into()], limits: vec!["B".into()], strides: vec![1] });
    assert_eq!(op.infer(&[f32(shape!["B"])]).unwrap(), f32(shape!["B"]));
    op.bind(&Bindings::new().with("B", 7));
    assert_eq!(op.infer(&[f32([7])]).unwrap(), f32([7]));
}

#[test]
fn an_index_out_of_range_is_named() {
    let x = f64s(&[0, 2], &[]);
    let indices = Literal::new(&[3], vec![1i64, 2, -1]).unwrap();
    let out = graphc_ir::StaticType { dtype: DType::F64, dims: vec![0, 3] };
    let e = Op::from(Gather { axes: vec![1], batch: vec![] }).eval(&[&x, &indices], &out).unwrap_err();
    assert_eq!(e, EvalError::IndexOutOfRange { op: "gather", position: 1, value: 2, bound: 2 });
}

#[test]
fn refusals_name_axes_and_extents() {
    let slice = |start: usize, limit: Dim, stride| Slice {
        starts: vec![start.into()],
        limits: vec![limit],
        strides: vec![stride],
    };
    check_refusal(slice(2, 9.into(), 1), &[f32([8])], "axis 0: 2..9 is not a range within 0..8");
    check_refusal(slice(5, 2.into(), 1), &[f32([8])], "axis 0: 5..2");
    check_refusal(slice(0, 8.into(), 0), &[f32([8])], "the stride of axis 0 is 0");
    check_refusal(slice(1, "B+1".into(), 1), &[f32(shape!["B"])], "1..B+1 with stride 1 is not a range");
    check_refusal(slice(3, 2.into(), 1), &[f32(shape!["B"])], "3..2 with stride 1 is not a range");

    let pad = |low, high, interior| Pad { low: vec![low], high: vec![high], interior: vec![interior] };
    let value = f32([]);
    check_refusal(pad(-5, -4, 0), &[f32([8]), value.clone()], "axis 0 of extent 8 would get extent -1");
    let padded = Op::from(pad(1, -3, 0)).infer(&[f32(shape!["B"]), value.clone()]).unwrap();
    assert_eq!(padded, f32(shape!["B-2"]));
    check_refusal(
        pad(1, 0, 2),
        &[f32(shape!["B"]), value.clone()],
        "the named extent B: it cannot be padded by 1, 0 and 2 inside",
    );
    check_refusal(pad(i64::MIN, i64::MAX, 0), &[f32([8]), value.clone()], "beyond the limit of 2^44");
    check_refusal(pad(0, 0, usize::MAX), &[f32([8]), value.clone()], "at most 2^44");
    check_refusal(pad(0, 0, 1 << 43), &[f32([8]), value.clone()], "would get extent");
    check_refusal(pad(1 << 43, 0, 0), &[f32([8]), value], "more than 2^40 elements");

    let window = |size, stride, padding, dilation| {
        ReduceWindowMax::new(Window {
            size: vec![size],
            strides: vec![stride],
            padding: vec![padding],
            dilation: vec![dilation],
        })
    };
    check_refusal(window(0, 1, (0, 0), 1), &[f32([8])], "window size [0]");
    check_refusal(window(usize::MAX, 1, (0, 0), usize::MAX), &[f32([8])], "window size");
    check_refusal(window(2, 1, (0, 0), usize::MAX), &[f32([8])], "the dilation of axis 0");
    check_refusal(window(3, 1, (0, 0), 8), &[f32([8])], "a window that reaches over 17 positions");
    let slid = |op: ReduceWindowMax| Op::from(op).infer(&[f32(shape!["B"])]).unwrap();
    assert_eq!(slid(window(2, 1, (0, 0), 1)), f32(shape!["B-1"]));
    assert_eq!(slid(window(2, 2, (0, 0), 1)), f32(shape!["B/2"]));
    check_refusal(window(3, 2, (0, 0), 1), &[f32(shape!["B"])], "must lie side by side or have a step of 1");
    check_refusal(window(1, 1, (-5, -5), 1), &[f32([8])], "does not fit in -2");

    let config = ConvConfig::new(1);
    let conv = |config: &ConvConfig| Op::from(Convolution::from(config.clone()));
    let (x, w) = (f32([2, 6, 8]), f32([4, 3, 3]));
    let pair = [x.clone(), w.clone()];
    check_refusal(conv(&config), &pair, "x axis 1 has 6 channels, w axis 1 takes 3 in each of 1 groups");
    check_refusal(conv(&config.clone().groups(0)), &pair, "groups 0");
    check_refusal(conv(&config.clone().groups(2).strides(&[0])), &pair, "the stride of axis 2 is 0");
    check_refusal(
        conv(&config.clone().groups(2).lhs_dilation(&[usize::MAX])),
        &pair,
        "the lhs dilation of axis 2",
    );
    check_refusal(conv(&config.clone().groups(2).padding(&[(-9, 0)])), &pair, "axis 2: a window");
    check_refusal(
        conv(&config.clone().groups(2)),
        &[x, f32([5, 3, 3])],
        "w axis 0 is 5, not a multiple of 2 groups",
    );
    check_refusal(conv(&config), &[f32([2, 3]), w], "x has rank 2, 1 spatial axes need 3");
    check_refusal(conv(&config), &[f32(shape![2, 3, "T"]), f32([4, 3, 3])], "axis 2 is T in x");
}
