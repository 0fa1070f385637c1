//! vLLM's options that its scheduler looks at, under vLLM's own names, and what does not go together.

use super::{Section, Settings, speculation};
use ::engine::vllm::{Eviction, SchedulingPolicy, VllmConfig, VllmVersion};
use sweeps::scenario::DEFAULT_GPU_MEMORY_UTILIZATION;

const POLICIES: [(&str, SchedulingPolicy); 2] = [
    ("fcfs", SchedulingPolicy::Fcfs),
    ("priority", SchedulingPolicy::Priority),
];

/// The order of vLLM, and an oracle.
const EVICTIONS: [(&str, Eviction); 2] = [("lru", Eviction::Lru), ("belady", Eviction::Belady)];

/// Its own fields.
pub const FIELDS: [&str; 19] = [
    "block_size",
    "num_gpu_blocks",
    "gpu_memory_utilization",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "long_prefill_token_threshold",
    "long_prefill_token_threshold_adaptive",
    "scheduler_reserve_full_isl",
    "max_num_active_seqs",
    "scheduling_policy",
    "policy",
    "watermark",
    "async_scheduling",
    "speculative_config",
    "version",
    "eviction",
];

/// Options of vLLM that change what a scheduler does and are not modelled.
const NOT_MODELLED: [&str; 19] = [
    "cpu_offload_gb",
    "disable_hybrid_kv_cache_manager",
    "enable_dbo",
    "enable_eplb",
    "enable_lora",
    "enforce_eager",
    "kv_cache_memory_bytes",
    "kv_offloading_size",
    "kv_transfer_config",
    "limit_mm_per_prompt",
    "max_long_partial_prefills",
    "max_loras",
    "max_num_partial_prefills",
    "num_gpu_blocks_override",
    "num_lookahead_slots",
    "num_scheduler_steps",
    "preemption_mode",
    "scheduler_cls",
    "swap_space",
];

/// Options of vLLM that a scenario says in another place.
const ELSEWHERE: [(&str, &str); 6] = [
    ("tensor_parallel_size", "pools[].parallel.tp"),
    ("pipeline_parallel_size", "pools[].parallel.pp"),
    ("data_parallel_size", "pools[].parallel.dp"),
    ("enable_expert_parallel", "pools[].parallel.ep"),
    ("model", "model"),
    ("seed", "seed"),
];

/// Reads its fields, and the share of a step that a draft takes. `model_len` is the model's longest context.
pub(super) fn read(section: &Section<'_>, model_len: Option<u32>) -> (Settings, Option<f64>) {
    section.not_modelled(&NOT_MODELLED);
    for (name, place) in ELSEWHERE {
        section.belongs_to(name, place);
    }
    let drafts = speculation::read(section);
    let default = VllmConfig::default();
    let most = VllmConfig::UNLIMITED;
    let whole =
        |name, least: u32, default: u32| section.whole32(name, least..=most).unwrap_or(default);
    let flag = |name, default: bool| section.flag(name).unwrap_or(default);
    let config = VllmConfig {
        version: version(section).unwrap_or(default.version),
        block_size: section
            .whole32("block_size", 1..=65_536)
            .unwrap_or(default.block_size),
        // Block 0 is never used.
        num_gpu_blocks: whole("num_gpu_blocks", 2, default.num_gpu_blocks),
        max_num_seqs: whole("max_num_seqs", 1, default.max_num_seqs),
        max_num_batched_tokens: whole("max_num_batched_tokens", 1, default.max_num_batched_tokens),
        max_model_len: whole(
            "max_model_len",
            2,
            model_len.unwrap_or(default.max_model_len),
        ),
        enable_prefix_caching: flag("enable_prefix_caching", default.enable_prefix_caching),
        enable_chunked_prefill: flag("enable_chunked_prefill", default.enable_chunked_prefill),
        long_prefill_token_threshold: whole(
            "long_prefill_token_threshold",
            0,
            default.long_prefill_token_threshold,
        ),
        long_prefill_token_threshold_adaptive: flag("long_prefill_token_threshold_adaptive", false),
        scheduler_reserve_full_isl: flag(
            "scheduler_reserve_full_isl",
            default.scheduler_reserve_full_isl,
        ),
        max_num_active_seqs: section.whole32("max_num_active_seqs", 1..=most),
        policy: policy(section).unwrap_or(default.policy),
        watermark: section
            .number("watermark", 0.0..=0.99)
            .unwrap_or(default.watermark),
        async_scheduling: flag("async_scheduling", default.async_scheduling),
        speculation: drafts.as_ref().map(|drafts| drafts.speculation.clone()),
        eviction: eviction(section).unwrap_or_default(),
        ..default
    };
    let settings = Settings::Vllm {
        has_blocks: section.has("num_gpu_blocks"),
        gpu_memory_utilization: section
            .number("gpu_memory_utilization", 0.01..=1.0)
            .unwrap_or(DEFAULT_GPU_MEMORY_UTILIZATION),
        config,
    };
    (settings, drafts.and_then(|drafts| drafts.share))
}

/// Not vLLM's: it always evicts what was used least recently.
fn eviction(section: &Section<'_>) -> Option<Eviction> {
    let is_there = section.has("eviction");
    is_there.then(|| section.choice("eviction", &EVICTIONS))?
}

/// The releases whose schedules were recorded.
fn version(section: &Section<'_>) -> Option<VllmVersion> {
    let (text, _) = section.text("version")?;
    let text = text.trim().trim_start_matches('v');
    let mut numbers = text.split('.');
    let release = match (
        numbers.next(),
        numbers.next(),
        numbers.all(|part| part.parse::<u32>().is_ok()),
    ) {
        (Some("0"), Some("32"), true) => Some(VllmVersion::V0_32),
        (Some("0"), Some("33"), true) => Some(VllmVersion::V0_33),
        _ => None,
    };
    if release.is_none() {
        let expected = "0.32 or 0.33, the releases whose schedules were recorded";
        section.mistake(
            "version",
            format!("`{text}`"),
            expected,
            "choose the nearer one",
        );
    }
    release
}

/// The command line calls it `scheduling_policy`, the configuration `policy`.
fn policy(section: &Section<'_>) -> Option<SchedulingPolicy> {
    let (long, short) = (
        section.choice("scheduling_policy", &POLICIES),
        section.choice("policy", &POLICIES),
    );
    if let (Some(long), Some(short)) = (long, short)
        && long != short
    {
        section.conflict(
            "policy",
            "another value than scheduling_policy",
            "one of the two",
            "remove one",
        );
    }
    long.or(short)
}

/// Combinations that vLLM refuses (R15), or that could never schedule anything.
pub fn conflicts(section: &Section<'_>, config: &VllmConfig) {
    let VllmConfig {
        max_num_batched_tokens,
        max_num_seqs,
        max_model_len,
        ..
    } = *config;
    if max_num_batched_tokens < max_num_seqs {
        let expected = format!("at least max_num_seqs, {max_num_seqs}, as vLLM asks for");
        let hint = format!("raise it to {max_num_seqs}, or lower max_num_seqs");
        section.conflict(
            "max_num_batched_tokens",
            max_num_batched_tokens.to_string(),
            expected,
            &hint,
        );
    }
    if !config.enable_chunked_prefill && max_num_batched_tokens < max_model_len {
        let length = if max_model_len == VllmConfig::UNLIMITED {
            "unlimited".to_owned()
        } else {
            max_model_len.to_string()
        };
        let expected = format!("at least max_model_len ({length}) when chunked prefill is off");
        let hint = "set max_model_len to at most max_num_batched_tokens, or switch enable_chunked_prefill on";
        section.conflict(
            "max_num_batched_tokens",
            max_num_batched_tokens.to_string(),
            expected,
            hint,
        );
    }
    if config.num_speculative_tokens() >= max_num_batched_tokens.min(max_model_len) {
        let found = format!("{} drafts", config.num_speculative_tokens());
        let expected = "fewer than max_num_batched_tokens and max_model_len";
        section.conflict("speculative_config", found, expected, "draft less");
    }
    if config.long_prefill_token_threshold > max_model_len {
        let expected = format!("at most max_model_len, {max_model_len}");
        section.conflict(
            "long_prefill_token_threshold",
            config.long_prefill_token_threshold.to_string(),
            expected,
            "",
        );
    }
}
