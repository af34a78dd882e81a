//! Gradients of random composite functions, as compiled: against finite differences in f64, and bit
//! for bit against the interpreter. A failure shrinks to a function printed in the text form.

use graphc::ir::ops::ConvConfig;
use graphc::ir::{Literal, Scalar, ScanOptions, evaluate, print_function};
use graphc::{
    Bindings, CompileError, CompileOptions, DType, FunctionBuilder, Isa, Module, ModuleBuilder, OptLevel,
    RunContext, State, Tensor, ThreadPool, Value, ValueMut, compile, cross_entropy, gradients, hvp, jvp, vjp,
    vmap,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::{Arc, OnceLock};

fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(64)
}

/// One operation of a random function: what, and which earlier values.
type Choice = (u8, usize, usize);

/// Choices below this are smooth.
const N_SMOOTH: u8 = 44;
/// Choices below this exist.
const N_CHOICES: u8 = 53;

/// Declares a function of two matrices `x` and `y` and a scalar loss; gradients are outputs.
fn module(dtype: DType, dims: [usize; 2], choices: &[Choice]) -> Module {
    let m = ModuleBuilder::new("random");
    m.function("f", |f| {
        let inputs = [f.input("x", dtype, dims), f.input("y", dtype, dims)];
        let loss = compose(f, inputs, choices);
        f.output("loss", loss);
        for (i, g) in gradients(loss, &inputs).into_iter().enumerate() {
            f.output(&format!("g{i}"), g);
        }
    });
    m.build().unwrap_or_else(|e| panic!("{e}"))
}

/// What a function of 5 to 60 nodes is made of, of the first `n` operations.
fn choices(n: u8) -> impl Strategy<Value = Vec<Choice>> {
    proptest::collection::vec((0..n, 0usize..4, 0usize..6), 1..14)
}

fn extents(t: Tensor<'_>) -> Vec<usize> {
    t.shape().as_static().unwrap()
}

fn compose<'f>(f: &'f FunctionBuilder, inputs: [Tensor<'f>; 2], choices: &[Choice]) -> Tensor<'f> {
    let mut made: Vec<Tensor<'f>> = inputs.to_vec();
    for &(op, i, j) in choices {
        let (x, y) = (made[made.len() - 1 - i % made.len()], made[made.len() - 1 - j % made.len()]);
        let (dx, dy) = (extents(x), extents(y));
        let small = dx.iter().product::<usize>() <= 300;
        made.push(match op {
            0 => x.tanh(),
            1 => x.sigmoid() * 2.0,
            2 => (x * 0.5).exp() * 0.25,
            3 => (x.square() + 1.0).log(),
            4 => (x.square() + 0.5).sqrt(),
            5 => x.sin() + x * 0.25,
            6 => x.erf(),
            7 if dx == dy => x + y,
            8 if dx == dy => x * y * 0.5,
            9 if dx == dy => x / (y.square() + 1.0),
            10 => x.transpose(&[1, 0]),
            11 => x - x.mean(&[1]).reshape([dx[0], 1]),
            12 => x.softmax(1),
            13 => x.reduce_sum(&[0]).reshape([1, dx[1]]) * 0.25,
            14 => x + x.logsumexp(&[0]).reshape([1, dx[1]]) * 0.1,
            15 if dx[1] == dy[0] => x.dot(y) * 0.25,
            16 => x.dot_general(x, (&[], &[]), (&[1], &[1])) * 0.25,
            17 if dx[j % 2] > 1 => x.slice_axis(j % 2, 1, dx[j % 2]),
            18 => x.pad_axis(j % 2, 1, 1, 0.5),
            19 if dx[0] == dy[0] && dx[1] + dy[1] < 24 => f.concatenate(&[x, y], 1),
            20 => x.reverse(&[j % 2]),
            21 => x.reshape([dx[1], dx[0]]),
            22 if small && dx[0] >= 2 && dx[1] >= 2 => {
                let image = x.reshape([1, 1, dx[0], dx[1]]);
                let kernel = y.reduce_sum(&[0, 1]).tanh().broadcast_to([2, 1, 2, 2]);
                image.conv2d(kernel, 1, 1).reshape([2 * (dx[0] + 1), dx[1] + 1])
            }
            23 if dx[0] >= 2 && dx[1] >= 2 => {
                let pooled = x.reshape([1, 1, dx[0], dx[1]]).avg_pool2d(2, 1, 0, true);
                pooled.reshape([dx[0] - 1, dx[1] - 1])
            }
            24 => {
                let rows = f.iota(DType::I32, [3], 0);
                x.take(rows % f.full(DType::I32, [3], dx[0] as f64), 0)
            }
            25 => {
                x * cross_entropy(
                    y,
                    f.iota(DType::I32, [dy[0]], 0) % f.full(DType::I32, [dy[0]], dy[1] as f64),
                )
            }
            26 => x.gelu(),
            27 => (x.square() + 0.5).pow(1.5) * 0.2,
            28 => {
                let rows = f.iota(DType::I32, [2], 0) % f.full(DType::I32, [2], dx[0] as f64);
                let updates = y.mean_all().broadcast_to([2, dx[1]]);
                x.scatter_add(rows, updates, 0)
            }
            29 => x.tanh().reduce_prod(&[j % 2]).reshape(if j % 2 == 0 { [1, dx[1]] } else { [dx[0], 1] }),
            // A column, a row and a scalar, repeated.
            30 if dx[0] == dy[0] => x * y.mean(&[1]).reshape([dy[0], 1]),
            31 if dx[1] == dy[1] => x - y.mean(&[0]) * 0.5,
            32 => x / (y.square().mean_all() + 1.0),
            33 => {
                let centered = x - x.mean(&[1]).reshape([dx[0], 1]);
                centered * (centered.square().mean(&[1]) + 0.3).rsqrt().reshape([dx[0], 1])
            }
            34 if dx[1] > 2 => x.slice(&[0..dx[0], i % 2..dx[1]], &[1, 2]),
            35 if small => x.pad(y.mean_all(), &[0, 1], &[1, -1], &[j % 2, 1]),
            36 => {
                (x * 0.5).expm1() * 0.5 + (x.square() * 0.5).log1p() - (x * 0.2).tan()
                    + (x.square() + 1.0).recip()
            }
            37 => x.cos() * (x * 0.3).exp2(),
            38 if small && dx[0] >= 2 && dx[1] >= 3 => {
                // One group per copy, strided, dilated and padded.
                let image = x.broadcast([1, 2, dx[0], dx[1]], &[2, 3]);
                let kernel = y.mean_all().tanh().broadcast_to([4, 1, 2, 2]);
                let config = ConvConfig::new(2).groups(2).strides(&[1, 2]).rhs_dilation(&[1, 2]);
                let image = image.conv(kernel, &config.padding(&[(1, 0), (0, 1)]));
                let d = extents(image);
                image.reshape([4 * d[2], d[3]])
            }
            39 => x.softplus() - (-x).silu(),
            40 => {
                // A recurrence over the rows, with a value from outside.
                let decay = y.mean_all() * 0.5;
                let zero = f.full(x.dtype(), [dx[1]], 0.0);
                let options =
                    ScanOptions { reverse: i % 2 == 1, save_every: i / 2, ..ScanOptions::default() };
                let options = if dx[0] % 2 == 0 { options } else { ScanOptions { save_every: 0, ..options } };
                let scanned = f.scan_with(&options, &[zero], &[x], |_, h, row| {
                    let next = (h[0] * decay + row[0]).tanh();
                    (vec![next], vec![next + h[0]])
                });
                scanned.stacked[0] + scanned.carries[0]
            }
            41 if dx[1] == dy[1] => {
                // Products inside a loop, with the rows of both.
                let weight = y.dot_general(y, (&[], &[]), (&[0], &[0])) * 0.1;
                let start = y.mean(&[0]).reshape([1, dx[1]]);
                let scanned = f.scan(&[start], &[x], |_, h, row| {
                    let row = row[0].reshape([1, dx[1]]);
                    (vec![(row.dot(weight) + h[0]).sin()], vec![h[0].dot(weight).reshape([dx[1]])])
                });
                scanned.stacked[0] + scanned.carries[0] * 0.5
            }
            42 => {
                let first = f.scalar(x.dtype(), (j % 2) as f64).gt(0.5);
                let y = y.mean_all();
                f.cond(first, |_| vec![(x * y).sin()], |_| vec![x.tanh() - y])[0]
            }
            43 => f.checkpoint(|_| vec![(x * y.mean_all()).tanh() + x.square() * 0.1])[0],
            44 if dx == dy => x.max(y),
            45 if dx == dy => x.min(y * 0.5),
            46 => x.clamp(-0.6, 0.7) + x.relu() * 0.5,
            47 => x.abs() * x.sign(),
            48 => x + x.reduce_max(&[1]).reshape([dx[0], 1]) - x.reduce_min(&[0]).reshape([1, dx[1]]),
            49 if dx[0] >= 2 && dx[1] >= 2 => {
                let pooled = x.reshape([1, 1, dx[0], dx[1]]).max_pool2d(2, 1, 0);
                pooled.reshape([dx[0] - 1, dx[1] - 1])
            }
            50 if dx == dy => x.gt(y).select(x, y.tanh()),
            51 => x % (x.square() + 0.7),
            52 => x.reverse(&[0]).stop_gradient() * x + x.round(),
            // What does not fit the shapes.
            _ => x.gelu(),
        });
        // Growth is bounded, so that finite differences stay accurate.
        if made.len() > 2 {
            let last = made.len() - 1;
            made[last] = made[last].tanh() + made[last] * 0.1;
        }
    }
    let all = made.iter().map(|t| t.square().mean_all());
    all.reduce(|a, b| a + b).unwrap_or_else(|| f.scalar(inputs[0].dtype(), 0.0))
}

fn numbers(dtype: DType, dims: [usize; 2], seed: u64) -> Literal {
    Literal::from_fn(dtype, &dims, |i| {
        let h = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        Scalar::F64((h >> 40) as f64 / f64::from(1 << 23) - 1.0)
    })
}

/// How a function is compiled and run: level, threads, memory, and the widest vectors (where the machine
/// has them).
type Variant = (OptLevel, usize, Memory, Isa);

/// How much memory it may use.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Memory {
    /// As much as it takes.
    Free,
    /// The least that it can be fitted into.
    Least,
}

/// All ways that the tests take.
const VARIANTS: [Variant; 6] = [
    (OptLevel::O0, 1, Memory::Free, Isa::Avx512),
    (OptLevel::O3, 1, Memory::Free, Isa::Avx512),
    (OptLevel::O3, 2, Memory::Free, Isa::Avx512),
    (OptLevel::O3, 1, Memory::Least, Isa::Avx512),
    (OptLevel::O3, 1, Memory::Free, Isa::Avx2),
    (OptLevel::O3, 1, Memory::Free, Isa::Portable),
];

fn variants() -> impl Strategy<Value = Variant> {
    proptest::sample::select(VARIANTS.to_vec())
}

/// A compiled function, ready to run again and again.
struct Compiled {
    exe: graphc::Executable,
    cx: RunContext,
    state: State,
}

impl Compiled {
    fn new(module: &Module, (level, threads, memory, isa): Variant) -> Self {
        static POOLS: [OnceLock<Arc<ThreadPool>>; 2] = [OnceLock::new(), OnceLock::new()];
        let pool = POOLS[threads - 1].get_or_init(|| Arc::new(ThreadPool::new(threads).unwrap()));
        let isa = if isa.is_available() { isa } else { Isa::host() };
        let mut options = CompileOptions { max_threads: threads, isa, ..CompileOptions::at(level) };
        if memory == Memory::Least {
            options.budget = Some(0);
            match compile(module, "f", &Bindings::new(), &options).map(drop) {
                Err(CompileError::Budget { least, .. }) => options.budget = Some(least),
                other => panic!("something runs without memory: {other:?}"),
            }
        }
        let exe = compile(module, "f", &Bindings::new(), &options).unwrap_or_else(|e| panic!("{e}"));
        let cx = RunContext::new(&exe, pool.clone()).unwrap();
        let state = State::zeros(exe.state_layout().clone()).unwrap();
        Self { exe, cx, state }
    }

    /// Its outputs, as bits would show them.
    fn run(&mut self, inputs: &[Literal]) -> Vec<Vec<Scalar>> {
        let Self { exe, cx, state } = self;
        macro_rules! typed {
            ($t:ty, $variant:ident) => {{
                let mut outputs: Vec<Vec<$t>> =
                    exe.outputs().iter().map(|p| vec![0.0; p.num_elements()]).collect();
                let values: Vec<Value<'_>> =
                    inputs.iter().map(|l| l.as_slice::<$t>().unwrap().into()).collect();
                let mut slots: Vec<ValueMut<'_>> =
                    outputs.iter_mut().map(|o| o.as_mut_slice().into()).collect();
                exe.run(cx, state, &values, &mut slots).unwrap_or_else(|e| panic!("{e}"));
                outputs.into_iter().map(|o| o.into_iter().map(Scalar::$variant).collect()).collect()
            }};
        }
        if inputs[0].dtype() == DType::F32 { typed!(f32, F32) } else { typed!(f64, F64) }
    }
}

fn same(a: Scalar, b: Scalar) -> bool {
    a == b || a.to_f64().is_nan() && b.to_f64().is_nan()
}

fn check_bits(module: &Module, inputs: &[Literal], variants: &[Variant]) -> Result<(), String> {
    let expected = interpreted(module, inputs)?;
    variants.iter().try_for_each(|&v| compare_bits(&expected, &Compiled::new(module, v).run(inputs), v))
}

fn compare_bits(expected: &[Literal], got: &[Vec<Scalar>], variant: Variant) -> Result<(), String> {
    for (n, (e, got)) in expected.iter().zip(got).enumerate() {
        if let Some(i) = (0..e.len()).find(|&i| !same(e.get(i), got[i])) {
            let (e, g) = (e.get(i), got[i]);
            return Err(format!("{variant:?}, output {n}[{i}]: interpreter {e}, compiled {g}"));
        }
    }
    Ok(())
}

/// Bits of a function in f64, and its gradients against differences.
fn check_gradients(module: &Module, inputs: &[Literal]) -> Result<(), String> {
    let mut compiled = Compiled::new(module, VARIANTS[1]);
    let outputs = compiled.run(inputs);
    compare_bits(&interpreted(module, inputs)?, &outputs, VARIANTS[1])?;
    for (n, x) in inputs.iter().enumerate() {
        let direction = |i: usize| ((i * 7919 + n * 31) % 1009) as f64 / 504.5 - 1.0;
        let exact: f64 = (0..x.len()).map(|i| outputs[n + 1][i].to_f64() * direction(i)).sum();
        let mut at = |h: f64| {
            let mut moved = inputs.to_vec();
            moved[n] =
                Literal::from_fn(DType::F64, x.dims(), |i| Scalar::F64(x.get(i).to_f64() + h * direction(i)));
            compiled.run(&moved)[0][0].to_f64()
        };
        let mut d = |h: f64| (at(h) - at(-h)) / (2.0 * h);
        // Richardson: the error of central differences falls from h^2 to h^4. A steep function needs a
        // small step, and a wrong gradient agrees with none.
        let estimates = [2e-4, 5e-5, 1e-5].map(|h| (4.0 * d(h) - d(2.0 * h)) / 3.0);
        if !estimates.iter().any(|e| (exact - e).abs() <= 1e-6 * (1.0 + exact.abs())) {
            return Err(format!("gradient of input {n}: {exact}, finite differences {estimates:?}"));
        }
    }
    Ok(())
}

#[test]
fn random_functions_have_the_right_gradients_and_bits() {
    let other = (proptest::sample::select(vec![DType::F32, DType::F64]), variants());
    let case = ((1usize..9, 1usize..9), choices(N_SMOOTH), other);
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&case, |((m, n), choices, (dtype, variant))| {
        let of = |dtype: DType| {
            let inputs = [numbers(dtype, [m, n], 1), numbers(dtype, [m, n], 2)];
            (module(dtype, [m, n], &choices), inputs)
        };
        // Compiling is what takes long: differences by one variant, bits of one more.
        let (smooth, inputs) = of(DType::F64);
        let result = check_gradients(&smooth, &inputs).and_then(|()| {
            let (module, inputs) = of(dtype);
            check_bits(&module, &inputs, &[variant])
        });
        result.map_err(|e| {
            TestCaseError::fail(format!("{e}\n{}", print_function(&smooth, &smooth.functions[0])))
        })
    });
    ran.map_err(|e| e.to_string()).unwrap_or_else(|e| panic!("{e}"));
}

/// The sum of products of two tensors in f64, and the sum of their magnitudes.
fn inner(a: &Literal, b: &Literal) -> (f64, f64) {
    let terms = (0..a.len()).map(|i| a.get(i).to_f64() * b.get(i).to_f64());
    terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
}

fn interpreted(module: &Module, inputs: &[Literal]) -> Result<Vec<Literal>, String> {
    evaluate(&module.functions[0], inputs, |_| unreachable!("no state"))
        .map(|e| e.outputs)
        .map_err(|e| e.to_string())
}

/// Forward mode against reverse mode, and Hessian-vector products forward over reverse against reverse
/// over reverse.
fn check_modes(dims: [usize; 2], choices: &[Choice], bits: Option<Variant>) -> Result<(), String> {
    let declare = |dtype: DType| {
        let m = ModuleBuilder::new("random");
        m.function("f", |f| {
            let inputs = [f.input("x", dtype, dims), f.input("y", dtype, dims)];
            let directions = [f.input("v", dtype, dims), f.input("w", dtype, dims)];
            let pairs: Vec<_> = inputs.into_iter().zip(directions).collect();
            let loss = compose(f, inputs, choices);
            let first = gradients(loss, &inputs);
            let along: Vec<_> = first.iter().copied().zip(directions).collect();
            f.output("tangent", jvp(&[loss], &pairs)[0]);
            f.output("gx", first[0]);
            f.output("gy", first[1]);
            for (name, second) in [("forward", hvp(loss, &pairs)), ("reverse", vjp(&along, &inputs))] {
                f.output(&format!("{name}/x"), second[0]);
                f.output(&format!("{name}/y"), second[1]);
            }
        });
        let given: Vec<Literal> = (1..5).map(|seed| numbers(dtype, dims, seed)).collect();
        (m.build().unwrap_or_else(|e| panic!("{e}")), given)
    };
    let (module, given) = declare(DType::F64);
    let explain = |e: String| format!("{e}\n{}", print_function(&module, &module.functions[0]));
    let out = interpreted(&module, &given).map_err(explain)?;
    let tangent = out[0].get(0).to_f64();
    let ((gx, size_x), (gy, size_y)) = (inner(&out[1], &given[2]), inner(&out[2], &given[3]));
    if (tangent - gx - gy).abs() > 1e-10 * (1e-3 + size_x + size_y) {
        return Err(explain(format!("tangent {tangent}, gradient along the direction {}", gx + gy)));
    }
    for (forward, reverse) in out[3..5].iter().zip(&out[5..]) {
        let largest = (0..forward.len()).map(|i| forward.get(i).to_f64().abs()).fold(1e-3, f64::max);
        for i in 0..forward.len() {
            let (a, b) = (forward.get(i).to_f64(), reverse.get(i).to_f64());
            if (a - b).abs() > 1e-9 * largest || a.is_nan() {
                return Err(explain(format!("second derivative {i}: forward {a}, reverse {b}")));
            }
        }
    }
    if let Some(variant) = bits {
        let (module, given) = declare(DType::F32);
        check_bits(&module, &given, &[variant]).map_err(explain)?;
    }
    Ok(())
}

/// Loss and gradients of each of three examples at once against one after another, bit for bit.
fn check_batch(dims: [usize; 2], choices: &[Choice]) -> Result<(), String> {
    let [rows, columns] = dims;
    let m = ModuleBuilder::new("random");
    m.function("f", |f| {
        let inputs =
            [f.input("x", DType::F32, [3, rows, columns]), f.input("y", DType::F32, [rows, 3, columns])];
        let results = vmap(&[(inputs[0], 0), (inputs[1], 1)], |example| {
            let loss = compose(f, [example[0], example[1]], choices);
            [&[loss], gradients(loss, example).as_slice()].concat()
        });
        for (name, result) in ["loss", "g0", "g1"].into_iter().zip(results) {
            f.output(name, result);
        }
    });
    let batched = m.build().map_err(|e| e.to_string())?;
    let alone = module(DType::F32, dims, choices);
    let explain = |e: String| format!("{e}\n{}", print_function(&alone, &alone.functions[0]));
    let examples: Vec<[Literal; 2]> =
        (0..3).map(|b| [numbers(DType::F32, dims, b), numbers(DType::F32, dims, b + 3)]).collect();
    let x = Literal::from_fn(DType::F32, &[3, rows, columns], |i| {
        examples[i / (rows * columns)][0].get(i % (rows * columns))
    });
    let y = Literal::from_fn(DType::F32, &[rows, 3, columns], |i| {
        examples[i / columns % 3][1].get(i / (3 * columns) * columns + i % columns)
    });
    let got = interpreted(&batched, &[x, y]).map_err(explain)?;
    for (b, example) in examples.iter().enumerate() {
        for (n, (expected, got)) in
            interpreted(&alone, example).map_err(explain)?.iter().zip(&got).enumerate()
        {
            let of_example = |i: usize| got.get(b * expected.len() + i);
            if let Some(i) = (0..expected.len()).find(|&i| !same(expected.get(i), of_example(i))) {
                let (e, g) = (expected.get(i), of_example(i));
                return Err(explain(format!("example {b}, output {n}[{i}]: alone {e}, in a batch {g}")));
            }
        }
    }
    Ok(())
}

#[test]
fn random_functions_agree_between_modes() {
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let case = ((1usize..9, 1usize..9), choices(N_CHOICES), proptest::option::weighted(0.2, variants()));
    let ran = TestRunner::new(config).run(&case, |((m, n), choices, bits)| {
        check_modes([m, n], &choices, bits).map_err(TestCaseError::fail)?;
        check_batch([m, n], &choices).map_err(TestCaseError::fail)
    });
    ran.map_err(|e| e.to_string()).unwrap_or_else(|e| panic!("{e}"));
}

/// Functions that were once compiled wrongly, found by the test above and its like.
#[test]
fn what_was_once_wrong_stays_right() {
    // Doubles compared in an odd number of AVX2 vectors.
    check_bits(
        &module(DType::F64, [8, 8], &[(22, 0, 2), (41, 0, 3)]),
        &[1, 2].map(|s| numbers(DType::F64, [8, 8], s)),
        &VARIANTS,
    )
    .unwrap();
    // A fused multiply-add whose accumulator was pushed out of its register by another operand.
    let choices = [(0, 0, 0), (0, 2, 0), (27, 3, 0), (0, 1, 0)];
    check_bits(
        &module(DType::F64, [1, 2], &choices),
        &[1, 2].map(|s| numbers(DType::F64, [1, 2], s)),
        &VARIANTS,
    )
    .unwrap();
    // Sums over the rows and over the columns of one square matrix, fused as if both ran along rows.
    for variant in VARIANTS {
        check_modes([2, 1], &[(0, 0, 0), (16, 0, 0), (0, 0, 0), (44, 0, 0)], Some(variant)).unwrap();
    }
}

/// A scan of sines of products, where differences over steps of 2e-4 are off by 7e-6.
#[test]
fn a_steep_function_has_the_right_gradient() {
    let module = module(DType::F64, [8, 8], &[(22, 0, 2), (41, 0, 3)]);
    check_gradients(&module, &[1, 2].map(|s| numbers(DType::F64, [8, 8], s))).unwrap();
}

#[test]
fn gradients_of_gradients() {
    let f = |second: bool| {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::F64, [3, 4]);
            let loss = ((x.dot_general(x, (&[], &[]), (&[1], &[1])).tanh() + 1.5).log() * 0.5).mean_all();
            let g = gradients(loss, &[x])[0];
            // A Hessian-vector product: the gradient of the gradient along a fixed direction.
            let v = f.iota(DType::F64, [3, 4], 1) * 0.3 - 0.4;
            let along = (g * v).reduce_sum(&[0, 1]);
            f.output("along", along);
            if second {
                f.output("hvp", gradients(along, &[x])[0]);
            }
        });
        m.build().unwrap()
    };
    let x = numbers(DType::F64, [3, 4], 9);
    let hvp = Compiled::new(&f(true), VARIANTS[1]).run(std::slice::from_ref(&x)).swap_remove(1);
    let first = f(false);
    for (i, exact) in hvp.iter().map(|v| v.to_f64()).enumerate() {
        let at = |h: f64| {
            let moved = Literal::from_fn(DType::F64, x.dims(), |j| {
                Scalar::F64(x.get(j).to_f64() + if i == j { h } else { 0.0 })
            });
            Compiled::new(&first, VARIANTS[1]).run(&[moved])[0][0].to_f64()
        };
        let d = |h: f64| (at(h) - at(-h)) / (2.0 * h);
        let estimate = (4.0 * d(1e-4) - d(2e-4)) / 3.0;
        assert!((exact - estimate).abs() < 1e-7, "element {i}: {exact} against {estimate}");
    }
}

#[test]
fn what_the_loss_does_not_use_has_zero_gradient() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let (x, y) = (f.input("x", DType::F32, [2, 2]), f.input("y", DType::F32, [3, 2]));
        let loss = x.floor().square().mean_all();
        let g = gradients(loss, &[x, y]);
        f.output("gx", g[0]);
        f.output("gy", g[1]);
    });
    let module = m.build().unwrap();
    let out = Compiled::new(&module, VARIANTS[1])
        .run(&[numbers(DType::F32, [2, 2], 3), numbers(DType::F32, [3, 2], 4)]);
    assert_eq!((out[0].len(), out[1].len()), (4, 6));
    assert!(out.iter().flatten().all(|v| v.bits() == 0), "{out:?}");
}

#[test]
fn a_missing_rule_is_an_error_that_names_the_operation() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, graphc::shape!["N"]);
        let y = f.while_loop(&[x], |_, c| c[0].reduce_max(&[0]).lt(10.0), |_, c| vec![c[0] * 2.0])[0];
        f.output("gradient", gradients(y.mean_all(), &[x])[0]);
    });
    let message = m.build().unwrap_err().to_string();
    assert!(message.contains("while: no gradient rule"), "{message}");
    assert!(message.contains("tests/gradients.rs"), "{message}");
}

#[test]
fn a_maximum_over_windows_has_second_derivatives() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, [1, 1, 4, 4]);
        let first = gradients(x.max_pool2d(2, 2, 0).square().mean_all(), &[x])[0];
        f.output("second", gradients(first.square().mean_all(), &[x])[0]);
    });
    let x = numbers(DType::F32, [4, 4], 5).reshaped(&[1, 1, 4, 4]);
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    check_bits(&module, std::slice::from_ref(&x), &VARIANTS).unwrap();
    // The loss is the mean of four squared maxima, so the gradient is half of each maximum, at its
    // place. The mean of its squares has the derivative of a 32nd of the maximum there.
    let second = Compiled::new(&module, VARIANTS[1]).run(std::slice::from_ref(&x)).swap_remove(0);
    for row in 0..4 {
        for column in 0..4 {
            let (r, c) = (row / 2 * 2, column / 2 * 2);
            let value = |r: usize, c: usize| x.get(4 * r + c).to_f64();
            let maximum = value(r, c).max(value(r + 1, c)).max(value(r, c + 1)).max(value(r + 1, c + 1));
            let expected = if value(row, column) == maximum { maximum / 32.0 } else { 0.0 };
            assert_eq!(second[4 * row + column].to_f64(), expected, "at {row}, {column}");
        }
    }
}
