//! What the cluster does with the tiers below the GPUs' caches: each function is one moment in the life of their blocks.

use super::Cluster;
use crate::event::{Action, WorkerId};
use engine::{KvEvent, RequestId, Reserved, Time};

impl Cluster {
    /// True if a worker's tiers take what its cache evicts.
    pub(super) fn tiers_want_evicted(&self, worker: WorkerId) -> bool {
        let kvbm = self.kvbm.as_ref();
        kvbm.is_some_and(|kvbm| kvbm.wants_evicted(worker))
    }

    /// A worker planned: what requests can fetch is sent up. Leaves what is to come from other workers.
    pub(super) fn fetch_reserved(
        &mut self,
        now: Time,
        worker: WorkerId,
        reserved: &mut Vec<Reserved>,
        actions: &mut Vec<Action>,
    ) {
        let Some(kvbm) = self.kvbm.as_mut().filter(|kvbm| kvbm.serves(worker)) else {
            return;
        };
        for reserved in reserved.drain(..) {
            kvbm.fetch(now, worker, &reserved, &self.workload);
        }
        self.ask_for_links(actions);
    }

    /// A worker has computed a prompt.
    pub(super) fn prompt_computed(&mut self, now: Time, worker: WorkerId, request: RequestId) {
        let Some(kvbm) = self.kvbm.as_mut().filter(|kvbm| kvbm.serves(worker)) else {
            return;
        };
        let record = &self.recording.requests[request.0 as usize];
        let had = record.cached_tokens + kvbm.fetched_tokens(request);
        let computed = (had, record.input_tokens);
        kvbm.computed(now, worker, request, computed, &self.workload);
    }

    /// A worker has generated an answer.
    pub(super) fn answer_computed(&mut self, now: Time, worker: WorkerId, request: RequestId) {
        let Some(kvbm) = self.kvbm.as_mut().filter(|kvbm| kvbm.serves(worker)) else {
            return;
        };
        let record = &self.recording.requests[request.0 as usize];
        let block_size = self.workers[worker.0 as usize].record.block_size;
        let prompt = record.input_tokens / block_size * block_size;
        // The last token is not computed.
        let known = record.input_tokens + record.output_tokens.saturating_sub(1);
        kvbm.computed(now, worker, request, (prompt, known), &self.workload);
    }

    /// A worker's cache evicted blocks in a step that ended.
    pub(super) fn evicted(&mut self, now: Time, worker: WorkerId, events: &[KvEvent]) {
        if let Some(kvbm) = self.kvbm.as_mut().filter(|kvbm| kvbm.wants_evicted(worker)) {
            kvbm.evicted(now, worker, events);
        }
    }

    /// Something may have happened on the links to the tiers.
    pub(super) fn move_tiers(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(kvbm) = &mut self.kvbm else {
            return;
        };
        let mut arrived = std::mem::take(&mut self.arrived);
        kvbm.advance(now, &mut arrived);
        for (worker, request) in arrived.drain(..) {
            self.workers[worker.0 as usize].scheduler.receive(request);
            self.notify(now, worker, actions);
        }
        self.arrived = arrived;
    }
}
