//! SGLang: a share of the memory that is free before the weights are loaded holds weights and KV cache; the rest is for
//! activations, CUDA graphs and everything else, and is not counted.
//!
//! ```text
//! KV bytes = (memory − context − collectives) · mem_fraction_static − weights
//! ```
//!
//! Unless given, the share is what its server decides (`engine::sglang::defaults`).
//!
//! Layers with a window have a pool of their own with `swa_full_tokens_ratio`, 0.8, times the tokens of the other one.

use super::{Budget, KvQuestion, MIB, fraction};
use engine::sglang::defaults::WorkerGpus;

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
    let gpus = WorkerGpus {
        memory_bytes: question.gpu.memory_bytes.value,
        tensor_parallel: question.tensor_parallel,
    };
    gpus.mem_fraction_static(question.max_num_batched_tokens)
        .max(0.001)
}
