//! Requests that end early: a client is gone.
//!
//! In words: a waiting request leaves the queue at once. One that has been admitted is only marked: it takes part in its next
//! step, a cut prompt in all that it still lacks, and ends with the output of that, as if it had been its last; its memory
//! goes to the cache as at any end. On a decode server one without a seat is dropped at once, wherever it waits, with its memory.
//!
//! Source: SGLang 0.4.6 and later, `managers/scheduler.py` (`abort_request`), `managers/schedule_batch.py` (`to_finish`, earlier
//! `to_abort`, in `check_finished`); the queues of a decode server: `disaggregation/decode.py` (a receiver that is aborted
//! has failed at the next poll). No recorded case has an abort: these rules are checked by conservation alone.

use super::Scheduler;
use super::sequence::SequenceId;
use crate::plan::Scheduled;
use crate::workload::RequestId;

impl Scheduler {
    /// Drops a request when the next step is planned.
    pub fn abort(&mut self, request: RequestId) {
        self.aborts.push(request);
    }

    /// True if some part of the plan in flight may belong to a request that was aborted.
    #[must_use]
    pub fn has_leaving(&self) -> bool {
        self.leaving > 0 || !self.aborts.is_empty()
    }

    /// True if this part of the plan in flight belongs to a request that was aborted.
    #[must_use]
    pub fn is_leaving(&self, part: &Scheduled) -> bool {
        self.sequences[part.sequence as usize].is_aborted || self.aborts.contains(&part.request)
    }

    /// Outputs of a request that were delivered; `None` if it is not here.
    #[must_use]
    pub fn outputs_of(&self, request: RequestId) -> Option<u32> {
        let id = self.find_admitted(request);
        let id = id.or_else(|| self.find_waiting(request));
        let id = id.or_else(|| self.find_unseated(request))?;
        Some(self.sequences[id as usize].outputs)
    }

    /// Outputs of a sequence of the plan in flight that were delivered.
    #[must_use]
    pub fn outputs_of_part(&self, part: &Scheduled) -> u32 {
        self.sequences[part.sequence as usize].outputs
    }

    /// The requests that are here, in no order that means anything.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestId> {
        let is_there = |id: &SequenceId| !self.sequences[*id as usize].is_finished();
        let admitted = self.seated().filter(is_there);
        let all = admitted.chain(self.waiting.iter());
        let all = all.chain(self.handoff.unseated());
        all.map(|id| self.sequences[id as usize].request).collect()
    }

    fn find_waiting(&self, request: RequestId) -> Option<SequenceId> {
        let mut all = self.waiting.iter();
        all.find(|&id| self.sequences[id as usize].request == request)
    }

    fn find_admitted(&self, request: RequestId) -> Option<SequenceId> {
        self.seated().find(|&id| {
            let sequence = &self.sequences[id as usize];
            sequence.request == request && !sequence.is_finished()
        })
    }

    /// Drops or marks those who were aborted since the last plan.
    pub(super) fn hear_of_aborts(&mut self) {
        for request in std::mem::take(&mut self.aborts) {
            if let Some(id) = self.find_admitted(request) {
                let sequence = &mut self.sequences[id as usize];
                sequence.is_aborted = true;
                sequence.stop_at = sequence.outputs + 1;
                self.leaving += 1;
            } else if let Some(id) = self.find_waiting(request) {
                self.waiting.retain(|other| other != id);
                self.vacant.push(id);
            } else if let Some(id) = self.find_unseated(request) {
                self.drop_unseated(id);
            }
        }
    }
}
