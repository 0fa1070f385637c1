//! Which active requests may take part in a step, by KV blocks (T2–T4).
//!
//! In words: `GUARANTEED_NO_EVICT` sets aside all blocks that started requests can still need, and starts others in order
//! while what is left covers theirs, prompt and whole answer; what they will find in the cache is not counted.
//! `MAX_UTILIZATION` goes through all requests in order and gives each the blocks of its next step (a new one: of its
//! prompt); where they lack, the last started request is paused, loses its blocks and is prefilled again later. Under both
//! a new request steps aside while another computes the block that it could reuse.

use super::config::CapacityPolicy;
use super::sequence::SequenceId;
use super::{Scheduler, TrtllmConfig};
use crate::plan::StepPlan;
use crate::prefix_tree::NodeId;

/// A content block by its place: the node that ends it, and its index in the sequence.
type Place = (NodeId, u32);

impl Scheduler {
    /// Leaves those who may take part in `self.fitting`, in order. Who is paused loses its blocks and is told in the plan.
    pub(super) fn choose_fitting(&mut self, plan: &mut StepPlan) {
        self.fitting.clear();
        self.contributed.clear();
        if self.config.enable_block_reuse {
            for index in 0..self.active.len() {
                let id = self.active[index];
                let sequence = &self.sequences[id as usize];
                if sequence.is_started && !sequence.decodes() {
                    let missing = self.first_missing_block(id);
                    self.contributed.extend(missing);
                }
            }
        }
        match self.config.capacity_scheduler_policy {
            CapacityPolicy::GuaranteedNoEvict => self.fit_without_eviction(),
            CapacityPolicy::MaxUtilization => self.fit_with_pauses(plan),
        }
    }

    // Model: requests in the middle of their prompt are set aside for like those that decode. TensorRT-LLM lets them wait
    // behind an earlier new one that does not fit, which can stall both for ever; apart from that the order is the same.
    fn fit_without_eviction(&mut self) {
        let mut left = i64::from(self.cache.free_blocks());
        for &id in &self.active {
            if self.sequences[id as usize].is_started {
                left -= i64::from(self.blocks_to_completion(id));
                self.fitting.push(id);
            }
        }
        for index in 0..self.active.len() {
            let id = self.active[index];
            if self.sequences[id as usize].is_started || self.steps_aside(id) {
                continue;
            }
            let needed = i64::from(self.blocks_to_completion(id));
            if needed > left {
                return;
            }
            left -= needed;
            self.fitting.push(id);
        }
    }

    fn fit_with_pauses(&mut self, plan: &mut StepPlan) {
        let (mut at, mut end) = (0, self.active.len());
        let mut taken = 0;
        while at < end {
            let id = self.active[at];
            if self.steps_aside(id) {
                at += 1;
                continue;
            }
            let needed = self.blocks_for_a_step(id);
            if taken + needed <= self.cache.free_blocks() {
                taken += needed;
                self.fitting.push(id);
                at += 1;
                continue;
            }
            let is_started = |&place: &usize| {
                let id = self.active[place];
                self.sequences[id as usize].is_started
            };
            let Some(last) = (at..end).rev().find(is_started) else {
                return;
            };
            self.pause(self.active[last], plan);
            end = last;
        }
    }

    /// Takes a request's blocks; the cache keeps their contents. It goes on from its prompt and the outputs it has.
    fn pause(&mut self, id: SequenceId, plan: &mut StepPlan) {
        self.give_back(id);
        let sequence = &mut self.sequences[id as usize];
        let new_outputs = sequence.outputs - sequence.outputs_in_prompt;
        sequence.prompt += new_outputs;
        sequence.outputs_in_prompt = sequence.outputs;
        sequence.computed = 0;
        sequence.is_started = false;
        sequence.was_paused = true;
        plan.preempted.push(sequence.request);
        self.started -= 1;
    }

    /// Blocks that a request can still need beyond those it has.
    fn blocks_to_completion(&self, id: SequenceId) -> u32 {
        let sequence = &self.sequences[id as usize];
        let slots = sequence.tokens_at_end() + self.config.slots_at_end();
        let all = self.config.blocks_for(slots);
        all.saturating_sub(sequence.table.blocks())
    }

    /// Blocks that its next step takes.
    fn blocks_for_a_step(&self, id: SequenceId) -> u32 {
        let sequence = &self.sequences[id as usize];
        let tokens = if sequence.decodes() {
            sequence.computed + self.config.slots_of_a_step()
        } else {
            sequence.prompt + self.config.extra_kv_tokens()
        };
        self.config
            .blocks_for(tokens)
            .saturating_sub(sequence.table.blocks())
    }

    /// Whether a request should wait for a block of its prompt that another one is computing. If not, it is the one that
    /// computes the first block it lacks.
    fn steps_aside(&mut self, id: SequenceId) -> bool {
        if !self.config.enable_block_reuse || self.sequences[id as usize].is_started {
            return false;
        }
        let Some(missing) = self.first_missing_block(id) else {
            return false;
        };
        if self.contributed.contains(&missing) {
            return true;
        }
        self.contributed.push(missing);
        false
    }

    /// The first whole block of a prompt that the cache does not have.
    fn first_missing_block(&mut self, id: SequenceId) -> Option<Place> {
        let sequence = &self.sequences[id as usize];
        let whole = sequence.prompt / self.config.tokens_per_block;
        let found = self.cache.lookup(&sequence.path, whole).blocks;
        let found = found + self.host_blocks(&self.sequences[id as usize].path, found, whole);
        let sequence = &self.sequences[id as usize];
        if found == whole {
            return None;
        }
        let stretch = sequence.path.iter().find(|stretch| stretch.end > found);
        let stretch = stretch.expect("a path covers all full blocks of its sequence");
        Some((stretch.node, found))
    }
}

impl TrtllmConfig {
    /// Whether an idle worker can take a request to its end.
    #[must_use]
    pub fn can_serve(&self, input_tokens: u32, output_goal: u32) -> bool {
        input_tokens <= self.prompt_limit()
            && self.blocks_for(self.slots_of_all(input_tokens, output_goal)) <= self.num_blocks
    }
}
