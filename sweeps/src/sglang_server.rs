//! An SGLang server's settings where its options are left out: by the memory of its GPUs, as the server itself decides.
//!
//! In words: chunk size and share of the memory follow from the GPU, the pool from what weights leave of that share, and
//! the seats from the pool. Without model and GPU the defaults of large GPUs stand, and the pool is a guess.

use crate::scenario::KvBlocks;
use calibration::tables::Backend;
use calibration::{CalibrationError, Gpu, KvCapacity, KvQuestion, Model, Precision, kv_capacity};
use engine::sglang::SglangConfig;
use engine::sglang::defaults::{
    CONSERVATIVENESS_OF_RANKS, SEATS_WITH_DRAFTS, WorkerGpus, max_running_requests,
};

/// Options of a server, those that default to something of their own left open.
#[derive(Debug, Clone, PartialEq)]
pub struct SglangOptions {
    /// The others; the four below are not read from here.
    pub config: SglangConfig,
    /// Where to cut prompts; `None` leaves it to the GPU's memory.
    pub chunked_prefill_size: Option<ChunkedPrefill>,
    /// Share of the memory for weights and KV pool.
    pub mem_fraction_static: Option<f64>,
    /// Tokens of the KV pool.
    pub max_total_tokens: Option<u32>,
    /// Most requests running at once.
    pub max_running_requests: Option<u32>,
}

/// Whether prompts are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkedPrefill {
    /// Never.
    Off,
    /// Beyond so many tokens of a batch.
    Tokens(u32),
}

/// What a worker runs on.
#[derive(Debug, Clone, Copy)]
pub struct Hardware<'a> {
    /// The model served.
    pub model: &'a Model,
    /// The GPU.
    pub gpu: &'a Gpu,
    /// GPUs that share every layer.
    pub tensor_parallel: u32,
    /// Groups of GPUs over which whole experts are dealt out; 1 without.
    pub expert_parallel: u32,
    /// Storage of the KV cache.
    pub kv_cache: Precision,
}

impl SglangOptions {
    /// All defaults.
    #[must_use]
    pub fn new(config: SglangConfig) -> SglangOptions {
        SglangOptions {
            config,
            chunked_prefill_size: None,
            mem_fraction_static: None,
            max_total_tokens: None,
            max_running_requests: None,
        }
    }

    /// The settings on hardware that is not known.
    #[must_use]
    pub fn without_hardware(&self) -> (SglangConfig, KvBlocks) {
        let default = SglangConfig::default();
        let tokens = self.max_total_tokens.unwrap_or(default.max_total_tokens);
        let from = match self.max_total_tokens {
            Some(_) => KvBlocks::Given,
            None => KvBlocks::Guessed,
        };
        (self.filled(default.chunked_prefill_size, tokens), from)
    }

    /// The settings on this hardware.
    ///
    /// # Errors
    /// The model does not fit, or cannot be split like that.
    pub fn on(
        &self,
        hardware: &Hardware<'_>,
    ) -> Result<(SglangConfig, KvBlocks), CalibrationError> {
        let chunk = Some(self.gpus(hardware).chunked_prefill_size());
        if let Some(tokens) = self.max_total_tokens {
            return Ok((self.filled(chunk, tokens), KvBlocks::Given));
        }
        let capacity = self.capacity(hardware)?;
        let most = u64::from(SglangConfig::UNLIMITED);
        let config = self.filled(chunk, capacity.tokens.min(most) as u32);
        Ok((config, KvBlocks::Computed(capacity)))
    }

    /// Share of the memory for weights and KV pool on this hardware.
    #[must_use]
    pub fn memory_share(&self, hardware: &Hardware<'_>) -> f64 {
        self.mem_fraction_static.unwrap_or_else(|| {
            let tokens = self.prefill_tokens(hardware);
            self.gpus(hardware).mem_fraction_static(tokens)
        })
    }

    fn prefill_tokens(&self, hardware: &Hardware<'_>) -> u32 {
        let chunk = self.chunk(Some(self.gpus(hardware).chunked_prefill_size()));
        chunk.unwrap_or(self.config.max_prefill_tokens)
    }

    fn capacity(&self, hardware: &Hardware<'_>) -> Result<KvCapacity, CalibrationError> {
        let Hardware {
            model,
            gpu,
            tensor_parallel,
            expert_parallel,
            kv_cache,
        } = *hardware;
        kv_capacity(&KvQuestion {
            model,
            gpu,
            tensor_parallel,
            expert_parallel,
            kv_cache,
            backend: Backend::Sglang,
            block_size: self.config.page_size,
            memory_fraction: Some(self.memory_share(hardware)),
            max_num_batched_tokens: self.prefill_tokens(hardware),
            max_num_seqs: 1,
        })
    }

    fn gpus(&self, hardware: &Hardware<'_>) -> WorkerGpus {
        WorkerGpus {
            memory_bytes: hardware.gpu.memory_bytes.value,
            tensor_parallel: hardware.tensor_parallel,
        }
    }

    fn chunk(&self, default: Option<u32>) -> Option<u32> {
        match self.chunked_prefill_size {
            None => default,
            Some(ChunkedPrefill::Off) => None,
            Some(ChunkedPrefill::Tokens(tokens)) => Some(tokens),
        }
    }

    fn filled(&self, chunk: Option<u32>, tokens: u32) -> SglangConfig {
        let seats = || match self.config.speculation {
            Some(_) => SEATS_WITH_DRAFTS,
            None => max_running_requests(tokens, self.config.context_length),
        };
        // With attention data parallelism a server divides its limits among ranks and expects less output.
        let ranks = self.config.dp_size;
        let conservativeness = if ranks > 1 {
            CONSERVATIVENESS_OF_RANKS
        } else {
            1.0
        };
        SglangConfig {
            chunked_prefill_size: self.chunk(chunk).map(|size| (size / ranks).max(1)),
            max_total_tokens: tokens,
            max_running_requests: (self.max_running_requests.unwrap_or_else(seats) / ranks).max(1),
            schedule_conservativeness: self.config.schedule_conservativeness * conservativeness,
            ..self.config.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_decides_by_its_gpu() {
        let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
        let on = |gpu: &str, options: &SglangOptions| {
            let hardware = Hardware {
                model: &model,
                gpu: Gpu::find(gpu).expect("known"),
                tensor_parallel: 1,
                expert_parallel: 1,
                kv_cache: Precision::Bf16,
            };
            options.on(&hardware).expect("8B fits")
        };
        let config = SglangConfig {
            context_length: model.max_position_embeddings,
            ..SglangConfig::default()
        };
        let options = SglangOptions::new(config);
        let (small, _) = on("rtx_4090", &options);
        let (large, from) = on("h100_sxm", &options);
        let chunks = [&small, &large].map(|config| config.chunked_prefill_size);
        assert_eq!(chunks, [Some(2_048), Some(8_192)]);
        assert!(matches!(from, KvBlocks::Computed(_)));
        // Pages of one token: about 0.834 x 79.19 GiB less 14.96 of weights and 1.07 of runtime, by 128 KiB a token.
        assert!(
            (400_000..420_000).contains(&large.max_total_tokens),
            "{large:?}"
        );
        assert_eq!(large.max_running_requests, 2_048);
        // Options that are given stand.
        let given = SglangOptions {
            chunked_prefill_size: Some(ChunkedPrefill::Off),
            max_total_tokens: Some(5_000),
            max_running_requests: Some(7),
            ..options.clone()
        };
        let (config, from) = on("h100_sxm", &given);
        assert_eq!(
            (
                config.chunked_prefill_size,
                config.max_total_tokens,
                config.max_running_requests,
                from
            ),
            (None, 5_000, 7, KvBlocks::Given)
        );
        let less = SglangOptions {
            mem_fraction_static: Some(0.5),
            ..options.clone()
        };
        assert!(on("h100_sxm", &less).0.max_total_tokens < large.max_total_tokens / 2 + 20_000);
        // Nothing known: a guess.
        let (config, from) = options.without_hardware();
        assert_eq!(
            (config.max_total_tokens, from),
            (262_144, KvBlocks::Guessed)
        );
    }
}
