//! How much a made-up trace resembles the one it was fitted to.

use serde::Serialize;

use crate::describe::{Description, LengthSummary};
use crate::trace::Trace;

/// Two traces side by side. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Closeness {
    /// Number of requests.
    pub requests: Pair,
    /// Requests per second.
    pub rate_per_s: Pair,
    /// Prompt lengths.
    pub input_tokens: LengthCloseness,
    /// Answer lengths.
    pub output_tokens: LengthCloseness,
    /// Coefficient of variation of the gaps between arrivals.
    pub gap_cv: Pair,
    /// Share of the requests that arrive at a time of their own; the rest share theirs with others.
    pub distinct_times_share: Pair,
    /// Variance over mean of the requests in windows.
    pub dispersion: Vec<WindowPair>,
    /// Share of the blocks that an unlimited cache would serve; none where contents are unknown.
    pub best_reuse: Option<Pair>,
    /// Share of the blocks that an LRU cache would serve, by its size in blocks of the given trace.
    pub lru: Vec<SizePair>,
    /// Largest difference of the two hit rates at any of these sizes.
    pub lru_distance: f64,
}

/// A number of the given trace and of the made-up one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// Of the given trace.
    pub given: f64,
    /// Of the made-up trace.
    pub synth: f64,
}

/// Two distributions of lengths.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthCloseness {
    /// Means.
    pub mean: Pair,
    /// Quantiles.
    pub quantiles: Vec<QuantilePair>,
    /// Largest relative error of a quantile.
    pub worst_error: f64,
    /// Kolmogorov and Smirnov's distance: the largest difference of the shares of lengths up to any length.
    pub ks_distance: f64,
}

/// A quantile of both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct QuantilePair {
    /// Probability.
    pub p: f64,
    /// Both values.
    #[serde(flatten)]
    pub tokens: Pair,
}

/// A number per length of windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WindowPair {
    /// Length of a window.
    pub window_s: f64,
    /// Both values.
    #[serde(flatten)]
    pub pair: Pair,
}

/// A hit rate per size of cache.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SizePair {
    /// Size of the cache.
    pub blocks: u64,
    /// Both values.
    #[serde(flatten)]
    pub hit_rate: Pair,
}

impl Pair {
    /// Difference relative to the given value.
    #[must_use]
    pub fn relative_error(&self) -> f64 {
        if self.given == self.synth {
            0.0
        } else {
            (self.synth - self.given).abs() / self.given.abs()
        }
    }

    /// Difference.
    #[must_use]
    pub fn difference(&self) -> f64 {
        (self.synth - self.given).abs()
    }
}

/// What a trace is compared by.
#[derive(Debug)]
pub(super) struct Measures {
    description: Description,
    sorted_inputs: Vec<u32>,
    sorted_outputs: Vec<u32>,
}

impl Measures {
    /// Of a trace with at least one row, in blocks of `block_size` tokens.
    pub(super) fn of(trace: &Trace, block_size: u32) -> Measures {
        Measures {
            description: Description::in_blocks_of(trace, block_size),
            sorted_inputs: sorted(trace.rows.iter().map(|row| row.input_tokens)),
            sorted_outputs: sorted(trace.rows.iter().map(|row| row.output_tokens)),
        }
    }

    /// Share of the blocks that an unlimited cache would serve, where contents are known.
    pub(super) fn best_reuse(&self) -> Option<f64> {
        self.description
            .blocks
            .as_ref()
            .map(|blocks| blocks.best_reuse)
    }
}

impl Closeness {
    /// Compares two traces, each with at least one row.
    #[must_use]
    pub fn of(given: &Trace, synth: &Trace) -> Closeness {
        let block_size = given.block_size;
        Closeness::between(
            &Measures::of(given, block_size),
            &Measures::of(synth, block_size),
        )
    }

    pub(super) fn between(given: &Measures, synth: &Measures) -> Closeness {
        let (a, b) = (&given.description, &synth.description);
        let pair = |number: fn(&Description) -> f64| Pair {
            given: number(a),
            synth: number(b),
        };
        let windows = a.arrivals.windows.iter().zip(&b.arrivals.windows);
        let lru = lru(a, b);
        Closeness {
            requests: pair(|d| d.requests as f64),
            rate_per_s: pair(|d| d.rate_per_s.unwrap_or_default()),
            input_tokens: LengthCloseness::of(&given.sorted_inputs, &synth.sorted_inputs),
            output_tokens: LengthCloseness::of(&given.sorted_outputs, &synth.sorted_outputs),
            gap_cv: pair(|d| d.arrivals.gap_cv.unwrap_or_default()),
            distinct_times_share: pair(|d| d.arrivals.distinct_times as f64 / d.requests as f64),
            dispersion: windows
                .map(|(a, b)| WindowPair {
                    window_s: a.window_s,
                    pair: Pair {
                        given: a.dispersion,
                        synth: b.dispersion,
                    },
                })
                .collect(),
            best_reuse: match (&a.blocks, &b.blocks) {
                (Some(a), Some(b)) => Some(Pair {
                    given: a.best_reuse,
                    synth: b.best_reuse,
                }),
                _ => None,
            },
            lru_distance: lru
                .iter()
                .map(|size| size.hit_rate.difference())
                .fold(0.0, f64::max),
            lru,
        }
    }
}

/// Both curves at the sizes of the first; a curve that ends earlier stays at its last value.
fn lru(a: &Description, b: &Description) -> Vec<SizePair> {
    let (Some(a), Some(b)) = (&a.blocks, &b.blocks) else {
        return Vec::new();
    };
    let last = b.lru.last().expect("a curve has at least one point");
    let points = a.lru.iter().enumerate().map(|(index, point)| SizePair {
        blocks: point.blocks,
        hit_rate: Pair {
            given: point.hit_rate,
            synth: b.lru.get(index).unwrap_or(last).hit_rate,
        },
    });
    points.collect()
}

impl LengthCloseness {
    fn of(given: &[u32], synth: &[u32]) -> LengthCloseness {
        let summaries = (
            LengthSummary::of(given.iter().copied()),
            LengthSummary::of(synth.iter().copied()),
        );
        let (a, b) = (&summaries.0, &summaries.1);
        let quantiles: Vec<QuantilePair> = [
            (0.1, a.p10, b.p10),
            (0.25, a.p25, b.p25),
            (0.5, a.p50, b.p50),
            (0.75, a.p75, b.p75),
            (0.9, a.p90, b.p90),
            (0.95, a.p95, b.p95),
            (0.99, a.p99, b.p99),
        ]
        .into_iter()
        .map(|(p, a, b)| QuantilePair {
            p,
            tokens: Pair {
                given: f64::from(a),
                synth: f64::from(b),
            },
        })
        .collect();
        LengthCloseness {
            mean: Pair {
                given: a.mean,
                synth: b.mean,
            },
            worst_error: quantiles
                .iter()
                .map(|quantile| quantile.tokens.relative_error())
                .fold(0.0, f64::max),
            quantiles,
            ks_distance: ks_distance(given, synth),
        }
    }
}

pub(super) fn sorted(lengths: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut lengths: Vec<u32> = lengths.collect();
    lengths.sort_unstable();
    lengths
}

/// Largest difference of two empirical distribution functions; both lists are sorted and not empty.
fn ks_distance(a: &[u32], b: &[u32]) -> f64 {
    let (mut i, mut j) = (0, 0);
    let mut distance = 0.0f64;
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        i += a[i..].partition_point(|&length| length <= value);
        j += b[j..].partition_point(|&length| length <= value);
        distance = distance.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    distance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ks_is_the_widest_gap_between_the_staircases() {
        // Up to 2: 2/4 against 1/2; up to 3: 3/4 against 1/2; up to 5: 3/4 against 2/2.
        assert_eq!(ks_distance(&[1, 2, 3, 9], &[2, 5]), 0.25);
        assert_eq!(ks_distance(&[1, 1, 1], &[1]), 0.0);
        assert_eq!(ks_distance(&[1, 2], &[3, 4, 5]), 1.0);
    }
}
