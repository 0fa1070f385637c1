//! KV-aware: the worker on which the request costs least.
//!
//! A request is looked up in the [index](super::indexer::RadixTree) of what the workers' KV events say they hold, waits if a
//! queue is on and all workers are [busy](super::admission), goes where the [cost](super::cost) is least, and is
//! [booked](super::active_sequences) there. The index is asked when the request comes, not when it leaves the queue. All
//! parts are those that the recorded cases of the real router check; here blocks are places in the prefix tree instead of
//! hashes, which are equal exactly when the hashes are.
//!
//! There may be [several routers](super::replicas), each with its own bookings.
//!
//! A request that names its worker is pinned: it waits in the worker's own lane of the queue and costs decide nothing. Workers
//! without a label that the request requires are not among the candidates; preferred labels change the cost.
//!
//! Without events (`use_kv_events: false`) a router believes what it did itself: the prompts it placed are taken to be
//! cached there for `ttl`, or as long as they would be in [imagined caches](super::shadow_cache). With events and `predicted_ttl` it believes either, whichever says more.
//!
//! With a [load model](super::prefill_times) the prefill of the oldest request of a rank fades with time, as
//! [`prefill_load`](super::prefill_load) says; costs then differ from moment to moment and every rank is looked at.
//!
//! Model: each worker is one rank. Requests do not expire, as in the replay of the real router.

use super::active_sequences::PromptBlocks;
use super::admission::{Admission, AdmissionSpec, Admitted, Incoming, QueueStyle};
use super::by_rank::BlocksByRank;
use super::cost::{CostWeights, Overlap};
use super::events::{EventChannel, EventsInFlight};
use super::indexer::chain::PlacedQuery;
use super::indexer::{PlacedChain, RadixTree, Rank};
use super::policy_class::{PolicyProfile, QueuePolicy};
use super::predictions::{Predictions, Pruning};
use super::prefill_times::PrefillTimes;
use super::queue::QueueTicket;
use super::replicas::{ReplicaSpec, Replicas};
use super::reports::apply;
use super::shadow_cache::ShadowCaches;
use super::{Candidate, Placement};
use crate::event::WorkerId;
use engine::kv_cache::{Stretch, block_path};
use engine::prefix_tree::PrefixTree;
use engine::{KvEvent, Request, RequestId, Span, Time, Workload};
use std::sync::Arc;

/// Settings of the KV-aware router; Dynamo's names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct KvRouterSpec {
    /// Of the cost: credit, decay, scale, weights of tiers.
    pub weights: CostWeights,
    /// 0 takes the cheapest, more spreads the choice.
    pub router_temperature: f64,
    /// Whether workers say what they hold.
    pub use_kv_events: bool,
    /// How these events travel.
    pub events: EventChannel,
    /// How long a prompt counts as cached where it was sent, without events.
    pub ttl: Span,
    /// What ends that time early, without events.
    pub retention: Retention,
    /// The same with events, if at all.
    pub predicted_ttl: Option<Span>,
    /// Whether blocks of active requests count.
    pub track_active_blocks: bool,
    /// Whether the blocks of answers count as they come.
    pub track_output_blocks: bool,
    /// Whether active requests on one worker share blocks.
    pub assume_kv_reuse: bool,
    /// Requests wait while all workers have more prompt tokens in prefill than this many times `max_num_batched_tokens`.
    pub queue_threshold: Option<f64>,
    /// In what order they wait.
    pub queue_policy: QueuePolicy,
    /// Classes of the queue, in place of threshold and order.
    pub policy_classes: Option<Arc<PolicyProfile>>,
    /// How many routers there are.
    pub replicas: ReplicaSpec,
    /// Whether prompts under way count for less as time goes by.
    pub prefill_load_model: PrefillLoadModel,
}

impl Default for KvRouterSpec {
    fn default() -> Self {
        KvRouterSpec {
            weights: CostWeights::default(),
            router_temperature: 0.0,
            use_kv_events: true,
            events: EventChannel::default(),
            ttl: Span(120_000_000_000_000),
            retention: Retention::Ttl,
            predicted_ttl: None,
            track_active_blocks: true,
            track_output_blocks: false,
            assume_kv_reuse: true,
            queue_threshold: None,
            queue_policy: QueuePolicy::Fcfs,
            policy_classes: None,
            replicas: ReplicaSpec::default(),
            prefill_load_model: PrefillLoadModel::None,
        }
    }
}

/// What a router knows of prompts that are being computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefillLoadModel {
    /// They count in full until their first token.
    None,
    /// How long each should take: the oldest of a rank fades.
    Estimated,
}

/// How long a router without events remembers what it placed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Retention {
    /// For the time to live.
    Ttl,
    /// The same, but not more than so many blocks.
    Pruned(Pruning),
    /// As long as it would be in a cache of the worker's size, from which idle blocks go in the order of use.
    Lru {
        /// Whether answers are remembered as well as prompts.
        outputs: bool,
    },
}

/// The router's view of the workers.
#[derive(Debug, Clone)]
pub struct KvRouter {
    spec: KvRouterSpec,
    block_size: u32,
    index: RadixTree<PlacedChain>,
    /// What workers hold, whatever was heard of it; kept where it will be read.
    truth: Option<Box<RadixTree<PlacedChain>>>,
    /// By router; none if it believes in no predictions.
    predictions: Vec<Predictions>,
    /// The same for caches that are imagined.
    shadows: Vec<ShadowCaches>,
    in_flight: Option<EventsInFlight>,
    replicas: Replicas,
    admitted: Vec<Admitted>,
    path: Vec<Stretch>,
    overlap: BlocksByRank,
    active: Vec<Rank>,
    /// Ranks that must not be chosen.
    away: usize,
}

impl KvRouter {
    pub(super) fn new(
        spec: KvRouterSpec,
        seed: u64,
        block_size: u32,
        max_num_batched_tokens: Vec<u64>,
        kv_blocks: &[u32],
    ) -> Self {
        let workers = max_num_batched_tokens.len();
        let admission = AdmissionSpec {
            weights: spec.weights,
            temperature: spec.router_temperature,
            block_size,
            profile: match &spec.policy_classes {
                Some(classes) => PolicyProfile::clone(classes),
                None => PolicyProfile::sole(spec.queue_policy, spec.queue_threshold),
            },
            style: QueueStyle::Replay,
            expires: false,
            seed,
        };
        let is_imagined = !spec.use_kv_events && matches!(spec.retention, Retention::Lru { .. });
        let ttl = match spec.use_kv_events {
            true => spec.predicted_ttl,
            false => Some(spec.ttl).filter(|_| !is_imagined),
        };
        let pruning = match spec.retention {
            Retention::Pruned(pruning) if !spec.use_kv_events => Some(pruning),
            _ => None,
        };
        let routers = spec.replicas.count as usize;
        let shadows = if is_imagined {
            vec![ShadowCaches::new(block_size, kv_blocks); routers]
        } else {
            Vec::new()
        };
        KvRouter {
            block_size,
            index: RadixTree::default(),
            truth: None,
            predictions: ttl.map_or(Vec::new(), |ttl| {
                vec![Predictions::new(ttl, pruning); routers]
            }),
            shadows,
            in_flight: (!spec.events.is_perfect())
                .then(|| EventsInFlight::new(spec.events, seed, workers)),
            replicas: Replicas::new(
                spec.replicas,
                Admission::new(admission, max_num_batched_tokens),
            ),
            admitted: Vec::new(),
            path: Vec::new(),
            overlap: BlocksByRank::default(),
            active: Vec::new(),
            away: 0,
            spec,
        }
    }

    /// True if the router wants the workers' KV events.
    pub(super) fn wants_kv_events(&self) -> bool {
        self.spec.use_kv_events
    }

    /// True if it matters in which step an event happened.
    pub(super) fn wants_each_step(&self) -> bool {
        self.spec.use_kv_events && self.in_flight.is_some()
    }

    /// True if the router wants to know how far answers are.
    pub(super) fn wants_progress(&self) -> bool {
        self.spec.track_output_blocks
    }

    /// True if it waits to be told how long prefills take.
    pub(super) fn wants_prefill_times(&self) -> bool {
        self.spec.prefill_load_model == PrefillLoadModel::Estimated
            && !self.replicas.times_prefills()
    }

    /// So long prefills take, by place.
    pub(super) fn time_prefills(&mut self, times: &PrefillTimes) {
        if self.spec.prefill_load_model == PrefillLoadModel::Estimated {
            self.replicas.time_prefills(times);
        }
    }

    pub(super) fn place(
        &mut self,
        now: Time,
        candidate: &Candidate<'_>,
        placed: &mut Vec<Placement>,
    ) {
        let tree = &candidate.workload.tree;
        self.receive(now, tree);
        let request = &candidate.workload.requests[candidate.request.0 as usize];
        let limit = whole_blocks(tree, request, self.block_size, &mut self.path);
        let mut overlap = self.look_up(now, candidate.request, limit);
        let cached = |overlap: &Overlap| overlap.cached_tokens(&self.spec.weights, self.block_size);
        let cached_tokens = match candidate.tiers.filter(|_| self.spec.use_kv_events) {
            Some(tiers) => {
                let asks_storage = self.spec.weights.shared_cache_multiplier > 0.0;
                tiers.extend(&self.path, limit, asks_storage, &mut overlap);
                let all = overlap.iter().map(|(_, overlap)| cached(overlap));
                all.max().unwrap_or(0)
            }
            None => {
                let most = overlap.iter().map(|(_, overlap)| overlap.device).max();
                cached(&Overlap {
                    device: most.unwrap_or(0),
                    ..Overlap::default()
                })
            }
        };
        let is_all = candidate.workers.len() + self.away == candidate.active.len();
        let said = candidate.workload.annotations_of(candidate.request);
        let ticket = QueueTicket {
            arrival: now,
            isl_tokens: u64::from(request.input_tokens),
            cached_tokens,
            // Dynamo's hint, of which a trace keeps the negative: seconds by which the request seems to have come earlier.
            priority_jump: -f64::from(request.priority),
            strict_priority: said.map_or(0, |said| said.strict_priority),
            due: None,
            pinned: candidate.pinned.map(|worker| worker.0),
        };
        let prompt = match (self.spec.track_active_blocks, self.spec.assume_kv_reuse) {
            (false, _) => PromptBlocks::Untracked,
            (true, false) => PromptBlocks::Private(limit),
            (true, true) => PromptBlocks::Shared(self.path.clone()),
        };
        let allowed = (!is_all).then(|| candidate.workers.iter().map(|worker| worker.0).collect());
        let incoming = Incoming {
            request: candidate.request,
            prompt,
            overlap,
            allowed,
            cost_factors: candidate.cost_factors.map(<[f64]>::to_vec),
            policy_class: said.and_then(|said| said.policy_class.clone()),
        };
        self.replicas
            .submit(now, ticket, incoming, &mut self.admitted);
        self.settle(now, candidate.workload, placed);
    }

    /// What the workers are believed to hold of the path; those that hold nothing are left out.
    fn look_up(&mut self, now: Time, request: RequestId, limit: u32) -> Vec<(Rank, Overlap)> {
        let query = PlacedQuery {
            path: &self.path,
            limit,
        };
        self.overlap.clear();
        self.index
            .overlap(query, &mut self.active, &mut self.overlap);
        let own = self.replicas.of(request);
        if let Some(predictions) = self.predictions.get_mut(own) {
            predictions.overlap(now, query, &mut self.active, &mut self.overlap);
        }
        if let Some(shadows) = self.shadows.get(own) {
            shadows.overlap(query, &mut self.active, &mut self.overlap);
        }
        let device = |&rank: &Rank| Overlap {
            device: self.overlap.get(rank),
            ..Overlap::default()
        };
        let ranks = self.overlap.ranks().iter();
        ranks.map(|rank| (*rank, device(rank))).collect()
    }

    /// A worker must not be chosen any more.
    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.away += 1;
        self.replicas.leave(worker.0);
    }

    /// A worker may be chosen again.
    pub(super) fn join(
        &mut self,
        now: Time,
        worker: WorkerId,
        workload: &Workload,
        placed: &mut Vec<Placement>,
    ) {
        self.away -= 1;
        self.replicas.join(now, worker.0, &mut self.admitted);
        self.settle(now, workload, placed);
    }

    /// A worker is no more, nor is what it held.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.index.clear(worker.0);
        if let Some(truth) = &mut self.truth {
            truth.clear(worker.0);
        }
        for predictions in &mut self.predictions {
            predictions.forget_rank(worker.0);
        }
        for shadows in &mut self.shadows {
            shadows.forget_rank(worker.0);
        }
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.forget(worker);
        }
    }

    /// Requests in the queues.
    pub(super) fn waiting(&self) -> u64 {
        self.replicas.waiting()
    }

    /// The first token of a request arrived.
    pub(super) fn prefill_done(
        &mut self,
        now: Time,
        request: RequestId,
        workload: &Workload,
        placed: &mut Vec<Placement>,
    ) {
        self.replicas.prefill_done(now, request, &mut self.admitted);
        self.settle(now, workload, placed);
    }

    /// A request has generated so many tokens. A block of its answer that has begun counts, and where the client said how long
    /// the answer will be, all that only this request holds counts for the part that is left of it.
    pub(super) fn progressed(
        &mut self,
        now: Time,
        request: RequestId,
        generated: u32,
        workload: &Workload,
    ) {
        let asked = &workload.requests[request.0 as usize];
        let blocks = |tokens: u32| tokens.div_ceil(self.block_size);
        let begun = blocks(asked.input_tokens + generated) - blocks(asked.input_tokens);
        let expected = workload
            .annotations_of(request)
            .and_then(|said| said.expected_output_tokens);
        let left =
            expected.map(|expected| (1.0 - f64::from(generated) / f64::from(expected)).max(0.0));
        self.replicas.output_blocks(now, request, begun, left);
    }

    /// A request ended.
    pub(super) fn ended(
        &mut self,
        now: Time,
        request: RequestId,
        workload: &Workload,
        placed: &mut Vec<Placement>,
    ) {
        self.replicas.free(now, request, &mut self.admitted);
        self.remember_answer(request, workload);
        self.settle(now, workload, placed);
    }

    /// A request that ended leaves prompt and answer in its imagined cache.
    fn remember_answer(&mut self, request: RequestId, workload: &Workload) {
        let Retention::Lru { outputs } = self.spec.retention else {
            return;
        };
        let own = self.replicas.of(request);
        let Some(shadows) = self.shadows.get_mut(own) else {
            return;
        };
        let asked = &workload.requests[request.0 as usize];
        block_path(&workload.tree, asked.leaf, self.block_size, &mut self.path);
        let path = outputs.then_some(self.path.as_slice());
        shadows.release(request, path, &workload.tree);
    }

    /// Hands out who was admitted, and expects their prompts to be cached where they go.
    fn settle(&mut self, now: Time, workload: &Workload, placed: &mut Vec<Placement>) {
        if self.admitted.is_empty() {
            return;
        }
        for admitted in self.admitted.drain(..) {
            let own = self.replicas.of(admitted.request);
            if let Some(predictions) = self.predictions.get_mut(own) {
                let request = &workload.requests[admitted.request.0 as usize];
                whole_blocks(&workload.tree, request, self.block_size, &mut self.path);
                predictions.expect(now, admitted.rank, &self.path);
            }
            if let Some(shadows) = self.shadows.get_mut(own) {
                let request = &workload.requests[admitted.request.0 as usize];
                whole_blocks(&workload.tree, request, self.block_size, &mut self.path);
                shadows.acquire(admitted.request, admitted.rank, &self.path, &workload.tree);
            }
            placed.push(Placement {
                request: admitted.request,
                worker: WorkerId(admitted.rank),
                overlap_tokens: u32::try_from(admitted.cached_tokens)
                    .expect("prompts are below 2^31"),
            });
        }
    }

    /// A worker did something in a step that ended now.
    pub(super) fn observe(
        &mut self,
        now: Time,
        worker: WorkerId,
        events: &[KvEvent],
        tree: &PrefixTree,
    ) {
        self.note_truth(worker, events, tree);
        match &mut self.in_flight {
            None => self.apply(worker, events, tree),
            Some(in_flight) => in_flight.send(now, worker, events),
        }
    }

    /// The same, but nobody hears of it, unless lost events are asked for later.
    pub(super) fn miss(&mut self, worker: WorkerId, events: &[KvEvent], tree: &PrefixTree) {
        self.note_truth(worker, events, tree);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.lose(worker, events);
        }
    }

    fn note_truth(&mut self, worker: WorkerId, events: &[KvEvent], tree: &PrefixTree) {
        if let Some(truth) = &mut self.truth {
            apply(truth, worker.0, events, tree, self.block_size);
        }
    }

    /// What workers hold will be read from them.
    pub(super) fn keep_true_index(&mut self) {
        self.truth = Some(Box::default());
    }

    /// This router takes the place of one that is gone.
    pub(super) fn take_over(&mut self, old: KvRouter, reads_caches: bool) {
        self.in_flight = old.in_flight;
        self.truth = old.truth;
        if let Some(truth) = self.truth.as_ref().filter(|_| reads_caches) {
            self.index = RadixTree::clone(truth);
        }
    }

    /// Takes in the reports that have arrived by now.
    fn receive(&mut self, now: Time, tree: &PrefixTree) {
        while let Some((worker, events)) = self.in_flight.as_mut().and_then(|it| it.receive(now)) {
            self.apply(worker, &events, tree);
        }
    }

    fn apply(&mut self, worker: WorkerId, events: &[KvEvent], tree: &PrefixTree) {
        apply(&mut self.index, worker.0, events, tree, self.block_size);
    }
}

/// The whole blocks of a request's prompt.
fn whole_blocks(
    tree: &PrefixTree,
    request: &Request,
    block_size: u32,
    path: &mut Vec<Stretch>,
) -> u32 {
    block_path(tree, request.leaf, block_size, path);
    let limit = request.input_tokens / block_size;
    let behind = path.partition_point(|stretch| stretch.end < limit);
    path.truncate(if limit == 0 { 0 } else { behind + 1 });
    if let Some(last) = path.last_mut() {
        last.end = limit;
    }
    limit
}
