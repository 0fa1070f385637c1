//! How many tokens of KV cache fit, as AIConfigurator 0.12 says (`aic-timing` §3.10).
//!
//! ```text
//! vLLM, SGLang   KV bytes = memory · fraction − (weights + activations + collectives + other)
//! TensorRT-LLM   KV bytes = (memory − …) · fraction
//! ```
//!
//! Weights are those of the GEMMs, embedding and LM head; activations a multiple of the attention width of every token of
//! the largest step. SGLang reserves 15 % more for activations and 20 % more for the rest. Our own formulas, which
//! follow the engine, are in [`crate::memory`].

use crate::error::{CalibrationError, Problem, check};
use crate::model::Model;
use crate::tables::{Backend, Dtype, Machine};

const MIB: f64 = 1_048_576.0;

/// What must be known.
#[derive(Debug, Clone, Copy)]
pub struct AicMemory<'a> {
    /// The model.
    pub model: &'a Model,
    /// The GPU.
    pub machine: &'a Machine,
    /// The engine.
    pub backend: Backend,
    /// GPUs of a worker.
    pub gpus: u32,
    /// Format of the projections' weights.
    pub gemm: Dtype,
    /// Format of the KV cache.
    pub kv_cache: Dtype,
    /// Share of the memory, or of what is free, that the engine takes.
    pub fraction: f64,
    /// Most tokens of one step.
    pub max_tokens: u32,
}

/// Tokens that fit; none where the weights leave no room.
///
/// # Errors
/// A width the model cannot be split into.
pub fn kv_capacity(question: &AicMemory<'_>) -> Result<Option<u64>, CalibrationError> {
    let AicMemory {
        model,
        machine,
        backend,
        gpus,
        kv_cache,
        fraction,
        ..
    } = *question;
    if let Err(why) = model.check_tensor_parallel(gpus) {
        check(vec![Problem::new(
            "tp",
            gpus,
            format!("a width that {why}"),
        )])?;
    }
    if let Some(reason) = model.beyond_dense() {
        return Err(CalibrationError::NotModelled {
            subject: format!(
                "the KV capacity of `{}` by AIConfigurator's rules",
                model.id
            ),
            reasons: vec![reason],
        });
    }
    let spare = if backend == Backend::Sglang { 1.2 } else { 1.0 };
    let collectives = machine
        .collective_bytes
        .range(..=gpus)
        .next_back()
        .map_or(0, |(_, bytes)| *bytes);
    let used = weight_bytes(question)
        + activation_bytes(question)
        + collectives as f64
        + machine.other_bytes as f64 * spare;
    let memory = machine.memory_bytes as f64;
    let budget = match backend {
        Backend::Vllm | Backend::Sglang => memory * fraction - used,
        Backend::Trtllm => (memory - used) * fraction,
    };
    let kv_heads = f64::from(model.kv_heads_per_gpu(gpus));
    let per_token =
        2.0 * kv_heads * f64::from(model.head_dim) * f64::from(model.layers) * kv_cache.bytes();
    Ok((budget >= per_token).then_some((budget / per_token) as u64))
}

fn weight_bytes(question: &AicMemory<'_>) -> f64 {
    let AicMemory {
        model, gpus, gemm, ..
    } = *question;
    let [hidden, head_dim] = [model.hidden, model.head_dim].map(f64::from);
    let heads = f64::from(model.heads / gpus);
    let kv_heads = f64::from(model.kv_heads_per_gpu(gpus));
    let f = f64::from(model.intermediate / gpus);
    let layer = hidden * head_dim * (2.0 * heads + 2.0 * kv_heads) + 3.0 * hidden * f;
    let vocabulary = f64::from(model.vocab / gpus) * hidden;
    2.0 * 2.0 * vocabulary + f64::from(model.layers) * layer * gemm.bytes()
}

fn activation_bytes(question: &AicMemory<'_>) -> f64 {
    let AicMemory {
        model,
        backend,
        gpus,
        max_tokens,
        ..
    } = *question;
    let is_sglang = backend == Backend::Sglang;
    let copies = match (is_sglang, gpus) {
        (false, 1) => 11.0,
        (false, 2) => 6.5,
        (false, _) => 5.0,
        (true, 1) => 14.0,
        (true, 2) => 8.5,
        (true, _) => 6.5,
    };
    let width = f64::from(max_tokens) * f64::from(model.heads) * f64::from(model.head_dim);
    let (least, more) = if is_sglang { (90.0, 1.15) } else { (70.0, 1.0) };
    (2.0 * copies * width).max(least * MIB) * more
}
