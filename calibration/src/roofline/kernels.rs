//! The kernels of one GPU of a worker besides attention: what each costs per token and per row, in seconds.

use super::attention::Attention;
use super::experts::Experts;
use super::gemm::{Gemm, gemm};
use super::{Deployment, RooflineSpec};
use crate::model::{LatentAttention, Precision};

/// What a step costs besides attention.
#[derive(Debug, Clone)]
pub(super) struct Body {
    /// GEMMs over all tokens, and in how many layers each is.
    gemms: Vec<(f64, Gemm)>,
    experts: Option<Experts>,
    lm_head: Gemm,
    /// Elementwise traffic and all-reduce, per token of the step.
    per_token: f64,
    /// Gathering the logits, per row.
    per_row: f64,
    /// Floors of kernels and collectives, and the overhead of a step.
    floor: f64,
}

impl Body {
    /// Without the experts, which ranks compute together.
    pub(super) fn without_experts(self) -> Body {
        Body {
            experts: None,
            ..self
        }
    }

    /// A step of so many tokens that gives so many sequences a token.
    pub(super) fn seconds(&self, tokens: f64, rows: f64) -> f64 {
        let gemms = self.gemms.iter();
        let gemms: f64 = gemms
            .map(|(layers, gemm)| layers * gemm.seconds(tokens))
            .sum();
        let experts = self.experts.map_or(0.0, |experts| experts.seconds(tokens));
        gemms
            + experts
            + self.lm_head.seconds(rows)
            + self.per_token * tokens
            + self.per_row * rows
            + self.floor
    }
}

/// The kernels of one GPU.
pub(super) fn kernels(spec: &RooflineSpec, deployment: &Deployment<'_>) -> (Body, Attention) {
    let Deployment { model, gpu, .. } = *deployment;
    let layers = f64::from(model.layers);
    let mut plan = Plan::default();
    plan.around_attention(deployment);
    plan.ffn(deployment);

    let mut gemms: Vec<(f64, Gemm)> = Vec::with_capacity(8);
    for &(layers, size) in &plan.projections {
        gemms.push((layers, gemm(spec, deployment, model.weights, size)));
    }
    for &(layers, size) in &plan.routers {
        gemms.push((layers, gemm(spec, deployment, Precision::Bf16, size)));
    }
    let vocab = f64::from(model.vocab) / f64::from(deployment.tensor_parallel);
    let multi_gpu_us = if deployment.tensor_parallel > 1 {
        spec.multi_gpu_overhead_us
    } else {
        0.0
    };
    let elementwise_bandwidth = gpu.memory_bytes_per_s.value * spec.elementwise_efficiency;
    // Two norms that read and write hidden states and residual, on every layer; embedding and last norm.
    let bytes = plan.elementwise_bytes + layers * 2.0 * 8.0 * f64::from(model.hidden);
    let kernel_count = plan.kernels + layers * 2.0 + 2.0;
    let collectives = collectives(spec, deployment);
    let body = Body {
        gemms,
        experts: model
            .experts
            .map(|shape| Experts::new(spec, deployment, deployment.widths(), shape)),
        lm_head: gemm(
            spec,
            deployment,
            Precision::Bf16,
            [f64::from(model.hidden), vocab],
        ),
        per_token: bytes / elementwise_bandwidth + collectives.per_token,
        per_row: collectives.per_row,
        floor: (kernel_count * spec.kernel_us + spec.step_overhead_us + multi_gpu_us) * 1e-6
            + collectives.floor,
    };
    (body, Attention::new(spec, deployment))
}

/// What runs in a pass besides attention and the two norms of each layer.
#[derive(Default)]
struct Plan {
    /// In how many layers, and inputs and outputs.
    projections: Vec<(f64, [f64; 2])>,
    /// The same in 16 bits.
    routers: Vec<(f64, [f64; 2])>,
    /// Kernels of the pass that take a least time.
    kernels: f64,
    /// Traffic of elementwise kernels per token, in all layers, all in 16 bits.
    elementwise_bytes: f64,
}

impl Plan {
    fn around_attention(&mut self, deployment: &Deployment<'_>) {
        let (model, tp) = (deployment.model, deployment.tensor_parallel);
        let [layers, hidden] = [model.layers, model.hidden].map(f64::from);
        let heads = f64::from(model.heads / tp);
        if let Some(latent) = model.latent {
            return self.around_latent_attention([layers, hidden, heads], latent);
        }
        let head_dim = f64::from(model.head_dim);
        let q = heads * head_dim;
        let kv = f64::from(model.kv_heads_per_gpu(tp)) * head_dim;
        self.projections
            .extend([(layers, [hidden, q + 2.0 * kv]), (layers, [q, hidden])]);
        // RoPE over q and k, and the KV write. Qwen3's head norms are one kernel more and go with RoPE.
        self.elementwise_bytes += layers * (4.0 * (q + kv) + 8.0 * kv);
        let norms = if model.has_qk_norm { 1.0 } else { 0.0 };
        self.kernels += layers * (2.0 + 2.0 + norms);
    }

    /// Queries and keys are compressed by one GEMM that every GPU does, and normed.
    fn around_latent_attention(
        &mut self,
        [layers, hidden, heads]: [f64; 3],
        latent: LatentAttention,
    ) {
        let [q_rank, kv_rank, nope, rope, value] = [
            latent.q_rank,
            latent.kv_rank,
            latent.nope_dim,
            latent.rope_dim,
            latent.value_dim,
        ]
        .map(f64::from);
        let queries = heads * (nope + rope);
        let compress = if latent.q_rank == 0 {
            [
                (layers, [hidden, queries]),
                (layers, [hidden, kv_rank + rope]),
            ]
        } else {
            let compressed = q_rank + kv_rank + rope;
            [(layers, [hidden, compressed]), (layers, [q_rank, queries])]
        };
        self.projections.extend(compress);
        self.projections.push((layers, [heads * value, hidden]));
        // Norms of the compressed vectors, RoPE over q and the shared key, the KV write.
        let bytes = 4.0 * (q_rank + kv_rank) + 4.0 * (heads + 1.0) * rope + 4.0 * (kv_rank + rope);
        self.elementwise_bytes += layers * bytes;
        // Three GEMMs, into the latent space and out of it, two norms, RoPE with the KV write.
        self.kernels += layers * 8.0;
    }

    fn ffn(&mut self, deployment: &Deployment<'_>) {
        let (model, tp) = (deployment.model, deployment.tensor_parallel);
        let dense = model
            .experts
            .map_or(model.layers, |experts| experts.dense_layers);
        self.gated(
            deployment,
            f64::from(dense),
            f64::from(model.intermediate / tp),
        );
        let Some(experts) = model.experts else {
            return;
        };
        let layers = f64::from(model.layers - dense);
        let hidden = f64::from(model.hidden);
        if experts.shared > 0 {
            let size = f64::from(experts.shared * experts.intermediate) / f64::from(tp);
            self.gated(deployment, layers, size);
        }
        self.routers
            .push((layers, [hidden, f64::from(experts.count)]));
        // Of each token's experts the activation, and their weighted sum.
        let per_token = f64::from(experts.per_token);
        let size = f64::from(experts.intermediate) / f64::from(tp);
        self.elementwise_bytes +=
            layers * (6.0 * per_token * size + 2.0 * (per_token + 1.0) * hidden);
        // Router, choice, counting and sorting of the tokens by expert, gathering, two products, activation, sum.
        self.kernels += layers * 9.0;
    }

    /// A gated FFN in some of the layers: the activation reads two numbers and writes one.
    fn gated(&mut self, deployment: &Deployment<'_>, layers: f64, size: f64) {
        if layers == 0.0 {
            return;
        }
        let hidden = f64::from(deployment.model.hidden);
        self.projections
            .extend([(layers, [hidden, 2.0 * size]), (layers, [size, hidden])]);
        self.elementwise_bytes += layers * 6.0 * size;
        self.kernels += layers * 3.0;
    }
}

struct Collectives {
    per_token: f64,
    per_row: f64,
    floor: f64,
}

/// After the embedding and twice per layer the hidden states are summed over a ring; at the end the logits are
/// gathered. Experts, dealt out or split, are summed like an FFN.
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
