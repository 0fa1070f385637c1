//! Prompt tokens on their way through prefill on one rank.
//!
//! Without a model of how long a prefill takes, an entry counts in full until its first token arrives. With one, the
//! oldest entry is the *anchor*: it is taken to have begun at a known time and to proceed evenly.
//!
//! * All entries have durations: `sum of tokens - floor(anchor tokens * elapsed / anchor duration)`, not below 0; the
//!   anchor's pace goes on over the whole backlog.
//! * Some have none: the anchor alone fades, to `ceil(tokens * (1 - elapsed / duration))`.
//!
//! When the anchor goes, the next entry begins at that moment. When another entry with a duration goes, the anchor's
//! beginning moves forward by that duration, at most to the moment. Source: dynamo-kv-router 1.6; recorded in
//! `tests/golden/router/seq_prefill_decay.json`.

use engine::{RequestId, Span, Time};
use std::collections::VecDeque;

/// The prefills of a rank, oldest first.
#[derive(Debug, Clone, Default)]
pub struct PrefillLoad {
    entries: VecDeque<Prefill>,
    tokens: u64,
    without_duration: u32,
    /// When the oldest began.
    anchor: Time,
}

/// A prefill that is booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefill {
    /// Whose.
    pub request: RequestId,
    /// Tokens to compute, at least 1.
    pub tokens: u64,
    /// How long it should take, if there is a model.
    pub duration: Option<Span>,
}

impl PrefillLoad {
    /// Books a prefill.
    pub fn add(&mut self, now: Time, prefill: Prefill) {
        if self.entries.is_empty() {
            self.anchor = now;
        }
        self.tokens += prefill.tokens;
        self.without_duration += u32::from(prefill.duration.is_none());
        self.entries.push_back(prefill);
    }

    /// Takes a request's prefill away. False if it had none.
    pub fn remove(&mut self, now: Time, request: RequestId) -> bool {
        let Some(at) = self
            .entries
            .iter()
            .position(|entry| entry.request == request)
        else {
            return false;
        };
        let gone = self.entries.remove(at).expect("it was found there");
        self.tokens -= gone.tokens;
        self.without_duration -= u32::from(gone.duration.is_none());
        if at == 0 {
            self.anchor = now;
        } else if let Some(duration) = gone.duration {
            self.anchor = now.min(self.anchor + duration);
        }
        true
    }

    /// Tokens still to be computed.
    #[must_use]
    pub fn tokens(&self, now: Time) -> u64 {
        let Some(Prefill {
            tokens,
            duration: Some(duration),
            ..
        }) = self.entries.front()
        else {
            return self.tokens;
        };
        let elapsed = u128::from(now.0.saturating_sub(self.anchor.0));
        let (tokens, duration) = (u128::from(*tokens), u128::from(duration.0));
        if duration == 0 {
            return self.tokens - tokens as u64;
        }
        let done = tokens * elapsed / duration;
        let done = if self.without_duration == 0 {
            done
        } else {
            done.min(tokens)
        };
        self.tokens.saturating_sub(done as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000_000)
    }

    fn prefill(request: u32, tokens: u64, seconds: Option<u64>) -> Prefill {
        let duration = seconds.map(|seconds| Span(at(seconds).0));
        Prefill {
            request: RequestId(request),
            tokens,
            duration,
        }
    }

    #[test]
    fn the_pace_of_the_oldest_goes_on_over_the_backlog() {
        let mut load = PrefillLoad::default();
        load.add(at(0), prefill(0, 100, Some(10)));
        load.add(at(1), prefill(1, 50, Some(1)));
        assert_eq!(
            [0, 5, 12, 15, 99].map(|s| load.tokens(at(s))),
            [150, 100, 30, 0, 0]
        );
        // The second goes at 3: the first is taken to have begun at 1.
        assert!(load.remove(at(3), RequestId(1)));
        assert_eq!(load.tokens(at(3)), 80);
        assert!(!load.remove(at(3), RequestId(1)));
    }

    #[test]
    fn without_durations_nothing_or_only_the_oldest_fades() {
        let mut load = PrefillLoad::default();
        load.add(at(0), prefill(0, 100, None));
        assert_eq!(load.tokens(at(1000)), 100);
        load.remove(at(1000), RequestId(0));
        load.add(at(1000), prefill(1, 15, Some(10)));
        load.add(at(1000), prefill(2, 7, None));
        // 15 * (1 - 0.1) = 13.5, rounded up.
        assert_eq!(load.tokens(at(1001)), 14 + 7);
        assert_eq!(load.tokens(at(2000)), 7);
        // The next oldest has no duration.
        load.remove(at(2000), RequestId(1));
        assert_eq!(load.tokens(at(3000)), 7);
    }
}
