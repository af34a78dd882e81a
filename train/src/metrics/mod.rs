//! Measures of a model's results.

mod auroc;
mod confusion;
mod regression;

pub use auroc::auroc;
pub use confusion::Confusion;
pub use regression::Regression;

/// Number of rows of `logits` (`[labels.len(), classes]`, row-major) whose largest value is at the
/// row's label. The first of equal maxima counts; a row that contains NaN counts as wrong.
///
/// # Panics
/// If `logits.len() != labels.len() * classes`.
///
/// ```
/// # use graphc_train::metrics::correct;
/// assert_eq!(correct(&[0.1, 0.9, 0.8, 0.2], 2, &[1, 1]), 1);
/// ```
pub fn correct(logits: &[f32], classes: usize, labels: &[i32]) -> usize {
    let n = labels.len() * classes;
    assert_eq!(logits.len(), n, "{} rows of {classes} logits", labels.len());
    if classes == 0 {
        return 0;
    }
    let hit = |(row, &label): (&[f32], &i32)| usize::try_from(label).is_ok_and(|l| argmax(row) == Some(l));
    logits.chunks_exact(classes).zip(labels).filter(|&x| hit(x)).count()
}

/// The share of rows that [`correct`] counts, in `0..=1`; NaN for no rows.
///
/// # Panics
/// As [`correct`].
///
/// ```
/// # use graphc_train::metrics::accuracy;
/// assert_eq!(accuracy(&[0.1, 0.9, 0.8, 0.2], 2, &[1, 1]), 0.5);
/// ```
pub fn accuracy(logits: &[f32], classes: usize, labels: &[i32]) -> f64 {
    correct(logits, classes, labels) as f64 / labels.len() as f64
}

/// Position of the first maximum; `None` if there is a NaN or nothing at all.
fn argmax(row: &[f32]) -> Option<usize> {
    if row.iter().any(|x| x.is_nan()) {
        return None;
    }
    let larger = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
    (0..row.len()).reduce(larger)
}

/// Mean of batch losses weighted by batch sizes, accumulated in f64.
///
/// ```
/// # use graphc_train::metrics::RunningMean;
/// let mut mean = RunningMean::default();
/// mean.add(1.0, 30);
/// mean.add(3.0, 10);
/// assert_eq!(mean.get(), 1.5);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunningMean {
    sum: f64,
    weight: f64,
}

impl RunningMean {
    /// Adds a mean over `count` items.
    pub fn add(&mut self, mean: f64, count: usize) {
        self.sum += mean * count as f64;
        self.weight += count as f64;
    }

    /// The mean over all items so far; NaN if there are none.
    pub fn get(&self) -> f64 {
        self.sum / self.weight
    }

    /// Number of items so far.
    pub fn count(&self) -> usize {
        self.weight as usize
    }
}

/// Share of rows of `logits` (`[labels.len(), classes]`) whose label is among the `k` largest values; of equal values the first
/// counts as larger. A row that contains NaN counts as wrong. NaN for no rows.
///
/// # Panics
/// If `logits.len() != labels.len() * classes`.
///
/// ```
/// # use graphc_train::metrics::top_k_accuracy;
/// assert_eq!(top_k_accuracy(&[0.5, 0.3, 0.2], 3, &[1], 2), 1.0);
/// ```
pub fn top_k_accuracy(logits: &[f32], classes: usize, labels: &[i32], k: usize) -> f64 {
    assert_eq!(logits.len(), labels.len() * classes, "{} rows of {classes} logits", labels.len());
    let hit = |(row, &label): (&[f32], &i32)| {
        let Some(l) = usize::try_from(label).ok().filter(|&l| l < classes) else { return false };
        let before = row.iter().enumerate().filter(|&(i, &v)| v > row[l] || (v == row[l] && i < l)).count();
        before < k && !row.iter().any(|v| v.is_nan())
    };
    let hits = logits.chunks(classes.max(1)).zip(labels).filter(|&x| hit(x)).count();
    hits as f64 / labels.len() as f64
}

/// `e^loss` of a cross entropy in nats: how many equally likely choices it amounts to.
pub fn perplexity(cross_entropy: f64) -> f64 {
    cross_entropy.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_of_rows() {
        let check = |row: &[f32], expected: Option<usize>| assert_eq!(argmax(row), expected, "{row:?}");
        check(&[1.0, 3.0, 3.0], Some(1));
        check(&[-0.0, 0.0], Some(0));
        check(&[f32::NEG_INFINITY; 2], Some(0));
        check(&[0.0, f32::INFINITY, 1.0], Some(1));
        check(&[9.0, f32::NAN], None);
        check(&[f32::NAN, 9.0], None);
        check(&[], None);
    }

    #[test]
    fn accuracy_counts_nan_as_wrong() {
        let logits = [0.0, 1.0, 1.0, 0.0, f32::NAN, 5.0, 2.0, 2.0];
        assert_eq!(correct(&logits, 2, &[1, 0, 1, 0]), 3);
        assert_eq!(accuracy(&logits, 2, &[1, 1, 1, 1]), 0.25);
        assert_eq!(correct(&logits, 2, &[-1, 2, 0, 0]), 1);
        assert!(accuracy(&[], 2, &[]).is_nan());
    }

    #[test]
    fn top_k() {
        let logits = [0.1, 0.5, 0.5, 0.2, 9.0, 8.0, 7.0, 6.0];
        let of = |labels: &[i32], k| top_k_accuracy(&logits, 4, labels, k);
        assert_eq!(of(&[1, 1], 1), 0.5);
        assert_eq!(of(&[2, 1], 2), 1.0);
        assert_eq!(of(&[2, 3], 3), 0.5);
        assert_eq!(of(&[-1, 4], 4), 0.0);
        assert_eq!(top_k_accuracy(&[f32::NAN, 1.0], 2, &[1], 2), 0.0);
        assert!((perplexity(75f64.ln()) - 75.0).abs() < 1e-9);
    }

    #[test]
    fn mean_weighs_batches() {
        let mut mean = RunningMean::default();
        assert!(mean.get().is_nan());
        mean.add(1.0, 3);
        mean.add(5.0, 1);
        assert_eq!((mean.get(), mean.count()), (2.0, 4));
    }
}
