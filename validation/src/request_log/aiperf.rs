//! AIPerf's per-request export, `profile_export.jsonl`.
//!
//! Read are `metadata.x_request_id` (or `session_num`), `request_start_ns`, `request_end_ns`, `benchmark_phase`,
//! `was_cancelled`, and of `metrics` `time_to_first_token`, `request_latency`, `input_sequence_length` and
//! `output_sequence_length`, each `{value, unit}`. Records with an error, cancelled ones and those of a warm-up phase are
//! left out and counted.

use super::{Found, Raw};
use calibration::log_file::{Findings, LogFile};
use serde::Deserialize;

#[derive(Deserialize)]
struct Record {
    metadata: Metadata,
    #[serde(default)]
    metrics: Option<Metrics>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    x_request_id: Option<String>,
    #[serde(default)]
    session_num: Option<u64>,
    request_start_ns: u64,
    #[serde(default)]
    benchmark_phase: Option<String>,
    #[serde(default)]
    was_cancelled: bool,
}

#[derive(Deserialize)]
struct Metrics {
    time_to_first_token: Option<Value>,
    request_latency: Option<Value>,
    input_sequence_length: Option<Value>,
    output_sequence_length: Option<Value>,
}

#[derive(Deserialize)]
struct Value {
    value: f64,
    unit: String,
}

pub(super) fn read(file: &LogFile, findings: &mut Findings<'_>) -> Found {
    let mut found = Found::default();
    for (line, text) in file.lines() {
        let record: Record = match serde_json::from_str(text) {
            Ok(record) => record,
            Err(error) => {
                let hint = "docs/fits.md has the fields";
                findings.add(line, "", error, "a record of AIPerf", hint);
                continue;
            }
        };
        let is_warmup = record.metadata.benchmark_phase.as_deref() == Some("warmup");
        let metrics = record
            .metrics
            .filter(|_| record.error.is_none() && !record.metadata.was_cancelled && !is_warmup);
        let Some(metrics) = metrics else {
            found.failed += 1;
            continue;
        };
        found
            .requests
            .extend(request(line, &record.metadata, &metrics, findings));
    }
    let starts = found.requests.iter().map(|raw| raw.arrival_ns);
    found.recorded_unix_s = starts.min().map(|ns| ns as f64 * 1e-9);
    found
}

fn request(
    line: usize,
    metadata: &Metadata,
    metrics: &Metrics,
    findings: &mut Findings<'_>,
) -> Option<Raw> {
    let ttft = value(
        line,
        "time_to_first_token",
        &metrics.time_to_first_token,
        findings,
    );
    let e2e = value(line, "request_latency", &metrics.request_latency, findings);
    let input = value(
        line,
        "input_sequence_length",
        &metrics.input_sequence_length,
        findings,
    );
    let output = value(
        line,
        "output_sequence_length",
        &metrics.output_sequence_length,
        findings,
    );
    let start = metadata.request_start_ns;
    let number = || metadata.session_num.map(|number| number.to_string());
    let id = metadata.x_request_id.clone().or_else(number);
    let ns = |seconds: f64| (seconds * 1e9).round() as u64;
    Some(Raw {
        line,
        id: id.unwrap_or_else(|| format!("line {line}")),
        arrival_ns: start,
        counted_from_ns: start,
        first_token_ns: start.saturating_add(ns(ttft?)),
        last_token_ns: start.saturating_add(ns(e2e?)),
        input_tokens: input? as u64,
        output_tokens: output? as u64,
    })
}

/// Seconds, or tokens.
fn value(
    line: usize,
    field: &'static str,
    value: &Option<Value>,
    findings: &mut Findings<'_>,
) -> Option<f64> {
    let place = format!("metrics.{field}");
    let Some(Value { value, unit }) = value else {
        let hint = "AIPerf writes it for streaming requests (--streaming)";
        findings.add(line, &place, "nothing", "a value", hint);
        return None;
    };
    let to_unit = match unit.as_str() {
        "tokens" => 1.0,
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "sec" => 1.0,
        other => {
            findings.add(line, &place, other, "the unit tokens, ns, us, ms or s", "");
            return None;
        }
    };
    if (unit == "tokens") != field.ends_with("length") {
        findings.add(line, &place, unit, "a unit that fits", "");
        return None;
    }
    let scaled = value * to_unit;
    if !(scaled.is_finite() && (0.0..=1e9).contains(&scaled)) {
        findings.add(line, &place, value, "a number, 0 or more", "");
        return None;
    }
    Some(scaled)
}
