//! Speculative decoding in vLLM's scheduler.
//!
//! In words: a sequence that decodes asks for its one token and for its drafts, as far as the budget goes and the longest
//! sequence allows. Blocks are allocated for all of them and, where drafts have KV, for as many slots behind them (lookahead).
//! What comes out is known when the step is over: the outputs grow by the accepted drafts and one token, and the next step
//! begins behind them; blocks stay allocated. Only tokens that are certain become findable. Where drafts are computed from
//! hidden states, a prefix hit loses its last block, whose hidden states are needed. A sequence that starts or resumes has
//! neither drafts nor lookahead in its first steps.
//!
//! Source: vLLM 0.11 and later, `v1/core/sched/scheduler.py` (`num_tokens_with_spec`, `num_lookahead_tokens`,
//! `update_from_output`), `v1/core/kv_cache_manager.py` (`allocate_slots`), `v1/core/single_type_kv_cache_manager.py`
//! (`use_eagle`). No recorded case has it; a naive scheduler written from these words is the check.

// Model: planning is synchronous. Newer releases plan the next step while drafts are being verified, on the assumption that
// all of them will be accepted; the time between two steps that this saves is that of any asynchronous scheduling.

use super::Scheduler;
use super::sequence::{Sequence, SequenceId};
use crate::kv_cache::Hit;
use crate::plan::{Scheduled, StepPlan};
use crate::speculation::{Acceptance, Drafted, Verified};

impl Scheduler {
    /// What speculation did since the start.
    #[must_use]
    pub fn drafted(&self) -> Drafted {
        self.drafted
    }

    /// True if nothing of the sequence can be computed before an output in flight is there.
    pub(super) fn has_to_wait(&self, sequence: &Sequence) -> bool {
        let is_staged = self.config.pipeline_parallel_size > 1;
        sequence.awaits_last_token() || (is_staged && sequence.placeholders > 0)
    }

    /// Drafts that the sequence has.
    pub(super) fn drafts_of(&self, sequence: &Sequence) -> u32 {
        if !sequence.decodes() {
            return 0;
        }
        // No input position may lie beyond the longest sequence.
        let room = (self.config.max_model_len - 1).saturating_sub(sequence.known());
        self.config.num_speculative_tokens().min(room)
    }

    /// Tokens for which a running sequence needs blocks to compute up to `computed`.
    pub(super) fn slots_up_to(&self, computed: u32) -> u32 {
        match &self.config.speculation {
            None => computed,
            Some(speculation) => {
                (computed + speculation.lookahead()).min(self.config.max_model_len)
            }
        }
    }

    /// Gives a running sequence the blocks behind those it computes.
    pub(super) fn set_slots_aside(&mut self, id: SequenceId) {
        if self.config.speculation.is_some() {
            let slots = self.slots_up_to(self.sequences[id as usize].computed);
            let blocks = self.cache.blocks_for(slots);
            self.cache
                .grow(&mut self.sequences[id as usize].table, blocks);
        }
    }

    /// What of the cached blocks of a prompt saves work.
    pub(super) fn usable_hit(&mut self, id: SequenceId, cached: Hit) -> Hit {
        let speculation = self.config.speculation.as_ref();
        match speculation {
            Some(it) if it.method.reads_hidden_states() && cached.blocks > 0 => {
                let path = &self.sequences[id as usize].path;
                self.cache.lookup(path, cached.blocks - 1)
            }
            _ => cached,
        }
    }

    /// Schedules further steps of a coasting plan, the last of them with the outputs of `ahead` steps in flight before it.
    pub(super) fn extend_speculating(&mut self, plan: &StepPlan, ahead: u32) {
        let acceptance = self.acceptance.as_ref().expect("drafts are verified");
        for part in &plan.scheduled {
            let sequence = &self.sequences[part.sequence as usize];
            let known = sequence.known() + acceptance.tokens_in(sequence.fraction, ahead).0;
            let computed = known + self.config.num_speculative_tokens();
            let blocks = self.cache.blocks_for(self.slots_up_to(computed));
            let sequence = &mut self.sequences[part.sequence as usize];
            sequence.computed = computed;
            self.cache.grow(&mut sequence.table, blocks);
            let certain = known / self.config.block_size;
            self.cache
                .publish(&mut sequence.table, &sequence.path, certain);
        }
    }

    /// How many steps a batch may take that only decodes and has just been scheduled: while all sequences verify all their
    /// drafts, none ends and blocks last.
    pub(super) fn speculative_coast_limit(&self, plan: &StepPlan) -> u32 {
        let acceptance = self.acceptance.as_ref().expect("drafts are verified");
        let drafts = self.config.num_speculative_tokens();
        let has_all = |part: &Scheduled| part.new_tokens == drafts + 1;
        if !acceptance.is_expected() || !plan.scheduled.iter().all(has_all) {
            return 1;
        }
        let limit = |&id: &SequenceId| {
            let sequence = &self.sequences[id as usize];
            let to_goal = sequence.output_goal - sequence.outputs;
            // With one token more than this there is no room for all drafts.
            let room = self.config.max_model_len - 1 - drafts - sequence.known();
            acceptance.steps_to(sequence.fraction, to_goal.min(room + 1))
        };
        let limit = self.running.iter().map(limit).min();
        let limit = limit.expect("a plan has sequences");
        self.steps_with_blocks(limit, |more| {
            let lacking = |&id: &SequenceId| {
                let sequence = &self.sequences[id as usize];
                let gained = acceptance.tokens_in(sequence.fraction, more).0;
                let slots = self.slots_up_to(sequence.known() + gained + drafts);
                let blocks = self.cache.blocks_for(slots);
                u64::from(blocks.saturating_sub(sequence.table.blocks()))
            };
            self.running.iter().map(lacking).sum()
        })
    }
}

/// Enters into the books what `steps` steps brought a sequence.
pub(super) fn verify(
    acceptance: &Acceptance,
    sequence: &mut Sequence,
    part: &Scheduled,
    steps: u32,
    drafted: &mut Drafted,
) {
    if part.computed_before < sequence.prefill_goal {
        sequence.outputs += 1;
        return;
    }
    let drafts = part.new_tokens - 1;
    let verified = Verified {
        request: sequence.request.0,
        outputs: sequence.outputs,
        missing: sequence.output_goal - sequence.outputs,
        steps,
        drafts,
        tokens: drafts,
    };
    let wanted = acceptance.verify(verified, &mut sequence.fraction, drafted);
    sequence.outputs += wanted;
    if sequence.is_running {
        sequence.computed = sequence.known() - 1;
    }
}
