//! Fixed training problems, each defined by formulas and by the numbers of
//! [`generator`](super::generator) alone, so that other frameworks can run the same. The same batch is
//! used in every step.

mod autoencoder;
pub(super) mod gpt_nano;
mod gru_bidir;
mod lenet5;
mod lstm_char;
mod mlp;
mod mlp_small;
mod resnet20;

use super::generator::{self, TRANSPOSED, Values};
use super::prepared::{Prepared, Setup};
use super::timing::reset_peak_memory;
use super::{Report, round};
use crate::{Failure, load};
use graphc::nn::Layer;
use graphc::runtime::Elements;
use graphc::{DType, Initializer, Module, ModuleBuilder, Param, Tensor};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// All workloads.
pub(super) const ALL: [Workload; 8] = [
    mlp_small::WORKLOAD,
    mlp::WORKLOAD,
    autoencoder::WORKLOAD,
    lenet5::WORKLOAD,
    resnet20::WORKLOAD,
    lstm_char::WORKLOAD,
    gru_bidir::WORKLOAD,
    gpt_nano::WORKLOAD,
];

/// Fewest steps that are timed.
const MIN_STEPS: usize = 10;

/// A training problem.
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// Floating-point operations of the products and convolutions in one step.
    flops: u64,
    /// How long compiling may take on two cores, in milliseconds.
    pub(super) compile_ms: f64,
    /// What fills the inputs, in order.
    data: &'static [Values],
    /// Number of updates done, the loss of the forward pass that follows, computed in f64, and how far
    /// from it, relatively, one in f32 may be: thrice what other frameworks are off, at least 1e-5.
    losses: [(usize, f64, f64); 4],
    /// Declares parameters and the training step, whose output is the loss.
    declare: fn(&ModuleBuilder),
}

impl Workload {
    /// The module that declares it.
    pub(super) fn module(&self) -> Result<Module, Failure> {
        let m = ModuleBuilder::new(self.name);
        (self.declare)(&m);
        m.build().map_err(Failure::other)
    }

    /// Checks the losses, times steps and reports both.
    pub(super) fn measure(&self, setup: &Setup, seconds: f64) -> Result<Report, Failure> {
        reset_peak_memory();
        let module = self.module()?;
        let inputs = self.inputs(&module);

        let started = Instant::now();
        let mut step = Prepared::new(&module, inputs, setup)?;
        step.run()?;
        let first_step = started.elapsed();

        let (mut losses, mut norm, mut wrong) = (Map::new(), 0.0, Vec::new());
        let mut updates = 0;
        for (after, expected, tolerance) in self.losses {
            // A run gives the loss before its own update.
            while updates < after {
                if updates + 1 == after {
                    norm = parameter_norm(&module, &step)?;
                }
                step.run()?;
                updates += 1;
            }
            let loss = step.loss().map_or(f64::NAN, f64::from);
            // False for NaN.
            let close = (loss - expected).abs() <= tolerance * expected.abs();
            if !close {
                let name = self.name;
                wrong.push(format!(
                    "{name}: the loss after {after} updates is {loss}, which is not {expected} to a relative {tolerance}"
                ));
            }
            losses.insert(after.to_string(), json!(loss));
        }

        let timing = step.measure(seconds, MIN_STEPS, 1)?;
        let mut row = step.row(self.name, &timing, first_step);
        row["params"] = json!(load::parameters(&module));
        row["flops"] = json!(self.flops);
        row["gflops"] = json!(round(self.flops as f64 / timing.median_us / 1e3, 2));
        row["losses"] = Value::Object(losses);
        row["param_norm_after_50"] = json!(norm);
        row["losses_ok"] = json!(wrong.is_empty());
        Ok(Report { row, wrong })
    }

    pub(super) fn inputs(&self, module: &Module) -> Vec<Elements> {
        let f = &module.functions[0];
        let elements = f.inputs.iter().map(|&i| f.graph.ty(i).shape.num_elements().unwrap_or(0));
        elements.zip(self.data).enumerate().map(|(j, (n, &values))| generator::input(j, n, values)).collect()
    }
}

/// Euclidean norm of all parameters together.
fn parameter_norm(module: &Module, step: &Prepared) -> Result<f64, Failure> {
    let mut squares = 0.0;
    for id in module.trainable() {
        let values = step.state().get::<f32>(&module.state[id.index()].name).map_err(Failure::other)?;
        squares += values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
    }
    Ok(squares.sqrt())
}

/// A fully connected layer with its weight stored as `[in, out]`, so that its product needs no
/// transposition.
struct Linear {
    weight: Param,
    bias: Param,
}

impl Linear {
    fn new(m: &ModuleBuilder, name: &str, n_in: usize, n_out: usize) -> Self {
        let init = Initializer::torch_default(n_in);
        let weight = m.param(&format!("{name}/{TRANSPOSED}"), DType::F32, [n_in, n_out], init);
        let bias = m.param(&format!("{name}/bias"), DType::F32, [n_out], init);
        Self { weight, bias }
    }
}

impl Layer for Linear {
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        x.dot(f.read(&self.weight)) + f.read(&self.bias)
    }
}
