//! Which worker gets a request. One policy per file; each opens with its rule in words.
//!
//! A router sees what a real one sees: which requests it placed where and which of them have ended, and, if it asks
//! for them, the workers' KV events at the end of the step in which they happened. Random choices and ties are drawn
//! by (seed, purpose, request), so the same run places the same way every time.

mod kv;
mod least_loaded;
mod power_of_two;
mod random;
mod round_robin;

pub use kv::{KvRouter, KvRouterSpec};

use crate::event::WorkerId;
use engine::{KvEvent, RequestId, Workload};

/// How to choose a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RouterSpec {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The one with the fewest requests.
    LeastLoaded,
    /// The less loaded of two drawn at random.
    PowerOfTwo,
    /// The cheapest by prefill left to do after prefix hits, and by blocks in use.
    Kv(KvRouterSpec),
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
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
    pub active: &'a [u32],
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
    Kv(Box<KvRouter>),
}

impl Router {
    /// A router for `workers` workers with KV blocks of `block_size` tokens.
    #[must_use]
    pub fn new(spec: RouterSpec, seed: u64, workers: usize, block_size: u32) -> Self {
        let policy = match spec {
            RouterSpec::RoundRobin => Policy::RoundRobin(round_robin::RoundRobin::default()),
            RouterSpec::Random => Policy::Random,
            RouterSpec::LeastLoaded => Policy::LeastLoaded,
            RouterSpec::PowerOfTwo => Policy::PowerOfTwo,
            RouterSpec::Kv(spec) => {
                Policy::Kv(Box::new(KvRouter::new(spec, seed, workers, block_size)))
            }
        };
        Router { seed, policy }
    }

    /// True if the router wants the workers' KV events.
    #[must_use]
    pub fn wants_kv_events(&self) -> bool {
        matches!(self.policy, Policy::Kv(_))
    }

    /// Chooses a worker.
    pub fn place(&mut self, candidate: Candidate<'_>) -> Placement {
        let worker = match &mut self.policy {
            Policy::RoundRobin(policy) => policy.place(&candidate),
            Policy::Random => random::place(self.seed, &candidate),
            Policy::LeastLoaded => least_loaded::place(&candidate),
            Policy::PowerOfTwo => power_of_two::place(self.seed, &candidate),
            Policy::Kv(policy) => return policy.place(&candidate),
        };
        Placement {
            worker,
            overlap_tokens: 0,
        }
    }

    /// The first token of a request arrived: its prefill is over.
    pub fn prefill_done(&mut self, request: RequestId) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.prefill_done(request);
        }
    }

    /// A request that was placed has ended.
    pub fn ended(&mut self, request: RequestId) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.ended(request);
        }
    }

    /// What happened in a worker's KV cache, in order.
    pub fn observe(&mut self, worker: WorkerId, events: &[KvEvent]) {
        if let Policy::Kv(policy) = &mut self.policy {
            policy.observe(worker, events);
        }
    }
}
