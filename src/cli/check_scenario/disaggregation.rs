//! What a scenario says about KV on its way from prefill to decode workers, in words and as JSON.

use serde_json::{Value, json};
use sim::disaggregation::conditional::IslBounding;
use sim::disaggregation::{Conditional, DisaggregationSpec, HandoffOrder};
use sim::links::NetworkSpec;

/// Who is chosen and reserved when, and what is moved.
pub fn handover(spec: &DisaggregationSpec) -> String {
    let bytes = spec.kv_bytes_per_token;
    let order = order(spec.order);
    let whole = match spec.conditional {
        None => "all requests".to_owned(),
        Some(Conditional::IslBounding(bounds)) => {
            let IslBounding {
                max_tokens,
                max_ratio,
            } = bounds;
            format!(
                "all but those with less than {max_tokens} tokens and {max_ratio} of the prompt to compute"
            )
        }
        Some(Conditional::PrefillLoad { threshold }) => {
            format!("all while some prefill worker has at most {threshold} batches to compute")
        }
        Some(Conditional::IslOrLoad(bounds, threshold)) => {
            let IslBounding {
                max_tokens,
                max_ratio,
            } = bounds;
            format!(
                "all but those with less than {max_tokens} tokens and {max_ratio} of the prompt to compute, while some \
                 prefill worker has at most {threshold} batches to compute"
            )
        }
        Some(Conditional::NonCached { max_tokens }) => {
            format!("all but those with less than {max_tokens} tokens to compute")
        }
    };
    format!("{order}, {bytes} bytes per token; {whole}")
}

fn order(order: HandoffOrder) -> &'static str {
    match order {
        HandoffOrder::SourceFirst => "source-first",
        HandoffOrder::DecodeFirst => "decode-first",
        HandoffOrder::DestinationFirst => "destination-first",
    }
}

/// How fast, and at what cost.
pub fn network(spec: &DisaggregationSpec) -> String {
    let NetworkSpec {
        bytes_per_s,
        per_gpu,
        core_bytes_per_s,
        latency,
        setup,
    } = spec.network;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let whose = if per_gpu { "GPU" } else { "worker" };
    let core = core_bytes_per_s.map_or(String::new(), |core| {
        format!(", {} GB/s for all together", gb(core))
    });
    format!(
        "{} GB/s for each {whose}{core}, {latency} latency, {setup} set-up",
        gb(bytes_per_s)
    )
}

/// The same as JSON.
pub fn json(spec: &DisaggregationSpec) -> Value {
    let NetworkSpec {
        bytes_per_s,
        per_gpu,
        core_bytes_per_s,
        latency,
        setup,
    } = spec.network;
    json!({
        "order": order(spec.order), "kv_bytes_per_token": spec.kv_bytes_per_token, "in_words": handover(spec),
        "bytes_per_s": bytes_per_s, "per_gpu": per_gpu, "core_bytes_per_s": core_bytes_per_s,
        "latency_us": latency.as_ms() * 1e3, "setup_ms": setup.as_ms(), "transfer_failure_rate": spec.failure_rate,
    })
}
