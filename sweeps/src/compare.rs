//! Which difference between two results is real.
//!
//! Both results must come from the same workloads under the same seeds; then every difference is taken within a pair, and
//! what the traffic alone does cancels out. Two kinds of pairs:
//!
//! * *Seeds*: one pair per seed both were run with, for any metric. Replicates are independent.
//! * *Requests*: the same request in both, where per-request records exist. Neighbouring requests share queues, so their
//!   differences are not independent; the method of batch means takes care of that.
//!
//! Each metric gets a paired t test and a 95 % interval for the mean difference B − A. Testing many metrics finds some by
//! chance, so p-values are adjusted by Holm's method over the metrics of a kind; a difference is called real when the
//! adjusted p is below 5 %.

use crate::digest::Digest;
use crate::paired::{Difference, Pairing, Test, batch_means, holm};
use crate::row::Row;
use crate::rows::{TOKENS_PER_S_PER_GPU, TOKENS_PER_S_PER_USER};
use std::collections::BTreeMap;
use thiserror::Error;

/// Metrics compared over seeds unless the caller names others.
pub const DEFAULT_METRICS: &[&str] = &[
    TOKENS_PER_S_PER_GPU,
    TOKENS_PER_S_PER_USER,
    "throughput.output_tokens_per_s",
    "goodput.share",
    "latency.ttft_ms.mean",
    "latency.ttft_ms.p99",
    "latency.itl_ms.mean",
    "latency.itl_ms.p99",
    "latency.tpot_ms.mean",
    "latency.tpot_ms.p99",
    "latency.e2e_ms.mean",
    "latency.queue_ms.mean",
    "requests.rejected",
    "requests.preemptions",
    "prefix.first_admission_share",
];

/// One run of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicate {
    /// Seed it was run with.
    pub seed: u64,
    /// The requests it served.
    pub workload: Digest,
    /// Its metrics.
    pub row: Row,
    /// By request index, if kept; `None` for requests that did not complete or do not count.
    pub requests: Vec<Option<RequestLatencies>>,
}

/// What one request saw, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestLatencies {
    /// Arrival to first token.
    pub ttft_ms: f64,
    /// Mean gap between tokens; `None` for a single token.
    pub tpot_ms: Option<f64>,
    /// Arrival to last token.
    pub e2e_ms: f64,
    /// Arrival to the start of the first step.
    pub queue_ms: f64,
}

/// Two results that cannot be paired.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CompareError {
    /// No seed in common.
    #[error("the results have no seed in common (A: {a}, B: {b}): run both with the same seeds")]
    NoCommonSeed {
        /// Seeds of A.
        a: String,
        /// Seeds of B.
        b: String,
    },
    /// Different requests under the same seed.
    #[error(
        "the results served different workloads (seed {seed}: A {a:.12}, B {b:.12}): differences would mix the effect of the \
         deployment with that of the traffic; run both on the same workload"
    )]
    DifferentWorkloads {
        /// First seed at which they differ.
        seed: u64,
        /// Digest of A's workload.
        a: String,
        /// Digest of B's workload.
        b: String,
    },
    /// The same workload, but records of different requests.
    #[error(
        "seed {seed}: A has records of {a} requests and B of {b}: the records of one are not complete"
    )]
    DifferentRecords {
        /// The seed.
        seed: u64,
        /// Records in A.
        a: usize,
        /// Records in B.
        b: usize,
    },
    /// A seed twice in one result.
    #[error("result {result} holds seed {seed} twice")]
    RepeatedSeed {
        /// `A` or `B`.
        result: &'static str,
        /// The seed.
        seed: u64,
    },
}

/// Two results compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// By metric: first over seeds, then over requests.
    pub differences: Vec<Difference>,
    /// Seeds that both have.
    pub seeds: Vec<u64>,
    /// Seeds of only one result, left out.
    pub unpaired_seeds: Vec<u64>,
    /// Requests that completed in one result only, left out of the pairs.
    pub unpaired_requests: u64,
}

/// Compares two results over the named metrics.
///
/// # Errors
/// The results cannot be paired, with the reason.
pub fn compare(
    a: &[Replicate],
    b: &[Replicate],
    metrics: &[&str],
) -> Result<Comparison, CompareError> {
    let (a, b) = (by_seed("A", a)?, by_seed("B", b)?);
    let pairs: Vec<(&Replicate, &Replicate)> = a
        .iter()
        .filter_map(|(seed, left)| b.get(seed).map(|right| (*left, *right)))
        .collect();
    if pairs.is_empty() {
        return Err(CompareError::NoCommonSeed {
            a: list(a.keys()),
            b: list(b.keys()),
        });
    }
    for (left, right) in &pairs {
        check_pair(left, right)?;
    }
    let one_sided = a
        .keys()
        .filter(|seed| !b.contains_key(seed))
        .chain(b.keys().filter(|seed| !a.contains_key(seed)));
    let mut differences = over_seeds(&pairs, metrics);
    let (over_requests, unpaired_requests) = over_requests(&pairs);
    differences.extend(over_requests);
    let seeds = pairs.iter().map(|(left, _)| left.seed).collect();
    Ok(Comparison {
        differences,
        seeds,
        unpaired_seeds: one_sided.copied().collect(),
        unpaired_requests,
    })
}

fn by_seed<'a>(
    result: &'static str,
    runs: &'a [Replicate],
) -> Result<BTreeMap<u64, &'a Replicate>, CompareError> {
    let mut map = BTreeMap::new();
    for run in runs {
        if map.insert(run.seed, run).is_some() {
            return Err(CompareError::RepeatedSeed {
                result,
                seed: run.seed,
            });
        }
    }
    Ok(map)
}

fn check_pair(a: &Replicate, b: &Replicate) -> Result<(), CompareError> {
    let seed = a.seed;
    if a.workload != b.workload {
        let (a, b) = (a.workload.to_string(), b.workload.to_string());
        return Err(CompareError::DifferentWorkloads { seed, a, b });
    }
    let (left, right) = (a.requests.len(), b.requests.len());
    if left != right && left > 0 && right > 0 {
        return Err(CompareError::DifferentRecords {
            seed,
            a: left,
            b: right,
        });
    }
    Ok(())
}

fn list<'a>(seeds: impl Iterator<Item = &'a u64>) -> String {
    let texts: Vec<String> = seeds.map(u64::to_string).collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(", ")
    }
}

fn over_seeds(pairs: &[(&Replicate, &Replicate)], metrics: &[&str]) -> Vec<Difference> {
    let test = |metric: &&str| {
        let values = pairs
            .iter()
            .map(|(a, b)| Some((a.row.number(metric)?, b.row.number(metric)?)));
        // A metric that some run lacks (no SLA, nothing finished) cannot be paired.
        let values: Vec<(f64, f64)> = values.collect::<Option<_>>()?;
        let differences: Vec<f64> = values.iter().map(|(a, b)| b - a).collect();
        Some(Test::new(
            (*metric).to_owned(),
            Pairing::Seeds,
            &values,
            &differences,
        ))
    };
    holm(metrics.iter().filter_map(test).collect())
}

type Latency = (&'static str, fn(&RequestLatencies) -> Option<f64>);

const REQUEST_METRICS: [Latency; 4] = [
    ("ttft_ms", |request| Some(request.ttft_ms)),
    ("tpot_ms", |request| request.tpot_ms),
    ("e2e_ms", |request| Some(request.e2e_ms)),
    ("queue_ms", |request| Some(request.queue_ms)),
];

fn over_requests(pairs: &[(&Replicate, &Replicate)]) -> (Vec<Difference>, u64) {
    let with_records = pairs
        .iter()
        .filter(|(a, b)| !a.requests.is_empty() && !b.requests.is_empty());
    let requests = with_records.flat_map(|(a, b)| a.requests.iter().zip(&b.requests));
    let requests: Vec<_> = requests.collect();
    let unpaired = requests
        .iter()
        .filter(|(a, b)| a.is_some() != b.is_some())
        .count() as u64;
    let test = |(name, latency): Latency| {
        let values = requests
            .iter()
            .filter_map(|(a, b)| Some((latency(a.as_ref()?)?, latency(b.as_ref()?)?)));
        let values: Vec<(f64, f64)> = values.collect();
        if values.is_empty() {
            return None;
        }
        let means = batch_means(&values);
        Some(Test::new(
            name.to_owned(),
            Pairing::Requests {
                batches: means.len(),
            },
            &values,
            &means,
        ))
    };
    (
        holm(REQUEST_METRICS.into_iter().filter_map(test).collect()),
        unpaired,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_parts;
    use crate::paired::Verdict;
    use crate::row::Value;

    fn replicate(seed: u64, ttft: f64, rate: f64) -> Replicate {
        let cells = vec![
            ("latency.ttft_ms.mean".into(), Value::from(ttft)),
            (TOKENS_PER_S_PER_GPU.into(), Value::from(rate)),
        ];
        Replicate {
            seed,
            workload: digest_parts("w", &[&seed.to_le_bytes()]),
            row: Row::new(cells),
            requests: Vec::new(),
        }
    }

    fn find<'a>(comparison: &'a Comparison, metric: &str) -> &'a Difference {
        comparison
            .differences
            .iter()
            .find(|difference| difference.metric == metric)
            .expect("it was compared")
    }

    /// Uniform in [-1, 1).
    fn noise(state: &mut u64) -> f64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    #[test]
    fn a_paired_test_by_hand() {
        // B − A is 1, 2, 3, 4, 5: mean 3, s = 1.58114, error 0.70711, t(4) = 4.24264, p = 0.013236.
        let a: Vec<_> = (0..5)
            .map(|seed| replicate(seed, 100.0 * seed as f64, 50.0))
            .collect();
        let b: Vec<_> = (0..5)
            .map(|seed| replicate(seed, 101.0 * seed as f64 + 1.0, 50.0))
            .collect();
        let comparison = compare(&a, &b, DEFAULT_METRICS).unwrap();
        let ttft = find(&comparison, "latency.ttft_ms.mean");
        let (low, high) = ttft.interval.unwrap();
        assert!(
            (low - 1.036_757).abs() < 1e-5 && (high - 4.963_243).abs() < 1e-5,
            "{ttft:?}"
        );
        // Two metrics were tested, so Holm doubles the smaller p.
        assert!(
            (ttft.adjusted_p.unwrap() - 2.0 * 0.013_236).abs() < 1e-5,
            "{ttft:?}"
        );
        assert_eq!((ttft.pairs, ttft.verdict), (5, Verdict::Worse));
        assert_eq!(
            find(&comparison, TOKENS_PER_S_PER_GPU).verdict,
            Verdict::Equal
        );
        assert_eq!(
            comparison.differences.len(),
            2,
            "metrics that the rows lack are left out"
        );
    }

    #[test]
    fn results_of_different_traffic_are_refused() {
        let a = [replicate(1, 1.0, 1.0)];
        let mut other = replicate(1, 1.0, 1.0);
        other.workload = digest_parts("w", &[b"other"]);
        let error = compare(&a, &[other], &[]).unwrap_err().to_string();
        assert!(error.contains("different workloads (seed 1: A "), "{error}");
        let error = compare(&a, &[replicate(2, 1.0, 1.0)], &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("no seed in common (A: 1, B: 2)"), "{error}");
        let twice = [replicate(1, 1.0, 1.0), replicate(1, 2.0, 1.0)];
        assert!(matches!(
            compare(&a, &twice, &[]),
            Err(CompareError::RepeatedSeed {
                result: "B",
                seed: 1
            })
        ));
        let partly = compare(&[replicate(1, 1.0, 1.0), replicate(2, 1.0, 1.0)], &a, &[]).unwrap();
        assert_eq!((partly.seeds, partly.unpaired_seeds), (vec![1], vec![2]));
    }

    fn with_requests(requests: Vec<Option<f64>>) -> Replicate {
        let latencies = |ttft_ms| RequestLatencies {
            ttft_ms,
            tpot_ms: None,
            e2e_ms: 2.0 * ttft_ms,
            queue_ms: 0.0,
        };
        let requests = requests
            .into_iter()
            .map(|ttft| ttft.map(latencies))
            .collect();
        Replicate {
            requests,
            ..replicate(0, 1.0, 1.0)
        }
    }

    #[test]
    fn one_seed_gives_no_interval_but_its_requests_do() {
        let mut state = 1;
        let a: Vec<_> = (0..1000)
            .map(|_| Some(100.0 + 50.0 * noise(&mut state)))
            .collect();
        let mut b: Vec<_> = a
            .iter()
            .map(|ttft| ttft.map(|ttft| ttft - 2.0 + 5.0 * noise(&mut state)))
            .collect();
        b[17] = None;
        let mut b = with_requests(b);
        b.row = replicate(0, 2.0, 1.0).row;
        let comparison = compare(&[with_requests(a)], &[b], DEFAULT_METRICS).unwrap();
        assert_eq!(
            find(&comparison, "latency.ttft_ms.mean").verdict,
            Verdict::OnePair
        );
        let ttft = find(&comparison, "ttft_ms");
        assert_eq!(
            (ttft.pairs, ttft.pairing),
            (999, Pairing::Requests { batches: 32 })
        );
        assert_eq!(
            (ttft.verdict, comparison.unpaired_requests),
            (Verdict::Better, 1)
        );
        assert_eq!(find(&comparison, "queue_ms").verdict, Verdict::Equal);
        assert!(
            comparison
                .differences
                .iter()
                .all(|one| one.metric != "tpot_ms"),
            "no request has a TPOT"
        );
    }

    #[test]
    fn requests_that_wait_for_each_other_are_not_taken_for_independent() {
        // Differences with mean 0 and correlation 0.95 from one request to the next. At 5 % about 10 of 200 runs should
        // call that real (a little more, as batches stay slightly correlated); taking requests for independent would in
        // about 140.
        let mut false_alarms = 0;
        for run in 0..200u64 {
            let (mut state, mut level) = (run.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1, 0.0);
            let mut drift = || {
                level = 0.95 * level + noise(&mut state);
                Some(100.0 + level)
            };
            let b = (0..6600).map(|_| drift()).skip(200).collect();
            let a = vec![Some(100.0); 6400];
            let comparison = compare(&[with_requests(a)], &[with_requests(b)], &[]).unwrap();
            let ttft = find(&comparison, "ttft_ms");
            let (low, high) = ttft.interval.unwrap();
            false_alarms += u32::from(low > 0.0 || high < 0.0);
        }
        assert!((3..=26).contains(&false_alarms), "{false_alarms} of 200");
    }

    #[test]
    fn a_result_equals_itself() {
        let runs: Vec<_> = (0..4)
            .map(|seed| replicate(seed, 10.0 + seed as f64, 1.0 / (seed as f64 + 3.0)))
            .collect();
        let comparison = compare(&runs, &runs, DEFAULT_METRICS).unwrap();
        assert!(
            comparison
                .differences
                .iter()
                .all(|one| one.verdict == Verdict::Equal && one.adjusted_p == Some(1.0))
        );
    }
}
