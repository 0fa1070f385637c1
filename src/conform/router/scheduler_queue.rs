//! Cases of kind `scheduler_queue`: queue, choice and booking together, on a virtual clock.

use super::selection::{ConfigLine, Pin};
use super::{Comparison, Names, first_difference, read, time};
use crate::scenario::policy_file::queue_policy;
use engine::RequestId;
use serde::Deserialize;
use serde_json::Value;
use sim::router::active_blocks::HashedBlocks;
use sim::router::active_sequences::PromptBlocks;
use sim::router::admission::{
    Admission, AdmissionSpec, Admitted, DEFAULT_MAX_NUM_BATCHED_TOKENS, Incoming, QueueStyle,
};
use sim::router::cost::{CostWeights, Overlap};
use sim::router::policy_class::{PolicyProfile, QueuePolicy};
use sim::router::queue::QueueTicket;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    block_size: u32,
    workers: Vec<WorkerLine>,
    router_config: ConfigLine,
    ops: Vec<Timed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerLine {
    worker: u64,
    max_num_batched_tokens: Option<u64>,
    ranks: Vec<RankLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RankLine {
    dp: u32,
}

#[derive(Deserialize)]
struct Timed {
    t: Option<f64>,
    #[serde(flatten)]
    op: Op,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Op {
    Submit {
        id: String,
        isl_tokens: u64,
        #[serde(default)]
        overlap: BTreeMap<String, u32>,
        seq: Option<Vec<u64>>,
        #[serde(default)]
        priority_jump: f64,
        #[serde(default)]
        strict_priority: u32,
        pinned: Option<Pin>,
    },
    PrefillDone {
        id: String,
    },
    Free {
        id: String,
    },
}

#[derive(Deserialize)]
struct Expected {
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    admitted: Vec<AdmittedLine>,
    pending: usize,
    pending_isl_tokens: u64,
    active_prefill_tokens: Vec<PrefillLine>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmittedLine {
    id: String,
    worker: u64,
    dp: u32,
    cached_tokens: u64,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrefillLine {
    worker: u64,
    dp: u32,
    tokens: u64,
}

pub fn compare(input: Value, expected: Value) -> Result<Comparison, String> {
    let (input, expected): (Input, Expected) = (read("input", input)?, read("expected", expected)?);
    let mut router = QueueRouter::new(&input)?;
    let steps: Result<Vec<Step>, String> = input
        .ops
        .into_iter()
        .map(|timed| router.step(timed))
        .collect();
    Ok(first_difference(&expected.steps, &steps?))
}

struct QueueRouter {
    admission: Admission<HashedBlocks>,
    ranks: Names<(u64, u32)>,
    requests: Names<String>,
    block_size: u32,
    now: engine::Time,
}

impl QueueRouter {
    fn new(input: &Input) -> Result<Self, String> {
        let policy = input.router_config.router_queue_policy.as_deref();
        let policy = policy.map_or(Ok(QueuePolicy::Fcfs), queue_policy)?;
        let ranks = input.workers.iter();
        let ranks = ranks.flat_map(|line| line.ranks.iter().map(move |rank| (line, rank.dp)));
        let ranks: Vec<(&WorkerLine, u32)> = ranks.collect();
        let batched = |(line, _): &(&WorkerLine, u32)| {
            line.max_num_batched_tokens
                .unwrap_or(DEFAULT_MAX_NUM_BATCHED_TOKENS)
        };
        let spec = AdmissionSpec {
            weights: input.router_config.over(CostWeights::default()),
            temperature: 0.0,
            block_size: input.block_size,
            profile: PolicyProfile::sole(policy, input.router_config.router_queue_threshold),
            style: QueueStyle::Live,
            expires: true,
            seed: 0,
        };
        Ok(QueueRouter {
            admission: Admission::new(spec, ranks.iter().map(batched).collect()),
            ranks: Names(ranks.iter().map(|(line, dp)| (line.worker, *dp)).collect()),
            requests: Names(Vec::new()),
            block_size: input.block_size,
            now: engine::Time::ZERO,
        })
    }

    fn step(&mut self, timed: Timed) -> Result<Step, String> {
        self.now = timed.t.map_or(self.now, time);
        let mut admitted = Vec::new();
        self.apply(timed.op, &mut admitted)?;
        let line = |admitted: &Admitted| {
            let (worker, dp) = self.ranks.0[admitted.rank as usize];
            let id = self.requests.0[admitted.request.0 as usize].clone();
            AdmittedLine {
                id,
                worker,
                dp,
                cached_tokens: admitted.cached_tokens,
            }
        };
        let prefill = |(rank, &(worker, dp)): (usize, &(u64, u32))| PrefillLine {
            worker,
            dp,
            tokens: self
                .admission
                .sequences()
                .prefill_tokens(self.now, rank as u32),
        };
        Ok(Step {
            admitted: admitted.iter().map(line).collect(),
            pending: self.admission.queue().len(),
            pending_isl_tokens: self.admission.queue().isl_tokens(),
            active_prefill_tokens: self.ranks.0.iter().enumerate().map(prefill).collect(),
        })
    }

    fn apply(&mut self, op: Op, admitted: &mut Vec<Admitted>) -> Result<(), String> {
        let now = self.now;
        match op {
            Op::Submit {
                id,
                isl_tokens,
                overlap,
                seq,
                priority_jump,
                strict_priority,
                pinned,
            } => {
                let device = |(worker, dp): &(u64, u32)| match dp {
                    0 => overlap.get(&worker.to_string()).copied().unwrap_or(0),
                    _ => 0,
                };
                let overlap = self.ranks.0.iter().map(|rank| Overlap {
                    device: device(rank),
                    ..Overlap::default()
                });
                let overlap: Vec<(u32, Overlap)> = (0..).zip(overlap).collect();
                let most = overlap
                    .iter()
                    .map(|(_, overlap)| overlap.device)
                    .max()
                    .unwrap_or(0);
                let ticket = QueueTicket {
                    arrival: now,
                    isl_tokens,
                    cached_tokens: u64::from(most) * u64::from(self.block_size),
                    priority_jump,
                    strict_priority,
                    due: None,
                    pinned: pinned.map(|pin| self.ranks.number(&(pin.worker, pin.dp))),
                };
                let incoming = Incoming {
                    request: RequestId(self.requests.number(&id)),
                    prompt: seq.map_or(PromptBlocks::Untracked, PromptBlocks::Shared),
                    overlap,
                    allowed: None,
                    cost_factors: None,
                    policy_class: None,
                };
                let full = self.admission.submit(now, ticket, incoming, admitted);
                full.map_err(|full| format!("{id}: refused by a queue without limits: {full:?}"))?;
            }
            Op::PrefillDone { id } => {
                let request = RequestId(self.requests.number(&id));
                self.admission.prefill_done(now, request, admitted);
            }
            Op::Free { id } => {
                let request = RequestId(self.requests.number(&id));
                self.admission.free(now, request, admitted);
            }
        }
        Ok(())
    }
}
