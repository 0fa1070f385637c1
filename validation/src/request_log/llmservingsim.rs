//! `requests.jsonl` of LLMServingSim's benchmark of a real vLLM: moments in seconds.
//!
//! `queued_ts` (the engine takes the request between two steps), `scheduled_ts`, `first_token_ts`, `last_token_ts` are of
//! the engine's monotonic clock. `arrival_time` is when the front end got it, on the wall clock; the smallest difference
//! of the two clocks over all requests, that of a request for which the engine was free at once, is taken as their offset.

use super::{Found, Raw};
use calibration::log_file::{Findings, LogFile};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    request_id: String,
    input_toks: u64,
    output_toks: u64,
    arrival_time: Option<f64>,
    queued_ts: f64,
    scheduled_ts: Option<f64>,
    first_token_ts: f64,
    last_token_ts: f64,
}

/// The largest number of seconds read: the year 2286 as Unix time.
const MOST_S: f64 = 1e10;

pub(super) fn read(file: &LogFile, findings: &mut Findings<'_>) -> Found {
    let mut lines = Vec::new();
    for (number, text) in file.lines() {
        match serde_json::from_str::<Line>(text) {
            Ok(line) if has_good_times(number, &line, findings) => lines.push((number, line)),
            Ok(_) => {}
            Err(error) => {
                let hint = "docs/fits.md has the fields";
                findings.add(number, "", error, "a request", hint);
            }
        }
    }
    let arrivals: Option<Vec<f64>> = lines.iter().map(|(_, line)| line.arrival_time).collect();
    let arrivals = arrivals.unwrap_or_default();
    let ns = |seconds: f64| (seconds * 1e9).round() as u64;
    // Differences of nanoseconds: a double holds Unix seconds to a quarter of a microsecond.
    let offset = lines.iter().zip(&arrivals);
    let offset = offset.map(|((_, line), arrival)| line.queued_ts - arrival);
    let offset = offset.fold(f64::INFINITY, f64::min);
    let raw = |(at, (number, line)): (usize, &(usize, Line))| {
        let queued = ns(line.queued_ts);
        let arrival = arrivals
            .get(at)
            .map_or(queued, |arrival| ns(arrival + offset));
        Raw {
            line: *number,
            id: line.request_id.clone(),
            arrival_ns: arrival.min(queued),
            counted_from_ns: queued,
            first_token_ns: ns(line.first_token_ts),
            last_token_ns: ns(line.last_token_ts),
            input_tokens: line.input_toks,
            output_tokens: line.output_toks,
        }
    };
    Found {
        requests: lines.iter().enumerate().map(raw).collect(),
        failed: 0,
        recorded_unix_s: arrivals.iter().copied().reduce(f64::min),
    }
}

fn has_good_times(number: usize, line: &Line, findings: &mut Findings<'_>) -> bool {
    let times = [
        ("arrival_time", line.arrival_time),
        ("queued_ts", Some(line.queued_ts)),
        ("scheduled_ts", line.scheduled_ts),
        ("first_token_ts", Some(line.first_token_ts)),
        ("last_token_ts", Some(line.last_token_ts)),
    ];
    let mut is_good = true;
    for (field, time) in times {
        if let Some(time) = time.filter(|time| !(0.0..=MOST_S).contains(time)) {
            findings.add(number, field, time, "seconds, 0 or more", "");
            is_good = false;
        }
    }
    // Of one clock, so in this order.
    let ordered: Vec<(&str, f64)> = times[1..]
        .iter()
        .filter_map(|(field, time)| Some((*field, (*time)?)))
        .collect();
    for pair in ordered.windows(2) {
        if pair[1].1 < pair[0].1 {
            let expected = format!("at least {} ({})", pair[0].1, pair[0].0);
            let hint = "the clock ran backwards";
            findings.add(number, pair[1].0, pair[1].1, expected, hint);
            is_good = false;
        }
    }
    is_good
}
