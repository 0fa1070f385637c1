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
//! Common models are embedded by their Hugging Face id; any other of these families is read from its `config.json`.

mod mixtures;
mod table;

use crate::error::{CalibrationError, Problem, nearest};
use crate::hf_config;
use std::path::Path;
use table::{EMBEDDED, NOT_DENSE};

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
    /// The compressed query.
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
    /// q, k and v have a bias (Qwen2).
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
}

impl Model {
    /// The model with this Hugging Face id (any case), or the one a path to a `config.json` or its folder describes.
    ///
    /// # Errors
    /// No such model (with the nearest id), a known one that is not dense, or a file that cannot be read.
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
        if let Some((_, reason)) = NOT_DENSE.iter().find(|(part, _)| lower.contains(part)) {
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

    /// What it has that not every formula covers, in words; none for a dense decoder with grouped heads.
    #[must_use]
    pub const fn beyond_dense(&self) -> Option<&'static str> {
        match (self.latent.is_some(), self.experts.is_some()) {
            (false, false) => None,
            (false, true) => Some("mixture of experts"),
            (true, false) => Some("multi-head latent attention (MLA)"),
            (true, true) => Some("multi-head latent attention (MLA) and mixture of experts"),
        }
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let (in_16_bits, in_projections) = self.parameters_by_storage();
        in_16_bits + in_projections
    }

    /// Bytes of all weights.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        // Model: the scales of fp8 weights are left out (4 bytes per 128 x 128 block, 0.02 %).
        let (in_16_bits, in_projections) = self.parameters_by_storage();
        2 * in_16_bits + self.weights.bytes() * in_projections
    }

    /// Bytes of the weights on each of `tp` GPUs: projections, embedding and LM head are split, norms are copied, KV
    /// heads are copied when there are fewer of them than GPUs.
    #[must_use]
    pub fn weight_bytes_per_gpu(&self, tp: u32) -> u64 {
        let shard = Model {
            heads: self.heads / tp,
            kv_heads: self.kv_heads_per_gpu(tp),
            intermediate: self.intermediate / tp,
            // A GPU holds a part of every expert or every expert of a part: as many weights either way.
            experts: self.experts.map(|experts| Experts {
                intermediate: (experts.intermediate / tp).max(1),
                ..experts
            }),
            // The vocabulary is padded to a multiple of 64 and split.
            vocab: self.vocab.next_multiple_of(64).div_ceil(tp),
            id: String::new(),
            ..*self
        };
        if tp == 1 {
            self.weight_bytes()
        } else {
            shard.weight_bytes()
        }
    }

    /// Key/value heads on each of `tp` GPUs.
    #[must_use]
    pub fn kv_heads_per_gpu(&self, tp: u32) -> u32 {
        self.kv_heads.div_ceil(tp)
    }

    /// KV cache bytes per token over the whole model.
    #[must_use]
    pub fn kv_bytes_per_token(&self, kv_cache: Precision) -> u64 {
        self.kv_bytes_per_token_per_gpu(1, kv_cache)
    }

    /// KV cache bytes per token on each of `tp` GPUs.
    #[must_use]
    pub fn kv_bytes_per_token_per_gpu(&self, tp: u32, kv_cache: Precision) -> u64 {
        if let Some(latent) = self.latent {
            let numbers = u64::from(latent.kv_rank + latent.rope_dim);
            return u64::from(self.layers) * numbers * kv_cache.bytes();
        }
        let heads = u64::from(self.kv_heads_per_gpu(tp));
        2 * u64::from(self.layers) * heads * u64::from(self.head_dim) * kv_cache.bytes()
    }

    /// Whether the model can be split over `tp` GPUs; if not, why, in words that follow "tp".
    ///
    /// # Errors
    /// `tp` is 0 or does not divide the heads or the FFN, or neither divides nor is a multiple of the KV heads.
    pub fn check_tensor_parallel(&self, tp: u32) -> Result<(), String> {
        if tp == 0 {
            return Err("must be at least 1".to_owned());
        }
        if !self.heads.is_multiple_of(tp) {
            return Err(format!("must divide the {} attention heads", self.heads));
        }
        if !self.kv_heads.is_multiple_of(tp) && !tp.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "must divide, or be a multiple of, the {} KV heads",
                self.kv_heads
            ));
        }
        let has_ffn = self.experts.is_none_or(|experts| experts.dense_layers > 0);
        if has_ffn && !self.intermediate.is_multiple_of(tp) {
            return Err(format!("must divide the FFN size {}", self.intermediate));
        }
        if let Some(experts) = self.experts
            && !experts.intermediate.is_multiple_of(tp)
            && !experts.count.is_multiple_of(tp)
        {
            let Experts {
                count,
                intermediate,
                ..
            } = experts;
            return Err(format!(
                "must divide the {count} experts or their FFN size {intermediate}"
            ));
        }
        Ok(())
    }

    /// The widths up to `most` that [`Model::check_tensor_parallel`] accepts.
    pub fn legal_tensor_parallel(&self, most: u32) -> impl Iterator<Item = u32> {
        (1..=most).filter(|&tp| self.check_tensor_parallel(tp).is_ok())
    }

    /// Parameters always kept in 16 bits (embedding, LM head, norms, biases), and those of the projections.
    fn parameters_by_storage(&self) -> (u64, u64) {
        let [layers, hidden, intermediate] =
            [self.layers, self.hidden, self.intermediate].map(u64::from);
        let q = u64::from(self.heads) * u64::from(self.head_dim);
        let kv = u64::from(self.kv_heads) * u64::from(self.head_dim);
        let embeddings = u64::from(self.vocab) * hidden * if self.is_tied { 1 } else { 2 };
        let bias = if self.has_qkv_bias { q + 2 * kv } else { 0 };
        let qk_norm = if self.has_qk_norm {
            2 * u64::from(self.head_dim)
        } else {
            0
        };
        let mut in_16_bits = embeddings + hidden + layers * (2 * hidden + bias + qk_norm);
        let mut in_projections = match self.latent {
            None => layers * (2 * hidden * q + 2 * hidden * kv),
            Some(latent) => {
                let LatentAttention {
                    q_rank,
                    kv_rank,
                    nope_dim,
                    rope_dim,
                    value_dim,
                } = latent;
                let [q_rank, kv_rank, nope, rope, value] =
                    [q_rank, kv_rank, nope_dim, rope_dim, value_dim].map(u64::from);
                let heads = u64::from(self.heads);
                in_16_bits += layers * (q_rank + kv_rank);
                layers
                    * (hidden * (q_rank + kv_rank + rope)
                        + q_rank * heads * (nope + rope)
                        + kv_rank * heads * (nope + value)
                        + heads * value * hidden)
            }
        };
        match self.experts {
            None => in_projections += layers * 3 * hidden * intermediate,
            Some(experts) => {
                let dense = u64::from(experts.dense_layers);
                let size = u64::from(experts.intermediate);
                let [count, shared] = [experts.count, experts.shared].map(u64::from);
                in_16_bits += (layers - dense) * hidden * count;
                in_projections += dense * 3 * hidden * intermediate
                    + (layers - dense) * 3 * hidden * size * (count + shared);
            }
        }
        (in_16_bits, in_projections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str) -> Model {
        Model::find(id).expect("embedded")
    }

    #[test]
    fn parameters_are_those_of_the_model_cards() {
        for (id, billions) in [
            ("meta-llama/Llama-3.1-8B", 8.03),
            ("meta-llama/Llama-3.1-70B", 70.55),
            ("meta-llama/Llama-3.1-405B", 405.85),
            ("meta-llama/Llama-3.2-1B", 1.24),
            ("meta-llama/Llama-3.2-3B", 3.21),
            ("meta-llama/Llama-2-7b-hf", 6.74),
            ("meta-llama/Llama-2-13b-hf", 13.02),
            ("mistralai/Mistral-7B-v0.3", 7.25),
            ("Qwen/Qwen2.5-0.5B-Instruct", 0.494),
            ("Qwen/Qwen2.5-1.5B-Instruct", 1.54),
            ("Qwen/Qwen2.5-3B-Instruct", 3.09),
            ("Qwen/Qwen2.5-7B", 7.62),
            ("Qwen/Qwen2.5-14B-Instruct", 14.77),
            ("Qwen/Qwen2.5-32B-Instruct", 32.76),
            ("Qwen/Qwen2.5-72B", 72.71),
            ("Qwen/Qwen3-0.6B", 0.596),
            ("Qwen/Qwen3-1.7B", 1.72),
            ("Qwen/Qwen3-4B", 4.02),
            ("Qwen/Qwen3-8B", 8.19),
            ("Qwen/Qwen3-14B", 14.77),
            ("Qwen/Qwen3-32B", 32.76),
            ("Qwen/Qwen3-30B-A3B", 30.53),
            ("Qwen/Qwen3-235B-A22B", 235.09),
            ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 480.15),
            ("mistralai/Mixtral-8x7B-v0.1", 46.70),
            ("mistralai/Mixtral-8x22B-v0.1", 140.62),
            ("deepseek-ai/DeepSeek-V3", 671.03),
            ("moonshotai/Kimi-K2-Instruct", 1_026.4),
            ("MiniMaxAI/MiniMax-M2.5", 228.69),
        ] {
            let found = model(id).parameters() as f64 / 1e9;
            assert!(
                (found / billions - 1.0).abs() < 0.005,
                "{id}: {found} B, published {billions} B"
            );
        }
    }

    #[test]
    fn bytes_by_hand() {
        // 2 x 128256 x 4096 + 4096 + 32 x (2 x 4096 x 4096 + 2 x 4096 x 1024 + 3 x 4096 x 14336 + 2 x 4096)
        //   = 1,050,673,152 + 4,096 + 32 x 218,112,000 = 8,030,261,248 parameters of 2 bytes.
        let llama = model("meta-llama/Llama-3.1-8B");
        assert_eq!(llama.weight_bytes(), 16_060_522_496);
        // 2 x 32 layers x 8 heads x 128 x 2 bytes.
        assert_eq!(llama.kv_bytes_per_token(Precision::Bf16), 131_072);
        assert_eq!(llama.kv_bytes_per_token(Precision::Fp8), 65_536);
        assert_eq!(
            model("meta-llama/Llama-3.1-70B").kv_bytes_per_token(Precision::Bf16),
            327_680
        );
        // Two GPUs hold half of all but the norms (65 x 4096 x 2 bytes are copied).
        assert_eq!(
            llama.weight_bytes_per_gpu(2),
            (16_060_522_496 + 65 * 4096 * 2) / 2
        );
        assert_eq!(llama.weight_bytes_per_gpu(1), llama.weight_bytes());
        // 16 GPUs hold one KV head each, twice over.
        assert_eq!(
            llama.kv_bytes_per_token_per_gpu(16, Precision::Bf16),
            131_072 / 8
        );
        // FP8 halves the projections only: 2 x 1,050,673,152 + 32 x (218,103,808 + 2 x 8,192) + 2 x 4,096 bytes.
        assert_eq!(
            model("nvidia/Llama-3.1-8B-Instruct-FP8").weight_bytes(),
            9_081_200_640
        );
    }

    #[test]
    fn latent_attention_and_experts_by_hand() {
        let deepseek = model("deepseek-ai/DeepSeek-V3");
        // 61 layers x (512 + 64) numbers, on every GPU.
        assert_eq!(deepseek.kv_bytes_per_token(Precision::Bf16), 70_272);
        assert_eq!(
            deepseek.kv_bytes_per_token_per_gpu(8, Precision::Fp8),
            35_136
        );
        let (whole, eighth) = (deepseek.weight_bytes(), deepseek.weight_bytes_per_gpu(8));
        // The down-projections are on every GPU: 61 x 7,168 x 2,112 bytes.
        let copied = 61 * 7_168 * 2_112;
        let expected = (whole - copied) / 8 + copied;
        assert!(
            eighth.abs_diff(expected) < expected / 200,
            "{eighth} of {whole}"
        );
        let qwen = model("Qwen/Qwen3-235B-A22B");
        assert_eq!(
            qwen.kv_bytes_per_token(Precision::Bf16),
            2 * 94 * 4 * 128 * 2
        );
        assert_eq!(qwen.check_tensor_parallel(8), Ok(()));
        let minimax = model("MiniMaxAI/MiniMax-M2.5");
        assert_eq!(
            minimax.legal_tensor_parallel(8).collect::<Vec<_>>(),
            [1, 2, 4, 8]
        );
        assert_eq!(minimax.beyond_dense(), Some("mixture of experts"));
    }

    #[test]
    fn tensor_parallelism_must_divide() {
        let qwen = model("Qwen/Qwen2.5-7B");
        assert_eq!(qwen.legal_tensor_parallel(8).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(
            qwen.check_tensor_parallel(8),
            Err("must divide the 28 attention heads".to_owned())
        );
        assert!(qwen.check_tensor_parallel(0).is_err());
        assert_eq!(
            model("Qwen/Qwen3-32B")
                .legal_tensor_parallel(8)
                .collect::<Vec<_>>(),
            [1, 2, 4, 8]
        );
        let odd = Model {
            heads: 24,
            kv_heads: 8,
            ..model("Qwen/Qwen3-8B")
        };
        assert_eq!(
            odd.check_tensor_parallel(3),
            Err("must divide, or be a multiple of, the 8 KV heads".to_owned())
        );
    }

    #[test]
    fn names_are_found_in_any_case_and_typos_answered() {
        assert_eq!(model("QWEN/qwen3-8b").id, "Qwen/Qwen3-8B");
        let message = Model::find("meta-llama/Lama-3.1-8B")
            .expect_err("a typo")
            .to_string();
        assert!(
            message.contains("did you mean `meta-llama/Llama-3.1-8B`?"),
            "{message}"
        );
        let message = Model::find("zai-org/GLM-5")
            .expect_err("sparse attention")
            .to_string();
        assert!(
            message.contains("is not modelled yet: mixture of experts and sparse attention"),
            "{message}"
        );
        assert!(matches!(
            Model::find("openai/gpt-oss-120b"),
            Err(CalibrationError::NotModelled { .. })
        ));
        assert!(matches!(
            Model::find("nowhere/config.json"),
            Err(CalibrationError::Read { .. })
        ));
    }

    #[test]
    fn the_table_has_no_duplicates_and_every_row_can_be_split() {
        for (i, row) in EMBEDDED.iter().enumerate() {
            assert!(
                EMBEDDED[..i]
                    .iter()
                    .all(|other| !other.id.eq_ignore_ascii_case(row.id)),
                "{}",
                row.id
            );
            let model = row.model();
            assert!(model.heads.is_multiple_of(model.kv_heads));
            assert!(model.check_tensor_parallel(2).is_ok());
        }
    }
}
