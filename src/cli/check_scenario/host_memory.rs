//! What a scenario says about host memory that engines use themselves, in words and as JSON.

use engine::WritePolicy;
use serde_json::{Value, json};
use sim::HostSpec;
use sim::host::{PrefetchPolicy, StorageSpec};

const GB: f64 = 1e9;

/// Its size, its speed, its policy.
pub fn in_words(spec: &HostSpec) -> String {
    let storage = spec.storage.map_or(String::new(), |storage| {
        let [read, write] = [
            storage.speed.read_bytes_per_s,
            storage.speed.write_bytes_per_s,
        ];
        format!(
            "; storage of {} pages, reads {} and writes {} GB/s, prefetch {} from {} tokens on",
            storage.pages,
            read as f64 / GB,
            write as f64 / GB,
            prefetch(storage.policy),
            storage.threshold_tokens
        )
    });
    format!(
        "host memory for {} tokens, {}; PCIe {} GB/s each way, {} bytes per token, {} layers{storage}",
        spec.pool.tokens,
        policy(spec),
        spec.pcie.read_bytes_per_s as f64 / GB,
        spec.kv_bytes_per_token,
        spec.layers
    )
}

/// The same for programs.
pub fn json(spec: &HostSpec) -> Value {
    let storage = |storage: StorageSpec| {
        json!({
            "pages": storage.pages, "read_gb_per_s": storage.speed.read_bytes_per_s as f64 / GB,
            "write_gb_per_s": storage.speed.write_bytes_per_s as f64 / GB,
            "hicache_storage_prefetch_policy": prefetch(storage.policy), "prefetch_threshold": storage.threshold_tokens,
        })
    };
    json!({
        "tokens": spec.pool.tokens, "hicache_write_policy": policy(spec),
        "pcie_gb_per_s": spec.pcie.read_bytes_per_s as f64 / GB, "kv_bytes_per_token": spec.kv_bytes_per_token,
        "num_layers": spec.layers, "storage": spec.storage.map(storage),
    })
}

fn prefetch(policy: PrefetchPolicy) -> &'static str {
    match policy {
        PrefetchPolicy::BestEffort => "best_effort",
        PrefetchPolicy::WaitComplete => "wait_complete",
        PrefetchPolicy::Timeout { .. } => "timeout",
    }
}

fn policy(spec: &HostSpec) -> &'static str {
    match spec.pool.write_policy {
        WritePolicy::WriteThrough => "write_through",
        WritePolicy::WriteThroughSelective => "write_through_selective",
        WritePolicy::WriteBack => "write_back",
    }
}
