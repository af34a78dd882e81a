//! Generated code against the interpreter, bit for bit: every operation's own samples, at several
//! levels, on one and two threads, with the host's instructions and with fewer.

mod common;

use graphc_compiler::{CompileOptions, Features, OptLevel, compile};
use graphc_ir::testing::Sample;
use graphc_ir::{Bindings, DType, Literal, Module, ModuleBuilder, Op, Scalar, evaluate};
use graphc_runtime::{RunContext, State, ThreadPool, Value, ValueMut};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::Arc;

fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(24)
}

/// Elements of a tensor, owned, as the runtime takes and gives them.
#[derive(Clone, Debug)]
enum Host {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
}

impl Host {
    fn of(l: &Literal) -> Self {
        match l.dtype() {
            DType::F32 => Self::F32(l.as_slice().unwrap().to_vec()),
            DType::F64 => Self::F64(l.as_slice().unwrap().to_vec()),
            DType::I32 => Self::I32(l.as_slice().unwrap().to_vec()),
            DType::I64 => Self::I64(l.as_slice().unwrap().to_vec()),
            DType::Bool => Self::Bool(l.as_slice().unwrap().to_vec()),
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::F32(v) => Value::from(v.as_slice()),
            Self::F64(v) => Value::from(v.as_slice()),
            Self::I32(v) => Value::from(v.as_slice()),
            Self::I64(v) => Value::from(v.as_slice()),
            Self::Bool(v) => Value::from(v.as_slice()),
        }
    }

    fn value_mut(&mut self) -> ValueMut<'_> {
        match self {
            Self::F32(v) => ValueMut::from(v.as_mut_slice()),
            Self::F64(v) => ValueMut::from(v.as_mut_slice()),
            Self::I32(v) => ValueMut::from(v.as_mut_slice()),
            Self::I64(v) => ValueMut::from(v.as_mut_slice()),
            Self::Bool(v) => ValueMut::from(v.as_mut_slice()),
        }
    }

    fn get(&self, i: usize) -> Scalar {
        match self {
            Self::F32(v) => Scalar::F32(v[i]),
            Self::F64(v) => Scalar::F64(v[i]),
            Self::I32(v) => Scalar::I32(v[i]),
            Self::I64(v) => Scalar::I64(v[i]),
            Self::Bool(v) => Scalar::Bool(v[i]),
        }
    }
}

/// Equal bits, any NaN being equal to any NaN.
fn same(a: Scalar, b: Scalar) -> bool {
    a == b || (a.dtype() == b.dtype() && a.to_f64().is_nan() && b.to_f64().is_nan())
}

/// Runs function `f` of `module` compiled at `level` and compares with the interpreter's outputs.
fn check_function(
    module: &Module,
    inputs: &[Literal],
    level: OptLevel,
    threads: usize,
    features: Features,
) -> Result<(), TestCaseError> {
    let expected = evaluate(&module.functions[0], inputs, |_| unreachable!("no state"));
    let options = CompileOptions { max_threads: 3, features, ..CompileOptions::at(level) };
    let exe =
        compile(module, "f", &Bindings::new(), &options).map_err(|e| TestCaseError::fail(e.to_string()))?;
    let mut cx = RunContext::new(&exe, Arc::new(ThreadPool::new(threads).unwrap())).unwrap();
    cx.fill_arena(0xa5);
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    let inputs: Vec<Host> = inputs.iter().map(Host::of).collect();
    let values: Vec<Value<'_>> = inputs.iter().map(Host::value).collect();
    let f = &module.functions[0];
    let mut outputs: Vec<Host> = f
        .outputs
        .iter()
        .map(|o| {
            let ty = f.graph.ty(o.node);
            Host::of(&Literal::full(&ty.shape.as_static().unwrap(), Scalar::from_bits(ty.dtype, 0)))
        })
        .collect();
    let mut slots: Vec<ValueMut<'_>> = outputs.iter_mut().map(Host::value_mut).collect();
    let ran = exe.run(&mut cx, &mut state, &values, &mut slots);
    drop(slots);
    let expected = match expected {
        Ok(e) => e.outputs,
        Err(_) => {
            prop_assert!(ran.is_err(), "the interpreter fails, generated code does not");
            return Ok(());
        }
    };
    ran.map_err(|e| TestCaseError::fail(e.to_string()))?;
    for (n, (e, g)) in expected.iter().zip(&outputs).enumerate() {
        for i in 0..e.len() {
            prop_assert!(
                same(e.get(i), g.get(i)),
                "{level:?}, {threads} threads: output {n} element {i}: interpreter {}, generated {}",
                e.get(i),
                g.get(i)
            );
        }
    }
    Ok(())
}

fn check(s: &Sample) -> Result<(), TestCaseError> {
    let m = ModuleBuilder::new("sample");
    m.function("f", |f| {
        let x: Vec<_> = s
            .operands
            .iter()
            .enumerate()
            .map(|(i, l)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape))
            .collect();
        f.output("y", f.push(s.op.clone(), &x));
    });
    let module = m.build().map_err(|e| TestCaseError::fail(e.to_string()))?;
    check_function(&module, &s.operands, OptLevel::O0, 1, Features::Host)?;
    check_function(&module, &s.operands, OptLevel::O2, 1, Features::Avx)?;
    check_function(&module, &s.operands, OptLevel::O3, 1, Features::Avx2)?;
    check_function(&module, &s.operands, OptLevel::O3, 2, Features::Host)
}

#[test]
fn every_operation_gives_the_interpreters_bits() {
    let only = std::env::var("GRAPHC_OP").ok();
    let mut failures = Vec::new();
    for (name, samples) in Op::all_samples() {
        let Some(samples) = samples else { continue };
        if only.as_deref().is_some_and(|o| o != name) {
            continue;
        }
        let mut runner =
            TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runner.run(&samples, |s| check(&s)).map_err(|e| e.to_string())
        }));
        match run {
            Ok(Ok(())) => {}
            Ok(Err(e)) => failures.push(format!("{name}: {e}")),
            Err(_) => failures.push(format!("{name}: panicked")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn check_case(c: &common::Case, what: &str) {
    for (level, threads) in [(OptLevel::O0, 1), (OptLevel::O3, 2)] {
        check_function(&c.module, &c.inputs, level, threads, Features::Host)
            .unwrap_or_else(|e| panic!("{} {what}: {e}", c.name));
    }
}

#[test]
fn stages_over_rows_give_the_interpreters_bits() {
    for (rows, columns) in common::SHAPES {
        for c in common::row_cases(rows, columns) {
            check_case(&c, &format!("of {rows} x {columns}"));
        }
    }
}

#[test]
fn long_reductions_give_the_interpreters_bits() {
    for c in common::long_cases() {
        check_case(&c, "of all");
    }
}
