//! What a GPU's memory holds besides weights and KV cache. Engines measure it by a profiling run; here it is formulas.

use super::{KvQuestion, MIB};

/// Activations of the largest step, buffers of collectives, and the runtime's own.
pub(super) fn bytes(question: &KvQuestion<'_>) -> u64 {
    activations(question) + collectives(question.tensor_parallel) + RUNTIME_BYTES
}

// Model: CUDA context, graphs and the sampler's buffers take 1 GiB; on a real run (see `vllm.rs`) it was 1.05 GB. More
// CUDA graphs (large models, many capture sizes) can take 1 to 2 GiB more: 1 to 3 % of the KV cache of an 80 GB GPU.
const RUNTIME_BYTES: u64 = 1024 * MIB;

fn activations(question: &KvQuestion<'_>) -> u64 {
    let KvQuestion {
        model,
        tensor_parallel,
        max_num_batched_tokens,
        ..
    } = *question;
    // Model: the activation peak as AIConfigurator 0.12 has it: so many bf16 copies of the attention width of every
    // token of the largest step, twice as many with experts, at least 70 MiB.
    let copies = match (model.experts.is_some(), tensor_parallel) {
        (false, 1) => 11.0,
        (false, 2) => 6.5,
        (false, _) => 5.0,
        (true, 1) => 22.0,
        (true, 2) => 13.0,
        (true, _) => 10.0,
    };
    let width =
        u64::from(max_num_batched_tokens) * u64::from(model.heads) * u64::from(model.head_dim);
    ((2.0 * copies * width as f64) as u64).max(70 * MIB)
}

/// Model: buffers of the collectives, observed values of AIConfigurator 0.12.
const fn collectives(tensor_parallel: u32) -> u64 {
    match tensor_parallel {
        1 => 0,
        2 => 342 * MIB,
        _ => 392 * MIB,
    }
}
