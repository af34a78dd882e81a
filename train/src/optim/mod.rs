//! Optimizers as graph code: the update of every parameter is part of the function, and the
//! compiler sees it like any other arithmetic. Whatever an optimizer remembers is state of the
//! module, so it is in every checkpoint.
//!
//! | state | type | of |
//! | --- | --- | --- |
//! | `optimizer/lr` | `f32[]` | all: the learning rate; write it between steps for a schedule |
//! | `optimizer/step` | `i64[]` | Adam: number of steps done |
//! | `<param>/momentum` | as the parameter | SGD with momentum |
//! | `<param>/adam_m`, `<param>/adam_v` | as the parameter | Adam |
//!
//! The formulas are PyTorch's, in PyTorch's order of operations; each optimizer's docs spell them
//! out. Constants such as `1 - beta1` are computed in f64 and rounded once to the parameter's type.

mod adam;
mod sgd;

pub use adam::Adam;
pub use sgd::Sgd;

use crate::shared::state;
use graphc_ir::{DType, FunctionBuilder, Initializer, ModuleBuilder, Param, Tensor, gradients};

/// Name of the state variable that holds the learning rate (`f32[]`).
pub const LEARNING_RATE: &str = "optimizer/lr";

/// Name of the state variable that counts the steps done (`i64[]`).
pub const STEP: &str = "optimizer/step";

/// A rule that changes parameters by their gradients.
pub trait Optimizer {
    /// Declares in `f` the update of each of `params` from its gradient (`grads`, in order, of the
    /// parameters' types), and the state that this needs. A mistake, such as a parameter that is
    /// not of float type, is recorded in the builder.
    ///
    /// State that exists already, under the same name and of the same type, is used as it is: two
    /// functions of a module may train in turns.
    fn apply<'f>(&self, f: &'f FunctionBuilder, params: &[Param], grads: &[Tensor<'f>]);
}

/// Declares the function `name`: the inputs and the scalar loss that `loss` declares, the gradients
/// of all trainable parameters declared so far, and their updates by `optimizer`. Its output is
/// `loss`, the value before the update.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::{nn::Dense, optim::{Sgd, train_step}};
///
/// let m = ModuleBuilder::new("regression");
/// let dense = Dense::new(&m, "dense", 3, 1);
/// train_step(&m, "train_step", &Sgd::new(0.1), |f| {
///     let x = f.input("x", DType::F32, shape!["B", 3]);
///     let y = f.input("y", DType::F32, shape!["B", 1]);
///     let error = dense.apply(x) - y;
///     (error * error).reduce_sum(&[0, 1])
/// });
/// let module = m.build()?;
/// assert_eq!(module.functions[0].updates.len(), 2);
/// # Ok::<(), graphc_ir::BuildErrors>(())
/// ```
#[track_caller]
pub fn train_step(
    m: &ModuleBuilder,
    name: &str,
    optimizer: &dyn Optimizer,
    loss: impl for<'f> FnOnce(&'f FunctionBuilder) -> Tensor<'f>,
) {
    m.function(name, |f| {
        let loss = loss(f);
        let params = f.trainable();
        let values: Vec<Tensor<'_>> = params.iter().map(|p| f.read(p)).collect();
        let grads = gradients(loss, &values);
        f.output("loss", loss);
        optimizer.apply(f, &params, &grads);
    });
}

/// A state variable of the type of `param`, named after it, that starts at zero.
fn slot(f: &FunctionBuilder, param: &Param, suffix: &str) -> Param {
    let name = format!("{}/{suffix}", f.param_name(param.id));
    state(f, &name, param.ty.dtype, &param.ty.shape, Initializer::ZEROS)
}

/// The learning rate; `initial` is its value in a fresh state.
fn learning_rate(f: &FunctionBuilder, initial: f64) -> Tensor<'_> {
    f.read(&state(f, LEARNING_RATE, DType::F32, [], Initializer::Constant(initial)))
}

/// The gradients scaled, all by one factor, so that their common Euclidean norm is at most
/// `max_norm`, as `torch.nn.utils.clip_grad_norm_`; and that norm, before scaling. For gradients of
/// one float type:
///
/// ```text
/// norm = sqrt(sum of sum(g * g) over the gradients, in order)
/// g = g * min(max_norm / (norm + 1e-6), 1)
/// ```
///
/// A norm that is infinite or NaN makes gradients zero or NaN. No gradients, no norm.
#[track_caller]
pub fn clip_by_global_norm<'f>(grads: &[Tensor<'f>], max_norm: f64) -> (Vec<Tensor<'f>>, Option<Tensor<'f>>) {
    let sum_of_squares = |g: &Tensor<'f>| (*g * *g).reduce_sum(&(0..g.rank()).collect::<Vec<_>>());
    let Some(total) = grads.iter().map(sum_of_squares).reduce(|a, b| a + b) else {
        return (Vec::new(), None);
    };
    let norm = total.sqrt();
    let factor = (max_norm / (norm + 1e-6)).min(1.0);
    (grads.iter().map(|&g| g * factor).collect(), Some(norm))
}

/// Clips gradients by their global norm, see [`clip_by_global_norm`], before it gives them to
/// another optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped<O> {
    /// The optimizer.
    pub optimizer: O,
    /// Largest norm that gradients keep.
    pub max_norm: f64,
}

impl<O: Optimizer> Optimizer for Clipped<O> {
    fn apply<'f>(&self, f: &'f FunctionBuilder, params: &[Param], grads: &[Tensor<'f>]) {
        let (grads, _) = f.scope("clip", || clip_by_global_norm(grads, self.max_norm));
        self.optimizer.apply(f, params, &grads);
    }
}

/// `x` as the element type of `like`.
fn as_type_of<'f>(x: Tensor<'f>, like: Tensor<'f>) -> Tensor<'f> {
    if x.dtype() == like.dtype() { x } else { x.cast(like.dtype()) }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Runs an optimizer in the reference interpreter next to a reference in f64.

    use super::*;
    use graphc_ir::{Literal, Module, Scalar, StateId, evaluate};
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
            optimizer.apply(f, &f.trainable(), &[g]);
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
    use graphc_ir::{Literal, shape};

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
            let optimizer = Clipped { optimizer: Sgd::new(1.0), max_norm };
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
