//! The verifier: one broken module per rule. And the gradient function's mistakes.

use graphc_ir::ops::{Add, Call, Input, ReadState, ResultOf};
use graphc_ir::{
    DType, Function, Initializer, Module, ModuleBuilder, Node, Origin, Output, Region, StateId, TensorType,
    Update, gradient_function, shape, verify,
};

/// A good module: state `w` and `n`, one function with input, output and update.
fn module() -> Module {
    let m = ModuleBuilder::new("m");
    let w = m.param("w", DType::F32, shape![3], Initializer::ONES);
    m.state("n", DType::I64, shape![], Initializer::ZEROS);
    m.function("f", |f| {
        let x = f.input("x", DType::F32, shape![3]);
        let y = x + f.read(&w);
        f.output("y", y);
        f.output("loss", (y * y).reduce_sum(&[0]));
        f.update(&w, y);
    });
    let m = m.build().unwrap();
    verify(&m).unwrap();
    m
}

#[track_caller]
fn broken(change: impl FnOnce(&mut Module), expected: &[&str]) {
    let mut m = module();
    change(&mut m);
    let errors = verify(&m).unwrap_err();
    let messages: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(messages, expected);
    // What is broken prints all the same.
    let _ = m.to_string();
}

fn push(f: &mut Function, op: impl Into<graphc_ir::Op>, ty: TensorType) -> graphc_ir::NodeId {
    f.graph.push(Node { op: op.into(), ty, origin: Origin::default() }, &[])
}

/// An id that is of no node of the function.
fn foreign() -> graphc_ir::NodeId {
    let mut f = Function::default();
    let ty = TensorType::scalar(DType::F32);
    (0..100).map(|_| push(&mut f, Input { ty: ty.clone() }, ty.clone())).last().unwrap()
}

#[test]
fn names_are_unique() {
    broken(|m| m.state[1].name = "w".into(), &["state `w` is declared twice"]);
    broken(|m| m.functions.push(m.functions[0].clone()), &["function `f` is declared twice"]);
    broken(
        |m| {
            let f = &mut m.functions[0];
            let ty = TensorType::new(DType::F32, [3]);
            let id = push(f, Input { ty: ty.clone() }, ty);
            f.graph.origin_mut(id).name = Some("x".into());
            f.inputs.push(id);
        },
        &["function `f`: input `x` is declared twice"],
    );
    broken(|m| m.functions[0].outputs[1].name = "y".into(), &["function `f`: output `y` is declared twice"]);
}

#[test]
fn inputs_and_state_have_different_names() {
    broken(
        |m| {
            let x = m.functions[0].inputs[0];
            m.functions[0].graph.origin_mut(x).name = Some("n".into());
        },
        &["function `f`: input `n` has the name of a state variable"],
    );
}

#[test]
fn names_are_short() {
    let mut m = module();
    m.functions[0].outputs[0].name = "a".repeat(257).into();
    assert!(verify(&m).unwrap_err().to_string().contains("longer than 256 bytes"));
}

#[test]
fn state_types_are_static() {
    broken(
        |m| m.state[1].ty = TensorType::new(DType::F32, shape!["B"]),
        &["state `n` has type f32[B]: its extents must be numbers"],
    );
    // Nor can its size be said.
    let mut m = module();
    m.state[1].ty = TensorType::new(DType::F32, [usize::MAX / 2, 8]);
    let error = verify(&m).unwrap_err().to_string();
    assert!(error.starts_with("state `n` has type f32["), "{error}");
}

#[test]
fn reads_match_the_state() {
    broken(
        |m| {
            let ty = TensorType::scalar(DType::F32);
            push(&mut m.functions[0], ReadState { state: StateId(7), ty: ty.clone() }, ty);
        },
        &["function `f`: node 5 reads state #7, which does not exist"],
    );
    broken(
        |m| {
            let ty = TensorType::scalar(DType::F32);
            push(&mut m.functions[0], ReadState { state: StateId(1), ty: ty.clone() }, ty);
        },
        &["function `f`: node 5 reads state `n` as f32[], it is i64[]"],
    );
}

#[test]
fn inputs_are_listed_once() {
    broken(
        |m| {
            let ty = TensorType::scalar(DType::F32);
            push(&mut m.functions[0], Input { ty: ty.clone() }, ty);
        },
        &["function `f`: input node 5 is listed 0 times"],
    );
    broken(
        |m| {
            let f = &mut m.functions[0];
            f.inputs.push(f.inputs[0]);
        },
        &["function `f`: input `x` is declared twice", "function `f`: input node 0 is listed 2 times"],
    );
    broken(
        |m| {
            let f = &mut m.functions[0];
            f.inputs.push(f.outputs[0].node);
            let y = f.outputs[0].node;
            f.graph.origin_mut(y).name = Some("y".into());
        },
        &["function `f`: input 1 is node 2, an `add`"],
    );
    broken(
        |m| m.functions[0].inputs.push(foreign()),
        &["function `f`: input 1 is node 99, which does not exist"],
    );
    // The first that does not exist.
    broken(
        |m| {
            let ty = TensorType::scalar(DType::F32);
            let next = push(&mut m.functions[0].clone(), Input { ty: ty.clone() }, ty);
            m.functions[0].inputs.push(next);
        },
        &["function `f`: input 1 is node 5, which does not exist"],
    );
    broken(
        |m| {
            let f = &mut m.functions[0];
            let x = f.inputs[0];
            f.graph.origin_mut(x).name = None;
        },
        &["function `f`: input 0 has no name"],
    );
}

#[test]
fn outputs_and_updates_exist() {
    broken(
        |m| m.functions[0].outputs.push(Output { name: "z".into(), node: foreign() }),
        &["function `f`: output `z` is node 99, which does not exist"],
    );
    broken(
        |m| m.functions[0].updates[0].value = foreign(),
        &["function `f`: the update of `w` is node 99, which does not exist"],
    );
    broken(
        |m| m.functions[0].updates[0].state = StateId(9),
        &["function `f`: an update of state #9, which does not exist"],
    );
}

#[test]
fn updates_fit_and_come_once() {
    broken(
        |m| m.functions[0].updates[0].state = StateId(1),
        &["function `f`: state `n` is i64[], its new value is f32[3]"],
    );
    broken(
        |m| {
            let u: Update = m.functions[0].updates[0];
            m.functions[0].updates.push(u);
        },
        &["function `f`: state `w` is updated twice"],
    );
}

#[test]
fn node_types_are_inferred() {
    broken(
        |m| {
            let f = &mut m.functions[0];
            let x = f.inputs[0];
            let node =
                Node { op: Add {}.into(), ty: TensorType::new(DType::F32, [4]), origin: Origin::default() };
            f.graph.push(node, &[x, x]);
        },
        &["function `f`: node 5 (`add`) has type f32[4], its operation gives f32[3]"],
    );
    let mut m = module();
    let f = &mut m.functions[0];
    let (x, loss) = (f.inputs[0], f.outputs[1].node);
    let node = Node { op: Add {}.into(), ty: TensorType::new(DType::F32, [3]), origin: Origin::default() };
    f.graph.push(node, &[x, loss]);
    assert!(verify(&m).unwrap_err().to_string().contains("function `f`: node 5: add: "));
}

#[test]
fn results_are_of_operations_that_have_them() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let (x, p) = (f.input("x", DType::F32, shape![3]), f.input("p", DType::Bool, shape![]));
        let both = f.cond(p, |_| vec![x, x.reduce_sum(&[0])], |_| vec![-x, x.reduce_max(&[0])]);
        f.output("y", both[1]);
    });
    let sound = m.build().unwrap();
    let of = |name: &str, index: usize, dims: &[usize]| {
        let mut m = sound.clone();
        let f = &mut m.functions[0];
        let ty = TensorType::new(DType::F32, dims);
        let operand = f.graph.ids().find(|&id| f.graph.op(id).name() == name).unwrap();
        let op = ResultOf { index, ty: ty.clone() }.into();
        f.graph.push(Node { op, ty, origin: Origin::default() }, &[operand]);
        verify(&m).map_err(|e| e.to_string())
    };
    of("cond", 1, &[]).unwrap();
    let error = of("cond", 1, &[3]).unwrap_err();
    assert!(error.contains("node 4 is f32[3], result 1 of node 2 is f32[]"), "{error}");
    let error = of("cond", 2, &[]).unwrap_err();
    assert!(error.contains("node 4 is result 2 of node 2 (`cond`), which has 2 results"), "{error}");
    let error = of("cond", 0, &[3]).unwrap_err();
    assert!(error.contains("the first of which is the node itself"), "{error}");
    let error = of("result", 1, &[]).unwrap_err();
    assert!(error.contains("node 4 is result 1 of node 3 (`result`), which has 1 results"), "{error}");
}

#[test]
fn every_problem_is_reported_on_a_line() {
    let mut m = module();
    m.state[1].name = "w".into();
    m.functions[0].outputs[1].name = "y".into();
    m.functions[0].updates[0].value = foreign();
    let lines = "state `w` is declared twice\n\
        function `f`: output `y` is declared twice\n\
        function `f`: the update of `w` is node 99, which does not exist";
    assert_eq!(verify(&m).unwrap_err().to_string(), lines);
}

/// A function that is called `inside` times by one that `f` calls twice; `change` breaks the innermost.
fn nested(inside: usize, change: impl FnOnce(&mut Function)) -> Module {
    let ty = TensorType::new(DType::F32, [3]);
    let function = |name: &str, ops: Vec<graphc_ir::Op>| {
        let mut f = Function { name: name.into(), ..Function::default() };
        let x = push(&mut f, Input { ty: ty.clone() }, ty.clone());
        f.graph.origin_mut(x).name = Some("x".into());
        f.inputs.push(x);
        let calls = ops.into_iter().map(|op| Node { op, ty: ty.clone(), origin: Origin::default() });
        let y = calls.fold(x, |x, call| f.graph.push(call, &[x]));
        f.outputs.push(Output { name: "y".into(), node: y });
        f
    };
    let call = |f: Function| Call { function: Region::new(f), inline: false, gradient: None };
    let mut innermost = function("innermost", Vec::new());
    change(&mut innermost);
    let inner = call(innermost);
    let middle = call(function("middle", vec![inner.into(); inside]));
    let outer = function("f", vec![middle.into(); 2]);
    Module { functions: vec![outer], ..ModuleBuilder::new("m").build().unwrap() }
}

#[test]
fn regions_are_checked_once() {
    verify(&nested(2, |_| {})).unwrap();
    for inside in [1, 3] {
        let broken = nested(inside, |f| f.outputs.push(f.outputs[0].clone()));
        let error = verify(&broken).unwrap_err().to_string();
        assert!(error.starts_with("function `innermost`: output `y` is declared twice"), "{error}");
        assert_eq!(error.matches("declared twice").count(), 1, "{error}");
    }
}

#[test]
fn gradient_function_adds_an_output_per_parameter() {
    let mut m = module();
    assert_eq!(
        gradient_function(&m, "g").unwrap_err().to_string().split(" at ").next(),
        Some("the module has no function `g`; it has `f`")
    );
    assert_eq!(
        gradient_function(&m, "f").unwrap_err().to_string().split(" at ").next(),
        Some("output `y` of function `f` is f32[3], must be a float scalar")
    );
    m.functions[0].outputs.reverse();
    let g = gradient_function(&m, "f").unwrap();
    let outputs: Vec<&str> = g.outputs.iter().map(|o| &*o.name).collect();
    assert_eq!((&*g.name, outputs), ("f.grad", vec!["loss", "y", "grad/w"]));
    assert_eq!(*g.graph.ty(g.outputs[2].node), m.state[0].ty);
    m.functions.push(g);
    verify(&m).unwrap();
    m.functions[0].outputs.clear();
    assert!(gradient_function(&m, "f").unwrap_err().to_string().contains("no output"));
}
