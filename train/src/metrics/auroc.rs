//! Area under the receiver operating characteristic.

/// The probability that a row with label 1 has a larger score than one with label 0, ties counted half: the area under the
/// receiver operating characteristic, by mid-ranks (Mann and Whitney 1947). NaN unless there are both labels, or if a score is
/// NaN.
///
/// # Panics
/// If there are not as many scores as labels.
///
/// ```
/// # use graphc_train::metrics::auroc;
/// assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &[0, 0, 1, 1]), 0.75);
/// ```
pub fn auroc(scores: &[f32], labels: &[i32]) -> f64 {
    assert_eq!(scores.len(), labels.len(), "scores and labels");
    if scores.iter().any(|s| s.is_nan()) {
        return f64::NAN;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let (mut ranks, mut positive) = (0.0, 0.0);
    let mut at = 0;
    // Equal scores share the mean of their ranks, which count from 1.
    for ties in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let rank = at as f64 + (ties.len() as f64 + 1.0) / 2.0;
        let n = ties.iter().filter(|&&i| labels[i] == 1).count() as f64;
        (ranks, positive) = (ranks + rank * n, positive + n);
        at += ties.len();
    }
    let negative = scores.len() as f64 - positive;
    (ranks - positive * (positive + 1.0) / 2.0) / (positive * negative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // sklearn.metrics.roc_auc_score.
        assert_eq!(auroc(&[0.5, 0.5, 0.5, 0.5], &[0, 1, 0, 1]), 0.5);
        assert_eq!(auroc(&[1.0, 2.0, 2.0, 3.0, 0.0], &[0, 1, 0, 1, 0]), 5.5 / 6.0);
        assert_eq!(auroc(&[1.0, 0.0], &[0, 1]), 0.0);
        assert_eq!(auroc(&[-0.0, 0.0], &[0, 1]), 0.5);
        assert!(auroc(&[1.0], &[1]).is_nan());
        assert!(auroc(&[1.0, f32::NAN], &[1, 0]).is_nan());
    }
}
