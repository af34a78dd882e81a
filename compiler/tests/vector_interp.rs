//! Interpreted vector IR against the reference interpreter, bit for bit: every operation's own
//! samples and composite graphs, without and with fusion, in one piece and in three. The vector
//! interpreter fails on an access outside of its buffer, so this also shows that there is none.

mod common;

use common::{SHAPES, column_cases, control_cases, long_cases, numbers, row_cases};
use graphc_compiler::kernel::print::{print_kernel, print_program};
use graphc_compiler::program::Place;
use graphc_compiler::vector::interp::{InterpError, run_program};
use graphc_compiler::vector::print::print_function;
use graphc_compiler::{CompileOptions, OptLevel, compile_stages, state_layout};
use graphc_ir::ops::ConvConfig;
use graphc_ir::testing::Sample;
use graphc_ir::{Bindings, DType, Literal, Module, ModuleBuilder, Op, Scalar, evaluate};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(24)
}

/// Equal bits, any NaN being equal to any NaN.
fn same(a: Scalar, b: Scalar) -> bool {
    a == b || (a.dtype() == b.dtype() && a.to_f64().is_nan() && b.to_f64().is_nan())
}

fn bytes(l: &Literal) -> Vec<u8> {
    (0..l.len()).flat_map(|i| l.get(i).bits().to_le_bytes()[..l.dtype().size_bytes()].to_vec()).collect()
}

/// Compiles function `f` of `module` and compares what its vector IR gives with the interpreter.
fn check_function(module: &Module, inputs: &[Literal], state: &[Literal]) -> Result<(), TestCaseError> {
    let f = module.function("f").expect("the function under test is `f`");
    let layout = state_layout(module).map_err(|e| TestCaseError::fail(e.to_string()))?;
    let expected = evaluate(f, inputs, |s| state[s.index()].clone());
    for level in [OptLevel::O0, OptLevel::O3] {
        let options = CompileOptions { max_threads: 3, ..CompileOptions::at(level) };
        let (_, stages) = compile_stages(module, "f", &Bindings::new(), &options)
            .map_err(|e| TestCaseError::fail(format!("{level:?}: {e}")))?;
        let program = &stages.assembled.program;
        let dump = || {
            let kernels: String = program.kernels.iter().map(|k| print_kernel(k, &program.buffers)).collect();
            let functions: String = program.scheduled.iter().map(|s| print_function(&s.function)).collect();
            format!("{}{kernels}{functions}", print_program(program))
        };
        for pieces in [1, 3] {
            let mut memory = vec![0; layout.bytes()];
            for (entry, value) in layout.entries().iter().zip(state) {
                let value = bytes(value);
                memory[entry.offset..entry.offset + value.len()].copy_from_slice(&value);
            }
            let got = run_program(program, inputs, &mut memory, pieces);
            let e = match &expected {
                Ok(e) => e,
                Err(_) => {
                    prop_assert!(matches!(got, Err(InterpError::Index { .. })), "{level:?}: no index error");
                    continue;
                }
            };
            let got =
                got.map_err(|x| TestCaseError::fail(format!("{level:?}, {pieces} pieces: {x}\n{}", dump())))?;
            prop_assert_eq!(e.outputs.len(), got.len());
            for (n, (e, g)) in e.outputs.iter().zip(&got).enumerate() {
                let different = (0..e.len()).find(|&i| !same(e.get(i), g.get(i)));
                if let Some(i) = different {
                    let (a, b) = (e.get(i), g.get(i));
                    let message =
                        format!("{level:?}, {pieces} pieces: output {n} element {i}: {a}, vector IR {b}");
                    return Err(TestCaseError::fail(format!("{message}\n{}", dump())));
                }
            }
            for (s, value) in &e.updates {
                let value = bytes(value);
                let at = layout.entries()[s.index()].offset;
                prop_assert!(
                    memory[at..at + value.len()] == value,
                    "{level:?}, {pieces} pieces: state\n{}",
                    dump()
                );
            }
        }
    }
    Ok(())
}

fn check_sample(s: &Sample) -> Result<(), TestCaseError> {
    let m = ModuleBuilder::new("sample");
    m.function("f", |f| {
        let operands = s.operands.iter().enumerate();
        let x: Vec<_> = operands.map(|(i, l)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape)).collect();
        f.output("y", f.push(s.op.clone(), &x));
    });
    let module = m.build().map_err(|e| TestCaseError::fail(e.to_string()))?;
    check_function(&module, &s.operands, &[])
}

#[test]
fn every_operations_vector_ir_gives_the_interpreters_bits() {
    let only = std::env::var("GRAPHC_OP").ok();
    let mut failures = Vec::new();
    for (name, samples) in Op::all_samples() {
        let Some(samples) = samples else { continue };
        if only.as_deref().is_some_and(|o| o != name) {
            continue;
        }
        let mut runner =
            TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        let run = std::panic::AssertUnwindSafe(|| {
            runner.run(&samples, |s| check_sample(&s)).map_err(|e| e.to_string())
        });
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => failures.push(format!("{name}: {e}")),
            Err(_) => failures.push(format!("{name}: panicked")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn check(module: &Module, inputs: &[Literal], state: &[Literal]) {
    check_function(module, inputs, state).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_layer_with_bias_and_nonlinearity() {
    for dtype in [DType::F32, DType::F64] {
        for [m, k, n] in [[1, 1, 1], [7, 5, 3], [13, 400, 19], [130, 9, 270], [40, 784, 10]] {
            let b = ModuleBuilder::new("m");
            b.function("f", |f| {
                let x = f.input("x", dtype, [m, k]);
                let w = f.input("w", dtype, [k, n]);
                let bias = f.input("bias", dtype, [n]);
                let y = x.dot(w) + bias;
                f.output("y", y / (y.abs() + 1.0));
                f.output("sum", y.reduce_sum(&[0]));
            });
            let inputs = [numbers(dtype, &[m, k], 1), numbers(dtype, &[k, n], 2), numbers(dtype, &[n], 3)];
            check(&b.build().unwrap(), &inputs, &[]);
        }
    }
}

#[test]
fn chains_of_reductions() {
    for [rows, columns] in [[1, 1], [3, 17], [40, 10], [5, 1030], [2, 5000], [1500, 21]] {
        for axis in [0, 1] {
            let b = ModuleBuilder::new("m");
            b.function("f", |f| {
                let x = f.input("x", DType::F32, [rows, columns]);
                let kept = if axis == 0 { [1, columns] } else { [rows, 1] };
                let shifted = x - x.reduce_max(&[axis]).reshape(kept);
                let e = (shifted * shifted + 1.0).recip();
                let p = e / e.reduce_sum(&[axis]).reshape(kept);
                f.output("p", p);
                f.output("loss", (p * x).reduce_sum(&[0, 1]));
                f.output("least", x.reduce_min(&[axis]));
            });
            check(&b.build().unwrap(), &[numbers(DType::F32, &[rows, columns], 4)], &[]);
        }
    }
}

#[test]
fn stages_over_rows() {
    for (rows, columns) in SHAPES {
        for c in row_cases(rows, columns) {
            check_function(&c.module, &c.inputs, &[])
                .unwrap_or_else(|e| panic!("{} of {rows} x {columns}: {e}", c.name));
        }
    }
}

#[test]
fn the_last_stage_overwrites_what_is_not_read_again() {
    let b = ModuleBuilder::new("m");
    b.function("f", |f| {
        let (x, w) = (f.input("x", DType::F32, [12, 40]), f.input("w", DType::F32, [40, 64]));
        let p = x.dot(w).softmax(1);
        f.output("y", p.dot(f.input("v", DType::F32, [64, 40])));
    });
    let module = b.build().unwrap();
    let shapes = [[12, 40], [40, 64], [64, 40]];
    let inputs: Vec<Literal> =
        shapes.iter().zip(16..).map(|(s, seed)| numbers(DType::F32, s, seed)).collect();
    check(&module, &inputs, &[]);
    let (_, stages) = compile_stages(&module, "f", &Bindings::new(), &CompileOptions::default()).unwrap();
    let bytes = stages.assembled.program.planned_bytes;
    assert!(bytes < 2 * 12 * 64 * 4, "{bytes} bytes for one matrix");
}

#[test]
fn long_columns() {
    for c in column_cases() {
        check_function(&c.module, &c.inputs, &[]).unwrap_or_else(|e| panic!("{}: {e}", c.name));
    }
}

#[test]
fn long_reductions_have_parts() {
    for c in long_cases() {
        check_function(&c.module, &c.inputs, &[]).unwrap_or_else(|e| panic!("{}: {e}", c.name));
        let kernels = kernels(&c.module);
        assert!(kernels.iter().any(|k| k.contains("_parts ")), "{}:\n{}", c.name, kernels.concat());
    }
}

/// The kernels of `module`'s function.
fn kernels(module: &Module) -> Vec<String> {
    let (_, stages) =
        compile_stages(module, "f", &Bindings::new(), &CompileOptions::at(OptLevel::O3)).unwrap();
    let program = &stages.assembled.program;
    program.kernels.iter().map(|k| print_kernel(k, &program.buffers)).collect()
}

#[test]
fn what_follows_a_reduction_over_rows_runs_in_its_kernel() {
    let expected = [
        ("softmax", 1),
        ("softmax_f64", 1),
        ("softmax_gradient", 1),
        ("layer_norm", 1),
        ("layer_norm_gradient", 2),
        ("rms_norm", 1),
        ("activation_kept_for_norm", 1),
        ("cross_entropy_gradient", 2),
    ];
    for c in row_cases(40, 1000) {
        let Some((_, n)) = expected.iter().find(|(name, _)| *name == c.name) else { continue };
        let kernels = kernels(&c.module);
        assert_eq!(kernels.len(), *n, "{}:\n{}", c.name, kernels.concat());
    }
}

#[test]
fn convolutions_with_what_follows() {
    for (stride, padding) in [(1, 1), (2, 0), (2, 2)] {
        let b = ModuleBuilder::new("m");
        b.function("f", |f| {
            let x = f.input("x", DType::F32, [2, 3, 11, 9]);
            let w = f.input("w", DType::F32, [4, 3, 3, 3]);
            let y = x.conv2d(w, stride, padding);
            let y = y.max(0.0);
            f.output("y", y);
            f.output("pooled", y.max_pool2d(2, 2, 0));
            f.output("mean", y.global_avg_pool());
        });
        let inputs = [numbers(DType::F32, &[2, 3, 11, 9], 5), numbers(DType::F32, &[4, 3, 3, 3], 6)];
        check(&b.build().unwrap(), &inputs, &[]);
    }
}

#[test]
fn a_convolution_is_stored_in_the_order_that_is_wanted() {
    // Where its channels lie side by side.
    for (permutation, groups, kernels_in_all) in
        [([0, 2, 3, 1], 1, 2), ([0, 3, 2, 1], 1, 2), ([0, 2, 3, 1], 2, 2), ([0, 1, 3, 2], 1, 3)]
    {
        let b = ModuleBuilder::new("m");
        b.function("f", |f| {
            let x = f.input("x", DType::F32, [2, 4, 11, 9]);
            let w = f.input("w", DType::F32, [6, 4 / groups, 3, 3]);
            let bias = f.input("b", DType::F32, [6]).broadcast([2, 6, 11, 9], &[1]);
            let y = x.conv(w, &ConvConfig::new(2).padding(&[(1, 1); 2]).groups(groups));
            f.output("y", (y + bias).max(0.0).transpose(&permutation));
        });
        let module = b.build().unwrap();
        let inputs = [
            numbers(DType::F32, &[2, 4, 11, 9], 5),
            numbers(DType::F32, &[6, 4 / groups, 3, 3], 6),
            numbers(DType::F32, &[6], 7),
        ];
        check(&module, &inputs, &[]);
        // One puts the weights in order.
        let kernels = kernels(&module);
        assert_eq!(kernels.len(), kernels_in_all, "{permutation:?} {groups}:\n{}", kernels.concat());
    }
}

#[test]
fn a_gradient_step_updates_state_in_place() {
    let b = ModuleBuilder::new("m");
    let w = b.param("w", DType::F32, [9, 4], graphc_ir::Initializer::Constant(0.0));
    let v = b.state("v", DType::F32, [9, 4], graphc_ir::Initializer::Constant(0.0));
    b.function("f", |f| {
        let x = f.input("x", DType::F32, [30, 9]);
        let target = f.input("target", DType::F32, [30, 4]);
        let (w0, v0) = (f.read(&w), f.read(&v));
        let error = x.dot(w0) - target;
        let gradient = x.dot_general(error, (&[], &[]), (&[0], &[0]));
        let v1 = v0 * 0.9 + gradient;
        f.update(&v, v1);
        f.update(&w, w0 - v1 * 0.01);
        f.output("loss", (error * error).reduce_sum(&[0, 1]));
    });
    let inputs = [numbers(DType::F32, &[30, 9], 7), numbers(DType::F32, &[30, 4], 8)];
    check(&b.build().unwrap(), &inputs, &[numbers(DType::F32, &[9, 4], 9), numbers(DType::F32, &[9, 4], 10)]);
}

#[test]
fn several_copies_into_state() {
    let b = ModuleBuilder::new("m");
    let states = ["s", "t", "u"].map(|n| b.state(n, DType::F32, [5], graphc_ir::Initializer::Constant(0.0)));
    b.function("f", |f| {
        let x = f.input("x", DType::F32, [5]);
        for s in &states {
            f.update(s, x);
        }
        f.output("y", f.read(&states[0]) + x);
    });
    let state: Vec<Literal> = (1..4).map(|seed| numbers(DType::F32, &[5], seed)).collect();
    check(&b.build().unwrap(), &[numbers(DType::F32, &[5], 16)], &state);
}

#[test]
fn movement_fuses_into_consumers() {
    let b = ModuleBuilder::new("m");
    let i = Literal::new(&[5], vec![3i32, 0, 7, 7, 2]).unwrap();
    b.function("f", |f| {
        let x = f.input("x", DType::F32, [8, 13]);
        let i = f.input("i", DType::I32, [5]);
        let rows = x.take(i, 0);
        f.output("rows", rows * 2.0);
        f.output("sums", (rows + 1.0).reduce_sum(&[1]));
        f.output("back", x.scatter_add(i, rows, 0));
        let t = x.transpose(&[1, 0]).reshape([2, 52]);
        f.output("t", t.abs());
        f.output("product", x.transpose(&[1, 0]).dot(x));
        f.output("columns", x.transpose(&[1, 0]).reduce_max(&[1]));
    });
    check(&b.build().unwrap(), &[numbers(DType::F32, &[8, 13], 11), i.clone()], &[]);
}

#[test]
fn places_named_by_indices_are_inside_of_their_buffers() {
    for c in common::indexing_cases() {
        check(&c.module, &c.inputs, &[]);
    }
}

#[test]
fn a_part_of_state_is_overwritten_in_place() {
    let b = ModuleBuilder::new("m");
    let cache = b.state("cache", DType::F32, [3, 16, 5], graphc_ir::Initializer::Constant(0.0));
    b.function("f", |f| {
        let (new, at) = (f.input("new", DType::F32, [3, 1, 5]), f.input("at", DType::I32, []));
        let zero = f.scalar(DType::I32, 0.0);
        f.update(&cache, f.read(&cache).dynamic_update_slice(new, &[zero, at, zero]));
    });
    let (module, state) = (b.build().unwrap(), numbers(DType::F32, &[3, 16, 5], 31));
    let inputs = [numbers(DType::F32, &[3, 1, 5], 32), Literal::scalar(Scalar::I32(15))];
    check(&module, &inputs, std::slice::from_ref(&state));
    let (_, stages) = compile_stages(&module, "f", &Bindings::new(), &CompileOptions::default()).unwrap();
    let program = &stages.assembled.program;
    assert_eq!(program.kernels.len(), 1, "nothing is copied");
    // Only the part is written: one store, in the loop over it.
    let text = program.scheduled[0].function.to_string();
    assert_eq!(text.matches("store").count(), 1, "{text}");
}

#[test]
fn an_access_outside_of_its_buffer_is_an_error() {
    let b = ModuleBuilder::new("m");
    b.function("f", |f| {
        let x = f.input("x", DType::F32, [20]);
        f.output("y", x.abs());
    });
    let module = b.build().unwrap();
    let (_, stages) = compile_stages(&module, "f", &Bindings::new(), &CompileOptions::default()).unwrap();
    let mut program = stages.assembled.program;
    let input = program.buffers.iter().position(|b| b.place == Place::Input(0)).unwrap();
    program.buffers[input].dims = vec![19];
    let ran = run_program(&program, &[numbers(DType::F32, &[20], 12)], &mut Vec::new(), 1);
    let e = ran.unwrap_err().to_string();
    assert_eq!(e, format!("k0_abs: element 19 (f32) is outside of Buffer({input}), which has 76 bytes"));
}

#[test]
fn dumps_are_readable() {
    let b = ModuleBuilder::new("m");
    b.function("f", |f| {
        let x = f.input("x", DType::F32, [6, 40]);
        let w = f.input("w", DType::F32, [40, 3]);
        f.output("y", (x.dot(w) + 1.0).abs());
        f.output("s", (x * x).reduce_sum(&[1]));
    });
    let (_, stages) =
        compile_stages(&b.build().unwrap(), "f", &Bindings::new(), &CompileOptions::default()).unwrap();
    let program = stages.assembled.program;
    let kernels: String = program.kernels.iter().map(|k| print_kernel(k, &program.buffers)).collect();
    expect_test::expect![[r#"
        program f: arena 0 bytes, constants 512 bytes
          b0: f32[6, 40] input 0 n0
          b1: f32[40, 3] input 1 n1
          b3: f32[6, 3] output 0 n6
          b4: f32[6] output 1 n8
          run k0_dot_general: 1 units
          run k2_reduce_sum: 6 units

        kernel k0_dot_general [i0: 6, i1: 3] computes n2 n6
          part 0: batch [] m [i0: 6] n [i1: 3] k [i2: 40]
            lhs %0:
              %0 = load b0[i0, i2] : f32
            rhs %0:
              %0 = load b1[i2, i1] : f32
            out [i0, i1]
          %2 = add r0, 1.0 : f32
          %3 = abs %2 : f32
          store b3[i0, i1] = %3 : f32[6, 3] n6
        kernel k2_reduce_sum [i0: 6 | i1: 40] computes n8
          %0 = load b0[i0, i1] : f32
          %1 = mul %0, %0 : f32
          r0 = sum %1
          store b4[i0] = r0 : f32[6] n8
    "#]]
    .assert_eq(&format!("{}\n{kernels}", print_program(&program)));
}

#[test]
fn long_maps_have_several_units() {
    for n in [2047, 2048, 6150, 9001] {
        let b = ModuleBuilder::new("m");
        b.function("f", |f| {
            let x = f.input("x", DType::F32, [n]);
            f.output("y", x * x + 0.5);
            f.output("whole", x.cast(DType::I32));
            f.output("sum", (x - 1.0).reduce_sum(&[0]));
        });
        check(&b.build().unwrap(), &[numbers(DType::F32, &[n], 13)], &[]);
    }
}

/// A function of a few operations chosen by `choices`, over matrices; every node may be used again.
fn random_module(dims: [usize; 2], choices: &[(u8, usize, usize)]) -> Module {
    let b = ModuleBuilder::new("m");
    b.function("f", |f| {
        let mut made = vec![f.input("x", DType::F32, dims), f.input("y", DType::F32, dims)];
        let extents = |t: graphc_ir::Tensor<'_>| t.shape().as_static().unwrap();
        for &(op, i, j) in choices {
            let (x, y) = (made[made.len() - 1 - i % made.len()], made[made.len() - 1 - j % made.len()]);
            let (dx, dy) = (extents(x), extents(y));
            let z = match op {
                0 => x.abs() * 0.5,
                1 if dx == dy => x + y,
                2 if dx == dy => x * y - 0.25,
                3 => x.transpose(&[1, 0]),
                4 => x.reduce_sum(&[j % 2]).reshape(if j % 2 == 0 { [1, dx[1]] } else { [dx[0], 1] }),
                5 => x - x.reduce_max(&[1]).reshape([dx[0], 1]),
                6 => x.pad_axis(j % 2, 1, (j % 3) as i64 - 1, 0.5),
                7 if dx[j % 2] > 1 => x.slice_axis(j % 2, 1, dx[j % 2]),
                8 if dx[0] == dy[0] && dx[1] + dy[1] < 40 => f.concatenate(&[x, y], 1),
                9 if dx[1] == dy[0] => x.dot(y) * 0.125,
                10 => x.reshape([dx[1], dx[0]]),
                11 => x.reverse(&[j % 2]),
                12 => x.dot_general(x, (&[], &[]), (&[1], &[1])) * 0.125,
                13 => x.reduce_sum(&[0, 1]).reshape([1, 1]) + x,
                14 => x.softmax(j % 2),
                _ => x.max(0.0),
            };
            made.push(z);
        }
        f.output("last", made[made.len() - 1]);
        f.output("middle", made[made.len() / 2]);
    });
    b.build().unwrap()
}

#[test]
fn random_functions_give_the_interpreters_bits() {
    let choices = prop::collection::vec((0u8..16, 0usize..4, 0usize..6), 1..12);
    let dims = (1usize..12, 1usize..40);
    let config = Config { cases: 4 * cases(), failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&(dims, choices), |((m, n), choices)| {
        let inputs = [numbers(DType::F32, &[m, n], 14), numbers(DType::F32, &[m, n], 15)];
        check_function(&random_module([m, n], &choices), &inputs, &[])
    });
    ran.map_err(|e| e.to_string()).unwrap_or_else(|e| panic!("{e}"));
}

/// Random functions that were once wrong.
#[test]
fn what_was_once_wrong_stays_right() {
    // The reverse of a reshape, in a partial vector.
    let choices = [(6, 0, 2), (0, 0, 0), (0, 0, 0), (10, 2, 0), (0, 0, 0), (0, 0, 0), (11, 0, 1)];
    let inputs = [numbers(DType::F32, &[1, 2], 14), numbers(DType::F32, &[1, 2], 15)];
    check_function(&random_module([1, 2], &choices), &inputs, &[]).unwrap_or_else(|e| panic!("{e}"));
}

/// Loops, branches and calls.
#[test]
fn control_flow_gives_the_interpreters_bits() {
    for case in control_cases() {
        check_function(&case.module, &case.inputs, &[]).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
}
