//! What a planner is shown: the last forward pass of each worker, what waits in it, and the traffic since the last tick.
//!
//! Everything is noted where it happens and summed up, so that a tick costs the workers and not the requests. What a worker
//! did last is known exactly also in the middle of a coast: the driver reports the steps that have ended before each tick. A
//! worker that has been idle for a second reports empty passes, as real engines do about once a second.
//!
//! Requests count when they arrive, lengths when they are complete, prefix hits when they are placed: the rules of Dynamo's
//! replay ([`planner::TrafficWindow`]).

use crate::event::Ran;
use engine::speculation::PARTS;
use engine::{RequestId, Span, StepPlan, Time};
use planner::{TrafficWindow, TrailingLatency, Work};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// An idle worker reports so often.
const IDLE_REPORT: Span = Span(1_000_000_000_000);
/// How far trailing latencies look back: the usual window of queries to Prometheus.
const TRAILING: Span = Span(300_000_000_000_000);

/// What waits in a worker.
// Model: what waits is read at the tick; a real engine reports what waited when its last step was planned, at most one step
// earlier. Of a preempted request the prompt counts and not what it generated before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting {
    work: Work,
    /// Tokens of each, and whether it waits to decode.
    requests: FxHashMap<RequestId, (u32, bool)>,
}

impl Waiting {
    /// A request comes, or comes back.
    pub fn enter(&mut self, request: RequestId, tokens: u32, decodes: bool) {
        let before = self.requests.insert(request, (tokens, decodes));
        assert!(before.is_none(), "a request waits once");
        if decodes {
            self.work.decode_requests += 1;
            self.work.decode_kv_tokens += u64::from(tokens);
        } else {
            self.work.prefill_requests += 1;
            self.work.prefill_tokens += u64::from(tokens);
        }
    }

    /// A request takes part in steps.
    pub fn leave(&mut self, request: RequestId) {
        let Some((tokens, decodes)) = self.requests.remove(&request) else {
            return;
        };
        if decodes {
            self.work.decode_requests -= 1;
            self.work.decode_kv_tokens -= u64::from(tokens);
        } else {
            self.work.prefill_requests -= 1;
            self.work.prefill_tokens -= u64::from(tokens);
        }
    }

    pub fn work(&self) -> Work {
        self.work
    }
}

/// A worker's last step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastPass {
    pub end: Time,
    pub time: Span,
    pub work: Work,
}

impl LastPass {
    /// The last of the steps of a plan that ended, `delivered` before them.
    pub fn of(plan: &StepPlan, delivered: u32, ran: &Ran) -> Self {
        let before = u64::from(delivered + ran.steps - 1);
        let per_step = match plan.drafts.pace {
            0 => u64::from(plan.decode_batch),
            pace => u64::from(plan.decode_batch) * u64::from(pace) / u64::from(PARTS),
        };
        let longer = i128::from(ran.slope_ps) * i128::from(ran.steps - 1);
        let time = i128::from(ran.first.0) + longer;
        LastPass {
            end: ran.end(),
            time: Span(u64::try_from(time).expect("step times are positive")),
            work: Work {
                prefill_requests: plan.prefill.len() as u64,
                prefill_tokens: plan.prefill_tokens(),
                prefill_kv_tokens: plan
                    .prefill
                    .iter()
                    .map(|chunk| u64::from(chunk.cached_tokens))
                    .sum(),
                decode_requests: u64::from(plan.decode_batch),
                decode_kv_tokens: plan.decode_context + before * per_step,
            },
        }
    }
}

/// When a worker's last pass, or last report of idling, was; `None` if it has not reported.
pub(crate) fn last_report(
    now: Time,
    since: Time,
    last: Option<LastPass>,
    is_idle: bool,
) -> Option<(Span, Work)> {
    let quiet_since = last.map_or(since, |pass| pass.end.max(since));
    if is_idle && now.since(quiet_since) >= IDLE_REPORT {
        return Some((Span::ZERO, Work::default()));
    }
    last.map(|pass| (pass.time, pass.work))
}

/// Traffic since the last tick, and latencies of the last minutes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    /// When the window began.
    since: Time,
    requests: u64,
    completed: u64,
    input_tokens: u64,
    output_tokens: u64,
    first_tokens: u64,
    ttft_ps: u128,
    with_gaps: u64,
    itl_ps: f64,
    admitted: u64,
    hit_shares: f64,
    knows_hits: bool,
    keeps_latencies: bool,
    ttft: VecDeque<(Time, Span)>,
    itl: VecDeque<(Time, Span)>,
}

impl Watch {
    /// `knows_hits`: a router says what is cached where. `keeps_latencies`: the planner looks at trailing latencies.
    pub fn new(knows_hits: bool, keeps_latencies: bool) -> Self {
        Watch {
            knows_hits,
            keeps_latencies,
            ..Watch::default()
        }
    }

    pub fn arrived(&mut self) {
        self.requests += 1;
    }

    /// A prompt of at least one block was placed.
    pub fn placed(&mut self, input_tokens: u32, overlap_tokens: u32) {
        self.admitted += 1;
        self.hit_shares += f64::from(overlap_tokens) / f64::from(input_tokens);
    }

    pub fn first_token(&mut self, now: Time, ttft: Span) {
        self.first_tokens += 1;
        self.ttft_ps += u128::from(ttft.0);
        if self.keeps_latencies {
            self.ttft.push_back((now, ttft));
        }
    }

    /// A request is complete; `generating` is the time from its first token to its last.
    pub fn completed(&mut self, now: Time, input: u32, output: u32, generating: Span) {
        self.completed += 1;
        self.input_tokens += u64::from(input);
        self.output_tokens += u64::from(output);
        if output > 1 {
            let itl = generating.0 / u64::from(output - 1);
            self.with_gaps += 1;
            self.itl_ps += itl as f64;
            if self.keeps_latencies {
                self.itl.push_back((now, Span(itl)));
            }
        }
    }

    /// The window up to now; the next one begins.
    pub fn take_window(&mut self, now: Time) -> TrafficWindow {
        let mean = |sum: f64, count: u64| {
            if count == 0 { 0.0 } else { sum / count as f64 }
        };
        let window = TrafficWindow {
            duration_s: now.since(self.since).as_s(),
            requests: self.requests as f64,
            completed: self.completed as f64,
            isl: mean(self.input_tokens as f64, self.completed),
            osl: mean(self.output_tokens as f64, self.completed),
            ttft_count: self.first_tokens as f64,
            ttft_ms: mean(self.ttft_ps as f64, self.first_tokens) / 1e9,
            itl_count: self.with_gaps as f64,
            itl_ms: mean(self.itl_ps, self.with_gaps) / 1e9,
            admitted: self.admitted as f64,
            kv_hit_rate: self
                .knows_hits
                .then(|| mean(self.hit_shares, self.admitted)),
            decode_steps: 0.0,
            accept_length: None,
        };
        *self = Watch {
            since: now,
            ttft: std::mem::take(&mut self.ttft),
            itl: std::mem::take(&mut self.itl),
            ..Watch::new(self.knows_hits, self.keeps_latencies)
        };
        window
    }

    /// Percentiles over the last five minutes, nearest-rank.
    // Model: exact percentiles, where a metrics server interpolates in the buckets of a histogram; ITL is each request's mean
    // gap, counted when it completes, where engines count every gap when it happens.
    pub fn trailing(&mut self, now: Time) -> TrailingLatency {
        let p95_ms = |values: &mut VecDeque<(Time, Span)>| {
            while values
                .front()
                .is_some_and(|(time, _)| now.since(*time) > TRAILING)
            {
                values.pop_front();
            }
            let mut spans: Vec<Span> = values.iter().map(|&(_, span)| span).collect();
            let rank = (spans.len() * 95).div_ceil(100).checked_sub(1)?;
            Some(spans.select_nth_unstable(rank).1.as_ms())
        };
        TrailingLatency {
            ttft_p95_ms: p95_ms(&mut self.ttft),
            itl_p95_ms: p95_ms(&mut self.itl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000_000;

    #[test]
    fn windows_count_where_things_happen_and_begin_anew() {
        let mut watch = Watch::new(true, true);
        watch.arrived();
        watch.arrived();
        watch.placed(100, 50);
        watch.placed(100, 0);
        watch.first_token(Time(S), Span(S / 10));
        watch.completed(Time(2 * S), 100, 11, Span(S));
        let window = watch.take_window(Time(4 * S));
        assert_eq!((window.duration_s, window.requests), (4.0, 2.0));
        assert_eq!((window.isl, window.osl), (100.0, 11.0));
        assert_eq!((window.ttft_ms, window.itl_ms), (100.0, 100.0));
        assert_eq!(window.kv_hit_rate, Some(0.25));
        let next = watch.take_window(Time(5 * S));
        assert_eq!((next.duration_s, next.requests), (1.0, 0.0));
        assert_eq!(watch.trailing(Time(5 * S)).ttft_p95_ms, Some(100.0));
        assert_eq!(watch.trailing(Time(400 * S)).ttft_p95_ms, None);
    }

    #[test]
    fn what_is_quiet_for_a_second_reports_that_it_is() {
        let pass = LastPass {
            end: Time(10 * S),
            time: Span(7),
            work: Work {
                decode_requests: 1,
                ..Work::default()
            },
        };
        let report = |now, last, is_idle| last_report(Time(now), Time(5 * S), last, is_idle);
        assert_eq!(
            report(11 * S - 1, Some(pass), true),
            Some((Span(7), pass.work))
        );
        assert_eq!(
            report(11 * S, Some(pass), true),
            Some((Span::ZERO, Work::default()))
        );
        assert_eq!(
            report(99 * S, Some(pass), false),
            Some((Span(7), pass.work))
        );
        // A worker that has just come has reported nothing.
        assert_eq!(report(5 * S, None, true), None);
    }
}
