//! `lifecycle.stream_weights`.

use super::{bad, good};
use engine::Span;

const AGGREGATED: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
pools: [{name: agg, workers: 2}]
network: {preset: roce}
planner: {policy: hpa, target_queue_per_worker: 4, max_replicas: 4}
lifecycle: {stream_weights: true, schedule_s: 5, load_s: 60, warm_up_s: 8}
workload: {trace: {path: trace.jsonl}}
";

const APART: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
pools: [{name: p, role: prefill, workers: 2, parallel: {tp: 2}}, {name: d, role: decode, workers: 2}]
network: {preset: roce, topology: {preset: hgx, nvlink: none}}
planner: {policy: static}
lifecycle: {stream_weights: true, gpus: 32}
workload: {trace: {path: trace.jsonl}}
";

#[test]
fn weights_are_the_models_or_what_is_written() {
    let scenario = good(AGGREGATED, &[]);
    let planner = scenario.planner.unwrap();
    let weights = planner.weights.unwrap();
    // 8.03 billion weights of two bytes.
    assert!(
        (16_000_000_000..16_120_000_000).contains(&weights.bytes[0]),
        "{weights:?}"
    );
    assert_eq!(weights.network.unwrap().0.bytes_per_s, 11_000_000_000);
    assert_eq!(planner.startup.load, Span::from_s(60.0));
    assert!(scenario.disaggregation.is_none());
    let written = [("lifecycle.weights_gb", "3.5")];
    let planner = good(AGGREGATED, &written).planner.unwrap();
    assert_eq!(planner.weights.unwrap().bytes, [3_500_000_000]);
    let preset = [(
        "lifecycle",
        "{stream_weights: true, startup: model-express}",
    )];
    let planner = good(AGGREGATED, &preset).planner.unwrap();
    assert_eq!(planner.startup.load, Span::from_s(120.0));
    assert_eq!(planner.startup.load_from_neighbour, None);
}

#[test]
fn every_place_has_its_gpus_in_a_topology() {
    let scenario = good(APART, &[]);
    let planner = scenario.planner.unwrap();
    let weights = planner.weights.clone().unwrap();
    assert_eq!(weights.network, None);
    // Workers of two GPUs hold the same weights, norms twice.
    assert!(weights.bytes[0] >= weights.bytes[1]);
    let places: u32 = planner.places(&scenario.pools).unwrap().iter().sum();
    let topology = scenario.disaggregation.unwrap().topology.unwrap();
    assert_eq!(topology.placement.len(), places as usize);
    // And without weights too.
    let without = [("lifecycle.stream_weights", "null")];
    let scenario = good(APART, &without);
    assert!(scenario.disaggregation.unwrap().topology.is_some());
}

#[test]
fn what_cannot_be_streamed_is_refused() {
    for (text, set, part) in [
        (
            AGGREGATED,
            ("network", "null"),
            "lifecycle.stream_weights: found weights over links that nobody describes, expected a section network",
        ),
        (
            AGGREGATED,
            ("lifecycle.load_from_neighbour_s", "17"),
            "lifecycle.load_from_neighbour_s: found a time beside stream_weights",
        ),
        (
            AGGREGATED,
            ("lifecycle", "{stream_weights: true, startup_s: 45}"),
            "lifecycle.startup_s: found a total beside stream_weights",
        ),
        (
            AGGREGATED,
            ("lifecycle", "{weights_gb: 4}"),
            "lifecycle.weights_gb: found a size of what nobody sends",
        ),
        (
            AGGREGATED,
            ("lifecycle.stream_weights", "false"),
            "network: found a section that nothing uses",
        ),
        (
            AGGREGATED,
            ("lifecycle.weights_gb", "0"),
            "lifecycle.weights_gb: found `0`",
        ),
        (
            APART,
            ("disaggregation", "{kv_transfer_domain: host}"),
            "disaggregation.kv_transfer_domain: found a domain beside a planner",
        ),
        (
            APART,
            ("network.topology.placement", "{p: [0, 0], d: [1, 1]}"),
            "the node of each of the",
        ),
    ] {
        let told = bad(text, &[set]).join("\n");
        assert!(told.contains(part), "{part}\n{told}");
    }
}
