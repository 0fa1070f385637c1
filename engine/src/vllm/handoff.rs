//! Prefill here, decode there: what vLLM's scheduler does for requests of which it does only a part.
//!
//! *Prefill.* The request ends with its first token, which nobody sees, and leaves its seat; its blocks stay until the
//! other worker has read them ([`Scheduler::release`]).
//!
//! *Decode.* The request waits its turn in the queue. At its head, with a seat free and budget left, it gets all blocks of
//! its prompt, those it shares with cached prefixes and new ones, without using up seat or budget; the KV of the new ones
//! is then pulled. Too few blocks block the queue as at any admission. When the KV is there ([`Scheduler::receive`]) the
//! blocks become findable, and at the next step the request takes a seat ahead of the queue and computes its last prompt
//! token again, which gives its first token. After a preemption it is computed like any other, prompt included.
//!
//! What happens elsewhere is heard of when the next step is planned, as in vLLM, where connectors report with the outputs
//! of a step; so no block changes hands in the middle of a coast.
//!
//! Source: vLLM 0.10 and later, `v1/core/sched/scheduler.py` with a connector that loads asynchronously (NIXL):
//! `WAITING_FOR_REMOTE_KVS`, `_update_waiting_for_remote_kv`, `_update_from_kv_xfer_finished`, `delay_free_blocks`.

// Model: a prefill that was preempted after its last step (asynchronous scheduling) hands over as if its blocks were still
// there; vLLM would compute it again on the other worker. Rare: it needs a pool that is full to the last block.

use super::Scheduler;
use super::coast::Standstill;
use super::sequence::SequenceId;
use crate::plan::{Reserved, StepPlan};
use crate::scheduler::Part;
use crate::workload::RequestId;
use std::collections::VecDeque;

/// Sequences with blocks here whose next move is made elsewhere, and those back from there.
#[derive(Debug, Clone, Default)]
pub(super) struct Elsewhere {
    /// Prefilled here, to be read.
    held: Vec<SequenceId>,
    /// Prefilled there, blocks reserved here.
    awaited: Vec<SequenceId>,
    /// KV is here, seat to be taken; first come first.
    arrived: VecDeque<SequenceId>,
    /// What happened since the last plan.
    news: Vec<(News, RequestId)>,
}

/// What can happen to the KV of a request.
#[derive(Debug, Clone, Copy)]
enum News {
    Read,
    Received,
    Lost,
}

impl Elsewhere {
    pub fn hold(&mut self, id: SequenceId) {
        self.held.push(id);
    }
}

impl Scheduler {
    /// Nobody reads the blocks of a request any more whose prefill was done here.
    pub fn release(&mut self, request: RequestId) {
        self.elsewhere.news.push((News::Read, request));
    }

    /// The KV for which blocks were reserved is there.
    pub fn receive(&mut self, request: RequestId) {
        self.elsewhere.news.push((News::Received, request));
    }

    /// The KV for which blocks were reserved will not come.
    pub fn compute_after_all(&mut self, request: RequestId) {
        self.elsewhere.news.push((News::Lost, request));
    }

    /// Takes note of what happened since the last plan.
    pub(super) fn hear_from_elsewhere(&mut self) {
        for (news, request) in std::mem::take(&mut self.elsewhere.news) {
            let from = match news {
                News::Read => &mut self.elsewhere.held,
                News::Received | News::Lost => &mut self.elsewhere.awaited,
            };
            let is_meant = |&id: &SequenceId| self.sequences[id as usize].request == request;
            let at = from.iter().position(is_meant);
            let id = from.remove(at.expect("the request has blocks here"));
            match news {
                News::Read => self.give_back(id),
                News::Received => self.fill(id),
                News::Lost => self.queue_again(id),
            }
        }
    }

    fn give_back(&mut self, id: SequenceId) {
        self.cache.release(&mut self.sequences[id as usize].table);
        self.vacant.push(id);
    }

    fn fill(&mut self, id: SequenceId) {
        let sequence = &mut self.sequences[id as usize];
        let known = sequence.known();
        let blocks = known / self.config.block_size;
        self.cache
            .publish(&mut sequence.table, &sequence.path, blocks);
        sequence.computed = known - 1;
        sequence.prefill_goal = known - 1;
        self.elsewhere.arrived.push_back(id);
    }

    fn queue_again(&mut self, id: SequenceId) {
        let sequence = &mut self.sequences[id as usize];
        self.cache.release(&mut sequence.table);
        self.cache.expect_again(sequence.request, &sequence.path);
        sequence.was_preempted = true;
        self.waiting.put_back(id, &self.sequences);
    }

    /// Reserves the blocks of a request that was prefilled elsewhere, or says why that cannot be.
    pub(super) fn try_reserve(
        &mut self,
        plan: &mut StepPlan,
        id: SequenceId,
    ) -> Result<(), Standstill> {
        let sequence = &mut self.sequences[id as usize];
        let known = sequence.known();
        let block_size = self.cache.block_size();
        let hit = self.cache.lookup(&sequence.path, (known - 1) / block_size);
        let blocks = self.cache.blocks_for(known);
        let watermark = if self.running.is_empty() {
            0
        } else {
            self.config.watermark_blocks()
        };
        if blocks - hit.blocks + hit.idle_blocks + watermark > self.cache.free_blocks() {
            return Err(Standstill::Blocked {
                head: id,
                hit,
                hit_matters: false,
            });
        }
        self.cache.start(sequence.request);
        self.cache.admit(&mut sequence.table);
        self.cache.grow(&mut sequence.table, blocks);
        sequence.part = Part::Whole;
        plan.reserved.push(Reserved {
            request: sequence.request,
            hit_tokens: hit.blocks * block_size,
            missing_tokens: (blocks - hit.blocks) * block_size,
        });
        self.elsewhere.awaited.push(id);
        self.note_peak();
        Ok(())
    }

    /// Seats sequences whose KV has come.
    pub(super) fn start_arrived(&mut self, plan: &mut StepPlan, budget: &mut u32, seats: usize) {
        while *budget > 0
            && self.running.len() < seats
            && let Some(id) = self.elsewhere.arrived.pop_front()
        {
            self.sequences[id as usize].is_running = true;
            plan.arrived.push(self.sequences[id as usize].request);
            self.running.push(id);
            self.schedule(plan, id, 1);
            *budget -= 1;
        }
    }
}
