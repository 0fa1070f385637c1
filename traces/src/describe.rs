//! What is in a trace, in numbers.
//!
//! Quantiles are nearest-rank: the smallest value that at least a share p of the values does not exceed. The duration
//! runs from the first arrival to the last, and the rate is requests over duration. Requests that wait for others count
//! at the earliest time at which they can be sent.

mod burstiness;

pub(crate) use burstiness::counts;

use serde::Serialize;
use statrs::statistics::Statistics;

use crate::contents::Contents;
use crate::reuse::Reuse;
use crate::trace::Trace;

/// A trace in numbers. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// Number of requests.
    pub requests: u64,
    /// Number of conversations; requests without one count each.
    pub sessions: u64,
    /// Requests that wait for another one.
    pub waiting_requests: u64,
    /// From the first arrival to the last.
    pub duration_s: f64,
    /// Requests over duration; none where all arrive at once.
    pub rate_per_s: Option<f64>,
    /// Prompt lengths.
    pub input_tokens: LengthSummary,
    /// Answer lengths.
    pub output_tokens: LengthSummary,
    /// How regular arrivals are.
    pub arrivals: Burstiness,
    /// What prompts have in common; none where the trace does not say.
    pub blocks: Option<BlockSummary>,
}

/// Lengths in tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthSummary {
    /// Sum.
    pub total: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation (of the population).
    pub stddev: f64,
    /// Shortest.
    pub min: u32,
    /// 10th percentile.
    pub p10: u32,
    /// 25th percentile.
    pub p25: u32,
    /// Median.
    pub p50: u32,
    /// 75th percentile.
    pub p75: u32,
    /// 90th percentile.
    pub p90: u32,
    /// 95th percentile.
    pub p95: u32,
    /// 99th percentile.
    pub p99: u32,
    /// Longest.
    pub max: u32,
}

/// How arrivals vary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Burstiness {
    /// Number of different arrival times.
    pub distinct_times: u64,
    /// Most requests at one time.
    pub most_at_once: u64,
    /// Coefficient of variation of the gaps between arrivals, those of length 0 included: 1 for a Poisson process.
    pub gap_cv: Option<f64>,
    /// Counts in windows of several lengths.
    pub windows: Vec<WindowCounts>,
    /// Rate over time.
    pub over_time: RateOverTime,
}

/// Requests per window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowCounts {
    /// Length of a window.
    pub window_s: f64,
    /// Most requests in a window over the mean.
    pub peak_to_mean: f64,
    /// Variance over mean of the counts: 1 for a Poisson process.
    pub dispersion: f64,
}

/// Requests per second in windows of equal length; the last one may be cut short by the end of the trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateOverTime {
    /// Length of a window.
    pub window_s: f64,
    /// Rate in each window.
    pub per_s: Vec<f64>,
}

/// What prompts have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlockSummary {
    /// Tokens per block.
    pub block_size: u32,
    /// Blocks of all prompts.
    pub references: u64,
    /// Different blocks; a block is the same when all before it is the same too.
    pub unique: u64,
    /// Share of the references that an unlimited cache would serve.
    pub best_reuse: f64,
    /// Share of the prompt tokens that an unlimited cache would serve.
    pub best_token_reuse: f64,
    /// Share of the references that one LRU cache would serve, by its size.
    pub lru: Vec<HitRate>,
}

/// A point of the hit-rate curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HitRate {
    /// Size of the cache in blocks.
    pub blocks: u64,
    /// The same in tokens.
    pub tokens: u64,
    /// Share of the references served.
    pub hit_rate: f64,
}

impl Description {
    /// Describes `trace`, which has at least one row, in its own blocks.
    #[must_use]
    pub fn of(trace: &Trace) -> Description {
        Description::in_blocks_of(trace, trace.block_size)
    }

    /// Describes `trace`, which has at least one row, in blocks of `block_size` tokens.
    #[must_use]
    pub fn in_blocks_of(trace: &Trace, block_size: u32) -> Description {
        assert!(!trace.rows.is_empty(), "a trace has at least one row");
        let rows = &trace.rows;
        let duration_s = trace.span().as_s();
        let contents = Contents::in_blocks_of(trace, block_size);
        let reuse = (!contents.are_unknown())
            .then(|| Reuse::of(&contents, rows.iter().map(|row| row.input_tokens)));
        Description {
            requests: rows.len() as u64,
            sessions: u64::from(trace.sessions),
            waiting_requests: rows.iter().filter(|row| row.dependency_count > 0).count() as u64,
            duration_s,
            rate_per_s: (duration_s > 0.0).then(|| rows.len() as f64 / duration_s),
            input_tokens: LengthSummary::of(rows.iter().map(|row| row.input_tokens)),
            output_tokens: LengthSummary::of(rows.iter().map(|row| row.output_tokens)),
            arrivals: Burstiness::of(trace),
            blocks: reuse.map(|reuse| BlockSummary::of(&reuse, block_size)),
        }
    }
}

impl LengthSummary {
    /// Of at least one length.
    #[must_use]
    pub fn of(lengths: impl Iterator<Item = u32>) -> LengthSummary {
        let mut sorted: Vec<u32> = lengths.collect();
        sorted.sort_unstable();
        let reals = || sorted.iter().map(|&length| f64::from(length));
        let at = |p| nearest_rank(&sorted, p);
        LengthSummary {
            total: sorted.iter().map(|&length| u64::from(length)).sum(),
            mean: reals().mean(),
            stddev: reals().population_std_dev(),
            min: at(0.0),
            p10: at(0.1),
            p25: at(0.25),
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// The smallest value of a sorted list that at least a share `p` of the values does not exceed.
pub(crate) fn nearest_rank<T: Copy>(sorted: &[T], p: f64) -> T {
    // A product like 0.95 · 20 may come out a hair above the whole number that it is.
    let rank = (p * sorted.len() as f64 - 1e-9).ceil().max(1.0) as usize;
    sorted[rank - 1]
}

impl BlockSummary {
    fn of(reuse: &Reuse, block_size: u32) -> BlockSummary {
        let largest = reuse.unique.max(1).next_power_of_two();
        let sizes = (0..)
            .map(|power| 1u64 << power)
            .take_while(|&blocks| blocks <= largest);
        let point = |blocks| HitRate {
            blocks,
            tokens: blocks * u64::from(block_size),
            hit_rate: reuse.hit_rate(blocks),
        };
        BlockSummary {
            block_size,
            references: reuse.references,
            unique: reuse.unique,
            best_reuse: reuse.best(),
            best_token_reuse: reuse.best_by_tokens(),
            lru: sizes.map(point).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{NewContent, NewRow, TraceBuilder};
    use engine::Time;

    /// Rows (seconds, input, output) of unknown content.
    fn trace(rows: &[(u64, u32, u32)]) -> Trace {
        let mut builder = TraceBuilder::new(512);
        for &(s, input, output) in rows {
            builder.push(NewRow::alone(
                Time::from_ns(s * 1_000_000_000),
                input,
                output,
                NewContent::Private,
            ));
        }
        builder.finish()
    }

    #[test]
    fn quantiles_are_nearest_rank() {
        // 20 values 1..=20: p10 is the 2nd, p25 the 5th, p95 the 19th, p99 the 20th (19.8 rounded up).
        let summary = LengthSummary::of(1..=20);
        let LengthSummary {
            min,
            p10,
            p25,
            p50,
            p75,
            p90,
            p95,
            p99,
            max,
            ..
        } = summary;
        assert_eq!(
            [min, p10, p25, p50, p75, p90, p95, p99, max],
            [1, 2, 5, 10, 15, 18, 19, 20, 20]
        );
        // Mean 10.5, variance (20² − 1) / 12 = 33.25.
        assert_eq!((summary.total, summary.mean), (210, 10.5));
        assert!((summary.stddev - 33.25f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn bursts_are_seen() {
        // Three at 0 s, one at 20 s, two at 40 s. Gaps 0 0 20 20 0: mean 8, mean square 160, variance 96.
        let description = Description::of(&trace(&[
            (0, 5, 1),
            (0, 5, 1),
            (0, 5, 1),
            (20, 5, 1),
            (40, 5, 1),
            (40, 5, 1),
        ]));
        assert_eq!(
            (
                description.requests,
                description.duration_s,
                description.rate_per_s
            ),
            (6, 40.0, Some(0.15))
        );
        let arrivals = &description.arrivals;
        assert_eq!((arrivals.distinct_times, arrivals.most_at_once), (3, 3));
        assert!(
            (arrivals.gap_cv.expect("a trace with a length") - 96f64.sqrt() / 8.0).abs() < 1e-12
        );
        // Windows of 10 s: 3 0 1 0 2, mean 1.2, mean square 14/5, variance 1.36.
        let tens = &arrivals.windows[1];
        assert_eq!((tens.window_s, tens.peak_to_mean), (10.0, 3.0 / 1.2));
        assert!((tens.dispersion - 1.36 / 1.2).abs() < 1e-12);
        assert_eq!(arrivals.windows.len(), 2);
        assert_eq!(description.blocks, None);
    }

    #[test]
    fn a_single_request_and_simultaneous_ones_have_no_rate() {
        for rows in [&[(7, 3, 2)][..], &[(7, 3, 2), (7, 9, 1)]] {
            let description = Description::of(&trace(rows));
            assert_eq!(
                (description.duration_s, description.rate_per_s),
                (0.0, None)
            );
            assert_eq!(
                (
                    description.arrivals.gap_cv,
                    description.arrivals.windows.len()
                ),
                (None, 0)
            );
            assert_eq!(description.arrivals.over_time.per_s.len(), 1);
        }
    }

    #[test]
    fn windows_over_time_are_few_and_cover_everything() {
        let rows: Vec<(u64, u32, u32)> = (0..4000).map(|s| (s, 1, 1)).collect();
        let over_time = Description::of(&trace(&rows)).arrivals.over_time;
        // 3,999 s in at most 72 windows: 60 s long, 67 of them, the last with 40 s of requests.
        assert_eq!(
            (
                over_time.window_s,
                over_time.per_s.len(),
                over_time.per_s[0]
            ),
            (60.0, 67, 1.0)
        );
        assert_eq!(over_time.per_s[66], 40.0 / 60.0);
    }
}
