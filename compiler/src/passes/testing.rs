//! What the tests of passes share: declaring, printing, running and comparing functions.

use crate::pass::{Pass, PassOptions, run_passes};
use expect_test::Expect;
use graphc_ir::attr::AttrValue;
use graphc_ir::{Evaluation, Function, FunctionBuilder, Literal, ModuleBuilder, Op, Scalar, evaluate};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fmt::Write;

/// The one function of a module.
pub(crate) fn function(body: impl FnOnce(&FunctionBuilder)) -> Function {
    let m = ModuleBuilder::new("m");
    m.function("f", body);
    m.build().unwrap_or_else(|e| panic!("{e}")).functions.remove(0)
}

fn print_attr(value: &AttrValue) -> String {
    match value {
        AttrValue::Int(i) => i.to_string(),
        AttrValue::Expr(d) => d.to_string(),
        AttrValue::Region(r) => format!("@{}", r.function().name),
        AttrValue::Word(w) => w.clone(),
        AttrValue::List(items) => {
            format!("[{}]", items.iter().map(print_attr).collect::<Vec<_>>().join(", "))
        }
        AttrValue::Literal(l) => (0..l.len()).map(|i| l.get(i).to_string()).collect::<Vec<_>>().join(", "),
    }
}

/// The function as text, one node a line.
pub(crate) fn print(f: &Function) -> String {
    let mut text = String::new();
    for id in f.graph.ids() {
        let op = f.graph.op(id);
        write!(text, "%{} = {}", id.index(), op.name()).unwrap();
        for o in f.graph.operands(id) {
            write!(text, " %{}", o.index()).unwrap();
        }
        let attrs = match op {
            Op::Input(_) | Op::ReadState(_) => Vec::new(),
            Op::Constant(c) => vec![print_attr(&AttrValue::Literal(c.value.clone()))],
            op => op.attrs().iter().map(|(n, v)| format!("{n} = {}", print_attr(v))).collect(),
        };
        if !attrs.is_empty() {
            write!(text, " {{{}}}", attrs.join(", ")).unwrap();
        }
        writeln!(text, " : {}", f.graph.ty(id)).unwrap();
    }
    let outputs: Vec<String> = f.outputs.iter().map(|o| format!("{} %{}", o.name, o.node.index())).collect();
    writeln!(text, "return {}", outputs.join(", ")).unwrap();
    text
}

/// True if the bits are equal or both are NaN.
fn same_scalar(a: Scalar, b: Scalar) -> bool {
    a == b || a.dtype() == b.dtype() && a.to_f64().is_nan() && b.to_f64().is_nan()
}

/// True if type and elements are equal, any NaN for any other.
pub(crate) fn same_literal(a: &Literal, b: &Literal) -> bool {
    a.ty() == b.ty() && (0..a.len()).all(|i| same_scalar(a.get(i), b.get(i)))
}

fn values(f: &Function) -> BoxedStrategy<Vec<Literal>> {
    let types = f.inputs.iter().map(|&i| f.graph.ty(i).clone());
    let inputs: Vec<_> =
        types.map(|t| graphc_ir::testing::special(t.dtype, t.shape.as_static().unwrap())).collect();
    inputs.boxed()
}

/// Fails unless both functions give the same bits for random inputs, special values among them.
pub(crate) fn assert_same_results(before: &Function, after: &Function, cases: u32) {
    let run = |f: &Function, x: &[Literal]| -> Evaluation {
        evaluate(f, x, |_| unreachable!("the tests use no state")).unwrap()
    };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner
        .run(&values(before), |x| {
            let (a, b) = (run(before, &x), run(after, &x));
            for (i, (a, b)) in a.outputs.iter().zip(&b.outputs).enumerate() {
                prop_assert!(
                    same_literal(a, b),
                    "output {i}\nbefore:\n{}{a:?}\nafter:\n{}{b:?}",
                    print(before),
                    print(after)
                );
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

/// Runs passes, compares the text of the result, and the results of both functions.
pub(crate) fn check(passes: &[&dyn Pass], f: &Function, expected: Expect) {
    let options = PassOptions { verify: true, ..PassOptions::default() };
    let (after, _) = run_passes(f, passes, &options).unwrap_or_else(|e| panic!("{e}"));
    expected.assert_eq(&print(&after));
    assert_same_results(f, &after, 128);
    let (again, _) = run_passes(&after, passes, &options).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(print(&again), print(&after), "a second run finds nothing");
}
