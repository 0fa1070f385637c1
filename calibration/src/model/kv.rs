//! What the KV cache of a model takes.
//!
//! With k' KV heads on a GPU (copied when there are fewer than GPUs), head size d, L layers of which w have a window of W
//! tokens, and bytes b per number:
//!
//! ```text
//! grouped heads   a token costs 2 · k' · d · b in each of the L − w layers, and as much in each of the w
//! latent (MLA)    (kv_rank + rope) · b in each layer, on every GPU
//! a sequence      tokens · (L − w) + min(tokens, W) · w  layers' worth
//! ```

use super::{Model, Precision};

impl Model {
    /// Key/value heads on each of `tp` GPUs.
    #[must_use]
    pub fn kv_heads_per_gpu(&self, tp: u32) -> u32 {
        self.kv_heads.div_ceil(tp)
    }

    /// KV cache bytes over the whole model of a token that all layers keep.
    #[must_use]
    pub fn kv_bytes_per_token(&self, kv_cache: Precision) -> u64 {
        u64::from(self.layers) * self.kv_bytes_per_token_and_layer(1, kv_cache)
    }

    /// KV cache bytes on each of `tp` GPUs of a further token of a long sequence: those of the layers without a window.
    #[must_use]
    pub fn kv_bytes_per_token_per_gpu(&self, tp: u32, kv_cache: Precision) -> u64 {
        u64::from(self.full_layers()) * self.kv_bytes_per_token_and_layer(tp, kv_cache)
    }

    /// KV cache bytes on each of `tp` GPUs of a sequence of so many tokens, blocks not counted in.
    #[must_use]
    pub fn kv_bytes_per_gpu(&self, tokens: u64, tp: u32, kv_cache: Precision) -> u64 {
        let windowed = self.window.map_or(0, |window| {
            tokens.min(u64::from(window.tokens)) * u64::from(window.layers)
        });
        let in_layers = tokens * u64::from(self.full_layers()) + windowed;
        in_layers * self.kv_bytes_per_token_and_layer(tp, kv_cache)
    }

    /// KV cache bytes of a token in one layer on each of `tp` GPUs.
    #[must_use]
    pub fn kv_bytes_per_token_and_layer(&self, tp: u32, kv_cache: Precision) -> u64 {
        let numbers = match self.latent {
            Some(latent) => u64::from(latent.kv_rank + latent.rope_dim),
            None => 2 * u64::from(self.kv_heads_per_gpu(tp)) * u64::from(self.head_dim),
        };
        numbers * kv_cache.bytes()
    }

    /// Layers that attend to everything.
    #[must_use]
    pub fn full_layers(&self) -> u32 {
        self.layers - self.window.map_or(0, |window| window.layers)
    }
}
