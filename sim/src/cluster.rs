//! The serving system as a state machine: it is told what happened and when, and answers with what it wants done.
//!
//! [`Cluster::handle`] holds the one `match` on everything that can happen. It does no I/O, reads no clock and draws no
//! time: a driver (virtual or live) owns time, runs the steps and hands events in, ordered by [`Event::order`].

mod clients;
mod faults;
mod handoff;
mod lifecycle;
mod link_faults;
mod lockstep;
mod scaling;
mod severed;
mod taken;
mod tiers;
mod weights;
mod what_if;

use crate::adversity::Adversity;
use crate::disaggregation::DisaggregationSpec;
use crate::event::{Action, Event, Ran, WorkerId};
use crate::frontend::{Frontend, FrontendSpec};
use crate::group::{Group, GroupSpec};
use crate::host::{Below, Hosts};
use crate::kvbm::{Kvbm, KvbmSpec};
use crate::load::{Load, LoadSpec};
use crate::record::{AheadRecord, Outcome, Recording, Rejection, RequestRecord};
use crate::router::{Placement, RouterSpec};
use crate::scaling::Scaling;
use crate::worker::{Books, Outputs, Worker, WorkerOptions};
use engine::{
    EngineConfig, Part, RequestId, Reserved, Scheduler, StepPlan, StepTime, Time, Workload,
};
use handoff::Disaggregated;
use std::sync::Arc;

/// A deployment and how it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSpec {
    /// Groups of equal workers.
    pub pools: Vec<PoolSpec>,
    /// Which pools prefill for which to decode; `None` where each worker does both.
    pub disaggregation: Option<DisaggregationSpec>,
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

impl PoolSpec {
    /// Schedulers of all its workers: each rank has one, and is a worker of its own to the router and in the books.
    #[must_use]
    pub fn schedulers(&self) -> u32 {
        self.workers * self.engine.ranks()
    }
}

/// The state of the serving system.
#[derive(Debug, Clone)]
pub struct Cluster {
    workload: Arc<Workload>,
    load: Load,
    frontend: Frontend,
    pools: Vec<PoolSpec>,
    /// Workers that requests come to first: all, or those that prefill.
    entry: Group,
    disaggregated: Option<Box<Disaggregated>>,
    kvbm: Option<Box<Kvbm>>,
    hosts: Option<Box<Hosts>>,
    adversity: Option<Box<Adversity>>,
    scaling: Option<Box<Scaling>>,
    workers: Vec<Worker>,
    recording: Recording,
    last_token: Vec<Time>,
    outputs: Outputs,
    /// Blocks reserved by the plan just made.
    reserved: Vec<Reserved>,
    /// Requests whose KV has come up from the tiers.
    arrived: Vec<(WorkerId, RequestId)>,
    /// Requests that came to workers with tiers and that these have not seen.
    newcomers: Vec<(WorkerId, RequestId)>,
    seed: u64,
    warmup_requests: u32,
    /// Requests of clients; beyond them are further attempts.
    clients: u32,
}

impl Cluster {
    /// An idle deployment in front of the clients of `workload`.
    #[must_use]
    pub fn new(asked: &ClusterSpec, workload: Arc<Workload>) -> Self {
        Cluster::with_kvbm(asked, &vec![None; asked.pools.len()], workload)
    }

    /// The same with tiers below the GPUs' caches: by pool, what each of its workers has. Pools with tiers run vLLM; those
    /// that decode for others have an object store alone. Object stores, if any, are one and the same.
    #[must_use]
    pub fn with_kvbm(
        asked: &ClusterSpec,
        kvbm: &[Option<KvbmSpec>],
        workload: Arc<Workload>,
    ) -> Self {
        let load = Load::new(asked.load, workload.clone());
        Cluster::with_load(asked, kvbm, load, workload)
    }

    /// The same with clients who may know of fewer requests than there are attempts in the workload.
    fn with_load(
        asked: &ClusterSpec,
        kvbm: &[Option<KvbmSpec>],
        load: Load,
        workload: Arc<Workload>,
    ) -> Self {
        assert!(
            asked.pools.len() == kvbm.len(),
            "every pool has tiers or none"
        );
        assert!(
            (asked.pools.iter().zip(kvbm))
                .all(|(pool, kvbm)| kvbm.is_none() || pool.engine.does_parts()),
            "stages, ranks and drafts have no tiers"
        );
        assert!(
            asked.pools.iter().any(|pool| pool.workers > 0),
            "a deployment has a worker"
        );
        let workers: u32 = asked.pools.iter().map(PoolSpec::schedulers).sum();
        assert!(
            asked.disaggregation.is_none()
                || asked.pools.iter().all(|pool| pool.engine.hands_over()),
            "ranks and drafts go with workers that do whole requests"
        );
        let (entry, disaggregated) = match &asked.disaggregation {
            None => (Group::new(whole(asked), &asked.pools, |_| true), None),
            Some(disaggregation) => {
                let (entry, parts) = Disaggregated::new(asked, disaggregation, &workload);
                (entry, Some(Box::new(parts)))
            }
        };
        let roles = asked.disaggregation.as_ref().map(|it| &it.roles[..]);
        let mut cluster = Cluster {
            load,
            frontend: Frontend::new(asked.frontend),
            pools: asked.pools.clone(),
            entry,
            disaggregated,
            kvbm: Kvbm::new(&asked.pools, kvbm, roles).map(Box::new),
            hosts: None,
            adversity: None,
            scaling: None,
            workers: Vec::with_capacity(workers as usize),
            recording: Recording::default(),
            last_token: vec![Time::MAX; workload.requests.len()],
            outputs: Outputs::default(),
            reserved: Vec::new(),
            arrived: Vec::new(),
            newcomers: Vec::new(),
            seed: asked.seed,
            warmup_requests: asked.load.warmup_requests,
            clients: workload.requests.len().max(1) as u32,
            workload,
        };
        for (pool, spec) in asked.pools.iter().enumerate() {
            for _ in 0..spec.schedulers() {
                let id = WorkerId(cluster.workers.len() as u32);
                let workload = cluster.workload.clone();
                let engine = spec.engine.clone();
                let options = cluster.options_of(id, asked);
                cluster.workers.push(Worker::new(
                    id,
                    pool as u32,
                    spec.gpus_per_worker / spec.engine.ranks(),
                    engine,
                    workload,
                    options,
                ));
            }
        }
        cluster.recording.requests = cluster.blank_records();
        cluster
    }

    /// Its workers have labels: by pool, in order. Without this none has any.
    #[must_use]
    pub fn tainted(mut self, taints: &[Vec<String>]) -> Self {
        assert!(taints.len() == self.pools.len(), "every pool has labels");
        self.entry.taint(taints);
        if let Some(parts) = &mut self.disaggregated {
            parts.decode.taint(taints);
        }
        self
    }

    /// Its routers know how long steps take, by pool, for load models that ask. Without this none may.
    #[must_use]
    pub fn timed(mut self, timing: &[Arc<dyn StepTime>]) -> Self {
        assert!(timing.len() == self.pools.len(), "every pool has its times");
        if self.entry.wants_prefill_times() {
            self.entry.time_prefills(&self.pools, timing);
        }
        self
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
            is_warmup: {
                let request = RequestId(index as u32);
                let ahead = self.workload.ahead_of(request);
                self.load.is_warmup(ahead.map_or(request, |ahead| ahead.of))
            },
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

    /// The group that a worker belongs to.
    fn group_of(&mut self, worker: WorkerId) -> &mut Group {
        group_among(&mut self.disaggregated, &mut self.entry, worker)
    }

    fn options_of(&mut self, worker: WorkerId, spec: &ClusterSpec) -> WorkerOptions {
        let is_prefill = spec.disaggregation.is_some();
        let leader = self.leader_of_next(spec);
        let spills = self.tiers_want_evicted(worker);
        let group = self.group_of(worker);
        WorkerOptions {
            leader,
            // Events that travel need the time of their step, and so do blocks that are copied when they are evicted.
            // So does a router that counts the blocks of answers.
            coasts: spec.coasting && !group.wants_each_step() && !spills && !group.wants_progress(),
            reports_progress: group.wants_progress(),
            track_block_ids: spec.track_block_ids,
            track_kv_events: group.wants_kv_events() || spills,
            only_prefills: is_prefill && !self.is_decode_worker(worker),
        }
    }

    /// The workers of which routing looks at what happens inside steps, so that a driver has to deliver them as they end.
    #[must_use]
    pub fn observed_workers(&self) -> Vec<WorkerId> {
        let decode = self.disaggregated.as_ref().map(|parts| &parts.decode);
        let groups = std::iter::once(&self.entry).chain(decode);
        groups
            .filter(|group| group.wants_kv_events())
            .flat_map(|group| group.workers().iter().copied())
            .collect()
    }

    /// Opens the doors.
    pub fn start(&mut self, actions: &mut Vec<Action>) {
        assert!(
            !self.entry.wants_prefill_times(),
            "a router with a load model knows how long steps take"
        );
        self.load.start(actions);
        self.start_faults(actions);
        self.start_planner(actions);
        self.start_update(actions);
    }

    /// Takes note of an event and appends what is to be done about it.
    pub fn handle(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Ran(ran) if self.steps_together(ran.worker) => {
                self.ran_together(now, &ran, actions)
            }
            Event::Ran(ran) => self.ran(now, &ran, actions),
            Event::Worker { worker } => self.worker_starts(now, worker, actions),
            Event::Arrival { request } => self.arrive(now, request, actions),
            Event::Fault { end } => self.fault(now, end, actions),
            Event::Patience { request } => self.lose_patience(now, request, actions),
            Event::Received { request } => self.place(now, request, actions),
            Event::Links => self.move_kv(now, actions),
            Event::Began { worker, lasts } => self.step_begins(now, worker, lasts, actions),
            Event::Plan { worker } if self.steps_together(worker) => {
                self.plan_together(now, worker, actions)
            }
            Event::Plan { worker } => self.plan(now, worker, actions),
            Event::Tick => return self.tick(now, actions),
            Event::Update => self.begin_update(now, actions),
        }
        if self.scaling.is_some() {
            self.after_event(now, actions);
        }
    }

    /// A worker looks for something to do.
    fn plan(&mut self, now: Time, id: WorkerId, actions: &mut Vec<Action>) {
        let worker = &mut self.workers[id.0 as usize];
        worker.is_woken = false;
        self.prefetch_newcomers(now, id, actions);
        let worker = &mut self.workers[id.0 as usize];
        let mut reserved = std::mem::take(&mut self.reserved);
        let tiers = self.kvbm.as_ref().and_then(|kvbm| kvbm.view(id));
        let records = &mut self.recording.requests;
        let adversity = self.adversity.as_deref();
        let adversity = adversity.filter(|_| !worker.only_prefills());
        let limit = |plan: &StepPlan, scheduler: &Scheduler| {
            adversity.and_then(|it| it.steps_until_cancel(plan, scheduler))
        };
        let may_plan_more = worker.plan(now, records, actions, &mut reserved, tiers, limit);
        let begun = worker.take_begun();
        if may_plan_more {
            self.wake(now, id, actions);
        }
        self.mind_host(now, id, actions);
        self.note_begun(now, id, &begun, actions);
        self.fetch_reserved(now, id, &mut reserved, actions);
        self.note_reserved(now, &mut reserved, actions);
        self.reserved = reserved;
    }

    /// A client sends a request: refuse it, or let the front end have it.
    fn arrive(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        let index = id.0 as usize;
        let is_first = self.is_first_attempt(id);
        if is_first {
            self.load.arrived();
        }
        if self.is_over(id) {
            // Refused together with a request it waited for, or not wanted any more.
            return;
        }
        let arrival = &mut self.recording.requests[index].arrival;
        *arrival = now.min(*arrival);
        if is_first {
            self.load.sent(now, id, actions);
        }
        self.begin_patience(now, id, actions);
        if let Some(reason) = self.find_able_workers(id).or_else(|| self.sheds(id)) {
            self.refuse(now, id, reason, actions);
            return;
        }
        self.watch_arrival(id);
        let input_tokens = self.workload.requests[index].input_tokens;
        match self.frontend.receive(now, input_tokens) {
            time if time == now => self.place(now, id, actions),
            time => actions.push(Action::At {
                time,
                event: Event::Received { request: id },
            }),
        }
    }

    /// A router gives a request that some worker can hold to one.
    fn place(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        if self.is_over(id) {
            // Its client left.
            return;
        }
        if self.adversity.is_some() && !self.enters_router(now, id, actions) {
            return;
        }
        self.choose_first_worker(now, id);
        self.submit_placed(now, actions);
    }

    /// A request that some worker can hold comes to the router that is asked first.
    fn choose_first_worker(&mut self, now: Time, id: RequestId) {
        let lacks_entry = self.lacks_prefill_workers(id, None);
        match &mut self.disaggregated {
            Some(parts) if lacks_entry || parts.chooses_decode_first() => {
                (parts.decode).place(now, id, &self.workload, &self.pools, None);
            }
            _ => self.choose_worker(now, id),
        }
    }

    /// The router in front takes a request that some worker can hold.
    fn choose_worker(&mut self, now: Time, id: RequestId) {
        let tiers = Below::of(self.kvbm.as_deref(), self.hosts.as_deref(), &self.workers);
        (self.entry).place(now, id, &self.workload, &self.pools, tiers);
    }

    /// Hands requests that got a worker to its scheduler.
    fn submit_placed(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.disaggregated.is_some() {
            return self.submit_parts(now, actions);
        }
        while let Some(placement) = self.entry.next_placed() {
            if self.adversity.is_some() && !self.may_be_placed(now, &placement, actions) {
                continue;
            }
            self.note_placed(now, &placement);
            let Placement {
                request,
                worker,
                overlap_tokens,
            } = placement;
            self.note_prefill(request, worker, overlap_tokens);
            self.submit(now, request, worker, Part::Whole, actions);
        }
    }

    fn note_placed(&mut self, now: Time, placement: &Placement) {
        let record = &mut self.recording.requests[placement.request.0 as usize];
        record.placed = record.placed.min(now);
        record.worker = placement.worker.0;
        record.router_overlap_tokens = placement.overlap_tokens;
        self.workers[placement.worker.0 as usize].record.requests += 1;
        self.watch_placed(placement.request, placement.worker);
    }

    fn submit(
        &mut self,
        now: Time,
        request: RequestId,
        worker: WorkerId,
        part: Part,
        actions: &mut Vec<Action>,
    ) {
        self.watch_submission(request, worker, part);
        let scheduler = &mut self.workers[worker.0 as usize].scheduler;
        match &self.adversity {
            Some(adversity) => {
                let generated = adversity.attempts.generated(request);
                scheduler.submit_from(request, now, part, generated);
            }
            None => scheduler.submit_part(request, now, part),
        }
        if self.prefetches(worker) {
            self.newcomers.push((worker, request));
        }
        self.notify(now, worker, actions);
    }

    /// A worker has more to think about: it plans at once if it is idle, at its next step boundary if not.
    fn notify(&mut self, now: Time, id: WorkerId, actions: &mut Vec<Action>) {
        let id = self.leader_of(id);
        let is_idle = self
            .ranks_of(id)
            .iter()
            .all(|rank| rank.scheduler.is_idle());
        let worker = &mut self.workers[id.0 as usize];
        if is_idle {
            self.wake(now, id, actions);
        } else if worker.cut_at.is_none() {
            worker.cut_at = Some(now);
            actions.push(Action::Cut { worker: id });
        }
    }

    /// Why no worker can serve the request, if none can.
    fn find_able_workers(&mut self, id: RequestId) -> Option<Rejection> {
        let decode = self.disaggregated.as_mut();
        let decode =
            decode.and_then(|parts| parts.decode.find_able(id, &self.workload, &self.pools));
        if decode.is_none() && self.lacks_prefill_workers(id, None) {
            return None;
        }
        decode.or_else(|| self.entry.find_able(id, &self.workload, &self.pools))
    }

    /// Refuses a request, and with it all that wait for it.
    fn refuse(&mut self, now: Time, id: RequestId, reason: Rejection, actions: &mut Vec<Action>) {
        if self.adversity.is_some() && self.recording.requests[id.0 as usize].was_sent() {
            return self.turn_away(now, id, reason, actions);
        }
        let record = &mut self.recording.requests[id.0 as usize];
        record.arrival = record.arrival.min(now);
        record.finish = now;
        record.outcome = Outcome::Rejected(reason);
        self.refuse_dependents(now, id, actions);
        self.load.ended(now, id, actions);
    }

    /// Refuses all that wait for a request which will have no answer, and were not sent when it was.
    fn refuse_dependents(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        let dependents: Vec<RequestId> = self.load.waiting_for(id).collect();
        for dependent in dependents {
            let record = &self.recording.requests[dependent.0 as usize];
            if !self.is_over(dependent) && !record.was_sent() {
                self.refuse(now, dependent, Rejection::DependencyRejected, actions);
            }
        }
    }

    /// Steps of a worker ended.
    fn ran(&mut self, now: Time, ran: &Ran, actions: &mut Vec<Action>) {
        self.watch_pass(ran);
        let mut outputs = std::mem::take(&mut self.outputs);
        let mut books = Books {
            records: &mut self.recording.requests,
            last_token: &mut self.last_token,
            gaps: &mut self.recording.gaps,
            warmup_requests: self.warmup_requests,
            clients: self.clients,
        };
        let satisfied = match &mut self.adversity {
            Some(adversity) => {
                adversity.fruitless_faults = 0;
                let worker = &self.workers[ran.worker.0 as usize];
                match worker.only_prefills() {
                    true => Vec::new(),
                    false => adversity.satisfied(&worker.scheduler, ran.steps),
                }
            }
            None => Vec::new(),
        };
        if let Some(hosts) = &mut self.hosts {
            hosts.note_ran(&self.workers[ran.worker.0 as usize], ran);
        }
        self.workers[ran.worker.0 as usize].ran(ran, &mut books, &mut outputs);
        for &request in &outputs.started {
            self.note_first_token(ran.end(), request);
            self.prompt_computed(now, ran.worker, request);
            self.watch_first_token(request);
        }
        self.evicted(now, ran.worker, &outputs.events);
        let workload = &self.workload;
        let group = group_among(&mut self.disaggregated, &mut self.entry, ran.worker);
        for &request in &outputs.started {
            group.prefill_done(now, request, workload);
        }
        for &(request, tokens) in &outputs.progress {
            let generated = tokens - workload.requests[request.0 as usize].input_tokens;
            group.progressed(now, request, generated, workload);
        }
        group.observe(now, ran.worker, &outputs.events, workload);
        for &(request, computed) in &outputs.computed {
            self.note_computed(now, request, computed);
        }
        for &request in &outputs.ended {
            if self.workers[ran.worker.0 as usize].only_prefills() {
                if self.is_over(request) {
                    // Nobody will read it.
                    self.workers[ran.worker.0 as usize]
                        .scheduler
                        .release(request);
                    continue;
                }
                self.prompt_computed(now, ran.worker, request);
                self.prefilled(now, request, actions);
            } else {
                self.complete(now, ran.worker, ran.end(), request, actions);
            }
        }
        outputs.clear();
        self.outputs = outputs;
        self.mind_host(now, ran.worker, actions);
        self.dismiss(now, satisfied, actions);
        self.wake(now, ran.worker, actions);
        self.submit_placed(now, actions);
        self.ask_for_links(actions);
    }

    /// The last token of a request arrived.
    fn complete(
        &mut self,
        now: Time,
        worker: WorkerId,
        end: Time,
        request: RequestId,
        actions: &mut Vec<Action>,
    ) {
        let engine = &self.pools[self.workers[worker.0 as usize].pool()].engine;
        let asked = self.workload.requests[request.0 as usize];
        let record = &mut self.recording.requests[request.0 as usize];
        if record.outcome != Outcome::Unfinished {
            // Its client left while the last step ran.
            return;
        }
        record.output_tokens = engine.output_goal(asked.input_tokens, asked.output_tokens);
        record.finish = end;
        record.outcome = Outcome::Completed;
        self.answer_computed(now, worker, request);
        self.watch_completion(request);
        let group = group_among(&mut self.disaggregated, &mut self.entry, worker);
        group.ended(now, worker, request, &self.workload);
        let request = self.fold(request);
        self.load.ended(now, request, actions);
    }

    fn wake(&mut self, now: Time, worker: WorkerId, actions: &mut Vec<Action>) {
        let worker = self.leader_of(worker);
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
        let is_over = |(_, record): (usize, &RequestRecord)| record.outcome != Outcome::Unfinished;
        let holds = |worker: &Worker| worker.scheduler.held_blocks() > 0;
        assert!(
            !self.recording.sent().all(is_over) || !self.workers.iter().any(holds),
            "when all requests are over, all blocks are free"
        );
        self.recording.workers = self.workers.iter().map(Worker::closed_record).collect();
        if let Some(parts) = &self.disaggregated {
            self.recording.transfers = parts.handoffs.records();
            self.recording.links = parts.handoffs.links();
        }
        let streams = self.scaling.as_ref().and_then(|it| it.streams.as_ref());
        if let Some(streams) = streams {
            self.recording.links.extend(streams.links());
        }
        self.recording.scaling = self.scaling.take().map(|scaling| scaling.close());
        self.recording.kvbm = self.kvbm.as_mut().map(|kvbm| kvbm.finish());
        if let Some(hosts) = &mut self.hosts {
            let books = self.recording.kvbm.get_or_insert_default();
            hosts.finish(&self.workers, books);
        }
        self.close_attempts();
        self.close_replacements();
        if !self.workload.ahead.is_empty() {
            self.close_ahead();
        }
        self.recording
    }

    /// Takes what the front end sent itself out of the books of clients.
    fn close_ahead(&mut self) {
        let clients = self.workload.of_clients();
        let own = self.recording.requests.split_off(clients);
        let record = |(life, ahead): (RequestRecord, &engine::Ahead)| AheadRecord {
            life,
            of: ahead.of,
            next: ahead.next,
        };
        self.recording.ahead = own
            .into_iter()
            .zip(&self.workload.ahead)
            .map(record)
            .collect();
    }
}

/// The group that a worker belongs to.
#[inline]
fn group_among<'a>(
    parts: &'a mut Option<Box<Disaggregated>>,
    entry: &'a mut Group,
    worker: WorkerId,
) -> &'a mut Group {
    match parts {
        Some(parts) if parts.is_decode_worker(worker) => &mut parts.decode,
        _ => entry,
    }
}

/// The group of a deployment whose workers do everything.
fn whole(spec: &ClusterSpec) -> GroupSpec {
    GroupSpec {
        router: spec.router.clone(),
        part: Part::Whole,
        listens: true,
        seed: spec.seed,
    }
}
