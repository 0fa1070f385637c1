//! The settings of a vLLM engine that its scheduler looks at, under vLLM's own names.

use crate::speculation::Speculation;

/// Settings of one vLLM worker.
#[derive(Debug, Clone, PartialEq)]
pub struct VllmConfig {
    /// Which release's rules apply where they differ.
    pub version: VllmVersion,
    /// Tokens per KV block.
    pub block_size: u32,
    /// KV blocks, the null block included (R6).
    pub num_gpu_blocks: u32,
    /// Most sequences running at once.
    pub max_num_seqs: u32,
    /// Token budget of a step.
    pub max_num_batched_tokens: u32,
    /// Longest sequence, prompt and output together.
    pub max_model_len: u32,
    /// Reuse the KV of equal prefixes.
    pub enable_prefix_caching: bool,
    /// Split long prompts over several steps.
    pub enable_chunked_prefill: bool,
    /// Largest chunk while other requests are there; 0 switches the cap off.
    pub long_prefill_token_threshold: u32,
    /// Raise that cap to an equal share of the budget.
    pub long_prefill_token_threshold_adaptive: bool,
    /// Admit a request only if all its known tokens fit, not just its first chunk.
    pub scheduler_reserve_full_isl: bool,
    /// Overrides `max_num_seqs` for admissions.
    pub max_num_active_seqs: Option<u32>,
    /// Order of the waiting queue and choice of victims.
    pub policy: SchedulingPolicy,
    /// Share of the blocks kept free at an admission while something runs.
    pub watermark: f64,
    /// Plan a step while the one before it runs.
    pub async_scheduling: bool,
    /// Groups of GPUs that each hold a part of the layers, and steps in flight among them.
    pub pipeline_parallel_size: u32,
    /// Ranks with a scheduler and KV blocks of their own that step together.
    pub data_parallel_size: u32,
    /// Drafts that are verified in every decode step.
    pub speculation: Option<Speculation>,
    /// Which cached block goes first when one is needed.
    pub eviction: Eviction,
}

/// In what order cached blocks that nobody uses are evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// Least recently used first, as vLLM does (R7).
    #[default]
    Lru,
    /// Used again last first, by knowledge of the workload: an oracle, `engine/src/kv_cache/belady.rs`.
    Belady,
}

/// vLLM releases whose schedulers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VllmVersion {
    /// Up to 0.32: a request that preempts itself ends the pass over the running requests.
    V0_32,
    /// From 0.33: with priorities the pass goes on behind it.
    V0_33,
}

/// Order of the waiting queue and choice of victims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulingPolicy {
    /// First come, first served; the last admitted is preempted first.
    Fcfs,
    /// Smallest (priority, arrival) first; the largest is preempted first.
    Priority,
}

impl Default for VllmConfig {
    /// vLLM's defaults for an online server, where they do not depend on the model; 16,384 blocks and no limit on the
    /// length of a sequence, which a real server derives from model and GPU.
    fn default() -> Self {
        VllmConfig {
            version: VllmVersion::V0_33,
            block_size: 16,
            num_gpu_blocks: 16_384,
            max_num_seqs: 256,
            max_num_batched_tokens: 8192,
            max_model_len: VllmConfig::UNLIMITED,
            enable_prefix_caching: true,
            enable_chunked_prefill: true,
            long_prefill_token_threshold: 0,
            long_prefill_token_threshold_adaptive: false,
            scheduler_reserve_full_isl: true,
            max_num_active_seqs: None,
            policy: SchedulingPolicy::Fcfs,
            watermark: 0.0,
            async_scheduling: true,
            pipeline_parallel_size: 1,
            data_parallel_size: 1,
            speculation: None,
            eviction: Eviction::Lru,
        }
    }
}

impl VllmConfig {
    /// A `max_model_len` that no request reaches.
    pub const UNLIMITED: u32 = u32::MAX >> 1;

    /// Blocks kept free at an admission while something runs (W of rule R5).
    #[must_use]
    pub fn watermark_blocks(&self) -> u32 {
        (self.watermark * f64::from(self.num_gpu_blocks)) as u32
    }

    /// Tokens that a request generates which asks for `output_tokens`: what `max_model_len` leaves it (R12).
    #[must_use]
    pub fn output_goal(&self, input_tokens: u32, output_tokens: u32) -> u32 {
        output_tokens.min(self.max_model_len.saturating_sub(input_tokens))
    }

    /// Plans that may be in flight at once.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        match self.pipeline_parallel_size {
            1 if self.async_scheduling => 2,
            stages => stages,
        }
    }

    /// What does not go together in these settings, in words.
    ///
    /// # Errors
    /// No stage or rank, senseless speculation, or more than one way to have steps or tokens in flight.
    pub fn check(&self) -> Result<(), String> {
        let VllmConfig {
            pipeline_parallel_size: stages,
            data_parallel_size: ranks,
            ..
        } = *self;
        if stages == 0 || ranks == 0 {
            return Err("a worker has a stage and a rank at least".to_owned());
        }
        if self.async_scheduling && (stages > 1 || ranks > 1 || self.speculation.is_some()) {
            return Err("async_scheduling goes with one stage, one rank and no drafts".to_owned());
        }
        if stages > 1 && (ranks > 1 || self.speculation.is_some()) {
            return Err("stages go with one rank and no drafts".to_owned());
        }
        self.speculation.as_ref().map_or(Ok(()), Speculation::check)
    }

    /// Drafts that a decode step verifies beside its token.
    #[must_use]
    pub fn num_speculative_tokens(&self) -> u32 {
        let drafts = |speculation: &Speculation| speculation.num_speculative_tokens;
        self.speculation.as_ref().map_or(0, drafts)
    }

    /// Tokens for which a request of `input_tokens` that generates `output_tokens` has blocks at most: its last token is
    /// never computed; drafts and what is set aside for more lie behind the others.
    #[must_use]
    pub fn slots(&self, input_tokens: u32, output_tokens: u32) -> u32 {
        let all = input_tokens.saturating_add(output_tokens);
        let Some(speculation) = &self.speculation else {
            return all.min(self.max_model_len) - 1;
        };
        // The last step has one token at least to bring, and verifies all its drafts.
        let behind = speculation.num_speculative_tokens + speculation.lookahead();
        (all - 1).saturating_add(behind).min(self.max_model_len)
    }

    /// Blocks that sequences can use (R6).
    #[must_use]
    pub const fn usable_blocks(&self) -> u32 {
        self.num_gpu_blocks - 1
    }
}
