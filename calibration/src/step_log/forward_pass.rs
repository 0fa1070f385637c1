//! Dynamo's ForwardPassMetrics, one JSON object per iteration.
//!
//! `scheduled_requests` holds the sums over what ran: `num_prefill_requests, sum_prefill_tokens, sum_prefill_kv_tokens,
//! num_decode_requests, sum_decode_kv_tokens`; `wall_time` is in seconds; `worker_id`, `dp_rank` and `counter_id` say
//! whose iteration it is. Iterations without work or with a wall time of 0 are heartbeats and left out, as Dynamo does.
// Model: ranks that wait for each other are fitted each by its own work; the time of the slowest counts for all of them, so
// that fits to unevenly loaded ranks come out flatter than the engine is.

use super::{Observation, StepLog};
use crate::error::CalibrationError;
use crate::log_file::{Findings, LogFile};
use crate::work::Work;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    worker_id: String,
    #[serde(default)]
    dp_rank: u32,
    #[serde(default)]
    counter_id: Option<u64>,
    wall_time: f64,
    scheduled_requests: Scheduled,
}

#[derive(Deserialize)]
struct Scheduled {
    num_prefill_requests: u32,
    sum_prefill_tokens: u64,
    sum_prefill_kv_tokens: u64,
    num_decode_requests: u32,
    sum_decode_kv_tokens: u64,
}

/// Sums beyond this are no tokens of one step.
const MOST_TOKENS: u64 = 1 << 40;

pub(super) fn parse(file: &LogFile) -> Result<StepLog, CalibrationError> {
    let mut findings = Findings::new(&file.name);
    let mut observations = Vec::new();
    let mut idle = 0;
    // By worker and rank: line and counter of the iteration before.
    let mut last: BTreeMap<(String, u32), (usize, u64)> = BTreeMap::new();
    for (line, text) in file.lines() {
        let record: Record = match serde_json::from_str(text) {
            Ok(record) => record,
            Err(error) => {
                let hint = "docs/fits.md has the fields";
                findings.add(line, "", error, "forward-pass metrics", hint);
                continue;
            }
        };
        if let Some(counter) = record.counter_id {
            let key = (record.worker_id.clone(), record.dp_rank);
            if let Some((before, _)) = last.get(&key).filter(|(_, old)| *old >= counter) {
                let expected = format!("more than at line {before}");
                let hint = "an iteration is there twice, or lines are out of order";
                findings.add(line, "counter_id", counter, expected, hint);
            }
            last.insert(key, (line, counter));
        }
        if !(record.wall_time.is_finite() && record.wall_time >= 0.0) {
            let found = record.wall_time;
            findings.add(line, "wall_time", found, "seconds, 0 or more", "");
            continue;
        }
        match work(&record.scheduled_requests) {
            Err((field, found, expected)) => findings.add(line, field, found, expected, ""),
            Ok(work) if work.new_tokens() == 0 || record.wall_time == 0.0 => idle += 1,
            Ok(work) => observations.push(Observation {
                line,
                work,
                seconds: record.wall_time,
            }),
        }
    }
    if observations.is_empty() && findings.is_empty() {
        let found = format!("{idle} idle iterations and no other");
        findings.add(0, "", found, "iterations with work and time", "");
    }
    findings.finish()?;
    Ok(StepLog {
        file: file.name.clone(),
        digest: file.digest.clone(),
        form: "forward-pass",
        observations,
        between_steps: 0.0,
        idle,
    })
}

/// The work, or the field that cannot be, what is there and what should be.
fn work(sums: &Scheduled) -> Result<Work, (&'static str, u64, &'static str)> {
    for (field, found) in [
        ("sum_prefill_tokens", sums.sum_prefill_tokens),
        ("sum_prefill_kv_tokens", sums.sum_prefill_kv_tokens),
        ("sum_decode_kv_tokens", sums.sum_decode_kv_tokens),
    ] {
        if found > MOST_TOKENS {
            return Err((field, found, "at most 2^40 tokens"));
        }
    }
    if sums.sum_prefill_tokens < u64::from(sums.num_prefill_requests) {
        let expected = "at least one token per prefill request";
        return Err(("sum_prefill_tokens", sums.sum_prefill_tokens, expected));
    }
    if sums.sum_prefill_tokens > 0 && sums.num_prefill_requests == 0 {
        return Err((
            "num_prefill_requests",
            0,
            "at least 1, as there are prefill tokens",
        ));
    }
    if sums.num_decode_requests == 0 && sums.sum_decode_kv_tokens > 0 {
        return Err((
            "num_decode_requests",
            0,
            "at least 1, as there is decode context",
        ));
    }
    let prefill = if sums.num_prefill_requests > 0 {
        Work::from_sums(
            sums.num_prefill_requests,
            sums.sum_prefill_tokens,
            sums.sum_prefill_kv_tokens,
        )
    } else {
        Work::default()
    };
    Ok(Work {
        decode_batch: sums.num_decode_requests,
        // The metrics count what is cached, we also the token being computed.
        decode_context: sums.sum_decode_kv_tokens + u64::from(sums.num_decode_requests),
        ..prefill
    })
}
