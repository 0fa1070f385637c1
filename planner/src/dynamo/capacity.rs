//! How many requests per second one engine sustains at the SLA.
//!
//! Batches are tried, all up to the largest that fits, or 128 of them evenly spaced. For each the engine is thought of as
//! running that batch for ever: a prefill worker finishes `batch` prompts per drained batch; a decode worker, `batch` requests per
//! output length of steps at mean context (prompt and half of the output); an aggregated one the same, its steps carrying as
//! many prompt tokens as keep the batch full. A batch within the SLA beats one that is not; among equals the higher rate
//! wins, the first on ties. If no batch is within the SLA the best one counts all the same. Source: Dynamo 1.6.1,
//! `planner/core/perf_model/engine_query.py`.

use super::engine_model::{EngineModel, uncached_share};
use crate::model::WorkerKind;
use crate::observe::Work;

const MAX_CANDIDATES: u64 = 128;
const MAX_TOKENS: u64 = u32::MAX as u64;

/// Requests of one shape and what they may take. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CapacityRequest {
    /// Prompt tokens.
    pub isl: u64,
    /// Output tokens.
    pub osl: u64,
    /// Longest TTFT; a worker that has none (decode) never meets one.
    pub ttft_sla_s: Option<f64>,
    /// Longest ITL; the same for prefill workers.
    pub itl_sla_s: Option<f64>,
    /// Tokens per decode step and request.
    pub accept_length: f64,
    /// Share of the prompt that is cached.
    pub kv_hit_rate: Option<f64>,
}

/// What one engine sustains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Requests per second.
    pub rps: f64,
    /// TTFT at that rate, in seconds, where the worker has one.
    pub ttft_s: Option<f64>,
    /// ITL at that rate, in seconds, where the worker has one.
    pub itl_s: Option<f64>,
    /// From arrival to the last token, in seconds, where one worker does all of it that it is asked for.
    pub e2e_s: Option<f64>,
    /// Whether it is within the SLA.
    pub is_eligible: bool,
}

/// The rate as a float, and the latencies it goes with.
type Point = (f64, Option<f64>, Option<f64>);

impl EngineModel {
    /// The best rate; `None` if nothing fits or no pass can be estimated.
    #[must_use]
    pub fn capacity(&self, request: &CapacityRequest) -> Option<Capacity> {
        if request.isl == 0 || (request.osl == 0 && self.kind != WorkerKind::Prefill) {
            return None;
        }
        let accept = if request.accept_length.is_finite() {
            request.accept_length.max(1.0)
        } else {
            1.0
        };
        let shape = Shape {
            uncached: ((request.isl as f64 * uncached_share(request.kv_hit_rate)).ceil() as u64)
                .max(1),
            context: (request.isl + request.osl / 2).clamp(1, MAX_TOKENS),
            osl: request.osl,
            accept,
        };
        let mut best: Option<Capacity> = None;
        for batch in candidates(self.largest_batch(&shape)?) {
            let point = match self.kind {
                WorkerKind::Prefill => self.prefill(&shape, batch)?,
                WorkerKind::Decode => self.decode(&shape, batch)?,
                WorkerKind::Aggregated => match self.aggregated(&shape, batch)? {
                    Some(point) => point,
                    None => continue,
                },
            };
            let (rps, ttft_s, itl_s) = point;
            if !rps.is_finite() {
                continue; // a pass that takes no time says nothing
            }
            let candidate = Capacity {
                rps,
                ttft_s,
                itl_s,
                e2e_s: ttft_s.map(|ttft| match itl_s {
                    None => ttft,
                    Some(itl) => ttft + itl * request.osl.saturating_sub(1) as f64,
                }),
                is_eligible: is_within(ttft_s, request.ttft_sla_s)
                    && is_within(itl_s, request.itl_sla_s),
            };
            if best.is_none_or(|best| is_better(&candidate, &best)) {
                best = Some(candidate);
            }
        }
        best
    }

    fn largest_batch(&self, shape: &Shape) -> Option<u64> {
        let limits = self.limits?;
        let by_context = limits
            .max_num_seqs
            .min(limits.max_kv_tokens / shape.context);
        Some(match self.kind {
            WorkerKind::Prefill if shape.uncached > limits.max_num_batched_tokens => 1,
            WorkerKind::Prefill => {
                let by_tokens = limits.max_num_batched_tokens / shape.uncached;
                limits.max_num_seqs.min(by_tokens)
            }
            WorkerKind::Decode => by_context,
            WorkerKind::Aggregated if limits.max_num_batched_tokens <= 1 => 0,
            WorkerKind::Aggregated => by_context.min(limits.max_num_batched_tokens - 1),
        })
    }

    fn prefill(&self, shape: &Shape, batch: u64) -> Option<Point> {
        let ttft = self.drain_s((shape.uncached * batch).min(MAX_TOKENS), 0, 0)?;
        Some((batch as f64 / ttft, Some(ttft), None))
    }

    fn decode(&self, shape: &Shape, batch: u64) -> Option<Point> {
        let context = (batch * shape.context).min(MAX_TOKENS);
        let itl = self.mixed_s(0, batch, context)? / shape.accept;
        Some((batch as f64 / (shape.osl as f64 * itl), None, Some(itl)))
    }

    /// The inner `None` is a batch whose prompts do not fit beside it.
    fn aggregated(&self, shape: &Shape, batch: u64) -> Option<Option<Point>> {
        let budget = self.limits?.max_num_batched_tokens;
        let per_step = batch as f64 * shape.accept * shape.uncached as f64 / shape.osl as f64;
        let prompt = per_step.ceil() as u64;
        if budget <= batch || prompt > budget - batch {
            return Some(None);
        }
        let context = (batch * shape.context).min(MAX_TOKENS);
        let itl = self.mixed_s(prompt, batch, context)? / shape.accept;
        let queue = (prompt + shape.uncached).min(MAX_TOKENS);
        let ttft = self.drain_s(queue, batch, context)?;
        let rps = batch as f64 / (shape.osl as f64 * itl);
        Some(Some((rps, Some(ttft), Some(itl))))
    }

    /// Seconds to work off prompt tokens in passes of the budget, each with the same decode.
    fn drain_s(&self, tokens: u64, decode_requests: u64, context: u64) -> Option<f64> {
        let budget = self.limits?.max_num_batched_tokens;
        let (full, tail) = (tokens / budget, tokens % budget);
        let mut total_s = 0.0;
        if full > 0 {
            total_s += self.mixed_s(budget, decode_requests, context)? * full as f64;
        }
        if tail > 0 {
            total_s += self.mixed_s(tail, decode_requests, context)?;
        }
        Some(total_s)
    }

    /// Seconds of one pass over totals dealt out to the ranks, the first ones taking what is left over.
    fn mixed_s(&self, prefill_tokens: u64, decode_requests: u64, context: u64) -> Option<f64> {
        let ranks = u64::from(self.attention_dp.max(1));
        let share = |total: u64, rank: u64| total / ranks + u64::from(rank < total % ranks);
        let works: Vec<Work> = (0..ranks)
            .map(|rank| {
                let tokens = share(prefill_tokens, rank);
                Work {
                    prefill_requests: u64::from(tokens > 0),
                    prefill_tokens: tokens,
                    decode_requests: share(decode_requests, rank),
                    decode_kv_tokens: share(context, rank),
                    ..Work::default()
                }
            })
            .collect();
        self.pass_s(&works)
    }
}

/// A request as engines see it.
struct Shape {
    /// Prompt tokens to compute.
    uncached: u64,
    /// Mean context in decode.
    context: u64,
    osl: u64,
    accept: f64,
}

fn candidates(largest: u64) -> impl Iterator<Item = u64> {
    let count = largest.min(MAX_CANDIDATES);
    (0..count).map(move |at| {
        if largest <= MAX_CANDIDATES {
            at + 1
        } else {
            1 + at * (largest - 1) / (MAX_CANDIDATES - 1)
        }
    })
}

fn is_within(value_s: Option<f64>, sla_s: Option<f64>) -> bool {
    sla_s.is_none_or(|sla| value_s.is_some_and(|value| value <= sla))
}

fn is_better(candidate: &Capacity, best: &Capacity) -> bool {
    match (candidate.is_eligible, best.is_eligible) {
        (true, false) => true,
        (false, true) => false,
        _ => candidate.rps > best.rps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamo::EngineLimits;
    use crate::model::Analytic;

    fn model(kind: WorkerKind) -> EngineModel {
        let limits = EngineLimits {
            max_num_batched_tokens: 4096,
            max_num_seqs: 8,
            max_kv_tokens: 100_000,
        };
        let passes = Analytic {
            base_ms: 10.0,
            per_prefill_token_ms: 0.1,
            per_decode_request_ms: 1.0,
            per_kv_token_ms: 0.0,
        };
        EngineModel::new(kind, Some(limits), 1, 64, Box::new(passes))
    }

    fn request(itl_sla_s: Option<f64>) -> CapacityRequest {
        CapacityRequest {
            isl: 1000,
            osl: 100,
            ttft_sla_s: None,
            itl_sla_s,
            accept_length: 1.0,
            kv_hit_rate: None,
        }
    }

    #[test]
    fn the_sla_bounds_the_batch() {
        // A batch of b takes 10 + b ms: 8 within no SLA, 4 within 14 ms.
        let free = model(WorkerKind::Decode).capacity(&request(None)).unwrap();
        assert!((free.rps - 8.0 / (100.0 * 0.018)).abs() < 1e-9);
        let bound = model(WorkerKind::Decode).capacity(&request(Some(0.0141)));
        assert!((bound.unwrap().rps - 4.0 / (100.0 * 0.014)).abs() < 1e-9);
    }

    #[test]
    fn where_nothing_meets_the_best_counts_all_the_same() {
        let capacity = model(WorkerKind::Decode).capacity(&request(Some(0.001)));
        assert!(!capacity.unwrap().is_eligible);
        assert!((capacity.unwrap().rps - 8.0 / 1.8).abs() < 1e-9);
    }

    #[test]
    fn a_context_that_does_not_fit_has_no_capacity() {
        let long = CapacityRequest {
            isl: 200_000,
            ..request(None)
        };
        assert_eq!(model(WorkerKind::Decode).capacity(&long), None);
    }
}
