//! Cross entropy with its options.

use super::{has_last_axis, same_type};
use graphc_ir::{Literal, Scalar, Tensor};

/// Cross entropy of logits and integer labels, with options; [`cross_entropy`](super::cross_entropy) is the one without.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::loss::CrossEntropy;
///
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| {
///     let logits = f.input("logits", DType::F32, shape!["B", "T", 10]);
///     let labels = f.input("labels", DType::I32, shape!["B", "T"]);
///     let loss = CrossEntropy::new().ignore(-1).smoothing(0.1).apply(logits, labels);
///     f.output("loss", loss);
/// });
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    ignore: Option<i64>,
    smoothing: f64,
    weights: Option<Vec<f64>>,
}

impl CrossEntropy {
    /// Without options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows with this label count neither in the sum nor in the mean; it need not be a class. If all are ignored, the
    /// loss is NaN, a mean of nothing.
    pub fn ignore(self, label: i64) -> Self {
        Self { ignore: Some(label), ..self }
    }

    /// Mixes the labels with the uniform distribution: `(1 - smoothing) one_hot + smoothing / C` (Szegedy et al. 2016).
    pub fn smoothing(self, smoothing: f64) -> Self {
        Self { smoothing, ..self }
    }

    /// A weight for each class; the mean is then weighted by those of the labels.
    pub fn weights(self, weights: &[f64]) -> Self {
        Self { weights: Some(weights.to_vec()), ..self }
    }

    /// The loss of logits `[.., C]`, floats, and integer labels `[..]` in `0..C`, a scalar. A label out of range that is
    /// not the ignored one is a run-time error.
    #[track_caller]
    pub fn apply<'f>(&self, logits: Tensor<'f>, labels: Tensor<'f>) -> Tensor<'f> {
        let f = logits.builder();
        if !has_last_axis("cross_entropy", logits) || labels.is_poison() {
            return f.poison();
        }
        let (shape, axis) = (logits.shape(), logits.rank() - 1);
        if labels.shape().dims() != &shape.dims()[..axis] || !labels.dtype().is_int() {
            f.misuse(format!(
                "cross_entropy: labels {} must be integers of the shape of logits {} without the last axis",
                labels.ty(),
                logits.ty()
            ));
            return f.poison();
        }
        let Some(classes) = shape[axis].as_const().filter(|&c| c > 0) else {
            f.misuse(format!("cross_entropy: the number of classes of {} must be a number", logits.ty()));
            return f.poison();
        };
        if self.weights.as_ref().is_some_and(|w| w.len() != classes) || !(0.0..=1.0).contains(&self.smoothing)
        {
            f.misuse(format!("cross_entropy: {self:?} does not fit {classes} classes"));
            return f.poison();
        }
        let counted = self.ignore.map(|label| labels.ne(label as f64));
        let labels = counted.map_or(labels, |counted| counted.select(labels, 0.0));
        let mask = labels.one_hot_mask(classes);
        let log_p = logits.log_softmax(axis);
        let weight = |x: Tensor<'f>| match &self.weights {
            Some(w) => {
                let of = |i: usize| Scalar::from_f64(x.dtype(), w[i]);
                x * f.constant(Literal::from_fn(x.dtype(), &[classes], of))
            }
            None => x,
        };
        // Chosen, not multiplied by 0 and 1: a log-probability may be -infinity.
        let hit = mask.select(weight(log_p), 0.0).reduce_sum(&[axis]);
        let mut row = hit * (self.smoothing - 1.0);
        if self.smoothing > 0.0 {
            row = row - weight(log_p).reduce_sum(&[axis]) * (self.smoothing / classes as f64);
        }
        // The weights of the rows.
        let one = mask.select(weight(log_p.full_like(1.0)), 0.0).reduce_sum(&[axis]);
        let (row, one) = match counted {
            Some(counted) => (counted.select(row, 0.0), counted.select(one, 0.0)),
            None => (row, one),
        };
        let all: Vec<usize> = (0..axis).collect();
        row.reduce_sum(&all) / one.reduce_sum(&all)
    }
}

/// Cross entropy of logits and rows of probabilities, both floats `[.., C]` of one type: the mean over all rows of
/// `-sum(target * log_softmax(logits))`, a scalar.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::soft_cross_entropy;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let logits = f.input("logits", DType::F32, shape!["B", 10]);
/// let target = f.input("target", DType::F32, shape!["B", 10]);
/// f.output("loss", soft_cross_entropy(logits, target));
/// # });
/// # m.build().unwrap();
/// ```
#[track_caller]
pub fn soft_cross_entropy<'f>(logits: Tensor<'f>, target: Tensor<'f>) -> Tensor<'f> {
    if !has_last_axis("soft_cross_entropy", logits) || !same_type("soft_cross_entropy", logits, target) {
        return logits.builder().poison();
    }
    let axis = logits.rank() - 1;
    // A class without probability costs nothing, however unlikely the logits make it.
    let log_p = target.gt(0.0).select(logits.log_softmax(axis), 0.0);
    -(target * log_p).reduce_sum(&[axis]).mean_all()
}

/// Negative log-likelihood: the mean over all rows of `-log_probabilities[label]`, for floats `[.., C]` and integer
/// labels `[..]` in `0..C`. A label out of range is a run-time error. To a scalar.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::loss::nll;
/// # let m = ModuleBuilder::new("m");
/// # m.function("f", |f| {
/// let logits = f.input("logits", DType::F32, shape!["B", 10]);
/// let labels = f.input("labels", DType::I32, shape!["B"]);
/// f.output("loss", nll(logits.log_softmax(1), labels));
/// # });
/// # m.build().unwrap();
/// ```
#[track_caller]
pub fn nll<'f>(log_probabilities: Tensor<'f>, labels: Tensor<'f>) -> Tensor<'f> {
    let f = log_probabilities.builder();
    if !has_last_axis("nll", log_probabilities) || labels.is_poison() {
        return f.poison();
    }
    let (shape, axis) = (log_probabilities.shape(), log_probabilities.rank() - 1);
    if labels.shape().dims() != &shape.dims()[..axis] {
        f.misuse(format!(
            "nll: labels {} must have the shape of {} without the last axis",
            labels.ty(),
            log_probabilities.ty()
        ));
        return f.poison();
    }
    let chosen = labels.one_hot_mask(shape[axis].clone()).select(log_probabilities, 0.0);
    -chosen.reduce_sum(&[axis]).mean_all()
}
