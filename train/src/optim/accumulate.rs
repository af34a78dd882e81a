//! Accumulation of gradients.

use super::{Optimizer, slot};
use crate::shared::state;
use graphc_ir::{DType, Initializer, Param, Tensor};

/// Updates parameters in every `steps`-th run of the function only, by the mean of the gradients of these runs: a large
/// batch in parts. Other runs change neither parameters nor what the other optimizer remembers.
///
/// State beside that of the other: `<param>/accumulated`, the sum so far, and `optimizer/accumulated` (`i64[]`), the number
/// of runs in it.
///
/// ```
/// use graphc_train::optim::{Accumulated, Adam};
/// let optimizer = Accumulated::new(Adam::new(1e-3), 4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulated<O> {
    optimizer: O,
    steps: usize,
}

impl<O: Optimizer> Accumulated<O> {
    /// `optimizer` with the mean of `steps` gradients, at least 1.
    pub const fn new(optimizer: O, steps: usize) -> Self {
        Self { optimizer, steps }
    }
}

impl<O: Optimizer> Optimizer for Accumulated<O> {
    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        if self.steps == 0 {
            f.misuse("accumulated: steps must be at least 1".to_owned());
            return;
        }
        let count = state(f, "optimizer/accumulated", DType::I64, [], Initializer::ZEROS);
        let n = f.read(&count) + 1.0;
        let full = n.ge(self.steps as f64);
        f.update(&count, full.select(n.full_like(0.0), n));
        let mut means = Vec::new();
        for (param, &g) in params.iter().zip(grads) {
            let slot = slot(f, param, "accumulated");
            let sum = f.read(&slot) + g;
            f.update(&slot, full.broadcast(sum.shape(), &[]).select(sum.full_like(0.0), sum));
            means.push(sum * (1.0 / self.steps as f64));
        }
        f.update_if(|| {
            self.optimizer.apply(lr, params, &means);
            full
        });
    }

    fn trains(&self, name: &str) -> bool {
        self.optimizer.trains(name)
    }
}
