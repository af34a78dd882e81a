//! Generated code against the interpreter, bit for bit: every operation's own samples, at several
//! levels, on one and two threads, with the host's instructions and with fewer.

mod common;

use common::control_cases;
use graphc_compiler::{CompileOptions, Isa, OptLevel, compile, compile_stages};
use graphc_ir::ops::ConvConfig;
use graphc_ir::testing::Sample;
use graphc_ir::{Bindings, DType, Literal, Module, ModuleBuilder, Op, Scalar, Tensor, evaluate, gradients};
use graphc_runtime::{Elements, RunContext, State, ThreadPool, Value, ValueMut};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::Arc;

fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(24)
}

/// Equal bits, any NaN being equal to any NaN.
fn same(a: Scalar, b: Scalar) -> bool {
    a == b || (a.dtype() == b.dtype() && a.to_f64().is_nan() && b.to_f64().is_nan())
}

/// What the interpreter gives for function `f` of `module`; `None` if it fails.
fn interpreted(module: &Module, inputs: &[Literal]) -> Option<Vec<Literal>> {
    evaluate(&module.functions[0], inputs, |_| unreachable!("no state")).ok().map(|e| e.outputs)
}

/// Runs function `f` of `module` compiled at `level` and compares with what the interpreter gives.
fn check_function(
    module: &Module,
    inputs: &[Literal],
    expected: Option<&[Literal]>,
    level: OptLevel,
    threads: usize,
    isa: Isa,
) -> Result<(), TestCaseError> {
    let options = CompileOptions { max_threads: 3, isa, ..CompileOptions::at(level) };
    let exe =
        compile(module, "f", &Bindings::new(), &options).map_err(|e| TestCaseError::fail(e.to_string()))?;
    let mut cx = RunContext::new(&exe, Arc::new(ThreadPool::new(threads).unwrap())).unwrap();
    cx.fill_arena(0xa5);
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    let inputs: Vec<Elements> = inputs.iter().map(Elements::from).collect();
    let values: Vec<Value<'_>> = inputs.iter().map(Elements::value).collect();
    let f = &module.functions[0];
    let mut outputs: Vec<Elements> = f
        .outputs
        .iter()
        .map(|o| {
            let ty = f.graph.ty(o.node);
            Elements::from(&Literal::full(&ty.shape.as_static().unwrap(), Scalar::from_bits(ty.dtype, 0)))
        })
        .collect();
    let mut slots: Vec<ValueMut<'_>> = outputs.iter_mut().map(Elements::value_mut).collect();
    let ran = exe.run(&mut cx, &mut state, &values, &mut slots);
    drop(slots);
    let Some(expected) = expected else {
        prop_assert!(ran.is_err(), "the interpreter fails, generated code does not");
        return Ok(());
    };
    ran.map_err(|e| TestCaseError::fail(e.to_string()))?;
    for (n, (e, g)) in expected.iter().zip(&outputs).enumerate() {
        for i in 0..e.len() {
            prop_assert!(
                same(e.get(i), g.get(i)),
                "{level:?}, {isa}, {threads} threads: output {n} element {i}: interpreter {}, generated {}",
                e.get(i),
                g.get(i)
            );
        }
    }
    Ok(())
}

/// The operation as function `f`.
fn module_of(s: &Sample) -> Result<Module, TestCaseError> {
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
    m.build().map_err(|e| TestCaseError::fail(e.to_string()))
}

fn check(s: &Sample) -> Result<(), TestCaseError> {
    let module = module_of(s)?;
    let expected = interpreted(&module, &s.operands);
    let check =
        |level, threads, isa| check_function(&module, &s.operands, expected.as_deref(), level, threads, isa);
    check(OptLevel::O0, 1, Isa::host())?;
    for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
        check(OptLevel::O3, 1, isa)?;
    }
    check(OptLevel::O3, 2, Isa::host())
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

/// Runs `f` with every input and output, the arena, the state and the constants against pages that cannot be accessed: a read or
/// write outside of them ends the process.
#[cfg(target_os = "linux")]
fn check_fenced(s: &Sample, end: graphc_runtime::Fence, isa: Isa, threads: usize) {
    use graphc_runtime::{Fenced, fence_buffers};
    fence_buffers(Some(end));
    let module = module_of(s).unwrap();
    let expected = interpreted(&module, &s.operands);
    let options = CompileOptions { max_threads: 2, isa, ..CompileOptions::at(OptLevel::O3) };
    let exe = compile(&module, "f", &Bindings::new(), &options).unwrap();
    let mut cx = RunContext::new(&exe, Arc::new(ThreadPool::new(threads).unwrap())).unwrap();
    let mut state = State::zeros(exe.state_layout().clone()).unwrap();
    let fenced = |l: &Literal| Fenced::new(Elements::from(l).value(), end).unwrap();
    let inputs: Vec<Fenced> = s.operands.iter().map(fenced).collect();
    let values: Vec<Value<'_>> = inputs.iter().map(Fenced::value).collect();
    let zeros = exe.outputs().iter().map(|o| Literal::full(&o.dims, Scalar::from_bits(o.dtype, 0)));
    let mut outputs: Vec<Fenced> = zeros.map(|l| fenced(&l)).collect();
    let mut slots: Vec<ValueMut<'_>> = outputs.iter_mut().map(Fenced::value_mut).collect();
    let ran = exe.run(&mut cx, &mut state, &values, &mut slots);
    assert_eq!(ran.is_ok(), expected.is_some(), "{ran:?}");
    for (e, g) in expected.iter().flatten().zip(&outputs) {
        let e = Elements::from(e);
        let differ = e.value().as_bytes() != g.value().as_bytes();
        // NaN have many bits.
        assert!(
            !differ || format!("{:?}", e.value()) == format!("{:?}", g.value()),
            "{isa}, {end:?}: {:?}",
            s.op
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn generated_code_stays_in_its_buffers() {
    use graphc_runtime::Fence;
    let config = Config { cases: cases() / 4, failure_persistence: None, ..Config::default() };
    for samples in Op::all_samples().into_iter().filter_map(|(_, samples)| samples) {
        let mut runner = TestRunner::new(config.clone());
        let checked = runner.run(&samples, |s| {
            for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
                check_fenced(&s, Fence::End, isa, 1);
                check_fenced(&s, Fence::Begin, isa, 2);
            }
            Ok(())
        });
        checked.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Lines of the table of mappings of this process.
#[cfg(target_os = "linux")]
fn mappings() -> Vec<String> {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().map(str::to_owned).collect()
}

/// No memory is ever writable and executable. Code lives as long as its executable: threads that share it may drop
/// theirs in any order, and the last one frees the memory, once.
#[cfg(target_os = "linux")]
#[test]
fn code_is_not_writable_and_is_freed_once() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, [1000]);
        f.output("y", (x * 2.0).tanh());
    });
    let module = m.build().unwrap();
    let exe = |_| compile(&module, "f", &Bindings::new(), &CompileOptions::default()).unwrap();
    let executables: Vec<_> = (0..8).map(exe).map(Arc::new).collect();
    let executable =
        |maps: &[String]| maps.iter().filter(|m| m[m.find(' ').unwrap()..].starts_with(" r-xp")).count();
    let maps = mappings();
    for line in &maps {
        let protection = line.split(' ').nth(1).unwrap();
        assert!(!(protection.contains('w') && protection.contains('x')), "{line}");
    }
    assert!(executable(&maps) >= executables.len(), "the code of each is somewhere");
    let pool = Arc::new(ThreadPool::new(1).unwrap());
    std::thread::scope(|scope| {
        for exe in executables.into_iter().flat_map(|exe| [exe.clone(), exe]) {
            let pool = pool.clone();
            scope.spawn(move || {
                let mut cx = RunContext::new(&exe, pool).unwrap();
                let mut state = State::zeros(exe.state_layout().clone()).unwrap();
                let (x, mut y) = ([0.5f32; 1000], [0f32; 1000]);
                for _ in 0..20 {
                    exe.run(&mut cx, &mut state, &[(&x).into()], &mut [(&mut y).into()]).unwrap();
                }
                let code = Arc::downgrade(exe.code());
                drop(exe);
                // Alive or gone, nothing runs in it any more on this thread.
                drop(code.upgrade());
                assert_eq!(y[0], y[999]);
            });
        }
    });
}

/// Windows of convolutions that lie wholly before or behind all elements.
#[test]
fn windows_without_elements_give_the_interpreters_bits() {
    let cases = [
        ([1, 3, 1, 1], [3, 1, 1, 1], [(-2, 2), (0, 0)], 3),
        ([1, 3, 1, 1], [3, 1, 1, 1], [(0, 0), (5, -5)], 3),
        ([1, 2, 5, 6], [2, 2, 2, 2], [(-7, 9), (0, 0)], 1),
        ([1, 2, 5, 6], [2, 2, 2, 2], [(0, 1), (19, -12)], 1),
        ([2, 4, 12, 20], [8, 4, 3, 3], [(-17, 30), (-23, 41)], 1),
        ([2, 4, 12, 20], [8, 4, 3, 3], [(40, 25), (61, 30)], 1),
        ([1, 2, 3, 3], [2, 2, 3, 3], [(50, 50), (70, 70)], 1),
    ];
    for (x, w, padding, groups) in cases {
        let config = ConvConfig::new(2).padding(&padding).groups(groups);
        let op = graphc_ir::ops::Convolution::from(config).into();
        let operands = vec![common::numbers(DType::F32, &x, 1), common::numbers(DType::F32, &w, 2)];
        check(&Sample { op, operands, smooth: true }).unwrap_or_else(|e| panic!("{x:?}, {padding:?}: {e}"));
    }
}

/// Batch normalization over the channels of `y`.
fn normalized<'f>(y: Tensor<'f>, scale: Tensor<'f>, shift: Tensor<'f>) -> Tensor<'f> {
    let dims = y.shape().as_static().unwrap();
    let per_channel = [1, dims[1], 1, 1];
    let count = (dims.iter().product::<usize>() / dims[1]) as f64;
    let centered = y - y.reduce_sum(&[0, 2, 3]).reshape(per_channel) / count;
    let variance = centered.square().reduce_sum(&[0, 2, 3]).reshape(per_channel) / count;
    centered * (variance + 1e-3).rsqrt() * scale.reshape(per_channel) + shift.reshape(per_channel)
}

/// Convolution, batch normalization, residual connections and pooling, with the gradients of all
/// inputs: images `[n, channels[0], size, size]`, then `channels[1]` channels, then `channels[2]`.
fn residual_net(dtype: DType, n: usize, size: usize, channels: [usize; 3]) -> (Module, Vec<Vec<usize>>) {
    let [c0, c1, c2] = channels;
    let shapes = vec![
        vec![n, c0, size, size],
        vec![c1, c0, 3, 3],
        vec![c1, c1, 3, 3],
        vec![c2, c1, 3, 3],
        vec![c2, c1, 1, 1],
        vec![c1],
        vec![c1],
    ];
    let m = ModuleBuilder::new("net");
    m.function("f", |f| {
        let names = ["x", "w1", "w2", "w3", "w4", "scale", "shift"];
        let all: Vec<Tensor<'_>> =
            names.iter().zip(&shapes).map(|(name, dims)| f.input(name, dtype, dims.as_slice())).collect();
        let [x, w1, w2, w3, w4, scale, shift] = all[..] else { unreachable!("seven inputs") };
        let y = normalized((x * 0.5 - 0.25).conv2d(w1, 1, 1), scale, shift).max(0.0);
        let y = (normalized(y.conv2d(w2, 1, 1), scale, shift) + y).max(0.0);
        let y = y.max_pool2d(3, 2, 1);
        let y = y.conv2d(w3, 2, 1).max(0.0) + y.conv2d(w4, 2, 0);
        let y = y.avg_pool2d(2, 1, 0, true);
        let features = y.global_avg_pool();
        let loss = features.square().mean_all();
        f.output("loss", loss);
        f.output("features", features);
        f.output("activations", y);
        for (name, g) in names.iter().zip(gradients(loss, &all)) {
            f.output(&format!("grad/{name}"), g);
        }
    });
    (m.build().unwrap(), shapes)
}

#[test]
fn channels_last_nets_give_the_interpreters_bits() {
    let cases = [
        (DType::F32, 3, 9, [3, 17, 5]),
        (DType::F32, 2, 10, [5, 3, 17]),
        (DType::F64, 1, 7, [1, 16, 5]),
        (DType::F32, 2, 3, [1, 130, 2]),
        (DType::F32, 9, 12, [1, 4, 1]),
    ];
    for (dtype, n, size, channels) in cases {
        let (module, shapes) = residual_net(dtype, n, size, channels);
        let numbers = |(seed, dims): (usize, &Vec<usize>)| {
            Literal::from_fn(dtype, dims, |i| {
                let x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed as u64);
                let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
                Scalar::F64(x as f64 / f64::from(1 << 23) - 1.0)
            })
        };
        let inputs: Vec<Literal> = shapes.iter().enumerate().map(numbers).collect();
        let expected = interpreted(&module, &inputs);
        for (level, threads) in
            [(OptLevel::O0, 1), (OptLevel::O1, 2), (OptLevel::O2, 1), (OptLevel::O3, 1), (OptLevel::O3, 2)]
        {
            check_function(&module, &inputs, expected.as_deref(), level, threads, Isa::host())
                .unwrap_or_else(|e| panic!("{dtype}, {n} images, channels {channels:?}: {e}"));
        }
    }
}

fn check_case(c: &common::Case, what: &str) {
    let expected = interpreted(&c.module, &c.inputs);
    for (level, threads) in [(OptLevel::O0, 1), (OptLevel::O3, 2)] {
        check_function(&c.module, &c.inputs, expected.as_deref(), level, threads, Isa::host())
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
    for c in common::long_cases().into_iter().chain(common::column_cases()) {
        check_case(&c, "of all");
    }
}

/// Loops, branches and calls.
#[test]
fn control_flow_gives_the_interpreters_bits() {
    for case in control_cases() {
        let expected = interpreted(&case.module, &case.inputs);
        assert_eq!(expected.is_none(), case.name.ends_with("out_of_range"), "{}", case.name);
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            for (level, threads) in [(OptLevel::O0, 1), (OptLevel::O2, 1), (OptLevel::O3, 2)] {
                let checked =
                    check_function(&case.module, &case.inputs, expected.as_deref(), level, threads, isa);
                checked.unwrap_or_else(|e| panic!("{}: {e}\n{}", case.name, case.module));
            }
        }
    }
}

/// Lanes of one and of two sizes in one kernel, with every number of vectors and of lanes in the last.
#[test]
fn lanes_of_two_sizes_give_the_interpreters_bits() {
    for n in (1..=70).chain([96, 112, 160]) {
        let m = ModuleBuilder::new("lanes");
        m.function("f", |f| {
            let (x, i) = (f.input("x", DType::F64, [n]), f.input("i", DType::I64, [n]));
            let positive = x.gt(0.0);
            let single = x.cast(DType::F32);
            f.output("chosen", positive.select(single, -1.5));
            f.output("double", i.gt(3.0).select(x, single.cast(DType::F64)));
            f.output("flag", positive.eq(i.lt(2.0)));
            f.output("int", i.cast(DType::I32) + x.cast(DType::I32));
            f.output("truth", positive.cast(DType::I64) + i);
            f.output(
                "wide",
                x.cast(DType::I32).cast(DType::I64) + positive.cast(DType::I32).cast(DType::I64),
            );
            f.output("float", i.cast(DType::F32) * single);
        });
        let module = m.build().unwrap();
        let value = |k: usize| (k * 37 % 41) as f64 / 4.0 - 5.0;
        let inputs = [DType::F64, DType::I64]
            .map(|d| Literal::from_fn(d, &[n], |k| Scalar::F64(value(k + d as usize))));
        let expected = interpreted(&module, &inputs);
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            check_function(&module, &inputs, expected.as_deref(), OptLevel::O3, 1, isa)
                .unwrap_or_else(|e| panic!("{n} elements: {e}"));
        }
    }
}

#[test]
fn indexing_gives_the_interpreters_bits() {
    for c in common::indexing_cases() {
        check_case(&c, "by indices");
        let expected = interpreted(&c.module, &c.inputs);
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            check_function(&c.module, &c.inputs, expected.as_deref(), OptLevel::O3, 1, isa)
                .unwrap_or_else(|e| panic!("{}: {e}", c.name));
        }
    }
}

/// Maps whose elements lie across those that they read, of all remainders of tiles and vectors.
#[test]
fn transpositions_give_the_interpreters_bits() {
    for (rows, columns) in [(4, 8), (8, 16), (12, 33), (64, 24), (68, 7), (7, 40), (130, 20), (132, 65)] {
        let m = ModuleBuilder::new("transpositions");
        m.function("f", |f| {
            let x = f.input("x", DType::F32, [columns, rows]);
            let y = f.input("y", DType::F32, [rows, columns]);
            let b = f.input("b", DType::F32, [columns]);
            let (i, d) =
                (f.input("i", DType::I32, [columns, rows]), f.input("d", DType::F64, [columns, rows]));
            let t = x.transpose(&[1, 0]);
            f.output("copy", t);
            f.output("int", i.transpose(&[1, 0]));
            f.output("wide", d.transpose(&[1, 0]));
            f.output("truth", x.gt(0.0).transpose(&[1, 0]));
            f.output("both", t * i.transpose(&[1, 0]).cast(DType::F32) + y);
            f.output("bias", t.max(0.0) + b.broadcast([rows, columns], &[1]));
            f.output("padded", t.pad_axis(1, 3, 2, 0.0));
            f.output("reversed", t.reverse(&[0]));
            f.output("product", t.dot(t.transpose(&[1, 0])));
            let three = x.broadcast([columns, rows, 3], &[0, 1]);
            f.output("three", three.transpose(&[2, 1, 0]));
        });
        let module = m.build().unwrap();
        let inputs: Vec<Literal> = [
            (DType::F32, vec![columns, rows]),
            (DType::F32, vec![rows, columns]),
            (DType::F32, vec![columns]),
            (DType::I32, vec![columns, rows]),
            (DType::F64, vec![columns, rows]),
        ]
        .iter()
        .zip(41..)
        .map(|((dtype, dims), seed)| common::numbers(*dtype, dims, seed))
        .collect();
        let expected = interpreted(&module, &inputs);
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            for threads in [1, 2] {
                check_function(&module, &inputs, expected.as_deref(), OptLevel::O3, threads, isa)
                    .unwrap_or_else(|e| panic!("{rows} x {columns}: {e}"));
            }
        }
    }
}

/// Kernels that differ in where their buffers are, and in nothing else: in the arena, in constants, among inputs and outputs.
#[test]
fn kernels_that_share_code_give_the_interpreters_bits() {
    let m = ModuleBuilder::new("layers");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, [20, 24]);
        let w: Vec<Tensor<'_>> = (0..4).map(|i| f.input(&format!("w{i}"), DType::F32, [24, 24])).collect();
        let fixed = [51, 52].map(|seed| f.constant(common::numbers(DType::F32, &[24, 24], seed)));
        let deep = w.iter().chain(&fixed).fold(x, |x, w| x.dot(*w).tanh());
        f.output("deep", deep);
        f.output("again", w.iter().chain(&fixed).fold(deep.softmax(1), |x, w| x.dot(*w).tanh()));
        for (i, &y) in w.iter().enumerate() {
            f.output(&format!("maximum{i}"), y.reduce_max(&[1]));
        }
    });
    let module = m.build().unwrap();
    let dims = std::iter::once([20, 24]).chain([[24, 24]; 4]);
    let inputs: Vec<Literal> =
        dims.zip(61..).map(|(d, seed)| common::numbers(DType::F32, &d, seed)).collect();
    let expected = interpreted(&module, &inputs);
    for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
        for (level, threads) in [(OptLevel::O0, 1), (OptLevel::O3, 2)] {
            check_function(&module, &inputs, expected.as_deref(), level, threads, isa).unwrap();
        }
        let options = CompileOptions { isa, keep_code: true, ..CompileOptions::default() };
        let (_, stages) = compile_stages(&module, "f", &Bindings::new(), &options).unwrap();
        let shared = stages.code.iter().filter(|c| c.name.ends_with(".shared")).count();
        assert_eq!(shared > 0, isa != Isa::Portable, "{isa}: {shared}");
    }
}

/// Right factors that are streamed for few rows or copied where their rows crowd, and long epilogues along strips whose
/// last columns are part of a vector.
#[test]
fn products_in_blocks_and_strips_give_the_interpreters_bits() {
    for (m, k, n) in [(3, 70, 8192), (32, 260, 512), (33, 1030, 132), (70, 24, 605), (64, 130, 43)] {
        let b = ModuleBuilder::new(&format!("{m} {k} {n}"));
        b.function("f", |f| {
            let (x, y) = (f.input("x", DType::F32, [m, k]), f.input("y", DType::F32, [k, n]));
            let bias = f.input("bias", DType::F32, [n]).broadcast([m, n], &[1]);
            let z = x.dot(y);
            f.output("plain", z);
            let h = (z + bias) * 0.125;
            f.output("long", h.tanh() + (h * h).sigmoid() / (h.abs().sqrt() + 1e-3));
        });
        let module = b.build().unwrap();
        let of = |dims: &[usize], seed| common::numbers(DType::F32, dims, seed);
        let inputs = [of(&[m, k], 71), of(&[k, n], 72), of(&[n], 73)];
        let expected = interpreted(&module, &inputs);
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            for threads in [1, 3] {
                check_function(&module, &inputs, expected.as_deref(), OptLevel::O3, threads, isa).unwrap();
            }
        }
    }
}
