//! Which worker gets a request. One policy per file; each opens with its rule in words.
//!
//! A router sees what a real one sees: which requests it placed where and which of them have ended, and, if it asks
//! for them, the workers' KV events, at the end of the step in which they happened or later. Random choices and ties are drawn
//! by (seed, purpose, request), so the same run places the same way every time.

pub mod active_blocks;
pub mod active_sequences;
pub mod admission;
pub mod approximate;
pub mod by_rank;
mod clairvoyant;
pub mod cost;
mod device_aware;
mod direct;
mod events;
pub mod hash;
pub mod indexer;
mod kv;
mod least_loaded;
pub mod load_order;
pub mod min_tree;
pub mod policy_class;
mod power_of_two;
mod predictions;
pub mod prefill_load;
pub mod prefill_times;
pub mod queue;
mod random;
pub mod replicas;
mod reports;
mod round_robin;
pub mod selection;
mod session_affinity;
mod shadow_cache;

pub use events::EventChannel;
pub use kv::{KvRouter, KvRouterSpec, PrefillLoadModel, Retention};
pub use predictions::Pruning;

use crate::event::WorkerId;
use crate::kvbm::TiersInView;
use engine::{KvEvent, RequestId, Span, Time, Workload};
use min_tree::MinTree;
use prefill_times::PrefillTimes;

/// How to choose a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum RouterSpec {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The one with the fewest requests.
    LeastLoaded,
    /// The less loaded of two drawn at random.
    PowerOfTwo,
    /// Workers without GPUs get a share, the rest goes to those with; least loaded within.
    DeviceAwareWeighted {
        /// Workers without GPUs that one with GPUs counts as, at least 1.
        ratio: u32,
    },
    /// Where the session's first request went; that one by least loaded.
    SessionAffinity {
        /// How long a session without a request under way stays bound.
        ttl: Span,
    },
    /// The cheapest by prefill left to do after prefix hits, and by blocks in use.
    Kv(KvRouterSpec),
    /// The one that the request names. Every request names one.
    Direct,
    /// Where it ends first, found by trying: an oracle. On the virtual clock only, and for workers that do everything.
    Clairvoyant,
}

impl RouterSpec {
    /// True if it gives a request to the worker that the request names.
    #[must_use]
    pub fn reads_names(&self) -> bool {
        matches!(self, RouterSpec::Direct | RouterSpec::Kv(_))
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Which.
    pub request: RequestId,
    /// The chosen worker.
    pub worker: WorkerId,
    /// Prompt tokens the router believes to be cached there.
    pub overlap_tokens: u32,
}

/// A request to be placed.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Which.
    pub request: RequestId,
    /// The workload it belongs to.
    pub workload: &'a Workload,
    /// Workers that can hold it, in order, at least one.
    pub workers: &'a [WorkerId],
    /// By worker index: requests placed and not ended.
    pub active: &'a MinTree<u32>,
    /// What lies below the workers' GPUs, if anything.
    pub tiers: Option<TiersInView<'a>>,
    /// The worker that the request names, if this router reads names; then it is the only one in `workers`.
    pub pinned: Option<WorkerId>,
    /// By worker index: what the request's preferences multiply the cost by; `None` for 1.
    pub cost_factors: Option<&'a [f64]>,
}

/// A router with its state.
#[derive(Debug, Clone)]
pub struct Router {
    seed: u64,
    policy: Policy,
}

#[derive(Debug, Clone)]
enum Policy {
    RoundRobin(round_robin::RoundRobin),
    Random,
    LeastLoaded,
    PowerOfTwo,
    DeviceAwareWeighted { ratio: u32, has_gpu: Vec<bool> },
    SessionAffinity(session_affinity::SessionAffinity),
    Kv(Box<KvRouter>),
    Direct,
    Clairvoyant(clairvoyant::Clairvoyant),
}

/// What a router is told about the workers at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Tokens per KV block.
    pub block_size: u32,
    /// By worker: tokens it batches at most.
    pub max_num_batched_tokens: Vec<u64>,
    /// By worker: whether it has a GPU.
    pub has_gpu: Vec<bool>,
    /// By worker: KV blocks it has.
    pub kv_blocks: Vec<u32>,
}

impl Router {
    /// A router in front of idle workers.
    #[must_use]
    pub fn new(spec: RouterSpec, seed: u64, fleet: Fleet) -> Self {
        let policy = match spec {
            RouterSpec::RoundRobin => Policy::RoundRobin(round_robin::RoundRobin::default()),
            RouterSpec::Random => Policy::Random,
            RouterSpec::LeastLoaded => Policy::LeastLoaded,
            RouterSpec::PowerOfTwo => Policy::PowerOfTwo,
            RouterSpec::DeviceAwareWeighted { ratio } => Policy::DeviceAwareWeighted {
                ratio,
                has_gpu: fleet.has_gpu,
            },
            RouterSpec::SessionAffinity { ttl } => {
                Policy::SessionAffinity(session_affinity::SessionAffinity::new(ttl))
            }
            RouterSpec::Kv(spec) => Policy::Kv(Box::new(KvRouter::new(
                spec,
                seed,
                fleet.block_size,
                fleet.max_num_batched_tokens,
                &fleet.kv_blocks,
            ))),
            RouterSpec::Direct => Policy::Direct,
            RouterSpec::Clairvoyant => Policy::Clairvoyant(clairvoyant::Clairvoyant::default()),
        };
        Router { seed, policy }
    }

    /// True if the router wants the workers' KV events.
    #[must_use]
    pub fn wants_kv_events(&self) -> bool {
        matches!(&self.policy, Policy::Kv(policy) if policy.wants_kv_events())
    }

    /// True if it wants them step by step, since they take time to arrive.
    #[must_use]
    pub fn wants_each_step(&self) -> bool {
        matches!(&self.policy, Policy::Kv(policy) if policy.wants_each_step())
    }

    /// True if the router wants to know how far answers are, step by step.
    #[must_use]
    pub fn wants_progress(&self) -> bool {
        matches!(&self.policy, Policy::Kv(policy) if policy.wants_progress())
    }

    /// True if it has to be told how long prefills take, before the first request.
    #[must_use]
    pub fn wants_prefill_times(&self) -> bool {
        matches!(&self.policy, Policy::Kv(policy) if policy.wants_prefill_times())
    }

    /// So long prefills take, by worker.
    pub fn time_prefills(&mut self, times: &PrefillTimes) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.time_prefills(times);
        }
    }

    /// True if a driver has to look ahead before each request and [say](Router::advise) what it saw.
    #[must_use]
    pub fn wants_advice(&self) -> bool {
        matches!(self.policy, Policy::Clairvoyant(_))
    }

    /// The request to be placed next ends first on this worker.
    pub fn advise(&mut self, worker: WorkerId) {
        if let Policy::Clairvoyant(policy) = &mut self.policy {
            policy.advise(worker);
        }
    }

    /// A worker gets no more requests; what it has and holds still counts.
    pub fn leave(&mut self, worker: WorkerId) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.leave(worker);
        }
    }

    /// A worker that was away may get requests. Appends who has waited for that.
    pub fn join(
        &mut self,
        now: Time,
        worker: WorkerId,
        workload: &Workload,
        placed: &mut Vec<Placement>,
    ) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.join(now, worker, workload, placed);
        }
    }

    /// A worker is no more: what it held and who was bound to it.
    pub fn forget(&mut self, worker: WorkerId) {
        match &mut self.policy {
            Policy::Kv(policy) => policy.forget(worker),
            Policy::SessionAffinity(policy) => policy.forget(worker),
            _ => {}
        }
    }

    /// Requests that wait in the router.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        match &self.policy {
            Policy::Kv(policy) => policy.waiting(),
            _ => 0,
        }
    }

    /// A request comes. Appends where it goes, unless it has to wait in the router.
    pub fn place(&mut self, now: Time, candidate: &Candidate<'_>, placed: &mut Vec<Placement>) {
        let worker = match &mut self.policy {
            Policy::RoundRobin(policy) => policy.place(candidate),
            Policy::Random => random::place(self.seed, candidate),
            Policy::LeastLoaded => least_loaded::place(self.seed, candidate),
            Policy::PowerOfTwo => power_of_two::place(self.seed, candidate),
            Policy::DeviceAwareWeighted { ratio, has_gpu } => {
                device_aware::place(self.seed, *ratio, has_gpu, candidate)
            }
            Policy::SessionAffinity(policy) => {
                policy.place(now, candidate, || least_loaded::place(self.seed, candidate))
            }
            Policy::Kv(policy) => return policy.place(now, candidate, placed),
            Policy::Direct => direct::place(candidate),
            Policy::Clairvoyant(policy) => policy.place(candidate),
        };
        placed.push(Placement {
            request: candidate.request,
            worker,
            overlap_tokens: 0,
        });
    }

    /// The first token of a request arrived: its prefill is over. Appends who has waited for that.
    pub fn prefill_done(
        &mut self,
        now: Time,
        request: RequestId,
        workload: &Workload,
        placed: &mut Vec<Placement>,
    ) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.prefill_done(now, request, workload, placed);
        }
    }

    /// A request has generated so many tokens.
    pub fn progressed(&mut self, now: Time, request: RequestId, tokens: u32, workload: &Workload) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.progressed(now, request, tokens, workload);
        }
    }

    /// A request that was placed has ended. Appends who has waited for that.
    pub fn ended(
        &mut self,
        now: Time,
        request: RequestId,
        workload: &Workload,
        placed: &mut Vec<Placement>,
    ) {
        match &mut self.policy {
            Policy::SessionAffinity(policy) => policy.ended(now, request, workload),
            Policy::Kv(policy) => policy.ended(now, request, workload, placed),
            _ => {}
        }
    }

    /// The same, but it does not reach the router.
    pub fn miss(&mut self, worker: WorkerId, events: &[KvEvent], workload: &Workload) {
        if let Policy::Kv(policy) = &mut self.policy
            && !events.is_empty()
        {
            policy.miss(worker, events, &workload.tree);
        }
    }

    /// The workers' caches will be read after a restart.
    pub fn keep_true_index(&mut self) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.keep_true_index();
        }
    }

    /// This router takes the place of one that is gone: events under way reach it and, if it reads the workers' caches,
    /// it knows what they hold.
    pub fn take_over(&mut self, old: Router, reads_caches: bool) {
        if let (Policy::Kv(policy), Policy::Kv(old)) = (&mut self.policy, old.policy) {
            policy.take_over(*old, reads_caches);
        }
    }

    /// What happened in a worker's KV cache, in order.
    pub fn observe(
        &mut self,
        now: Time,
        worker: WorkerId,
        events: &[KvEvent],
        workload: &Workload,
    ) {
        if let Policy::Kv(policy) = &mut self.policy
            && !events.is_empty()
        {
            policy.observe(now, worker, events, &workload.tree);
        }
    }
}
