//! What runs tell of themselves: times of steps, where nodes were declared, values that are not finite.

use graphc_compiler::{CompileOptions, Isa, OptLevel, compile_stages};
use graphc_ir::{Bindings, DType, FunctionBuilder, Initializer, Module, ModuleBuilder, gradients};
use graphc_runtime::{
    Elements, Executable, NonFinite, RunContext, RuntimeError, State, ThreadPool, Value, ValueMut,
};
use std::sync::Arc;

fn module(declare: impl FnOnce(&ModuleBuilder, &FunctionBuilder)) -> Module {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| declare(&m, f));
    m.build().unwrap()
}

fn options(nan_guard: bool, isa: Isa) -> CompileOptions {
    CompileOptions { nan_guard, isa, max_threads: 2, ..CompileOptions::default() }
}

fn compiled(module: &Module, options: &CompileOptions) -> Executable {
    compile_stages(module, "f", &Bindings::new(), options).unwrap().0
}

struct Runner {
    executable: Executable,
    cx: RunContext,
    state: State,
}

impl Runner {
    fn new(executable: Executable) -> Self {
        let cx = RunContext::new(&executable, Arc::new(ThreadPool::new(2).unwrap())).unwrap();
        let state = State::zeros(executable.state_layout().clone()).unwrap();
        Self { executable, cx, state }
    }

    fn run(&mut self, inputs: &[Elements]) -> Result<Vec<Elements>, RuntimeError> {
        // What it held before must not look like something that was found.
        self.cx.fill_arena(0xff);
        let ports = self.executable.outputs().iter();
        let mut outputs: Vec<Elements> = ports.map(|p| Elements::zeros(p.dtype, p.num_elements())).collect();
        let inputs: Vec<Value<'_>> = inputs.iter().map(Elements::value).collect();
        let mut slots: Vec<ValueMut<'_>> = outputs.iter_mut().map(Elements::value_mut).collect();
        self.executable.run(&mut self.cx, &mut self.state, &inputs, &mut slots)?;
        Ok(outputs)
    }

    /// What the guard found.
    fn found(&mut self, inputs: &[Elements]) -> NonFinite {
        match self.run(inputs) {
            Err(RuntimeError::NonFinite { found, .. }) => *found,
            other => panic!("{other:?}"),
        }
    }
}

fn f32s(values: impl IntoIterator<Item = f32>) -> Elements {
    Elements::F32(values.into_iter().collect())
}

/// Every way to generate code that this machine has.
fn isas() -> Vec<Isa> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|i| i.is_available()).collect()
}

/// A step of gradient descent through a product, a loop and a logarithm.
fn step() -> Module {
    module(|m, f| {
        let (x, y) = (f.input("x", DType::F32, [12, 40]), f.input("y", DType::F32, [12, 9]));
        let w = m.param("w", DType::F32, [40, 9], Initializer::ZEROS);
        let p = f.scope("model", || (x.dot(f.read(&w)) + 1.0).named("p"));
        let log = f.scope("loss", || p.log().named("log"));
        let zero = f.full(DType::F32, [9], 0.0);
        let sum = f.scan(&[zero], &[log * y], |_, c, x| (vec![c[0] * 0.5 + x[0]], vec![])).carries[0];
        let loss = sum.reduce_sum(&[0]);
        f.output("loss", loss);
        let g = gradients(loss, &[f.read(&w)])[0];
        f.update(&w, f.read(&w) - g * 0.01);
    })
}

fn step_inputs(x: f32) -> [Elements; 2] {
    [f32s((0..480).map(|i| x * (i % 7) as f32)), f32s((0..108).map(|i| (i % 5) as f32 * 0.1))]
}

#[test]
fn every_step_names_the_lines_of_the_user() {
    let module = step();
    for level in [OptLevel::O0, OptLevel::O3] {
        let executable = compiled(&module, &CompileOptions::at(level));
        for step in executable.steps().iter() {
            assert!(!step.sources.is_empty(), "{step:?}");
            for source in &step.sources {
                assert!(
                    source.contains(" at compiler/tests/observe.rs:"),
                    "{level:?} {}: {source}",
                    step.name
                );
            }
        }
    }
    // So do modules in the text form, after all passes and for gradients too.
    for file in ["gpt.gir", "lstm.gir", "cnn.gir"] {
        let path = format!("{}/../examples/{file}", env!("CARGO_MANIFEST_DIR"));
        let module = Module::parse(file, &std::fs::read_to_string(path).unwrap()).unwrap();
        let f = &module.functions[0];
        let bindings: Bindings = module.open_dims(f).iter().map(|d| (&**d, 8)).collect();
        let options = options(false, Isa::Portable);
        let passes = graphc_compiler::optimize(&f.bind(&bindings).unwrap(), &options.passes).unwrap();
        let graph = &passes.0.graph;
        for id in graph.ids() {
            assert!(graph.node(id).origin.loc.is_some(), "{file}: {}", passes.0.label_at(id));
        }
    }
}

#[test]
fn a_profile_has_every_step_of_every_run() {
    let mut runner = Runner::new(compiled(&step(), &options(false, Isa::default())));
    runner.run(&step_inputs(0.1)).unwrap();
    runner.cx.start_profile(true);
    for _ in 0..3 {
        runner.run(&step_inputs(0.1)).unwrap();
    }
    let profile = runner.cx.take_profile().unwrap();
    let f = &profile.functions[0];
    assert_eq!((profile.functions.len(), f.runs, f.name.as_str()), (1, 3, "f"));
    for (step, time) in f.steps.iter().zip(&f.times) {
        // The body of the loops has 12 steps.
        let times = if step.name.contains('.') { 36 } else { 3 };
        assert_eq!(time.count, times, "{}", step.name);
    }
    assert!(f.accounted() <= 1.0, "{}", f.accounted());
    let own = profile.events.iter().filter(|e| e.worker == 0);
    assert_eq!(own.clone().count() as u64, f.times.iter().map(|t| t.count).sum::<u64>());
    // Of one thread, what comes later begins later.
    let ordered: Vec<_> = own.collect();
    assert!(ordered.windows(2).all(|w| w[0].start_ns + w[0].duration_ns <= w[1].start_ns));
    assert!(runner.cx.take_profile().is_none());
}

#[test]
fn the_first_node_that_is_not_finite_is_named() {
    let module = step();
    for isa in isas() {
        let plain = Runner::new(compiled(&module, &options(false, isa))).run(&step_inputs(0.1)).unwrap();
        let mut runner = Runner::new(compiled(&module, &options(true, isa)));
        assert_eq!(runner.run(&step_inputs(0.1)).unwrap(), plain, "the guard changes no bit");
        // Weights with which the logarithm gets a negative number.
        runner.state.copy_from("w", &[-1.0f32; 360][..]).unwrap();
        let found = runner.found(&step_inputs(1.0));
        let node = found.node.clone().unwrap();
        assert!(
            node.starts_with("%log = log : f32[12, 9] @loss at compiler/tests/observe.rs:"),
            "{isa:?} {found}"
        );
        assert!(found.message.contains("the first NaN (element 0)") && !found.from_outside, "{found}");
        let mut bad = step_inputs(0.1);
        bad[0] = f32s((0..480).map(|i| if i == 77 { f32::NEG_INFINITY } else { 0.1 }));
        let found = Runner::new(compiled(&module, &options(true, isa))).found(&bad);
        assert!(found.from_outside && found.message.contains("infinity (element 77) already: %x"), "{found}");
    }
}

#[test]
fn guards_watch_all_floats_loops_and_updates() {
    for isa in isas() {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let m = module(|_, f| {
                let x = f.input("x", dtype, [100]);
                f.output("y", (x.exp() * 2.0).named("y"));
            });
            let mut runner = Runner::new(compiled(&m, &options(true, isa)));
            let inputs = |big: f64| [Elements::from_fn(dtype, 100, |i| if i == 99 { big } else { 0.5 })];
            runner.run(&inputs(1.0)).unwrap();
            let found = runner.found(&inputs(10_000.0));
            assert!(found.message.contains("infinity (element 99)"), "{dtype} {isa:?}: {found}");
        }
        // A loop that grows: its body is to blame, in the step where it happens.
        let m = module(|_, f| {
            let x = f.input("x", DType::F32, [3]);
            let steps = f.input("steps", DType::F32, [200]);
            let grown = f.scan(&[x], &[steps], |_, c, s| (vec![c[0] * c[0] + s[0] * 0.0], vec![]));
            f.output("y", grown.carries[0]);
        });
        let mut runner = Runner::new(compiled(&m, &options(true, isa)));
        let found = runner.found(&[f32s([1.0, 1.0, 3.0]), f32s([0.0; 200])]);
        assert!(
            found.node.as_deref().is_some_and(|n| n.contains("mul")) && found.kernel.contains('.'),
            "{found}"
        );
        assert!(found.message.contains("infinity (element 2)"), "{found}");
        // State that is updated in place: the old value is gone, the node is found all the same.
        let m = module(|m, f| {
            let v = m.state("v", DType::F32, [50], Initializer::ZEROS);
            let x = f.input("x", DType::F32, [50]);
            f.update(&v, (f.read(&v) * 0.9 + (x * 1e30).square().named("huge")).named("next"));
        });
        let found = Runner::new(compiled(&m, &options(true, isa))).found(&[f32s([1e-5; 50])]);
        assert!(found.node.as_deref().is_some_and(|n| n.starts_with("%huge")), "{found}");
    }
}
