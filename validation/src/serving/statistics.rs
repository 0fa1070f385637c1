//! Errors of many predictions: relative, |predicted / measured − 1|, and whether the order is right.

use statrs::statistics::{Data, OrderStatistics, Statistics};

/// Errors over some rows.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Errors {
    /// Rows.
    pub rows: usize,
    /// Mean absolute relative error.
    pub mean: f64,
    /// Its median.
    pub median: f64,
    /// Its 90th percentile.
    pub p90: f64,
    /// Mean of the signed relative error: below 0, too fast.
    pub bias: f64,
    /// Spearman's rank correlation; none below three rows or where all are equal.
    pub rank_correlation: Option<f64>,
}

/// Errors of (predicted, measured) pairs; none where there are no pairs.
#[must_use]
pub fn errors(pairs: &[(f64, f64)]) -> Option<Errors> {
    if pairs.is_empty() {
        return None;
    }
    let signed: Vec<f64> = pairs
        .iter()
        .map(|(found, real)| found / real - 1.0)
        .collect();
    let absolute: Vec<f64> = signed.iter().map(|error| error.abs()).collect();
    let mut sorted = Data::new(absolute.clone());
    Some(Errors {
        rows: pairs.len(),
        mean: absolute.iter().mean(),
        median: sorted.median(),
        p90: sorted.quantile(0.9),
        bias: signed.iter().mean(),
        rank_correlation: rank_correlation(pairs),
    })
}

/// Pearson's correlation of the ranks, equal values sharing their mean rank.
fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let found = ranks(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let real = ranks(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let covariance = found.iter().covariance(real.iter());
    let correlation = covariance / (found.iter().std_dev() * real.iter().std_dev());
    correlation.is_finite().then_some(correlation)
}

/// The place of each value in ascending order.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = from as f64 + (equal.len() - 1) as f64 / 2.0;
        for &index in equal {
            ranks[index] = mean;
        }
        from += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_by_hand() {
        // +10 %, -20 %, +30 %, 0 %.
        let found = errors(&[(110.0, 100.0), (160.0, 200.0), (390.0, 300.0), (50.0, 50.0)])
            .expect("four rows");
        assert!((found.mean - 0.15).abs() < 1e-12);
        assert!((found.median - 0.15).abs() < 1e-12);
        assert!((found.bias - 0.05).abs() < 1e-12);
        assert!((found.rank_correlation.expect("four rows") - 1.0).abs() < 1e-12);
        assert!(errors(&[]).is_none());
        let upside_down = errors(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]).expect("three rows");
        assert!((upside_down.rank_correlation.expect("three") + 1.0).abs() < 1e-12);
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
        assert_eq!(
            errors(&[(1.0, 1.0)]).expect("one row").rank_correlation,
            None
        );
    }
}
