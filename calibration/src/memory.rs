//! How many KV blocks a worker has: what its GPUs' memory leaves beside weights and working space.
//!
//! Each engine has its own rule for what it may use (`memory/vllm.rs`, `sglang.rs`, `trtllm.rs`); per GPU, all GPUs of a
//! worker being alike:
//!
//! ```text
//! KV bytes = what the engine may use − weights − what it keeps free of them for its work
//! blocks   = floor(KV bytes / (block_size · KV bytes per token and GPU))
//! ```
//!
//! | Engine | may use | keeps for its work | layers with a window |
//! |---|---|---|---|
//! | vLLM | memory · gpu_memory_utilization | activations, collectives, context, sampler | last tokens of each sequence |
//! | SGLang | free memory before the weights · mem_fraction_static | nothing more | a pool of 0.8 times the tokens |
//! | TensorRT-LLM | all in use + free_gpu_memory_fraction of the rest | activations, collectives, runtime | like all others |
//!
//! The number of blocks can always be pinned instead.

mod sglang;
mod trtllm;
mod vllm;
mod working_space;

use crate::error::{CalibrationError, Problem, check, check_range};
use crate::gpu::Gpu;
use crate::model::{Model, Precision, Widths};
use crate::tables::Backend;
use serde::Serialize;

const MIB: u64 = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;

/// What must be known to say how many KV blocks a worker has.
#[derive(Debug, Clone, Copy)]
pub struct KvQuestion<'a> {
    /// The engine whose rule it is.
    pub backend: Backend,
    /// The model served.
    pub model: &'a Model,
    /// The GPU it runs on.
    pub gpu: &'a Gpu,
    /// GPUs a layer is split over.
    pub tensor_parallel: u32,
    /// Groups of GPUs over which whole experts are dealt out; 1 without experts or where each is split over all GPUs.
    pub expert_parallel: u32,
    /// Storage of the KV cache.
    pub kv_cache: Precision,
    /// Tokens per block.
    pub block_size: u32,
    /// Share of the memory under the engine's own name and meaning (see [`memory_fraction_name`]); none: its default.
    pub memory_fraction: Option<f64>,
    /// Most tokens of one step; `chunked_prefill_size` of SGLang.
    pub max_num_batched_tokens: u32,
    /// Most sequences that run at once: what vLLM's sampler is sized for, and whose windows it keeps.
    pub max_num_seqs: u32,
}

/// How the memory of each GPU of a worker is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvCapacity {
    /// KV blocks of the worker.
    pub blocks: u64,
    /// Tokens they hold.
    pub tokens: u64,
    /// KV bytes of a token on each GPU, as blocks are counted.
    pub kv_bytes_per_token_per_gpu: u64,
    /// What the engine may use.
    pub usable_bytes: u64,
    /// Weights on each GPU.
    pub weight_bytes: u64,
    /// Reserve of that for activations, collectives and the runtime.
    pub reserved_bytes: u64,
}

/// What an engine allows itself on one GPU.
struct Budget {
    usable_bytes: u64,
    reserved_bytes: u64,
}

/// What the share of the memory is called.
#[must_use]
pub const fn memory_fraction_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Vllm => "gpu_memory_utilization",
        Backend::Sglang => "mem_fraction_static",
        Backend::Trtllm => "free_gpu_memory_fraction",
    }
}

/// The share of the memory that an engine takes if nobody says one.
#[must_use]
pub fn default_memory_fraction(question: &KvQuestion<'_>) -> f64 {
    match question.backend {
        Backend::Vllm => vllm::DEFAULT_FRACTION,
        Backend::Sglang => sglang::default_fraction(question),
        Backend::Trtllm => trtllm::DEFAULT_FRACTION,
    }
}

/// The KV blocks of a worker.
///
/// # Errors
/// Senseless values (all at once), widths the model cannot be split into or that are wider than a node, or weights that
/// leave no room for a single block; the error then names the least tensor parallelism that does.
pub fn kv_capacity(question: &KvQuestion<'_>) -> Result<KvCapacity, CalibrationError> {
    let KvQuestion { model, gpu, .. } = *question;
    check(problems(question))?;
    capacity(question).ok_or_else(|| {
        let wider = model
            .legal_tensor_parallel(gpu.gpus_per_node)
            .find_map(|tp| Some((tp, capacity(&wider(question, tp)?)?)));
        let advice = match wider {
            Some((tp, capacity)) => format!("tp {tp} would fit, with room for {} tokens", capacity.tokens),
            None => format!("no tp up to the {} GPUs of a node would fit", gpu.gpus_per_node),
        };
        let detail = format!(
            "{} ({}) does not fit on {} x {}: {:.1} GiB of weights and {:.1} GiB of working space per GPU leave no KV block \
             in {:.1} GiB with {} {}; {advice}",
            model.id,
            model.weights.name(),
            question.tensor_parallel,
            gpu.name,
            model.weight_bytes_per_gpu(widths(question)) as f64 / GIB,
            budget(question).reserved_bytes as f64 / GIB,
            gpu.memory_bytes.value as f64 / GIB,
            memory_fraction_name(question.backend),
            fraction(question),
        );
        CalibrationError::DoesNotFit { detail, needs_tensor_parallel: wider.map(|(tp, _)| tp) }
    })
}

fn problems(question: &KvQuestion<'_>) -> Vec<Problem> {
    let KvQuestion { model, gpu, .. } = *question;
    let mut problems = check_deployment(model, gpu, widths(question));
    let mut check = |name: &str, value: f64, range, unit| {
        check_range(&mut problems, name, value, range, unit);
    };
    if let Some(fraction) = question.memory_fraction {
        let name = memory_fraction_name(question.backend);
        check(name, fraction, 0.01..=1.0, "");
    }
    let whole = f64::from;
    check(
        "block_size",
        whole(question.block_size),
        1.0..=65_536.0,
        " tokens",
    );
    let tokens = whole(question.max_num_batched_tokens);
    check("max_num_batched_tokens", tokens, 1.0..=16_777_216.0, "");
    let sequences = whole(question.max_num_seqs);
    check("max_num_seqs", sequences, 1.0..=16_777_216.0, "");
    problems
}

/// Whether the model can be split as asked on GPUs of one node.
pub(crate) fn check_deployment(model: &Model, gpu: &Gpu, widths: Widths) -> Vec<Problem> {
    let Widths { tensor, expert } = widths;
    let list = |widths: &mut dyn Iterator<Item = u32>| {
        let words: Vec<String> = widths.map(|width| width.to_string()).collect();
        words.join(", ")
    };
    let mut problems = Vec::new();
    if tensor > gpu.gpus_per_node {
        let expected = format!(
            "at most the {} GPUs of a {} node",
            gpu.gpus_per_node, gpu.name
        );
        problems.push(Problem::new("tensor_parallel", tensor, expected));
    }
    if let Err(why) = model.check_tensor_parallel(tensor) {
        let legal = list(&mut model.legal_tensor_parallel(gpu.gpus_per_node));
        let problem = Problem::new("tensor_parallel", tensor, format!("a width that {why}"));
        problems.push(problem.suggest(format!("{} can be split over {legal}", model.id)));
    } else if let Err(why) = model.check_expert_parallel(widths) {
        let legal = list(&mut model.legal_expert_parallel(tensor));
        let problem = Problem::new("expert_parallel", expert, format!("a width that {why}"));
        problems.push(problem.suggest(format!("with tp {tensor} it can be {legal}")));
    }
    problems
}

/// The same on `tp` GPUs, with as many groups of experts if there were as many before, else with one.
fn wider<'a>(question: &KvQuestion<'a>, tp: u32) -> Option<KvQuestion<'a>> {
    let is_dealt_out = question.expert_parallel > 1;
    let widths = Widths {
        tensor: tp,
        expert: if is_dealt_out { tp } else { 1 },
    };
    let is_legal = question.model.check_expert_parallel(widths).is_ok();
    is_legal.then_some(KvQuestion {
        tensor_parallel: tp,
        expert_parallel: widths.expert,
        ..*question
    })
}

fn widths(question: &KvQuestion<'_>) -> Widths {
    Widths {
        tensor: question.tensor_parallel,
        expert: question.expert_parallel,
    }
}

fn fraction(question: &KvQuestion<'_>) -> f64 {
    let default = || default_memory_fraction(question);
    question.memory_fraction.unwrap_or_else(default)
}

fn budget(question: &KvQuestion<'_>) -> Budget {
    match question.backend {
        Backend::Vllm => vllm::budget(question),
        Backend::Sglang => sglang::budget(question),
        Backend::Trtllm => trtllm::budget(question),
    }
}

fn capacity(question: &KvQuestion<'_>) -> Option<KvCapacity> {
    let weight_bytes = question.model.weight_bytes_per_gpu(widths(question));
    let Budget {
        usable_bytes,
        reserved_bytes,
    } = budget(question);
    let kv_bytes = usable_bytes.checked_sub(weight_bytes + reserved_bytes)?;
    let kv_bytes_per_token_per_gpu = match question.backend {
        Backend::Vllm => vllm::bytes_per_token(question),
        Backend::Sglang => sglang::bytes_per_token(question),
        Backend::Trtllm => trtllm::bytes_per_token(question),
    };
    let pages = kv_bytes / (kv_bytes_per_token_per_gpu * u64::from(question.block_size));
    let blocks = match question.backend {
        Backend::Vllm => vllm::blocks_beside_windows(question, pages),
        Backend::Sglang | Backend::Trtllm => pages,
    };
    let tokens = blocks * u64::from(question.block_size);
    (blocks > 0).then_some(KvCapacity {
        blocks,
        tokens,
        kv_bytes_per_token_per_gpu,
        usable_bytes,
        weight_bytes,
        reserved_bytes,
    })
}

#[cfg(test)]
mod tests;
