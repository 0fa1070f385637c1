//! A run under AIPerf's names, so that tools that read AIPerf's exports read ours.
//!
//! Two files, as AIPerf writes them: the aggregate (`profile_export_aiperf.json`, one object with a statistic per metric)
//! and the records (`profile_export.jsonl`, one line per request). AIPerf's `inter_token_latency` is our TPOT and its
//! `inter_chunk_latency` our ITL. Percentiles here are nearest-rank, where AIPerf interpolates.

mod records;

pub use records::write_records;

use crate::files::{Error, write_atomically};
use crate::report::Report;
use crate::rows::{duration, e2e_ms, tpot_ms};
use serde_json::{Value, json};
use sim::{Distribution, Outcome, Recording, RequestRecord};
use std::io::Write;
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
