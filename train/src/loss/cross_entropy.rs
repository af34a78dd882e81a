//! Cross entropy with its options.

use super::{has_last_axis, same_type};
use graphc_ir::{DType, Literal, Scalar, ScanOptions, Shape, Tensor, shape};

/// Rows in a block of [`CrossEntropy::apply_linear`], at least.
const BLOCK_ROWS: usize = 64;
/// Blocks, and times as many classes as features, at least: for less, what is saved is not worth the time.
const LEAST: (usize, usize) = (8, 5);

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
        let (labels, counted) = self.counted(labels);
        match self.sums(logits, labels, counted) {
            Some((losses, weights)) => losses / weights,
            None => logits.builder().poison(),
        }
    }

    /// The loss of the logits `features table^T` of a linear layer without bias, for features `[.., D]`, a table `[C, D]` and
    /// labels `[..]`, as [`Self::apply`]. Where there are far more classes than features, and far more rows, the rows are taken in blocks
    /// in a loop, and their logits are computed again for the gradient: memory holds the logits of a block of at most D rows, or 64,
    /// instead of logits, probabilities and gradients of all rows. This needs extents that are numbers, and a number of rows
    /// that can be divided into equal blocks.
    ///
    /// ```
    /// use graphc_ir::{DType, ModuleBuilder};
    /// use graphc_train::{loss::CrossEntropy, nn::{Embedding, Layer}};
    ///
    /// let m = ModuleBuilder::new("m");
    /// let words = Embedding::new(&m, "words", 50_000, 64);
    /// m.function("f", |f| {
    ///     let x = words.apply(f.input("ids", DType::I32, [8, 128]));
    ///     let next = f.input("next", DType::I32, [8, 128]);
    ///     f.output("loss", CrossEntropy::new().apply_linear(x, f.read(words.weight()), next));
    /// });
    /// # m.build().unwrap();
    /// ```
    #[track_caller]
    pub fn apply_linear<'f>(
        &self,
        features: Tensor<'f>,
        table: Tensor<'f>,
        labels: Tensor<'f>,
    ) -> Tensor<'f> {
        let blocks = blocks(features, table);
        self.linear(features, table, labels, blocks)
    }

    /// As [`Self::apply_linear`], in so many blocks of equally many rows.
    #[track_caller]
    fn linear<'f>(
        &self,
        features: Tensor<'f>,
        table: Tensor<'f>,
        labels: Tensor<'f>,
        blocks: usize,
    ) -> Tensor<'f> {
        let f = features.builder();
        let logits = |x: Tensor<'f>| x.dot_general(table, (&[], &[]), (&[x.rank().saturating_sub(1)], &[1]));
        let labels_fit = labels.dtype().is_int()
            && labels.shape().dims() == &features.shape()[..features.rank().saturating_sub(1)];
        if blocks == 1 || features.is_poison() || labels.is_poison() || !labels_fit {
            return self.apply(logits(features), labels);
        }
        let rows: usize = labels.shape().num_elements().expect("blocks have a number of rows") / blocks;
        let x = features.reshape(shape![blocks, rows, features.dim(labels.rank())]);
        let (labels, counted) = self.counted(labels);
        // Checked here, a label out of range is named by its place among all.
        let labels = labels.check_index(table.dim(0));
        let of_rows = [Some(labels), counted].into_iter().flatten().map(|t| t.reshape([blocks, rows]));
        let sequences: Vec<Tensor<'f>> = std::iter::once(x).chain(of_rows).collect();
        // Sums of many blocks in half precision would stand still.
        let sum = if features.dtype().is_half() { DType::F32 } else { features.dtype() };
        let zero = f.scalar(sum, 0.0);
        let again = ScanOptions { save_every: 1, ..ScanOptions::default() };
        let total = f.scan_with(&again, &[zero, zero], &sequences, |f, sums, step| {
            let found = self.sums(logits(step[0]), step[1], step.get(2).copied());
            let (losses, weights) = found.unwrap_or((f.poison(), f.poison()));
            (vec![sums[0] + losses.cast(sum), sums[1] + weights.cast(sum)], Vec::new())
        });
        (total.carries[0] / total.carries[1]).cast(features.dtype())
    }

    /// The labels, 0 instead of the ignored one, and which of them count, if not all do.
    #[track_caller]
    fn counted<'f>(&self, labels: Tensor<'f>) -> (Tensor<'f>, Option<Tensor<'f>>) {
        match self.ignore {
            Some(ignored) if !labels.is_poison() && labels.dtype().is_int() => {
                let counted = labels.ne(ignored as f64);
                (counted.select(labels, 0.0), Some(counted))
            }
            _ => (labels, None),
        }
    }

    /// The sum of the losses of the rows that count, and that of their weights.
    #[track_caller]
    fn sums<'f>(
        &self,
        logits: Tensor<'f>,
        labels: Tensor<'f>,
        counted: Option<Tensor<'f>>,
    ) -> Option<(Tensor<'f>, Tensor<'f>)> {
        let f = logits.builder();
        if !has_last_axis("cross_entropy", logits) || labels.is_poison() {
            return None;
        }
        let (shape, axis) = (logits.shape(), logits.rank() - 1);
        if labels.shape().dims() != &shape.dims()[..axis] || !labels.dtype().is_int() {
            f.misuse(format!(
                "cross_entropy: labels {} must be integers of the shape of logits {} without the last axis",
                labels.ty(),
                logits.ty()
            ));
            return None;
        }
        let Some(classes) = shape[axis].as_const().filter(|&c| c > 0) else {
            f.misuse(format!("cross_entropy: the number of classes of {} must be a number", logits.ty()));
            return None;
        };
        if self.weights.as_ref().is_some_and(|w| w.len() != classes) || !(0.0..=1.0).contains(&self.smoothing)
        {
            f.misuse(format!("cross_entropy: {self:?} does not fit {classes} classes"));
            return None;
        }
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
        Some((row.reduce_sum(&all), one.reduce_sum(&all)))
    }
}

/// How many blocks the rows of features `[.., D]` are divided into for products with a table `[C, D]`: as few as can be equal and have at
/// most D rows, or [`BLOCK_ROWS`].
fn blocks(features: Tensor<'_>, table: Tensor<'_>) -> usize {
    let sound = !features.is_poison() && !table.is_poison() && features.rank() > 0 && table.rank() == 2;
    let Some((width, lead)) = sound.then(|| features.shape()).and_then(|s| {
        let (width, lead) = s.split_last()?;
        Some((width.as_const()?, lead.iter().cloned().collect::<Shape>().num_elements()?))
    }) else {
        return 1;
    };
    let most = width.max(BLOCK_ROWS);
    let many_classes = table.dim(0).as_const().is_some_and(|c| c / LEAST.1 >= width);
    if !many_classes || lead / LEAST.0 < most {
        return 1;
    }
    (1..=lead / BLOCK_ROWS).find(|n| lead % n == 0 && lead / n <= most).unwrap_or(1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{Sgd, train_step};
    use crate::session::Session;
    use graphc_ir::{FunctionBuilder, Initializer, ModuleBuilder, evaluate, gradients};

    const ROWS: usize = 24;
    const CLASSES: usize = 7;

    fn tables(f: &FunctionBuilder) -> [Tensor<'_>; 3] {
        let x = f.input("x", DType::F64, [4, 6, 3]);
        [x, f.input("table", DType::F64, [CLASSES, 3]), f.input("labels", DType::I32, [4, 6])]
    }

    #[test]
    fn blocks_have_the_loss_and_the_gradients_of_all_rows() {
        let weights: Vec<f64> = (0..CLASSES).map(|c| 0.5 + c as f64).collect();
        let loss = CrossEntropy::new().ignore(-1).smoothing(0.1).weights(&weights);
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let [x, table, labels] = tables(f);
            for blocks in [1, 2, 6, ROWS] {
                let loss = loss.linear(x, table, labels, blocks);
                f.output(&format!("loss{blocks}"), loss);
                for (name, d) in ["dx", "dtable"].iter().zip(gradients(loss, &[x, table])) {
                    f.output(&format!("{name}{blocks}"), d);
                }
            }
        });
        let module = m.build().unwrap();
        let drawn = |dims: &[usize]| {
            Literal::from_fn(DType::F64, dims, |i| Scalar::F64((i * i % 11) as f64 * 0.3 - 1.0))
        };
        let labels = Literal::from_fn(DType::I32, &[4, 6], |i| Scalar::I32((i % (CLASSES + 1)) as i32 - 1));
        let inputs = [drawn(&[4, 6, 3]), drawn(&[CLASSES, 3]), labels];
        let done = evaluate(&module.functions[0], &inputs, |_| unreachable!("no state")).unwrap();
        let (whole, blocks) = done.outputs.split_at(3);
        for (i, found) in blocks.iter().enumerate() {
            for (a, b) in found.as_slice::<f64>().unwrap().iter().zip(whole[i % 3].as_slice::<f64>().unwrap())
            {
                assert!((a - b).abs() < 1e-13, "{i}: {a} instead of {b}");
            }
        }
    }

    #[test]
    fn blocks_are_as_few_as_fit() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let of = |name: &str, rows: [usize; 2], width: usize| {
                let x = f.input(name, DType::F32, shape![rows[0], rows[1], width]);
                blocks(x, f.input(&format!("{name}_table"), DType::F32, [640, width]))
            };
            assert_eq!(of("few", [8, 127], 128), 1);
            assert_eq!(of("many", [8, 128], 128), 8);
            assert_eq!(of("odd", [9, 115], 128), 9);
            assert_eq!(of("narrow", [8, 64], 2), 8);
            assert_eq!(of("few_classes", [8, 129], 129), 1);
            // 1031 is a prime: there are no equal blocks.
            assert_eq!(of("prime", [1, 1031], 128), 1);
            let open = f.input("open", DType::F32, shape!["B", 3]);
            assert_eq!(blocks(open, f.input("table", DType::F32, [7, 3])), 1);
        });
    }

    #[test]
    fn a_label_out_of_range_is_named_by_its_place_among_all() {
        for (loss, sound) in [(CrossEntropy::new(), 0), (CrossEntropy::new().ignore(-1), -1)] {
            let m = ModuleBuilder::new("m");
            m.function("f", |f| {
                let [x, table, labels] = tables(f);
                f.output("loss", loss.linear(x, table, labels, 6));
            });
            let of = |dims: &[usize]| Literal::from_fn(DType::F64, dims, |_| Scalar::F64(0.5));
            let labels =
                Literal::from_fn(DType::I32, &[4, 6], |i| Scalar::I32(if i == 13 { 9 } else { sound }));
            let inputs = [of(&[4, 6, 3]), of(&[CLASSES, 3]), labels];
            let module = m.build().unwrap();
            let error = evaluate(&module.functions[0], &inputs, |_| unreachable!("no state")).unwrap_err();
            assert!(error.to_string().contains("position 13"), "{error}");
        }
    }

    #[test]
    fn memory_holds_the_logits_of_a_block() {
        let bytes = |classes: usize, blocks: usize| {
            let m = ModuleBuilder::new("m");
            let table = m.param("table", DType::F32, [classes, 16], Initializer::ZEROS);
            train_step(&m, "step", &Sgd::new(0.1), |f| {
                let x = f.input("x", DType::F32, [16, 64, 16]).square();
                let labels = f.input("labels", DType::I32, [16, 64]);
                CrossEntropy::new().linear(x, f.read(&table), labels, blocks)
            });
            Session::new(m.build().unwrap(), 1).unwrap().executable("step", &[]).unwrap().arena_bytes()
        };
        // The fewest classes for which blocks are taken.
        for classes in [16 * LEAST.1, 1000] {
            let logits = 1024 * classes * 4;
            let (whole, blocks) = (bytes(classes, 1), bytes(classes, 16));
            assert!(whole > logits && blocks < whole - logits * 3 / 4, "{classes}: {whole} {blocks}");
        }
    }

    #[test]
    fn half_precision_counts_all_rows() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::BF16, [1024, 2]);
            let table = f.input("table", DType::BF16, [8, 2]);
            let labels = f.full(DType::I32, [1024], 3.0);
            f.output("loss", CrossEntropy::new().linear(x, table, labels, 1024).cast(DType::F32));
        });
        let zeros = |dims: &[usize]| Literal::from_fn(DType::BF16, dims, |_| Scalar::F32(0.0));
        let module = m.build().unwrap();
        let done = evaluate(&module.functions[0], &[zeros(&[1024, 2]), zeros(&[8, 2])], |_| {
            unreachable!("no state")
        });
        let loss = done.unwrap().outputs[0].as_slice::<f32>().unwrap()[0];
        assert!((loss - 8.0f32.ln()).abs() < 0.02, "{loss}");
    }
}
