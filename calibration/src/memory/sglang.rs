//! SGLang: a share of the memory that is free before the weights are loaded holds weights and KV cache; the rest is for
//! activations, CUDA graphs and everything else, and is not counted.
//!
//! ```text
//! KV bytes = (memory − context − collectives) · mem_fraction_static − weights
//! ```
//!
//! Unless given, the share follows from what is reserved, in MiB (`ServerArgs` of SGLang 0.5, tiers by GPU memory):
//!
//! ```text
//! reserved            = 512 + 1.5 · max(chunked_prefill_size, 2048) + 2 · cuda_graph_max_bs + 1024 · tp / 8
//!                       and at least 10,240 on more than 60 GiB
//! mem_fraction_static = round((memory − reserved) / memory, 3 digits)
//! ```
//!
//! Layers with a window have a pool of their own with `swa_full_tokens_ratio`, 0.8, times the tokens of the other one.

use super::{Budget, KvQuestion, MIB, fraction};

/// `swa_full_tokens_ratio`, in tenths.
const WINDOW_TENTHS: u64 = 8;

// Model: context and allocator take 0.6 GiB before the weights are loaded, with collectives over several GPUs 1.2 GiB
// more; some 1 % of the KV cache of an 80 GB GPU either way.
const CONTEXT_BYTES: u64 = 614 * MIB;
const COLLECTIVE_BYTES: u64 = 1_228 * MIB;

pub(super) fn budget(question: &KvQuestion<'_>) -> Budget {
    let collectives = if question.tensor_parallel > 1 {
        COLLECTIVE_BYTES
    } else {
        0
    };
    let memory = question.gpu.memory_bytes.value;
    let free = memory.saturating_sub(CONTEXT_BYTES + collectives) as f64;
    Budget {
        usable_bytes: (free * fraction(question)) as u64,
        reserved_bytes: 0,
    }
}

/// Bytes of a token of the larger pool and of its part of a token of the other.
pub(super) fn bytes_per_token(question: &KvQuestion<'_>) -> u64 {
    let KvQuestion {
        model,
        tensor_parallel,
        kv_cache,
        ..
    } = *question;
    let per_layer = model.kv_bytes_per_token_and_layer(tensor_parallel, kv_cache);
    let windowed = model.window.map_or(0, |window| u64::from(window.layers));
    u64::from(model.full_layers()) * per_layer + windowed * per_layer * WINDOW_TENTHS / 10
}

/// `mem_fraction_static` where nobody gives one.
pub(super) fn default_fraction(question: &KvQuestion<'_>) -> f64 {
    let memory_mib = question.gpu.memory_bytes.value as f64 / MIB as f64;
    let tp = question.tensor_parallel;
    let chunk = f64::from(question.max_num_batched_tokens.max(2_048));
    let reserved = 512.0
        + 1.5 * chunk
        + 2.0 * f64::from(largest_graph(memory_mib, tp))
        + 1_024.0 * f64::from(tp) / 8.0;
    let least = if memory_mib > 60.0 * 1_024.0 {
        10_240.0
    } else {
        0.0
    };
    let fraction = (memory_mib - reserved.max(least)) / memory_mib;
    ((fraction * 1e3).round() / 1e3).max(0.001)
}

/// `cuda_graph_max_bs`: the largest batch with a CUDA graph.
fn largest_graph(memory_mib: f64, tp: u32) -> u32 {
    let (narrow, wide) = match memory_mib / 1_024.0 {
        gib if gib < 20.0 => (8, 8),
        gib if gib < 35.0 => (24, 80),
        gib if gib < 60.0 => (32, 160),
        gib if gib < 160.0 => (256, 512),
        _ => (512, 512),
    };
    if tp < 4 { narrow } else { wide }
}
