//! Speculative decoding in SGLang's scheduler (S13): EAGLE and its kin, first version, without overlap.
//!
//! In words: a draft model looks `num_steps` tokens ahead, `topk` branches wide, and the `num_draft_tokens` best nodes of that
//! tree, its root included, are verified in one pass. A decode step sets aside for each sequence the larger of what drafting
//! and verifying need, max(steps · topk, draft tokens), in whole pages; where a page is more than a token and there are
//! branches, each branch may also need a page for its start. What was not accepted is free again after the step, so that
//! between steps a sequence holds what is certain and nothing else. Where the slots lack, sequences are retracted from the
//! back of the batch. Prompts are admitted as without drafts. The cache holds pairs of neighbouring tokens, as the draft's KV depends
//! on the next token too, so that of n computed tokens n - 1 can be found again.
//!
//! Source: SGLang 0.5, `srt/managers/schedule_batch.py` (`new_tokens_required_next_decode`, `check_decode_mem`,
//! `retract_decode`), `srt/speculative/eagle_info.py` (`prepare_for_verify`), `srt/mem_cache/radix_cache.py` (pairs of tokens as
//! keys), `srt/server_args.py`: drafts switch overlap and mixed chunks off and leave 48 seats unless told otherwise. No schedule
//! with drafts was recorded; a naive scheduler written from these words is the check.

// Model: prompts that part behind n equal tokens share n - 1 pairs in the real cache and n tokens here: a page more of a hit at most.
// Model: version 2 (`SGLANG_ENABLE_SPEC_V2`) overlaps planning with the step before and keeps twice the slots of a step for
// every sequence; its steps follow each other sooner by the host's time.

use super::Scheduler;
use super::sequence::SequenceId;
use crate::plan::{Scheduled, StepPlan};
use crate::speculation::{Drafted, Speculation, Verified};

/// What SGLang drafts in every decode step.
#[derive(Debug, Clone, PartialEq)]
pub struct SglangDrafts {
    /// How many tokens it looks ahead (`num_speculative_tokens` is `speculative_num_steps`), and how often each is accepted.
    pub speculation: Speculation,
    /// Branches of each token (`speculative_eagle_topk`).
    pub topk: u32,
    /// Tokens verified, the root included (`speculative_num_draft_tokens`).
    pub num_draft_tokens: u32,
}

impl SglangDrafts {
    /// One branch, as `speculation` has it.
    #[must_use]
    pub const fn chain(speculation: Speculation) -> SglangDrafts {
        SglangDrafts {
            num_draft_tokens: speculation.num_speculative_tokens + 1,
            topk: 1,
            speculation,
        }
    }

    /// Most nodes of the tree: the root, its branches, and `topk` squared at each further step.
    #[must_use]
    pub fn most_draft_tokens(&self) -> u32 {
        let steps = self.speculation.num_speculative_tokens;
        let square = self.topk.saturating_mul(self.topk);
        let further = square.saturating_mul(steps.saturating_sub(1));
        (1 + self.topk).saturating_add(further)
    }

    /// What makes no sense in these settings, in words.
    ///
    /// # Errors
    /// Senseless speculation, no branch, or more tokens than the tree has, or fewer than its depth.
    pub fn check(&self) -> Result<(), String> {
        self.speculation.check()?;
        let steps = self.speculation.num_speculative_tokens;
        if self.topk == 0 {
            return Err("drafts have no branch".to_owned());
        }
        if self.topk == 1 && self.num_draft_tokens != steps + 1 {
            return Err("a single branch verifies its steps and the root".to_owned());
        }
        if !(steps + 1..=self.most_draft_tokens()).contains(&self.num_draft_tokens) {
            return Err("the tree of drafts has not so many tokens, or is deeper".to_owned());
        }
        Ok(())
    }

    /// Slots that a decode step sets aside for each sequence.
    #[must_use]
    pub fn slots(&self, page_size: u32) -> u32 {
        let steps = self.speculation.num_speculative_tokens;
        let branch = match (page_size, self.topk) {
            (1, _) => steps,
            (page, 1) => steps.next_multiple_of(page),
            (page, _) => (steps + page).next_multiple_of(page),
        };
        let verified = self.num_draft_tokens.next_multiple_of(page_size);
        (branch * self.topk).max(verified)
    }
}

impl Scheduler {
    /// What speculation did since the start.
    #[must_use]
    pub fn drafted(&self) -> Drafted {
        self.drafted
    }

    /// Slots that a step of so many decoding sequences sets aside; 0 without drafts.
    pub(super) fn slots_for(&self, sequences: usize) -> u32 {
        let drafts = self.config.speculation.as_ref();
        let slots = drafts.map_or(0, |drafts| drafts.slots(self.config.page_size));
        sequences as u32 * slots
    }

    /// Outputs that a sequence gains in the next `steps` steps.
    pub(super) fn gain(&self, id: SequenceId, steps: u32) -> u32 {
        match &self.acceptance {
            None => steps,
            Some(acceptance) => {
                let fraction = self.sequences[id as usize].fraction;
                acceptance.tokens_in(fraction, steps).0
            }
        }
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

    /// Enters a decode that verifies drafts. Its slots were set aside.
    pub(super) fn decode_with_drafts(&mut self, plan: &mut StepPlan, id: SequenceId) {
        let drafts = self
            .config
            .speculation
            .as_ref()
            .expect("drafts are verified");
        let acceptance = self.acceptance.as_ref().expect("drafts are verified");
        let sequence = &self.sequences[id as usize];
        let new_tokens = drafts.num_draft_tokens;
        plan.decode_batch += 1;
        plan.decode_context += u64::from(sequence.computed + new_tokens);
        plan.drafts.tokens += new_tokens - 1;
        plan.drafts.pace = acceptance.pace();
        plan.drafts.fractions += u64::from(sequence.fraction);
        plan.scheduled.push(Scheduled {
            request: sequence.request,
            sequence: id,
            new_tokens,
            computed_before: sequence.computed,
            samples: true,
        });
    }

    /// Enters what steps with drafts brought: outputs, and the KV of what is certain.
    pub(super) fn verify(&mut self, id: SequenceId, steps: u32) {
        let drafts = self
            .config
            .speculation
            .as_ref()
            .expect("drafts are verified");
        let acceptance = self.acceptance.as_ref().expect("drafts are verified");
        let sequence = &mut self.sequences[id as usize];
        let verified = Verified {
            request: sequence.request.0,
            outputs: sequence.outputs,
            missing: sequence.missing(),
            steps,
            drafts: drafts.speculation.num_speculative_tokens,
            tokens: drafts.num_draft_tokens - 1,
        };
        let wanted = acceptance.verify(verified, &mut sequence.fraction, &mut self.drafted);
        sequence.outputs += wanted;
        self.pool.grow(sequence, wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculation::{AcceptanceMode, DraftMethod};

    fn drafts(steps: u32, topk: u32, num_draft_tokens: u32) -> SglangDrafts {
        SglangDrafts {
            speculation: Speculation {
                method: DraftMethod::Eagle,
                num_speculative_tokens: steps,
                acceptance_rates: vec![0.5; steps as usize],
                mode: AcceptanceMode::Expected,
            },
            topk,
            num_draft_tokens,
        }
    }

    #[test]
    fn a_step_sets_aside_what_drafting_or_verifying_needs() {
        // One branch of 3, 4 to verify.
        assert_eq!(drafts(3, 1, 4).slots(1), 4);
        // 5 steps of 4 branches: 20 drafted, 8 verified.
        assert_eq!(drafts(5, 4, 8).slots(1), 20);
        // In pages of 16: one page; each of 4 branches its part of the last page and its own, 2 pages.
        assert_eq!(drafts(3, 1, 4).slots(16), 16);
        assert_eq!(drafts(5, 4, 8).slots(16), 128);
    }

    #[test]
    fn trees_have_a_size() {
        assert_eq!(drafts(3, 1, 4).check(), Ok(()));
        assert!(drafts(3, 1, 3).check().is_err());
        // 1 + 2 + 2 · 4 nodes.
        assert_eq!(drafts(3, 2, 11).check(), Ok(()));
        assert!(drafts(3, 2, 12).check().is_err());
        assert!(drafts(5, 4, 5).check().is_err());
    }
}
