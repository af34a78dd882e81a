//! Every operation's own samples: shape rule, reference semantics and gradient agree.

mod common;

use common::cases;
use graphc_ir::testing::Sample;
use graphc_ir::{DType, Literal, Op};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The sample with float operands widened to f64, where finite differences are accurate.
fn widened(s: &Sample) -> Vec<Literal> {
    let widen = |l: &Literal| match l.dtype() {
        DType::F32 => Literal::from_fn(DType::F64, l.dims(), |i| l.get(i)),
        _ => l.clone(),
    };
    s.operands.iter().map(widen).collect()
}

fn check_gradient(s: &Sample) -> Result<(), TestCaseError> {
    let operands = widened(s);
    let types: Vec<_> = operands.iter().map(Literal::ty).collect();
    let Ok(out) = s.op.infer(&types) else { return Ok(()) };
    if !s.smooth || out.dtype != DType::F64 {
        return Ok(());
    }
    common::check_gradient(&operands, |f, x| f.push(s.op.clone(), x))
}

fn check(s: &Sample) -> Result<(), TestCaseError> {
    let out = s.op.infer(&s.types()).map_err(|e| TestCaseError::fail(format!("refused: {e}")))?;
    let static_out = graphc_ir::StaticType::of(&out).unwrap();
    let operands: Vec<&Literal> = s.operands.iter().collect();
    let value = s.op.eval(&operands, &static_out).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(value.ty(), out);
    check_gradient(s)
}

#[test]
fn every_operation_agrees_with_its_rules() {
    let mut failures = Vec::new();
    for (name, samples) in Op::all_samples() {
        let Some(samples) = samples else { continue };
        let mut runner =
            TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        if let Err(e) = runner.run(&samples, |s| check(&s)) {
            failures.push(format!("{name}: {e}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
