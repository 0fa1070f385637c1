//! How many KV blocks a worker has: what its GPUs' memory leaves beside weights and working space.
//!
//! As vLLM computes it, per GPU, all GPUs of a worker being alike:
//!
//! ```text
//! KV bytes = memory · gpu_memory_utilization − weights − activations − collectives − runtime
//! blocks   = floor(KV bytes / (block_size · KV bytes per token and GPU))
//! ```
//!
//! vLLM measures the last three by a profiling run; here they are formulas. Checked against a real one: vLLM 0.19,
//! Llama-3.1-8B on an RTX 4090 at 0.9 with 2,048 batched tokens came to 2,588 blocks of 16, these formulas to 2,578. The
//! number of blocks can always be pinned instead.

use crate::error::{CalibrationError, Problem, check, check_range};
use crate::gpu::Gpu;
use crate::model::{Model, Precision};
use serde::Serialize;

const MIB: u64 = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;

// Model: CUDA context, graphs and the sampler's buffers take 1 GiB; on the run above it was 1.05 GB. More CUDA graphs
// (large models, many capture sizes) can take 1 to 2 GiB more: 1 to 3 % of the KV cache of an 80 GB GPU.
const RUNTIME_BYTES: u64 = 1024 * MIB;

/// What must be known to say how many KV blocks a worker has.
#[derive(Debug, Clone, Copy)]
pub struct KvQuestion<'a> {
    /// The model served.
    pub model: &'a Model,
    /// The GPU it runs on.
    pub gpu: &'a Gpu,
    /// GPUs a layer is split over.
    pub tensor_parallel: u32,
    /// Storage of the KV cache.
    pub kv_cache: Precision,
    /// Tokens per block.
    pub block_size: u32,
    /// Share of the memory the engine may use.
    pub gpu_memory_utilization: f64,
    /// Most tokens of one step.
    pub max_num_batched_tokens: u32,
}

/// How the memory of each GPU of a worker is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvCapacity {
    /// KV blocks of the worker.
    pub blocks: u64,
    /// Tokens they hold.
    pub tokens: u64,
    /// KV bytes of a token on each GPU.
    pub kv_bytes_per_token_per_gpu: u64,
    /// What the engine may use.
    pub usable_bytes: u64,
    /// Weights on each GPU.
    pub weight_bytes: u64,
    /// Reserve for activations, collectives and the runtime.
    pub reserved_bytes: u64,
}

/// The KV blocks of a worker.
///
/// # Errors
/// Senseless values (all at once), a tensor parallelism the model cannot be split into or that is wider than a node, or
/// weights that leave no room for a single block; the error then names the least tensor parallelism that does.
pub fn kv_capacity(question: &KvQuestion<'_>) -> Result<KvCapacity, CalibrationError> {
    let KvQuestion {
        model,
        gpu,
        tensor_parallel,
        ..
    } = *question;
    let mut problems = check_deployment(model, gpu, tensor_parallel);
    check_range(
        &mut problems,
        "gpu_memory_utilization",
        question.gpu_memory_utilization,
        0.01..=1.0,
        "",
    );
    check_range(
        &mut problems,
        "block_size",
        f64::from(question.block_size),
        1.0..=65_536.0,
        " tokens",
    );
    let budget = f64::from(question.max_num_batched_tokens);
    check_range(
        &mut problems,
        "max_num_batched_tokens",
        budget,
        1.0..=16_777_216.0,
        "",
    );
    check(problems)?;

    capacity(question).ok_or_else(|| {
        let wider = model
            .legal_tensor_parallel(gpu.gpus_per_node)
            .find_map(|tp| Some((tp, capacity(&KvQuestion { tensor_parallel: tp, ..*question })?)));
        let advice = match wider {
            Some((tp, capacity)) => format!("tp {tp} would fit, with room for {} tokens", capacity.tokens),
            None => format!("no tp up to the {} GPUs of a node would fit", gpu.gpus_per_node),
        };
        let detail = format!(
            "{} ({}) does not fit on {} x {}: {:.1} GiB of weights and {:.1} GiB of working space per GPU leave no KV block \
             in {:.1} GiB x {}; {advice}",
            model.id,
            model.weights.name(),
            tensor_parallel,
            gpu.name,
            model.weight_bytes_per_gpu(tensor_parallel) as f64 / GIB,
            reserved_bytes(question) as f64 / GIB,
            gpu.memory_bytes.value as f64 / GIB,
            question.gpu_memory_utilization,
        );
        CalibrationError::DoesNotFit { detail, needs_tensor_parallel: wider.map(|(tp, _)| tp) }
    })
}

/// Whether the model can be split as asked on GPUs of one node.
pub(crate) fn check_deployment(model: &Model, gpu: &Gpu, tensor_parallel: u32) -> Vec<Problem> {
    let mut problems = Vec::new();
    if tensor_parallel > gpu.gpus_per_node {
        let expected = format!(
            "at most the {} GPUs of a {} node",
            gpu.gpus_per_node, gpu.name
        );
        problems.push(Problem::new("tensor_parallel", tensor_parallel, expected));
    }
    if let Err(why) = model.check_tensor_parallel(tensor_parallel) {
        let legal: Vec<String> = model
            .legal_tensor_parallel(gpu.gpus_per_node)
            .map(|tp| tp.to_string())
            .collect();
        let problem = Problem::new(
            "tensor_parallel",
            tensor_parallel,
            format!("a width that {why}"),
        );
        problems.push(problem.suggest(format!(
            "{} can be split over {}",
            model.id,
            legal.join(", ")
        )));
    }
    problems
}

fn capacity(question: &KvQuestion<'_>) -> Option<KvCapacity> {
    let KvQuestion {
        model,
        gpu,
        tensor_parallel,
        ..
    } = *question;
    let usable_bytes = (gpu.memory_bytes.value as f64 * question.gpu_memory_utilization) as u64;
    let weight_bytes = model.weight_bytes_per_gpu(tensor_parallel);
    let reserved_bytes = reserved_bytes(question);
    let kv_bytes_per_token_per_gpu =
        model.kv_bytes_per_token_per_gpu(tensor_parallel, question.kv_cache);
    let kv_bytes = usable_bytes.checked_sub(weight_bytes + reserved_bytes)?;
    let blocks = kv_bytes / (kv_bytes_per_token_per_gpu * u64::from(question.block_size));
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

fn reserved_bytes(question: &KvQuestion<'_>) -> u64 {
    let KvQuestion {
        model,
        tensor_parallel,
        max_num_batched_tokens,
        ..
    } = *question;
    // Model: the activation peak as AIConfigurator 0.12 has it: so many bf16 copies of the attention width of every
    // token of the largest step, at least 70 MiB.
    let copies = match tensor_parallel {
        1 => 11.0,
        2 => 6.5,
        _ => 5.0,
    };
    let width =
        u64::from(max_num_batched_tokens) * u64::from(model.heads) * u64::from(model.head_dim);
    let activations = ((2.0 * copies * width as f64) as u64).max(70 * MIB);
    // Model: buffers of the collectives, observed values of AIConfigurator 0.12.
    let collectives = match tensor_parallel {
        1 => 0,
        2 => 342 * MIB,
        _ => 392 * MIB,
    };
    activations + collectives + RUNTIME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question<'a>(model: &'a Model, gpu: &str, tensor_parallel: u32) -> KvQuestion<'a> {
        KvQuestion {
            model,
            gpu: Gpu::find(gpu).expect("known"),
            tensor_parallel,
            kv_cache: Precision::Bf16,
            block_size: 16,
            gpu_memory_utilization: 0.9,
            max_num_batched_tokens: 2_048,
        }
    }

    #[test]
    fn a_real_run_is_met_within_one_per_cent() {
        // vLLM 0.19.0, Llama-3.1-8B bf16 on an RTX 4090 (25,250,627,584 bytes) at 0.9: 2,588 blocks of 16 tokens.
        let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
        let capacity = kv_capacity(&question(&model, "rtx_4090", 1)).expect("it ran");
        // 0.9 x 25,250,627,584 - 16,060,522,496 - 2 x 11 x 2048 x 4096 - 2^30 = 5,406,751,129; / (16 x 131,072) = 2,578.
        assert_eq!(capacity.blocks, 2_578);
        assert!((capacity.blocks as f64 / 2_588.0 - 1.0).abs() < 0.01);
        assert_eq!(capacity.tokens, 2_578 * 16);
    }

    #[test]
    fn what_does_not_fit_says_what_would() {
        let model = Model::find("meta-llama/Llama-3.1-70B").expect("embedded");
        let error =
            kv_capacity(&question(&model, "h100_sxm", 1)).expect_err("141 GB of weights on 80 GB");
        assert!(
            matches!(
                error,
                CalibrationError::DoesNotFit {
                    needs_tensor_parallel: Some(2),
                    ..
                }
            ),
            "{error}"
        );
        // On two, 0.9 x 79.19 = 71.27 GiB less 65.71 of weights, 0.20 of activations, 0.33 and 1 of reserves leave 4.02 GiB,
        // or 26,365 tokens of 163,840 bytes.
        assert!(
            error.to_string().contains("131.4 GiB of weights"),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("tp 2 would fit, with room for 26"),
            "{error}"
        );
        assert!(kv_capacity(&question(&model, "h100_sxm", 2)).is_ok());
        let big = Model::find("meta-llama/Llama-3.1-405B").expect("embedded");
        let error = kv_capacity(&question(&big, "h100_sxm", 8))
            .expect_err("812 GB on 640 GB")
            .to_string();
        assert!(error.contains("no tp up to the 8 GPUs"), "{error}");
    }

    #[test]
    fn more_room_gives_more_blocks() {
        let model = Model::find("Qwen/Qwen3-32B").expect("embedded");
        let blocks = |gpu, tp, utilization| {
            let question = KvQuestion {
                gpu_memory_utilization: utilization,
                ..question(&model, gpu, tp)
            };
            kv_capacity(&question).expect("it fits").blocks
        };
        assert!(blocks("h200_sxm", 1, 0.9) < blocks("h200_sxm", 1, 0.95));
        assert!(blocks("h200_sxm", 1, 0.9) < blocks("h200_sxm", 2, 0.9));
        assert!(blocks("h100_sxm", 2, 0.9) < blocks("h200_sxm", 2, 0.9));
    }

    #[test]
    fn bad_input_is_reported_at_once() {
        let model = Model::find("Qwen/Qwen2.5-7B").expect("embedded");
        let bad = KvQuestion {
            block_size: 0,
            gpu_memory_utilization: f64::NAN,
            max_num_batched_tokens: 0,
            ..question(&model, "h100_sxm", 8)
        };
        let error = kv_capacity(&bad).expect_err("four mistakes");
        assert_eq!(error.problems().len(), 4, "{error}");
        assert!(
            error.to_string().contains("can be split over 1, 2, 4"),
            "{error}"
        );
    }
}
