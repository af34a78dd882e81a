//! NAdam.

use super::{Optimizer, are_rates, as_type_of, decayed, one_minus_power, slot, step_number};
use crate::shared::state;
use graphc_ir::{DType, Initializer, Param, Tensor};

/// NAdam (Dozat 2016), as `torch.optim.NAdam`: Adam with Nesterov's momentum. In step `t`, counted from 1, with
/// `mu(t) = beta1 * (1 - 0.5 * 0.96^(t * momentum_decay))` and `product`, that of all `mu` so far, in f64:
///
/// ```text
/// product = product * mu(t)                        product starts at 1
/// a = lr * (1 - mu(t)) / (1 - product)
/// b = lr * mu(t + 1) / (1 - product * mu(t + 1))
/// root = sqrt(1 - beta2^t)
/// ```
///
/// and per parameter `p` with gradient `g`, in its type, each line in this order:
///
/// ```text
/// g = g + weight_decay * p
/// m = beta1 * m + (1 - beta1) * g                  m starts at 0
/// v = beta2 * v + (1 - beta2) * (g * g)            v starts at 0
/// d = sqrt(v) / root + eps
/// p = p - a * g / d - b * m / d
/// ```
///
/// State: `optimizer/lr`, `optimizer/step`, `optimizer/nadam_product` (`f64[]`), `<param>/nadam_m`,
/// `<param>/nadam_v`.
///
/// ```
/// use graphc_train::optim::{Nadam, Optimizer};
/// let optimizer = Nadam::new(2e-3).betas(0.9, 0.99);
/// assert!(optimizer.learning_rate() > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nadam {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    momentum_decay: f64,
}

impl Nadam {
    /// Starts with the learning rate `lr`; `beta1` 0.9, `beta2` 0.999, `eps` 1e-8, no weight decay, `momentum_decay`
    /// 0.004.
    pub const fn new(lr: f64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, momentum_decay: 4e-3 }
    }

    /// Sets the rates of decay, in `[0, 1)`.
    pub const fn betas(self, beta1: f64, beta2: f64) -> Self {
        Self { beta1, beta2, ..self }
    }

    /// Sets what is added to the denominator.
    pub const fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Adds `weight_decay * p` to each gradient.
    pub const fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    /// Sets how fast the momentum grows.
    pub const fn momentum_decay(self, momentum_decay: f64) -> Self {
        Self { momentum_decay, ..self }
    }

    fn mu<'f>(&self, t: Tensor<'f>) -> Tensor<'f> {
        ((t * (self.momentum_decay * 0.96f64.ln())).exp() * -0.5 + 1.0) * self.beta1
    }
}

impl Optimizer for Nadam {
    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        if !are_rates(f, "nadam", &[self.beta1, self.beta2]) {
            return;
        }
        let (a, b, root) = f.scope("nadam", || {
            let (t, lr) = (step_number(f), lr.cast(DType::F64));
            let (mu, next) = (self.mu(t), self.mu(t + 1.0));
            let slot = state(f, "optimizer/nadam_product", DType::F64, [], Initializer::ONES);
            let product = f.updated(&slot).unwrap_or_else(|| {
                let product = f.read(&slot) * mu;
                f.update(&slot, product);
                product
            });
            let root = one_minus_power(t, self.beta2).sqrt();
            (lr * (1.0 - mu) / (1.0 - product), lr * next / (1.0 - product * next), root)
        });
        for (param, &grad) in params.iter().zip(grads) {
            f.scope("nadam", || {
                let p = f.read(param);
                let [a, b, root] = [a, b, root].map(|x| as_type_of(x, p));
                let g = decayed(grad, p, self.weight_decay);
                let (m_slot, v_slot) = (slot(f, param, "nadam_m"), slot(f, param, "nadam_v"));
                let m = f.read(&m_slot) * self.beta1 + g * (1.0 - self.beta1);
                let v = f.read(&v_slot) * self.beta2 + g * g * (1.0 - self.beta2);
                f.update(&m_slot, m);
                f.update(&v_slot, v);
                let d = v.sqrt() / root + self.eps;
                f.update(param, p - g * a / d - m * b / d);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::testing::{Slots, check};

    /// `torch.optim.NAdam`, from its documentation.
    fn reference(o: Nadam) -> impl Fn(f64, f64, f64, i32, &mut Slots) -> f64 {
        move |p, g, lr, t, slots| {
            let g = g + o.weight_decay * p;
            let mu = |t: i32| o.beta1 * (1.0 - 0.5 * 0.96f64.powf(f64::from(t) * o.momentum_decay));
            let product = slots.get("product").unwrap_or(&1.0) * mu(t);
            let m = o.beta1 * slots.get("m").unwrap_or(&0.0) + (1.0 - o.beta1) * g;
            let v = o.beta2 * slots.get("v").unwrap_or(&0.0) + (1.0 - o.beta2) * g * g;
            slots.extend([("product", product), ("m", m), ("v", v)]);
            let d = (v / (1.0 - o.beta2.powi(t))).sqrt() + o.eps;
            p - lr * (1.0 - mu(t)) / (1.0 - product) * g / d
                - lr * mu(t + 1) / (1.0 - product * mu(t + 1)) * m / d
        }
    }

    #[test]
    fn follows_the_reference_step_by_step() {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-12)] {
            let check = |o: Nadam| check(&o, dtype, tolerance, 0.01, reference(o));
            check(Nadam::new(9.0));
            check(Nadam::new(9.0).betas(0.5, 0.9).eps(1e-3).weight_decay(0.1).momentum_decay(0.1));
        }
    }
}
