//! The kernels of one GPU of a worker: what each costs per token, per row, per token of context, in seconds.

use super::{Deployment, RooflineSpec};
use crate::gpu::Gpu;
use crate::model::{Model, Precision};
use engine::{Chunk, StepShape};

/// A GEMM over m rows takes the longer of `compute · m` and `weights + activations · m`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gemm {
    compute: f64,
    weights: f64,
    activations: f64,
}

impl Gemm {
    pub(super) fn seconds(&self, rows: f64) -> f64 {
        (self.compute * rows).max(self.weights + self.activations * rows)
    }
}

/// Attention, all layers together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    /// Prefill: arithmetic per pair of a new token and a token it attends to.
    prefill_pair: f64,
    /// Prefill: reading the KV of a context token.
    prefill_context: f64,
    /// Prefill: reading a query and writing its output.
    prefill_token: f64,
    prefill_floor: f64,
    /// Decode: arithmetic per context token.
    pub(super) decode_compute: f64,
    /// Decode: reading the KV of a context token.
    pub(super) decode_context: f64,
    /// Decode: reading a query and writing its output.
    pub(super) decode_token: f64,
    pub(super) decode_floor: f64,
}

impl Attention {
    /// Attention of a step that is not empty.
    pub(super) fn seconds(&self, shape: &StepShape<'_>) -> f64 {
        // Model: prefill and decode parts add up, as if one kernel did one after the other; its floor counts once.
        let prefill: f64 = shape.prefill.iter().map(|&chunk| self.chunk(chunk)).sum();
        let decode = self.decode(f64::from(shape.decode_batch), shape.decode_context as f64);
        let floor = match (shape.prefill.is_empty(), shape.decode_batch) {
            (true, _) => self.decode_floor,
            (false, 0) => self.prefill_floor,
            (false, _) => self.prefill_floor.max(self.decode_floor),
        };
        prefill + decode + floor
    }

    fn chunk(&self, chunk: Chunk) -> f64 {
        let [new, cached] = [chunk.new_tokens, chunk.cached_tokens].map(f64::from);
        let pairs = new * (cached + (new + 1.0) / 2.0);
        (self.prefill_pair * pairs)
            .max(self.prefill_context * (cached + new) + self.prefill_token * new)
    }

    fn decode(&self, batch: f64, context: f64) -> f64 {
        (self.decode_compute * context)
            .max(self.decode_context * context + self.decode_token * batch)
    }
}

/// What a step costs besides attention.
#[derive(Debug, Clone)]
pub(super) struct Dense {
    layers: f64,
    layer_gemms: [Gemm; 4],
    lm_head: Gemm,
    /// Elementwise traffic and all-reduce, per token of the step.
    per_token: f64,
    /// Gathering the logits, per row.
    per_row: f64,
    /// Floors of kernels and collectives, and the overhead of a step.
    floor: f64,
}

impl Dense {
    /// A step of so many tokens that gives so many sequences a token.
    pub(super) fn seconds(&self, tokens: f64, rows: f64) -> f64 {
        let gemms: f64 = self
            .layer_gemms
            .iter()
            .map(|gemm| gemm.seconds(tokens))
            .sum();
        self.layers * gemms
            + self.lm_head.seconds(rows)
            + self.per_token * tokens
            + self.per_row * rows
            + self.floor
    }
}

/// What one GPU holds of a layer: widths in numbers.
struct Shard {
    layers: f64,
    hidden: f64,
    q: f64,
    kv: f64,
    intermediate: f64,
    vocab: f64,
}

impl Shard {
    fn new(model: &Model, tp: u32) -> Shard {
        Shard {
            layers: f64::from(model.layers),
            hidden: f64::from(model.hidden),
            q: f64::from(model.heads / tp) * f64::from(model.head_dim),
            kv: f64::from(model.kv_heads_per_gpu(tp)) * f64::from(model.head_dim),
            intermediate: f64::from(model.intermediate / tp),
            vocab: f64::from(model.vocab) / f64::from(tp),
        }
    }
}

/// A GEMM with weights `inputs` x `outputs`.
fn gemm(spec: &RooflineSpec, gpu: &Gpu, weights: Precision, inputs: f64, outputs: f64) -> Gemm {
    let rate = match (weights, gpu.fp8_flops) {
        (Precision::Fp8, Some(fp8)) => fp8.value * spec.gemm_fp8_efficiency,
        // Model: without fp8 units the weights are widened on the fly, at no cost.
        _ => gpu.bf16_flops.value * spec.gemm_bf16_efficiency,
    };
    let bandwidth = gpu.memory_bytes_per_s.value * spec.gemm_memory_efficiency;
    let bytes = weights.bytes() as f64;
    Gemm {
        compute: 2.0 * inputs * outputs / rate,
        weights: bytes * inputs * outputs / bandwidth,
        // Model: inputs in the precision of the weights, outputs in 16 bits, both through memory.
        activations: (bytes * inputs + 2.0 * outputs) / bandwidth,
    }
}

/// The kernels of one GPU.
pub(super) fn kernels(spec: &RooflineSpec, deployment: &Deployment<'_>) -> (Dense, Attention) {
    let Deployment {
        model,
        gpu,
        tensor_parallel,
        kv_cache,
    } = *deployment;
    let shard = Shard::new(model, tensor_parallel);
    let projection = |inputs, outputs| gemm(spec, gpu, model.weights, inputs, outputs);

    // Two norms that read and write hidden states and residual, RoPE over q and k, the KV write, the gated activation
    // (reads two, writes one), all in 16 bits. Qwen3's head norms are one kernel more and go with RoPE.
    let elementwise_bytes = shard.layers
        * (2.0 * 8.0 * shard.hidden
            + 4.0 * (shard.q + shard.kv)
            + 8.0 * shard.kv
            + 6.0 * shard.intermediate);
    let elementwise_bandwidth = gpu.memory_bytes_per_s.value * spec.elementwise_efficiency;
    let elementwise_kernels = if model.has_qk_norm { 6.0 } else { 5.0 };
    let kernel_count = shard.layers * (4.0 + elementwise_kernels) + 2.0;

    let multi_gpu_us = if tensor_parallel > 1 {
        spec.multi_gpu_overhead_us
    } else {
        0.0
    };
    let floor_us = kernel_count * spec.kernel_us + spec.step_overhead_us + multi_gpu_us;

    let collectives = collectives(spec, deployment);
    let dense = Dense {
        layers: shard.layers,
        layer_gemms: [
            projection(shard.hidden, shard.q + 2.0 * shard.kv),
            projection(shard.q, shard.hidden),
            projection(shard.hidden, 2.0 * shard.intermediate),
            projection(shard.intermediate, shard.hidden),
        ],
        lm_head: gemm(spec, gpu, Precision::Bf16, shard.hidden, shard.vocab),
        per_token: elementwise_bytes / elementwise_bandwidth + collectives.per_token,
        per_row: collectives.per_row,
        floor: floor_us * 1e-6 + collectives.floor,
    };
    (dense, attention(spec, gpu, &shard, kv_cache))
}

fn attention(spec: &RooflineSpec, gpu: &Gpu, shard: &Shard, kv_cache: Precision) -> Attention {
    // Two products of q by KV, two FLOPs each. Model: attention computes in 16 bits, whatever the storage.
    let pair = 4.0 * shard.layers * shard.q / gpu.bf16_flops.value;
    let context_bytes = shard.layers * 2.0 * shard.kv * kv_cache.bytes() as f64;
    let token_bytes = shard.layers * 2.0 * shard.q * 2.0;
    let prefill_bandwidth = gpu.memory_bytes_per_s.value * spec.elementwise_efficiency;
    let decode_bandwidth = gpu.memory_bytes_per_s.value * spec.decode_attention_efficiency;
    Attention {
        prefill_pair: pair / spec.prefill_attention_efficiency,
        prefill_context: context_bytes / prefill_bandwidth,
        prefill_token: token_bytes / prefill_bandwidth,
        prefill_floor: shard.layers * spec.prefill_attention_us * 1e-6,
        decode_compute: pair / spec.prefill_attention_efficiency,
        decode_context: context_bytes / decode_bandwidth,
        decode_token: token_bytes / decode_bandwidth,
        decode_floor: shard.layers * spec.decode_attention_us * 1e-6,
    }
}

struct Collectives {
    per_token: f64,
    per_row: f64,
    floor: f64,
}

/// After the embedding and twice per layer the hidden states are summed over a ring; at the end the logits are
/// gathered.
fn collectives(spec: &RooflineSpec, deployment: &Deployment<'_>) -> Collectives {
    let Deployment {
        model,
        gpu,
        tensor_parallel,
        ..
    } = *deployment;
    if tensor_parallel == 1 {
        return Collectives {
            per_token: 0.0,
            per_row: 0.0,
            floor: 0.0,
        };
    }
    let tp = f64::from(tensor_parallel);
    let bandwidth = gpu.link_bytes_per_s.value * spec.link_efficiency;
    let sums = 2.0 * f64::from(model.layers) + 1.0;
    let passed_on = (tp - 1.0) / tp;
    Collectives {
        per_token: sums * 2.0 * passed_on * 2.0 * f64::from(model.hidden) / bandwidth,
        per_row: passed_on * 2.0 * f64::from(model.vocab) / bandwidth,
        floor: (sums + 1.0) * (spec.collective_us + spec.collective_per_gpu_us * tp) * 1e-6,
    }
}
