//! Adam and AdamW.

use super::{Optimizer, are_rates, as_type_of, decayed, one_minus_power, slot, step_number};
use graphc_ir::{DType, Param, Tensor};

/// Adam (Kingma and Ba 2015), as `torch.optim.Adam`, and with decoupled weight decay as
/// `torch.optim.AdamW` (Loshchilov and Hutter 2019). In step `t`, counted from 1:
///
/// ```text
/// c1 = 1 - beta1^t                             in f64, as -expm1(t * ln beta1), which is
/// c2 = 1 - beta2^t                             accurate for every t
/// step_size = lr / c1                          in f64, then rounded to the parameter's type
/// root = sqrt(c2)                              in f64, then rounded to the parameter's type
/// ```
///
/// and per parameter `p` with gradient `g`, in its type, each line in this order:
///
/// ```text
/// p = p * (1 - lr * weight_decay)              decoupled decay; the factor in f64, then rounded
/// g = g + weight_decay * p                     decay that is not decoupled
/// m = beta1 * m + (1 - beta1) * g              m starts at 0
/// v = beta2 * v + (1 - beta2) * (g * g)        v starts at 0
/// v = w = max(w, v)                            with AMSGrad, here only; w starts at 0
/// p = p - (step_size * m) / (sqrt(v) / root + eps)
/// ```
///
/// State: `optimizer/lr`, `optimizer/step` (`t` after the step), `<param>/adam_m`,
/// `<param>/adam_v`, with AMSGrad `<param>/adam_v_max`.
///
/// ```
/// use graphc_train::optim::{Adam, Optimizer};
/// let optimizer = Adam::with_decoupled_decay(1e-3, 0.1).betas(0.9, 0.95);
/// assert!(optimizer.learning_rate() > 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
    amsgrad: bool,
}

impl Adam {
    /// Starts with the learning rate `lr`; `beta1` 0.9, `beta2` 0.999, `eps` 1e-8, no decay.
    pub const fn new(lr: f64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: false, amsgrad: false }
    }

    /// AdamW: as [`Adam::new`], with decoupled weight decay.
    pub const fn with_decoupled_decay(lr: f64, weight_decay: f64) -> Self {
        Self { weight_decay, decoupled: true, ..Self::new(lr) }
    }

    /// Sets the rates of decay of the two moments; each is in `[0, 1)`.
    pub const fn betas(self, beta1: f64, beta2: f64) -> Self {
        Self { beta1, beta2, ..self }
    }

    /// Sets what is added to the denominator.
    pub const fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Adds `weight_decay * p` to each gradient.
    pub const fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, decoupled: false, ..self }
    }

    /// Divides by the root of the largest `v` so far (Reddi et al. 2018).
    pub const fn amsgrad(self) -> Self {
        Self { amsgrad: true, ..self }
    }
}

impl Optimizer for Adam {
    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        if !are_rates(f, "adam", &[self.beta1, self.beta2]) {
            return;
        }
        let (step_size, root, keep) = f.scope("adam", || {
            let t = step_number(f);
            let lr = lr.cast(DType::F64);
            let keep = (self.decoupled && self.weight_decay != 0.0).then(|| 1.0 - lr * self.weight_decay);
            (lr / one_minus_power(t, self.beta1), one_minus_power(t, self.beta2).sqrt(), keep)
        });
        for (param, &grad) in params.iter().zip(grads) {
            f.scope("adam", || {
                let p = f.read(param);
                let (step_size, root) = (as_type_of(step_size, p), as_type_of(root, p));
                let (p, g) = match keep {
                    Some(keep) => (p * as_type_of(keep, p), grad),
                    None => (p, decayed(grad, p, self.weight_decay)),
                };
                let (m_slot, v_slot) = (slot(f, param, "adam_m"), slot(f, param, "adam_v"));
                let m = f.read(&m_slot) * self.beta1 + g * (1.0 - self.beta1);
                let v = f.read(&v_slot) * self.beta2 + g * g * (1.0 - self.beta2);
                f.update(&m_slot, m);
                f.update(&v_slot, v);
                let v = if self.amsgrad {
                    let largest = slot(f, param, "adam_v_max");
                    let v = f.read(&largest).max(v);
                    f.update(&largest, v);
                    v
                } else {
                    v
                };
                f.update(param, p - m * step_size / (v.sqrt() / root + self.eps));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::testing::{Slots, check};
    use crate::optim::train_step;
    use graphc_ir::{Initializer, ModuleBuilder};

    /// `torch.optim.Adam`, from its documentation.
    fn reference(a: Adam) -> impl Fn(f64, f64, f64, i32, &mut Slots) -> f64 {
        move |p, g, lr, t, slots| {
            let (p, g) = match (a.weight_decay, a.decoupled) {
                (decay, true) => (p - lr * decay * p, g),
                (decay, false) => (p, g + decay * p),
            };
            let m = a.beta1 * slots.get("m").unwrap_or(&0.0) + (1.0 - a.beta1) * g;
            let v = a.beta2 * slots.get("v").unwrap_or(&0.0) + (1.0 - a.beta2) * g * g;
            slots.insert("m", m);
            slots.insert("v", v);
            let m_hat = m / (1.0 - a.beta1.powi(t));
            let w = if a.amsgrad { slots.get("w").unwrap_or(&0.0).max(v) } else { v };
            slots.insert("w", w);
            let v_hat = w / (1.0 - a.beta2.powi(t));
            p - lr * m_hat / (v_hat.sqrt() + a.eps)
        }
    }

    #[test]
    fn follows_the_reference_step_by_step() {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-12)] {
            let check = |a: Adam| check(&a, dtype, tolerance, 0.01, reference(a));
            check(Adam::new(9.0));
            check(Adam::new(9.0).betas(0.5, 0.9).eps(1e-3));
            check(Adam::new(9.0).betas(0.0, 0.99));
            check(Adam::new(9.0).weight_decay(0.1));
            check(Adam::with_decoupled_decay(9.0, 0.1).betas(0.9, 0.95));
            check(Adam::new(9.0).betas(0.9, 0.5).amsgrad());
        }
    }

    #[test]
    fn declares_its_state_and_refuses_wrong_betas() {
        let module = |adam: Adam| {
            let m = ModuleBuilder::new("m");
            let w = m.param("w", DType::F32, [2], Initializer::ONES);
            train_step(&m, "f", &adam, |f| f.read(&w).square().mean_all());
            m.build()
        };
        let built = module(Adam::new(0.1)).unwrap();
        let names: Vec<_> = built.state.iter().map(|s| (&*s.name, s.ty.to_string())).collect();
        let expected = [
            ("w", "f32[2]"),
            ("optimizer/lr", "f32[]"),
            ("optimizer/step", "i64[]"),
            ("w/adam_m", "f32[2]"),
            ("w/adam_v", "f32[2]"),
        ];
        assert_eq!(names, expected.map(|(n, t)| (n, t.to_owned())));
        let error = module(Adam::new(0.1).betas(0.9, 1.0)).unwrap_err().to_string();
        assert!(error.starts_with("adam: rates [0.9, 1.0] must be in [0, 1)"), "{error}");
    }
}
