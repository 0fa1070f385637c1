//! KV blocks of a TensorRT-LLM server whose pool is left to it: a share of the memory that weights and activations leave.

use crate::scenario::KvBlocks;
use crate::sglang_server::Hardware;
use calibration::tables::Backend;
use calibration::{CalibrationError, KvCapacity, KvQuestion, kv_capacity};
use engine::trtllm::TrtllmConfig;

/// Options of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct TrtllmOptions {
    /// All but the pool; `num_blocks` is not read from here.
    pub config: TrtllmConfig,
    /// Tokens of the pool.
    pub max_tokens: Option<u32>,
    /// Share of the free memory that the pool takes.
    pub free_gpu_memory_fraction: f64,
}

/// TensorRT-LLM's own share.
pub const DEFAULT_FREE_GPU_MEMORY_FRACTION: f64 = 0.9;

impl TrtllmOptions {
    /// Nothing but what is in `config`.
    #[must_use]
    pub fn new(config: TrtllmConfig) -> TrtllmOptions {
        TrtllmOptions {
            config,
            max_tokens: None,
            free_gpu_memory_fraction: DEFAULT_FREE_GPU_MEMORY_FRACTION,
        }
    }

    /// The settings on hardware that is not known.
    #[must_use]
    pub fn without_hardware(&self) -> (TrtllmConfig, KvBlocks) {
        match self.max_tokens {
            Some(tokens) => (self.of_tokens(tokens), KvBlocks::Given),
            None => {
                let tokens = TrtllmConfig::default();
                let tokens = tokens.num_blocks * tokens.tokens_per_block;
                (self.of_tokens(tokens), KvBlocks::Guessed)
            }
        }
    }

    /// The same on this hardware.
    ///
    /// # Errors
    /// The model does not fit, or cannot be split like that.
    pub fn on(
        &self,
        hardware: &Hardware<'_>,
    ) -> Result<(TrtllmConfig, KvBlocks), CalibrationError> {
        if self.max_tokens.is_some() {
            return Ok(self.without_hardware());
        }
        let capacity = self.capacity(hardware)?;
        let most = u64::from(TrtllmConfig::UNLIMITED);
        let config = self.of_tokens(capacity.tokens.min(most) as u32);
        Ok((config, KvBlocks::Computed(capacity)))
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
            backend: Backend::Trtllm,
            model,
            gpu,
            tensor_parallel,
            expert_parallel,
            kv_cache,
            block_size: self.config.tokens_per_block,
            memory_fraction: Some(self.free_gpu_memory_fraction),
            max_num_batched_tokens: self.config.max_num_tokens,
            max_num_seqs: self.config.max_batch_size,
        })
    }

    fn of_tokens(&self, tokens: u32) -> TrtllmConfig {
        TrtllmConfig {
            num_blocks: tokens / self.config.tokens_per_block,
            ..self.config.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calibration::{Gpu, Model, Precision};

    #[test]
    fn the_pool_is_a_share_of_what_is_left() {
        let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
        let hardware = Hardware {
            model: &model,
            gpu: Gpu::find("h100_sxm").expect("known"),
            tensor_parallel: 1,
            expert_parallel: 1,
            kv_cache: Precision::Bf16,
        };
        let options = TrtllmOptions::new(TrtllmConfig::default());
        let tokens = |options: &TrtllmOptions| {
            let (config, from) = options.on(&hardware).expect("8B fits");
            assert!(matches!(from, KvBlocks::Computed(_)));
            config.num_blocks * config.tokens_per_block
        };
        // 0.9 of 79.19 GiB less 14.96 of weights, 0.69 of activations and 1 of runtime, by 128 KiB a token: 461,000.
        let large = tokens(&options);
        assert!((455_000..466_000).contains(&large), "{large}");
        let half = TrtllmOptions {
            free_gpu_memory_fraction: 0.45,
            ..options.clone()
        };
        assert!(tokens(&half).abs_diff(large / 2) <= 64);
        let given = TrtllmOptions {
            max_tokens: Some(1_000),
            ..options
        };
        let (config, from) = given.on(&hardware).expect("given");
        assert_eq!((config.num_blocks, from), (31, KvBlocks::Given));
    }
}
