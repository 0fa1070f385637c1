//! A run under AIPerf's names, so that tools that read AIPerf's exports read ours.
//!
//! Two files, as AIPerf writes them: the aggregate (`profile_export_aiperf.json`, one object with a statistic per metric)
//! and the records (`profile_export.jsonl`, one line per request). AIPerf's `inter_token_latency` is our TPOT and its
//! `inter_chunk_latency` our ITL. Percentiles here are nearest-rank, where AIPerf interpolates.

use crate::files::{Error, write_atomically};
use crate::report::Report;
use crate::rows::{duration, e2e_ms, tpot_ms};
use serde_json::{Map, Value, json};
use sim::{Distribution, Outcome, Recording, RequestRecord};
use std::io::{self, Write};
use std::path::Path;

/// The AIPerf export format that is followed.
const SCHEMA_VERSION: &str = "1.0";

/// The aggregate export as a JSON object.
#[must_use]
pub fn aggregate(report: &Report, recording: &Recording) -> Value {
    let is_served =
        |request: &&RequestRecord| request.outcome == Outcome::Completed && !request.is_warmup;
    let served: Vec<&RequestRecord> = recording.requests.iter().filter(is_served).collect();
    let over = |unit: &str, value: fn(&RequestRecord) -> Option<f64>| {
        statistics(
            unit,
            served.iter().filter_map(|request| value(request)).collect(),
        )
    };
    let summary = &report.summary;
    let rates = &summary.throughput;
    let total = |value: fn(&RequestRecord) -> u32| {
        served
            .iter()
            .map(|request| f64::from(value(request)))
            .sum::<f64>()
    };
    let mut export = json!({
        "schema_version": SCHEMA_VERSION,
        "aiperf_version": null,
        "dynosim_version": report.dynosim_version,
        "benchmark_id": report.digest,
        "was_cancelled": false,
        "time_to_first_token": over("ms", |request| duration(request.arrival, request.first_token)),
        "request_latency": over("ms", e2e_ms),
        "inter_token_latency": over("ms", tpot_ms),
        "inter_chunk_latency": from_distribution("ms", &summary.latency.itl_ms),
        "output_token_throughput_per_user": over("tokens/sec/user", tokens_per_s),
        "input_sequence_length": over("tokens", |request| Some(f64::from(request.input_tokens))),
        "output_sequence_length": over("tokens", |request| Some(f64::from(request.output_tokens))),
        "output_token_throughput": single("tokens/sec", rates.output_tokens_per_s),
        "total_token_throughput": single("tokens/sec", rates.total_tokens_per_s),
        "request_throughput": single("requests/sec", rates.requests_per_s),
        "request_count": single("requests", served.len() as f64),
        "error_request_count": single("requests", summary.requests.rejected as f64),
        "total_isl": single("tokens", total(|request| request.input_tokens)),
        "total_osl": single("tokens", total(|request| request.output_tokens)),
        "benchmark_duration": single("sec", rates.duration_s),
    });
    if let Some(goodput) = &summary.goodput {
        export["goodput"] = single("requests/sec", goodput.requests_per_s);
        export["good_request_count"] = single("requests", goodput.requests as f64);
    }
    let errors = summary.requests.rejected_by.iter().map(|(reason, count)| {
        json!({"error_details": {"code": 400, "type": reason, "message": "rejected at the front end"}, "count": count})
    });
    export["error_summary"] = errors.collect();
    export
}

/// Writes [`aggregate`] to a file.
///
/// # Errors
/// When the file cannot be written; nothing half-written is left.
pub fn write_aggregate(report: &Report, recording: &Recording, path: &Path) -> Result<(), Error> {
    write_atomically(path, |out| {
        serde_json::to_writer_pretty(&mut *out, &aggregate(report, recording))?;
        out.write_all(b"\n")
    })
}

/// Writes the records to a file, one JSON object per line, warm-up requests under their own phase. Times are nanoseconds
/// since the start of the run.
///
/// # Errors
/// When the file cannot be written; nothing half-written is left.
pub fn write_records(recording: &Recording, path: &Path) -> Result<(), Error> {
    write_atomically(path, |out| records(recording, out))
}

fn records(recording: &Recording, out: &mut impl Write) -> io::Result<()> {
    for (index, request) in recording.requests.iter().enumerate() {
        serde_json::to_writer(&mut *out, &record(index, request))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn record(index: usize, request: &RequestRecord) -> Value {
    let ended = request.finish.min(request.last_moment());
    let (is_unfinished, is_rejected) = (
        request.outcome == Outcome::Unfinished,
        matches!(request.outcome, Outcome::Rejected(_)),
    );
    let mut metrics = Map::new();
    let mut add = |name: &str, unit: &str, value: Option<Value>| {
        metrics.extend(value.map(|value| (name.to_owned(), json!({"value": value, "unit": unit}))));
    };
    if is_rejected {
        add("error_isl", "tokens", Some(request.input_tokens.into()));
    } else {
        add(
            "input_sequence_length",
            "tokens",
            Some(request.input_tokens.into()),
        );
        add(
            "output_sequence_length",
            "tokens",
            Some(request.output_tokens.into()),
        );
        add(
            "time_to_first_token",
            "ms",
            duration(request.arrival, request.first_token).map(Value::from),
        );
        add("request_latency", "ms", e2e_ms(request).map(Value::from));
        add(
            "inter_token_latency",
            "ms",
            tpot_ms(request).map(Value::from),
        );
        add(
            "output_token_throughput_per_user",
            "tokens/sec/user",
            tokens_per_s(request).map(Value::from),
        );
    }
    let error = match request.outcome {
        Outcome::Rejected(reason) => {
            json!({"code": 400, "type": reason.name(), "message": "rejected at the front end"})
        }
        Outcome::Completed | Outcome::Unfinished => Value::Null,
    };
    json!({
        "metadata": {
            "session_num": index,
            "x_request_id": format!("request-{index}"),
            "turn_index": 0,
            "request_start_ns": request.arrival.as_ns(),
            "request_end_ns": ended.as_ns(),
            "worker_id": if request.worker == u32::MAX { Value::Null } else { format!("worker-{}", request.worker).into() },
            "benchmark_phase": if request.is_warmup { "warmup" } else { "profiling" },
            "was_cancelled": is_unfinished,
            "cancellation_time_ns": is_unfinished.then(|| ended.as_ns()),
        },
        "metrics": metrics,
        "error": error,
    })
}

/// 1 / TPOT; `None` for a request whose tokens all came at once.
fn tokens_per_s(request: &RequestRecord) -> Option<f64> {
    tpot_ms(request)
        .filter(|&tpot| tpot > 0.0)
        .map(|tpot| 1000.0 / tpot)
}

fn single(unit: &str, value: f64) -> Value {
    json!({"unit": unit, "avg": value})
}

fn from_distribution(unit: &str, values: &Distribution) -> Value {
    if values.count == 0 {
        return json!({"unit": unit, "count": 0});
    }
    json!({
        "unit": unit, "count": values.count, "avg": values.mean, "min": values.min, "max": values.max,
        "p50": values.p50, "p90": values.p90, "p95": values.p95, "p99": values.p99,
    })
}

/// AIPerf's statistics of per-request values; the standard deviation is that of the population.
fn statistics(unit: &str, mut values: Vec<f64>) -> Value {
    let count = values.len();
    if count == 0 {
        return json!({"unit": unit, "count": 0});
    }
    values.sort_unstable_by(f64::total_cmp);
    let mean = values.iter().sum::<f64>() / count as f64;
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / count as f64;
    let mut statistics = json!({
        "unit": unit, "count": count, "avg": mean, "min": values[0], "max": values[count - 1], "std": variance.sqrt(),
    });
    for percent in [1, 5, 10, 25, 50, 75, 90, 95, 99] {
        statistics[format!("p{percent}")] =
            values[(percent * count).div_ceil(100).max(1) - 1].into();
    }
    statistics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_aggregate_has_aiperfs_names_for_our_metrics() {
        let (report, recording) = (sample::report(), sample::recording());
        let export = aggregate(&report, &recording);
        let latency = &report.summary.latency;
        for (name, ours) in [
            ("time_to_first_token", latency.ttft_ms),
            ("inter_token_latency", latency.tpot_ms),
            ("inter_chunk_latency", latency.itl_ms),
            ("request_latency", latency.e2e_ms),
        ] {
            let theirs = &export[name];
            assert_eq!(theirs["unit"], "ms");
            for (statistic, value) in [
                ("avg", ours.mean),
                ("min", ours.min),
                ("p50", ours.p50),
                ("p99", ours.p99),
                ("max", ours.max),
            ] {
                assert_eq!(
                    theirs[statistic].as_f64(),
                    Some(value),
                    "{name}.{statistic}"
                );
            }
        }
        assert_eq!(
            export["output_token_throughput"]["avg"],
            report.summary.throughput.output_tokens_per_s
        );
        // 5 tokens 100 ms apart and 3 tokens 200 ms apart: 10 and 5 tokens/s.
        assert_eq!(export["output_token_throughput_per_user"]["avg"], 7.5);
        assert_eq!(export["output_token_throughput_per_user"]["std"], 2.5);
        assert_eq!(
            (
                &export["request_count"]["avg"],
                &export["error_request_count"]["avg"]
            ),
            (&json!(2.0), &json!(1.0))
        );
        assert_eq!(
            export["error_summary"][0]["error_details"]["type"],
            "prompt_exceeds_kv_cache"
        );
    }

    #[test]
    fn records_by_the_letter() {
        let mut out = Vec::new();
        records(&sample::recording(), &mut out).unwrap();
        let lines: Vec<Value> = out
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 4);
        let ms = |value: f64| json!({"value": value, "unit": "ms"});
        assert_eq!(lines[1]["metadata"]["request_start_ns"], 200_000_000);
        assert_eq!(lines[1]["metadata"]["request_end_ns"], 900_000_000);
        assert_eq!(lines[1]["metrics"]["time_to_first_token"], ms(300.0));
        assert_eq!(lines[1]["metrics"]["inter_token_latency"], ms(200.0));
        assert_eq!(lines[1]["metrics"]["request_latency"], ms(700.0));
        assert_eq!(
            (&lines[2]["error"]["type"], &lines[2]["metrics"]),
            (
                &json!("prompt_exceeds_kv_cache"),
                &json!({"error_isl": {"value": 9000, "unit": "tokens"}}),
            )
        );
        assert_eq!(
            (
                &lines[3]["metadata"]["was_cancelled"],
                &lines[3]["metrics"].get("request_latency")
            ),
            (&json!(true), &None)
        );
    }

    #[test]
    fn an_empty_run_exports_no_statistics_and_no_nan() {
        let recording = Recording::default();
        let summary = sim::summarize(&recording, &[], None);
        let export = aggregate(
            &Report {
                summary,
                ..sample::report()
            },
            &recording,
        );
        assert_eq!(
            export["time_to_first_token"],
            json!({"unit": "ms", "count": 0})
        );
        assert!(!export.to_string().contains("null,\"p50\""));
        assert_eq!(export["request_throughput"]["avg"], 0.0);
    }
}
