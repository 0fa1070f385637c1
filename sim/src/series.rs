//! Time series of a run, one row per window of equal length, derived from the records alone.
//!
//! A state that lasts (queued, running) is averaged over the window: every request adds the time it spent there inside the
//! window. Windows that a request spends wholly in a state are added as a range (a difference at each end), so that the
//! cost is that of the requests plus that of the windows. Warm-up requests are part of the series.

use crate::metrics::rank;
use crate::record::{Outcome, Recording, RequestRecord};
use crate::scaling::Replicas;
use engine::{Span, Time};
use serde::Serialize;

/// The rows of a run, from its start to the last recorded moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Series {
    /// Length of a window.
    pub window_s: f64,
    /// In order of time, without gaps.
    pub windows: Vec<Window>,
    /// Workers in each window, with a planner.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<Replicas>,
}

/// What happened in one window.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Window {
    /// Its start, in seconds since the start of the run.
    pub start_s: f64,
    /// Requests that arrived.
    pub arrivals: u64,
    /// Requests that delivered their last token.
    pub completions: u64,
    /// Requests refused.
    pub rejections: u64,
    /// Requests cancelled or failed.
    pub given_up: u64,
    /// Requests between arrival and their first step, averaged over the window.
    pub queued: f64,
    /// Requests between their first step and their last token, averaged over the window; preempted ones included.
    pub running: f64,
    /// Mean TTFT of requests that arrived in the window and got a token; 0 without any.
    pub ttft_mean_ms: f64,
    /// 90th percentile of the same, nearest-rank.
    pub ttft_p90_ms: f64,
    /// Mean TPOT of requests that arrived in the window and completed with two tokens or more; 0 without any.
    pub tpot_mean_ms: f64,
    /// 90th percentile of the same, nearest-rank.
    pub tpot_p90_ms: f64,
    /// Generated tokens per second.
    // Model: the tokens of a request after its first are spread evenly until its last; the sum over all windows is exact,
    // a window is off by at most the tokens that its stalled or hastened requests had there.
    pub output_tokens_per_s: f64,
}

/// Most windows that [`series`] makes.
pub const MOST_WINDOWS: u64 = 1_000_000;

/// The time series in windows of the given length.
///
/// # Panics
/// When the window is empty or the run is longer than [`MOST_WINDOWS`] windows.
#[must_use]
pub fn series(recording: &Recording, window: Span) -> Series {
    assert!(window.0 > 0, "a window has a length");
    let requests: Vec<&RequestRecord> = recording.sent().map(|(_, request)| request).collect();
    let end = requests.iter().map(|request| request.last_moment()).max();
    let Some(end) = end else {
        return Series {
            window_s: window.as_s(),
            windows: Vec::new(),
            replicas: Vec::new(),
        };
    };
    let count = end.0 / window.0 + 1;
    assert!(
        count <= MOST_WINDOWS,
        "a series has at most {MOST_WINDOWS} windows"
    );
    let mut windows = vec![Window::default(); count as usize];
    let mut queued = Occupancy::new(window, count as usize);
    let mut running = Occupancy::new(window, count as usize);
    let mut tokens = vec![0; count as usize];
    let index = |time: Time| (time.0 / window.0) as usize;
    for request in requests.iter().copied() {
        windows[index(request.arrival)].arrivals += 1;
        match request.outcome {
            Outcome::Completed => windows[index(request.finish)].completions += 1,
            Outcome::Rejected(_) => windows[index(request.finish)].rejections += 1,
            Outcome::Cancelled | Outcome::Failed(_) => {
                windows[index(request.finish)].given_up += 1;
            }
            Outcome::Unfinished => {}
        }
        let left_queue = request.first_scheduled.min(request.finish).min(end);
        queued.add(request.arrival, left_queue);
        running.add(left_queue, request.finish.min(end));
        add_tokens(request, end, window, &mut tokens);
    }
    let ttft = of_windows(&requests, window, ttft);
    for (index, mean_ms, p90_ms) in ttft {
        windows[index].ttft_mean_ms = mean_ms;
        windows[index].ttft_p90_ms = p90_ms;
    }
    let tpot = of_windows(&requests, window, tpot);
    for (index, mean_ms, p90_ms) in tpot {
        windows[index].tpot_mean_ms = mean_ms;
        windows[index].tpot_p90_ms = p90_ms;
    }
    let length = window.0 as f64;
    for (row, window_record) in windows.iter_mut().enumerate() {
        window_record.start_s = (Span(window.0) * row as u64).as_s();
        window_record.output_tokens_per_s = tokens[row] as f64 / window.as_s();
    }
    for (window_record, (queued, running)) in windows
        .iter_mut()
        .zip(queued.totals().zip(running.totals()))
    {
        window_record.queued = queued as f64 / length;
        window_record.running = running as f64 / length;
    }
    let scaling = recording.scaling.as_ref();
    let replicas = scaling.map(|scaling| scaling.replicas(window, count as usize, end));
    Series {
        window_s: window.as_s(),
        windows,
        replicas: replicas.unwrap_or_default(),
    }
}

/// Time spent in a state, by window.
pub(crate) struct Occupancy {
    window: Span,
    /// Picoseconds in windows that were not occupied from end to end.
    partial: Vec<u128>,
    /// Change in the number of requests that occupy a window from end to end.
    change: Vec<i64>,
}

impl Occupancy {
    pub fn new(window: Span, count: usize) -> Occupancy {
        Occupancy {
            window,
            partial: vec![0; count],
            change: vec![0; count + 1],
        }
    }

    pub fn add(&mut self, from: Time, until: Time) {
        if until <= from {
            return;
        }
        let length = self.window.0;
        let (first, last) = ((from.0 / length) as usize, (until.0 / length) as usize);
        if first == last {
            self.partial[first] += u128::from(until.0 - from.0);
            return;
        }
        self.partial[first] += u128::from(length - from.0 % length);
        self.partial[last] += u128::from(until.0 % length);
        self.change[first + 1] += 1;
        self.change[last] -= 1;
    }

    /// Picoseconds by window, over all requests.
    pub fn totals(&self) -> impl Iterator<Item = u128> {
        let mut whole = 0i64;
        self.partial
            .iter()
            .zip(&self.change)
            .map(move |(partial, change)| {
                whole += change;
                partial + u128::from(whole.unsigned_abs()) * u128::from(self.window.0)
            })
    }
}

/// Adds a request's tokens: the first at its time, the others evenly until the last.
fn add_tokens(request: &RequestRecord, end: Time, window: Span, tokens: &mut [u64]) {
    if request.first_token == Time::MAX || request.output_tokens == 0 {
        return;
    }
    let (first, last) = (request.first_token, request.finish.min(end));
    let further = u128::from(request.output_tokens - 1);
    let duration = u128::from(last.since(first).0);
    let mut row = (first.0 / window.0) as usize;
    let mut delivered = 0;
    loop {
        let window_end = Time((row as u64 + 1).saturating_mul(window.0));
        let by_then = if window_end > last {
            further
        } else {
            further * u128::from(window_end.since(first).0) / duration.max(1)
        };
        let so_far = 1 + by_then as u64;
        tokens[row] += so_far - delivered;
        delivered = so_far;
        if window_end > last {
            return;
        }
        row += 1;
    }
}

/// Picoseconds to the first token, if it came.
fn ttft(request: &RequestRecord) -> Option<u64> {
    (request.first_token != Time::MAX).then(|| request.first_token.since(request.arrival).0)
}

/// Picoseconds per token after the first, cut to whole ones.
fn tpot(request: &RequestRecord) -> Option<u64> {
    let is_whole = request.outcome == Outcome::Completed && request.output_tokens > 1;
    let decode = is_whole.then(|| request.finish.since(request.first_token).0)?;
    Some(decode / u64::from(request.output_tokens - 1))
}

/// By window of arrival, where there is any: its index, mean and 90th percentile of a time in milliseconds.
fn of_windows(
    requests: &[&RequestRecord],
    window: Span,
    of: impl Fn(&RequestRecord) -> Option<u64>,
) -> Vec<(usize, f64, f64)> {
    let values = requests
        .iter()
        .filter_map(|request| Some((request.arrival.0 / window.0, of(request)?)));
    let mut values: Vec<(u64, u64)> = values.collect();
    values.sort_unstable();
    let of_window = |values: &[(u64, u64)]| {
        let sum: u128 = values.iter().map(|value| u128::from(value.1)).sum();
        let count = values.len() as u64;
        let p90 = Span(values[rank(90, count) as usize - 1].1).as_ms();
        (values[0].0 as usize, sum as f64 / count as f64 / 1e9, p90)
    };
    values.chunk_by(|a, b| a.0 == b.0).map(of_window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Time {
        Time(Span::from_s(seconds).0)
    }

    fn request(
        arrival: f64,
        first_scheduled: f64,
        first_token: f64,
        finish: f64,
        output_tokens: u32,
    ) -> RequestRecord {
        RequestRecord {
            arrival: at(arrival),
            placed: at(arrival),
            first_scheduled: at(first_scheduled),
            first_token: at(first_token),
            finish: at(finish),
            worker: 0,
            input_tokens: 10,
            output_tokens,
            cached_tokens: 0,
            router_overlap_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            is_warmup: false,
        }
    }

    #[test]
    fn two_requests_in_three_windows() {
        // Windows of 10 s. A waits 5..15 and runs 15..25; its 11 tokens come at 16, then 10 more evenly over 9 s: by
        // 20 s 10 * 4/9 = 4 of them. B arrives at 12, runs at once, one token at 14.
        let requests = vec![
            request(5.0, 15.0, 16.0, 25.0, 11),
            request(12.0, 12.0, 14.0, 14.0, 1),
        ];
        let series = series(
            &Recording {
                requests,
                ..Recording::default()
            },
            Span::from_s(10.0),
        );
        let row =
            |field: fn(&Window) -> f64| series.windows.iter().map(field).collect::<Vec<f64>>();
        assert_eq!(row(|window| window.start_s), [0.0, 10.0, 20.0]);
        assert_eq!(row(|window| window.arrivals as f64), [1.0, 1.0, 0.0]);
        assert_eq!(row(|window| window.completions as f64), [0.0, 1.0, 1.0]);
        assert_eq!(row(|window| window.queued), [0.5, 0.5, 0.0]);
        assert_eq!(row(|window| window.running), [0.0, 0.5 + 0.2, 0.5]);
        assert_eq!(row(|window| window.ttft_mean_ms), [11_000.0, 2_000.0, 0.0]);
        assert_eq!(row(|window| window.ttft_p90_ms), [11_000.0, 2_000.0, 0.0]);
        // B has one token, so no TPOT; A's other ten took 9 s.
        assert_eq!(row(|window| window.tpot_mean_ms), [900.0, 0.0, 0.0]);
        assert_eq!(row(|window| window.tpot_p90_ms), [900.0, 0.0, 0.0]);
        assert_eq!(row(|window| window.output_tokens_per_s), [0.0, 0.6, 0.6]);
    }

    #[test]
    fn nothing_gives_no_windows() {
        assert!(
            series(&Recording::default(), Span::from_s(1.0))
                .windows
                .is_empty()
        );
    }
}
