//! Dynamo's ForwardPassMetrics, one JSON object per iteration.
//!
//! `scheduled_requests` holds the sums over what ran: `num_prefill_requests, sum_prefill_tokens, sum_prefill_kv_tokens,
//! num_decode_requests, sum_decode_kv_tokens`; `wall_time` is in seconds; `worker_id`, `dp_rank` and `counter_id` say
//! whose iteration it is. Iterations without work or with a wall time of 0 are heartbeats and left out, as Dynamo does.
//! `host_time`, of ours, is the part of the wall time that passed before the device began.
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
    #[serde(default)]
    host_time: Option<f64>,
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
        let host = record.host_time.unwrap_or(0.0);
        if record.wall_time > 0.0 && !(0.0..record.wall_time).contains(&host) {
            let expected = "seconds, 0 or more and less than wall_time";
            findings.add(line, "host_time", host, expected, "");
            continue;
        }
        match work(&record.scheduled_requests) {
            Err((field, found, expected)) => findings.add(line, field, found, expected, ""),
            Ok(work) if work.new_tokens() == 0 || record.wall_time == 0.0 => idle += 1,
            Ok(work) => observations.push(Observation {
                line,
                work,
                seconds: record.wall_time - host,
                host_seconds: record.host_time,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(counter: u64, wall_time: &str, sums: [u64; 5]) -> String {
        let [n, p, k, d, c] = sums;
        format!(
            r#"{{"version":1,"worker_id":"w","dp_rank":0,"counter_id":{counter},"wall_time":{wall_time},"scheduled_requests":{{"num_prefill_requests":{n},"sum_prefill_tokens":{p},"var_prefill_length":0.0,"sum_prefill_kv_tokens":{k},"num_decode_requests":{d},"sum_decode_kv_tokens":{c},"var_decode_kv_tokens":0.0}},"queued_requests":{{}}}}"#
        )
    }

    fn read(lines: &[String]) -> Result<StepLog, CalibrationError> {
        StepLog::parse(&LogFile::from_text("fpm.jsonl", &lines.join("\n")))
    }

    #[test]
    fn iterations_become_steps_and_heartbeats_do_not() {
        let log = read(&[
            line(1, "0.02", [1, 100, 50, 2, 300]),
            line(2, "0.0", [0, 0, 0, 0, 0]),
            line(3, r#"0.01,"host_time":0.002"#, [0, 0, 0, 2, 302]),
        ])
        .expect("good");
        assert_eq!(
            (log.form, log.idle, log.observations.len()),
            ("forward-pass", 1, 2)
        );
        let work = log.observations[0].work;
        // 300 cached and the two tokens being computed; 100 new tokens after 50: 5,000 + 5,050 pairs.
        assert_eq!((work.decode_batch, work.decode_context), (2, 302));
        assert_eq!((work.prefill_tokens, work.prefill_pairs), (100, 10_050.0));
        assert_eq!(log.observations[0].host_seconds, None);
        assert_eq!(log.observations[1].seconds, 0.008);
        assert_eq!(log.observations[1].host_seconds, Some(0.002));
    }

    #[test]
    fn bad_iterations_are_all_named() {
        let error = read(&[
            line(5, "0.02", [0, 0, 0, 1, 10]),
            line(5, "0.02", [0, 0, 0, 1, 11]),
            line(6, "-0.02", [0, 0, 0, 1, 12]),
            line(7, "0.02", [2, 1, 0, 0, 0]),
            line(8, "0.02", [0, 0, 0, 0, 12]),
            line(9, "NaN", [0, 0, 0, 1, 12]),
            line(10, r#"0.02,"host_time":0.02"#, [0, 0, 0, 1, 12]),
        ])
        .expect_err("six mistakes")
        .to_string();
        for needle in [
            "fpm.jsonl:2: counter_id: found 5",
            "fpm.jsonl:3: wall_time: found -0.02",
            "fpm.jsonl:4: sum_prefill_tokens: found 1",
            "fpm.jsonl:5: num_decode_requests: found 0",
            "fpm.jsonl:6: found",
            "fpm.jsonl:7: host_time: found 0.02, expected seconds, 0 or more and less than wall_time",
        ] {
            assert!(error.contains(needle), "{needle}\n{error}");
        }
        let idle = read(&[line(1, "0.0", [0, 0, 0, 0, 0])])
            .expect_err("nothing")
            .to_string();
        assert!(idle.contains("1 idle iterations and no other"), "{idle}");
    }
}
