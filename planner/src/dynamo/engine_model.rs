//! What one engine will do: TTFT and ITL of the next request, from the passes its workers report.
//!
//! Between the scaling rules, which ask about requests, and a [`ForwardPassModel`], which knows passes:
//!
//! * The *next request* is as long as recent ones: moving averages over forward passes, from the first that is not zero, of
//!   prompt tokens per prefill request (a pass without prefill adds zero) and of context per decoding request.
//! * *TTFT* is the time to work off the queued prompt tokens and the next request's, less what the prefix cache saves, in
//!   passes of the token budget; on aggregated workers every such pass carries the decoding requests too.
//! * *ITL* is one pass over the decoding requests and one more; on aggregated workers with the average prefill of a pass.
//!
//! Work may be scaled, to ask what those left would do if a worker went. Ranks of attention data parallelism make a pass
//! together and are asked together. Source: Dynamo 1.6.1, `planner/core/perf_model`.

use crate::model::{ForwardPassModel, WorkerKind};
use crate::observe::{ForwardPass, Work, WorkerId};
use std::collections::{BTreeMap, VecDeque};

/// Limits of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Tokens in one forward pass.
    pub max_num_batched_tokens: u64,
    /// Requests in one forward pass.
    pub max_num_seqs: u64,
    /// Tokens that the KV cache holds.
    pub max_kv_tokens: u64,
}

/// One role's engine.
#[derive(Debug, Clone)]
pub struct EngineModel {
    pub(super) kind: WorkerKind,
    /// `None` if the engine reports limits of zero: nothing can be estimated then.
    pub(super) limits: Option<EngineLimits>,
    pub(super) attention_dp: u32,
    pub(super) passes: Box<dyn ForwardPassModel>,
    isl: MovingAverage,
    decode_context: MovingAverage,
    prefill_requests: MovingAverage,
    prefill_tokens: MovingAverage,
}

/// How to change the work that is there before asking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Factor on queued prefill.
    pub queue: f64,
    /// Factor on decode.
    pub decode: f64,
    /// Whether queued decode counts as decode.
    pub with_queued_decode: bool,
    /// Whether queued prompts count as decode context.
    pub with_queued_prefill: bool,
}

impl Change {
    /// As it is.
    pub const NONE: Change = Change {
        queue: 1.0,
        decode: 1.0,
        with_queued_decode: false,
        with_queued_prefill: false,
    };
}

/// At most this share of a prompt counts as cached.
const MAX_HIT_RATE: f64 = 0.95;

/// The share of prompt tokens that must be computed.
pub(super) fn uncached_share(kv_hit_rate: Option<f64>) -> f64 {
    let hit_rate = kv_hit_rate.filter(|rate| rate.is_finite()).unwrap_or(0.0);
    1.0 - hit_rate.clamp(0.0, MAX_HIT_RATE)
}

impl EngineModel {
    /// A model that has seen no pass; averages look back on `samples` of them.
    #[must_use]
    pub fn new(
        kind: WorkerKind,
        limits: Option<EngineLimits>,
        attention_dp: u32,
        samples: usize,
        passes: Box<dyn ForwardPassModel>,
    ) -> Self {
        let average = MovingAverage::new(samples);
        EngineModel {
            kind,
            limits,
            attention_dp,
            passes,
            isl: average.clone(),
            decode_context: average.clone(),
            prefill_requests: average.clone(),
            prefill_tokens: average,
        }
    }

    /// Whether it can estimate.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.limits.is_some() && self.passes.is_ready()
    }

    /// The passes that workers report at a tick.
    pub fn observe(&mut self, passes: &[ForwardPass]) {
        for pass in passes {
            let work = &pass.scheduled;
            let isl = ratio(work.prefill_tokens, work.prefill_requests).unwrap_or(0.0);
            self.isl.add_from_first(isl);
            if let Some(context) = ratio(work.decode_kv_tokens, work.decode_requests) {
                self.decode_context.add_from_first(context);
            }
        }
        let groups = self.groups(passes);
        if self.limits.is_none() || groups.iter().any(|group| !self.is_whole(group)) {
            return;
        }
        for group in groups {
            let ranks: Vec<(Work, f64)> = group
                .iter()
                .map(|pass| (pass.scheduled, pass.wall_time_s))
                .collect();
            self.passes.observe(&ranks);
            let load =
                |work: &Work| work.prefill_tokens + work.decode_kv_tokens + work.decode_requests;
            // The first of equally busy ranks.
            let busiest = ranks.iter().rev().max_by_key(|(work, _)| load(work));
            if let Some((work, _)) = busiest {
                self.prefill_requests
                    .add_from_first(work.prefill_requests as f64);
                self.prefill_tokens
                    .add_from_first(work.prefill_tokens as f64);
            }
        }
    }

    /// Passes that belong together. Alone they come in the order of the workers' names as text, as in Dynamo, which decides
    /// what averages forget first; together in the order in which workers were first seen.
    #[must_use]
    pub fn groups(&self, passes: &[ForwardPass]) -> Vec<Vec<ForwardPass>> {
        if self.attention_dp > 1 {
            let mut groups: Vec<Vec<ForwardPass>> = Vec::new();
            let mut places: BTreeMap<WorkerId, usize> = BTreeMap::new();
            for pass in passes {
                let at = *places.entry(pass.worker).or_insert(groups.len());
                if at == groups.len() {
                    groups.push(Vec::new());
                }
                groups[at].push(*pass);
            }
            for group in &mut groups {
                group.sort_by_key(|pass| pass.rank);
            }
            return groups;
        }
        let mut alone: Vec<ForwardPass> = passes.to_vec();
        let name = |worker: WorkerId| worker.0.to_string();
        alone.sort_by_cached_key(|pass| (name(pass.worker), pass.rank));
        alone.into_iter().map(|pass| vec![pass]).collect()
    }

    fn is_whole(&self, group: &[ForwardPass]) -> bool {
        let mut ranks: Vec<u32> = group.iter().map(|pass| pass.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let has_all = group.len() == self.attention_dp as usize;
        let are_ranks = self.attention_dp == 1
            || (ranks.len() == group.len() && ranks.iter().all(|&rank| rank < self.attention_dp));
        has_all && are_ranks
    }

    /// Seconds until the next request's prompt is done.
    #[must_use]
    pub fn ttft_s(
        &self,
        group: &[ForwardPass],
        kv_hit_rate: Option<f64>,
        change: Change,
    ) -> Option<f64> {
        let budget = self.limits?.max_num_batched_tokens;
        if self.kind == WorkerKind::Decode || !self.is_whole(group) {
            return None;
        }
        let uncached = uncached_share(kv_hit_rate);
        let ranks: Vec<Queue> = group
            .iter()
            .map(|pass| self.queue(pass, uncached, change))
            .collect();
        let mut ends: Vec<u64> = vec![0];
        for rank in &ranks {
            let full = rank.tokens / budget;
            ends.extend((full > 0).then_some(full));
            ends.extend((!rank.tokens.is_multiple_of(budget)).then_some(full + 1));
        }
        ends.sort_unstable();
        ends.dedup();
        let mut total_s = 0.0;
        for pair in ends.windows(2) {
            let pass: Vec<Work> = ranks
                .iter()
                .map(|rank| rank.pass(pair[0], budget))
                .collect();
            total_s += self.pass_s(&pass)? * (pair[1] - pair[0]) as f64;
        }
        Some(total_s)
    }

    /// A rank's queue with the next request, and the decode that runs beside it.
    fn queue(&self, pass: &ForwardPass, uncached: f64, change: Change) -> Queue {
        let mut tokens = pass.queued.prefill_tokens as f64 * change.queue;
        let mut requests = pass.queued.prefill_requests as f64 * change.queue;
        if self.isl.value() > 0.0 {
            tokens += self.isl.value();
            requests += 1.0;
        }
        let (decode_requests, decode_kv_tokens) = decode(pass, change);
        let decodes = self.kind == WorkerKind::Aggregated;
        Queue {
            requests: ceil(requests),
            tokens: ceil(tokens * uncached),
            beside: Work {
                decode_requests: if decodes {
                    ceil(decode_requests * change.decode)
                } else {
                    0
                },
                decode_kv_tokens: if decodes {
                    ceil(decode_kv_tokens * change.decode)
                } else {
                    0
                },
                ..Work::default()
            },
        }
    }

    /// Seconds of one pass over what decodes and one request more.
    #[must_use]
    pub fn itl_s(&self, group: &[ForwardPass], change: Change) -> Option<f64> {
        if self.limits.is_none() || self.kind == WorkerKind::Prefill || !self.is_whole(group) {
            return None;
        }
        let (mut prefill_requests, mut prefill_tokens) = (0, 0);
        if self.kind == WorkerKind::Aggregated {
            prefill_tokens = ceil(self.prefill_tokens.value());
            prefill_requests =
                ceil(self.prefill_requests.value()).max(u64::from(prefill_tokens > 0));
        }
        let ranks: Vec<Work> = group
            .iter()
            .map(|pass| {
                let (requests, context) = decode(pass, change);
                let (mut requests, mut context) =
                    (requests * change.decode, context * change.decode);
                if self.decode_context.value() > 0.0 {
                    context += self.decode_context.value();
                    requests += 1.0;
                }
                Work {
                    prefill_requests,
                    prefill_tokens,
                    decode_requests: ceil(requests),
                    decode_kv_tokens: ceil(context),
                    ..Work::default()
                }
            })
            .collect();
        self.pass_s(&ranks)
    }

    /// Seconds of one pass.
    pub(super) fn pass_s(&self, ranks: &[Work]) -> Option<f64> {
        let estimate = self.passes.estimate_ms(ranks)?;
        assert!(estimate.is_finite(), "a forward pass takes finite time");
        Some(estimate.max(0.0) / 1000.0)
    }
}

/// What one rank has to work off.
struct Queue {
    requests: u64,
    tokens: u64,
    beside: Work,
}

impl Queue {
    /// Its part in the pass number `at`.
    fn pass(&self, at: u64, budget: u64) -> Work {
        let chunk = self.tokens.saturating_sub(at * budget).min(budget);
        Work {
            prefill_requests: if chunk == 0 { 0 } else { self.requests.max(1) },
            prefill_tokens: chunk,
            ..self.beside
        }
    }
}

/// Requests and context that decode, or will by this change, before its factor.
fn decode(pass: &ForwardPass, change: Change) -> (f64, f64) {
    let mut requests = pass.scheduled.decode_requests as f64;
    let mut context = pass.scheduled.decode_kv_tokens as f64;
    if change.with_queued_decode {
        requests += pass.queued.decode_requests as f64;
        context += pass.queued.decode_kv_tokens as f64;
    }
    if change.with_queued_prefill {
        requests += pass.queued.prefill_requests as f64;
        context += pass.queued.prefill_tokens as f64;
    }
    (requests, context)
}

fn ratio(tokens: u64, requests: u64) -> Option<f64> {
    (requests > 0).then(|| tokens as f64 / requests as f64)
}

fn ceil(value: f64) -> u64 {
    value.max(0.0).ceil() as u64
}

/// The mean of the last values, from the first that is not zero.
#[derive(Debug, Clone)]
struct MovingAverage {
    values: VecDeque<f64>,
    sum: f64,
    most: usize,
}

impl MovingAverage {
    fn new(most: usize) -> Self {
        MovingAverage {
            values: VecDeque::new(),
            sum: 0.0,
            most: most.max(1),
        }
    }

    fn add_from_first(&mut self, value: f64) {
        if value <= 0.0 && self.values.is_empty() {
            return;
        }
        self.values.push_back(value);
        self.sum += value;
        if self.values.len() > self.most {
            self.sum -= self.values.pop_front().expect("more than one value");
        }
    }

    fn value(&self) -> f64 {
        if self.values.is_empty() {
            return 0.0;
        }
        self.sum / self.values.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Analytic;

    fn model(kind: WorkerKind) -> EngineModel {
        let limits = EngineLimits {
            max_num_batched_tokens: 1000,
            max_num_seqs: 64,
            max_kv_tokens: 100_000,
        };
        let passes = Analytic {
            base_ms: 10.0,
            per_prefill_token_ms: 0.1,
            per_decode_request_ms: 1.0,
            per_kv_token_ms: 0.001,
        };
        EngineModel::new(kind, Some(limits), 1, 64, Box::new(passes))
    }

    fn pass(scheduled: Work, queued: Work) -> ForwardPass {
        ForwardPass {
            worker: WorkerId(0),
            rank: 0,
            wall_time_s: 0.1,
            scheduled,
            queued,
        }
    }

    #[test]
    fn the_queue_and_one_request_more_in_passes_of_the_budget() {
        let mut model = model(WorkerKind::Prefill);
        let busy = Work {
            prefill_requests: 2,
            prefill_tokens: 1000,
            ..Work::default()
        };
        let queued = Work {
            prefill_requests: 3,
            prefill_tokens: 1800,
            ..Work::default()
        };
        model.observe(&[pass(busy, queued)]);
        // 1800 queued and 500 of the next: two passes of 1000 (110 ms) and one of 300 (40 ms).
        let group = [pass(busy, queued)];
        let ttft = model.ttft_s(&group, None, Change::NONE).unwrap();
        assert!((ttft - 0.26).abs() < 1e-12);
        // Half of it cached: 1150 tokens, 110 and 25 ms.
        let ttft = model.ttft_s(&group, Some(0.5), Change::NONE).unwrap();
        assert!((ttft - 0.135).abs() < 1e-12);
    }

    #[test]
    fn decode_grows_by_one_request_of_average_context() {
        let mut model = model(WorkerKind::Decode);
        let busy = Work {
            decode_requests: 4,
            decode_kv_tokens: 8000,
            ..Work::default()
        };
        let group = [pass(busy, Work::default())];
        model.observe(&group);
        // Five requests, 10,000 tokens: 10 + 5 + 10 ms.
        assert!((model.itl_s(&group, Change::NONE).unwrap() - 0.025).abs() < 1e-12);
        assert_eq!(model.ttft_s(&group, None, Change::NONE), None);
    }
}
