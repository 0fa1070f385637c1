//! Which of the requests that fit take part in a step, by tokens (T5).
//!
//! In words: requests are taken in order, a decode for one token and its drafts, a prompt for all of its tokens, until the next would
//! exceed the budget. With chunking prompts come last: if they do not fit together, each in turn gets what is left, cut to
//! whole blocks; those that get nothing wait.

use super::Scheduler;
use super::sequence::SequenceId;

/// A prompt's part in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefill {
    pub id: SequenceId,
    /// Tokens by budget; what the cache holds may save some of them.
    pub tokens: u32,
}

impl Scheduler {
    /// Leaves prompts in `self.prefills` and decodes in `self.decodes`.
    // Model: what a prompt will find in the cache counts against the budget, as in the scheduler that was
    // read; newer ones are said to estimate it and take more prompts into a step.
    pub(super) fn choose_by_tokens(&mut self) {
        self.prefills.clear();
        self.decodes.clear();
        let budget = self.config.max_num_tokens;
        let is_chunking = self.config.enable_chunked_prefill;
        let decode = 1 + self.config.max_draft_len();
        let (mut tokens, mut wanted) = (0, 0u64);
        for &id in &self.fitting {
            let sequence = &self.sequences[id as usize];
            if sequence.is_in_flight {
                continue;
            }
            let taken = self.decodes.len() + self.prefills.len();
            if taken == self.config.max_batch_size as usize {
                break;
            }
            if sequence.decodes() {
                if tokens + decode > budget {
                    break;
                }
                tokens += decode;
                self.decodes.push(id);
            } else {
                let missing = sequence.prompt - sequence.computed;
                if is_chunking {
                    wanted += u64::from(missing);
                } else if tokens + missing > budget {
                    break;
                } else {
                    tokens += missing;
                }
                self.prefills.push(Prefill {
                    id,
                    tokens: missing,
                });
            }
        }
        let left = budget - tokens;
        if is_chunking && wanted > u64::from(left) {
            self.cut_to(left);
        }
    }

    fn cut_to(&mut self, mut left: u32) {
        let unit = self.config.tokens_per_block;
        for prefill in &mut self.prefills {
            if prefill.tokens > left {
                prefill.tokens = left / unit * unit;
            }
            left -= prefill.tokens;
        }
        self.prefills.retain(|prefill| prefill.tokens > 0);
        // Those that end their prompt in this step stand behind those that do not.
        let sequences = &self.sequences;
        self.prefills.sort_by_key(|prefill| {
            let sequence = &sequences[prefill.id as usize];
            sequence.computed + prefill.tokens == sequence.prompt
        });
    }
}
