//! Regret: for a sample of a router's decisions, what its second choice would have given.
//!
//! Just before a sampled request is placed the run is copied. In the copy the router must not use the worker that it chose, and
//! chooses again among the others; then the copy runs on to the end of the workload, all later decisions its own. What the
//! request, and all requests together, got there is compared with the run itself. A decision is left out if the router lets
//! the request wait, or has one worker only.
//!
//! Later decisions may fall differently in the copy, for better or worse, so the sum over all requests of one decision is mostly
//! chance; its mean over many is not.

use super::{Driver, look_ahead, run};
use crate::cluster::Cluster;
use crate::event::{Event, WorkerId};
use crate::random::{Purpose, unit};
use crate::record::{Outcome, Recording, RequestRecord};
use engine::{RequestId, Span, StepTime, Time};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A decision, as it was taken and as it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whom it was about.
    pub request: RequestId,
    /// What was done.
    pub chosen: Taken,
    /// What was not.
    pub second: Taken,
}

/// Where a request went, and what followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its worker.
    pub worker: WorkerId,
    /// Arrival to its first token.
    pub ttft: Span,
    /// Arrival to its last.
    pub e2e: Span,
    /// TTFT of all requests that ended in both runs, warm-up left out, in picoseconds.
    pub all_ttft_ps: u128,
    /// Their E2E.
    pub all_e2e_ps: u128,
}

/// Runs a cluster whose workers do everything to the end, then again to look at `sample` decisions drawn by `seed`, in the order
/// in which they were taken. `timing` holds one model per pool.
#[must_use]
pub fn run_with_regret(
    mut cluster: Cluster,
    timing: &[Arc<dyn StepTime>],
    sample: usize,
    seed: u64,
) -> (Recording, Vec<Decision>) {
    assert!(
        cluster.is_aggregated(),
        "regret is of routers in front of workers that do everything"
    );
    let recording = run(cluster.clone(), timing);
    let mut sampled = draw_requests(cluster.records().len(), sample, seed);
    let looks_ahead = cluster.wants_advice();
    let mut driver = Driver::new(&cluster, timing);
    let mut actions = Vec::new();
    let mut decisions = Vec::new();
    cluster.start(&mut actions);
    driver.perform(Time::ZERO, &mut actions, &cluster);
    while !sampled.is_empty()
        && let Some((now, event)) = driver.next(&cluster)
    {
        let request = cluster.routed_by(&event);
        let asked = request.filter(|id| sampled.remove(&id.0) && cluster.choices(*id) > 1);
        let before = asked.map(|request| (request, cluster.clone(), driver.clone()));
        if looks_ahead {
            look_ahead::advise(&mut cluster, &driver, now, event);
        }
        cluster.handle(now, event, &mut actions);
        if let Some((request, mut fork, driver)) = before
            && let Some(chosen) = worker_of(&cluster, request)
        {
            fork.bar(request, chosen);
            let other = run_on(fork, driver, now, event);
            decisions.extend(compared(&recording.requests, &other, request));
        }
        driver.perform(now, &mut actions, &cluster);
    }
    (recording, decisions)
}

/// The requests with the smallest draws.
fn draw_requests(requests: usize, sample: usize, seed: u64) -> BTreeSet<u32> {
    let draw = |id: &u32| unit(seed, Purpose::Regret, u64::from(*id));
    let mut all: Vec<u32> = (0..requests as u32).collect();
    all.sort_by(|a, b| draw(a).total_cmp(&draw(b)));
    all.into_iter().take(sample).collect()
}

/// Where a request has just been placed.
fn worker_of(cluster: &Cluster, request: RequestId) -> Option<WorkerId> {
    let worker = cluster.records()[request.0 as usize].worker;
    (worker != u32::MAX).then_some(WorkerId(worker))
}

/// Runs a copy from an event on to the end.
fn run_on(
    mut cluster: Cluster,
    mut driver: Driver<'_>,
    now: Time,
    event: Event,
) -> Vec<RequestRecord> {
    let looks_ahead = cluster.wants_advice();
    let mut actions = Vec::new();
    let mut next = Some((now, event));
    while let Some((now, event)) = next {
        if looks_ahead {
            look_ahead::advise(&mut cluster, &driver, now, event);
        }
        cluster.handle(now, event, &mut actions);
        driver.perform(now, &mut actions, &cluster);
        next = driver.next(&cluster);
    }
    cluster.records().to_vec()
}

/// The decision as it was taken in one run and in another; `None` if the request did not end in both.
fn compared(
    run: &[RequestRecord],
    other: &[RequestRecord],
    request: RequestId,
) -> Option<Decision> {
    let has_ended = |record: &RequestRecord| record.outcome == Outcome::Completed;
    let counts = |index: &usize| has_ended(&run[*index]) && has_ended(&other[*index]);
    let own = request.0 as usize;
    if !counts(&own) {
        return None;
    }
    let ttft = |record: &RequestRecord| record.first_token.since(record.arrival);
    let e2e = |record: &RequestRecord| record.finish.since(record.arrival);
    let taken = |records: &[RequestRecord]| {
        let sum = |of: &dyn Fn(&RequestRecord) -> Span| -> u128 {
            let counted =
                (0..records.len()).filter(|index| counts(index) && !run[*index].is_warmup);
            counted.map(|index| u128::from(of(&records[index]).0)).sum()
        };
        Taken {
            worker: WorkerId(records[own].worker),
            ttft: ttft(&records[own]),
            e2e: e2e(&records[own]),
            all_ttft_ps: sum(&ttft),
            all_e2e_ps: sum(&e2e),
        }
    };
    Some(Decision {
        request,
        chosen: taken(run),
        second: taken(other),
    })
}
