//! TensorRT-LLM's options that its scheduler looks at, under the names of its LLM arguments, those of `kv_cache_config` and
//! `scheduler_config` beside the others.

use super::Section;
use super::speculation::trtllm as drafts;
use ::engine::trtllm::{CapacityPolicy, TrtllmConfig};
use sweeps::scenario::Parallel;
use sweeps::trtllm_server::{DEFAULT_FREE_GPU_MEMORY_FRACTION, TrtllmOptions};

const POLICIES: [(&str, CapacityPolicy); 2] = [
    ("GUARANTEED_NO_EVICT", CapacityPolicy::GuaranteedNoEvict),
    ("MAX_UTILIZATION", CapacityPolicy::MaxUtilization),
];

/// Its own fields.
pub const FIELDS: [&str; 13] = [
    "tokens_per_block",
    "max_tokens",
    "free_gpu_memory_fraction",
    "max_batch_size",
    "max_num_tokens",
    "max_seq_len",
    "enable_block_reuse",
    "enable_chunked_prefill",
    "capacity_scheduler_policy",
    "context_chunking_policy",
    "disable_overlap_scheduler",
    "speculative_config",
    "version",
];

/// Options that change what a scheduler does and are not modelled.
const NOT_MODELLED: [&str; 13] = [
    "attention_dp_config",
    "batch_wait_timeout_ms",
    "cache_transceiver_config",
    "cuda_graph_config",
    "dynamic_batch_config",
    "enable_partial_reuse",
    "kv_connector_config",
    "lora_config",
    "max_attention_window",
    "max_beam_width",
    "peft_cache_config",
    "sink_token_length",
    "stream_interval",
];

/// Options that a scenario says in another place.
const ELSEWHERE: [(&str, &str); 7] = [
    ("host_cache_size", "pools[].kv_cache_config.host_cache_size"),
    ("tensor_parallel_size", "pools[].parallel.tp"),
    ("pipeline_parallel_size", "pools[].parallel.pp"),
    ("enable_attention_dp", "pools[].parallel.dp"),
    ("moe_expert_parallel_size", "pools[].parallel.ep"),
    ("model", "model"),
    ("seed", "seed"),
];

/// Reads its fields, and the share of a step that a draft takes. `model_len` is the model's longest context.
pub fn read(section: &Section<'_>, model_len: Option<u32>) -> (TrtllmOptions, Option<f64>) {
    section.not_modelled(&NOT_MODELLED);
    for (name, place) in ELSEWHERE {
        section.belongs_to(name, place);
    }
    version(section);
    if let (Some(false), Some(field)) = (
        section.flag("disable_overlap_scheduler"),
        section.field("disable_overlap_scheduler"),
    ) {
        section.unmodelled(&field, "steps are scheduled without overlap");
    }
    chunking_policy(section);
    let drafts = drafts::read(section);
    let default = TrtllmConfig::default();
    let most = TrtllmConfig::UNLIMITED;
    let whole =
        |name, least: u32, default: u32| section.whole32(name, least..=most).unwrap_or(default);
    let flag = |name, default: bool| section.flag(name).unwrap_or(default);
    let config = TrtllmConfig {
        tokens_per_block: section
            .whole32("tokens_per_block", 1..=65_536)
            .unwrap_or(default.tokens_per_block),
        num_blocks: default.num_blocks,
        max_batch_size: whole("max_batch_size", 1, default.max_batch_size),
        max_num_tokens: whole("max_num_tokens", 1, default.max_num_tokens),
        max_seq_len: whole("max_seq_len", 2, model_len.unwrap_or(default.max_seq_len)),
        enable_block_reuse: flag("enable_block_reuse", default.enable_block_reuse),
        enable_chunked_prefill: flag("enable_chunked_prefill", default.enable_chunked_prefill),
        capacity_scheduler_policy: policy(section).unwrap_or(default.capacity_scheduler_policy),
        speculation: drafts.as_ref().map(|drafts| drafts.speculation.clone()),
        ..default
    };
    let options = TrtllmOptions {
        max_tokens: section.whole32("max_tokens", 1..=most),
        free_gpu_memory_fraction: section
            .number("free_gpu_memory_fraction", 0.01..=1.0)
            .unwrap_or(DEFAULT_FREE_GPU_MEMORY_FRACTION),
        config,
    };
    (options, drafts.and_then(|drafts| drafts.share))
}

/// Stages and ranks that do not go with the rest.
pub fn spread(
    config: &TrtllmConfig,
    parallel: Parallel,
    engine: &Section<'_>,
    widths: &Section<'_>,
) {
    if parallel.data > 1 && parallel.tensor > 1 {
        let expected = "1 beside dp: TensorRT-LLM's ranks hold attention whole";
        let hint = "enable_attention_dp with tensor_parallel_size 8 is `{tp: 1, dp: 8}`";
        widths.conflict("tp", parallel.tensor.to_string(), expected, hint);
    }
    if parallel.pipeline > 1 && config.capacity_scheduler_policy == CapacityPolicy::MaxUtilization {
        engine.conflict(
            "capacity_scheduler_policy",
            "MAX_UTILIZATION with stages",
            "GUARANTEED_NO_EVICT: pauses of what is in flight are not modelled yet",
            "",
        );
    }
}

/// The release that the rules are nearest to.
fn version(section: &Section<'_>) {
    let Some((text, _)) = section.text("version") else {
        return;
    };
    let text = text.trim().trim_start_matches('v');
    if text != "1.2" && !text.starts_with("1.2.") {
        section.mistake(
            "version",
            format!("`{text}`"),
            "1.2, the release that the rules are nearest to",
            "choose it, or leave it out",
        );
    }
}

fn policy(section: &Section<'_>) -> Option<CapacityPolicy> {
    let name = "capacity_scheduler_policy";
    let (text, field) = section.text(name)?;
    if text.trim().to_uppercase().replace('-', "_") == "STATIC_BATCH" {
        let modelled = "GUARANTEED_NO_EVICT and MAX_UTILIZATION are modelled";
        section.unmodelled(&field, modelled);
        return None;
    }
    section.choice(name, &POLICIES)
}

fn chunking_policy(section: &Section<'_>) {
    let name = "context_chunking_policy";
    let Some((text, field)) = section.text(name) else {
        return;
    };
    if text.trim().to_uppercase().replace('-', "_") == "EQUAL_PROGRESS" {
        section.unmodelled(&field, "FIRST_COME_FIRST_SERVED is modelled");
    } else {
        section.choice(name, &[("FIRST_COME_FIRST_SERVED", ())]);
    }
}

/// Combinations that could never schedule anything, or end badly in the real one.
pub fn conflicts(section: &Section<'_>, config: &TrtllmConfig) {
    let block = config.tokens_per_block;
    if config.num_blocks == 0 {
        let expected = format!("at least one block of {block} tokens");
        section.conflict("max_tokens", "less than a block", expected, "");
    }
    let drafts = config.max_draft_len();
    if drafts >= config.max_num_tokens {
        let found = format!("{drafts} drafts");
        section.conflict(
            "speculative_config",
            found,
            "fewer than max_num_tokens",
            "draft less",
        );
    }
    let is_chunking = config.enable_chunked_prefill;
    if is_chunking && config.max_num_tokens < block {
        section.conflict(
            "max_num_tokens",
            config.max_num_tokens.to_string(),
            format!("at least tokens_per_block, {block}, the unit of chunks"),
            "",
        );
    }
    if !is_chunking && config.capacity_scheduler_policy == CapacityPolicy::MaxUtilization {
        section.conflict(
            "capacity_scheduler_policy",
            "MAX_UTILIZATION without chunked prefill",
            "enable_chunked_prefill: true, as a paused request with its outputs can outgrow a step",
            "",
        );
    }
}
