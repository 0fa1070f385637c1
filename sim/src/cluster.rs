//! The serving system as a state machine: it is told what happened and when, and answers with what it wants done.
//!
//! [`Cluster::handle`] holds the one `match` on everything that can happen. It does no I/O, reads no clock and draws no
//! time: a driver (virtual or live) owns time, runs the steps and hands events in, ordered by [`Event::order`].

use crate::event::{Action, Event, Ran, WorkerId};
use crate::frontend::{Frontend, FrontendSpec, refusal};
use crate::load::{Load, LoadSpec};
use crate::record::{Outcome, Recording, Rejection, RequestRecord};
use crate::router::{Candidate, Fleet, Placement, Router, RouterSpec};
use crate::worker::{Books, Outputs, Worker, WorkerOptions};
use engine::{EngineConfig, RequestId, Time, Workload};
use std::sync::Arc;

/// A deployment and how it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSpec {
    /// Groups of equal workers.
    pub pools: Vec<PoolSpec>,
    /// Who gets which request.
    pub router: RouterSpec,
    /// How requests are sent.
    pub load: LoadSpec,
    /// What happens to a request before the router sees it.
    pub frontend: FrontendSpec,
    /// Seed of all random choices.
    pub seed: u64,
    /// Whether runs of equal decode steps are taken in one go. Changes no result.
    pub coasting: bool,
    /// Whether workers keep the ids of KV blocks, for executors.
    pub track_block_ids: bool,
}

/// A group of equal workers.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// Its name in reports.
    pub name: String,
    /// How many workers.
    pub workers: u32,
    /// GPUs of each.
    pub gpus_per_worker: u32,
    /// Engine of each and its settings.
    pub engine: EngineConfig,
}

/// The state of the serving system.
#[derive(Debug, Clone)]
pub struct Cluster {
    workload: Arc<Workload>,
    load: Load,
    frontend: Frontend,
    pools: Vec<PoolSpec>,
    router: Router,
    workers: Vec<Worker>,
    all_workers: Vec<WorkerId>,
    able_workers: Vec<WorkerId>,
    /// By worker: requests placed and not ended.
    active: Vec<u32>,
    recording: Recording,
    last_token: Vec<Time>,
    outputs: Outputs,
    /// Requests that have just got a worker.
    placed: Vec<Placement>,
    warmup_requests: u32,
}

impl Cluster {
    /// An idle deployment in front of the clients of `workload`.
    #[must_use]
    pub fn new(spec: &ClusterSpec, workload: Arc<Workload>) -> Self {
        assert!(
            spec.pools.iter().any(|pool| pool.workers > 0),
            "a deployment has a worker"
        );
        let workers: u32 = spec.pools.iter().map(|pool| pool.workers).sum();
        let each_worker = || {
            let pools = spec.pools.iter();
            pools.flat_map(|pool| std::iter::repeat_n(pool, pool.workers as usize))
        };
        let batched = |pool: &PoolSpec| u64::from(pool.engine.max_num_batched_tokens());
        let fleet = Fleet {
            block_size: spec.pools[0].engine.block_size(),
            max_num_batched_tokens: each_worker().map(batched).collect(),
            has_gpu: each_worker().map(|pool| pool.gpus_per_worker > 0).collect(),
        };
        let router = Router::new(spec.router, spec.seed, fleet);
        let options = WorkerOptions {
            // Events that travel need the time of their step.
            coasts: spec.coasting && !router.wants_each_step(),
            track_block_ids: spec.track_block_ids,
            track_kv_events: router.wants_kv_events(),
        };
        let mut cluster = Cluster {
            load: Load::new(spec.load, workload.clone()),
            frontend: Frontend::new(spec.frontend),
            pools: spec.pools.clone(),
            router,
            workers: Vec::with_capacity(workers as usize),
            all_workers: (0..workers).map(WorkerId).collect(),
            able_workers: Vec::new(),
            active: vec![0; workers as usize],
            recording: Recording::default(),
            last_token: vec![Time::MAX; workload.requests.len()],
            outputs: Outputs::default(),
            placed: Vec::new(),
            warmup_requests: spec.load.warmup_requests,
            workload,
        };
        for (pool, spec) in cluster.pools.iter().enumerate() {
            for _ in 0..spec.workers {
                let id = WorkerId(cluster.workers.len() as u32);
                let workload = cluster.workload.clone();
                let engine = spec.engine.clone();
                cluster.workers.push(Worker::new(
                    id,
                    pool as u32,
                    spec.gpus_per_worker,
                    engine,
                    workload,
                    options,
                ));
            }
        }
        cluster.recording.requests = cluster.blank_records();
        cluster
    }

    fn blank_records(&self) -> Vec<RequestRecord> {
        let blank = |(index, request): (usize, &engine::Request)| RequestRecord {
            arrival: Time::MAX,
            placed: Time::MAX,
            first_scheduled: Time::MAX,
            first_token: Time::MAX,
            finish: Time::MAX,
            worker: u32::MAX,
            input_tokens: request.input_tokens,
            output_tokens: 0,
            cached_tokens: 0,
            router_overlap_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Unfinished,
            is_warmup: self.load.is_warmup(RequestId(index as u32)),
        };
        self.workload
            .requests
            .iter()
            .enumerate()
            .map(blank)
            .collect()
    }

    /// The workers.
    #[must_use]
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Names of the pools.
    #[must_use]
    pub fn pools(&self) -> &[PoolSpec] {
        &self.pools
    }

    /// True if routing looks at what happened inside steps, so that a driver has to deliver them as they end.
    #[must_use]
    pub fn observes_steps(&self) -> bool {
        self.router.wants_kv_events()
    }

    /// Opens the doors.
    pub fn start(&mut self, actions: &mut Vec<Action>) {
        self.load.start(actions);
    }

    /// Takes note of an event and appends what is to be done about it.
    pub fn handle(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Ran(ran) => self.ran(now, &ran, actions),
            Event::Arrival { request } => self.arrive(now, request, actions),
            Event::Received { request } => self.place(now, request, actions),
            Event::Plan { worker } => self.plan(now, worker, actions),
        }
    }

    /// A worker looks for something to do.
    fn plan(&mut self, now: Time, id: WorkerId, actions: &mut Vec<Action>) {
        let worker = &mut self.workers[id.0 as usize];
        worker.is_woken = false;
        if worker.plan(&mut self.recording.requests, actions) {
            self.wake(now, id, actions);
        }
    }

    /// A client sends a request: refuse it, or let the front end have it.
    fn arrive(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        let index = id.0 as usize;
        if self.recording.requests[index].outcome != Outcome::Unfinished {
            // Refused together with a request it waited for.
            return;
        }
        self.recording.requests[index].arrival = now;
        self.load.sent(now, id, actions);
        if let Some(reason) = self.find_able_workers(id) {
            self.refuse(now, id, reason, actions);
            return;
        }
        let input_tokens = self.workload.requests[index].input_tokens;
        match self.frontend.receive(now, input_tokens) {
            time if time == now => self.place(now, id, actions),
            time => actions.push(Action::At {
                time,
                event: Event::Received { request: id },
            }),
        }
    }

    /// The router gives a request that some worker can hold to one.
    fn place(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        let refusal = self.find_able_workers(id);
        assert!(refusal.is_none(), "the front end refused it");
        let workers = if self.able_workers.is_empty() {
            &self.all_workers
        } else {
            &self.able_workers
        };
        let candidate = Candidate {
            request: id,
            workload: &self.workload,
            workers,
            active: &self.active,
        };
        self.router.place(now, &candidate, &mut self.placed);
        self.submit_placed(now, actions);
    }

    /// Hands requests that got a worker to its scheduler.
    fn submit_placed(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut placed = std::mem::take(&mut self.placed);
        for placement in placed.drain(..) {
            let record = &mut self.recording.requests[placement.request.0 as usize];
            record.placed = now;
            record.worker = placement.worker.0;
            record.router_overlap_tokens = placement.overlap_tokens;
            self.active[placement.worker.0 as usize] += 1;
            let worker = &mut self.workers[placement.worker.0 as usize];
            worker.record.requests += 1;
            worker.scheduler.submit(placement.request, now);
            if worker.scheduler.is_idle() {
                self.wake(now, placement.worker, actions);
            } else if !worker.is_cut {
                worker.is_cut = true;
                actions.push(Action::Cut {
                    worker: placement.worker,
                });
            }
        }
        self.placed = placed;
    }

    /// Fills `able_workers` with those that can hold the request (left empty if all can), or says why none can.
    fn find_able_workers(&mut self, id: RequestId) -> Option<Rejection> {
        self.able_workers.clear();
        let request = &self.workload.requests[id.0 as usize];
        let refusals = |pool: &PoolSpec| refusal(request, &pool.engine);
        let mut reasons = self.pools.iter().map(refusals);
        if reasons.all(|reason| reason.is_none()) {
            return None;
        }
        let mut reason = None;
        let mut first = 0;
        for pool in &self.pools {
            match refusals(pool) {
                None => self
                    .able_workers
                    .extend((first..first + pool.workers).map(WorkerId)),
                // Of several reasons the last in their order is that of the pool that came closest.
                Some(refused) => reason = reason.max(Some(refused)),
            }
            first += pool.workers;
        }
        if self.able_workers.is_empty() {
            reason
        } else {
            None
        }
    }

    /// Refuses a request, and with it all that wait for it.
    fn refuse(&mut self, now: Time, id: RequestId, reason: Rejection, actions: &mut Vec<Action>) {
        let record = &mut self.recording.requests[id.0 as usize];
        record.arrival = record.arrival.min(now);
        record.finish = now;
        record.outcome = Outcome::Rejected(reason);
        let dependents: Vec<RequestId> = self.load.waiting_for(id).collect();
        for dependent in dependents {
            if self.recording.requests[dependent.0 as usize].outcome == Outcome::Unfinished {
                self.refuse(now, dependent, Rejection::DependencyRejected, actions);
            }
        }
        self.load.ended(now, id, actions);
    }

    /// Steps of a worker ended.
    fn ran(&mut self, now: Time, ran: &Ran, actions: &mut Vec<Action>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let mut books = Books {
            records: &mut self.recording.requests,
            last_token: &mut self.last_token,
            gaps: &mut self.recording.gaps,
            warmup_requests: self.warmup_requests,
        };
        self.workers[ran.worker.0 as usize].ran(ran, &mut books, &mut outputs);
        for request in outputs.started.drain(..) {
            self.router
                .prefill_done(now, request, &self.workload, &mut self.placed);
        }
        self.router
            .observe(now, ran.worker, &outputs.events, &self.workload);
        outputs.events.clear();
        for request in outputs.ended.drain(..) {
            let pool = self.workers[ran.worker.0 as usize].pool();
            let engine = &self.pools[pool].engine;
            let asked = self.workload.requests[request.0 as usize];
            let record = &mut self.recording.requests[request.0 as usize];
            record.output_tokens = engine.output_goal(asked.input_tokens, asked.output_tokens);
            record.finish = ran.end();
            record.outcome = Outcome::Completed;
            self.active[ran.worker.0 as usize] -= 1;
            self.router
                .ended(now, request, &self.workload, &mut self.placed);
            self.load.ended(now, request, actions);
        }
        self.outputs = outputs;
        self.wake(now, ran.worker, actions);
        self.submit_placed(now, actions);
    }

    fn wake(&mut self, now: Time, worker: WorkerId, actions: &mut Vec<Action>) {
        let is_woken = &mut self.workers[worker.0 as usize].is_woken;
        if !std::mem::replace(is_woken, true) {
            actions.push(Action::At {
                time: now,
                event: Event::Plan { worker },
            });
        }
    }

    /// Closes the books.
    #[must_use]
    pub fn finish(mut self) -> Recording {
        self.recording.workers = self.workers.iter().map(|worker| worker.record).collect();
        self.recording
    }
}
