//! Errors of numbers.

/// Errors of predicted numbers, accumulated in f64 over batches.
///
/// ```
/// # use graphc_train::metrics::Regression;
/// let mut errors = Regression::default();
/// errors.add(&[2.5, 0.0, 2.0, 8.0], &[3.0, -0.5, 2.0, 7.0]);
/// assert_eq!((errors.mse(), errors.mae()), (0.375, 0.5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regression {
    n: f64,
    absolute: f64,
    square: f64,
    /// Mean of the targets, and sum of squares around it.
    mean: f64,
    spread: f64,
}

impl Regression {
    /// Adds predictions and their targets.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn add(&mut self, predictions: &[f32], targets: &[f32]) {
        assert_eq!(predictions.len(), targets.len(), "predictions and targets");
        for (&p, &t) in predictions.iter().zip(targets) {
            let (error, target) = (f64::from(p) - f64::from(t), f64::from(t));
            self.n += 1.0;
            self.absolute += error.abs();
            self.square += error * error;
            // Welford's method (1962).
            let from = target - self.mean;
            self.mean += from / self.n;
            self.spread += from * (target - self.mean);
        }
    }

    /// Mean squared error; NaN for nothing.
    pub fn mse(&self) -> f64 {
        self.square / self.n
    }

    /// Root of the mean squared error.
    pub fn rmse(&self) -> f64 {
        self.mse().sqrt()
    }

    /// Mean absolute error.
    pub fn mae(&self) -> f64 {
        self.absolute / self.n
    }

    /// Coefficient of determination: 1 less the share of the variance of the targets that is left as error.
    pub fn r2(&self) -> f64 {
        1.0 - self.square / self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // sklearn.metrics.r2_score of its documentation.
        let mut e = Regression::default();
        e.add(&[2.5, 0.0], &[3.0, -0.5]);
        e.add(&[2.0, 8.0], &[2.0, 7.0]);
        assert!((e.r2() - 0.948_608_137_044_967_8).abs() < 1e-15);
        assert_eq!(e.rmse(), 0.375f64.sqrt());
        assert!(Regression::default().mse().is_nan());
    }
}
