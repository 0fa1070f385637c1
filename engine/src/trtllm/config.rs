//! The settings of a TensorRT-LLM engine that its scheduler looks at, under its own names (`llm_args`, `kv_cache_config`,
//! `scheduler_config`).

use crate::speculation::Speculation;

/// Settings of one TensorRT-LLM worker.
#[derive(Debug, Clone, PartialEq)]
pub struct TrtllmConfig {
    /// Tokens per KV block.
    pub tokens_per_block: u32,
    /// KV blocks, all of them usable.
    pub num_blocks: u32,
    /// Most requests that are active at once.
    pub max_batch_size: u32,
    /// Token budget of a step.
    pub max_num_tokens: u32,
    /// Longest sequence, prompt and output together.
    pub max_seq_len: u32,
    /// Reuse the KV of equal prefixes.
    pub enable_block_reuse: bool,
    /// Split prompts over several steps, first come first served.
    pub enable_chunked_prefill: bool,
    /// When a request may start, and whether it can be stopped again.
    pub capacity_scheduler_policy: CapacityPolicy,
    /// Drafts that are verified in every decode step (`max_draft_len`).
    pub speculation: Option<Speculation>,
    /// Groups of GPUs that each hold a part of the layers, and micro-batches in flight among them.
    pub pipeline_parallel_size: u32,
    /// Ranks with a scheduler and blocks of their own that step together (`enable_attention_dp`).
    pub attention_dp_size: u32,
}

/// When a request may start (T2, T3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapacityPolicy {
    /// When there are blocks for all that it and those that run can ever need.
    GuaranteedNoEvict,
    /// When there are blocks for its prompt; the last started is paused where blocks lack later.
    MaxUtilization,
}

impl Default for TrtllmConfig {
    /// The defaults of TensorRT-LLM's server, where they do not depend on model and GPU; 8,192 blocks of 32 tokens.
    fn default() -> Self {
        TrtllmConfig {
            tokens_per_block: 32,
            num_blocks: 8_192,
            max_batch_size: 2_048,
            max_num_tokens: 8_192,
            max_seq_len: TrtllmConfig::UNLIMITED,
            enable_block_reuse: true,
            enable_chunked_prefill: false,
            capacity_scheduler_policy: CapacityPolicy::GuaranteedNoEvict,
            speculation: None,
            pipeline_parallel_size: 1,
            attention_dp_size: 1,
        }
    }
}

impl TrtllmConfig {
    /// A `max_seq_len` that no request reaches.
    pub const UNLIMITED: u32 = u32::MAX >> 1;

    /// What makes no sense in these settings, in words.
    ///
    /// # Errors
    /// No memory, no seat, steps too small for a chunk, or pauses whose prompts no step could take back.
    pub fn check(&self) -> Result<(), String> {
        if self.tokens_per_block == 0 || self.num_blocks == 0 {
            return Err("there is no KV block".to_owned());
        }
        if self.max_draft_len() >= self.max_num_tokens {
            return Err("max_num_tokens holds no decode with its drafts".to_owned());
        }
        if self.max_batch_size == 0 {
            return Err("no request can take part in a step".to_owned());
        }
        if self.enable_chunked_prefill && self.max_num_tokens < self.tokens_per_block {
            return Err("max_num_tokens is below tokens_per_block, the unit of chunks".to_owned());
        }
        if self.capacity_scheduler_policy == CapacityPolicy::MaxUtilization
            && !self.enable_chunked_prefill
        {
            return Err(
                "MAX_UTILIZATION without enable_chunked_prefill: a paused request could outgrow a step"
                    .to_owned(),
            );
        }
        let (stages, ranks) = (self.pipeline_parallel_size, self.attention_dp_size);
        if stages == 0 || ranks == 0 {
            return Err("a worker has a stage and a rank at least".to_owned());
        }
        if stages > 1 && (ranks > 1 || self.speculation.is_some()) {
            return Err("stages go with one rank and no drafts".to_owned());
        }
        if stages > 1 && self.capacity_scheduler_policy == CapacityPolicy::MaxUtilization {
            return Err(
                "MAX_UTILIZATION goes with one stage: it could pause what is in flight".to_owned(),
            );
        }
        self.speculation.as_ref().map_or(Ok(()), Speculation::check)
    }

    /// Tokens that a request generates which asks for `output_tokens`: what `max_seq_len` leaves it.
    #[must_use]
    pub fn output_goal(&self, input_tokens: u32, output_tokens: u32) -> u32 {
        output_tokens.min(self.max_seq_len.saturating_sub(input_tokens))
    }

    /// Longest prompt that a step can take.
    #[must_use]
    pub fn prompt_limit(&self) -> u32 {
        if self.enable_chunked_prefill {
            self.max_seq_len - 1
        } else {
            self.max_num_tokens.min(self.max_seq_len - 1)
        }
    }

    /// Blocks for `tokens` tokens.
    #[must_use]
    pub fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.tokens_per_block)
    }
}
