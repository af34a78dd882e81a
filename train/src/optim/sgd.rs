//! Stochastic gradient descent.

use super::touched::Touched;
use super::{Optimizer, as_type_of, decayed, slot};
use graphc_ir::{Param, Tensor};

/// Stochastic gradient descent, optionally with weight decay and momentum, as `torch.optim.SGD`
/// with `dampening` 0. Per parameter `p` with gradient `g`, each line in this order:
///
/// ```text
/// g = g + weight_decay * p             with weight decay
/// v = momentum * v + g                 with momentum; v starts at 0
/// d = g + momentum * v | v | g         with nesterov | with momentum | else
/// p = p - lr * d
/// ```
///
/// Without weight decay and momentum, a table of which few rows are taken, such as an embedding's, changes in these rows alone: no
/// pass over the table is made.
///
/// State: `optimizer/lr`; with momentum `<param>/momentum`, which is `v`.
///
/// ```
/// use graphc_train::optim::{Sgd, Optimizer};
/// let optimizer = Sgd::new(0.1).nesterov(0.9).weight_decay(1e-4);
/// assert!(optimizer.learning_rate() > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    lr: f64,
    weight_decay: f64,
    momentum: f64,
    nesterov: bool,
}

impl Sgd {
    /// Plain descent, starting with the learning rate `lr`.
    pub const fn new(lr: f64) -> Self {
        Self { lr, weight_decay: 0.0, momentum: 0.0, nesterov: false }
    }

    /// Adds `weight_decay * p` to each gradient.
    pub const fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    /// Descends along the decaying sum of gradients; 0 keeps no sum.
    pub const fn momentum(self, momentum: f64) -> Self {
        Self { momentum, ..self }
    }

    /// Nesterov's momentum: the gradient is taken, in effect, where the momentum leads.
    pub const fn nesterov(self, momentum: f64) -> Self {
        Self { momentum, nesterov: true, ..self }
    }
}

impl Optimizer for Sgd {
    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        for (param, &grad) in params.iter().zip(grads) {
            f.scope("sgd", || {
                let plain = self.momentum == 0.0 && self.weight_decay == 0.0;
                let at = if plain { Touched::rows(grad) } else { Touched::all(grad) };
                let p = at.read(param);
                let g = decayed(at.gradient(), p, self.weight_decay);
                let direction = if self.momentum == 0.0 {
                    g
                } else {
                    let slot = slot(f, param, "momentum");
                    let v = f.read(&slot) * self.momentum + g;
                    f.update(&slot, v);
                    if self.nesterov { g + v * self.momentum } else { v }
                };
                at.update(param, p - direction * as_type_of(lr, p));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::testing::{Slots, check};
    use graphc_ir::DType;

    /// `torch.optim.SGD`, from its documentation.
    fn reference(mu: f64, decay: f64, nesterov: bool) -> impl Fn(f64, f64, f64, i32, &mut Slots) -> f64 {
        move |p, g, lr, t, slots| {
            let mut g = g + decay * p;
            if mu != 0.0 {
                let v = if t == 1 { g } else { mu * slots["v"] + g };
                slots.insert("v", v);
                g = if nesterov { g + mu * v } else { v };
            }
            p - lr * g
        }
    }

    #[test]
    fn follows_the_reference_step_by_step() {
        for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::F64, 1e-13)] {
            let check = |sgd: Sgd, mu, decay, nesterov| {
                check(&sgd, dtype, tolerance, 0.01, reference(mu, decay, nesterov));
            };
            check(Sgd::new(9.0), 0.0, 0.0, false);
            check(Sgd::new(9.0).weight_decay(0.1), 0.0, 0.1, false);
            check(Sgd::new(9.0).momentum(0.9), 0.9, 0.0, false);
            check(Sgd::new(9.0).momentum(0.9).weight_decay(0.01), 0.9, 0.01, false);
            check(Sgd::new(9.0).nesterov(0.8).weight_decay(0.01), 0.8, 0.01, true);
        }
    }
}
