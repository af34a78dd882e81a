//! Optimizers as graph code: the update of every parameter is part of the function, and the
//! compiler sees it like any other arithmetic. Whatever an optimizer remembers is state of the
//! module, so it is in every checkpoint.
//!
//! | state | type | of |
//! | --- | --- | --- |
//! | `optimizer/lr` | `f32[]` | all: the learning rate; write it between steps for a schedule |
//! | `optimizer/step` | `i64[]` | those whose formula has the number of the step: steps done |
//! | `<param>/<slot>` | as the parameter | all but plain SGD; each optimizer's docs name its slots |
//! | `<param>/accumulated`, `optimizer/accumulated` | as the parameter, `i64[]` | [`Accumulated`] |
//! | `<param>/average`, `optimizer/averaged` | as the parameter, `i64[]` | [`Averaged`] |
//!
//! The formulas are PyTorch's, in PyTorch's order of operations; each optimizer's docs spell them
//! out. Constants such as `1 - beta1` are computed in f64 and rounded once to the parameter's type.
//!
//! Wrappers change what another optimizer gets or does: [`Clipped`], [`L1`], [`Accumulated`], [`Averaged`], and
//! [`Groups`], which gives each group of parameters an optimizer of its own, or freezes it.
//!
//! A new optimizer takes a few lines. Sign descent with a memory:
//!
//! ```
//! use graphc_ir::{FunctionBuilder, ModuleBuilder, Param, Tensor};
//! use graphc_train::optim::{Optimizer, slot};
//!
//! struct SignDescent;
//!
//! impl Optimizer for SignDescent {
//!     fn learning_rate(&self) -> f64 {
//!         1e-3
//!     }
//!
//!     fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
//!         let f = lr.builder();
//!         for (param, &g) in params.iter().zip(grads) {
//!             let memory = slot(f, param, "memory");
//!             let m = f.read(&memory) * 0.9 + g * 0.1;
//!             f.update(&memory, m);
//!             f.update(param, f.read(param) - m.sign() * lr);
//!         }
//!     }
//! }
//! ```

mod accumulate;
mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod average;
mod clip;
mod groups;
mod l1;
mod lion;
mod nadam;
mod rmsprop;
mod sgd;
mod step;
mod touched;

pub use accumulate::Accumulated;
pub use adadelta::Adadelta;
pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adamax::Adamax;
pub use average::{Averaged, swap_averages};
pub use clip::{Clip, Clipped, clip_by_global_norm};
pub use groups::Groups;
pub use l1::L1;
pub use lion::Lion;
pub use nadam::Nadam;
pub use rmsprop::RmsProp;
pub use sgd::Sgd;
pub use step::{StepOptions, train_step, train_step_of, train_step_with};

use crate::shared::state;
use graphc_ir::{DType, FunctionBuilder, Initializer, Param, Tensor};

/// Name of the state variable that holds the learning rate (`f32[]`).
pub const LEARNING_RATE: &str = "optimizer/lr";

/// Name of the state variable that counts the steps done (`i64[]`).
pub const STEP: &str = "optimizer/step";

/// A rule that changes parameters by their gradients.
pub trait Optimizer {
    /// The learning rate of a fresh state.
    fn learning_rate(&self) -> f64;

    /// Declares the update of each of `params` from its gradient (`grads`, in order, of the
    /// parameters' types), and the state that this needs, in the function of `lr: f32[]`, the learning rate. A
    /// mistake, such as a parameter that is not of float type, is recorded in the builder.
    ///
    /// State that exists already, under the same name and of the same type, is used as it is: two
    /// functions of a module may train in turns.
    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]);

    /// Whether it trains a parameter; no gradient is computed of those that it does not.
    fn trains(&self, name: &str) -> bool {
        let _ = name;
        true
    }
}

impl<O: Optimizer + ?Sized> Optimizer for Box<O> {
    fn learning_rate(&self) -> f64 {
        (**self).learning_rate()
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        (**self).apply(lr, params, grads);
    }

    fn trains(&self, name: &str) -> bool {
        (**self).trains(name)
    }
}

/// A state variable of the type of `param`, named `<param>/<suffix>`, that starts at zero; the same one if it is asked for
/// again.
pub fn slot(f: &FunctionBuilder, param: &Param, suffix: &str) -> Param {
    slot_of(f, param, suffix, 0.0)
}

/// As [`slot`], with another constant to start at.
fn slot_of(f: &FunctionBuilder, param: &Param, suffix: &str, initial: f64) -> Param {
    let name = format!("{}/{suffix}", f.param_name(param.id));
    state(f, &name, param.ty.dtype, &param.ty.shape, Initializer::Constant(initial))
}

/// The number of this step, from 1, `f64[]`; declares that [`STEP`] counts it, once per function.
fn step_number(f: &FunctionBuilder) -> Tensor<'_> {
    let step = state(f, STEP, DType::I64, [], Initializer::ZEROS);
    let t = f.updated(&step).unwrap_or_else(|| {
        let t = f.read(&step) + 1.0;
        f.update(&step, t);
        t
    });
    t.cast(DType::F64)
}

/// `1 - beta^t` for `t: f64[]`. For a beta of 0 the exponent is -inf, and the result 1.
fn one_minus_power<'f>(t: Tensor<'f>, beta: f64) -> Tensor<'f> {
    -(t * beta.ln()).expm1()
}

/// Whether all of these rates of decay are in `[0, 1)`; a mistake of `optimizer` else.
fn are_rates(f: &FunctionBuilder, optimizer: &str, rates: &[f64]) -> bool {
    let sound = rates.iter().all(|rate| (0.0..1.0).contains(rate));
    if !sound {
        f.misuse(format!("{optimizer}: rates {rates:?} must be in [0, 1)"));
    }
    sound
}

/// `grad + weight_decay * p`: weight decay that is part of the gradient.
fn decayed<'f>(grad: Tensor<'f>, p: Tensor<'f>, weight_decay: f64) -> Tensor<'f> {
    if weight_decay == 0.0 { grad } else { grad + p * weight_decay }
}

/// `x` as the element type of `like`.
fn as_type_of<'f>(x: Tensor<'f>, like: Tensor<'f>) -> Tensor<'f> {
    if x.dtype() == like.dtype() { x } else { x.cast(like.dtype()) }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Runs an optimizer in the reference interpreter next to a reference in f64.

    use super::*;
    use graphc_ir::{Literal, Module, ModuleBuilder, Scalar, StateId, evaluate};
    use std::collections::HashMap;

    /// What a test's reference remembers per element, by name of the slot's suffix.
    pub(crate) type Slots = HashMap<&'static str, f64>;

    pub(crate) const N: usize = 5;

    /// Gradients that change sign and scale from step to step, and one that is always zero.
    pub(crate) fn gradient(step: usize, element: usize) -> f64 {
        let x = (step * N + element) as f64;
        if element == 4 { 0.0 } else { ((x * 0.7).sin() * 4.0) * 10f64.powi(element as i32 - 2) }
    }

    pub(crate) fn initial(module: &Module) -> Vec<Literal> {
        let constant = |s: &graphc_ir::StateVar| match s.init {
            Initializer::Constant(c) => {
                let dims = s.ty.shape.as_static().unwrap();
                Literal::full(&dims, Scalar::from_f64(s.ty.dtype, c))
            }
            _ => Literal::from_fn(s.ty.dtype, &[N], |i| Scalar::F64(0.5 - 0.25 * i as f64)),
        };
        module.state.iter().map(constant).collect()
    }

    /// One run of the first function of `module`.
    pub(crate) fn step(module: &Module, state: &mut [Literal], inputs: &[Literal]) -> Vec<Literal> {
        let done = evaluate(&module.functions[0], inputs, |id: StateId| state[id.index()].clone()).unwrap();
        done.updates.into_iter().for_each(|(id, value)| state[id.index()] = value);
        done.outputs
    }

    /// Runs 20 steps of `optimizer` on one parameter, with a learning rate changed on the way, and
    /// compares it after each step with `reference(p, g, lr, t, slots)`, which gives the new `p`
    /// in f64 (`t` counts from 1). `tolerance` is relative to 1.
    pub(crate) fn check(
        optimizer: &dyn Optimizer,
        dtype: DType,
        tolerance: f64,
        lr: f64,
        reference: impl Fn(f64, f64, f64, i32, &mut Slots) -> f64,
    ) {
        let m = ModuleBuilder::new("m");
        m.param("p", dtype, [N], Initializer::Uniform { lo: -1.0, hi: 1.0 });
        m.function("train_step", |f| {
            let g = f.input("g", dtype, [N]);
            optimizer.apply(step::learning_rate(f, optimizer), &f.trainable(), &[g]);
        });
        let module = m.build().unwrap();
        let mut values = initial(&module);
        let mut expected: Vec<f64> = (0..N).map(|i| values[0].get(i).to_f64()).collect();
        let mut slots = vec![Slots::new(); N];
        let lr_id = module.state_id(LEARNING_RATE).unwrap().index();
        for t in 1..=20 {
            let lr = if t < 12 { lr } else { lr * 0.5 };
            values[lr_id] = Literal::scalar(Scalar::F32(lr as f32));
            let g = Literal::from_fn(dtype, &[N], |i| Scalar::F64(gradient(t, i)));
            step(&module, &mut values, std::slice::from_ref(&g));
            for i in 0..N {
                let lr = f64::from(lr as f32);
                expected[i] = reference(expected[i], g.get(i).to_f64(), lr, t as i32, &mut slots[i]);
                let (got, want) = (values[0].get(i).to_f64(), expected[i]);
                let bound = tolerance * want.abs().max(1.0);
                assert!((got - want).abs() <= bound, "step {t}, element {i}: {got} instead of {want}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{Literal, Module, ModuleBuilder, Scalar, shape};

    /// A step on `p = [1, -2, 3]` whose gradient is the input `g`, and what is called `names` afterwards, after each run
    /// with the gradients.
    fn runs(
        optimizer: &dyn Optimizer,
        options: StepOptions,
        grads: &[[f32; 3]],
        name: &str,
    ) -> Vec<Vec<f64>> {
        let m = ModuleBuilder::new("m");
        let p = m.param("p", DType::F32, [3], Initializer::ZEROS);
        train_step_with(&m, "t", optimizer, options, |f| {
            (f.read(&p) * f.input("g", DType::F32, [3])).reduce_sum(&[0])
        });
        let module = m.build().unwrap();
        let mut state = testing::initial(&module);
        state[0] = Literal::new(&[3], vec![1.0f32, -2.0, 3.0]).unwrap();
        let of = |state: &[Literal]| values(&state[module.state_id(name).unwrap().index()]);
        let mut seen = Vec::new();
        for g in grads {
            testing::step(&module, &mut state, &[Literal::new(&[3], g.to_vec()).unwrap()]);
            seen.push(of(&state));
        }
        seen
    }

    fn values(l: &Literal) -> Vec<f64> {
        (0..l.len()).map(|i| l.get(i).to_f64()).collect()
    }

    const PLAIN: StepOptions = StepOptions { gradient_norms: false, guard: false };

    #[test]
    fn clipping_by_value_and_by_norm() {
        let moved =
            |clip| runs(&Clipped::new(Sgd::new(1.0), clip), PLAIN, &[[3.0, -4.0, 0.5]], "p").remove(0);
        assert_eq!(moved(Clip::Value(1.0)), [0.0, -1.0, 2.5]);
        let by_norm = moved(Clip::Norm(1.0));
        let norm = (9.0f64 + 16.0 + 0.25).sqrt();
        by_norm.iter().zip([1.0 - 3.0 / norm, -2.0 + 4.0 / norm, 3.0 - 0.5 / norm]).for_each(|(a, b)| {
            assert!((a - b).abs() < 1e-6, "{by_norm:?}");
        });
    }

    #[test]
    fn l1_decays_by_the_sign() {
        let moved = runs(&L1::new(Sgd::new(1.0), 0.25), PLAIN, &[[0.0, 0.0, 1.0]], "p").remove(0);
        assert_eq!(moved, [0.75, -1.75, 1.75]);
    }

    #[test]
    fn accumulated_gradients_are_one_large_batch() {
        let adam = Adam::new(0.1);
        let parts = [[1.0, 2.0, -1.0], [3.0, 0.0, 1.0], [0.5, 0.5, 0.5], [1.5, 0.5, -0.5]];
        let whole = [[2.0, 1.0, 0.0], [1.0, 0.5, 0.0]];
        let expected = runs(&adam, PLAIN, &whole, "p");
        let got = runs(&Accumulated::new(adam, 2), PLAIN, &parts, "p");
        assert_eq!(
            [&got[0], &got[1], &got[2], &got[3]],
            [&vec![1.0, -2.0, 3.0], &expected[0], &expected[0], &expected[1]]
        );
        let step = runs(&Accumulated::new(adam, 2), PLAIN, &parts, STEP);
        assert_eq!(step.concat(), [0.0, 1.0, 1.0, 2.0]);
        let sums = runs(&Accumulated::new(adam, 2), PLAIN, &parts, "p/accumulated");
        assert_eq!(sums[1], [0.0; 3]);
        assert_eq!(sums[2], [0.5; 3]);
    }

    #[test]
    fn averages_follow_the_parameters() {
        let grads = [[1.0, 0.0, 0.0], [1.0, 0.0, 2.0], [0.0, 0.0, 2.0]];
        let p = runs(&Sgd::new(1.0), PLAIN, &grads, "p");
        let a = runs(&Averaged::new(Sgd::new(1.0), 0.75), PLAIN, &grads, "p/average");
        assert_eq!(a[0], p[0]);
        for t in 1..3 {
            for i in 0..3 {
                assert_eq!(a[t][i], 0.75 * a[t - 1][i] + 0.25 * p[t][i]);
            }
        }
    }

    #[test]
    fn a_guarded_step_changes_nothing_if_a_gradient_is_not_finite() {
        let guard = StepOptions { guard: true, gradient_norms: true };
        let grads = [[1.0, 1.0, 1.0], [f32::NAN, 1.0, 1.0], [1.0, f32::INFINITY, 0.0], [1.0, 1.0, 1.0]];
        let adam = Adam::new(0.1);
        let sound = runs(&adam, PLAIN, &[grads[0], grads[3]], "p");
        let guarded = runs(&adam, guard, &grads, "p");
        assert_eq!(guarded, [&sound[..1], &sound[..1], &sound[..1], &sound[1..]].concat());
        assert_eq!(runs(&adam, guard, &grads, STEP).concat(), [1.0, 1.0, 1.0, 2.0]);
    }

    #[test]
    fn norms_and_flags_are_outputs() {
        let m = ModuleBuilder::new("m");
        let (a, b) = (
            m.param("a", DType::F32, [2], Initializer::ONES),
            m.param("b", DType::F32, [], Initializer::ONES),
        );
        let options = StepOptions { gradient_norms: true, guard: true };
        let names = train_step_with(&m, "t", &Sgd::new(0.1), options, |f| {
            let x = f.input("x", DType::F32, [2]);
            (f.read(&a) * x).reduce_sum(&[0]) + f.read(&b).log()
        });
        assert_eq!(names, ["a", "b"]);
        let module = m.build().unwrap();
        let mut state = testing::initial(&module);
        state[0] = Literal::new(&[2], vec![1.0f32, 1.0]).unwrap();
        state[1] = Literal::scalar(Scalar::F32(0.0));
        let out = testing::step(&module, &mut state, &[Literal::new(&[2], vec![3.0f32, 4.0]).unwrap()]);
        assert_eq!(values(&out[1]), [5.0, f64::INFINITY]);
        // log(0) is not finite, nor is its derivative.
        assert_eq!(values(&out[2]), [0.0, 1.0, 0.0]);
        assert_eq!(values(&state[0]), [1.0, 1.0]);
    }

    /// Two parameters, and a step of their groups.
    fn grouped(groups: Groups) -> Result<Module, graphc_ir::BuildErrors> {
        let m = ModuleBuilder::new("m");
        let e = m.param("encoder/weight", DType::F32, [2, 2], Initializer::ONES);
        let h = m.param("head/weight", DType::F32, [2], Initializer::ONES);
        let b = m.param("head/bias", DType::F32, [2], Initializer::ONES);
        train_step(&m, "t", &groups, |f| {
            let x = f.input("x", DType::F32, [2]);
            let hidden = f.read(&e).dot(x).tanh();
            (hidden * f.read(&h) + f.read(&b)).reduce_sum(&[0])
        });
        m.build()
    }

    #[test]
    fn groups_train_by_their_own_rules() {
        let module =
            grouped(Groups::new(Adam::new(0.1)).freeze("encoder/*").with("*/bias", Sgd::new(0.2))).unwrap();
        let names: Vec<_> = module.state.iter().map(|s| &*s.name).collect();
        // Neither slots nor gradient of what is frozen.
        let own = ["encoder/weight", "head/weight", "head/bias"];
        let kept = ["optimizer/lr", "optimizer/step", "head/weight/adam_m", "head/weight/adam_v"];
        assert_eq!(names, [&own[..], &kept].concat());
        let text = module.to_string();
        assert_eq!(text.matches("= tanh").count(), 1);
        assert!(!text.contains("outer"), "{text}");
        let mut state = testing::initial(&module);
        for s in &mut state[..3] {
            *s = Literal::full(s.dims(), Scalar::F32(1.0));
        }
        testing::step(&module, &mut state, &[Literal::new(&[2], vec![0.25f32, 0.25]).unwrap()]);
        assert_eq!(values(&state[0]), [1.0; 4]);
        // The gradient of the bias is 1, and its rate twice that of the default.
        values(&state[2]).iter().for_each(|v| assert!((v - 0.8).abs() < 1e-6, "{v}"));
        values(&state[1]).iter().for_each(|v| assert!((v - 0.9).abs() < 1e-5, "{v}"));
    }

    #[test]
    fn a_pattern_without_parameters_is_a_mistake() {
        let error = grouped(Groups::new(Sgd::new(0.1)).freeze("decoder/*")).unwrap_err().to_string();
        let expected = "groups: no parameter is named like `decoder/*`; there are encoder/weight, head/weight, head/bias";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn train_step_gives_the_loss_before_the_update() {
        let m = ModuleBuilder::new("m");
        let w = m.param("w", DType::F32, [2], Initializer::ONES);
        train_step(&m, "train_step", &Sgd::new(0.5), |f| {
            let x = f.input("x", DType::F32, shape![2]);
            (f.read(&w) * x).reduce_sum(&[0])
        });
        let module = m.build().unwrap();
        assert_eq!(&*module.functions[0].outputs[0].name, "loss");
        let mut state = testing::initial(&module);
        let x = Literal::new(&[2], vec![3.0f32, 5.0]).unwrap();
        let loss = testing::step(&module, &mut state, &[x]);
        assert_eq!(loss[0].as_slice::<f32>().unwrap(), [8.0]);
        assert_eq!(state[0].as_slice::<f32>().unwrap(), [1.0 - 0.5 * 3.0, 1.0 - 0.5 * 5.0]);
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let check = |max_norm: f64, expected: [f32; 2]| {
            let m = ModuleBuilder::new("m");
            let w = m.param("w", DType::F32, [2], Initializer::ONES);
            let optimizer = Clipped::new(Sgd::new(1.0), Clip::GlobalNorm(max_norm));
            train_step(&m, "t", &optimizer, |f| {
                (f.read(&w) * f.input("x", DType::F32, [2])).reduce_sum(&[0])
            });
            let module = m.build().unwrap();
            let mut state = testing::initial(&module);
            testing::step(&module, &mut state, &[Literal::new(&[2], vec![3.0f32, 4.0]).unwrap()]);
            let moved = state[0].as_slice::<f32>().unwrap();
            moved.iter().zip(expected).for_each(|(a, b)| assert!((1.0 - a - b).abs() < 1e-6, "{moved:?}"));
        };
        check(10.0, [3.0, 4.0]);
        check(1.0, [0.6, 0.8]);
    }

    #[test]
    fn two_functions_share_the_slots() {
        let m = ModuleBuilder::new("m");
        let w = m.param("w", DType::F32, [2], Initializer::ONES);
        for name in ["a", "b"] {
            let sgd = Sgd::new(0.5).momentum(0.9);
            train_step(&m, name, &sgd, |f| f.read(&w).reduce_sum(&[0]));
        }
        let module = m.build().unwrap();
        let names: Vec<_> = module.state.iter().map(|s| &*s.name).collect();
        assert_eq!(names, ["w", "optimizer/lr", "w/momentum"]);
    }

    #[test]
    fn state_of_another_type_is_a_mistake() {
        let m = ModuleBuilder::new("m");
        let w = m.param("w", DType::F32, [2], Initializer::ONES);
        m.state("w/momentum", DType::F64, [2], Initializer::ZEROS);
        train_step(&m, "t", &Sgd::new(0.5).momentum(0.9), |f| f.read(&w).reduce_sum(&[0]));
        let error = m.build().unwrap_err().to_string();
        assert!(error.starts_with("state `w/momentum` is declared twice"), "{error}");
    }
}
