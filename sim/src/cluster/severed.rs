//! A client or a worker is gone: what becomes of requests that one worker prefills and another decodes.
//!
//! *The client leaves.* Its prompt is not computed any further, and the KV of one that is computed is given back. Blocks into
//! which KV is being pulled stay, on both sides, until the last byte is there (vLLM); SGLang's servers break off.
//!
//! *The prefill worker is gone*, or was never there. The decode worker computes the prompt itself: Dynamo's prefill router and
//! llm-d's sidecar fall back to decoding alone, and vLLM computes what it could not pull (`kv_load_failure_policy: recompute`).
//! A decode worker is chosen now if there was none. SGLang's decode server cannot: the request is lost with its prompt.
//!
//! *The decode worker is gone.* The request is lost with it, and may move as a whole: a new attempt comes to the front again.
//! What the prefill worker has computed is found there by its prefix; blocks that wait to be read are given back after
//! [`UNREAD_FOR`](crate::disaggregation::UNREAD_FOR) (vLLM), or at once (SGLang).
//!
//! Source: Dynamo 1.3 and later, disaggregated serving of the router (fallback) and request migration, which wraps both workers;
//! vLLM 0.10 and later, NIXL connector (`request_finished`, `VLLM_NIXL_ABORT_REQUEST_TIMEOUT`); SGLang 0.5,
//! `disaggregation/{prefill,decode}.py` (a transfer that failed ends the request on either side).

// Model: a decode worker that has reserved no blocks when the prompt is lost reserves them first, and then computes it.

use super::Cluster;
use crate::disaggregation::domains::Near;
use crate::disaggregation::{Role, Stage};
use crate::event::{Action, WorkerId};
use crate::record::Rejection;
use engine::{Part, RequestId, Time};

const HANDS_OVER: &str = "only workers that hand over have a part";

impl Cluster {
    /// Whether decode workers do requests alone that nobody prefills for.
    pub(super) fn falls_back(&self) -> bool {
        let parts = self.disaggregated.as_ref();
        parts.is_some_and(|parts| {
            let worker = parts.decode.workers()[0];
            let pool = self.workers[worker.0 as usize].pool();
            self.pools[pool].engine.does_parts()
        })
    }

    /// True if no prefill worker is left for a request, and its decode worker will do without.
    pub(super) fn lacks_prefill_workers(&mut self, id: RequestId, near: Option<&Near>) -> bool {
        if self.adversity.is_none() || !self.entry.misses_somebody() || !self.falls_back() {
            return false;
        }
        let refused = self.entry.find_able(id, &self.workload, &self.pools);
        refused == Some(Rejection::NoWorker)
            || !(self.entry).has_able_near(id, near, &self.workload, &self.pools)
    }

    /// Unfinished requests that a worker has a part in.
    pub(super) fn parts_of(&self, worker: WorkerId) -> Vec<RequestId> {
        let parts = self.disaggregated.as_ref().expect(HANDS_OVER);
        if !parts.is_decode_worker(worker) {
            let mut all = parts.handoffs.unfinished_of(worker);
            all.retain(|id| !self.is_over(*id));
            return all;
        }
        let ids = (0..self.recording.requests.len() as u32).map(RequestId);
        let is_there = |id: &RequestId| {
            let record = &self.recording.requests[id.0 as usize];
            record.worker == worker.0 && !self.is_over(*id)
        };
        ids.filter(is_there).collect()
    }

    /// The prefill worker's part of a request is not wanted any more: its client left, or the decode worker is gone.
    pub(super) fn leave_prefill_worker(
        &mut self,
        now: Time,
        id: RequestId,
        is_decode_worker_gone: bool,
        actions: &mut Vec<Action>,
    ) {
        let pulls = self.falls_back();
        let tokens = self.known_tokens(id);
        let Some(parts) = &mut self.disaggregated else {
            return;
        };
        let (from, to) = parts.handoffs.ends_of(id);
        let is_reserved = parts.handoffs.is_reserved(id);
        match parts.handoffs.stage(id) {
            Stage::Over => return,
            Stage::Unplaced => {
                parts.handoffs.abandon(now, id);
                return;
            }
            Stage::Computing => {
                parts.prefill_tokens[from.0 as usize] -= u64::from(tokens);
                parts.handoffs.abandon(now, id);
                self.entry.ended(now, from, id, &self.workload);
                self.workers[from.0 as usize].abort(id);
                if is_reserved && pulls && !is_decode_worker_gone {
                    // Nothing will come into its blocks.
                    self.workers[to.0 as usize].scheduler.compute_after_all(id);
                }
            }
            Stage::Computed if is_decode_worker_gone && pulls => {
                parts.handoffs.abandon(now, id);
                parts.handoffs.stays_unread(now, id);
                return;
            }
            // The pull goes on to its end.
            Stage::Computed if is_reserved && pulls => return,
            Stage::Computed => {
                parts.handoffs.abandon(now, id);
                self.workers[from.0 as usize].scheduler.release(id);
            }
        }
        self.notify(now, from, actions);
    }

    /// Ends transfers of requests that are over already, in which a worker that is gone had a part.
    pub(super) fn break_off_pulls(&mut self, now: Time, gone: WorkerId, actions: &mut Vec<Action>) {
        let Some(parts) = &mut self.disaggregated else {
            return;
        };
        parts.handoffs.forget(gone);
        let unfinished = parts.handoffs.unfinished_of(gone);
        for id in unfinished {
            if !self.is_over(id) {
                continue;
            }
            let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
            let (_, to) = parts.handoffs.ends_of(id);
            parts.handoffs.abandon(now, id);
            if to == gone {
                parts.handoffs.stays_unread(now, id);
            } else {
                // Its client left: the blocks are given back.
                self.workers[to.0 as usize].scheduler.compute_after_all(id);
                self.notify(now, to, actions);
            }
        }
    }

    /// The prefill worker of a request is gone, and what it had of the prompt: the decode worker computes it. False if it cannot.
    pub(super) fn lose_prompt(
        &mut self,
        now: Time,
        id: RequestId,
        gone: WorkerId,
        actions: &mut Vec<Action>,
    ) -> bool {
        let falls_back = self.falls_back();
        let tokens = self.known_tokens(id);
        let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
        let is_computed = parts.handoffs.stage(id) == Stage::Computed;
        let (_, to) = parts.handoffs.ends_of(id);
        let has_decode_worker = parts.handoffs.has_decode_worker(id);
        let is_submitted = has_decode_worker && (is_computed || parts.reserves_first());
        let is_reserved = parts.handoffs.is_reserved(id);
        parts.handoffs.abandon(now, id);
        if !is_computed {
            parts.prefill_tokens[gone.0 as usize] -= u64::from(tokens);
            self.entry.ended(now, gone, id, &self.workload);
            if let Some(adversity) = &mut self.adversity {
                adversity.leaves_prefill(id);
            }
        }
        if !falls_back {
            self.workers[to.0 as usize].abort(id);
            self.notify(now, to, actions);
            let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
            parts.decode.ended(now, to, id, &self.workload);
            return false;
        }
        if is_reserved {
            self.compute_after_all(now, id, actions);
        } else if is_submitted {
            // It is told when it has the blocks.
        } else if has_decode_worker {
            self.decode_alone(now, id, to, actions);
        } else if !is_computed {
            self.choose_decode_worker(now, id, None, actions);
        }
        // Or it waits for a decode worker already.
        true
    }

    /// A decode worker does all of a request.
    pub(super) fn decode_alone(
        &mut self,
        now: Time,
        id: RequestId,
        worker: WorkerId,
        actions: &mut Vec<Action>,
    ) {
        let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
        parts.handoffs.abandon(now, id);
        self.note_prefill(id, worker, 0);
        self.submit(now, id, worker, Part::Whole, actions);
    }

    /// The router of the decode workers takes a request whose prompt is computed by `from`, or never will be.
    pub(super) fn choose_decode_worker(
        &mut self,
        now: Time,
        id: RequestId,
        from: Option<WorkerId>,
        actions: &mut Vec<Action>,
    ) {
        let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
        let near = from.and_then(|from| parts.near(from, Role::Decode));
        let refused = parts.decode.find_able(id, &self.workload, &self.pools);
        let is_near = (parts.decode).has_able_near(id, near.as_ref(), &self.workload, &self.pools);
        if let Some(reason) = refused.or((!is_near).then_some(Rejection::NoWorker)) {
            // Who could have taken it when it arrived is gone.
            self.leave_prefill_worker(now, id, true, actions);
            return self.turn_away(now, id, reason, actions);
        }
        if let Some(adversity) = &mut self.adversity {
            adversity.in_router.insert(id);
        }
        parts.decode.keep_near(near);
        (parts.decode).place(now, id, &self.workload, &self.pools, None);
    }

    /// A decode worker gives back the blocks of a prompt that will not come, and computes it.
    pub(super) fn compute_after_all(
        &mut self,
        now: Time,
        request: RequestId,
        actions: &mut Vec<Action>,
    ) {
        let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
        let (_, to) = parts.handoffs.ends_of(request);
        parts.handoffs.give_up(now, request);
        self.workers[to.0 as usize]
            .scheduler
            .compute_after_all(request);
        self.notify(now, to, actions);
    }
}
