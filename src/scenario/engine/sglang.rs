//! SGLang's options that its scheduler looks at, under the names of its server arguments.

use super::Section;
use super::speculation::sglang as drafts;
use ::engine::sglang::{SglangConfig, SglangPolicy};
use sweeps::sglang_server::{ChunkedPrefill, SglangOptions};

const POLICIES: [(&str, SglangPolicy); 3] = [
    ("fcfs", SglangPolicy::Fcfs),
    ("lpm", SglangPolicy::Lpm),
    ("dfs-weight", SglangPolicy::DfsWeight),
];
/// Policies of SGLang without recorded schedules.
const OTHER_POLICIES: [&str; 4] = ["lof", "random", "priority", "routing-key"];

/// Its own fields, but for drafts.
pub const OWN: [&str; 16] = [
    "page_size",
    "max_total_tokens",
    "mem_fraction_static",
    "max_running_requests",
    "chunked_prefill_size",
    "max_prefill_tokens",
    "context_length",
    "schedule_policy",
    "schedule_conservativeness",
    "disable_radix_cache",
    "enable_mixed_chunk",
    "disable_overlap_schedule",
    "ignore_eos",
    "pp_max_micro_batch_size",
    "num_reserved_decode_tokens",
    "version",
];

/// Options that change what a scheduler does and are not modelled.
const NOT_MODELLED: [&str; 23] = [
    "cpu_offload_gb",
    "cuda_graph_bs",
    "cuda_graph_max_bs",
    "disable_chunked_prefix_cache",
    "disable_cuda_graph",
    "disaggregation_mode",
    "enable_dynamic_chunking",
    "enable_eplb",
    "enable_lora",
    "enable_priority_scheduling",
    "enable_two_batch_overlap",
    "lora_paths",
    "max_queued_requests",
    "moe_dp_size",
    "num_continuous_decode_steps",
    "load_balance_method",
    "pp_async_batch_depth",
    "prefill_max_requests",
    "radix_eviction_policy",
    "speculative_attention_mode",
    "speculative_token_map",
    "stream_interval",
    "swa_full_tokens_ratio",
];

/// Options that a scenario says in another place.
const ELSEWHERE: [(&str, &str); 13] = [
    ("enable_hierarchical_cache", "pools[].hicache"),
    ("hicache_ratio", "pools[].hicache.hicache_ratio"),
    ("hicache_size", "pools[].hicache.hicache_size"),
    (
        "hicache_write_policy",
        "pools[].hicache.hicache_write_policy",
    ),
    ("tp_size", "pools[].parallel.tp"),
    ("tensor_parallel_size", "pools[].parallel.tp"),
    ("dp_size", "pools[].parallel.dp"),
    ("enable_dp_attention", "pools[].parallel.dp"),
    ("pp_size", "pools[].parallel.pp"),
    ("ep_size", "pools[].parallel.ep"),
    ("model_path", "model"),
    ("model", "model"),
    ("random_seed", "seed"),
];

/// Its own fields.
pub const FIELDS: [&str; OWN.len() + drafts::FIELDS.len()] = {
    let mut all = [""; OWN.len() + drafts::FIELDS.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < OWN.len() {
            OWN[at]
        } else {
            drafts::FIELDS[at - OWN.len()]
        };
        at += 1;
    }
    all
};

/// Reads its fields, and the share of a step that a draft takes. `model_len` is the model's longest context.
pub fn read(section: &Section<'_>, model_len: Option<u32>) -> (SglangOptions, Option<f64>) {
    section.not_modelled(&NOT_MODELLED);
    for (name, place) in ELSEWHERE {
        section.belongs_to(name, place);
    }
    version(section);
    if let (Some(false), Some(field)) = (
        section.flag("disable_overlap_schedule"),
        section.field("disable_overlap_schedule"),
    ) {
        section.unmodelled(&field, "steps are scheduled without overlap");
    }
    let (speculation, share) = match drafts::read(section) {
        Some((drafts, share)) => (Some(drafts), share),
        None => (None, None),
    };
    let default = SglangConfig::default();
    let most = SglangConfig::UNLIMITED;
    let config = SglangConfig {
        page_size: section
            .whole32("page_size", 1..=65_536)
            .unwrap_or(default.page_size),
        max_prefill_tokens: section
            .whole32("max_prefill_tokens", 1..=most)
            .unwrap_or(default.max_prefill_tokens),
        schedule_policy: policy(section).unwrap_or(default.schedule_policy),
        schedule_conservativeness: section
            .number("schedule_conservativeness", 0.0..=100.0)
            .unwrap_or(default.schedule_conservativeness),
        disable_radix_cache: section.flag("disable_radix_cache").unwrap_or(false),
        mixed_chunk: section.flag("enable_mixed_chunk").unwrap_or(false),
        context_length: section
            .whole32("context_length", 8..=most)
            .or(model_len)
            .unwrap_or(default.context_length),
        ignore_eos: section.flag("ignore_eos").unwrap_or(false),
        speculation,
        pp_max_micro_batch_size: section.whole32("pp_max_micro_batch_size", 1..=most),
        num_reserved_decode_tokens: section.whole32("num_reserved_decode_tokens", 0..=most),
        ..default
    };
    let options = SglangOptions {
        chunked_prefill_size: chunked_prefill_size(section),
        mem_fraction_static: section.number("mem_fraction_static", 0.01..=1.0),
        max_total_tokens: section.whole32("max_total_tokens", 8..=most),
        max_running_requests: section.whole32("max_running_requests", 1..=most),
        config,
    };
    (options, share)
}

/// -1 switches it off.
fn chunked_prefill_size(section: &Section<'_>) -> Option<ChunkedPrefill> {
    let name = "chunked_prefill_size";
    let size = section.number(name, -1.0..=f64::from(SglangConfig::UNLIMITED))?;
    if size == -1.0 {
        return Some(ChunkedPrefill::Off);
    }
    section
        .whole32(name, 1..=SglangConfig::UNLIMITED)
        .map(ChunkedPrefill::Tokens)
}

/// The release whose schedules were recorded.
fn version(section: &Section<'_>) {
    let Some((text, _)) = section.text("version") else {
        return;
    };
    let text = text.trim().trim_start_matches('v');
    if !["0.5", "0.5.23"].contains(&text) {
        section.mistake(
            "version",
            format!("`{text}`"),
            "0.5.23, the release whose schedules were recorded",
            "choose it, or leave it out",
        );
    }
}

fn policy(section: &Section<'_>) -> Option<SglangPolicy> {
    let (text, field) = section.text("schedule_policy")?;
    let word = text.trim().to_lowercase().replace('_', "-");
    if OTHER_POLICIES.contains(&word.as_str()) {
        section.unmodelled(&field, "fcfs, lpm and dfs-weight are modelled");
        return None;
    }
    section.choice("schedule_policy", &POLICIES)
}

/// Combinations that SGLang refuses or ignores, or that could never schedule anything.
pub fn conflicts(section: &Section<'_>, config: &SglangConfig) {
    let page = config.page_size;
    match config.chunked_prefill_size {
        Some(size) if size % page != 0 => section.conflict(
            "chunked_prefill_size",
            size.to_string(),
            format!("a multiple of page_size, {page}, as SGLang asks for"),
            &format!("write {}", size.next_multiple_of(page)),
        ),
        None if config.mixed_chunk => section.conflict(
            "enable_mixed_chunk",
            "mixed chunks while chunked prefill is off",
            "chunks to mix decodes into",
            "give chunked_prefill_size, or remove it",
        ),
        _ => {}
    }
    if config.mixed_chunk && config.speculation.is_some() {
        section.conflict(
            "enable_mixed_chunk",
            "mixed chunks beside drafts",
            "false: SGLang switches them off where tokens are drafted",
            "remove it",
        );
    }
    if config.usable_tokens() == 0 {
        section.conflict(
            "max_total_tokens",
            config.max_total_tokens.to_string(),
            format!("at least one page of {page} tokens"),
            "",
        );
    }
}
