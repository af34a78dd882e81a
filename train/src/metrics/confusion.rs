//! Confusion matrix and what follows from it.

use super::argmax;
use std::fmt;

/// How often each class (rows) was taken for each class (columns).
///
/// ```
/// # use graphc_train::metrics::Confusion;
/// let mut confusion = Confusion::new(2);
/// confusion.add_logits(&[2.0, 1.0, 0.0, 3.0, 5.0, 4.0], &[0, 1, 1]);
/// assert_eq!(confusion.count(1, 0), 1);
/// assert_eq!(confusion.recall(1), 0.5);
/// println!("{confusion}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
    /// Rows whose logits contain NaN.
    undecided: u64,
}

impl Confusion {
    /// For labels in `0..classes`.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes], undecided: 0 }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If a label is out of range.
    pub fn add(&mut self, label: usize, predicted: usize) {
        assert!(
            label < self.classes && predicted < self.classes,
            "{label} taken for {predicted}, of {}",
            self.classes
        );
        self.counts[label * self.classes + predicted] += 1;
    }

    /// Adds rows of `logits: [labels.len(), classes]`; the first maximum is what a row predicts. Rows with NaN count in
    /// [`Confusion::accuracy`] alone, as wrong.
    ///
    /// # Panics
    /// If `logits.len() != labels.len() * classes`, or a label is out of range.
    pub fn add_logits(&mut self, logits: &[f32], labels: &[i32]) {
        assert_eq!(
            logits.len(),
            labels.len() * self.classes,
            "{} rows of {} logits",
            labels.len(),
            self.classes
        );
        for (row, &label) in logits.chunks(self.classes.max(1)).zip(labels) {
            match argmax(row) {
                Some(predicted) => self.add(usize::try_from(label).unwrap_or(usize::MAX), predicted),
                None => self.undecided += 1,
            }
        }
    }

    /// How often `label` was taken for `predicted`.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        self.counts[label * self.classes + predicted]
    }

    /// Share of rows on the diagonal; NaN for none.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.classes).map(|c| self.count(c, c)).sum();
        right as f64 / (self.counts.iter().sum::<u64>() + self.undecided) as f64
    }

    /// Of what was taken for `class`, the share that is; 0 if nothing was.
    pub fn precision(&self, class: usize) -> f64 {
        share(self.count(class, class), (0..self.classes).map(|c| self.count(c, class)).sum())
    }

    /// Of what is `class`, the share that was taken for it; 0 if nothing is.
    pub fn recall(&self, class: usize) -> f64 {
        share(self.count(class, class), (0..self.classes).map(|c| self.count(class, c)).sum())
    }

    /// Harmonic mean of precision and recall; 0 if both are.
    pub fn f1(&self, class: usize) -> f64 {
        let (p, r) = (self.precision(class), self.recall(class));
        if p + r == 0.0 { 0.0 } else { 2.0 * p * r / (p + r) }
    }

    /// Mean of [`Confusion::f1`] over the classes.
    pub fn macro_f1(&self) -> f64 {
        (0..self.classes).map(|c| self.f1(c)).sum::<f64>() / self.classes as f64
    }
}

fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

impl fmt::Display for Confusion {
    /// A row per class, with precision, recall and F1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            self.counts.iter().max().map_or(1, |m| m.to_string().len()).max(self.classes.to_string().len());
        write!(f, "{:>8} ", "label")?;
        (0..self.classes).try_for_each(|c| write!(f, " {c:>width$}"))?;
        writeln!(f, "  precision  recall      F1")?;
        for label in 0..self.classes {
            write!(f, "{label:>8} ")?;
            (0..self.classes).try_for_each(|c| write!(f, " {:>width$}", self.count(label, c)))?;
            let (p, r, f1) = (self.precision(label), self.recall(label), self.f1(label));
            writeln!(f, "  {p:>9.4}  {r:>6.4}  {f1:>6.4}")?;
        }
        write!(f, "accuracy {:.4}, macro F1 {:.4}", self.accuracy(), self.macro_f1())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // sklearn.metrics of y_true = [0, 1, 2, 2, 2, 1], y_pred = [0, 0, 2, 2, 1, 1].
        let mut c = Confusion::new(3);
        for (label, predicted) in [(0, 0), (1, 0), (2, 2), (2, 2), (2, 1), (1, 1)] {
            c.add(label, predicted);
        }
        assert_eq!([0, 1, 2].map(|i| c.precision(i)), [0.5, 0.5, 1.0]);
        assert_eq!([0, 1, 2].map(|i| c.recall(i)), [1.0, 0.5, 2.0 / 3.0]);
        assert!((c.macro_f1() - 0.655_555_555_555_555_6).abs() < 1e-15);
        assert_eq!(c.accuracy(), 4.0 / 6.0);
        let text = c.to_string();
        assert_eq!(text.lines().nth(3).unwrap(), "       2  0 1 2     1.0000  0.6667  0.8000");
        assert!(text.ends_with("accuracy 0.6667, macro F1 0.6556"));
        c.add_logits(&[f32::NAN, 0.0, 0.0], &[0]);
        assert_eq!(c.accuracy(), 4.0 / 7.0);
        assert_eq!(Confusion::new(2).f1(0), 0.0);
    }
}
