//! The workers among which one router chooses: all of them, or those of one role.
//!
//! A router numbers its workers from 0 on (their *places*); the cluster numbers all workers.

use crate::cluster::PoolSpec;
use crate::disaggregation::domains::Near;
use crate::event::WorkerId;
use crate::frontend::refusal;
use crate::host::Below;
use crate::kvbm::TiersInView;
use crate::record::Rejection;
use crate::router::cost::taint_multiplier;
use crate::router::min_tree::MinTree;
use crate::router::prefill_times::{PrefillTimes, RankTimes};
use crate::router::{Candidate, Fleet, Placement, Router, RouterSpec};
use engine::{Annotations, KvEvent, Part, RequestId, StepTime, Time, Workload};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use std::sync::Arc;

/// Workers with a router in front.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    router: Router,
    /// Of each request, what its workers do.
    part: Part,
    /// Whether the router hears the workers' KV events.
    listens: bool,
    /// Whether requests go to the workers they name.
    reads_names: bool,
    /// Index and number of workers of each pool.
    pools: Vec<(usize, u32)>,
    /// By pool of the cluster: labels of its workers; empty where no pool has any.
    taints: Vec<Vec<String>>,
    /// By place.
    cost_factors: Vec<f64>,
    /// By place.
    workers: Vec<WorkerId>,
    places: Vec<WorkerId>,
    /// By place: requests placed and not ended.
    active: MinTree<u32>,
    /// By worker: its place.
    place_of: Vec<WorkerId>,
    able: Vec<WorkerId>,
    /// By place: nothing may be sent there. Empty while all are there.
    down: Vec<bool>,
    /// By place: KV events that did not reach the router, where none do. Empty while all do.
    deaf: Vec<Option<u64>>,
    /// Tokens that requests brought along from other workers.
    generated: FxHashMap<RequestId, u32>,
    /// Requests that the router has forgotten.
    forgotten: FxHashSet<RequestId>,
    /// What the router is made from.
    made_from: (RouterSpec, u64, Fleet),
    /// How long prefills take, where the router wants to know.
    prefill_times: Option<PrefillTimes>,
    /// By place: whether it must not be chosen, for it drains or nobody is there.
    is_away: Vec<bool>,
    away: usize,
    /// Requests for which nobody is there, oldest first.
    held: VecDeque<RequestId>,
    /// A request and the place that it must not get: what if it went elsewhere?
    barred: Option<(RequestId, WorkerId)>,
    /// Places that the request to be placed next should rather get, or must.
    near: Option<Near>,
    /// Requests that have just got a worker, by place.
    placed: Vec<Placement>,
    /// The same, by worker.
    settled: VecDeque<Placement>,
}

/// What makes a group.
#[derive(Debug, Clone)]
pub(crate) struct GroupSpec {
    pub router: RouterSpec,
    pub part: Part,
    pub listens: bool,
    pub seed: u64,
}

impl Group {
    /// The workers of those of `pools` that `is_member`.
    pub fn new(spec: GroupSpec, pools: &[PoolSpec], is_member: impl Fn(usize) -> bool) -> Group {
        let mut members = Vec::new();
        let mut workers = Vec::new();
        let mut place_of = Vec::new();
        for (index, pool) in pools.iter().enumerate() {
            if is_member(index) {
                members.push((index, pool.schedulers()));
            }
            for _ in 0..pool.schedulers() {
                let worker = WorkerId(place_of.len() as u32);
                place_of.push(WorkerId(workers.len() as u32));
                if is_member(index) {
                    workers.push(worker);
                }
            }
        }
        let each_worker = || {
            let all = members.iter();
            all.flat_map(|&(pool, count)| std::iter::repeat_n(&pools[pool], count as usize))
        };
        let batched = |pool: &PoolSpec| u64::from(pool.engine.max_num_batched_tokens());
        let fleet = Fleet {
            block_size: pools[members[0].0].engine.block_size(),
            max_num_batched_tokens: each_worker().map(batched).collect(),
            has_gpu: each_worker().map(|pool| pool.gpus_per_worker > 0).collect(),
            kv_blocks: each_worker()
                .map(|pool| pool.engine.usable_blocks())
                .collect(),
        };
        let made_from = (spec.router.clone(), spec.seed, fleet.clone());
        Group {
            reads_names: spec.router.reads_names(),
            taints: Vec::new(),
            cost_factors: Vec::new(),
            down: Vec::new(),
            deaf: Vec::new(),
            generated: FxHashMap::default(),
            forgotten: FxHashSet::default(),
            made_from,
            prefill_times: None,
            router: Router::new(spec.router, spec.seed, fleet),
            part: spec.part,
            listens: spec.listens,
            pools: members,
            places: (0..workers.len() as u32).map(WorkerId).collect(),
            active: MinTree::of(&vec![0; workers.len()]),
            is_away: vec![false; workers.len()],
            away: 0,
            held: VecDeque::new(),
            workers,
            place_of,
            able: Vec::new(),
            barred: None,
            near: None,
            placed: Vec::new(),
            settled: VecDeque::new(),
        }
    }

    /// Labels of workers, by pool of the cluster.
    pub fn taint(&mut self, taints: &[Vec<String>]) {
        self.taints = taints.to_vec();
    }

    /// True if its router has to be told how long prefills take.
    pub fn wants_prefill_times(&self) -> bool {
        self.router.wants_prefill_times()
    }

    /// Steps take so long, by pool of the cluster.
    pub fn time_prefills(&mut self, pools: &[PoolSpec], timing: &[Arc<dyn StepTime>]) {
        let of_pool = |&(pool, workers): &(usize, u32)| {
            let times = RankTimes {
                timing: timing[pool].clone(),
                stages: pools[pool].engine.stages(),
            };
            std::iter::repeat_n(times, workers as usize)
        };
        let times = self.pools.iter().flat_map(of_pool).collect();
        let times = PrefillTimes::new(times);
        self.router.time_prefills(&times);
        self.prefill_times = Some(times);
    }

    /// Its workers.
    pub fn workers(&self) -> &[WorkerId] {
        &self.workers
    }

    /// Those of its workers that may get requests.
    pub fn serving(&self) -> impl Iterator<Item = WorkerId> {
        let all = self.workers.iter().zip(&self.is_away);
        all.filter(|(_, is_away)| !**is_away)
            .map(|(worker, _)| *worker)
    }

    /// True if its router looks at what happens inside steps.
    pub fn wants_kv_events(&self) -> bool {
        self.listens && self.router.wants_kv_events()
    }

    /// True if it wants that step by step.
    pub fn wants_each_step(&self) -> bool {
        self.listens && self.router.wants_each_step()
    }

    /// Fills `able` with the places of those that can hold the request (left empty if all can), or says why none can.
    pub fn find_able(
        &mut self,
        id: RequestId,
        workload: &Workload,
        pools: &[PoolSpec],
    ) -> Option<Rejection> {
        self.able.clear();
        let mut request = workload.requests[id.0 as usize];
        if let Some(&generated) = self.generated.get(&id) {
            request = request.after(generated);
        }
        request.output_tokens = self.part.output_tokens(&request);
        let refusals = |pool: usize| refusal(&request, &pools[pool].engine);
        let said = workload.annotations_of(id);
        let mut reasons = self.pools.iter().map(|&(pool, _)| refusals(pool));
        if said.is_none() && reasons.all(|reason| reason.is_none()) && self.down.is_empty() {
            return None;
        }
        let pinned = self.pinned(said);
        let mut reason = None;
        let mut first = 0;
        for &(pool, workers) in &self.pools {
            let lacks = said.filter(|said| !said.allows(self.taints_of(pool)));
            let lacks = lacks.map(|_| Rejection::RequiredTaintsUnmet);
            let mut places = first..first + workers;
            if let Some(WorkerId(named)) = pinned {
                places = if places.contains(&named) {
                    named..named + 1
                } else {
                    first += workers;
                    continue;
                };
            }
            match refusals(pool).or(lacks) {
                None => self.able.extend(places.map(WorkerId)),
                // Of several reasons the last in their order is that of the pool that came closest.
                Some(refused) => reason = reason.max(Some(refused)),
            }
            first += workers;
        }
        if !self.down.is_empty() && !self.able.is_empty() {
            let down = &self.down;
            self.able.retain(|place| !down[place.0 as usize]);
            if self.able.is_empty() {
                return Some(Rejection::NoWorker);
            }
        }
        if self.able.is_empty() { reason } else { None }
    }

    fn taints_of(&self, pool: usize) -> &[String] {
        self.taints.get(pool).map_or(&[], Vec::as_slice)
    }

    /// The place of the worker that a request names, if that counts here.
    fn pinned(&self, said: Option<&Annotations>) -> Option<WorkerId> {
        let named = said?.workers.of(self.part).filter(|_| self.reads_names)?;
        let place = self.place_of.get(named as usize).copied();
        let place =
            place.filter(|place| self.workers.get(place.0 as usize) == Some(&WorkerId(named)));
        Some(place.expect("a request names a worker of this group, or the scenario is refused"))
    }

    /// Fills in what preferences multiply costs by, those of a request and for workers nearby; false if they change nothing.
    fn prefer(&mut self, said: Option<&Annotations>, near: Option<&Near>) -> bool {
        self.cost_factors.clear();
        let said = said.filter(|said| !said.preferred_taints.is_empty());
        let nearby = near.and_then(|near| Some((&near.places, near.weight?)));
        if said.is_none() && nearby.is_none() {
            return false;
        }
        for index in 0..self.pools.len() {
            let (pool, workers) = self.pools[index];
            let weight = said.map_or(0.0, |said| said.preference(self.taints_of(pool)));
            self.cost_factors
                .extend(std::iter::repeat_n(weight, workers as usize));
        }
        if let Some((places, weight)) = nearby {
            for place in places.iter() {
                self.cost_factors[place.0 as usize] += weight;
            }
        }
        for factor in &mut self.cost_factors {
            *factor = taint_multiplier(*factor);
        }
        self.cost_factors.iter().any(|&factor| factor != 1.0)
    }

    /// The router takes a request that some worker can hold.
    pub fn place(
        &mut self,
        now: Time,
        id: RequestId,
        workload: &Workload,
        pools: &[PoolSpec],
        tiers: Option<Below<'_>>,
    ) {
        let refusal = self.find_able(id, workload, pools);
        assert!(refusal.is_none(), "the front end refused it");
        self.leave_out_barred(id);
        let near = self.near.take();
        if let Some(near) = &near {
            self.keep_to(near);
        }
        if !self.leave_out_away() {
            self.held.push_back(id);
            return;
        }
        let said = workload.annotations_of(id);
        let (pinned, prefers) = (self.pinned(said), self.prefer(said, near.as_ref()));
        let workers = if self.able.is_empty() {
            &self.places
        } else {
            &self.able
        };
        let candidate = Candidate {
            pinned,
            cost_factors: prefers.then_some(&self.cost_factors),
            request: id,
            workload,
            workers,
            active: &self.active,
            tiers: tiers.map(|below| TiersInView {
                below,
                workers: &self.workers,
            }),
        };
        self.router.place(now, &candidate, &mut self.placed);
        self.settle();
    }

    /// The request to be placed next should rather go there, or must.
    pub fn keep_near(&mut self, near: Option<Near>) {
        self.near = near;
    }

    /// Whether some worker that is near enough can hold the request.
    pub fn has_able_near(
        &mut self,
        id: RequestId,
        near: Option<&Near>,
        workload: &Workload,
        pools: &[PoolSpec],
    ) -> bool {
        let Some(near) = near.filter(|near| near.weight.is_none()) else {
            return true;
        };
        let refusal = self.find_able(id, workload, pools);
        let is_able = |place: &WorkerId| self.able.is_empty() || self.able.contains(place);
        refusal.is_none() && near.places.iter().any(is_able)
    }

    /// Leaves only places near enough in `able`, if others are not allowed.
    fn keep_to(&mut self, near: &Near) {
        if near.weight.is_some() {
            return;
        }
        if self.able.is_empty() {
            self.able.extend_from_slice(&near.places);
        } else {
            self.able
                .retain(|place| near.places.binary_search(place).is_ok());
        }
        assert!(
            !self.able.is_empty(),
            "whoever has nobody near is refused before"
        );
    }

    /// Takes the places of those who are away out of `able`; false if nobody is left.
    fn leave_out_away(&mut self) -> bool {
        if self.away == 0 {
            return true;
        }
        if self.able.is_empty() {
            self.able.extend_from_slice(&self.places);
        }
        self.able.retain(|able| !self.is_away[able.0 as usize]);
        !self.able.is_empty()
    }

    /// Its workers come and go, so that requests cannot name them.
    pub fn forget_names(&mut self) {
        self.reads_names = false;
    }

    /// A worker gets no more requests; those it has it keeps.
    pub fn leave(&mut self, worker: WorkerId) {
        let place = self.place_of[worker.0 as usize];
        assert!(
            !std::mem::replace(&mut self.is_away[place.0 as usize], true),
            "who leaves was there"
        );
        self.away += 1;
        self.router.leave(place);
    }

    /// A worker may get requests; those that waited for one are placed.
    pub fn join(&mut self, now: Time, worker: WorkerId, workload: &Workload, pools: &[PoolSpec]) {
        let place = self.place_of[worker.0 as usize];
        assert!(
            std::mem::replace(&mut self.is_away[place.0 as usize], false),
            "who joins was away"
        );
        self.away -= 1;
        self.router.join(now, place, workload, &mut self.placed);
        self.settle();
        for request in std::mem::take(&mut self.held) {
            self.place(now, request, workload, pools, None);
        }
    }

    /// A worker that is away and has no requests is not the one that will be there next.
    pub fn forget(&mut self, worker: WorkerId) {
        self.router.forget(self.place_of[worker.0 as usize]);
    }

    /// Requests placed on a worker and not ended.
    pub fn active_on(&self, worker: WorkerId) -> u32 {
        let place = self.place_of[worker.0 as usize];
        self.active.get(place.0 as usize)
    }

    /// Requests that wait in front of the workers.
    pub fn waiting(&self) -> u64 {
        self.held.len() as u64 + self.router.waiting()
    }

    /// True if its router wants to be told where a request ends first.
    pub fn wants_advice(&self) -> bool {
        self.router.wants_advice()
    }

    /// The request to be placed next ends first on this worker.
    pub fn advise(&mut self, worker: WorkerId) {
        self.router.advise(self.place_of[worker.0 as usize]);
    }

    /// The router is not to give this request to this worker, whichever it chooses then.
    pub fn bar(&mut self, request: RequestId, worker: WorkerId) {
        self.barred = Some((request, self.place_of[worker.0 as usize]));
    }

    /// Takes the barred place out of `able`.
    fn leave_out_barred(&mut self, id: RequestId) {
        let Some((_, place)) = self.barred.filter(|(request, _)| *request == id) else {
            return;
        };
        if self.able.is_empty() {
            self.able.extend_from_slice(&self.places);
        }
        self.able.retain(|able| *able != place);
        assert!(
            !self.able.is_empty(),
            "a request is kept from a worker only if there is another"
        );
    }

    /// How many workers a request that can be served may go to.
    pub fn choices(&mut self, id: RequestId, workload: &Workload, pools: &[PoolSpec]) -> usize {
        match self.find_able(id, workload, pools) {
            Some(_) => 0,
            None if self.able.is_empty() => self.places.len(),
            None => self.able.len(),
        }
    }

    /// Gives a request to all workers that may have it, without asking the router; none if it is refused.
    pub fn place_everywhere(&mut self, id: RequestId, workload: &Workload, pools: &[PoolSpec]) {
        if self.find_able(id, workload, pools).is_some() {
            return;
        }
        self.leave_out_barred(id);
        let workers = if self.able.is_empty() {
            &self.places
        } else {
            &self.able
        };
        let copy = |&worker: &WorkerId| Placement {
            request: id,
            worker,
            overlap_tokens: 0,
        };
        self.placed.extend(workers.iter().map(copy));
        self.settle();
    }

    /// The next request that got a worker.
    pub fn next_placed(&mut self) -> Option<Placement> {
        self.settled.pop_front()
    }

    #[inline]
    fn settle(&mut self) {
        if self.placed.is_empty() {
            return;
        }
        for mut placement in self.placed.drain(..) {
            let place = placement.worker.0 as usize;
            self.active.set(place, self.active.get(place) + 1);
            placement.worker = self.workers[place];
            self.settled.push_back(placement);
        }
    }

    /// The prefill of a request is over.
    pub fn prefill_done(&mut self, now: Time, request: RequestId, workload: &Workload) {
        self.router
            .prefill_done(now, request, workload, &mut self.placed);
        self.settle();
    }

    /// True if its router wants to know how far answers are.
    pub fn wants_progress(&self) -> bool {
        self.router.wants_progress()
    }

    /// A request has generated so many tokens.
    pub fn progressed(&mut self, now: Time, request: RequestId, tokens: u32, workload: &Workload) {
        self.router.progressed(now, request, tokens, workload);
    }

    /// What these workers do of a request is done.
    pub fn ended(&mut self, now: Time, worker: WorkerId, request: RequestId, workload: &Workload) {
        if !self.forgotten.is_empty() && self.forgotten.remove(&request) {
            return;
        }
        let place = self.place_of[worker.0 as usize].0 as usize;
        self.active.set(place, self.active.get(place) - 1);
        self.router.ended(now, request, workload, &mut self.placed);
        self.settle();
    }

    /// What happened in a worker's KV cache.
    pub fn observe(
        &mut self,
        now: Time,
        worker: WorkerId,
        events: &[KvEvent],
        workload: &Workload,
    ) {
        if self.wants_kv_events() {
            let place = self.place_of[worker.0 as usize];
            if let Some(Some(missed)) = self.deaf.get_mut(place.0 as usize) {
                *missed += events.len() as u64;
                return self.router.miss(place, events, workload);
            }
            self.router.observe(now, place, events, workload);
        }
    }

    /// True if there are workers that the request may go to, and each is one of those.
    pub fn are_all(
        &mut self,
        id: RequestId,
        workload: &Workload,
        pools: &[PoolSpec],
        mut is: impl FnMut(WorkerId) -> bool,
    ) -> bool {
        if self.find_able(id, workload, pools).is_some() {
            return false;
        }
        let places = if self.able.is_empty() {
            &self.places
        } else {
            &self.able
        };
        let there = places
            .iter()
            .filter(|place| !self.is_away[place.0 as usize]);
        let mut workers = there.map(|place| self.workers[place.0 as usize]).peekable();
        workers.peek().is_some() && workers.all(&mut is)
    }

    /// Nothing is sent to this worker any more, and what the router knew of its cache is forgotten; or it is back.
    pub fn set_down(&mut self, worker: WorkerId, is_down: bool) {
        let place = self.place_of[worker.0 as usize];
        self.down.resize(self.workers.len(), false);
        self.down[place.0 as usize] = is_down;
        if is_down {
            self.router.forget(place);
        }
        if !self.down.contains(&true) {
            self.down.clear();
        }
    }

    /// True if some worker is down.
    pub fn misses_somebody(&self) -> bool {
        !self.down.is_empty()
    }

    /// Nothing is sent to this worker any more; what it has it keeps, and the router what it knows.
    pub fn hold_back(&mut self, worker: WorkerId) {
        let place = self.place_of[worker.0 as usize];
        self.down.resize(self.workers.len(), false);
        self.down[place.0 as usize] = true;
    }

    /// This worker's KV events do not reach the router any more, or do again: then how many did not.
    pub fn set_deaf(&mut self, worker: WorkerId, is_deaf: bool) -> u64 {
        let place = self.place_of[worker.0 as usize].0 as usize;
        self.deaf.resize(self.workers.len(), None);
        if is_deaf {
            self.deaf[place].get_or_insert(0);
            return 0;
        }
        let missed = self.deaf[place].take().unwrap_or(0);
        if self.deaf.iter().all(Option::is_none) {
            self.deaf.clear();
        }
        missed
    }

    /// The request goes on after so many tokens of another worker.
    pub fn note_generated(&mut self, request: RequestId, generated: u32) {
        if generated > 0 {
            self.generated.insert(request, generated);
        }
    }

    /// The router will have to know what workers hold without having heard of it.
    pub fn keep_true_index(&mut self) {
        self.router.keep_true_index();
    }

    /// The router forgets all it knew, requests under way included.
    pub fn restart_router(&mut self, under_way: Vec<RequestId>, reads_caches: bool) {
        let (spec, seed, fleet) = self.made_from.clone();
        let fresh = Router::new(spec, seed, fleet);
        let old = std::mem::replace(&mut self.router, fresh);
        self.router.take_over(old, reads_caches);
        if let Some(times) = &self.prefill_times {
            self.router.time_prefills(times);
        }
        let away = self.is_away.iter().zip(&self.places);
        for (_, &place) in away.filter(|(is_away, _)| **is_away) {
            self.router.leave(place);
        }
        // They come to the router again like those in its queue.
        self.held.clear();
        self.active = MinTree::of(&vec![0; self.workers.len()]);
        self.forgotten.extend(under_way);
    }
}
