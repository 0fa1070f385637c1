//! The embedded models: the facts of their published `config.json`.

use super::{Model, Precision};

/// Ids that people ask for and no formula here covers, by a part of their lower-case name.
pub(super) const NOT_MODELLED: &[(&str, &str)] = &[
    ("deepseek-v3.2", "sparse attention"),
    ("deepseek-v4", "sparse attention"),
    ("glm-5", "sparse attention"),
    ("kimi-k2.", "several modalities and 4-bit integer experts"),
    ("kimi-k3", "several modalities"),
    ("minimax-m3", "sparse attention"),
    ("llama-4", "chunked attention and several modalities"),
    ("qwen3-next", "linear attention"),
    ("qwen3.5", "linear attention and several modalities"),
    ("qwen3.6", "linear attention and several modalities"),
    ("-vl-", "several modalities"),
    ("nvfp4", "weights of 4-bit floats (nvfp4)"),
    ("awq", "weights of 4-bit integers (awq)"),
    ("gptq", "weights of 4-bit integers (gptq)"),
    ("gemma", "sliding-window attention of its own kind"),
    ("nemotron-3", "Mamba layers"),
    ("nemotron-h", "Mamba layers"),
    ("nemotron-super", "layers of different widths"),
];

/// One embedded model; the facts of its published `config.json`.
pub(super) struct Row {
    pub(super) id: &'static str,
    family: Family,
    layers: u32,
    hidden: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    intermediate: u32,
    vocab: u32,
    is_tied: bool,
    positions: u32,
    weights: Precision,
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Llama,
    Qwen2,
    Qwen3,
}

impl Row {
    pub(super) fn model(&self) -> Model {
        Model {
            id: self.id.to_owned(),
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            intermediate: self.intermediate,
            vocab: self.vocab,
            is_tied: self.is_tied,
            has_qkv_bias: self.family == Family::Qwen2,
            has_qk_norm: self.family == Family::Qwen3,
            max_position_embeddings: self.positions,
            weights: self.weights,
            latent: None,
            experts: None,
            window: None,
        }
    }
}

/// `id; family; layers, hidden, heads, kv heads, head size, FFN, vocabulary; tied or own LM head; longest context`.
macro_rules! rows {
    ($($id:literal $family:ident $l:literal $h:literal $n:literal $k:literal $d:literal $f:literal $v:literal
       $tie:ident $p:literal $w:ident;)*) => {
        &[$(Row {
            id: $id, family: Family::$family, layers: $l, hidden: $h, heads: $n, kv_heads: $k, head_dim: $d,
            intermediate: $f, vocab: $v, is_tied: rows!(@$tie), positions: $p, weights: Precision::$w,
        }),*]
    };
    (@tied) => { true };
    (@own) => { false };
}

#[rustfmt::skip]
pub(super) static EMBEDDED: &[Row] = rows! {
    // id                                       family  L  hidden heads kv  d   FFN   vocab  head context weights
    "meta-llama/Llama-3.1-8B"                   Llama  32  4096  32  8 128 14336 128256 own  131072 Bf16;
    "meta-llama/Llama-3.1-8B-Instruct"          Llama  32  4096  32  8 128 14336 128256 own  131072 Bf16;
    "meta-llama/Meta-Llama-3.1-8B"              Llama  32  4096  32  8 128 14336 128256 own  131072 Bf16;
    "meta-llama/Meta-Llama-3.1-8B-Instruct"     Llama  32  4096  32  8 128 14336 128256 own  131072 Bf16;
    "nvidia/Llama-3.1-8B-Instruct-FP8"          Llama  32  4096  32  8 128 14336 128256 own  131072 Fp8;
    "meta-llama/Llama-3.1-70B"                  Llama  80  8192  64  8 128 28672 128256 own  131072 Bf16;
    "meta-llama/Llama-3.1-70B-Instruct"         Llama  80  8192  64  8 128 28672 128256 own  131072 Bf16;
    "meta-llama/Meta-Llama-3.1-70B"             Llama  80  8192  64  8 128 28672 128256 own  131072 Bf16;
    "meta-llama/Meta-Llama-3.1-70B-Instruct"    Llama  80  8192  64  8 128 28672 128256 own  131072 Bf16;
    "nvidia/Llama-3.1-70B-Instruct-FP8"         Llama  80  8192  64  8 128 28672 128256 own  131072 Fp8;
    "meta-llama/Llama-3.3-70B-Instruct"         Llama  80  8192  64  8 128 28672 128256 own  131072 Bf16;
    "meta-llama/Llama-3.1-405B"                 Llama 126 16384 128  8 128 53248 128256 own  131072 Bf16;
    "meta-llama/Llama-3.1-405B-Instruct"        Llama 126 16384 128  8 128 53248 128256 own  131072 Bf16;
    "meta-llama/Llama-3.2-1B"                   Llama  16  2048  32  8  64  8192 128256 tied 131072 Bf16;
    "meta-llama/Llama-3.2-1B-Instruct"          Llama  16  2048  32  8  64  8192 128256 tied 131072 Bf16;
    "meta-llama/Llama-3.2-3B"                   Llama  28  3072  24  8 128  8192 128256 tied 131072 Bf16;
    "meta-llama/Llama-3.2-3B-Instruct"          Llama  28  3072  24  8 128  8192 128256 tied 131072 Bf16;
    "meta-llama/Meta-Llama-3-8B"                Llama  32  4096  32  8 128 14336 128256 own    8192 Bf16;
    "meta-llama/Meta-Llama-3-8B-Instruct"       Llama  32  4096  32  8 128 14336 128256 own    8192 Bf16;
    "meta-llama/Meta-Llama-3-70B"               Llama  80  8192  64  8 128 28672 128256 own    8192 Bf16;
    "meta-llama/Meta-Llama-3-70B-Instruct"      Llama  80  8192  64  8 128 28672 128256 own    8192 Bf16;
    "meta-llama/Llama-2-7b-hf"                  Llama  32  4096  32 32 128 11008  32000 own    4096 Bf16;
    "meta-llama/Llama-2-13b-hf"                 Llama  40  5120  40 40 128 13824  32000 own    4096 Bf16;
    "meta-llama/Llama-2-70b-hf"                 Llama  80  8192  64  8 128 28672  32000 own    4096 Bf16;
    "mistralai/Mistral-7B-v0.3"                 Llama  32  4096  32  8 128 14336  32768 own   32768 Bf16;
    "mistralai/Mistral-7B-Instruct-v0.3"        Llama  32  4096  32  8 128 14336  32768 own   32768 Bf16;
    "Qwen/Qwen2.5-0.5B-Instruct"                Qwen2  24   896  14  2  64  4864 151936 tied  32768 Bf16;
    "Qwen/Qwen2.5-1.5B-Instruct"                Qwen2  28  1536  12  2 128  8960 151936 tied  32768 Bf16;
    "Qwen/Qwen2.5-3B-Instruct"                  Qwen2  36  2048  16  2 128 11008 151936 tied  32768 Bf16;
    "Qwen/Qwen2.5-7B"                           Qwen2  28  3584  28  4 128 18944 152064 own  131072 Bf16;
    "Qwen/Qwen2.5-7B-Instruct"                  Qwen2  28  3584  28  4 128 18944 152064 own   32768 Bf16;
    "Qwen/Qwen2.5-14B-Instruct"                 Qwen2  48  5120  40  8 128 13824 152064 own   32768 Bf16;
    "Qwen/Qwen2.5-32B-Instruct"                 Qwen2  64  5120  40  8 128 27648 152064 own   32768 Bf16;
    "Qwen/Qwen2.5-72B"                          Qwen2  80  8192  64  8 128 29568 152064 own  131072 Bf16;
    "Qwen/Qwen2.5-72B-Instruct"                 Qwen2  80  8192  64  8 128 29568 152064 own   32768 Bf16;
    "Qwen/Qwen3-0.6B"                           Qwen3  28  1024  16  8 128  3072 151936 tied  40960 Bf16;
    "Qwen/Qwen3-1.7B"                           Qwen3  28  2048  16  8 128  6144 151936 tied  40960 Bf16;
    "Qwen/Qwen3-4B"                             Qwen3  36  2560  32  8 128  9728 151936 tied  40960 Bf16;
    "Qwen/Qwen3-8B"                             Qwen3  36  4096  32  8 128 12288 151936 own   40960 Bf16;
    "Qwen/Qwen3-8B-FP8"                         Qwen3  36  4096  32  8 128 12288 151936 own   40960 Fp8;
    "Qwen/Qwen3-14B"                            Qwen3  40  5120  40  8 128 17408 151936 own   40960 Bf16;
    "Qwen/Qwen3-14B-FP8"                        Qwen3  40  5120  40  8 128 17408 151936 own   40960 Fp8;
    "Qwen/Qwen3-32B"                            Qwen3  64  5120  64  8 128 25600 151936 own   40960 Bf16;
    "Qwen/Qwen3-32B-FP8"                        Qwen3  64  5120  64  8 128 25600 151936 own   40960 Fp8;
};
