//! What autoscalers look at, and how they turn it into replicas.
//!
//! A metric is either of each worker (KV use, queued requests), where the mean over workers counts, or of the whole role
//! (latencies, request rate, all queued requests), as a metrics server reports it. Metrics of workers need their last
//! forward passes, which are kept between ticks; a worker that has not reported yet has no value.

use crate::observe::{ForwardPass, Observations, Role, WorkerId};
use std::collections::BTreeMap;

/// A number to scale by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// Of each worker: share of its KV cache in use, of so many tokens, on its fullest rank.
    KvUse {
        /// Tokens that a rank's cache holds.
        max_kv_tokens: u64,
    },
    /// Of each worker: requests that wait in it.
    QueuedPerWorker,
    /// Requests that wait in all workers together and in front of them.
    Queued,
    /// 95th percentile of TTFT in seconds.
    TtftP95,
    /// 95th percentile of ITL in seconds.
    ItlP95,
    /// Requests per second that arrived since the last tick.
    RequestRate,
}

/// What the metric should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricTarget {
    /// Its value, however many workers there are.
    Value(f64),
    /// Its value divided by the workers.
    AveragePerWorker(f64),
}

/// A metric at a tick.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Measured {
    /// One value per worker that reported.
    PerWorker(Vec<f64>),
    /// One value for all.
    Whole(f64),
}

impl Metric {
    /// The metric now; `None` if nobody reports it.
    pub(super) fn measure(
        self,
        role: Role,
        seen: &Observations,
        known: &[ForwardPass],
    ) -> Option<Measured> {
        let seconds = |ms: f64| Measured::Whole(ms / 1000.0);
        match self {
            Metric::KvUse { max_kv_tokens } => {
                let share = |pass: &ForwardPass| {
                    let tokens = pass.scheduled.decode_kv_tokens + pass.queued.decode_kv_tokens;
                    tokens as f64 / max_kv_tokens as f64
                };
                Some(Measured::PerWorker(by_worker(known, share, f64::max)))
            }
            Metric::QueuedPerWorker => {
                Some(Measured::PerWorker(by_worker(known, queued, |a, b| a + b)))
            }
            Metric::Queued => {
                (!known.is_empty() || seen.pools.get(role).ready.is_empty()).then(|| {
                    let in_workers: f64 = known.iter().map(queued).sum();
                    Measured::Whole(in_workers + seen.waiting_in_front as f64)
                })
            }
            Metric::TtftP95 => seen.latency.ttft_p95_ms.map(seconds),
            Metric::ItlP95 => seen.latency.itl_p95_ms.map(seconds),
            Metric::RequestRate => (seen.traffic.duration_s > 0.0)
                .then(|| Measured::Whole(seen.traffic.requests / seen.traffic.duration_s)),
        }
    }
}

fn queued(pass: &ForwardPass) -> f64 {
    (pass.queued.prefill_requests + pass.queued.decode_requests) as f64
}

/// One value per worker, its ranks' values put together.
fn by_worker(
    passes: &[ForwardPass],
    value: impl Fn(&ForwardPass) -> f64,
    join: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let mut workers: BTreeMap<WorkerId, f64> = BTreeMap::new();
    for pass in passes {
        let of_rank = value(pass);
        workers
            .entry(pass.worker)
            .and_modify(|known| *known = join(*known, of_rank))
            .or_insert(of_rank);
    }
    workers.into_values().collect()
}
