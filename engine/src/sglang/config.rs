//! The settings of an SGLang engine that its scheduler looks at, under SGLang's own names.

use super::speculation::SglangDrafts;

/// Settings of one SGLang worker.
#[derive(Debug, Clone, PartialEq)]
pub struct SglangConfig {
    /// Tokens of KV that fit into the pool.
    pub max_total_tokens: u32,
    /// Most requests running at once.
    pub max_running_requests: u32,
    /// Input tokens of a prefill batch beyond which a prompt is cut; `None` switches chunking off.
    pub chunked_prefill_size: Option<u32>,
    /// Input tokens at which a prefill batch takes no further request.
    pub max_prefill_tokens: u32,
    /// Order of the waiting queue.
    pub schedule_policy: SglangPolicy,
    /// How much output is expected of running requests: scales the new-token ratio, below 1 admits more.
    pub schedule_conservativeness: f64,
    /// Keep no prefixes.
    pub disable_radix_cache: bool,
    /// Let running requests decode in prefill batches.
    pub mixed_chunk: bool,
    /// Tokens per page of the pool; matches end at whole pages.
    pub page_size: u32,
    /// Longest sequence, prompt and output together.
    pub context_length: u32,
    /// Requests never end early, and the scheduler knows it: their output is reserved in full.
    pub ignore_eos: bool,
    /// Drafts that are verified in every decode step.
    pub speculation: Option<SglangDrafts>,
    /// Groups of GPUs that each hold a part of the layers, and micro-batches in flight among them.
    pub pp_size: u32,
    /// Most requests running in one micro-batch; by default an equal part of the seats.
    pub pp_max_micro_batch_size: Option<u32>,
    /// Ranks with a scheduler and a pool of their own that step together. The other settings are those of one rank.
    pub dp_size: u32,
    /// Of a decode server: tokens that it keeps free for the outputs of each request, and the sign that it is one; `None` for all
    /// others.
    pub num_reserved_decode_tokens: Option<u32>,
}

/// Order of the waiting queue (S10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SglangPolicy {
    /// First come, first served.
    Fcfs,
    /// Longest cached prefix first.
    Lpm,
    /// Depth first through the cache, the subtree most requests wait for first.
    DfsWeight,
}

impl Default for SglangConfig {
    /// SGLang's defaults for an online server, where they do not depend on model and GPU; 262,144 tokens of KV.
    fn default() -> Self {
        SglangConfig {
            max_total_tokens: 262_144,
            max_running_requests: 256,
            chunked_prefill_size: Some(8192),
            max_prefill_tokens: 16_384,
            schedule_policy: SglangPolicy::Fcfs,
            schedule_conservativeness: 1.0,
            disable_radix_cache: false,
            mixed_chunk: false,
            page_size: 1,
            context_length: SglangConfig::UNLIMITED,
            ignore_eos: false,
            speculation: None,
            pp_size: 1,
            pp_max_micro_batch_size: None,
            dp_size: 1,
            num_reserved_decode_tokens: None,
        }
    }
}

impl SglangConfig {
    /// A `context_length` that no request reaches.
    pub const UNLIMITED: u32 = u32::MAX >> 1;

    /// `num_reserved_decode_tokens` of a decode server unless it is given.
    pub const RESERVED_DECODE_TOKENS: u32 = 512;

    /// Outputs beyond which nothing more is reserved for a request (`SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION`).
    pub const CLIP_MAX_NEW_TOKENS: u32 = 4096;

    /// What makes no sense in these settings, in words.
    ///
    /// # Errors
    /// No memory, no seat, or chunks that hold no page.
    pub fn check(&self) -> Result<(), String> {
        let chunk = self.chunked_prefill_size;
        if self.page_size == 0 || self.usable_tokens() == 0 {
            return Err("max_total_tokens holds no page".to_owned());
        }
        if self.max_running_requests == 0 {
            return Err("max_running_requests leaves no seat".to_owned());
        }
        if chunk.is_some_and(|size| size < self.page_size) {
            return Err("chunked_prefill_size is below page_size".to_owned());
        }
        if self.pp_size == 0 || self.dp_size == 0 || self.micro_batch_seats() == 0 {
            return Err(
                "a worker has a stage, a rank and a seat in a micro-batch at least".to_owned(),
            );
        }
        if self.pp_size > 1 && (self.dp_size > 1 || self.speculation.is_some()) {
            return Err("stages go with one rank and no drafts".to_owned());
        }
        match &self.speculation {
            Some(_) if self.mixed_chunk => Err("mixed_chunk goes without drafts".to_owned()),
            Some(drafts) => drafts.check(),
            None => Ok(()),
        }
    }

    /// Most requests running in one micro-batch, of which there are as many as stages.
    #[must_use]
    pub fn micro_batch_seats(&self) -> u32 {
        let equal = (self.max_running_requests / self.pp_size.max(1)).max(1);
        self.pp_max_micro_batch_size.unwrap_or(equal)
    }

    /// Tokens of whole pages.
    #[must_use]
    pub const fn usable_tokens(&self) -> u32 {
        self.max_total_tokens - self.max_total_tokens % self.page_size
    }

    /// Prompts of this length or longer are refused by the real server.
    #[must_use]
    pub fn prompt_limit(&self) -> u32 {
        self.longest().saturating_sub(5)
    }

    /// Tokens a request generates that asks for `output_tokens`: what context length and pool leave it.
    #[must_use]
    pub fn output_goal(&self, input_tokens: u32, output_tokens: u32) -> u32 {
        output_tokens.min(self.longest().saturating_sub(input_tokens + 1))
    }

    fn longest(&self) -> u32 {
        self.context_length
            .min(self.usable_tokens())
            .saturating_sub(1)
    }

    /// Whether an idle worker can take a prompt of `input_tokens` that will generate `output_goal` tokens. A request that
    /// it cannot take would wait for ever and block all behind it.
    #[must_use]
    pub fn can_admit(&self, input_tokens: u32, output_goal: u32) -> bool {
        let (input, pool) = (u64::from(input_tokens), u64::from(self.usable_tokens()));
        let page = u64::from(self.page_size);
        let paged = input.div_ceil(page) * page + page;
        let clipped = output_goal.min(SglangConfig::CLIP_MAX_NEW_TOKENS);
        // Its last step still sets slots aside for all drafts, behind what was computed before.
        let drafts = self
            .speculation
            .as_ref()
            .map_or(0, |drafts| drafts.slots(self.page_size));
        let computed = (input + u64::from(output_goal)).next_multiple_of(page);
        if drafts > 0 && computed + u64::from(drafts) > pool {
            return false;
        }
        if let Some(reserve) = self.num_reserved_decode_tokens {
            paged + u64::from(clipped.max(reserve)) <= pool
        } else if self.disable_radix_cache && self.ignore_eos {
            paged <= pool && paged + u64::from(output_goal) + 1 < pool
        } else {
            input + u64::from(clipped) + page < pool
        }
    }
}
