//! The shape of a model: what its weights, its KV cache and a pass over it cost.
//!
//! Decoders of the Llama family: token embedding, then per layer grouped-query attention (q, k, v, o projections)
//! and a gated FFN (gate, up, down) with two RMS norms, then a norm and the LM head. Qwen2 adds a bias to q, k and v,
//! Qwen3 a norm of each query and key head. With n heads, k KV heads, head size d, hidden size h, FFN size f,
//! vocabulary V and L layers:
//!
//! ```text
//! weights        = V·h·(1 or 2) + h + L·(h·n·d + 2·h·k·d + n·d·h + 3·h·f + 2·h [+ (n + 2k)·d] [+ 2·d])
//! KV bytes/token = 2 · L · k · d · bytes
//! ```
//!
//! A mixture of experts has a router and E gated FFNs of size e in place of the one, in all but its first few layers, and
//! perhaps shared experts besides: `3·h·e·(E + shared) + h·E` weights a layer. Latent attention (MLA) keeps one vector of
//! kv_rank + rope_dim numbers per token and layer for all heads, on every GPU:
//!
//! ```text
//! projections    = h·q_rank + q_rank·n·(nope + rope) + h·(kv_rank + rope) + kv_rank·n·(nope + value) + n·value·h
//! KV bytes/token = L · (kv_rank + rope) · bytes
//! ```
//!
//! Layers with a sliding window attend to the last so many tokens and keep no more: their KV bytes stop growing at the
//! window (`model/kv.rs`). How a model may be split over GPUs is in `model/widths.rs`, what its weights take in
//! `model/weights.rs`.
//!
//! Common models are embedded by their Hugging Face id; any other of these families is read from its `config.json`.

mod kv;
mod mixtures;
mod table;
mod weights;
mod widths;

use crate::error::{CalibrationError, Problem, nearest};
use crate::hf_config;
use std::path::Path;
use table::{EMBEDDED, NOT_MODELLED};

pub use widths::Widths;

/// Storage of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 16 bits (bfloat16 or float16).
    Bf16,
    /// 8-bit float.
    Fp8,
}

impl Precision {
    /// Bytes per number.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Precision::Bf16 => 2,
            Precision::Fp8 => 1,
        }
    }

    /// `bf16` or `fp8`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Bf16 => "bf16",
            Precision::Fp8 => "fp8",
        }
    }
}

/// Attention of all heads to one vector per token (MLA), sizes in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentAttention {
    /// The compressed query; 0 where queries are not compressed.
    pub q_rank: u32,
    /// The latent vector.
    pub kv_rank: u32,
    /// The part of a head without position.
    pub nope_dim: u32,
    /// The part with position (RoPE), shared by all heads.
    pub rope_dim: u32,
    /// A value head.
    pub value_dim: u32,
}

/// What stands in the place of a layer's FFN in a mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: u32,
    /// Experts a token goes to.
    pub per_token: u32,
    /// FFN size of an expert.
    pub intermediate: u32,
    /// Experts that every token goes to besides.
    pub shared: u32,
    /// Layers, the first ones, that have an FFN and no experts.
    pub dense_layers: u32,
    /// Storage of their weights.
    pub storage: ExpertStorage,
}

/// Storage of the experts' weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertStorage {
    /// That of the other projections.
    AsProjections,
    /// 4-bit floats, an 8-bit scale for every 32 of them (MXFP4).
    Mxfp4,
}

/// Layers that attend to the last tokens only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Tokens they attend to, the query's own among them.
    pub tokens: u32,
    /// How many of the layers; the others attend to everything.
    pub layers: u32,
}

/// A decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Hugging Face id, or the path it was read from.
    pub id: String,
    /// Decoder layers.
    pub layers: u32,
    /// Hidden size.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key/value heads; divides `heads`.
    pub kv_heads: u32,
    /// Size of a head.
    pub head_dim: u32,
    /// FFN size; with experts, that of the layers without.
    pub intermediate: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// The LM head is the embedding.
    pub is_tied: bool,
    /// q, k and v have a bias (Qwen2, GLM, gpt-oss).
    pub has_qkv_bias: bool,
    /// Queries and keys are normed per head (Qwen3).
    pub has_qk_norm: bool,
    /// Longest context of the configuration, in tokens.
    pub max_position_embeddings: u32,
    /// Storage of the projection weights; embedding, LM head and norms are always 16 bits.
    pub weights: Precision,
    /// How it attends if not by grouped heads; `kv_heads` and `head_dim` then only name sizes.
    pub latent: Option<LatentAttention>,
    /// Its experts, if it has any.
    pub experts: Option<Experts>,
    /// Its layers with a window, if it has any; at least one layer is without.
    pub window: Option<SlidingWindow>,
}

impl Model {
    /// The model with this Hugging Face id (any case), or the one a path to a `config.json` or its folder describes.
    ///
    /// # Errors
    /// No such model (with the nearest id), one that is known and not modelled, or a file that cannot be read.
    pub fn find(name: &str) -> Result<Model, CalibrationError> {
        if let Some(row) = EMBEDDED
            .iter()
            .find(|row| row.id.eq_ignore_ascii_case(name))
        {
            return Ok(row.model());
        }
        if let Some(mixture) = mixtures::find(name) {
            return Ok(mixture);
        }
        let path = Path::new(name);
        if name.ends_with(".json") || path.join("config.json").is_file() {
            return hf_config::read(path);
        }
        let lower = name.to_lowercase();
        if let Some((_, reason)) = NOT_MODELLED.iter().find(|(part, _)| lower.contains(part)) {
            let reasons = vec![(*reason).to_owned()];
            return Err(CalibrationError::NotModelled {
                subject: format!("model `{name}`"),
                reasons,
            });
        }
        let expected = "an embedded model or the path of a config.json";
        let problem = Problem::new("model", format!("`{name}`"), expected);
        let near = nearest(name, Model::ids());
        Err(CalibrationError::Invalid(vec![match near {
            Some(near) => problem.suggest(format!("did you mean `{near}`?")),
            None => problem,
        }]))
    }

    /// Ids of the embedded models.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        EMBEDDED.iter().map(|row| row.id).chain(mixtures::ids())
    }

    /// The storage of its weights in words: `fp8 weights`, `bf16 weights with mxfp4 experts`.
    #[must_use]
    pub fn storage(&self) -> String {
        let has_mxfp4 = |experts: Experts| experts.storage == ExpertStorage::Mxfp4;
        let experts = if self.experts.is_some_and(has_mxfp4) {
            " with mxfp4 experts"
        } else {
            ""
        };
        format!("{} weights{experts}", self.weights.name())
    }

    /// What it has that not every formula covers, in words; none for a dense decoder with grouped heads.
    #[must_use]
    pub fn beyond_dense(&self) -> Option<String> {
        let parts = [
            (self.latent.is_some(), "multi-head latent attention (MLA)"),
            (self.experts.is_some(), "mixture of experts"),
            (self.window.is_some(), "sliding-window attention"),
        ];
        let found: Vec<&str> = parts
            .iter()
            .filter_map(|&(is_there, name)| is_there.then_some(name))
            .collect();
        (!found.is_empty()).then(|| found.join(" and "))
    }
}

#[cfg(test)]
mod tests;
