//! Dropout, and the random numbers of layers.

use super::Layer;
use crate::shared::state;
use graphc_ir::composite::RandomStream;
use graphc_ir::{DType, FunctionBuilder, Initializer, Tensor};

/// Name of the state variable with the seed of the random numbers that training functions draw (`i64[]`).
/// It starts as the seed of the state.
pub const RANDOM_SEED: &str = "random/seed";

/// Name of the state variable that counts the runs of functions which draw random numbers (`i64[]`).
pub const RANDOM_STEP: &str = "random/step";

/// Random numbers of the place `name` in a training function: others in each run, the same in a run that
/// is repeated from the same state. Declares the state [`RANDOM_SEED`] and [`RANDOM_STEP`], and the update of
/// the latter, once per function. In a loop each step gets the same numbers.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder};
/// # use graphc_train::nn::random_stream;
/// let m = ModuleBuilder::new("m");
/// m.function("noisy", |f| {
///     let x = f.input("x", DType::F32, [3]);
///     let noise = random_stream(f, "noise").normal(DType::F32, [3], 0.0, 0.1);
///     f.output("y", x + noise);
/// });
/// # m.build().unwrap();
/// ```
pub fn random_stream<'a, 'f>(f: &'f FunctionBuilder, name: &'a str) -> RandomStream<'a, 'f> {
    let seed = state(f, RANDOM_SEED, DType::I64, [], Initializer::ZEROS);
    let step = state(f, RANDOM_STEP, DType::I64, [], Initializer::ZEROS);
    if f.updated(&step).is_none() {
        f.update(&step, f.read(&step) + 1.0);
    }
    RandomStream::new(name, f.read(&seed), f.read(&step))
}

/// While training, zeros with probability `rate`, and what stays divided by `1 - rate` (Srivastava et al.
/// 2014); else the identity. Floats of any shape. Which elements are dropped depends on the seed, the number of
/// the training step and `name`, so two dropouts need two names.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{Dropout, Layer};
/// let m = ModuleBuilder::new("m");
/// let dropout = Dropout::new("dropout", 0.5);
/// m.function("train", |f| f.output("y", dropout.train(f.input("x", DType::F32, shape!["B", 8]))));
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    name: String,
    rate: f64,
}

impl Dropout {
    /// Drops with probability `rate`, in `0..1`.
    pub fn new(name: &str, rate: f64) -> Self {
        Self { name: name.to_owned(), rate }
    }

    /// Another one of this rate, for part `i` of what this one is for.
    pub(super) fn of_part(&self, i: usize) -> Self {
        Self { name: format!("{}/{i}", self.name), rate: self.rate }
    }
}

impl Layer for Dropout {
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        x
    }

    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        if self.rate == 0.0 || x.is_poison() {
            return x;
        }
        x.dropout(random_stream(x.builder(), &self.name), self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{Literal, ModuleBuilder, Scalar, evaluate};

    #[test]
    fn drops_while_training_only_and_counts_a_step_once() {
        let m = ModuleBuilder::new("m");
        let (a, b) = (Dropout::new("a", 0.25), Dropout::new("b", 0.25));
        m.function("train", |f| {
            let x = f.input("x", DType::F32, [4000]);
            f.output("a", a.train(x));
            f.output("b", b.train(x));
            f.output("a/1", a.of_part(1).train(x));
        });
        m.function("infer", |f| f.output("a", a.apply(f.input("x", DType::F32, [4000]))));
        let module = m.build().unwrap();
        let names: Vec<_> = module.state.iter().map(|s| (&*s.name, s.trainable)).collect();
        assert_eq!(names, [(RANDOM_SEED, false), (RANDOM_STEP, false)]);
        let x = Literal::from_fn(DType::F32, &[4000], |_| Scalar::F32(3.0));
        let run = |f: usize, step: i64| {
            let state = |id: graphc_ir::StateId| Literal::scalar(Scalar::I64([7, step][id.index()]));
            evaluate(&module.functions[f], std::slice::from_ref(&x), state).unwrap()
        };
        let first = run(0, 0);
        assert_eq!(first.updates.len(), 1);
        assert_eq!(first.updates[0].1.get(0), Scalar::I64(1));
        let values = first.outputs[0].as_slice::<f32>().unwrap();
        assert!(values.iter().all(|&v| v == 0.0 || v == 4.0));
        let dropped = values.iter().filter(|&&v| v == 0.0).count();
        assert!((900..1100).contains(&dropped), "{dropped}");
        assert_ne!(first.outputs[0], first.outputs[1]);
        assert_ne!(first.outputs[0], first.outputs[2]);
        assert_eq!(first.outputs[0], run(0, 0).outputs[0]);
        assert_ne!(first.outputs[0], run(0, 1).outputs[0]);
        assert_eq!(run(1, 0).outputs[0], x);
    }

    #[test]
    fn a_rate_out_of_range_is_a_mistake() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| f.output("y", Dropout::new("d", 1.0).train(f.input("x", DType::F32, [2]))));
        let error = m.build().unwrap_err().to_string();
        assert!(error.contains("dropout: rate 1 is not in 0..1"), "{error}");
    }
}
