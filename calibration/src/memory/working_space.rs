//! What a step needs of a GPU's memory, whatever the engine. Engines measure it by a profiling run; here it is formulas.

use super::{KvQuestion, MIB};

/// Activations of the largest step and buffers of collectives.
pub(super) fn bytes(question: &KvQuestion<'_>) -> u64 {
    activations(question) + collectives(question.tensor_parallel)
}

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
