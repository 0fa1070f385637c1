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
//! *Fetch.* A whole request, or one to be prefilled, whose next blocks lie where a [connector](crate::Connector) finds them
//! gets its blocks in the same way, waits for those without holding up the queue, and then takes a seat ahead of the queue
//! with that many tokens computed.
//!
//! What happens elsewhere is heard of when the next step is planned, as in vLLM, where connectors report with the outputs
//! of a step; so no block changes hands in the middle of a coast.
//!
//! Source: vLLM 0.10 and later, `v1/core/sched/scheduler.py` with a connector that loads asynchronously (NIXL):
//! `WAITING_FOR_REMOTE_KVS`, `_update_waiting_for_remote_kv`, `_update_from_kv_xfer_finished`, `delay_free_blocks`.

// Model: a prefill that was preempted after its last step (asynchronous scheduling) hands over as if its blocks were still
// there; vLLM would compute it again on the other worker. Rare: it needs a pool that is full to the last block.

// Model: a sequence that fetches gets the blocks of its whole prompt at once; vLLM takes those to be filled then and checks
// only that the others would fit. Blocks are held somewhat earlier, and two half-loaded prompts cannot block each other.

use super::Scheduler;
use super::coast::Standstill;
use super::sequence::SequenceId;
use crate::connector::Connector;
use crate::kv_cache::{Hit, Stretch};
use crate::plan::{Admitted, Reserved, StepPlan};
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

    /// Sequences whose KV comes or has come.
    pub fn coming(&self) -> impl Iterator<Item = SequenceId> {
        self.awaited.iter().chain(&self.arrived).copied()
    }

    pub fn is_awaited(&self, id: SequenceId) -> bool {
        self.awaited.contains(&id)
    }

    pub fn forget_arrived(&mut self, id: SequenceId) {
        self.arrived.retain(|&other| other != id);
    }
}

impl Scheduler {
    /// How many blocks of a content the cache has from the first on, at most `limit`. Changes nothing.
    pub fn cached_blocks(&mut self, path: &[Stretch], limit: u32) -> u32 {
        self.cache.lookup(path, limit).blocks
    }

    /// True if prompts that were computed here wait to be read.
    #[must_use]
    pub fn awaits_readers(&self) -> bool {
        !self.elsewhere.held.is_empty()
    }

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
        if self.elsewhere.news.is_empty() {
            return;
        }
        for (news, request) in std::mem::take(&mut self.elsewhere.news) {
            let from = match news {
                News::Read => &mut self.elsewhere.held,
                News::Received | News::Lost => &mut self.elsewhere.awaited,
            };
            let is_meant = |&id: &SequenceId| self.sequences[id as usize].request == request;
            let at = from.iter().position(is_meant);
            let id = from.remove(at.expect("the request has blocks here"));
            match news {
                News::Received | News::Lost if self.sequences[id as usize].is_aborted => {
                    self.give_back(id);
                }
                News::Read => self.give_back(id),
                News::Received => self.fill(id),
                News::Lost => self.queue_again(id),
            }
        }
    }

    fn give_back(&mut self, id: SequenceId) {
        self.sequences[id as usize].fetching = 0;
        self.cache.release(&mut self.sequences[id as usize].table);
        self.vacant.push(id);
    }

    fn fill(&mut self, id: SequenceId) {
        let sequence = &mut self.sequences[id as usize];
        if sequence.fetching > 0 {
            let blocks = sequence.table.hashed() + sequence.fetching;
            self.cache
                .publish(&mut sequence.table, &sequence.path, blocks);
            sequence.computed = blocks * self.config.block_size;
            sequence.prefill_goal = sequence.known();
            self.elsewhere.arrived.push_back(id);
            return;
        }
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
        sequence.fetching = 0;
        self.waiting.put_back(id, &self.sequences);
    }

    /// Reserves the blocks of a request that was prefilled elsewhere, or says why that cannot be.
    pub(super) fn try_reserve(
        &mut self,
        plan: &mut StepPlan,
        id: SequenceId,
    ) -> Result<(), Standstill> {
        let sequence = &self.sequences[id as usize];
        let known = sequence.known();
        let block_size = self.cache.block_size();
        let hit = self.cache.lookup(&sequence.path, (known - 1) / block_size);
        let missing = self.cache.blocks_for(known) - hit.blocks;
        self.reserve(plan, id, hit, missing)?;
        self.sequences[id as usize].part = Part::Whole;
        Ok(())
    }

    /// Reserves the blocks of a request of which some can be fetched, or says why that cannot be; `None` if none can.
    pub(super) fn try_fetch(
        &mut self,
        plan: &mut StepPlan,
        id: SequenceId,
        connector: &dyn Connector,
    ) -> Option<Result<(), Standstill>> {
        let sequence = &self.sequences[id as usize];
        // The last token is computed in any case: it gives the next one.
        let limit = (sequence.known() - 1) / self.cache.block_size();
        let hit = self.cache.lookup(&sequence.path, limit);
        let found = connector.matched(&sequence.path, hit.blocks, limit);
        if found == 0 {
            return None;
        }
        if let Err(standstill) = self.reserve(plan, id, hit, found) {
            let is_settled = self.needs_all_blocks();
            return Some(Err(if is_settled {
                standstill
            } else {
                Standstill::Unsettled
            }));
        }
        self.sequences[id as usize].fetching = found;
        Some(Ok(()))
    }

    /// Gives a waiting sequence all the blocks of what it knows, if there is room, and lets it wait for `missing` of them
    /// to be filled behind those of the last lookup.
    fn reserve(
        &mut self,
        plan: &mut StepPlan,
        id: SequenceId,
        hit: Hit,
        missing: u32,
    ) -> Result<(), Standstill> {
        let sequence = &mut self.sequences[id as usize];
        let block_size = self.cache.block_size();
        let blocks = self.cache.blocks_for(sequence.known());
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
        plan.reserved.push(Reserved {
            request: sequence.request,
            hit_tokens: hit.blocks * block_size,
            missing_tokens: missing * block_size,
        });
        self.elsewhere.awaited.push(id);
        self.note_peak();
        Ok(())
    }

    /// Seats sequences whose KV has come, first come first. False if one is left that cannot start now.
    pub(super) fn start_arrived(
        &mut self,
        plan: &mut StepPlan,
        budget: &mut u32,
        seats: usize,
        cap: u32,
    ) -> bool {
        while let Some(&id) = self.elsewhere.arrived.front() {
            let sequence = &self.sequences[id as usize];
            let wanted = if sequence.fetching > 0 {
                sequence.uncomputed().min(cap)
            } else {
                1
            };
            let is_cut = wanted > *budget && !self.config.enable_chunked_prefill;
            if *budget == 0 || self.running.len() >= seats || is_cut {
                return false;
            }
            self.elsewhere.arrived.pop_front();
            let new_tokens = wanted.min(*budget);
            self.seat(plan, id, new_tokens);
            *budget -= new_tokens;
        }
        true
    }

    fn seat(&mut self, plan: &mut StepPlan, id: SequenceId, new_tokens: u32) {
        let sequence = &mut self.sequences[id as usize];
        sequence.is_running = true;
        if sequence.fetching == 0 {
            plan.arrived.push(sequence.request);
        } else {
            let fetched = std::mem::take(&mut sequence.fetching) * self.config.block_size;
            plan.admitted.push(Admitted {
                request: sequence.request,
                known_tokens: sequence.known(),
                hit_tokens: sequence.computed - fetched,
                loaded_tokens: 0,
                stored_tokens: 0,
                is_resumed: sequence.was_preempted,
            });
        }
        self.running.push(id);
        self.schedule(plan, id, new_tokens);
    }
}
