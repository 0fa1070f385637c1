//! Decode batches, and what gives way when memory lacks (S5, S6).
//!
//! In words: every running sequence gets one token. What lacks is evicted from the cache; if that is not enough, sequences
//! are *retracted*: the one with the fewest outputs first, of those the one with the longest prompt. A retracted sequence
//! loses its memory, keeps its outputs and goes to the back of the queue.

use super::Scheduler;
use super::admission::Admission;
use super::sequence::SequenceId;
use super::token_ratio::RETRACT_DECODE_STEPS;
use crate::plan::{Scheduled, StepPlan};
use std::cmp::Reverse;

impl Scheduler {
    /// Lets those that run decode in a prefill batch, if there is room for all (S1).
    pub(super) fn mix_in_decodes(&mut self, plan: &mut StepPlan) {
        let mut running = std::mem::take(&mut self.running);
        if running.is_empty() || !self.has_room_for_decode(&running) {
            self.running = running;
            return;
        }
        self.decode(plan, &running);
        self.prefilled.append(&mut running);
    }

    /// Gives every running sequence one token, retracting where memory lacks (S5, S6).
    pub(super) fn plan_decode(&mut self, plan: &mut StepPlan) {
        let mut running = std::mem::take(&mut self.running);
        if running.is_empty() {
            self.is_full = false;
            return;
        }
        if self.has_room_for_decode(&running) {
            self.ratio.decay(1);
        } else {
            self.retract(plan, &mut running);
            self.is_full = false;
        }
        self.decode(plan, &running);
        self.running = running;
    }

    /// Evicts for one token per sequence, or for its drafts (S13), and says whether there is room.
    fn has_room_for_decode(&mut self, batch: &[SequenceId]) -> bool {
        let tokens = match self.slots_for(batch.len()) {
            0 => self.pages_for_more(batch, 1) as u32,
            slots => slots,
        };
        self.pool.make_room(tokens);
        tokens <= self.pool.free_tokens()
    }

    /// Tokens of the pages that a batch lacks for what it gains in `steps` more steps.
    pub(super) fn pages_for_more(&self, batch: &[SequenceId], steps: u32) -> u64 {
        if self.config.page_size == 1 && self.acceptance.is_none() {
            return batch.len() as u64 * u64::from(steps);
        }
        if steps == 0 {
            return 0;
        }
        let lacking = |&id: &SequenceId| {
            let computed = self.sequences[id as usize].computed;
            let gained = self.pool.paged(computed + self.gain(id, steps));
            u64::from(gained - self.pool.paged(computed))
        };
        batch.iter().map(lacking).sum()
    }

    fn decode(&mut self, plan: &mut StepPlan, batch: &[SequenceId]) {
        if self.acceptance.is_some() {
            for &id in batch {
                self.decode_with_drafts(plan, id);
            }
            return;
        }
        self.pool
            .make_room(batch.len() as u32 * self.config.page_size);
        for &id in batch {
            let sequence = &mut self.sequences[id as usize];
            plan.scheduled.push(Scheduled {
                request: sequence.request,
                sequence: id,
                new_tokens: 1,
                computed_before: sequence.computed,
                samples: true,
            });
            plan.decode_batch += 1;
            plan.decode_context += u64::from(sequence.computed + 1);
            self.pool.grow(sequence, 1);
        }
    }

    /// Retracts at least one of several sequences, until the others have room (S6). They stay in the order in which they
    /// would be retracted, last first, as in the real one.
    fn retract(&mut self, plan: &mut StepPlan, running: &mut Vec<SequenceId>) {
        self.sort_for_retraction(running);
        let mut retracted = Vec::new();
        // A decode server keeps memory for others, who end; it may have to retract the last one.
        let least = usize::from(self.config.num_reserved_decode_tokens.is_none());
        while running.len() > least && (retracted.is_empty() || !self.has_room_for_decode(running))
        {
            let id = running.pop().expect("there is one");
            self.retract_one(plan, id);
            // What it leaves is put to use at once.
            self.pool
                .make_room(running.len() as u32 * RETRACT_DECODE_STEPS);
            retracted.push(id);
        }
        if self.config.pp_size > 1 && !self.has_room_for_decode(running) {
            // Other micro-batches hold the memory.
            let id = running.pop().expect("somebody ran");
            self.retract_one(plan, id);
            retracted.push(id);
        }
        assert!(
            running.is_empty() || self.has_room_for_decode(running),
            "the front end refuses what does not fit alone"
        );
        let of = |id: &SequenceId| &self.sequences[*id as usize];
        let outputs = running.iter().map(|id| u64::from(of(id).outputs)).sum();
        let asked = running.iter().map(|id| u64::from(of(id).output_goal)).sum();
        self.ratio.retracted(running.len() as u32, outputs, asked);
        for id in retracted {
            match self.config.num_reserved_decode_tokens {
                None => self.waiting.push(id),
                Some(_) => self.handoff.retracted.push_back(id),
            }
        }
    }

    /// The next to be retracted last: the fewest outputs, and of those the longest prompt; with drafts the last of the batch
    /// as it is.
    fn sort_for_retraction(&self, running: &mut [SequenceId]) {
        if self.acceptance.is_some() {
            return;
        }
        let rank = |&id: &SequenceId| {
            let sequence = &self.sequences[id as usize];
            (Reverse(sequence.outputs), sequence.input_tokens)
        };
        running.sort_by_key(rank);
    }

    fn retract_one(&mut self, plan: &mut StepPlan, id: SequenceId) {
        let sequence = &mut self.sequences[id as usize];
        self.pool.retract(sequence);
        sequence.was_retracted = true;
        self.active -= 1;
        plan.preempted.push(sequence.request);
    }

    /// Evicts for a prefill batch.
    /// Model: the real server dies when memory lacks here, which decodes in mixed batches can bring about; this one
    /// retracts running requests.
    pub(super) fn make_room_for_prefill(&mut self, plan: &mut StepPlan, batch: &[Admission]) {
        let (mut tokens, mut needed) = (0, 0);
        for admission in batch {
            let computed = self.sequences[admission.sequence as usize].computed;
            let after = self.pool.paged(computed + admission.new_tokens);
            tokens += admission.new_tokens;
            needed += after - self.pool.paged(computed);
        }
        if self.config.page_size > 1 {
            // The real one evicts for a further page of each request, whether it needs it or not.
            tokens += batch.len() as u32 * self.config.page_size;
        }
        self.pool.make_room(tokens);
        let mut running = std::mem::take(&mut self.running);
        while self.pool.free_tokens() < needed && !running.is_empty() {
            self.sort_for_retraction(&mut running);
            let id = running.pop().expect("somebody runs");
            self.retract_one(plan, id);
            self.waiting.push(id);
            self.pool.make_room(tokens);
        }
        self.running = running;
    }
}
