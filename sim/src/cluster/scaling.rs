//! What the cluster does with a planner: each function is one moment in the life of a worker.

use super::Cluster;
use crate::adversity::Adversity;
use crate::adversity::faults::{Fault, FaultKind, worker_of};
use crate::event::{Action, Event, Ran, WorkerId};
use crate::router::RouterSpec;
use crate::scaling::fleet::Dismissed;
use crate::scaling::lifecycle::State;
use crate::scaling::watch::{LastPass, Waiting};
use crate::scaling::{Scaling, ScalingSpec};
use crate::worker::Worker;
use engine::{Part, RequestId, Scheduler, Span, Time};
use planner::Role;

const SCALES: &str = "only deployments with a planner scale";

impl Cluster {
    /// The same deployment with a planner. The workers of each pool are places, of which the first are taken. Workers serve by
    /// themselves (no ranks that step together, no tiers), and routers do not look ahead.
    #[must_use]
    pub fn scaled(mut self, spec: ScalingSpec, router: &RouterSpec) -> Self {
        assert!(
            self.kvbm.is_none() && !matches!(router, RouterSpec::Clairvoyant | RouterSpec::Direct),
            "tiers, oracles and requests that name their worker do not scale"
        );
        assert!(
            self.pools
                .iter()
                .all(|pool| pool.engine.ranks() == 1 && pool.engine.speculation().is_none()),
            "ranks and drafts do not scale"
        );
        let pools: Vec<(u32, u32)> = (self.pools.iter())
            .map(|pool| (pool.workers, pool.gpus_per_worker))
            .collect();
        let knows_hits = matches!(router, RouterSpec::Kv(_));
        let streams = self.streams(&spec);
        let mut scaling = Scaling::new(spec, &pools, knows_hits);
        scaling.streams = streams;
        self.entry.forget_names();
        if let Some(parts) = &mut self.disaggregated {
            parts.decode.forget_names();
        }
        for place in 0..self.workers.len() as u32 {
            let worker = WorkerId(place);
            self.workers[place as usize].waiting = Some(Box::default());
            if scaling.fleet.state(worker) != State::Ready {
                self.group_of(worker).leave(worker);
            }
        }
        self.scaling = Some(Box::new(scaling));
        self
    }

    pub(super) fn scales(&mut self) -> &mut Scaling {
        self.scaling.as_mut().expect(SCALES)
    }

    /// Asks for the planner's first tick.
    pub(super) fn start_planner(&mut self, actions: &mut Vec<Action>) {
        if let Some(scaling) = &mut self.scaling {
            let first = scaling.planner.first_tick();
            scaling.ask_planner(first, actions);
        }
    }

    /// Asks for the beginning of an update.
    pub(super) fn start_update(&self, actions: &mut Vec<Action>) {
        let scaling = self.scaling.as_ref();
        if let Some(update) = scaling.and_then(|scaling| scaling.update) {
            let (time, event) = (update.at, Event::Update);
            actions.push(Action::At { time, event });
        }
    }

    /// The planner looks and decides.
    pub(super) fn tick(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.scales().next_tick != Some(now) {
            // A planner asked that has been restarted since.
            return;
        }
        let decode = self.disaggregated.as_ref().map(|parts| &parts.decode);
        let in_front = self.entry.waiting() + decode.map_or(0, |decode| decode.waiting());
        let workers = &self.workers;
        let waits = |id: WorkerId| {
            let worker = &workers[id.0 as usize];
            let waiting = worker.waiting.as_ref().expect(SCALES);
            (waiting.work(), worker.scheduler.is_idle())
        };
        let scaling = self.scaling.as_mut().expect(SCALES);
        let seen = scaling.observe(now, in_front, waits);
        let own_time = Time::ZERO + now.since(scaling.began);
        let decision = scaling.planner.tick(own_time, &seen);
        let before = scaling.counts();
        scaling.record.note(now, &decision, before);
        let pools = scaling.pool_of;
        let targets = Role::BOTH.map(|role| (*pools.get(role), *decision.targets.get(role)));
        let targets = targets
            .into_iter()
            .filter_map(|(pool, target)| Some((pool?, target?)));
        let mut targets: Vec<(usize, u32)> = targets.collect();
        if scaling.fleet.switches() {
            // Who goes in one role may come in the other.
            let grows =
                |&(pool, target): &(usize, u32)| target > scaling.fleet.count(pool).staying();
            targets.sort_by_key(grows);
        }
        for (pool, target) in targets {
            self.scale_to(now, pool, target, actions);
        }
        let has_arrivals = self.load.sends_more();
        let works = |worker: &Worker| !worker.scheduler.is_idle();
        let parts = self.disaggregated.as_ref();
        let is_busy = self.workers.iter().any(works)
            || parts.is_some_and(|parts| parts.handoffs.are_moving());
        let adversity = self.adversity.as_ref().map(|it| u64::from(it.open));
        let open = adversity.unwrap_or(self.scales().open);
        let goes_on = self.scales().goes_on(has_arrivals, open, is_busy);
        let next = decision.next_tick.filter(|_| goes_on);
        self.scales().ask_planner(next, actions);
    }

    /// Orders workers or takes some away until so many serve or will.
    fn scale_to(&mut self, now: Time, pool: usize, target: u32, actions: &mut Vec<Action>) {
        if self.scales().fleet.rolls(pool) {
            self.scales().fleet.want(pool, target);
            return self.go_on(now, actions);
        }
        let staying = self.scales().fleet.count(pool).staying();
        for _ in staying..target {
            self.scales().fleet.order(now, pool as u32);
        }
        for _ in target..staying {
            if let Dismissed::Drains(worker) = self.scales().fleet.dismiss(now, pool) {
                self.group_of(worker).leave(worker);
                self.limit_drain(now, worker, actions);
            }
        }
        self.go_on(now, actions);
    }

    /// Starts workers that wait for GPUs, as far as there are any.
    pub(super) fn start_workers(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.end_streams(now, actions);
        let scaling = self.scales();
        scaling.fleet.start_waiting(now);
        for (worker, time) in scaling.fleet.started.drain(..) {
            let event = Event::Worker { worker };
            actions.push(Action::At { time, event });
        }
    }

    /// A worker has come to the end of its start: it serves, and what waited for it is placed.
    pub(super) fn worker_starts(&mut self, now: Time, id: WorkerId, actions: &mut Vec<Action>) {
        if self.scales().fleet.begins_to_load(now, id) {
            return self.load_weights(now, id, actions);
        }
        if !self.scales().fleet.becomes_ready(now, id) {
            return;
        }
        self.scales().passes[id.0 as usize] = None;
        let workload = self.workload.clone();
        let group = match &mut self.disaggregated {
            Some(parts) if parts.is_decode_worker(id) => &mut parts.decode,
            _ => &mut self.entry,
        };
        group.join(now, id, &workload, &self.pools);
        self.submit_placed(now, actions);
        self.go_on(now, actions);
    }

    /// Workers that drained and have nothing left are gone; true if there were any.
    pub(super) fn retire_drained(&mut self, now: Time) -> bool {
        let mut freed = false;
        if !self.scales().fleet.drains() {
            return freed;
        }
        for pool in 0..self.pools.len() {
            for (worker, _) in self
                .scales()
                .fleet
                .in_state(pool, |it| *it == State::Draining)
            {
                if self.is_done(worker) {
                    self.remove(now, worker);
                    freed = true;
                }
            }
        }
        freed
    }

    fn is_done(&mut self, id: WorkerId) -> bool {
        let scheduler = &self.workers[id.0 as usize].scheduler;
        scheduler.is_idle()
            && scheduler.running() + scheduler.waiting() == 0
            && scheduler.held_blocks() == 0
            && !scheduler.awaits_readers()
            && self.group_of(id).active_on(id) == 0
    }

    /// A worker without requests leaves its place: the next one there begins with an empty cache, and the router forgets
    /// what this one had.
    fn remove(&mut self, now: Time, id: WorkerId) {
        self.scales().fleet.vacate(now, id);
        self.group_of(id).forget(id);
        let workload = self.workload.clone();
        let engine = self.pools[self.workers[id.0 as usize].pool()]
            .engine
            .clone();
        let worker = &mut self.workers[id.0 as usize];
        worker.scheduler = Scheduler::new(engine, workload, worker.tracking);
        worker.cut_at = None;
        worker.waiting = Some(Box::default());
    }

    /// True if no worker is in that place.
    pub(super) fn is_vacant(&self, place: WorkerId) -> bool {
        let scaling = self.scaling.as_ref();
        scaling.is_some_and(|it| it.fleet.state(place) == State::Vacant)
    }

    /// True if the worker that drains there is the one that this limit is for.
    pub(super) fn has_drained_since(&self, limit: &Fault) -> bool {
        let scaling = self.scaling.as_ref().expect(SCALES);
        let since = scaling.fleet.drains_since(worker_of(limit));
        since.is_some_and(|since| since + limit.lasts == limit.at)
    }

    /// The planner has lost what it knew, and is back at that time.
    pub(super) fn restart_planner(&mut self, back: Time, actions: &mut Vec<Action>) {
        let scaling = self.scales();
        scaling.planner = scaling.fresh.clone();
        scaling.began = back;
        self.start_planner(actions);
    }

    /// A worker crashes, and gets no more requests. False if it had none, for it did not serve: then it is replaced already.
    pub(super) fn leaves_its_place(
        &mut self,
        now: Time,
        number: u32,
        id: WorkerId,
        actions: &mut Vec<Action>,
    ) -> bool {
        match self.scales().fleet.state(id) {
            State::Vacant => return false,
            State::Draining => return true,
            State::Ready => {
                self.group_of(id).leave(id);
                return true;
            }
            State::Spare | State::Warming { .. } | State::Starting { .. } => {}
        }
        self.replace(now, number, &[id], actions);
        false
    }

    /// What workers that crashed had is gone: others take their part.
    pub(super) fn replace(
        &mut self,
        now: Time,
        number: u32,
        gone: &[WorkerId],
        actions: &mut Vec<Action>,
    ) {
        let keeps_gpus = self.breaks().faults.get(number).kind == FaultKind::Crash;
        for &id in gone {
            self.group_of(id).forget(id);
            let scaling = self.scales();
            scaling.passes[id.0 as usize] = None;
            if !keeps_gpus || !scaling.fleet.fail_over(now, id) {
                scaling.fleet.crash(now, id);
            }
        }
        self.go_on(now, actions);
        let until = self.scales().fleet.replaced_by(now);
        let ended = &mut self.record_of(number).ended;
        *ended = until.max(*ended);
    }

    /// Takes note of what is not a tick, and of workers that may have come to their end with it.
    pub(super) fn after_event(&mut self, now: Time, actions: &mut Vec<Action>) {
        let scaling = self.scaling.as_mut().expect(SCALES);
        scaling.quiet_ticks = 0;
        if self.retire_drained(now) {
            self.go_on(now, actions);
        }
    }

    /// Steps of a worker ended.
    pub(super) fn watch_pass(&mut self, ran: &Ran) {
        if let Some(scaling) = &mut self.scaling {
            let scheduler = &self.workers[ran.worker.0 as usize].scheduler;
            let plan = scheduler.oldest().expect("only planned steps run");
            let pass = LastPass::of(plan, scheduler.delivered_steps(), ran);
            scaling.passes[ran.worker.0 as usize] = Some(pass);
        }
    }

    /// What clients send is traffic to a planner; what the front end sends itself is not.
    fn is_of_client(&self, request: RequestId) -> bool {
        (request.0 as usize) < self.workload.of_clients()
    }

    pub(super) fn watch_arrival(&mut self, request: RequestId) {
        let is_of_client = self.is_of_client(request);
        if let Some(scaling) = &mut self.scaling
            && is_of_client
        {
            scaling.open += 1;
            scaling.watch.arrived();
        }
    }

    pub(super) fn watch_placed(&mut self, request: RequestId, worker: WorkerId) {
        if let Some(scaling) = &mut self.scaling {
            let record = &self.recording.requests[request.0 as usize];
            let block_size = self.workers[worker.0 as usize].record.block_size;
            if record.input_tokens >= block_size {
                let overlap = record.router_overlap_tokens;
                scaling.watch.placed(record.input_tokens, overlap);
            }
        }
    }

    pub(super) fn watch_first_token(&mut self, request: RequestId) {
        let goes_on = |it: &Adversity| it.attempts.generated(request) > 0;
        let has_begun = self.adversity.as_deref().is_some_and(goes_on);
        // Where others have begun it, the first token is an older one.
        let is_first = self.is_of_client(request) && !has_begun;
        if let Some(scaling) = &mut self.scaling
            && is_first
        {
            let record = &self.recording.requests[request.0 as usize];
            let ttft = record.first_token.since(record.arrival);
            scaling.watch.first_token(record.first_token, ttft);
        }
    }

    pub(super) fn watch_completion(&mut self, request: RequestId) {
        let is_of_client = self.is_of_client(request);
        if let Some(scaling) = &mut self.scaling
            && is_of_client
        {
            let record = &self.recording.requests[request.0 as usize];
            let generating: Span = record.finish.since(record.first_token);
            let (input, output) = (record.input_tokens, record.output_tokens);
            scaling.open -= 1;
            let watch = &mut scaling.watch;
            watch.completed(record.finish, input, output, generating);
        }
    }

    pub(super) fn watch_submission(&mut self, request: RequestId, worker: WorkerId, part: Part) {
        let waiting: &mut Option<Box<Waiting>> = &mut self.workers[worker.0 as usize].waiting;
        if let Some(waiting) = waiting {
            let before = self.adversity.as_ref();
            let before = before.map_or(0, |it| it.attempts.generated(request));
            let tokens = self.workload.requests[request.0 as usize].input_tokens + before;
            waiting.enter(request, tokens, part == Part::Decode);
        }
    }
}
