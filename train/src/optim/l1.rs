//! Decay towards zero by the sum of magnitudes.

use super::Optimizer;
use graphc_ir::{Param, Tensor};

/// Adds `strength * sign(p)` to each gradient, that of `strength * sum(|p|)`, before it gives them to another
/// optimizer (Tibshirani 1996).
///
/// ```
/// use graphc_train::optim::{L1, Sgd};
/// let optimizer = L1::new(Sgd::new(0.1), 1e-4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct L1<O> {
    optimizer: O,
    strength: f64,
}

impl<O: Optimizer> L1<O> {
    /// `optimizer` with this decay.
    pub const fn new(optimizer: O, strength: f64) -> Self {
        Self { optimizer, strength }
    }
}

impl<O: Optimizer> Optimizer for L1<O> {
    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        let grad = |(p, &g): (&Param, &Tensor<'f>)| g + f.read(p).sign() * self.strength;
        let grads: Vec<_> = f.scope("l1", || params.iter().zip(grads).map(grad).collect());
        self.optimizer.apply(lr, params, &grads);
    }

    fn trains(&self, name: &str) -> bool {
        self.optimizer.trains(name)
    }
}
