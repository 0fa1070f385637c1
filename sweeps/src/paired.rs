//! Paired differences and what they show.
//!
//! The mean of independent differences is tested with Student's t; the p-values of a family of metrics are adjusted by
//! Holm's method. Differences of single requests are not independent (neighbours share queues), so consecutive ones are
//! averaged in [`BATCHES`] batches first, and the batch means are tested: the method of batch means.

use crate::metric::{Direction, better};
use crate::replicates::{LEVEL, moments, t_quantile, t_tail};

/// Batches of consecutive requests.
// Model: batches of a thirty-second of the run count as independent; where queues last longer than that, intervals are
// too narrow (by the square root of the correlation left between batches).
pub const BATCHES: usize = 32;

/// What is paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Runs with the same seed.
    Seeds,
    /// The same requests, in so many batches.
    Requests {
        /// Number of batches.
        batches: usize,
    },
}

/// What can be said about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Real, B is better.
    Better,
    /// Real, B is worse.
    Worse,
    /// Real, neither way is better in itself.
    Different,
    /// May be chance.
    NotShown,
    /// The same in every pair.
    Equal,
    /// One pair only: the difference is exact for this workload and says nothing about others.
    OnePair,
}

/// The difference in one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Name of the metric.
    pub metric: String,
    /// What is paired.
    pub pairing: Pairing,
    /// Number of pairs: seeds or requests.
    pub pairs: u64,
    /// Mean of A over the pairs.
    pub a: f64,
    /// Mean of B over the pairs.
    pub b: f64,
    /// 95 % confidence interval of the mean of B − A, not adjusted; `None` with one pair.
    pub interval: Option<(f64, f64)>,
    /// Probability of such a difference by chance, adjusted by Holm's method; `None` with one pair.
    pub adjusted_p: Option<f64>,
    /// What follows.
    pub verdict: Verdict,
}

/// A difference before its p-value is adjusted.
pub(crate) struct Test {
    difference: Difference,
    p: Option<f64>,
}

impl Test {
    /// `values` are the pairs, `samples` the independent differences.
    pub(crate) fn new(
        metric: String,
        pairing: Pairing,
        values: &[(f64, f64)],
        samples: &[f64],
    ) -> Test {
        let count = values.len() as f64;
        let a = values.iter().map(|(a, _)| a).sum::<f64>() / count;
        let b = values.iter().map(|(_, b)| b).sum::<f64>() / count;
        let (samples, mean, error) = moments(samples).expect("there is at least one pair");
        let interval = error
            .map(|error| error * t_quantile(samples - 1))
            .map(|half| (mean - half, mean + half));
        let p = error.map(|error| match (mean, error) {
            (0.0, 0.0) => 1.0,
            _ => t_tail(mean / error, samples - 1),
        });
        let is_equal = values.iter().all(|(a, b)| a == b);
        let verdict = match (is_equal, p) {
            (true, _) => Verdict::Equal,
            (false, None) => Verdict::OnePair,
            (false, Some(_)) => Verdict::NotShown,
        };
        let pairs = values.len() as u64;
        Test {
            difference: Difference {
                metric,
                pairing,
                pairs,
                a,
                b,
                interval,
                adjusted_p: None,
                verdict,
            },
            p,
        }
    }
}

/// Holm's step-down adjustment: the i-th smallest of m p-values (from 0) times m − i, never below its predecessor.
pub(crate) fn holm(mut tests: Vec<Test>) -> Vec<Difference> {
    let mut order: Vec<usize> = (0..tests.len())
        .filter(|&index| tests[index].p.is_some())
        .collect();
    let p = |tests: &[Test], index: usize| {
        tests[index]
            .p
            .expect("only tests with a p-value are ordered")
    };
    order.sort_by(|&left, &right| {
        p(&tests, left)
            .total_cmp(&p(&tests, right))
            .then(left.cmp(&right))
    });
    let mut floor: f64 = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        floor = floor
            .max(p(&tests, index) * (order.len() - rank) as f64)
            .min(1.0);
        let difference = &mut tests[index].difference;
        difference.adjusted_p = Some(floor);
        if floor < 1.0 - LEVEL && difference.verdict == Verdict::NotShown {
            let (low, high) = difference
                .interval
                .expect("a p-value comes with an interval");
            difference.verdict = judge(&difference.metric, low + high);
        }
    }
    tests.into_iter().map(|test| test.difference).collect()
}

/// The verdict on a real difference of the given sign; metrics of single requests are latencies.
fn judge(metric: &str, difference: f64) -> Verdict {
    let direction = if metric.contains('.') {
        better(metric)
    } else {
        Some(Direction::Min)
    };
    match direction {
        Some(direction) if direction.score(difference) > 0.0 => Verdict::Better,
        Some(_) => Verdict::Worse,
        None => Verdict::Different,
    }
}

/// Means of B − A over consecutive pairs, in [`BATCHES`] batches whose sizes differ by one at most; with fewer than two
/// pairs for each batch every pair stands alone.
pub(crate) fn batch_means(values: &[(f64, f64)]) -> Vec<f64> {
    let batches = if values.len() < 2 * BATCHES {
        values.len()
    } else {
        BATCHES
    };
    let bound = |batch: usize| batch * values.len() / batches;
    let mean = |batch: usize| {
        let part = &values[bound(batch)..bound(batch + 1)];
        part.iter().map(|(a, b)| b - a).sum::<f64>() / part.len() as f64
    };
    (0..batches).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_adjusts_step_by_step() {
        let test = |p| {
            let mut test = Test::new(
                "x.y".to_owned(),
                Pairing::Seeds,
                &[(0.0, 1.0), (0.0, 2.0)],
                &[1.0, 2.0],
            );
            test.p = Some(p);
            test
        };
        let adjusted: Vec<f64> = holm([0.01, 0.04, 0.03, 0.005].map(test).into())
            .iter()
            .filter_map(|one| one.adjusted_p)
            .collect();
        for (found, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
    }

    #[test]
    fn batches_share_the_pairs_evenly() {
        let pairs = |count: u32| {
            (0..count)
                .map(|index| (0.0, f64::from(index)))
                .collect::<Vec<_>>()
        };
        assert_eq!(batch_means(&pairs(3)), [0.0, 1.0, 2.0]);
        assert_eq!(batch_means(&pairs(63)).len(), 63);
        let means = batch_means(&pairs(65));
        assert_eq!((means.len(), means[0], means[31]), (32, 0.5, 63.0));
    }
}
