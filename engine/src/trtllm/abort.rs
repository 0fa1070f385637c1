//! Requests that end early: a client is gone.
//!
//! In words: at the end of a step, its outputs taken, a cancelled request leaves: one without a seat its queue, an active
//! one its seat and its blocks, which stay findable as at any end.
//!
//! Source: TensorRT-LLM 1.0, `_torch/pyexecutor/py_executor.py` (`_handle_canceled_requests`, `_terminate_request`).

// Model: Dynamo 1.2 documents that cancelled requests of TensorRT-LLM do not free their resources until they end. Here they do.

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
        !self.aborts.is_empty()
    }

    /// True if this part of the plan in flight belongs to a request that was aborted.
    #[must_use]
    pub fn is_leaving(&self, part: &Scheduled) -> bool {
        self.aborts.contains(&part.request)
    }

    /// Outputs of a request that were delivered; `None` if it is not here.
    #[must_use]
    pub fn outputs_of(&self, request: RequestId) -> Option<u32> {
        let id = self.find(request)?;
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
        let all = self.active.iter().chain(&self.queue);
        all.map(|&id| self.sequences[id as usize].request).collect()
    }

    fn find(&self, request: RequestId) -> Option<SequenceId> {
        let mut all = self.active.iter().chain(&self.queue).copied();
        all.find(|&id| self.sequences[id as usize].request == request)
    }

    /// Drops those who were aborted since the last plan.
    pub(super) fn hear_of_aborts(&mut self) {
        for request in std::mem::take(&mut self.aborts) {
            let Some(id) = self.find(request) else {
                continue;
            };
            if self.sequences[id as usize].is_in_flight {
                // Another stage computes it.
                self.aborts.push(request);
                continue;
            }
            if self.sequences[id as usize].is_started {
                self.give_back(id);
                self.started -= 1;
            }
            self.active.retain(|&other| other != id);
            self.queue.retain(|&other| other != id);
            self.vacant.push(id);
        }
    }
}
