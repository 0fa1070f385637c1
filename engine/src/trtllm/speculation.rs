//! Speculative decoding in TensorRT-LLM's scheduler (T10): MTP and Eagle in one model with the target.
//!
//! In words: every decode verifies `max_draft_len` drafts, and counts 1 + `max_draft_len` tokens against the budget of the
//! step. Drafting layers keep their KV in the target's blocks and are up to `max_draft_len` - 1 tokens ahead, so that each
//! request has so many slots behind its prompt from its start on; a step takes slots for its token and its drafts before
//! those. What was not accepted is taken back when the step is over. Prompts and hits are as without drafts.
//!
//! Source: TensorRT-LLM 1.2, `_torch/pyexecutor/resource_manager.py` (`prepare_resources`, `num_extra_kv_tokens`, rewinding),
//! `_torch/speculative/utils.py` (`get_num_extra_kv_tokens`), the micro-batch scheduler (drafts count as tokens). No schedule with
//! drafts was recorded; a naive scheduler written from these words is the check.

// Model: a block that held rejected drafts alone stays with its sequence; the real one gives it back until the next step takes
// it again. Up to one block per decoding request, if a block is longer than the drafts.
// Model: `GUARANTEED_NO_EVICT` sets the slots of drafts aside too. The blocks to completion that were read count the prompt and the new
// tokens alone, so that blocks could run out there; one block more per request here at most, under the same condition.

use super::Scheduler;
use super::config::TrtllmConfig;
use super::sequence::SequenceId;
use crate::speculation::{Drafted, Verified};

impl TrtllmConfig {
    /// Drafts of a decode; 0 without speculation.
    #[must_use]
    pub const fn max_draft_len(&self) -> u32 {
        match &self.speculation {
            Some(speculation) => speculation.num_speculative_tokens,
            None => 0,
        }
    }

    /// Slots that a request has behind its tokens for the layers that draft.
    #[must_use]
    pub const fn extra_kv_tokens(&self) -> u32 {
        self.max_draft_len().saturating_sub(1)
    }

    /// Slots that a decode needs beyond what is computed.
    pub(super) const fn slots_of_a_step(&self) -> u32 {
        1 + self.max_draft_len() + self.extra_kv_tokens()
    }

    /// Slots behind prompt and whole answer that the last step can need: its last token is never computed, and the last but
    /// one is verified with all drafts.
    pub(super) const fn slots_at_end(&self) -> u32 {
        self.slots_of_a_step() - 1 - if self.max_draft_len() > 0 { 1 } else { 0 }
    }

    /// Slots of a request of so many tokens at its end.
    pub(super) const fn slots_of_all(&self, input_tokens: u32, output_goal: u32) -> u32 {
        input_tokens
            .saturating_add(output_goal)
            .saturating_add(self.slots_at_end())
    }
}

impl Scheduler {
    /// What speculation did since the start.
    #[must_use]
    pub fn drafted(&self) -> Drafted {
        self.drafted
    }

    /// Slots for the step that comes `ahead` steps after the next, from what is delivered now.
    fn slots_ahead(&self, id: SequenceId, ahead: u32) -> u32 {
        let sequence = &self.sequences[id as usize];
        let acceptance = self.acceptance.as_ref().expect("drafts are verified");
        let gained = match ahead {
            0 => 0,
            steps => acceptance.tokens_in(sequence.fraction, steps).0,
        };
        sequence.computed + gained + self.config.slots_of_a_step()
    }

    /// Gives a decoding sequence its blocks for that step.
    pub(super) fn set_slots_aside(&mut self, id: SequenceId, ahead: u32) {
        let blocks = self.config.blocks_for(self.slots_ahead(id, ahead));
        let table = &mut self.sequences[id as usize].table;
        if blocks > table.blocks() {
            self.cache.grow(table, blocks);
        }
    }

    /// Blocks that it lacks for that.
    pub(super) fn blocks_with_drafts(&self, id: SequenceId, ahead: u32) -> u64 {
        let blocks = self.config.blocks_for(self.slots_ahead(id, ahead));
        u64::from(blocks.saturating_sub(self.sequences[id as usize].table.blocks()))
    }

    /// Steps until a sequence has its last output, if all are decodes.
    pub(super) fn steps_to_goal(&self, id: SequenceId) -> u32 {
        let sequence = &self.sequences[id as usize];
        match &self.acceptance {
            None => sequence.missing(),
            Some(acceptance) if acceptance.is_expected() => {
                acceptance.steps_to(sequence.fraction, sequence.missing())
            }
            Some(_) => 1,
        }
    }

    /// Enters what steps with drafts brought.
    pub(super) fn verify(&mut self, id: SequenceId, steps: u32) {
        let acceptance = self.acceptance.as_ref().expect("drafts are verified");
        let sequence = &mut self.sequences[id as usize];
        let drafts = self.config.max_draft_len();
        let verified = Verified {
            request: sequence.request.0,
            outputs: sequence.outputs,
            missing: sequence.missing(),
            steps,
            drafts,
            tokens: drafts,
        };
        let wanted = acceptance.verify(verified, &mut sequence.fraction, &mut self.drafted);
        sequence.outputs += wanted;
        sequence.computed += wanted;
    }
}
