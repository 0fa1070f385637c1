//! Cases of kind `policy_queue`: the order in which requests leave the queue.

use super::{Comparison, first_difference, read, time};
use crate::scenario::policy_file::{profile, queue_policy};
use serde::Deserialize;
use serde_json::Value;
use sim::router::policy_class::{PolicyProfile, QueuePolicy};
use sim::router::queue::{LimitKind, PolicyQueue, QueueTicket};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    policy: Option<String>,
    policy_yaml: Option<String>,
    #[serde(default = "one")]
    worker_count: u64,
    ops: Vec<Op>,
}

fn one() -> u64 {
    1
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Op {
    Push {
        id: String,
        arrival: f64,
        isl: u64,
        #[serde(default)]
        cached: u64,
        #[serde(default)]
        priority_jump: f64,
        #[serde(default)]
        strict_priority: u32,
    },
    Pop {
        #[serde(default)]
        blocked_ids: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Expected {
    results: Vec<Answer>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Answer {
    Popped {
        id: Option<String>,
    },
    Refused {
        ok: bool,
        class: String,
        limit_kind: String,
        current: u64,
        limit: u64,
    },
    Pushed {
        ok: bool,
        class: String,
    },
}

pub fn compare(input: Value, expected: Value) -> Result<Comparison, String> {
    let (input, expected): (Input, Expected) = (read("input", input)?, read("expected", expected)?);
    let profile = match (&input.policy_yaml, &input.policy) {
        (Some(yaml), _) => profile(yaml).map_err(|errors| errors.join("; "))?,
        (None, Some(policy)) => PolicyProfile::sole(queue_policy(policy)?, None),
        (None, None) => PolicyProfile::sole(QueuePolicy::Fcfs, None),
    };
    let mut queue = PolicyQueue::new(profile);
    let answers = input
        .ops
        .into_iter()
        .map(|op| apply(&mut queue, input.worker_count, op));
    let ours: Vec<Answer> = answers.collect();
    Ok(first_difference(&expected.results, &ours))
}

fn apply(queue: &mut PolicyQueue<String>, workers: u64, op: Op) -> Answer {
    match op {
        Op::Push {
            id,
            arrival,
            isl,
            cached,
            priority_jump,
            strict_priority,
        } => {
            let ticket = QueueTicket {
                arrival: time(arrival),
                isl_tokens: isl,
                cached_tokens: cached,
                priority_jump,
                strict_priority,
                due: None,
                pinned: None,
            };
            let class = queue.profile().class_of(None, ticket.uncached_tokens());
            let name = queue.profile().classes()[class].name.clone();
            match queue.push(class, workers, ticket, id) {
                Ok(()) => Answer::Pushed {
                    ok: true,
                    class: name,
                },
                Err(full) => Answer::Refused {
                    ok: false,
                    class: name,
                    limit_kind: match full.kind {
                        LimitKind::Requests => "requests",
                        LimitKind::RawIslTokens => "raw_isl_tokens",
                        LimitKind::CachedTokens => "cached_tokens",
                    }
                    .to_owned(),
                    current: full.current,
                    limit: full.limit,
                },
            }
        }
        Op::Pop { blocked_ids } => {
            let popped = queue.pop(|_, _, id| !blocked_ids.contains(id));
            Answer::Popped {
                id: popped.map(|(_, id)| id),
            }
        }
    }
}
