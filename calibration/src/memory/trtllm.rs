//! TensorRT-LLM: a share of what is free when weights are loaded and a run of the largest step has been measured.
//!
//! ```text
//! KV bytes = (memory − weights − activations − collectives − runtime) · free_gpu_memory_fraction
//! ```
//!
//! All layers keep all tokens, those with a window too, unless `max_attention_window` says otherwise, which is not modelled.

use super::{Budget, KvQuestion, MIB, fraction, widths, working_space};

// Model: CUDA context, graphs and everything else take 1 GiB. 1 GiB more is 1 to 3 % of the KV cache of an 80 GB GPU.
const RUNTIME_BYTES: u64 = 1024 * MIB;

/// `free_gpu_memory_fraction` of `KvCacheConfig`.
pub(super) const DEFAULT_FRACTION: f64 = 0.9;

pub(super) fn budget(question: &KvQuestion<'_>) -> Budget {
    let memory = question.gpu.memory_bytes.value;
    let reserved_bytes = working_space::bytes(question) + RUNTIME_BYTES;
    let in_use = question.model.weight_bytes_per_gpu(widths(question)) + reserved_bytes;
    let free = memory.saturating_sub(in_use) as f64;
    Budget {
        usable_bytes: in_use.min(memory) + (free * fraction(question)) as u64,
        reserved_bytes,
    }
}

/// Bytes of a token in all layers.
pub(super) fn bytes_per_token(question: &KvQuestion<'_>) -> u64 {
    let KvQuestion {
        model,
        tensor_parallel,
        kv_cache,
        ..
    } = *question;
    u64::from(model.layers) * model.kv_bytes_per_token_and_layer(tensor_parallel, kv_cache)
}
