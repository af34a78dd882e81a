//! Mean 0 and variance 1.

/// Means and standard deviations of columns, to bring data to mean 0 and variance 1, and back: fitted on the training part, applied
/// to all. A column without variance keeps its scale.
///
/// ```
/// use graphc_train::data::Standardizer;
///
/// let mut x = vec![1.0, 10.0, 3.0, 30.0];
/// let standardizer = Standardizer::fit(&x, 2);
/// standardizer.apply(&mut x);
/// assert_eq!(x, [-1.0, -1.0, 1.0, 1.0]);
/// standardizer.invert(&mut x);
/// assert_eq!(x, [1.0, 10.0, 3.0, 30.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Standardizer {
    /// Mean and standard deviation of each column.
    columns: Vec<(f64, f64)>,
}

impl Standardizer {
    /// Fits rows of `width` numbers: means, and deviations of the whole population.
    ///
    /// # Panics
    /// If `width` is 0, or the numbers are no whole number of rows.
    pub fn fit(values: &[f32], width: usize) -> Self {
        assert!(
            width > 0 && values.len().is_multiple_of(width),
            "{} numbers in rows of {width}",
            values.len()
        );
        let n = (values.len() / width).max(1) as f64;
        let columns = (0..width).map(|c| {
            let column = || values.iter().skip(c).step_by(width).map(|&v| f64::from(v));
            let mean = column().sum::<f64>() / n;
            let deviation = (column().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            (mean, if deviation > 0.0 { deviation } else { 1.0 })
        });
        Self { columns: columns.collect() }
    }

    /// Mean and standard deviation of each column.
    pub fn columns(&self) -> &[(f64, f64)] {
        &self.columns
    }

    /// Brings rows to mean 0 and variance 1.
    pub fn apply(&self, values: &mut [f32]) {
        self.each(values, |v, mean, deviation| (v - mean) / deviation);
    }

    /// The inverse of [`Standardizer::apply`].
    pub fn invert(&self, values: &mut [f32]) {
        self.each(values, |v, mean, deviation| v * deviation + mean);
    }

    fn each(&self, values: &mut [f32], f: impl Fn(f64, f64, f64) -> f64) {
        for row in values.chunks_mut(self.columns.len()) {
            for (v, &(mean, deviation)) in row.iter_mut().zip(&self.columns) {
                *v = f(f64::from(*v), mean, deviation) as f32;
            }
        }
    }
}
