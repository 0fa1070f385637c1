//! How regular arrivals are: gaps between them, counts in windows, the rate over time.

use engine::Span;
use statrs::statistics::Statistics;

use super::{Burstiness, RateOverTime, WindowCounts};
use crate::trace::Trace;

/// Number of windows, at most, in which the rate over time is told.
const MOST_WINDOWS: f64 = 72.0;

/// More windows than this are not worth counting: a million seconds are eleven days.
const MOST_COUNTED_WINDOWS: f64 = 1e6;

/// Lengths of windows that people like, in seconds.
const NICE_WINDOWS_S: [f64; 20] = [
    0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0, 7200.0, 21_600.0, 86_400.0, 604_800.0,
];

impl Burstiness {
    pub(super) fn of(trace: &Trace) -> Burstiness {
        let times: Vec<u64> = trace.rows.iter().map(|row| row.arrival.0).collect();
        let bursts = || times.chunk_by(|a, b| a == b);
        let gaps = || times.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
        let mean = gaps().mean();
        let window_s = over_time_window(trace.span());
        let span_s = trace.span().as_s();
        let windows = [1.0, 10.0, 60.0]
            .into_iter()
            .filter(|window_s| (2.0..=MOST_COUNTED_WINDOWS).contains(&(span_s / window_s)));
        Burstiness {
            distinct_times: bursts().count() as u64,
            most_at_once: bursts().map(<[u64]>::len).max().unwrap_or_default() as u64,
            gap_cv: (mean > 0.0).then(|| gaps().population_std_dev() / mean),
            windows: windows
                .map(|window_s| WindowCounts::of(&times, window_s))
                .collect(),
            over_time: RateOverTime {
                window_s,
                per_s: counts(&times, window_s)
                    .into_iter()
                    .map(|count| count / window_s)
                    .collect(),
            },
        }
    }
}

impl WindowCounts {
    fn of(times: &[u64], window_s: f64) -> WindowCounts {
        let counts = counts(times, window_s);
        let mean = (&counts).mean();
        WindowCounts {
            window_s,
            peak_to_mean: counts.iter().copied().fold(0.0, f64::max) / mean,
            dispersion: counts.population_variance() / mean,
        }
    }
}

/// Requests in each window, from the first arrival on. `times` are sorted picoseconds.
pub(crate) fn counts(times: &[u64], window_s: f64) -> Vec<f64> {
    let window = Span::from_s(window_s).0;
    let mut counts = Vec::new();
    for time in times {
        let index = ((time - times[0]) / window) as usize;
        counts.resize(counts.len().max(index + 1), 0.0);
        counts[index] += 1.0;
    }
    counts
}

/// A length of windows such that there are not too many.
fn over_time_window(span: Span) -> f64 {
    let enough = |window_s: &f64| span.as_s() / window_s <= MOST_WINDOWS;
    let longest = NICE_WINDOWS_S[NICE_WINDOWS_S.len() - 1];
    NICE_WINDOWS_S.into_iter().find(enough).unwrap_or(longest)
}
