//! Moving averages of the parameters.

use super::{Optimizer, as_type_of, slot};
use crate::shared::state;
use graphc_ir::{DType, Initializer, Param, Tensor};
use graphc_runtime::{RuntimeError, State};

/// Suffix of the averages.
const AVERAGE: &str = "average";

/// Keeps a moving average of each parameter, `a = decay * a + (1 - decay) * p` after each update of `p` (Polyak and Juditsky
/// 1992); the first one is `p` itself. [`swap_averages`] exchanges parameters and averages.
///
/// State beside that of the other optimizer: `<param>/average`, and `optimizer/averaged` (`i64[]`), the number of updates.
///
/// ```
/// use graphc_train::optim::{Adam, Averaged};
/// let optimizer = Averaged::new(Adam::new(1e-3), 0.999);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Averaged<O> {
    optimizer: O,
    decay: f64,
}

impl<O: Optimizer> Averaged<O> {
    /// `optimizer` with averages; `decay` is in `[0, 1)`.
    pub const fn new(optimizer: O, decay: f64) -> Self {
        Self { optimizer, decay }
    }
}

impl<O: Optimizer> Optimizer for Averaged<O> {
    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        if !super::are_rates(f, "averaged", &[self.decay]) {
            return;
        }
        self.optimizer.apply(lr, params, grads);
        let count = state(f, "optimizer/averaged", DType::I64, [], Initializer::ZEROS);
        let n = f.read(&count);
        f.update(&count, n + 1.0);
        let first = n.eq(0.0);
        // 0 in the first update: the average is then the parameter.
        let decay = first.select(f.scalar(DType::F64, 0.0), self.decay);
        for param in params {
            f.scope("average", || {
                let p = f.updated(param).unwrap_or_else(|| f.read(param));
                let slot = slot(f, param, AVERAGE);
                let decay = as_type_of(decay, p);
                f.update(&slot, f.read(&slot) * decay + p * (1.0 - decay));
            });
        }
    }

    fn trains(&self, name: &str) -> bool {
        self.optimizer.trains(name)
    }
}

/// Exchanges every parameter that has an average with it, to evaluate or to save the averages; once more puts the parameters
/// back. Gives the number of parameters exchanged.
///
/// # Errors
/// If a variable named `<param>/average` is not of the type of `<param>`; what comes before it is exchanged then.
pub fn swap_averages(state: &mut State) -> Result<usize, RuntimeError> {
    let suffix = format!("/{AVERAGE}");
    let names =
        state.layout().entries().iter().filter_map(|e| e.name.strip_suffix(&suffix).map(str::to_owned));
    let names: Vec<String> = names.filter(|n| state.layout().index_of(n).is_some()).collect();
    let before = state.try_clone()?;
    for name in &names {
        let average = format!("{name}{suffix}");
        state.copy_from(name, before.value(&average)?)?;
        state.copy_from(&average, before.value(name)?)?;
    }
    Ok(names.len())
}
