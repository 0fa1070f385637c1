//! Prefill here, decode there: SGLang's two servers of a disaggregated deployment.
//!
//! *Prefill server.* A request comes when the decode server has memory for it (bootstrap). It asks for one output, so that
//! admission reserves for no more. When its prompt is computed it leaves the batch, its prefix goes into the tree and stays
//! locked (inflight queue) until the other side has read it ([`Scheduler::release`]). Nothing decodes here, so a batch
//! is never marked full for longer than a step.
//!
//! *Decode server.* It keeps no prefixes. At each turn of its loop, before anything else, and first come first served:
//!
//! 1. Retracted requests get memory again for all they know, if that and the reserve of one request is *allocatable*; while one
//!    of them waits nobody else gets any.
//! 2. Requests that are new get memory for their prompt (prealloc queue), if a place in the request table is free and, with
//!    p prompt tokens and o outputs asked for, max(p + reserve, p + min(o, 4096) - retractable) is allocatable.
//! 3. Requests whose KV has come, and retracted ones that have memory, join the decode batch while seats are free. The first
//!    token came with the KV: it is out at once, and the next step computes the second.
//!
//! Allocatable are the free tokens less the larger of reserve × (running + in transfer + come) and what the longest running
//! request needs to end when all others are retracted: min(o, 4096) + p - retractable. Retractable are all tokens of running
//! requests; the reserve is `num_reserved_decode_tokens`, 512. The table has `max_running_requests` places, three times as many
//! up to 32.
//!
//! Source: SGLang 0.5, `disaggregation/prefill.py` and `decode.py` (`pop_preallocated`, `_allocatable_token_budgets`,
//! `resume_retracted_reqs`, `get_new_prebuilt_batch`), read, not recorded: the naive simulator does not know it.

// Model: a retracted request keeps its KV in host memory and gets it back; both take no time here. PCIe at 50 GB/s moves a prompt
// of 8,000 tokens of an 8B model in 21 ms; retraction is rare unless memory is short.
// Model: a request that is alone and retracted resumes even if the reserve is not there; the real one would wait for ever.

use super::sequence::SequenceId;
use super::{Scheduler, SglangConfig};
use crate::plan::{Reserved, StepPlan};
use crate::scheduler::Part;
use crate::workload::RequestId;
use std::collections::VecDeque;

/// Requests of which only a part is done here.
#[derive(Debug, Clone, Default)]
pub(super) struct Handoff {
    /// Prompts come for others to go on with.
    is_prefill_server: bool,
    /// Prefilled here, to be read.
    held: Vec<SequenceId>,
    /// Want memory for their prompt.
    unallocated: VecDeque<SequenceId>,
    /// Have it; KV to come.
    awaited: Vec<SequenceId>,
    /// KV is here, seat to be taken.
    come: VecDeque<SequenceId>,
    /// Lost their memory, in the order in which they did.
    pub retracted: VecDeque<SequenceId>,
    /// Heard of since the last plan: whose KV was read by another worker, or has come here.
    news: Vec<RequestId>,
}

impl Handoff {
    /// Whether somebody waits for memory, so that each step has to ask.
    pub fn wants_memory(&self) -> bool {
        !self.unallocated.is_empty() || !self.retracted.is_empty()
    }

    /// Requests on a decode server that have no seat.
    pub fn unseated(&self) -> impl Iterator<Item = SequenceId> {
        let queued = self.unallocated.iter().chain(&self.retracted);
        queued.chain(&self.awaited).chain(&self.come).copied()
    }

    /// Requests without memory or seat.
    pub fn waiting(&self) -> usize {
        self.unallocated.len() + self.retracted.len() + self.come.len()
    }
}

impl SglangConfig {
    /// Places for requests that have memory on a decode server.
    fn table_places(&self) -> usize {
        let seats = self.max_running_requests as usize;
        if seats <= 32 { 3 * seats } else { seats }
    }
}

impl Scheduler {
    /// Takes a part of a request in: prompts on a prefill server, answers on a decode server.
    pub fn submit_part(&mut self, id: RequestId, part: Part, generated: u32) {
        match (part, self.config.num_reserved_decode_tokens) {
            (Part::Whole, None) => self.submit_from(id, generated),
            (Part::Prefill, None) => {
                let slot = self.enter(id, Part::Prefill, generated);
                self.handoff.is_prefill_server = true;
                self.waiting.push(slot);
            }
            (Part::Decode, Some(_)) => {
                let slot = self.enter(id, Part::Decode, generated);
                self.handoff.unallocated.push_back(slot);
            }
            (part, _) => unreachable!("an SGLang server has one role, which has no part {part:?}"),
        }
    }

    /// True if prompts that were computed here wait to be read.
    #[must_use]
    pub fn awaits_readers(&self) -> bool {
        !self.handoff.held.is_empty()
    }

    /// A request that waits on a decode server.
    pub(super) fn find_unseated(&self, request: RequestId) -> Option<SequenceId> {
        let mut all = self.handoff.unseated();
        all.find(|&id| self.sequences[id as usize].request == request)
    }

    /// Takes it out of its queue and its memory back.
    pub(super) fn drop_unseated(&mut self, id: SequenceId) {
        let handoff = &mut self.handoff;
        for queue in [
            &mut handoff.unallocated,
            &mut handoff.retracted,
            &mut handoff.come,
        ] {
            queue.retain(|&other| other != id);
        }
        handoff.awaited.retain(|&other| other != id);
        let sequence = &mut self.sequences[id as usize];
        let request = sequence.request;
        handoff.news.retain(|&other| other != request);
        self.pool.retract(sequence);
        self.vacant.push(id);
    }

    /// The KV of a request was read from here, or has come.
    pub fn hear(&mut self, request: RequestId) {
        self.handoff.news.push(request);
    }

    /// A prompt is computed: it stays until it is read.
    pub(super) fn hold(&mut self, id: SequenceId) {
        self.pool.checkpoint(&mut self.sequences[id as usize], true);
        self.handoff.held.push(id);
    }

    /// What a prefill server does before it plans: gives back what was read.
    pub(super) fn give_back_read(&mut self) {
        for request in std::mem::take(&mut self.handoff.news) {
            let at = |id: &SequenceId| self.sequences[*id as usize].request == request;
            let at = self.handoff.held.iter().position(at);
            let id = self
                .handoff
                .held
                .remove(at.expect("the request has memory here"));
            self.pool.finish(&mut self.sequences[id as usize]);
            self.vacant.push(id);
        }
        self.is_full &= !self.handoff.is_prefill_server;
    }

    /// What a decode server does before it plans (1 and 2).
    pub(super) fn allocate(&mut self, plan: &mut StepPlan, reserve: u32) {
        self.resume_retracted(reserve);
        if self.handoff.retracted.is_empty() {
            self.allocate_prompts(plan, reserve);
        }
        for request in std::mem::take(&mut self.handoff.news) {
            let at = |id: &SequenceId| self.sequences[*id as usize].request == request;
            let at = self.handoff.awaited.iter().position(at);
            let id = (self.handoff.awaited).remove(at.expect("the request has memory here"));
            self.handoff.come.push_back(id);
        }
        self.note_peak(0);
    }

    fn resume_retracted(&mut self, reserve: u32) {
        while let Some(&id) = self.handoff.retracted.front() {
            let known = self.sequences[id as usize].known();
            let is_alone = self.pool.free_tokens() == self.pool.usable_tokens();
            let fits = i64::from(known + reserve) <= self.allocatable(reserve, None);
            if self.places_left() == 0 || !(fits || is_alone) {
                return;
            }
            self.handoff.retracted.pop_front();
            // Its last token was not computed yet.
            self.pool.grow(&mut self.sequences[id as usize], known - 1);
            self.handoff.come.push_back(id);
        }
    }

    fn allocate_prompts(&mut self, plan: &mut StepPlan, reserve: u32) {
        let known = |id: &SequenceId| i64::from(self.sequences[*id as usize].known());
        let retractable: i64 = self.running.iter().map(known).sum();
        while let Some(&id) = self.handoff.unallocated.front() {
            let sequence = &self.sequences[id as usize];
            let (input, output) = (sequence.input_tokens, clipped(sequence.output_goal));
            let needed = i64::from(input + reserve).max(i64::from(input + output) - retractable);
            let free = self.pool.free_tokens();
            let is_alone = free == self.pool.usable_tokens();
            let fits = needed <= self.allocatable(reserve, Some(retractable));
            if self.places_left() == 0 || !(fits || is_alone) || self.pool.paged(input) > free {
                return;
            }
            self.handoff.unallocated.pop_front();
            let sequence = &mut self.sequences[id as usize];
            plan.reserved.push(Reserved {
                request: sequence.request,
                hit_tokens: 0,
                missing_tokens: self.pool.paged(input),
            });
            self.pool.grow(sequence, input);
            self.handoff.awaited.push(id);
        }
    }

    fn places_left(&self) -> usize {
        let taken = self.active + self.handoff.awaited.len() + self.handoff.come.len();
        self.config.table_places().saturating_sub(taken)
    }

    /// Tokens that can be given away; `retractable` if the longest running request is to be thought of.
    fn allocatable(&self, reserve: u32, retractable: Option<i64>) -> i64 {
        let Handoff { awaited, come, .. } = &self.handoff;
        let requests = self.running.len() + awaited.len() + come.len();
        let longest = |retractable: i64| {
            let needed = |&id: &SequenceId| {
                let sequence = &self.sequences[id as usize];
                i64::from(clipped(sequence.output_goal) + sequence.input_tokens) - retractable
            };
            self.running.iter().map(needed).max()
        };
        let longest = retractable.and_then(longest).unwrap_or(0);
        let kept = i64::from(reserve) * requests as i64;
        i64::from(self.pool.free_tokens()) - kept.max(longest)
    }

    /// Seats requests whose KV is here (3).
    pub(super) fn seat_come(&mut self, plan: &mut StepPlan) {
        while self.seats() > 0
            && let Some(id) = self.handoff.come.pop_front()
        {
            let sequence = &mut self.sequences[id as usize];
            if sequence.outputs == 0 {
                sequence.outputs = 1;
                plan.begun.push(sequence.request);
            }
            if sequence.is_finished() {
                self.pool.finish(sequence);
                self.vacant.push(id);
            } else {
                self.active += 1;
                self.running.push(id);
            }
        }
    }
}

fn clipped(output: u32) -> u32 {
    output.min(SglangConfig::CLIP_MAX_NEW_TOKENS)
}
