//! Clients that do not wait for ever: they cancel, run into time-outs, and try again.
//!
//! *Cancel.* A share of the requests, drawn by (seed, request), is cancelled: a time after it was first sent, drawn from an
//! exponential distribution, or as soon as so many tokens have come. Nobody tries again.
//!
//! *Time-outs.* An attempt without a first token after `ttft_timeout`, or not over after `timeout`, is given up. The client
//! tries again up to `retries` times, after a backoff that doubles each time and of which the second half is drawn (equal
//! jitter). It does so as well when it is turned away for want of room or of workers. Latencies count from the first time
//! the request was sent.

use crate::random::{Purpose, unit};
use engine::{RequestId, Span};

/// How patient clients are. The default waits for ever.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClientSpec {
    /// Who cancels.
    pub cancel: Option<CancelSpec>,
    /// Longest wait for the first token of an attempt.
    pub ttft_timeout: Option<Span>,
    /// Longest wait for the last token of an attempt.
    pub timeout: Option<Span>,
    /// Times that a client tries again.
    pub retries: u32,
    /// Wait before the first retry, half of it at least; twice as long before each further one.
    pub backoff: Span,
}

/// Which requests are cancelled, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CancelSpec {
    /// Their share.
    pub share: f64,
    /// When.
    pub when: CancelWhen,
}

/// When a request is cancelled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CancelWhen {
    /// So long after it was sent, in the mean.
    After(Span),
    /// When so many tokens have come, at least 1.
    AfterTokens(u32),
}

/// Longest backoff between two attempts.
const MAX_BACKOFF: Span = Span(3_600_000_000_000_000);

impl ClientSpec {
    fn cancels(&self, seed: u64, client: RequestId) -> Option<CancelWhen> {
        let cancel = self.cancel.as_ref()?;
        let draw = unit(seed, Purpose::Cancel, u64::from(client.0));
        (draw < cancel.share).then_some(cancel.when)
    }

    /// How long after it was sent a request is cancelled, if it is.
    #[must_use]
    pub fn cancel_after(&self, seed: u64, client: RequestId) -> Option<Span> {
        match self.cancels(seed, client)? {
            CancelWhen::After(mean) => {
                let draw = unit(seed, Purpose::CancelTime, u64::from(client.0));
                Some(exponential(mean, draw))
            }
            CancelWhen::AfterTokens(_) => None,
        }
    }

    /// After how many tokens a request is cancelled, if it is.
    #[must_use]
    pub fn cancel_tokens(&self, seed: u64, client: RequestId) -> Option<u32> {
        match self.cancels(seed, client)? {
            CancelWhen::After(_) => None,
            CancelWhen::AfterTokens(tokens) => Some(tokens),
        }
    }

    /// True if clients count tokens.
    #[must_use]
    pub fn counts_tokens(&self) -> bool {
        let cancel = self.cancel.as_ref();
        cancel.is_some_and(|cancel| matches!(cancel.when, CancelWhen::AfterTokens(_)))
    }

    /// How long a client waits before attempt `attempt`, its `retry`-th retry.
    #[must_use]
    pub fn wait(&self, seed: u64, attempt: RequestId, retry: u32) -> Span {
        let doubled = self.backoff.0.saturating_mul(1 << (retry - 1).min(32));
        let longest = doubled.min(MAX_BACKOFF.0);
        let draw = unit(seed, Purpose::Backoff, u64::from(attempt.0));
        Span(longest - (longest as f64 / 2.0 * draw) as u64)
    }
}

/// A draw of an exponential distribution of this mean; `unit` is in 0..1. At most 100 times the mean.
pub(super) fn exponential(mean: Span, unit: f64) -> Span {
    Span((-(1.0 - unit).ln() * mean.0 as f64).min(100.0 * mean.0 as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_share_and_the_mean_they_are_asked_for() {
        let mean = Span::from_s(8.0);
        let spec = ClientSpec {
            cancel: Some(CancelSpec {
                share: 0.25,
                when: CancelWhen::After(mean),
            }),
            retries: 3,
            backoff: Span(1000),
            ..ClientSpec::default()
        };
        let after = (0..40_000).filter_map(|client| spec.cancel_after(7, RequestId(client)));
        let after: Vec<f64> = after.map(Span::as_s).collect();
        // 10,000 expected, standard deviation 87; mean 8, standard deviation 0.08.
        assert!(after.len().abs_diff(10_000) < 435, "{}", after.len());
        let found = after.iter().sum::<f64>() / after.len() as f64;
        assert!((found - 8.0).abs() < 0.4, "{found}");
        for retry in 1..=3 {
            let longest = 1000 << (retry - 1);
            let wait = spec.wait(7, RequestId(9), retry).0;
            assert!((longest / 2..=longest).contains(&wait), "{retry}: {wait}");
        }
    }
}
