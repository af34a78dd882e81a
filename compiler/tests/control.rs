//! Loops and branches as they are compiled: size of the code, errors and interrupts inside of them.

use graphc_compiler::program::Program;
use graphc_compiler::{CompileOptions, compile, compile_stages};
use graphc_ir::{
    Bindings, DType, Initializer, Literal, Module, ModuleBuilder, Scalar, ScanOptions, evaluate, gradients,
};
use graphc_runtime::{Executable, RunContext, RuntimeError, State, ThreadPool, Value, ValueMut};
use std::sync::Arc;
use std::time::Duration;

fn context(exe: &Executable) -> RunContext {
    RunContext::new(exe, Arc::new(ThreadPool::new(2).unwrap())).unwrap()
}

/// A recurrence of that many steps with its gradient.
fn recurrence(steps: usize) -> Module {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, [steps, 4]);
        let w = f.input("w", DType::F32, [4, 4]);
        let zero = f.full(DType::F32, [4], 0.0);
        let h = f.scan(&[zero], &[x], |_, h, x| (vec![(h[0].dot(w) + x[0]).tanh()], vec![])).carries[0];
        let loss = (h * h).reduce_sum(&[0]);
        f.output("dw", gradients(loss, &[w])[0]);
    });
    m.build().unwrap()
}

#[test]
fn a_million_steps_take_no_more_code_than_ten() {
    let compiled = |steps| {
        let (exe, stages) =
            compile_stages(&recurrence(steps), "f", &Bindings::new(), &CompileOptions::default()).unwrap();
        (exe, stages.code_bytes, stages.total_time())
    };
    let ((_, short, _), (exe, long, time)) = (compiled(10), compiled(1_000_000));
    // Only numbers in the code differ.
    assert!(long.abs_diff(short) < 1024, "{short} and {long} bytes");
    assert!(time < Duration::from_secs(2), "{time:?}");
    let (x, w) = (vec![0.1f32; 4_000_000], vec![0.05f32; 16]);
    let mut dw = vec![0f32; 16];
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    exe.run(
        &mut context(&exe),
        &mut state,
        &[Value::from(&x[..]), Value::from(&w[..])],
        &mut [ValueMut::from(&mut dw[..])],
    )
    .unwrap();
    assert!(dw.iter().all(|v| v.is_finite() && *v != 0.0), "{dw:?}");
}

/// Recurrent weights that are read across are written anew once for all steps, in panels where their number
/// allows it.
#[test]
fn weights_of_a_recurrence_are_packed_before_it() {
    const BATCH: usize = 8;
    for hidden in [6, 64, 256] {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let h = f.input("h", DType::F32, [BATCH, hidden]);
            let w = f.input("w", DType::F32, [hidden, hidden]);
            let options = ScanOptions { length: Some(3.into()), ..ScanOptions::default() };
            let scanned = f.scan_with(&options, &[h], &[], |_, h, _| {
                (vec![h[0].dot_general(w, (&[], &[]), (&[1], &[1])).tanh()], vec![])
            });
            f.output("y", scanned.carries[0]);
        });
        let module = m.build().unwrap();
        let (exe, stages) =
            compile_stages(&module, "f", &Bindings::new(), &CompileOptions::default()).unwrap();
        let program = &stages.assembled.program;
        let packs = |p: &Program| p.kernels.iter().filter(|k| k.name.ends_with("_rhs0")).count();
        let body = &program.controls.values().next().unwrap().bodies[0].assembled.program;
        assert_eq!((packs(program), packs(body)), (1, 0), "{hidden}");
        let numbers = |seed: usize, n: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 37 + seed) % 101) as f32 / 500.0 - 0.1).collect()
        };
        let (h, w) = (numbers(1, BATCH * hidden), numbers(2, hidden * hidden));
        let literal =
            |dims: [usize; 2], v: &[f32]| Literal::from_fn(DType::F32, &dims, |i| Scalar::F32(v[i]));
        let inputs = [literal([BATCH, hidden], &h), literal([hidden, hidden], &w)];
        let expected = evaluate(module.function("f").unwrap(), &inputs, |_| unreachable!("no state"));
        let mut y = vec![0f32; BATCH * hidden];
        let mut state = State::zeros(exe.state_layout().clone()).unwrap();
        let given = [Value::from(&h[..]), Value::from(&w[..])];
        exe.run(&mut context(&exe), &mut state, &given, &mut [ValueMut::from(&mut y[..])]).unwrap();
        let expected = &expected.unwrap().outputs[0];
        let different = (0..y.len()).find(|&i| expected.get(i) != Scalar::F32(y[i]));
        assert_eq!(different, None, "{hidden}");
    }
}

#[test]
fn a_loop_without_end_can_be_interrupted() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, []);
        f.output("y", f.while_loop(&[x], |_, c| c[0].eq(c[0]), |_, c| vec![c[0]])[0]);
    });
    let exe = compile(&m.build().unwrap(), "f", &Bindings::new(), &CompileOptions::default()).unwrap();
    let mut cx = context(&exe);
    let interrupter = cx.interrupter();
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    let stop = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        interrupter.interrupt();
    });
    let mut run = |x: f32| {
        let mut y = [0f32];
        exe.run(&mut cx, &mut state, &[Value::from(&[x][..])], &mut [ValueMut::from(&mut y[..])])
    };
    let error = run(1.0).unwrap_err();
    assert!(matches!(error, RuntimeError::Interrupted { .. }), "{error}");
    assert_eq!(error.to_string(), "`f` was interrupted");
    stop.join().unwrap();
    // The context is as good as new: NaN is not equal to itself.
    run(f32::NAN).unwrap();
}

#[test]
fn an_index_out_of_range_inside_a_loop_leaves_the_state_alone() {
    let m = ModuleBuilder::new("m");
    let total = m.state("total", DType::F32, [2], Initializer::Constant(1.0));
    m.function("f", |f| {
        let table = f.input("table", DType::F32, [3, 2]);
        let at = f.input("at", DType::I32, [4]);
        let old = f.read(&total);
        f.update(&total, old * 2.0);
        let zero = f.full(DType::F32, [2], 0.0);
        let options = ScanOptions::default();
        let sum = f.scan_with(&options, &[zero], &[at], |_, sum, at| {
            let row = table.take(at[0].reshape([1]), 0).reshape([2]);
            (vec![sum[0] + row], vec![])
        });
        f.output("sum", sum.carries[0]);
    });
    let module = m.build().unwrap();
    let exe = compile(&module, "f", &Bindings::new(), &CompileOptions::default()).unwrap();
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    state.get_mut::<f32>("total").unwrap().fill(1.0);
    let table = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let run = |state: &mut State, at: [i32; 4]| {
        let mut sum = [0f32; 2];
        let inputs = [Value::from(&table[..]), Value::from(&at[..])];
        exe.run(&mut context(&exe), state, &inputs, &mut [ValueMut::from(&mut sum[..])]).map(|()| sum)
    };
    let error = run(&mut state, [0, 1, 3, 0]).unwrap_err().to_string();
    assert!(error.contains("gather: index 3 at position 0 is out of range 0..3"), "{error}");
    assert!(error.contains("control.rs:"), "{error}");
    assert_eq!(state.get::<f32>("total").unwrap(), [1.0, 1.0]);
    assert_eq!(run(&mut state, [0, 1, 2, 0]).unwrap(), [10.0, 14.0]);
    assert_eq!(state.get::<f32>("total").unwrap(), [2.0, 2.0]);
}
