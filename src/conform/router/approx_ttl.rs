//! Cases of kind `approx_ttl`: how long what was sent counts as cached.

use super::{Comparison, Names, first_difference, read, time};
use engine::Span;
use serde::Deserialize;
use serde_json::Value;
use sim::router::approximate::TimeToLive;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    ttl_s: f64,
    ops: Vec<Op>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Op {
    Insert { t: f64, keys: Vec<String> },
    Remove { keys: Vec<String> },
    PopExpired { t: f64 },
}

#[derive(Deserialize)]
struct Expected {
    results: Vec<Answer>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Answer {
    live: usize,
    removed: Option<Vec<bool>>,
    expired: Option<Vec<String>>,
}

pub fn compare(input: Value, expected: Value) -> Result<Comparison, String> {
    let (input, expected): (Input, Expected) = (read("input", input)?, read("expected", expected)?);
    let mut keys = TimeToLive::new(Span(time(input.ttl_s).0));
    let mut names = Names(Vec::new());
    let answers = input
        .ops
        .into_iter()
        .map(|op| apply(&mut keys, &mut names, op));
    let ours: Vec<Answer> = answers.collect();
    Ok(first_difference(&expected.results, &ours))
}

fn apply(keys: &mut TimeToLive<u32>, names: &mut Names<String>, op: Op) -> Answer {
    let mut answer = Answer::default();
    match op {
        Op::Insert { t, keys: named } => {
            for name in named {
                keys.insert(time(t), names.number(&name));
            }
        }
        // A removal does not look at the clock.
        Op::Remove { keys: named } => {
            let removed = named.iter().map(|name| keys.remove(names.number(name)));
            answer.removed = Some(removed.collect());
        }
        Op::PopExpired { t } => {
            let mut expired = Vec::new();
            keys.pop_expired(time(t), |key| expired.push(names.0[key as usize].clone()));
            answer.expired = Some(expired);
        }
    }
    answer.live = keys.len();
    answer
}
