//! What goes wrong in a deployment: clients that leave or lose patience, overload that is turned away, parts that break.
//!
//! * [`clients`]: cancellation, time-outs, retries with backoff.
//! * [`shedding`]: refusal while all workers are busy, by Dynamo's thresholds.
//! * [`faults`]: workers that crash, hang or slow down, routers that lose events or their memory; scripted or at random.
//! * [`attempts`]: each try of a client, and each worker that goes on with its request, is a request of its own to the
//!   system; the books are the client's.
//!
//! What the cluster does about it stands in `cluster/clients.rs` and `cluster/faults.rs`. A deployment without any of this
//! has none of it, and pays nothing.
//!
//! Whoever arrived is in the end completed, rejected, cancelled or failed, each once.

pub mod attempts;
pub mod clients;
pub mod faults;
pub mod record;
pub mod shedding;

use crate::event::WorkerId;
use attempts::Attempts;
use clients::ClientSpec;
use engine::{RequestId, Scheduled, Scheduler, StepPlan, Time, Workload};
use faults::{FaultSpec, Faults};
use record::AdversityRecord;
use rustc_hash::FxHashMap;
use shedding::Shedding;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What goes wrong. The default is nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdversitySpec {
    /// How patient clients are.
    pub clients: ClientSpec,
    /// When requests are turned away.
    pub shedding: Shedding,
    /// What breaks.
    pub faults: FaultSpec,
}

impl AdversitySpec {
    /// True if nothing goes wrong.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == AdversitySpec::default()
    }

    /// Attempts that a client's request can become: the first, retries, moves to another worker.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        1 + self.clients.retries + self.faults.migration_limit
    }
}

/// Faults in a row without a step or an arrival between them after which nothing is expected to happen any more: what is
/// left is stuck for another reason.
pub(crate) const NOTHING_MOVES: u32 = 1_000;

/// The adversities of a run.
#[derive(Debug, Clone)]
pub(crate) struct Adversity {
    pub spec: AdversitySpec,
    pub seed: u64,
    pub attempts: Attempts,
    pub faults: Faults,
    pub record: AdversityRecord,
    /// By client's request: since when its attempt has been under way; `Time::MAX` before and between attempts.
    pub since: Vec<Time>,
    /// Attempts in a router's queue.
    pub in_router: BTreeSet<RequestId>,
    /// Attempts before their first token: prompt tokens to compute on that worker.
    pub prefilling: FxHashMap<RequestId, (WorkerId, u32)>,
    /// By worker: their sum.
    pub prefill_tokens: Vec<u64>,
    /// Clients' requests that arrived and are not over.
    pub open: u32,
    /// Faults since anything else happened.
    pub fruitless_faults: u32,
}

impl Adversity {
    pub fn new(spec: &AdversitySpec, seed: u64, clients: u32, workers: usize) -> Adversity {
        Adversity {
            attempts: Attempts::new(clients, spec),
            faults: Faults::new(&spec.faults, seed, workers as u32),
            spec: spec.clone(),
            seed,
            record: AdversityRecord::default(),
            since: vec![Time::MAX; clients as usize],
            in_router: BTreeSet::new(),
            prefilling: FxHashMap::default(),
            prefill_tokens: vec![0; workers],
            open: 0,
            fruitless_faults: 0,
        }
    }

    /// After how many tokens the client of an attempt leaves that some sequence of a plan computes, and how many it had.
    fn wanted(&self, scheduler: &Scheduler, part: &Scheduled) -> Option<(u32, u32)> {
        let client = self.attempts.client_of(part.request);
        let wanted = self.spec.clients.cancel_tokens(self.seed, client)?;
        let had = self.attempts.generated(part.request) + scheduler.outputs_of_part(part);
        Some((wanted, had))
    }

    /// Steps of a new plan until some client has all the tokens it wants.
    pub fn steps_until_cancel(&self, plan: &StepPlan, scheduler: &Scheduler) -> Option<u32> {
        if !self.spec.clients.counts_tokens() {
            return None;
        }
        let parts = plan.scheduled.iter().filter(|part| part.samples);
        let left = parts.filter_map(|part| {
            let (wanted, had) = self.wanted(scheduler, part)?;
            // Where a plan before this one brings the last, that ends this one.
            wanted
                .checked_sub(had + scheduler.outputs_before(part))
                .filter(|&left| left > 0)
        });
        left.min()
    }

    /// Requests whose clients have all the tokens they want after so many steps of the oldest plan.
    pub fn satisfied(&self, scheduler: &Scheduler, steps: u32) -> Vec<RequestId> {
        if !self.spec.clients.counts_tokens() {
            return Vec::new();
        }
        let plan = scheduler.oldest().expect("only planned steps run");
        let parts = plan.scheduled.iter().filter(|part| part.samples);
        let satisfied = parts.filter(|part| {
            let wanted = self.wanted(scheduler, part);
            wanted.is_some_and(|(wanted, had)| wanted == had + steps)
        });
        satisfied.map(|part| part.request).collect()
    }

    /// Whether the client of an attempt leaves with this token of it.
    pub fn is_satisfied_by(&self, request: RequestId, tokens: u32) -> bool {
        let client = self.attempts.client_of(request);
        let wanted = self.spec.clients.cancel_tokens(self.seed, client);
        wanted == Some(self.attempts.generated(request) + tokens)
    }

    /// The prefill of an attempt is over, or will not come to an end.
    pub fn leaves_prefill(&mut self, request: RequestId) {
        if let Some((worker, tokens)) = self.prefilling.remove(&request) {
            self.prefill_tokens[worker.0 as usize] -= u64::from(tokens);
        }
    }
}

/// The workload with every attempt that its requests can become, in rounds: request `r` of `n` is followed by `n + r`,
/// `2 n + r`, and so on.
///
/// # Panics
/// With 2^32 attempts or more.
#[must_use]
pub fn with_attempts(workload: &Arc<Workload>, attempts: u32) -> Arc<Workload> {
    if attempts == 1 {
        return workload.clone();
    }
    let all = workload.requests.len() as u64 * u64::from(attempts);
    assert!(
        all < u64::from(u32::MAX),
        "attempts are numbered by 32 bits"
    );
    let mut requests = Vec::with_capacity(all as usize);
    for _ in 0..attempts {
        requests.extend_from_slice(&workload.requests);
    }
    Arc::new(Workload {
        requests,
        tree: workload.tree.clone(),
        dependencies: workload.dependencies.clone(),
        ahead: Vec::new(),
        annotations: workload
            .annotations
            .repeated(workload.requests.len(), attempts),
    })
}
