//! Adagrad.

use super::touched::Touched;
use super::{Optimizer, as_type_of, decayed, slot_of, step_number};
use graphc_ir::{DType, Param, Tensor};

/// Adagrad (Duchi et al. 2011), as `torch.optim.Adagrad`. In step `t`, counted from 1, per parameter `p` with
/// gradient `g`, each line in this order:
///
/// ```text
/// g = g + weight_decay * p
/// s = s + g * g                        s starts at `initial`
/// p = p - (lr / (1 + (t - 1) * lr_decay)) * g / (sqrt(s) + eps)
/// ```
///
/// Without weight decay, a table of which few rows are taken, such as an embedding's, changes in these rows alone, as does `s`.
///
/// State: `optimizer/lr`, `<param>/adagrad`, which is `s`; with `lr_decay` also `optimizer/step`.
///
/// ```
/// use graphc_train::optim::{Adagrad, Optimizer};
/// let optimizer = Adagrad::new(0.05).lr_decay(1e-3);
/// assert!(optimizer.learning_rate() > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    lr: f64,
    lr_decay: f64,
    initial: f64,
    eps: f64,
    weight_decay: f64,
}

impl Adagrad {
    /// Starts with the learning rate `lr`; `eps` 1e-10, no decay, sums that start at 0.
    pub const fn new(lr: f64) -> Self {
        Self { lr, lr_decay: 0.0, initial: 0.0, eps: 1e-10, weight_decay: 0.0 }
    }

    /// Divides the learning rate by a number that grows by `lr_decay` in each step.
    pub const fn lr_decay(self, lr_decay: f64) -> Self {
        Self { lr_decay, ..self }
    }

    /// Sets what the sums of squares start at.
    pub const fn initial(self, initial: f64) -> Self {
        Self { initial, ..self }
    }

    /// Sets what is added to the denominator.
    pub const fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Adds `weight_decay * p` to each gradient.
    pub const fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }
}

impl Optimizer for Adagrad {
    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        let lr = f.scope("adagrad", || match self.lr_decay {
            0.0 => lr,
            decay => lr.cast(DType::F64) / ((step_number(f) - 1.0) * decay + 1.0),
        });
        for (param, &grad) in params.iter().zip(grads) {
            f.scope("adagrad", || {
                // With an `eps` of 0, a gradient of 0 can give 0 / 0.
                let by_rows = self.weight_decay == 0.0 && self.eps as f32 != 0.0;
                let at = if by_rows { Touched::rows(grad) } else { Touched::all(grad) };
                let p = at.read(param);
                let g = decayed(at.gradient(), p, self.weight_decay);
                let sum = slot_of(f, param, "adagrad", self.initial);
                let s = at.read(&sum) + g * g;
                at.update(&sum, s);
                at.update(param, p - g * as_type_of(lr, p) / (s.sqrt() + self.eps));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::testing::{Slots, check};

    /// `torch.optim.Adagrad`, from its documentation.
    fn reference(a: Adagrad) -> impl Fn(f64, f64, f64, i32, &mut Slots) -> f64 {
        move |p, g, lr, t, slots| {
            let g = g + a.weight_decay * p;
            let s = slots.get("s").unwrap_or(&a.initial) + g * g;
            slots.insert("s", s);
            p - lr / (1.0 + f64::from(t - 1) * a.lr_decay) * g / (s.sqrt() + a.eps)
        }
    }

    #[test]
    fn follows_the_reference_step_by_step() {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-13)] {
            let check = |a: Adagrad| check(&a, dtype, tolerance, 0.05, reference(a));
            check(Adagrad::new(9.0));
            check(Adagrad::new(9.0).lr_decay(0.1).eps(1e-3).weight_decay(0.1));
            check(Adagrad::new(9.0).initial(0.5));
        }
    }
}
