//! What a scenario says about tiers below the GPU's KV cache, in words and as JSON.

use serde_json::{Value, json};
use sim::KvbmSpec;
use sim::kvbm::Eviction;
use sim::kvbm::spec::{Medium, OffloadPolicy, Speed, TierSpec};

const GB: f64 = 1e9;

/// Tiers from the fastest to the slowest.
pub fn in_words(spec: &KvbmSpec) -> String {
    let tiers: Vec<String> = spec.tiers.iter().map(tier_in_words).collect();
    let pcie = spec.pcie.read_bytes_per_s as f64 / GB;
    let how = offload(spec);
    let prefetch = if spec.prefetch { ", prefetch" } else { "" };
    format!(
        "{}; PCIe {pcie} GB/s each way, {how}{prefetch}, {} bytes per token",
        tiers.join("; "),
        spec.kv_bytes_per_token
    )
}

fn tier_in_words(tier: &TierSpec) -> String {
    let name = tier.medium.name();
    let filter = if tier.filter.is_some() {
        ", filtered"
    } else {
        ""
    };
    let speed = speed(tier).map_or(String::new(), |speed| {
        let [read, write] =
            [speed.read_bytes_per_s, speed.write_bytes_per_s].map(|it| it as f64 / GB);
        format!(", reads {read} and writes {write} GB/s")
    });
    format!(
        "{name} of {} blocks ({}{filter}{speed})",
        tier.blocks,
        eviction(tier.eviction)
    )
}

/// The same for programs.
pub fn json(spec: &KvbmSpec) -> Value {
    let tier = |tier: &TierSpec| {
        json!({
            "tier": tier.medium.name(), "blocks": tier.blocks, "eviction": eviction(tier.eviction),
            "is_filtered": tier.filter.is_some(),
            "read_gb_per_s": speed(tier).map(|it| it.read_bytes_per_s as f64 / GB),
            "write_gb_per_s": speed(tier).map(|it| it.write_bytes_per_s as f64 / GB),
        })
    };
    json!({
        "tiers": spec.tiers.iter().map(tier).collect::<Vec<_>>(), "offload": offload(spec), "prefetch": spec.prefetch,
        "pcie_gb_per_s": spec.pcie.read_bytes_per_s as f64 / GB, "kv_bytes_per_token": spec.kv_bytes_per_token,
    })
}

fn speed(tier: &TierSpec) -> Option<Speed> {
    match tier.medium {
        Medium::Host => None,
        Medium::Disk(speed) | Medium::Object(speed) => Some(speed),
    }
}

fn offload(spec: &KvbmSpec) -> &'static str {
    match spec.offload {
        OffloadPolicy::WriteThrough => "write-through",
        OffloadPolicy::OnEvict => "on-evict",
    }
}

fn eviction(eviction: Eviction) -> String {
    match eviction {
        Eviction::Lru => "lru".to_owned(),
        Eviction::Frequency => "frequency".to_owned(),
        Eviction::Priority => "priority".to_owned(),
        Eviction::Ttl(span) => format!("ttl {} s", span.as_s()),
    }
}
