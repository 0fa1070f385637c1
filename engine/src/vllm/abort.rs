//! Requests that end early: a client is gone, or the request is served elsewhere.
//!
//! In words: the engine hears of it between two steps. A waiting request leaves the queue; a running one leaves its seat and
//! gives its blocks back as at its end, tail first, so that what it computed stays findable. A step that is in flight then
//! computes the request all the same, and its output is thrown away. Blocks into which KV is being pulled stay until the
//! last byte is there. A request that has ended by itself meanwhile is none that could be aborted.
//!
//! Source: vLLM 0.10 and later, `v1/core/sched/scheduler.py` (`finish_requests`, `_free_request`; `update_from_output` passes
//! over requests it does not know), `v1/engine/core.py` (`abort_requests`).

use super::Scheduler;
use super::sequence::SequenceId;
use crate::plan::Scheduled;
use crate::workload::RequestId;

/// Requests to be dropped, and those dropped of which a step is in flight.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving {
    /// Told since the last plan.
    told: Vec<RequestId>,
    /// Without blocks, and part of a plan in flight.
    in_flight: Vec<SequenceId>,
}

impl Scheduler {
    /// Drops a request when the next step is planned.
    pub fn abort(&mut self, request: RequestId) {
        self.leaving.told.push(request);
    }

    /// True if some part of a plan in flight may belong to a request that was aborted.
    #[must_use]
    pub fn has_leaving(&self) -> bool {
        !self.leaving.told.is_empty() || !self.leaving.in_flight.is_empty()
    }

    /// True if this part of a plan in flight belongs to a request that was aborted.
    #[must_use]
    pub fn is_leaving(&self, part: &Scheduled) -> bool {
        self.leaving.in_flight.contains(&part.sequence) || self.leaving.told.contains(&part.request)
    }

    /// Outputs of a request that were delivered; `None` if it is not here.
    #[must_use]
    pub fn outputs_of(&self, request: RequestId) -> Option<u32> {
        let id = self.find(request)?;
        let sequence = &self.sequences[id as usize];
        Some(sequence.outputs)
    }

    /// Outputs of a sequence of a plan in flight that were delivered.
    #[must_use]
    pub fn outputs_of_part(&self, part: &Scheduled) -> u32 {
        self.sequences[part.sequence as usize].outputs
    }

    /// Outputs of it that come with plans in flight before the newest, of which this is a part.
    #[must_use]
    pub fn outputs_before(&self, part: &Scheduled) -> u32 {
        let placeholders = self.sequences[part.sequence as usize].placeholders;
        placeholders.saturating_sub(u32::from(part.samples))
    }

    /// The requests that are here, in no order that means anything.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestId> {
        let all = self.running.iter().copied().chain(self.waiting.iter());
        let all = all.chain(self.elsewhere.coming());
        all.map(|id| self.sequences[id as usize].request).collect()
    }

    fn find(&self, request: RequestId) -> Option<SequenceId> {
        let is_it = |&id: &SequenceId| self.sequences[id as usize].request == request;
        let mut all = self.running.iter().copied().chain(self.waiting.iter());
        let found = all.find(is_it);
        found.or_else(|| self.elsewhere.coming().find(is_it))
    }

    /// Drops those who were aborted since the last plan.
    pub(super) fn hear_of_aborts(&mut self) {
        for request in std::mem::take(&mut self.leaving.told) {
            let Some(id) = self.find(request) else {
                continue;
            };
            if self.elsewhere.is_awaited(id) {
                self.sequences[id as usize].is_aborted = true;
                continue;
            }
            self.running.retain(|&other| other != id);
            self.waiting.retain(|other| other != id);
            self.elsewhere.forget_arrived(id);
            self.drop_sequence(id);
        }
    }

    fn drop_sequence(&mut self, id: SequenceId) {
        let sequence = &mut self.sequences[id as usize];
        sequence.is_running = false;
        sequence.is_aborted = true;
        self.cache.release(&mut sequence.table);
        if self.is_in_flight(id) {
            self.leaving.in_flight.push(id);
        } else {
            self.vacant.push(id);
        }
    }

    fn is_in_flight(&self, id: SequenceId) -> bool {
        let mut parts = self
            .flights
            .iter()
            .flat_map(|flight| &flight.plan.scheduled);
        parts.any(|part| part.sequence == id)
    }

    /// Lets the names of dropped sequences be given again of which no step is in flight any more.
    pub(super) fn bury(&mut self) {
        let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.leaving.in_flight)
            .into_iter()
            .partition(|&id| !self.is_in_flight(id));
        self.leaving.in_flight = left;
        self.vacant.extend(gone);
    }
}
