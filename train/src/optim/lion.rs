//! Lion.

use super::{Optimizer, are_rates, as_type_of, slot};
use graphc_ir::{Param, Tensor};

/// Lion (Chen et al. 2023): steps of one length, along the sign of a momentum. Per parameter `p` with gradient `g`, each
/// line in this order:
///
/// ```text
/// p = p * (1 - lr * weight_decay)
/// p = p - lr * sign(beta1 * m + (1 - beta1) * g)
/// m = beta2 * m + (1 - beta2) * g                  m starts at 0
/// ```
///
/// State: `optimizer/lr`, `<param>/lion`, which is `m`.
///
/// ```
/// use graphc_train::optim::{Lion, Optimizer};
/// let optimizer = Lion::new(1e-4).weight_decay(0.1);
/// assert!(optimizer.learning_rate() > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    lr: f64,
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
}

impl Lion {
    /// Starts with the learning rate `lr`; `beta1` 0.9, `beta2` 0.99, no decay.
    pub const fn new(lr: f64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 }
    }

    /// Sets the rates of decay, in `[0, 1)`.
    pub const fn betas(self, beta1: f64, beta2: f64) -> Self {
        Self { beta1, beta2, ..self }
    }

    /// Sets the decoupled weight decay.
    pub const fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }
}

impl Optimizer for Lion {
    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        if !are_rates(f, "lion", &[self.beta1, self.beta2]) {
            return;
        }
        for (param, &g) in params.iter().zip(grads) {
            f.scope("lion", || {
                let p = f.read(param);
                let lr = as_type_of(lr, p);
                let p = if self.weight_decay == 0.0 { p } else { p * (1.0 - lr * self.weight_decay) };
                let slot = slot(f, param, "lion");
                let m = f.read(&slot);
                let direction = (m * self.beta1 + g * (1.0 - self.beta1)).sign();
                f.update(&slot, m * self.beta2 + g * (1.0 - self.beta2));
                f.update(param, p - direction * lr);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::testing::{Slots, check};
    use graphc_ir::DType;

    /// From the paper, algorithm 2.
    fn reference(o: Lion) -> impl Fn(f64, f64, f64, i32, &mut Slots) -> f64 {
        move |p, g, lr, _, slots| {
            let m = *slots.get("m").unwrap_or(&0.0);
            let c = o.beta1 * m + (1.0 - o.beta1) * g;
            let sign = if c == 0.0 { 0.0 } else { c.signum() };
            slots.insert("m", o.beta2 * m + (1.0 - o.beta2) * g);
            p * (1.0 - lr * o.weight_decay) - lr * sign
        }
    }

    #[test]
    fn follows_the_reference_step_by_step() {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-13)] {
            let check = |o: Lion| check(&o, dtype, tolerance, 0.01, reference(o));
            check(Lion::new(9.0));
            check(Lion::new(9.0).betas(0.5, 0.9).weight_decay(0.1));
        }
    }
}
