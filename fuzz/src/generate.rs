//! Random valid modules.
//!
//! A function grows node by node: an operation is drawn, and one of the values that are there, mostly a
//! recent one, becomes one of its operands; the others are values of the type that fits, or inputs made
//! for it. What the operation's shape rule refuses is drawn again.

use crate::rng::Rng;
use crate::step::Step;
use graphc::differential::Values;
use graphc::optim::{Adam, Optimizer, RmsProp, Sgd};
use graphc::{DType, FunctionBuilder, Initializer, Module, ModuleBuilder, Tensor, gradients, optim};

/// A module with one function, and values for it.
pub(crate) struct Case {
    pub(crate) module: Module,
    pub(crate) values_seed: u64,
}

impl Case {
    /// Values of inputs and state.
    pub(crate) fn values(&self) -> Values {
        Values::drawn(&self.module, &self.module.functions[0], self.values_seed)
    }
}

/// How large values are.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    extents: &'static [usize],
    /// Elements of the largest tensor that is declared.
    pub(crate) max_elements: usize,
}

impl Sizes {
    /// Small extents, and those around vectors of all widths.
    const SMALL: Self = Self {
        extents: &[0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 7, 8, 8, 9, 9, 15, 16, 16, 17, 31, 32, 33],
        max_elements: 600,
    };

    /// Work for several threads, and sums of several parts.
    const LARGE: Self =
        Self { extents: &[1, 2, 3, 7, 16, 33, 64, 100, 257, 1024, 1025, 2500, 34000], max_elements: 36_000 };

    /// Random extents with at most so many elements.
    pub(crate) fn dims(self, rng: &mut Rng, max_rank: usize) -> Vec<usize> {
        let mut elements = 1;
        let rank = rng.below(max_rank + 1);
        let mut extent = |_| {
            let drawn = rng.of(self.extents);
            let d = if elements * drawn.max(1) > self.max_elements { 1 } else { drawn };
            elements *= d.max(1);
            d
        };
        (0..rank).map(&mut extent).collect()
    }
}

/// What a function computes beside values.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Forward,
    Gradients,
    Training,
}

/// Module `index` of seed `seed`.
pub(crate) fn case(seed: u64, index: u64) -> Case {
    let mut rng = Rng::new(seed, index);
    let kind = match rng.below(8) {
        0..5 => Kind::Forward,
        5..7 => Kind::Gradients,
        _ => Kind::Training,
    };
    let values_seed = rng.next();
    // Not every operation has a gradient: without one the function is declared again without it.
    let declared = module(&mut rng.clone(), kind).or_else(|| module(&mut rng.clone(), Kind::Forward));
    Case { module: declared.expect("what shape rules accept is a module"), values_seed }
}

fn module(rng: &mut Rng, kind: Kind) -> Option<Module> {
    let m = ModuleBuilder::new("fuzz");
    let init = Initializer::Normal { mean: 0.0, std: 1.0 };
    let sizes = if rng.one_in(10) { Sizes::LARGE } else { Sizes::SMALL };
    let nodes = 3 + rng.below(14);
    if kind == Kind::Training {
        for i in 0..1 + rng.below(2) {
            m.param(&format!("p{i}"), DType::F32, sizes.dims(rng, 3).as_slice(), init);
        }
        let optimizers: [&dyn Optimizer; 4] =
            [&Sgd::new(0.1), &Sgd::new(0.1).momentum(0.9), &Adam::new(0.01), &RmsProp::new(0.01)];
        let optimizer = rng.of(&optimizers);
        optim::train_step(&m, "f", optimizer, |f| {
            let mut step = Step::new(f, rng, sizes, 3);
            for p in f.trainable() {
                step.add(f.read(&p));
            }
            step.grow(nodes);
            loss(&step.pool)
        });
        return m.build().ok();
    }
    if rng.one_in(3) {
        for i in 0..1 + rng.below(2) {
            let dtype = rng.of(&DType::ALL);
            m.state(&format!("s{i}"), dtype, sizes.dims(rng, 3).as_slice(), Initializer::ZEROS);
        }
    }
    let state = m.state_vars();
    m.function("f", |f| {
        let mut step = Step::new(f, rng, sizes, 3);
        let params: Vec<_> = state.iter().filter_map(|s| f.find_param(&s.name)).collect();
        for p in &params {
            step.add(f.read(p));
        }
        step.grow(nodes);
        if kind == Kind::Gradients {
            let loss = loss(&step.pool);
            let wrt: Vec<Tensor<'_>> = step.inputs.iter().copied().filter(|t| !t.dtype().is_half()).collect();
            for (i, g) in gradients(loss, &wrt).into_iter().enumerate() {
                f.output(&format!("d{i}"), g);
            }
        }
        outputs(f, &mut step);
        // A variable gets a value of its type, were it its own.
        for p in &params {
            let fitting: Vec<Tensor<'_>> = step.pool.iter().copied().filter(|t| t.ty() == p.ty).collect();
            if !fitting.is_empty() && !step.rng.one_in(4) {
                let value = step.rng.of(&fitting);
                f.update(p, value);
            }
        }
    });
    m.build().ok()
}

/// Recent values, now and then one of them twice, an input, or a value from long ago.
fn outputs<'f>(f: &'f FunctionBuilder, step: &mut Step<'_, 'f>) {
    let recent = 1 + step.rng.below(4);
    for i in 0..recent.min(step.pool.len()) {
        f.output(&format!("y{i}"), step.pool[step.pool.len() - 1 - i]);
    }
    if step.rng.one_in(3) {
        let any = step.rng.of(&step.pool);
        f.output("any", any);
        f.output("again", any);
    }
}

/// The sum of all floats among the last values.
fn loss<'f>(pool: &[Tensor<'f>]) -> Tensor<'f> {
    let f = pool[0].builder();
    let floats = pool.iter().rev().filter(|t| t.dtype().is_float()).take(4);
    floats.fold(f.scalar(DType::F32, 0.0), |sum, t| {
        let axes: Vec<usize> = (0..t.rank()).collect();
        sum + t.cast(DType::F32).reduce_sum(&axes)
    })
}
