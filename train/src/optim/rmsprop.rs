//! RMSProp.

use super::{Optimizer, are_rates, as_type_of, decayed, slot};
use graphc_ir::{Param, Tensor};

/// RMSProp (Hinton 2012), as `torch.optim.RMSprop`. Per parameter `p` with gradient `g`, each line in this order:
///
/// ```text
/// g = g + weight_decay * p
/// s = alpha * s + (1 - alpha) * g * g              s starts at 0
/// a = alpha * a + (1 - alpha) * g                  if centered; a starts at 0
/// d = g / (sqrt(s) + eps)  or, centered,  g / (sqrt(s - a * a) + eps)
/// b = momentum * b + d                             with momentum; b starts at 0
/// p = p - lr * (b | d)
/// ```
///
/// State: `optimizer/lr`, `<param>/rmsprop_s`, and `<param>/rmsprop_a`, `<param>/momentum` where used.
///
/// ```
/// use graphc_train::optim::{RmsProp, Optimizer};
/// let optimizer = RmsProp::new(1e-3).centered().momentum(0.9);
/// assert!(optimizer.learning_rate() > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    lr: f64,
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    centered: bool,
}

impl RmsProp {
    /// Starts with the learning rate `lr`; `alpha` 0.99, `eps` 1e-8, no decay, no momentum, not centered.
    pub const fn new(lr: f64) -> Self {
        Self { lr, alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }

    /// Sets the rate of decay of the averages, in `[0, 1)`.
    pub const fn alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// Sets what is added to the denominator.
    pub const fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Adds `weight_decay * p` to each gradient.
    pub const fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    /// Descends along the decaying sum of steps.
    pub const fn momentum(self, momentum: f64) -> Self {
        Self { momentum, ..self }
    }

    /// Divides by the standard deviation of the gradient instead of its root mean square.
    pub const fn centered(self) -> Self {
        Self { centered: true, ..self }
    }
}

impl Optimizer for RmsProp {
    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        if !are_rates(f, "rmsprop", &[self.alpha]) {
            return;
        }
        for (param, &grad) in params.iter().zip(grads) {
            f.scope("rmsprop", || {
                let p = f.read(param);
                let g = decayed(grad, p, self.weight_decay);
                // The decaying average of `x`.
                let average = |suffix: &str, x: Tensor<'f>| {
                    let slot = slot(f, param, suffix);
                    let value = f.read(&slot) * self.alpha + x * (1.0 - self.alpha);
                    f.update(&slot, value);
                    value
                };
                let s = average("rmsprop_s", g * g);
                // Rounding may make the variance of a constant gradient negative.
                let s = if self.centered { (s - average("rmsprop_a", g).square()).max(0.0) } else { s };
                let d = g / (s.sqrt() + self.eps);
                let direction = if self.momentum == 0.0 {
                    d
                } else {
                    let slot = slot(f, param, "momentum");
                    let b = f.read(&slot) * self.momentum + d;
                    f.update(&slot, b);
                    b
                };
                f.update(param, p - direction * as_type_of(lr, p));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::testing::{Slots, check};
    use graphc_ir::DType;

    /// `torch.optim.RMSprop`, from its documentation.
    fn reference(o: RmsProp) -> impl Fn(f64, f64, f64, i32, &mut Slots) -> f64 {
        move |p, g, lr, _, slots| {
            let g = g + o.weight_decay * p;
            let mut average = |name: &'static str, x: f64| {
                let value = o.alpha * slots.get(name).unwrap_or(&0.0) + (1.0 - o.alpha) * x;
                slots.insert(name, value);
                value
            };
            let s = average("s", g * g);
            let s = if o.centered { s - average("a", g).powi(2) } else { s };
            let d = g / (s.max(0.0).sqrt() + o.eps);
            let b = o.momentum * slots.get("b").unwrap_or(&0.0) + d;
            slots.insert("b", b);
            p - lr * if o.momentum == 0.0 { d } else { b }
        }
    }

    #[test]
    fn follows_the_reference_step_by_step() {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-12)] {
            let check = |o: RmsProp| check(&o, dtype, tolerance, 0.01, reference(o));
            check(RmsProp::new(9.0));
            check(RmsProp::new(9.0).alpha(0.5).eps(1e-3).weight_decay(0.1));
            check(RmsProp::new(9.0).momentum(0.9));
            check(RmsProp::new(9.0).alpha(0.9).centered().momentum(0.5));
        }
    }
}
