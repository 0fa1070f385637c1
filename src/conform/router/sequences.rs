//! Cases of kind `sequences`: requests under way on a virtual clock.

use super::{Comparison, Names, first_difference, read, time};
use engine::{RequestId, Span, Time};
use serde::Deserialize;
use serde_json::Value;
use sim::router::active_blocks::HashedBlocks;
use sim::router::active_sequences::{ActiveSequences, Booking, PromptBlocks};

#[derive(Deserialize)]
struct Input {
    workers: Vec<WorkerLine>,
    ops: Vec<Timed>,
}

#[derive(Deserialize)]
struct WorkerLine {
    worker: u64,
    #[serde(default = "one")]
    dp_size: u32,
}

fn one() -> u32 {
    1
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
    Add {
        id: String,
        worker: u64,
        #[serde(default)]
        dp: u32,
        seq: Option<Vec<u64>>,
        #[serde(default)]
        prefill_tokens: u64,
        prefill_duration_s: Option<f64>,
    },
    PrefillDone {
        id: String,
    },
    OutputBlock {
        id: String,
        decay: Option<f64>,
    },
    Free {
        id: String,
    },
    Expire,
    Project {
        seq: Option<Vec<u64>>,
    },
}

#[derive(Deserialize)]
struct Expected {
    results: Vec<Answer>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Answer {
    ok: Option<bool>,
    error: Option<String>,
    outcome: Option<String>,
    loads: Option<Vec<LoadLine>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadLine {
    worker: u64,
    dp: u32,
    active_prefill_tokens: u64,
    active_decode_blocks: u64,
    active_requests: u64,
    additional_active_blocks: u64,
    potential_decode_blocks: u64,
}

pub fn compare(input: Value, expected: Value) -> Result<Comparison, String> {
    let (input, expected): (Input, Expected) = (read("input", input)?, read("expected", expected)?);
    let ranks = input
        .workers
        .iter()
        .flat_map(|line| (0..line.dp_size).map(|dp| (line.worker, dp)));
    let ranks: Vec<(u64, u32)> = ranks.collect();
    let mut books = Books {
        sequences: ActiveSequences::new(ranks.len(), false),
        ranks: Names(ranks),
        requests: Names(Vec::new()),
        now: Time::ZERO,
    };
    let ours: Vec<Answer> = input
        .ops
        .into_iter()
        .map(|timed| books.apply(timed))
        .collect();
    Ok(first_difference(&expected.results, &ours))
}

struct Books {
    sequences: ActiveSequences<HashedBlocks>,
    ranks: Names<(u64, u32)>,
    requests: Names<String>,
    now: Time,
}

impl Books {
    fn apply(&mut self, timed: Timed) -> Answer {
        self.now = timed.t.map_or(self.now, time);
        let now = self.now;
        match timed.op {
            Op::Add {
                id,
                worker,
                dp,
                seq,
                prefill_tokens,
                prefill_duration_s,
            } => {
                let booking = Booking {
                    request: RequestId(self.requests.number(&id)),
                    rank: self.ranks.number(&(worker, dp)),
                    prompt: seq.map_or(PromptBlocks::Untracked, PromptBlocks::Shared),
                    prefill_tokens,
                    prefill_duration: prefill_duration_s.map(|seconds| Span(time(seconds).0)),
                };
                let error = self
                    .sequences
                    .add(now, booking)
                    .err()
                    .map(|error| format!("{error:?}"));
                Answer {
                    ok: Some(error.is_none()),
                    error,
                    ..Answer::default()
                }
            }
            Op::PrefillDone { id } => {
                let request = RequestId(self.requests.number(&id));
                outcome(self.sequences.prefill_done(now, request))
            }
            Op::Free { id } => {
                let request = RequestId(self.requests.number(&id));
                outcome(self.sequences.free(now, request))
            }
            Op::OutputBlock { id, decay } => {
                let request = RequestId(self.requests.number(&id));
                Answer {
                    ok: Some(self.sequences.output_block(request, decay)),
                    ..Answer::default()
                }
            }
            Op::Expire => {
                for rank in 0..self.ranks.0.len() {
                    self.sequences.expire(now, rank as u32);
                }
                Answer {
                    ok: Some(true),
                    ..Answer::default()
                }
            }
            Op::Project { seq } => {
                let prompt = seq.map_or(PromptBlocks::Untracked, PromptBlocks::Shared);
                let mut loads = Vec::new();
                self.sequences.project(now, &prompt, &mut loads);
                let lines = self
                    .ranks
                    .0
                    .iter()
                    .zip(&loads)
                    .map(|(&(worker, dp), load)| LoadLine {
                        worker,
                        dp,
                        active_prefill_tokens: load.active_prefill_tokens,
                        active_decode_blocks: load.active_decode_blocks,
                        active_requests: load.active_requests,
                        additional_active_blocks: load.additional_active_blocks,
                        potential_decode_blocks: load.decode_blocks(),
                    });
                Answer {
                    loads: Some(lines.collect()),
                    ..Answer::default()
                }
            }
        }
    }
}

fn outcome(is_applied: bool) -> Answer {
    let outcome = if is_applied { "Applied" } else { "NoChange" };
    Answer {
        outcome: Some(outcome.to_owned()),
        ..Answer::default()
    }
}
