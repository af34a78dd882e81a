//! Groups of parameters.

use super::Optimizer;
use graphc_ir::{Param, Tensor};
use wildmatch::WildMatch;

/// Gives each group of parameters an optimizer of its own, or freezes it. A parameter belongs to the first group whose
/// pattern matches its name (`*` stands for any characters, `?` for one), or to the default.
///
/// What is frozen has no gradient: its backward graph, what it would save for that, and its optimizer state are not even
/// declared.
///
/// The state has one learning rate, which starts as the default's. A group's is in proportion: it stays as many times
/// the default's as it was at the beginning, so a schedule scales all.
///
/// ```
/// use graphc_train::optim::{Adam, Groups};
/// // Biases without weight decay, the encoder as it is.
/// let optimizer = Groups::new(Adam::with_decoupled_decay(1e-3, 0.1))
///     .freeze("encoder/*")
///     .with("*/bias", Adam::new(1e-3));
/// ```
pub struct Groups {
    default: Box<dyn Optimizer>,
    /// `None`: frozen.
    groups: Vec<(WildMatch, Option<Box<dyn Optimizer>>)>,
}

impl Groups {
    /// All parameters are trained by `default`.
    pub fn new(default: impl Optimizer + 'static) -> Self {
        Self { default: Box::new(default), groups: Vec::new() }
    }

    /// Parameters whose name `pattern` matches are trained by `optimizer`.
    pub fn with(mut self, pattern: &str, optimizer: impl Optimizer + 'static) -> Self {
        self.groups.push((WildMatch::new(pattern), Some(Box::new(optimizer))));
        self
    }

    /// Parameters whose name `pattern` matches stay as they are.
    pub fn freeze(mut self, pattern: &str) -> Self {
        self.groups.push((WildMatch::new(pattern), None));
        self
    }

    /// The group of a parameter.
    fn group(&self, name: &str) -> Option<usize> {
        self.groups.iter().position(|(pattern, _)| pattern.matches(name))
    }
}

impl Optimizer for Groups {
    fn learning_rate(&self) -> f64 {
        self.default.learning_rate()
    }

    fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
        let f = lr.builder();
        let all: Vec<_> = f.trainable().iter().map(|p| f.param_name(p.id)).collect();
        for (pattern, _) in &self.groups {
            if !all.iter().any(|name| pattern.matches(name)) {
                f.misuse(format!(
                    "groups: no parameter is named like `{pattern}`; there are {}",
                    all.join(", ")
                ));
            }
        }
        let train = |group: Option<usize>, optimizer: &dyn Optimizer, lr: Tensor<'f>| {
            let of = |p: &Param| self.group(&f.param_name(p.id)) == group;
            let (params, grads): (Vec<Param>, Vec<Tensor<'f>>) =
                params.iter().zip(grads).filter(|(p, _)| of(p)).map(|(p, g)| (p.clone(), *g)).unzip();
            if !params.is_empty() {
                optimizer.apply(lr, &params, &grads);
            }
        };
        train(None, &self.default, lr);
        for (i, (_, optimizer)) in self.groups.iter().enumerate() {
            if let Some(optimizer) = optimizer {
                let factor = optimizer.learning_rate() / self.learning_rate();
                train(Some(i), optimizer, if factor == 1.0 { lr } else { lr * factor });
            }
        }
    }

    fn trains(&self, name: &str) -> bool {
        match self.group(name) {
            Some(i) => self.groups[i].1.as_ref().is_some_and(|optimizer| optimizer.trains(name)),
            None => self.default.trains(name),
        }
    }
}
