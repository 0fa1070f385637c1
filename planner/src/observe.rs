//! What a planner is told: which workers there are, what their last forward passes did and what waits, and the traffic since
//! the last tick.
//!
//! A simulated cluster can give all of it and so can a real one: worker states from the orchestrator, forward-pass metrics
//! from the engines, traffic from the front end. Nothing here is a prediction.

use crate::traffic::TrafficWindow;
use std::collections::{BTreeMap, BTreeSet};

/// A value for each of the two roles. Where prefill and decode are not apart, the workers count as decode and `prefill` is
/// empty, as in Dynamo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerRole<T> {
    /// Of prefill workers.
    pub prefill: T,
    /// Of decode workers, or of aggregated ones.
    pub decode: T,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Prefill workers.
    Prefill,
    /// Decode workers, or aggregated ones.
    Decode,
}

impl Role {
    /// Both, prefill first.
    pub const BOTH: [Role; 2] = [Role::Prefill, Role::Decode];
}

impl<T> PerRole<T> {
    /// The value of one role.
    #[must_use]
    pub fn get(&self, role: Role) -> &T {
        match role {
            Role::Prefill => &self.prefill,
            Role::Decode => &self.decode,
        }
    }

    /// The value of one role, to be changed.
    pub fn get_mut(&mut self, role: Role) -> &mut T {
        match role {
            Role::Prefill => &mut self.prefill,
            Role::Decode => &mut self.decode,
        }
    }

    /// The same for other values.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> PerRole<U> {
        PerRole {
            prefill: change(self.prefill),
            decode: change(self.decode),
        }
    }
}

/// A worker's number, never used twice in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

/// Requests and tokens, of one forward pass or of what waits for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Requests in prefill.
    pub prefill_requests: u64,
    /// Prompt tokens to compute.
    pub prefill_tokens: u64,
    /// Tokens of those requests that are in the KV cache already.
    pub prefill_kv_tokens: u64,
    /// Requests in decode.
    pub decode_requests: u64,
    /// Their context, in tokens.
    pub decode_kv_tokens: u64,
}

impl Work {
    /// Whether a forward pass over it would do nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.prefill_tokens == 0 && self.decode_requests == 0
    }
}

/// The last forward pass of one attention-data-parallel rank of a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForwardPass {
    /// The worker.
    pub worker: WorkerId,
    /// Its rank.
    pub rank: u32,
    /// How long the pass took, in seconds.
    pub wall_time_s: f64,
    /// What was in it.
    pub scheduled: Work,
    /// What waited.
    pub queued: Work,
}

/// The workers of one role.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pool {
    /// Those that serve.
    pub ready: Vec<WorkerId>,
    /// How many are on their way to serve.
    pub starting: u32,
    /// How many still finish what they have and get nothing new.
    pub draining: u32,
    /// The last forward pass of each rank that had one since the last tick.
    pub passes: Vec<ForwardPass>,
}

impl Pool {
    /// Workers that serve or will: what a target is compared with.
    #[must_use]
    pub fn staying(&self) -> u32 {
        self.ready_count() + self.starting
    }

    /// Brings the last known passes up to date: new ones replace those of the same rank, in place, and workers that no longer
    /// serve are forgotten.
    pub fn update(&self, known: &mut Vec<ForwardPass>) {
        let place = |(at, pass): (usize, &ForwardPass)| ((pass.worker, pass.rank), at);
        let mut places: BTreeMap<(WorkerId, u32), usize> =
            known.iter().enumerate().map(place).collect();
        for pass in &self.passes {
            let at = *places
                .entry((pass.worker, pass.rank))
                .or_insert(known.len());
            if at == known.len() {
                known.push(*pass);
            } else {
                known[at] = *pass;
            }
        }
        let ready: BTreeSet<WorkerId> = self.ready.iter().copied().collect();
        known.retain(|pass| ready.contains(&pass.worker));
    }

    /// Workers that serve.
    #[must_use]
    pub fn ready_count(&self) -> u32 {
        self.ready.len() as u32
    }
}

/// Latencies as a metrics server has them: over a window that trails behind (five minutes in Prometheus' usual queries).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrailingLatency {
    /// 95th percentile of TTFT in milliseconds, if any request had one.
    pub ttft_p95_ms: Option<f64>,
    /// 95th percentile of ITL in milliseconds, if there was one.
    pub itl_p95_ms: Option<f64>,
}

/// All that is seen at a tick.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observations {
    /// The workers.
    pub pools: PerRole<Pool>,
    /// Arrivals and lengths since the last tick.
    pub traffic: TrafficWindow,
    /// Latencies of the last minutes.
    pub latency: TrailingLatency,
    /// Requests that wait in front of all workers: in the router, or for a worker to start.
    pub waiting_in_front: u64,
}
