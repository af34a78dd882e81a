//! Adamax.

use super::{Optimizer, are_rates, as_type_of, decayed, one_minus_power, slot, step_number};
use graphc_ir::{DType, Param, Tensor};

/// Adamax (Kingma and Ba 2015), as `torch.optim.Adamax`: Adam with the largest gradient instead of the mean square. In
/// step `t`, counted from 1, per parameter `p` with gradient `g`, each line in this order:
///
/// ```text
/// g = g + weight_decay * p
/// m = beta1 * m + (1 - beta1) * g                  m starts at 0
/// u = max(beta2 * u, |g| + eps)                    u starts at 0
/// p = p - (lr / (1 - beta1^t)) * m / u             the quotient in f64, then rounded
/// ```
///
/// State: `optimizer/lr`, `optimizer/step`, `<param>/adamax_m`, `<param>/adamax_u`.
///
/// ```
/// use graphc_train::optim::{Adamax, Optimizer};
/// let optimizer = Adamax::new(2e-3);
/// assert!(optimizer.learning_rate() > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adamax {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

impl Adamax {
    /// Starts with the learning rate `lr`; `beta1` 0.9, `beta2` 0.999, `eps` 1e-8, no decay.
    pub const fn new(lr: f64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }

    /// Sets the rates of decay, in `[0, 1)`.
    pub const fn betas(self, beta1: f64, beta2: f64) -> Self {
        Self { beta1, beta2, ..self }
    }

    /// Sets what is added to magnitudes.
    pub const fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Adds `weight_decay * p` to each gradient.
    pub const fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }
}

impl Optimizer for Adamax {
    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        if !are_rates(f, "adamax", &[self.beta1, self.beta2]) {
            return;
        }
        let step_size =
            f.scope("adamax", || lr.cast(DType::F64) / one_minus_power(step_number(f), self.beta1));
        for (param, &grad) in params.iter().zip(grads) {
            f.scope("adamax", || {
                let p = f.read(param);
                let g = decayed(grad, p, self.weight_decay);
                let (m_slot, u_slot) = (slot(f, param, "adamax_m"), slot(f, param, "adamax_u"));
                let m = f.read(&m_slot) * self.beta1 + g * (1.0 - self.beta1);
                let u = (f.read(&u_slot) * self.beta2).max(g.abs() + self.eps);
                f.update(&m_slot, m);
                f.update(&u_slot, u);
                f.update(param, p - m * as_type_of(step_size, p) / u);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::testing::{Slots, check};

    /// `torch.optim.Adamax`, from its documentation.
    fn reference(o: Adamax) -> impl Fn(f64, f64, f64, i32, &mut Slots) -> f64 {
        move |p, g, lr, t, slots| {
            let g = g + o.weight_decay * p;
            let m = o.beta1 * slots.get("m").unwrap_or(&0.0) + (1.0 - o.beta1) * g;
            let u = (o.beta2 * slots.get("u").unwrap_or(&0.0)).max(g.abs() + o.eps);
            slots.insert("m", m);
            slots.insert("u", u);
            p - lr / (1.0 - o.beta1.powi(t)) * m / u
        }
    }

    #[test]
    fn follows_the_reference_step_by_step() {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-12)] {
            let check = |o: Adamax| check(&o, dtype, tolerance, 0.01, reference(o));
            check(Adamax::new(9.0));
            check(Adamax::new(9.0).betas(0.5, 0.9).eps(1e-3).weight_decay(0.1));
        }
    }
}
