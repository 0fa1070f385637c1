//! `pools[].kv_cache_config`: TensorRT-LLM's secondary pool in host memory, under the names of its own configuration.

use super::kvbm::{bytes_per_token, pcie};
use super::section::Section;
use engine::{HostPool, WritePolicy};
use sim::HostSpec;
use sweeps::scenario::{Pool, Role};

/// Name of the section.
pub const SECTION: &str = "kv_cache_config";

/// What the configuration knows besides and a scenario says elsewhere, or this simulator does not know.
const NOT_MODELLED: [&str; 3] = [
    "secondary_offload_min_priority",
    "copy_on_partial_reuse",
    "event_buffer_max_size",
];
const ELSEWHERE: [(&str, &str); 3] = [
    ("max_tokens", "engine.max_tokens"),
    (
        "free_gpu_memory_fraction",
        "engine.free_gpu_memory_fraction",
    ),
    ("enable_block_reuse", "engine.enable_block_reuse"),
];

/// The secondary pool of a pool's workers; `None` where they have none, and after a problem.
pub fn read(section: &Section<'_>, pool: Option<&Pool>) -> Option<HostSpec> {
    section.not_modelled(&NOT_MODELLED);
    for (name, place) in ELSEWHERE {
        section.belongs_to(name, place);
    }
    let size = section.whole("host_cache_size", 0..=1 << 60);
    let is_on = size.is_some_and(|bytes| bytes > 0);
    let bytes_per_token = bytes_per_token(section, pool, is_on);
    let pcie = pcie(section, pool);
    for name in ["pcie_gb_per_s", "pcie_latency_us", "kv_bytes_per_token"] {
        if section.has(name) && !section.has("host_cache_size") {
            let found = "a setting of host memory that is not there";
            section.conflict(name, found, "host_cache_size beside it", "");
        }
    }
    let pool = pool.filter(|_| is_on)?;
    let complain = |found: &str, expected: &str| {
        section.conflict("host_cache_size", found, expected, "");
        None
    };
    let engine::EngineConfig::Trtllm(config) = &pool.engine else {
        return complain(
            "a secondary pool in an engine other than trtllm",
            "engine.backend trtllm; vllm has tiers as kvbm, sglang host memory as hicache",
        );
    };
    if !config.enable_block_reuse {
        return complain(
            "a secondary pool without reuse",
            "enable_block_reuse true: only contents that can be found again are kept",
        );
    }
    let is_spread = pool.engine.stages() > 1 || pool.engine.ranks() > 1;
    if is_spread || config.speculation.is_some() {
        return complain(
            "a secondary pool beside drafts, stages or ranks",
            "either: how copies share their steps is not modelled yet",
        );
    }
    if pool.role != Role::Aggregated {
        return complain(
            "a secondary pool where prefill and decode are apart",
            "pools of role aggregated: handing KV over from TensorRT-LLM is not modelled yet",
        );
    }
    let block = pool.engine.block_size();
    let bytes_per_token = bytes_per_token?;
    // Of each rank, which holds its share of the KV.
    let bytes = size? as f64 * f64::from(pool.gpus_per_worker());
    let tokens = (bytes / bytes_per_token as f64).min(f64::from(u32::MAX)) as u32;
    let tokens = tokens - tokens % block;
    if tokens == 0 {
        let expected = format!(
            "room for a block of {} bytes, or 0 for no such pool",
            bytes_per_token * u64::from(block)
        );
        return complain("less than one block", &expected);
    }
    Some(HostSpec {
        pool: HostPool {
            tokens,
            write_policy: WritePolicy::WriteBack,
            has_storage: false,
        },
        pcie: pcie?,
        kv_bytes_per_token: bytes_per_token,
        // A step begins when all is there.
        layers: 1,
        storage: None,
    })
}
