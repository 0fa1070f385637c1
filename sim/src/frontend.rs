//! The front end: refuses what can never be served, and says why (R14 and beyond); takes its time over the rest.
//!
//! Requests are parsed and tokenised one at a time, in the order they came: each occupies the front end for a fixed time
//! and for a time per prompt token. Then it is on its way to the router for a while, together with others. So of clients
//! that send at the same instant the first is served first, and the batch of the first step is not the whole burst.
//!
//! A real vLLM refuses prompts of `max_model_len` tokens or more; a prompt that can never fit its KV cache waits for
//! ever there and blocks everything behind it. Here it is refused and counted. The last token of an answer is sampled
//! but never computed, so a request needs KV for one token less than it has.
//!
//! A real SGLang refuses prompts that leave less than six tokens of its context or its pool, and cuts answers to what the
//! pool holds; what an idle one could not admit is refused here too.
//!
//! A real TensorRT-LLM refuses prompts that no step can take: longer than `max_num_tokens` unless they are cut. What its pool
//! could never hold to the end is refused here.

// Model: the way back (detokenisation, the last hop to the client) is taken to be part of `latency`, before the request
// is placed; a client's next request and all its tokens are as late either way.

use crate::record::Rejection;
use engine::sglang::SglangConfig;
use engine::trtllm::TrtllmConfig;
use engine::vllm::VllmConfig;
use engine::{EngineConfig, Request, Span, Time};

/// What the front end costs a request. The default costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrontendSpec {
    /// Each request occupies it so long,
    pub per_request: Span,
    /// and so long for each prompt token.
    pub per_input_token: Span,
    /// Then the request is on its way, and occupies nothing.
    pub latency: Span,
}

/// A front end at work.
#[derive(Debug, Clone)]
pub struct Frontend {
    spec: FrontendSpec,
    is_free_at: Time,
}

impl Frontend {
    /// Idle.
    #[must_use]
    pub const fn new(spec: FrontendSpec) -> Frontend {
        Frontend {
            spec,
            is_free_at: Time::ZERO,
        }
    }

    /// What it costs.
    #[must_use]
    pub const fn spec(&self) -> FrontendSpec {
        self.spec
    }

    /// Takes a request of so many prompt tokens that comes `now`, and says when the router has it.
    pub fn receive(&mut self, now: Time, input_tokens: u32) -> Time {
        let tokens = Span(self.spec.per_input_token.0 * u64::from(input_tokens));
        self.is_free_at = now.max(self.is_free_at) + self.spec.per_request + tokens;
        self.is_free_at + self.spec.latency
    }
}

/// Why a worker with these settings can never serve the request; `None` if it can.
#[must_use]
pub fn refusal(request: &Request, config: &EngineConfig) -> Option<Rejection> {
    match config {
        EngineConfig::Vllm(config) => refusal_of_vllm(request, config),
        EngineConfig::Sglang(config) => refusal_of_sglang(request, config),
        EngineConfig::Trtllm(config) => refusal_of_trtllm(request, config),
    }
}

fn refusal_of_vllm(request: &Request, config: &VllmConfig) -> Option<Rejection> {
    let (input, output) = (request.input_tokens, request.output_tokens);
    if input >= config.max_model_len {
        return Some(Rejection::PromptTooLong);
    }
    let blocks = |tokens: u32| tokens.div_ceil(config.block_size);
    let slots = config.slots(input, output);
    if blocks(input) > config.usable_blocks() {
        Some(Rejection::PromptExceedsKvCache)
    } else if blocks(slots) > config.usable_blocks() {
        Some(Rejection::OutputExceedsKvCache)
    } else {
        None
    }
}

fn refusal_of_sglang(request: &Request, config: &SglangConfig) -> Option<Rejection> {
    let input = request.input_tokens;
    if input >= config.context_length.saturating_sub(6) {
        return Some(Rejection::PromptTooLong);
    }
    let goal = config.output_goal(input, request.output_tokens);
    if input >= config.prompt_limit() || !config.can_admit(input, 1) {
        Some(Rejection::PromptExceedsKvCache)
    } else if !config.can_admit(input, goal) {
        Some(Rejection::OutputExceedsKvCache)
    } else {
        None
    }
}

fn refusal_of_trtllm(request: &Request, config: &TrtllmConfig) -> Option<Rejection> {
    let input = request.input_tokens;
    if input > config.prompt_limit() {
        return Some(Rejection::PromptTooLong);
    }
    let goal = config.output_goal(input, request.output_tokens);
    if config.blocks_for(input) > config.num_blocks {
        Some(Rejection::PromptExceedsKvCache)
    } else if !config.can_serve(input, goal) {
        Some(Rejection::OutputExceedsKvCache)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::NodeId;

    #[test]
    fn requests_of_one_instant_queue_for_the_front_end() {
        let mut frontend = Frontend::new(FrontendSpec {
            per_request: Span(100),
            per_input_token: Span(2),
            latency: Span(1_000),
        });
        // 100 + 2 x 50 ps each, one behind the other, and then both 1,000 ps on the way.
        assert_eq!(frontend.receive(Time(0), 50), Time(1_200));
        assert_eq!(frontend.receive(Time(0), 50), Time(1_400));
        assert_eq!(
            frontend.receive(Time(10_000), 50),
            Time(11_200),
            "idle again"
        );
        let mut free = Frontend::new(FrontendSpec::default());
        assert_eq!(free.receive(Time(7), 50), Time(7));
    }

    fn request(input_tokens: u32, output_tokens: u32) -> Request {
        Request {
            arrival: Time::ZERO,
            input_tokens,
            output_tokens,
            leaf: NodeId(0),
            priority: 0,
            session: 0,
            first_dependency: 0,
            dependency_count: 0,
        }
    }

    fn engine(config: &VllmConfig) -> EngineConfig {
        config.clone().into()
    }

    #[test]
    fn limits_are_exact() {
        // 10 usable blocks of 16 tokens: 160 tokens; the last of prompt and output together needs none.
        let config = VllmConfig {
            block_size: 16,
            num_gpu_blocks: 11,
            max_model_len: 1000,
            ..VllmConfig::default()
        };
        assert_eq!(refusal(&request(160, 1), &engine(&config)), None);
        assert_eq!(
            refusal(&request(161, 1), &engine(&config)),
            Some(Rejection::PromptExceedsKvCache)
        );
        assert_eq!(refusal(&request(100, 61), &engine(&config)), None);
        assert_eq!(
            refusal(&request(100, 62), &engine(&config)),
            Some(Rejection::OutputExceedsKvCache)
        );
        assert_eq!(
            refusal(&request(1000, 1), &engine(&config)),
            Some(Rejection::PromptTooLong)
        );
        let short = VllmConfig {
            max_model_len: 161,
            ..config
        };
        assert_eq!(refusal(&request(100, 5000), &engine(&short)), None);
    }

    #[test]
    fn limits_of_sglang_are_exact() {
        // 160 tokens: 159 at most, prompt and answer together; the prompt at most 153, so that a few remain.
        let config = SglangConfig {
            max_total_tokens: 160,
            context_length: 1000,
            ..SglangConfig::default()
        };
        let refused = |input, output| refusal(&request(input, output), &config.clone().into());
        assert_eq!(refused(153, 1), None);
        assert_eq!(refused(154, 1), Some(Rejection::PromptExceedsKvCache));
        assert_eq!(refused(994, 1), Some(Rejection::PromptTooLong));
        // Answers are cut, not refused.
        assert_eq!(refused(153, 5000), None);
        assert_eq!(config.output_goal(153, 5000), 5);
        // In pages of 16 an idle worker keeps a whole one in reserve: 100 + 43 + 16 < 160.
        let paged = EngineConfig::from(SglangConfig {
            page_size: 16,
            ..config.clone()
        });
        assert_eq!(refusal(&request(100, 43), &paged), None);
        assert_eq!(
            refusal(&request(100, 44), &paged),
            Some(Rejection::OutputExceedsKvCache)
        );
    }

    #[test]
    fn limits_of_tensorrt_llm_are_exact() {
        let config = TrtllmConfig {
            tokens_per_block: 16,
            num_blocks: 10,
            max_num_tokens: 100,
            max_seq_len: 170,
            ..TrtllmConfig::default()
        };
        let refused = |input, output| refusal(&request(input, output), &config.clone().into());
        assert_eq!(refused(100, 60), None);
        assert_eq!(refused(101, 1), Some(Rejection::PromptTooLong));
        // 161 tokens are 11 blocks.
        assert_eq!(refused(100, 61), Some(Rejection::OutputExceedsKvCache));
        let cut = EngineConfig::from(TrtllmConfig {
            enable_chunked_prefill: true,
            ..config.clone()
        });
        assert_eq!(refusal(&request(159, 1), &cut), None);
        let refused = |input| refusal(&request(input, 1), &cut);
        assert_eq!(refused(161), Some(Rejection::PromptExceedsKvCache));
        assert_eq!(refused(170), Some(Rejection::PromptTooLong));
    }
}
