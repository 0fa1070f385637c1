//! What a scenario says about KV on its way from prefill to decode workers, in words and as JSON.

use serde_json::{Value, json};
use sim::disaggregation::conditional::IslBounding;
use sim::disaggregation::{Conditional, DisaggregationSpec, Enforcement, HandoffOrder, Overlap};
use sim::links::topology::NvLinkReach;
use sim::links::{NetworkSpec, Topology};

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
    let overlap = overlap(spec);
    let near = spec.domain.map_or(String::new(), |policy| {
        let name = policy.domain.name();
        match policy.enforcement {
            Enforcement::Required => format!("; both workers in one {name}"),
            Enforcement::Preferred(weight) => {
                format!("; both workers rather in one {name} (weight {weight})")
            }
        }
    });
    format!("{order}, {bytes} bytes per token{overlap}; {whole}{near}")
}

/// What moves while the rest is computed, behind a comma.
fn overlap(spec: &DisaggregationSpec) -> String {
    match spec.overlap {
        _ if spec.order != HandoffOrder::DestinationFirst => String::new(),
        Overlap::None => ", moved when all is computed".to_owned(),
        Overlap::Chunk => ", moved step by step".to_owned(),
        Overlap::Layer(layers) => format!(", moved layer by layer ({layers})"),
    }
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
    let whose = match (per_gpu, &spec.topology) {
        (_, Some(_)) => "network card",
        (true, None) => "GPU",
        (false, None) => "worker",
    };
    let place = (spec.topology.as_ref()).map_or(String::new(), |it| format!("; {}", topology(it)));
    let core = core_bytes_per_s.map_or(String::new(), |core| {
        format!(", {} GB/s for all together", gb(core))
    });
    format!(
        "{} GB/s for each {whose}{core}, {latency} latency, {setup} set-up{place}",
        gb(bytes_per_s)
    )
}

/// `2 nodes of 8 GPUs and 8 network cards on rails, NVLink within a node`.
fn topology(topology: &Topology) -> String {
    let Topology {
        gpus_per_node,
        nics_per_node,
        ..
    } = topology;
    let last = topology
        .placement
        .iter()
        .max()
        .map_or(0, |gpu| gpu / gpus_per_node + 1);
    let rails = if topology.has_rails { " on rails" } else { "" };
    let nvlink = match topology.nvlink.map(|nvlink| nvlink.reach) {
        None => "no NVLink between workers",
        Some(NvLinkReach::Node) => "NVLink within a node",
        Some(NvLinkReach::Rack) => "NVLink within a rack",
    };
    let level = |name: &str, over: Option<f64>| {
        over.map_or(String::new(), |over| format!(", {name} {over}:1"))
    };
    format!(
        "{last} nodes of {gpus_per_node} GPUs and {nics_per_node} network cards{rails}, {nvlink}{}{}",
        level("leaves", topology.leaf_oversubscription),
        level("spines", topology.spine_oversubscription),
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
        "topology": spec.topology.as_ref().map(topology),
        "first_gpus": spec.topology.as_ref().map(|topology| &topology.placement),
        "latency_us": latency.as_ms() * 1e3, "setup_ms": setup.as_ms(), "transfer_failure_rate": spec.failure_rate,
    })
}
