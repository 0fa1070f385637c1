//! The records: one line per request, in the shape of AIPerf's `MetricRecordInfo`.

use super::tokens_per_s;
use crate::files::{Error, write_atomically};
use crate::rows::{duration, e2e_ms, tpot_ms};
use serde::Serialize;
use sim::{Outcome, Recording, RequestRecord};
use std::io::{self, Write};
use std::path::Path;

/// Writes the records to a file, one JSON object per line, warm-up requests under their own phase. Times are nanoseconds
/// since the start of the run.
///
/// # Errors
/// When the file cannot be written; nothing half-written is left.
pub fn write_records(recording: &Recording, path: &Path) -> Result<(), Error> {
    write_atomically(path, |out| records(recording, out))
}

fn records(recording: &Recording, out: &mut impl Write) -> io::Result<()> {
    for (index, request) in recording.sent() {
        serde_json::to_writer(&mut *out, &record(index, request))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Record {
    metadata: Metadata,
    metrics: Metrics,
    error: Option<RecordError>,
}

#[derive(Serialize)]
struct Metadata {
    session_num: usize,
    x_request_id: String,
    turn_index: u32,
    request_start_ns: u64,
    request_end_ns: u64,
    worker_id: String,
    record_processor_id: &'static str,
    benchmark_phase: &'static str,
    was_cancelled: bool,
    cancellation_time_ns: Option<u64>,
}

/// A value with its unit.
#[derive(Serialize)]
struct Measured<T> {
    value: T,
    unit: &'static str,
}

/// Metrics that a request does not have are left out.
#[derive(Serialize, Default)]
struct Metrics {
    #[serde(skip_serializing_if = "Option::is_none")]
    error_isl: Option<Measured<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_sequence_length: Option<Measured<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_sequence_length: Option<Measured<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token: Option<Measured<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_latency: Option<Measured<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inter_token_latency: Option<Measured<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_token_throughput_per_user: Option<Measured<f64>>,
}

#[derive(Serialize)]
struct RecordError {
    code: u32,
    r#type: &'static str,
    message: &'static str,
}

fn record(index: usize, request: &RequestRecord) -> Record {
    let ended = request.last_moment();
    let was_cancelled = matches!(request.outcome, Outcome::Unfinished | Outcome::Cancelled);
    let has_worker = request.worker != u32::MAX;
    let metadata = Metadata {
        session_num: index,
        x_request_id: format!("request-{index}"),
        turn_index: 0,
        request_start_ns: request.arrival.as_ns(),
        request_end_ns: ended.as_ns(),
        worker_id: if has_worker {
            format!("worker-{}", request.worker)
        } else {
            "front-end".to_owned()
        },
        record_processor_id: "dynosim",
        benchmark_phase: if request.is_warmup {
            "warmup"
        } else {
            "profiling"
        },
        was_cancelled,
        cancellation_time_ns: was_cancelled.then(|| ended.as_ns()),
    };
    match request.outcome {
        Outcome::Rejected(reason) => {
            let error = RecordError {
                code: 400,
                r#type: reason.name(),
                message: "rejected at the front end",
            };
            Record {
                metadata,
                metrics: metrics_of_rejected(request),
                error: Some(error),
            }
        }
        Outcome::Failed(reason) => {
            let error = RecordError {
                code: 500,
                r#type: reason.name(),
                message: "accepted and not answered",
            };
            Record {
                metadata,
                metrics: metrics_of_rejected(request),
                error: Some(error),
            }
        }
        Outcome::Completed | Outcome::Unfinished | Outcome::Cancelled => Record {
            metadata,
            metrics: metrics(request),
            error: None,
        },
    }
}

fn metrics_of_rejected(request: &RequestRecord) -> Metrics {
    let error_isl = Some(Measured {
        value: request.input_tokens,
        unit: "tokens",
    });
    Metrics {
        error_isl,
        ..Metrics::default()
    }
}

fn metrics(request: &RequestRecord) -> Metrics {
    let tokens = |value| {
        Some(Measured {
            value,
            unit: "tokens",
        })
    };
    let ms = |value: Option<f64>| value.map(|value| Measured { value, unit: "ms" });
    let per_user = |value| Measured {
        value,
        unit: "tokens/sec/user",
    };
    Metrics {
        error_isl: None,
        input_sequence_length: tokens(request.input_tokens),
        output_sequence_length: tokens(request.output_tokens),
        time_to_first_token: ms(duration(request.arrival, request.first_token)),
        request_latency: ms(e2e_ms(request)),
        inter_token_latency: ms(tpot_ms(request)),
        output_token_throughput_per_user: tokens_per_s(request).map(per_user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use serde_json::{Value, json};

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
}
