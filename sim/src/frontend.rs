//! The front end: refuses what can never be served, and says why (R14 and beyond).
//!
//! A real vLLM refuses prompts of `max_model_len` tokens or more; a prompt that can never fit its KV cache waits for
//! ever there and blocks everything behind it. Here it is refused and counted. The last token of an answer is sampled
//! but never computed, so a request needs KV for one token less than it has.

use crate::record::Rejection;
use engine::Request;
use engine::vllm::VllmConfig;

/// Why a worker with these settings can never serve the request; `None` if it can.
#[must_use]
pub fn refusal(request: &Request, config: &VllmConfig) -> Option<Rejection> {
    let (input, output) = (request.input_tokens, request.output_tokens);
    if input >= config.max_model_len {
        return Some(Rejection::PromptTooLong);
    }
    let blocks = |tokens: u32| tokens.div_ceil(config.block_size);
    let computed = input.saturating_add(output).min(config.max_model_len) - 1;
    if blocks(input) > config.usable_blocks() {
        Some(Rejection::PromptExceedsKvCache)
    } else if blocks(computed) > config.usable_blocks() {
        Some(Rejection::OutputExceedsKvCache)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{NodeId, Time};

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

    #[test]
    fn limits_are_exact() {
        // 10 usable blocks of 16 tokens: 160 tokens; the last of prompt and output together needs none.
        let config = VllmConfig {
            block_size: 16,
            num_gpu_blocks: 11,
            max_model_len: 1000,
            ..VllmConfig::default()
        };
        assert_eq!(refusal(&request(160, 1), &config), None);
        assert_eq!(
            refusal(&request(161, 1), &config),
            Some(Rejection::PromptExceedsKvCache)
        );
        assert_eq!(refusal(&request(100, 61), &config), None);
        assert_eq!(
            refusal(&request(100, 62), &config),
            Some(Rejection::OutputExceedsKvCache)
        );
        assert_eq!(
            refusal(&request(1000, 1), &config),
            Some(Rejection::PromptTooLong)
        );
        let short = VllmConfig {
            max_model_len: 161,
            ..config
        };
        assert_eq!(refusal(&request(100, 5000), &short), None);
    }
}
