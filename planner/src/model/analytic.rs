//! A formula: constant time, time per prompt token and per decoding request over all ranks, and time per token of context on
//! the rank that has most.
//!
//! The recorded planner decisions were made with it. It is always ready.

use super::ForwardPassModel;
use crate::observe::Work;

/// Milliseconds: `base + per_prefill_token · Σ tokens + per_decode_request · Σ requests + per_kv_token · max context`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Analytic {
    /// Of every pass, in ms.
    pub base_ms: f64,
    /// Of a prompt token, in ms.
    pub per_prefill_token_ms: f64,
    /// Of a decoding request, in ms.
    pub per_decode_request_ms: f64,
    /// Of a token of decode context on the rank with most of it, in ms.
    pub per_kv_token_ms: f64,
}

impl ForwardPassModel for Analytic {
    fn estimate_ms(&self, ranks: &[Work]) -> Option<f64> {
        if ranks.iter().all(Work::is_idle) {
            return Some(0.0);
        }
        let tokens: u64 = ranks.iter().map(|work| work.prefill_tokens).sum();
        let requests: u64 = ranks.iter().map(|work| work.decode_requests).sum();
        let context = ranks.iter().map(|work| work.decode_kv_tokens).max();
        Some(
            self.base_ms
                + self.per_prefill_token_ms * tokens as f64
                + self.per_decode_request_ms * requests as f64
                + self.per_kv_token_ms * context.unwrap_or(0) as f64,
        )
    }

    fn boxed(&self) -> Box<dyn ForwardPassModel> {
        Box::new(*self)
    }
}
