//! Adadelta.

use super::{Optimizer, are_rates, as_type_of, decayed, slot};
use graphc_ir::{Param, Tensor};

/// Adadelta (Zeiler 2012), as `torch.optim.Adadelta`. Per parameter `p` with gradient `g`, each line in this order:
///
/// ```text
/// g = g + weight_decay * p
/// s = rho * s + (1 - rho) * g * g                  s starts at 0
/// d = sqrt(a + eps) / sqrt(s + eps) * g
/// a = rho * a + (1 - rho) * d * d                  a starts at 0
/// p = p - lr * d
/// ```
///
/// State: `optimizer/lr`, `<param>/adadelta_s`, `<param>/adadelta_a`.
///
/// ```
/// use graphc_train::optim::{Adadelta, Optimizer};
/// let optimizer = Adadelta::new(1.0).rho(0.95);
/// assert!(optimizer.learning_rate() > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adadelta {
    lr: f64,
    rho: f64,
    eps: f64,
    weight_decay: f64,
}

impl Adadelta {
    /// Starts with the learning rate `lr`, which is 1 in the paper; `rho` 0.9, `eps` 1e-6, no decay.
    pub const fn new(lr: f64) -> Self {
        Self { lr, rho: 0.9, eps: 1e-6, weight_decay: 0.0 }
    }

    /// Sets the rate of decay of both averages, in `[0, 1)`.
    pub const fn rho(self, rho: f64) -> Self {
        Self { rho, ..self }
    }

    /// Sets what is added under the roots.
    pub const fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Adds `weight_decay * p` to each gradient.
    pub const fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }
}

impl Optimizer for Adadelta {
    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        if !are_rates(f, "adadelta", &[self.rho]) {
            return;
        }
        for (param, &grad) in params.iter().zip(grads) {
            f.scope("adadelta", || {
                let p = f.read(param);
                let g = decayed(grad, p, self.weight_decay);
                let (s_slot, a_slot) = (slot(f, param, "adadelta_s"), slot(f, param, "adadelta_a"));
                let s = f.read(&s_slot) * self.rho + g * g * (1.0 - self.rho);
                let a = f.read(&a_slot);
                let d = (a + self.eps).sqrt() / (s + self.eps).sqrt() * g;
                f.update(&s_slot, s);
                f.update(&a_slot, a * self.rho + d * d * (1.0 - self.rho));
                f.update(param, p - d * as_type_of(lr, p));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::testing::{Slots, check};
    use graphc_ir::DType;

    /// `torch.optim.Adadelta`, from its documentation.
    fn reference(o: Adadelta) -> impl Fn(f64, f64, f64, i32, &mut Slots) -> f64 {
        move |p, g, lr, _, slots| {
            let g = g + o.weight_decay * p;
            let (s, a) = (*slots.get("s").unwrap_or(&0.0), *slots.get("a").unwrap_or(&0.0));
            let s = o.rho * s + (1.0 - o.rho) * g * g;
            let d = (a + o.eps).sqrt() / (s + o.eps).sqrt() * g;
            slots.insert("s", s);
            slots.insert("a", o.rho * a + (1.0 - o.rho) * d * d);
            p - lr * d
        }
    }

    #[test]
    fn follows_the_reference_step_by_step() {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-13)] {
            let check = |o: Adadelta| check(&o, dtype, tolerance, 1.0, reference(o));
            check(Adadelta::new(9.0));
            check(Adadelta::new(9.0).rho(0.5).eps(1e-3).weight_decay(0.1));
        }
    }
}
