//! The embedded mixtures of experts: the facts of their published `config.json`.

use super::{ExpertStorage, Experts, LatentAttention, Model, Precision, SlidingWindow};

/// One embedded mixture.
struct Row {
    id: &'static str,
    layers: u32,
    hidden: u32,
    heads: u32,
    /// Key and value heads; none for latent attention.
    kv_heads: Option<u32>,
    head_dim: u32,
    has_qkv_bias: bool,
    has_qk_norm: bool,
    /// FFN size of the layers without experts, and how many there are.
    dense: (u32, u32),
    /// Experts of a layer, how many a token goes to, their FFN size, and how many every token goes to besides.
    experts: (u32, u32, u32, u32),
    vocab: u32,
    positions: u32,
    weights: Precision,
    storage: ExpertStorage,
    /// Every other layer, the first among them, attends to so many tokens only.
    window: Option<u32>,
}

/// DeepSeek's latent attention, taken over by Kimi.
const DEEPSEEK: LatentAttention = LatentAttention {
    q_rank: 1_536,
    kv_rank: 512,
    nope_dim: 128,
    rope_dim: 64,
    value_dim: 128,
};

const fn row(id: &'static str, like: Row) -> Row {
    Row { id, ..like }
}

const fn fp8(id: &'static str, like: Row) -> Row {
    Row {
        id,
        weights: Precision::Fp8,
        ..like
    }
}

const QWEN3_30B: Row = Row {
    id: "Qwen/Qwen3-30B-A3B",
    layers: 48,
    hidden: 2_048,
    heads: 32,
    kv_heads: Some(4),
    head_dim: 128,
    has_qkv_bias: false,
    has_qk_norm: true,
    dense: (6_144, 0),
    experts: (128, 8, 768, 0),
    vocab: 151_936,
    positions: 40_960,
    weights: Precision::Bf16,
    storage: ExpertStorage::AsProjections,
    window: None,
};

const QWEN3_235B: Row = Row {
    id: "Qwen/Qwen3-235B-A22B",
    layers: 94,
    hidden: 4_096,
    heads: 64,
    dense: (12_288, 0),
    experts: (128, 8, 1_536, 0),
    ..QWEN3_30B
};

const QWEN3_CODER: Row = Row {
    id: "Qwen/Qwen3-Coder-480B-A35B-Instruct",
    layers: 62,
    hidden: 6_144,
    heads: 96,
    kv_heads: Some(8),
    dense: (8_192, 0),
    experts: (160, 8, 2_560, 0),
    positions: 262_144,
    ..QWEN3_30B
};

const MIXTRAL_8X7B: Row = Row {
    id: "mistralai/Mixtral-8x7B-v0.1",
    layers: 32,
    hidden: 4_096,
    kv_heads: Some(8),
    has_qk_norm: false,
    dense: (14_336, 0),
    experts: (8, 2, 14_336, 0),
    vocab: 32_000,
    positions: 32_768,
    ..QWEN3_30B
};

const MIXTRAL_8X22B: Row = Row {
    id: "mistralai/Mixtral-8x22B-v0.1",
    layers: 56,
    hidden: 6_144,
    heads: 48,
    dense: (16_384, 0),
    experts: (8, 2, 16_384, 0),
    positions: 65_536,
    ..MIXTRAL_8X7B
};

const DEEPSEEK_V3: Row = Row {
    id: "deepseek-ai/DeepSeek-V3",
    layers: 61,
    hidden: 7_168,
    heads: 128,
    kv_heads: None,
    has_qk_norm: false,
    dense: (18_432, 3),
    experts: (256, 8, 2_048, 1),
    vocab: 129_280,
    positions: 163_840,
    weights: Precision::Fp8,
    ..QWEN3_30B
};

const KIMI_K2: Row = Row {
    id: "moonshotai/Kimi-K2-Instruct",
    heads: 64,
    dense: (18_432, 1),
    experts: (384, 8, 2_048, 1),
    vocab: 163_840,
    positions: 131_072,
    ..DEEPSEEK_V3
};

const MINIMAX_M2: Row = Row {
    id: "MiniMaxAI/MiniMax-M2",
    layers: 62,
    hidden: 3_072,
    heads: 48,
    kv_heads: Some(8),
    has_qk_norm: true,
    dense: (1_536, 0),
    experts: (256, 8, 1_536, 0),
    vocab: 200_064,
    positions: 196_608,
    weights: Precision::Fp8,
    ..QWEN3_30B
};

/// Without the layer that predicts a second token, which is not loaded unless it is used.
const GLM_4_5: Row = Row {
    id: "zai-org/GLM-4.5",
    layers: 92,
    hidden: 5_120,
    heads: 96,
    kv_heads: Some(8),
    has_qkv_bias: true,
    has_qk_norm: true,
    dense: (12_288, 3),
    experts: (160, 8, 1_536, 1),
    vocab: 151_552,
    positions: 131_072,
    ..QWEN3_30B
};

const GLM_4_6: Row = Row {
    id: "zai-org/GLM-4.6",
    positions: 202_752,
    ..GLM_4_5
};

const GLM_4_5_AIR: Row = Row {
    id: "zai-org/GLM-4.5-Air",
    layers: 46,
    hidden: 4_096,
    has_qk_norm: false,
    dense: (10_944, 1),
    experts: (128, 8, 1_408, 1),
    ..GLM_4_5
};

const GPT_OSS_120B: Row = Row {
    id: "openai/gpt-oss-120b",
    layers: 36,
    hidden: 2_880,
    heads: 64,
    kv_heads: Some(8),
    head_dim: 64,
    has_qkv_bias: true,
    has_qk_norm: false,
    dense: (2_880, 0),
    experts: (128, 4, 2_880, 0),
    vocab: 201_088,
    positions: 131_072,
    weights: Precision::Bf16,
    storage: ExpertStorage::Mxfp4,
    window: Some(128),
};

const GPT_OSS_20B: Row = Row {
    id: "openai/gpt-oss-20b",
    layers: 24,
    experts: (32, 4, 2_880, 0),
    ..GPT_OSS_120B
};

static ROWS: &[Row] = &[
    QWEN3_30B,
    fp8("Qwen/Qwen3-30B-A3B-FP8", QWEN3_30B),
    QWEN3_235B,
    fp8("Qwen/Qwen3-235B-A22B-FP8", QWEN3_235B),
    QWEN3_CODER,
    MIXTRAL_8X7B,
    row("mistralai/Mixtral-8x7B-Instruct-v0.1", MIXTRAL_8X7B),
    MIXTRAL_8X22B,
    row("mistralai/Mixtral-8x22B-Instruct-v0.1", MIXTRAL_8X22B),
    DEEPSEEK_V3,
    row("deepseek-ai/DeepSeek-R1", DEEPSEEK_V3),
    row("deepseek-ai/DeepSeek-V3.1", DEEPSEEK_V3),
    KIMI_K2,
    MINIMAX_M2,
    row("MiniMaxAI/MiniMax-M2.5", MINIMAX_M2),
    GLM_4_5,
    fp8("zai-org/GLM-4.5-FP8", GLM_4_5),
    GLM_4_5_AIR,
    fp8("zai-org/GLM-4.5-Air-FP8", GLM_4_5_AIR),
    GLM_4_6,
    fp8("zai-org/GLM-4.6-FP8", GLM_4_6),
    GPT_OSS_120B,
    GPT_OSS_20B,
];

/// Their ids.
pub(super) fn ids() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.id)
}

/// The one with this id, in any case.
pub(super) fn find(id: &str) -> Option<Model> {
    let row = ROWS.iter().find(|row| row.id.eq_ignore_ascii_case(id))?;
    let (count, per_token, intermediate, shared) = row.experts;
    Some(Model {
        id: row.id.to_owned(),
        layers: row.layers,
        hidden: row.hidden,
        heads: row.heads,
        kv_heads: row.kv_heads.unwrap_or(row.heads),
        head_dim: row.head_dim,
        intermediate: row.dense.0,
        vocab: row.vocab,
        is_tied: false,
        has_qkv_bias: row.has_qkv_bias,
        has_qk_norm: row.has_qk_norm,
        max_position_embeddings: row.positions,
        weights: row.weights,
        latent: row.kv_heads.is_none().then_some(DEEPSEEK),
        experts: Some(Experts {
            count,
            per_token,
            intermediate,
            shared,
            dense_layers: row.dense.1,
            storage: row.storage,
        }),
        window: row.window.map(|tokens| SlidingWindow {
            tokens,
            layers: row.layers.div_ceil(2),
        }),
    })
}
