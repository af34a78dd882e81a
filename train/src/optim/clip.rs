//! Clipping of gradients.

use super::Optimizer;
use graphc_ir::{Param, Tensor};

/// The gradients scaled, all by one factor, so that their common Euclidean norm is at most
/// `max_norm`, as `torch.nn.utils.clip_grad_norm_`; and that norm, before scaling. For gradients of
/// one float type:
///
/// ```text
/// norm = sqrt(sum of sum(g * g) over the gradients, in order)
/// g = g * min(max_norm / (norm + 1e-6), 1)
/// ```
///
/// A norm that is infinite or NaN makes gradients zero or NaN. No gradients, no norm.
#[track_caller]
pub fn clip_by_global_norm<'f>(grads: &[Tensor<'f>], max_norm: f64) -> (Vec<Tensor<'f>>, Option<Tensor<'f>>) {
    let sum_of_squares = |g: &Tensor<'f>| (*g * *g).reduce_sum(&(0..g.rank()).collect::<Vec<_>>());
    let Some(total) = grads.iter().map(sum_of_squares).reduce(|a, b| a + b) else {
        return (Vec::new(), None);
    };
    let norm = total.sqrt();
    let factor = (max_norm / (norm + 1e-6)).min(1.0);
    (grads.iter().map(|&g| g * factor).collect(), Some(norm))
}

/// How gradients are clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Each element to `[-limit, limit]`.
    Value(f64),
    /// Each gradient to this Euclidean norm: `g * min(limit / (norm + 1e-6), 1)`.
    Norm(f64),
    /// All gradients together, see [`clip_by_global_norm`].
    GlobalNorm(f64),
}

impl Clip {
    /// The gradients, clipped.
    #[track_caller]
    pub fn apply<'f>(self, grads: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
        match self {
            Self::Value(limit) => grads.iter().map(|g| g.clamp(-limit, limit)).collect(),
            Self::Norm(limit) => grads.iter().flat_map(|&g| clip_by_global_norm(&[g], limit).0).collect(),
            Self::GlobalNorm(limit) => clip_by_global_norm(grads, limit).0,
        }
    }
}

/// Clips gradients before it gives them to another optimizer.
///
/// ```
/// use graphc_train::optim::{Adam, Clip, Clipped};
/// let optimizer = Clipped::new(Adam::new(2e-3), Clip::GlobalNorm(1.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped<O> {
    optimizer: O,
    clip: Clip,
}

impl<O: Optimizer> Clipped<O> {
    /// `optimizer` with clipped gradients.
    pub const fn new(optimizer: O, clip: Clip) -> Self {
        Self { optimizer, clip }
    }
}

impl<O: Optimizer> Optimizer for Clipped<O> {
    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let grads = lr.builder().scope("clip", || self.clip.apply(grads));
        self.optimizer.apply(lr, params, &grads);
    }

    fn trains(&self, name: &str) -> bool {
        self.optimizer.trains(name)
    }
}
