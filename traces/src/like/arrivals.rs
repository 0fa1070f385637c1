//! Arrival times as a rate in windows, a variation around it, and a tick.
//!
//! All times are picoseconds since the first arrival, sorted.

use engine::{Span, Time};
use statrs::statistics::Statistics;

use crate::arrivals::{Arrivals, Process};
use crate::describe::{counts, nearest_rank};
use crate::rate::Rate;

/// Requests per window of the rate, and windows, at most.
const REQUESTS_PER_WINDOW: usize = 250;
const MOST_RATE_WINDOWS: usize = 24;

/// The tick of a clock that all times follow within 2 ms, in milliseconds; 0 where there is none.
pub(super) fn tick_ms(sorted: &[u64]) -> u32 {
    let mut distinct: Vec<f64> = sorted.iter().map(|&ps| Time(ps).as_ms()).collect();
    distinct.dedup();
    if 2 * distinct.len() > sorted.len() || distinct.len() < 3 {
        return 0;
    }
    let mut gaps: Vec<f64> = distinct.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_by(f64::total_cmp);
    let tick = nearest_rank(&gaps, 0.5).round();
    let is_on_tick = |ms: &&f64| {
        let off = **ms - (**ms / tick).round() * tick;
        off.abs() <= 2.0
    };
    let on_tick = distinct.iter().filter(is_on_tick).count();
    if tick >= 10.0 && on_tick * 20 >= distinct.len() * 19 {
        tick as u32
    } else {
        0
    }
}

/// Arrivals and the time of the last one.
pub(super) fn arrivals(sorted: &[u64], tick_ms: u32) -> (Arrivals, f64) {
    let tick_s = f64::from(tick_ms) / 1e3;
    // Rounding down to ticks takes half a tick from the last arrival on average.
    let duration_s = Time(sorted[sorted.len() - 1]).as_s() + tick_s / 2.0;
    if duration_s <= 0.0 {
        return (Arrivals::poisson(1.0), 0.0);
    }
    let windows = (sorted.len() / REQUESTS_PER_WINDOW).clamp(1, MOST_RATE_WINDOWS);
    let window_s = duration_s / windows as f64;
    let mut per_s: Vec<f64> = counts(sorted, window_s)
        .into_iter()
        .map(|count| count / window_s)
        .collect();
    // An arrival exactly at the end of the last window would begin another one.
    per_s.resize(windows, 0.0);
    let rate = match per_s.as_slice() {
        [_] => Rate::Constant {
            per_s: sorted.len() as f64 / duration_s,
        },
        _ => Rate::Windows { window_s, per_s },
    };
    (
        Arrivals {
            process: process(sorted, tick_s, duration_s),
            rate,
        },
        duration_s,
    )
}

/// How arrivals vary around their rate, by Allan's factor: the mean squared difference of the counts in neighbouring
/// windows over twice their mean. It tends to the squared variation of the gaps, and slow changes of the rate hardly
/// move it.
fn process(sorted: &[u64], tick_s: f64, duration_s: f64) -> Process {
    const COUNT_PER_WINDOW: f64 = 8.0;
    let mean_gap_s = duration_s / sorted.len() as f64;
    // Clocks that tick miss the tick by a millisecond now and then.
    let on_tick = |&ps: &u64| match Span::from_s(tick_s).0 {
        0 => ps,
        tick => (ps + tick / 2) / tick * tick,
    };
    let times: Vec<u64> = sorted.iter().map(on_tick).collect();
    let window_s = if tick_s > 0.0 {
        (COUNT_PER_WINDOW * mean_gap_s / tick_s).ceil() * tick_s
    } else {
        COUNT_PER_WINDOW * mean_gap_s
    };
    let counts = counts(&times, window_s.max(1e-6));
    if counts.len() < 10 {
        return Process::Poisson;
    }
    let squares = counts.windows(2).map(|pair| (pair[1] - pair[0]).powi(2));
    let factor = squares.mean() / (2.0 * (&counts).mean());
    Process::Gamma {
        cv: (factor.sqrt().min(100.0) * 1e3).round() / 1e3,
    }
}
