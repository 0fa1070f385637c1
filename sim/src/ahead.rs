//! What requests that the front end sent itself, ahead of next turns, came to: how many, what they computed, and in time
//! or not.

use crate::record::{AheadRecord, Outcome, Recording, Rejection};
use serde::Serialize;

/// Speculative prefill: requests of one token that the front end sends when an answer ends. No other number of requests,
/// latency or throughput has any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SpeculativePrefill {
    /// Sent, those after warm-up requests left out: completed, rejected and unfinished ones together.
    pub requests: u64,
    /// Computed.
    pub completed: u64,
    /// Refused.
    pub rejected: u64,
    /// Neither, when the run ended.
    pub unfinished: u64,
    /// Prompt tokens of those that were computed.
    pub prompt_tokens: u64,
    /// Of these, tokens that were cached before.
    pub cached_tokens: u64,
    /// Those whose next turn was sent; after others nobody asked for it.
    pub followed: u64,
    /// Of these, those that were computed before it was sent.
    pub in_time: u64,
}

/// `None` where nobody asks for it.
#[must_use]
pub fn speculative_prefill(recording: &Recording) -> Option<SpeculativePrefill> {
    if recording.ahead.is_empty() {
        return None;
    }
    // What was to follow an answer that never came was not sent.
    let after_nothing = Outcome::Rejected(Rejection::DependencyRejected);
    let is_sent = |ahead: &&AheadRecord| {
        ahead.life.was_sent() && !ahead.life.is_warmup && ahead.life.outcome != after_nothing
    };
    let sent: Vec<&AheadRecord> = recording.ahead.iter().filter(is_sent).collect();
    let count = |is: &dyn Fn(&AheadRecord) -> bool| sent.iter().filter(|it| is(it)).count() as u64;
    let is_complete = |ahead: &AheadRecord| ahead.life.outcome == Outcome::Completed;
    let next = |ahead: &AheadRecord| {
        let next = recording.request(ahead.next?);
        next.was_sent().then_some(next.arrival)
    };
    let sum = |of: fn(&AheadRecord) -> u32| {
        let complete = sent.iter().filter(|ahead| is_complete(ahead));
        complete.map(|ahead| u64::from(of(ahead))).sum()
    };
    Some(SpeculativePrefill {
        requests: sent.len() as u64,
        completed: count(&is_complete),
        rejected: count(&|it| matches!(it.life.outcome, Outcome::Rejected(_))),
        unfinished: count(&|it| it.life.outcome == Outcome::Unfinished),
        prompt_tokens: sum(|ahead| ahead.life.input_tokens),
        cached_tokens: sum(|ahead| ahead.life.cached_tokens),
        followed: count(&|it| next(it).is_some()),
        in_time: count(&|it| {
            is_complete(it) && next(it).is_some_and(|arrival| it.life.finish <= arrival)
        }),
    })
}
