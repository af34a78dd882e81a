//! The training step: loss, gradients and updates.

use super::{LEARNING_RATE, Optimizer};
use crate::shared::state;
use graphc_ir::{DType, FunctionBuilder, Initializer, ModuleBuilder, Param, Tensor, gradients};

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
    train_step_with(m, name, optimizer, StepOptions::default(), loss);
}

/// Declares the function `name`: that of the module called `loss`, whose first output is a float scalar, and the updates of all
/// trainable parameters by `optimizer`. It has the inputs and outputs of that function.
///
/// ```
/// use graphc_ir::{Module, ModuleBuilder};
/// use graphc_train::optim::{Sgd, train_step_of};
///
/// let text = "graphc 1\nmodule @m\nparam %w: f32[] = constant(1.0)\n\
///             fn @loss() {\n  %loss = mul(%w, %w) : f32[]\n  return %loss\n}\n";
/// let m = ModuleBuilder::from_module(Module::parse("m.gir", text)?);
/// train_step_of(&m, "train_step", "loss", &Sgd::new(0.1));
/// assert_eq!(m.build()?.functions[1].updates.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn train_step_of(m: &ModuleBuilder, name: &str, loss: &str, optimizer: &dyn Optimizer) {
    m.extended(name, loss, |f| {
        let Some(loss) = f.first_output() else {
            return f.misuse(format!("function `{loss}` has no output to train by"));
        };
        let trained = |p: &Param| optimizer.trains(&f.param_name(p.id));
        let params: Vec<Param> = f.trainable().into_iter().filter(trained).collect();
        let values: Vec<Tensor<'_>> = params.iter().map(|p| f.read(p)).collect();
        let grads = gradients(loss, &values);
        optimizer.apply(learning_rate(f, optimizer), &params, &grads);
    });
}

/// What a training step does beside training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepOptions {
    /// Gives the output `gradient_norms: f32[n]`, the Euclidean norm of the gradient of each trained parameter, before
    /// the optimizer: false.
    pub gradient_norms: bool,
    /// Changes no state, bit for bit, if the loss or the gradient of a parameter is not finite, and gives the
    /// output `finite: bool[1 + n]`, whether the loss and the gradient of each trained parameter are: false.
    pub guard: bool,
}

/// As [`train_step`], with options. Gives the names of the parameters that it trains, in order.
#[track_caller]
pub fn train_step_with(
    m: &ModuleBuilder,
    name: &str,
    optimizer: &dyn Optimizer,
    options: StepOptions,
    loss: impl for<'f> FnOnce(&'f FunctionBuilder) -> Tensor<'f>,
) -> Vec<String> {
    let mut names = Vec::new();
    m.function(name, |f| {
        let declare = || {
            let loss = loss(f);
            let trained = |p: &Param| optimizer.trains(&f.param_name(p.id));
            let params: Vec<Param> = f.trainable().into_iter().filter(trained).collect();
            names.extend(params.iter().map(|p| f.param_name(p.id).to_string()));
            let values: Vec<Tensor<'_>> = params.iter().map(|p| f.read(p)).collect();
            let grads = gradients(loss, &values);
            f.output("loss", loss);
            if options.gradient_norms {
                let norms: Vec<_> = grads.iter().map(|&g| g.norm(&all_axes(g)).cast(DType::F32)).collect();
                f.output("gradient_norms", f.stack(&norms, 0));
            }
            optimizer.apply(learning_rate(f, optimizer), &params, &grads);
            (loss, grads)
        };
        if options.guard {
            // What the loss itself updates, such as running averages, is guarded as well.
            f.update_if(|| {
                let (loss, grads) = declare();
                let flags: Vec<_> =
                    [loss].into_iter().chain(grads).map(|x| x.is_finite().all(&all_axes(x))).collect();
                f.output("finite", f.stack(&flags, 0));
                flags.into_iter().reduce(|a, b| a & b).unwrap_or_else(|| f.poison())
            });
        } else {
            declare();
        }
    });
    names
}

fn all_axes(x: Tensor<'_>) -> Vec<usize> {
    (0..x.rank()).collect()
}

/// The learning rate in a function that `optimizer` trains.
pub(super) fn learning_rate<'f>(f: &'f FunctionBuilder, optimizer: &dyn Optimizer) -> Tensor<'f> {
    let initial = Initializer::Constant(optimizer.learning_rate());
    f.read(&state(f, LEARNING_RATE, DType::F32, [], initial))
}
