//! vLLM: a share of the whole memory, less weights and what its profiling run found in use.
//!
//! ```text
//! KV bytes = memory · gpu_memory_utilization − weights − activations − collectives − context − sampler
//! sampler  = 24 · max_num_seqs · vocabulary      logits of the largest batch, sorted, and their running sums
//! ```
//!
//! Checked against real runs:
//!
//! | Run | vLLM says | the formulas |
//! |---|---|---|
//! | 0.19, Llama-3.1-8B on an RTX 4090 at 0.9, 2,048 batched tokens, 256 sequences | 2,588 blocks of 16 | 2,586 |
//! | Qwen3-235B-A22B-FP8 on 4 H100 at 0.9, 8,192 and 1,024 | 178,880 tokens | within 5 % |
//! | gpt-oss-120b on an H100 at 0.95, 1,024 and 1,024 | 1.71 GiB | within 8 % |
//!
//! **Windows.** vLLM's hybrid KV cache sorts the layers into groups of equally many, each of one kind, and deals out pages of
//! block_size tokens of one group. A sequence of f full blocks holds f pages for every group of full layers and at most
//! w = ⌈(window − 1) / block_size⌉ + 1 for every group with a window, and the chunks of a step c = ⌈budget / block_size⌉
//! more. The scheduler here counts blocks of the full layers alone, so that the pages of the others are set aside: of P
//! pages, with F and W groups and n sequences, so many blocks hold whatever the lengths of the sequences are:
//!
//! ```text
//! blocks = max(P / (F + W), (P − W · (n · w + c)) / F)
//! ```

use super::{Budget, KvQuestion, MIB, fraction, working_space};

/// `gpu_memory_utilization` of `vllm serve`.
pub(super) const DEFAULT_FRACTION: f64 = 0.9;

/// CUDA context and library handles, as on the first of the runs above.
const CONTEXT_BYTES: u64 = 256 * MIB;

/// Of a logit: 32 bits of itself, sorted and as probability, 64 bits of its place, 32 bits of the running sum, once more
/// in the comparison.
const SAMPLER_BYTES: u64 = 24;

// Model: the profiling run of a mixture takes so much more for its grouped products; the two runs above say 2.7 GiB both.
// Another GiB is 1 to 3 % of the KV cache of an 80 GB GPU. CUDA graphs are not counted: vLLM captures them beside its share.
const MIXTURE_BYTES: u64 = 2_765 * MIB;

pub(super) fn budget(question: &KvQuestion<'_>) -> Budget {
    let memory = question.gpu.memory_bytes.value as f64;
    let logits = u64::from(question.max_num_seqs) * u64::from(question.model.vocab);
    let mixture = if question.model.experts.is_some() {
        MIXTURE_BYTES
    } else {
        0
    };
    Budget {
        usable_bytes: (memory * fraction(question)) as u64,
        reserved_bytes: working_space::bytes(question)
            + CONTEXT_BYTES
            + SAMPLER_BYTES * logits
            + mixture,
    }
}

/// Bytes of a token in the layers of one group; those of all layers without windows.
pub(super) fn bytes_per_token(question: &KvQuestion<'_>) -> u64 {
    let KvQuestion {
        model,
        tensor_parallel,
        kv_cache,
        ..
    } = *question;
    let layers = groups(question).layers;
    u64::from(layers) * model.kv_bytes_per_token_and_layer(tensor_parallel, kv_cache)
}

/// The blocks of the full layers in so many pages of one group.
pub(super) fn blocks_beside_windows(question: &KvQuestion<'_>, pages: u64) -> u64 {
    let Some(window) = question.model.window else {
        return pages;
    };
    let Groups { full, windowed, .. } = groups(question);
    let block_size = u64::from(question.block_size);
    let sequences = u64::from(question.max_num_seqs);
    // Every sequence holds its window; the chunks of a step are shared among them. Model: each rounds up by two blocks.
    let of_windows = sequences * (u64::from(window.tokens - 1).div_ceil(block_size) + 1);
    let of_chunks = u64::from(question.max_num_batched_tokens).div_ceil(block_size);
    let set_aside = windowed * (of_windows + of_chunks);
    (pages / (full + windowed)).max(pages.saturating_sub(set_aside) / full)
}

/// Layers sorted by whether they have a window.
struct Groups {
    /// Layers of a group.
    layers: u32,
    /// Groups without a window.
    full: u64,
    /// Groups with one.
    windowed: u64,
}

fn groups(question: &KvQuestion<'_>) -> Groups {
    let full = question.model.full_layers();
    let Some(window) = question.model.window else {
        return Groups {
            layers: full,
            full: 1,
            windowed: 0,
        };
    };
    // Model: the smaller kind gives the size of a group; the last group of the other kind is padded up to it.
    let layers = full.min(window.layers);
    Groups {
        layers,
        full: u64::from(full.div_ceil(layers)),
        windowed: u64::from(window.layers.div_ceil(layers)),
    }
}
