//! Attention on one GPU: what a token costs, and what a token of context, in seconds and in one layer.
//!
//! With grouped heads a decode reads the keys and values of its context. With latent attention a decode stays in the latent
//! space: the query is multiplied into it and the result out of it (`absorb`), and all heads read the one latent vector of
//! each token; a prompt chunk expands the latent vectors of its context into keys and values (`expand`) and attends to
//! those. Layers with a window read no more than the window.

use super::gemm::{Gemm, gemm};
use super::{Deployment, RooflineSpec};
use crate::model::{LatentAttention, Precision, SlidingWindow};
use engine::{Chunk, StepShape};

/// Attention, layer by layer alike but for windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    layers: f64,
    window: Option<SlidingWindow>,
    /// Prefill: arithmetic per pair of a new token and a token it attends to.
    prefill_pair: f64,
    /// Prefill: reading the KV of a context token.
    prefill_context: f64,
    /// Prefill: reading a query and writing its output.
    prefill_token: f64,
    /// Prefill: keys and values out of latent vectors, over the tokens of the context.
    expand: Option<Gemm>,
    prefill_floor: f64,
    /// Decode: arithmetic per context token.
    decode_compute: f64,
    /// Decode: reading the KV of a context token.
    decode_context: f64,
    /// Decode: reading a query and writing its output.
    decode_token: f64,
    /// Decode: into the latent space and out of it, over the sequences.
    absorb: Option<Gemm>,
    decode_floor: f64,
}

/// What decode attention costs along the summed context of a batch: so many seconds per token up to a context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stretch {
    /// First summed context it no longer holds for.
    pub(super) until: u64,
    /// Seconds per token.
    pub(super) slope: f64,
}

impl Attention {
    pub(super) fn new(spec: &RooflineSpec, deployment: &Deployment<'_>) -> Attention {
        let model = deployment.model;
        let numbers = match model.latent {
            None => Numbers::grouped(deployment),
            Some(latent) => Numbers::latent(deployment, latent),
        };
        let gpu = deployment.gpu;
        // Model: attention computes in 16 bits, whatever the storage.
        let rate = gpu.bf16_flops.value * spec.prefill_attention_efficiency;
        let prefill_bandwidth = gpu.memory_bytes_per_s.value * spec.elementwise_efficiency;
        let decode_bandwidth = gpu.memory_bytes_per_s.value * spec.decode_attention_efficiency;
        let kv_bytes = deployment.kv_cache.bytes() as f64;
        let product = |size: [f64; 2]| gemm(spec, deployment, Precision::Bf16, size);
        Attention {
            layers: f64::from(model.layers),
            window: model.window,
            prefill_pair: 2.0 * numbers.prefill_pair / rate,
            prefill_context: numbers.prefill_context * kv_bytes / prefill_bandwidth,
            prefill_token: numbers.prefill_token * 2.0 / prefill_bandwidth,
            expand: numbers.latent_matrix.map(product),
            prefill_floor: spec.prefill_attention_us * 1e-6,
            decode_compute: 2.0 * numbers.decode_pair / rate,
            decode_context: numbers.decode_context * kv_bytes / decode_bandwidth,
            decode_token: numbers.decode_token * 2.0 / decode_bandwidth,
            absorb: numbers.latent_matrix.map(product),
            decode_floor: spec.decode_attention_us * 1e-6,
        }
    }

    /// Attention of a step that is not empty.
    pub(super) fn seconds(&self, shape: &StepShape<'_>) -> f64 {
        // Model: prefill and decode parts add up, as if one kernel did one after the other; its floor counts once.
        let prefill: f64 = shape.prefill.iter().map(|&chunk| self.chunk(chunk)).sum();
        let (batch, context) = (f64::from(shape.decode_batch), shape.decode_context as f64);
        let floor = match (shape.prefill.is_empty(), shape.decode_batch) {
            (true, _) => self.decode_floor,
            (false, 0) => self.prefill_floor,
            (false, _) => self.prefill_floor.max(self.decode_floor),
        };
        prefill + self.decode(batch, context) + self.layers * floor
    }

    fn chunk(&self, chunk: Chunk) -> f64 {
        let [new, cached] = [chunk.new_tokens, chunk.cached_tokens].map(f64::from);
        let context = cached + new;
        let expand = self.expand.map_or(0.0, |gemm| gemm.seconds(context));
        let layer = |pairs: f64, read: f64| {
            (self.prefill_pair * pairs).max(self.prefill_context * read + self.prefill_token * new)
        };
        let full = layer(new * (cached + (new + 1.0) / 2.0), context);
        let Some(window) = self.window else {
            return self.layers * (full + expand);
        };
        let (tokens, windowed) = (f64::from(window.tokens), f64::from(window.layers));
        // The first of the new tokens see less than a window before them.
        let growing = (tokens - cached).clamp(0.0, new);
        let pairs = growing * (cached + (growing + 1.0) / 2.0) + (new - growing) * tokens;
        let short = layer(pairs, context.min(tokens + new));
        (self.layers - windowed) * full + windowed * short
    }

    fn decode(&self, batch: f64, context: f64) -> f64 {
        if batch == 0.0 {
            return 0.0;
        }
        let attended = match self.window {
            None => self.layers * context,
            Some(window) => {
                // Model: every sequence has the mean context of the batch, when it comes to windows.
                let seen = context.min(f64::from(window.tokens) * batch);
                let windowed = f64::from(window.layers);
                (self.layers - windowed) * context + windowed * seen
            }
        };
        let tokens = self.layers * batch;
        let absorb = self.absorb.map_or(0.0, |gemm| gemm.seconds(batch));
        (self.decode_compute * attended)
            .max(self.decode_context * attended + self.decode_token * tokens)
            + self.layers * absorb
    }

    /// Decode attention of a batch at context 0, floor included.
    pub(super) fn decode_at(&self, batch: f64) -> f64 {
        self.decode(batch, 0.0) + self.layers * self.decode_floor
    }

    /// How it grows with the summed context: first bound by memory, perhaps then by arithmetic; past the windows slower.
    pub(super) fn stretches(&self, batch: u32) -> [Stretch; 3] {
        let tokens = self.layers * f64::from(batch);
        let windowed = self.window.map_or(0.0, |window| f64::from(window.layers));
        let full = self.layers - windowed;
        let window = self.window.map_or(u64::MAX, |window| {
            u64::from(window.tokens) * u64::from(batch)
        });
        // Tokens, summed over the layers, at which arithmetic takes over.
        let steeper = self.decode_compute - self.decode_context;
        let arithmetic = if steeper <= 0.0 {
            u64::MAX
        } else {
            let attended = self.decode_token * tokens / steeper;
            let in_window = attended / self.layers;
            let context = if in_window <= window as f64 {
                in_window
            } else {
                (attended - windowed * window as f64) / full
            };
            context.ceil() as u64
        };
        let first = window.min(arithmetic);
        let second = window.max(arithmetic);
        let slope = |from: u64| {
            let layers = if from < window { self.layers } else { full };
            let bound = if from < arithmetic {
                self.decode_context
            } else {
                self.decode_compute
            };
            layers * bound
        };
        [(0, first), (first, second), (second, u64::MAX)].map(|(from, until)| Stretch {
            until,
            slope: slope(from),
        })
    }
}

/// Sizes in numbers, of one layer on one GPU. A pair is a token and one that it attends to: multiplications of their product.
struct Numbers {
    prefill_pair: f64,
    prefill_context: f64,
    prefill_token: f64,
    decode_pair: f64,
    decode_context: f64,
    decode_token: f64,
    /// Between latent vectors and the keys and values of the heads.
    latent_matrix: Option<[f64; 2]>,
}

impl Numbers {
    fn grouped(deployment: &Deployment<'_>) -> Numbers {
        let (model, tp) = (deployment.model, deployment.tensor_parallel);
        let head_dim = f64::from(model.head_dim);
        let q = f64::from(model.heads / tp) * head_dim;
        let kv = f64::from(model.kv_heads_per_gpu(tp)) * head_dim;
        Numbers {
            prefill_pair: 2.0 * q,
            prefill_context: 2.0 * kv,
            prefill_token: 2.0 * q,
            decode_pair: 2.0 * q,
            decode_context: 2.0 * kv,
            decode_token: 2.0 * q,
            latent_matrix: None,
        }
    }

    fn latent(deployment: &Deployment<'_>, latent: LatentAttention) -> Numbers {
        let heads = f64::from(deployment.model.heads / deployment.tensor_parallel);
        let [kv_rank, nope, rope, value] = [
            latent.kv_rank,
            latent.nope_dim,
            latent.rope_dim,
            latent.value_dim,
        ]
        .map(f64::from);
        Numbers {
            prefill_pair: heads * (nope + rope + value),
            prefill_context: heads * (nope + rope + value),
            prefill_token: heads * (nope + rope + value),
            decode_pair: heads * (2.0 * kv_rank + rope),
            decode_context: kv_rank + rope,
            decode_token: heads * (2.0 * kv_rank + rope),
            latent_matrix: Some([kv_rank, heads * (nope + value)]),
        }
    }
}
