//! What the cluster does with the tiers below the GPUs' caches: each function is one moment in the life of their blocks.

use super::{Cluster, ClusterSpec};
use crate::event::{Action, WorkerId};
use crate::host::{HostSpec, Hosts};
use crate::kvbm::KvbmSpec;
use engine::{Ephemeral, HostPool, KvEvent, RequestId, Reserved, Span, StepPlan, Time, Workload};
use std::sync::Arc;

impl Cluster {
    /// An idle deployment of workers with tiers below their GPUs' caches, or host memory that their engines use themselves:
    /// by pool, what each of its workers has. Pools with host memory run SGLang or TensorRT-LLM without drafts.
    #[must_use]
    pub fn with_tiers(
        asked: &ClusterSpec,
        kvbm: &[Option<KvbmSpec>],
        hosts: &[Option<HostSpec>],
        workload: Arc<Workload>,
    ) -> Self {
        assert!(
            (hosts.iter().zip(&asked.pools))
                .all(|(host, pool)| host.is_none() || pool.engine.speculation().is_none()),
            "drafts have no host memory below"
        );
        let mut cluster = Cluster::with_kvbm(asked, kvbm, workload);
        cluster.hosts = Hosts::new(&asked.pools, hosts).map(Box::new);
        for worker in &mut cluster.workers {
            if let Some(spec) = &hosts[worker.pool()] {
                worker.scheduler.attach_host_pool(HostPool {
                    has_storage: spec.storage.is_some(),
                    ..spec.pool
                });
            }
        }
        cluster
    }

    /// How long a step of a worker takes with the copies that it waits for, `computing` being its time without.
    #[must_use]
    pub fn with_copies(&self, worker: WorkerId, plan: &StepPlan, computing: Span) -> Span {
        let pool = self.workers[worker.0 as usize].pool();
        let hosts = self.hosts.as_ref();
        let spec = hosts.and_then(|hosts| hosts.of_pool(pool));
        spec.map_or(computing, |spec| spec.step_time(computing, plan.copies))
    }

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
        let Some(kvbm) = self.kvbm.as_mut().filter(|kvbm| kvbm.reads(worker)) else {
            return;
        };
        for reserved in reserved.drain(..) {
            kvbm.fetch(now, worker, &reserved, &self.workload);
        }
        self.ask_for_links(actions);
    }

    /// Whether what slower tiers have of a request is sent for while it waits at this worker.
    pub(super) fn prefetches(&self, worker: WorkerId) -> bool {
        let pool = self.workers[worker.0 as usize].pool();
        let hosts = self.hosts.as_ref();
        let kvbm = self.kvbm.as_ref();
        hosts.is_some_and(|hosts| hosts.prefetches(pool))
            || kvbm.is_some_and(|kvbm| kvbm.prefetches(worker))
    }

    /// A worker is about to plan: it sees the requests that have come, and what slower tiers have of them is sent for. Not when
    /// they come: what its cache holds between the ends of steps is not settled while it coasts.
    pub(super) fn prefetch_newcomers(
        &mut self,
        now: Time,
        id: WorkerId,
        actions: &mut Vec<Action>,
    ) {
        if self.hosts.is_none() && self.kvbm.is_none() {
            return;
        }
        let worker = &mut self.workers[id.0 as usize];
        let plans = worker.scheduler.steps_in_flight() < worker.scheduler.depth();
        if plans && !self.newcomers.is_empty() {
            let mut newcomers = std::mem::take(&mut self.newcomers);
            newcomers.retain(|&(place, request)| {
                if place != id {
                    return true;
                }
                if let Some(hosts) = &mut self.hosts {
                    hosts.submitted(now, worker, request, &self.workload, actions);
                }
                if let Some(kvbm) = &mut self.kvbm {
                    kvbm.prefetch(now, id, request, &mut worker.scheduler, &self.workload);
                    kvbm.ask(actions);
                }
                false
            });
            self.newcomers = newcomers;
        }
        if let Some(hosts) = &mut self.hosts {
            hosts.before_plan(now, worker);
        }
    }

    /// Which blocks of a request are not worth a place below.
    fn ephemeral(&self, request: RequestId) -> Option<Ephemeral> {
        self.workload.annotations_of(request)?.ephemeral_blocks
    }

    /// A worker has computed a prompt.
    pub(super) fn prompt_computed(&mut self, now: Time, worker: WorkerId, request: RequestId) {
        if self.ephemeral(request) == Some(Ephemeral::Request) {
            return;
        }
        let Some(kvbm) = self.kvbm.as_mut().filter(|kvbm| kvbm.serves(worker)) else {
            return;
        };
        let record = &self.recording.requests[request.0 as usize];
        let had = record.cached_tokens + kvbm.fetched_tokens(request);
        let computed = (had, record.input_tokens);
        kvbm.computed(now, worker, request, computed, &self.workload);
        kvbm.pin(now, worker, request, &self.workload);
    }

    /// A worker has generated an answer.
    pub(super) fn answer_computed(&mut self, now: Time, worker: WorkerId, request: RequestId) {
        if self.ephemeral(request).is_some() {
            return;
        }
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

    /// A worker has planned, or taken the results of steps, with host memory below.
    pub(super) fn mind_host(&mut self, now: Time, worker: WorkerId, actions: &mut Vec<Action>) {
        if let Some(hosts) = &mut self.hosts {
            hosts.after(now, &mut self.workers[worker.0 as usize], actions);
        }
    }

    /// Something may have happened on the links to a storage.
    fn move_storage(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(hosts) = &mut self.hosts else {
            return;
        };
        let mut to_wake = Vec::new();
        hosts.advance(now, &mut to_wake);
        for worker in to_wake {
            // Who is busy looks at his queue at each step.
            if self.workers[worker.0 as usize].scheduler.is_idle() {
                self.wake(now, worker, actions);
            }
        }
    }

    /// Something may have happened on the links to the tiers.
    pub(super) fn move_tiers(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.move_storage(now, actions);
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
