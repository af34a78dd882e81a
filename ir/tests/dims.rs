//! Dimensions with names: what is known when a function is declared, and what when names are bound.

use graphc_ir::{
    Bindings, DType, Dim, FunctionBuilder, Literal, Module, ModuleBuilder, Scalar, Tensor, Window, evaluate,
    gradients, shape, verify,
};

fn declare(body: impl FnOnce(&FunctionBuilder)) -> Module {
    let m = ModuleBuilder::new("m");
    m.function("f", body);
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap_or_else(|e| panic!("{e}"));
    let text = module.to_string();
    let parsed = Module::parse("m.gir", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(parsed, module, "{text}");
    module
}

fn numbers(dims: &[usize]) -> Literal {
    Literal::from_fn(DType::F64, dims, |i| Scalar::F64(((i * 37 + 11) % 101) as f64 / 50.0 - 1.0))
}

/// Compares a function and its gradient over named extents, once bound, with those declared with numbers.
fn check(
    bound: &[(&str, usize)],
    input: &[&str],
    body: for<'f> fn(&'f FunctionBuilder, Tensor<'f>) -> Tensor<'f>,
) {
    let bindings: Bindings = bound.iter().copied().collect();
    let declared = |shape: graphc_ir::Shape| {
        declare(|f| {
            let x = f.input("x", DType::F64, shape);
            let y = body(f, x);
            let axes: Vec<usize> = (0..y.rank()).collect();
            f.output("y", y);
            f.output("dx", gradients((y * y).reduce_sum(&axes), &[x])[0]);
        })
    };
    // A number alone is no name.
    let dim = |d: &str| d.parse().map_or_else(|_| Dim::from(d), Dim::Const);
    let named = declared(input.iter().map(|d| dim(d)).collect());
    let dims: Vec<usize> =
        input.iter().map(|d| dim(d).bind(&bindings).unwrap().as_const().unwrap()).collect();
    let fixed = declared(dims.as_slice().into());
    let run = |f: &graphc_ir::Function| {
        evaluate(f, &[numbers(&dims)], |_| unreachable!("no state")).unwrap().outputs
    };
    let from_named = named.functions[0].bind(&bindings).unwrap_or_else(|e| panic!("{e}\n{named}"));
    // The rule for names may give the other zero where no gradient arrives, hence numbers.
    let values = |f: &graphc_ir::Function| -> Vec<Vec<f64>> {
        run(f).iter().map(|y| y.as_slice::<f64>().unwrap().to_vec()).collect()
    };
    assert_eq!(values(&from_named), values(&fixed.functions[0]), "{bound:?}\n{named}");
}

/// Windows of two along the second axis.
fn pairs(stride: usize, padding: i64) -> Window {
    let padding = vec![(0, 0), (padding, padding)];
    Window { size: vec![1, 2], strides: vec![1, stride], padding, dilation: vec![1; 2] }
}

#[test]
fn expressions_carry_through_operations_and_gradients() {
    for (b, t) in [(1, 2), (3, 4), (4, 10)] {
        let bound = [("B", b), ("T", t)];
        check(&bound, &["B", "T", "3"], |_, x| x.reshape(shape![x.dim(0) * x.dim(1), 3]).tanh());
        check(&bound, &["2*B+1", "T"], |f, x| f.concatenate(&[x, x * 2.0, x], 0));
        check(&bound, &["B", "T"], |_, x| x.slice_axis(1, 1, x.dim(1)) - x.slice_axis(1, 0, x.dim(1) - 1));
        check(&bound, &["T", "B"], |_, x| x.pad_axis(0, 1, 2, 0.5));
        check(&bound, &["T", "B"], |f, x| {
            let op = graphc_ir::ops::Slice {
                starts: vec![0.into(), 0.into()],
                limits: vec![x.dim(0), x.dim(1)],
                strides: vec![2, 1],
            };
            f.push(op, &[x])
        });
        check(&bound, &["B", "T"], |_, x| {
            x.reduce_window_sum(pairs(2, 0)) + x.reduce_window_max(pairs(2, 0))
        });
        check(&bound, &["B", "T"], |_, x| x.reduce_window_sum(pairs(1, 1)));
    }
}

#[test]
fn extrema_and_products_over_named_axes_have_gradients() {
    for (b, t) in [(1, 2), (3, 5), (7, 1)] {
        check(&[("B", b), ("T", t)], &["B", "T"], |_, x| x.reduce_max(&[0]));
        check(&[("B", b), ("T", t)], &["B", "T"], |_, x| x.reduce_min(&[0, 1]));
        check(&[("B", b), ("T", t)], &["B", "T"], |_, x| x.round().reduce_max(&[0, 1]) * x.reduce_max(&[1]));
    }
    // With two factors the product of the others is exact in any order.
    check(&[("B", 3)], &["B", "2"], |_, x| x.reduce_prod(&[1]));
    check(&[("B", 2)], &["B", "3"], |_, x| x.reduce_prod(&[0]));
}

#[test]
fn what_cannot_be_is_said_when_names_are_bound() {
    let m = declare(|f| {
        let x = f.input("x", DType::F32, shape!["T"]);
        f.output("y", x.reshape(shape!["T/2", 2]));
        f.output("z", x.slice_axis(0, 0, Dim::from("T") - 3));
    });
    let error = |t| m.functions[0].bind(&Bindings::new().with("T", t)).unwrap_err().to_string();
    assert!(error(5).contains("reshape: T/2 is not a whole number for T=5"), "{}", error(5));
    assert!(error(5).contains("dims.rs:"), "{}", error(5));
    assert!(error(2).contains("slice: T-3 is -1, which is negative, for T=2"), "{}", error(2));
    assert_eq!(m.open_dims(&m.functions[0]), ["T".into()]);
}

#[test]
fn what_is_known_to_be_wrong_is_said_at_once() {
    let error = |body: fn(&FunctionBuilder)| {
        let m = ModuleBuilder::new("m");
        m.function("f", body);
        m.build().unwrap_err().to_string()
    };
    let e = error(|f| {
        let x = f.input("x", DType::F32, shape!["B", "T"]);
        x.reshape(shape!["B*T+1"]);
    });
    assert!(e.contains("reshape: [B, T] and [B*T+1] differ in the number of elements"), "{e}");
    let e = error(|f| {
        let (x, y) = (f.input("x", DType::F32, shape!["2*B"]), f.input("y", DType::F32, shape!["B"]));
        f.push(graphc_ir::ops::Add {}, &[x, y]);
    });
    assert!(e.contains("[2*B]") && e.contains("[B]"), "{e}");
}

#[test]
fn names_in_attributes_alone_are_open() {
    let m = declare(|f| f.output("n", f.extent(DType::I64, shape!["N", "M/2"])));
    let open = m.open_dims(&m.functions[0]);
    assert_eq!(open, ["M".into(), "N".into()]);
}
