//! Regret: for a sample of a router's decisions, what its second choice would have given.
//!
//! Just before a sampled request is placed the run is copied. In the copy the router must not use the worker that it chose, and
//! chooses again among the others; then the copy runs on, all later decisions its own. What the request got there is compared
//! with the run itself, and so is what all requests together got that were under way, or were sent within the horizon. A decision
//! is left out if the router lets the request wait, or has one worker only.
//!
//! Why a horizon: a run is chaotic. After a while every copy is another run altogether, and its sum over all requests says how
//! lucky the run was with which all copies are compared, not what the decision was worth.

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
    /// TTFT of all requests that were under way then or sent within the horizon, warm-up left out, in picoseconds.
    pub all_ttft_ps: u128,
    /// Their E2E.
    pub all_e2e_ps: u128,
}

/// Which decisions are looked at, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many.
    pub decisions: usize,
    /// Draws them.
    pub seed: u64,
    /// Requests sent so long after a decision count among those that it touches.
    pub horizon: Span,
}

/// Runs a cluster whose workers do everything to the end, then again to look at a sample of its decisions, in the order in which
/// they were taken. `timing` holds one model per pool.
#[must_use]
pub fn run_with_regret(
    mut cluster: Cluster,
    timing: &[Arc<dyn StepTime>],
    sample: Sample,
) -> (Recording, Vec<Decision>) {
    assert!(
        cluster.is_aggregated(),
        "regret is of routers in front of workers that do everything"
    );
    let recording = run(cluster.clone(), timing);
    let mut sampled = draw_requests(recording.requests.len(), sample);
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
            let touched = touched(&recording.requests, now, sample.horizon);
            let other = run_on(fork, driver, (now, event), &touched);
            let runs = [&recording.requests, other.records()];
            decisions.extend(compared(runs, request, &touched));
        }
        driver.perform(now, &mut actions, &cluster);
    }
    (recording, decisions)
}

/// The requests with the smallest draws.
fn draw_requests(requests: usize, sample: Sample) -> BTreeSet<u32> {
    let draw = |id: &u32| unit(sample.seed, Purpose::Regret, u64::from(*id));
    let mut all: Vec<u32> = (0..requests as u32).collect();
    all.sort_by(|a, b| draw(a).total_cmp(&draw(b)));
    all.into_iter().take(sample.decisions).collect()
}

/// Where a request has just been placed.
fn worker_of(cluster: &Cluster, request: RequestId) -> Option<WorkerId> {
    let worker = cluster.records()[request.0 as usize].worker;
    (worker != u32::MAX).then_some(WorkerId(worker))
}

/// The requests that were under way at a moment of a run or were sent within the horizon, in order.
fn touched(run: &[RequestRecord], now: Time, horizon: Span) -> Vec<u32> {
    let is_touched = |record: &RequestRecord| {
        has_ended(record) && record.finish > now && record.arrival <= now + horizon
    };
    let all = (0..).zip(run);
    let touched = all.filter(|(_, record)| is_touched(record) && !record.is_warmup);
    touched.map(|(index, _)| index).collect()
}

fn has_ended(record: &RequestRecord) -> bool {
    record.outcome == Outcome::Completed
}

/// Runs a copy from an event on until all of `touched` have ended, or to the end.
fn run_on(
    mut cluster: Cluster,
    mut driver: Driver<'_>,
    from: (Time, Event),
    touched: &[u32],
) -> Cluster {
    let looks_ahead = cluster.wants_advice();
    let mut actions = Vec::new();
    let mut left = touched.len();
    let mut next = Some(from);
    while let Some((now, event)) = next {
        if looks_ahead {
            look_ahead::advise(&mut cluster, &driver, now, event);
        }
        cluster.handle(now, event, &mut actions);
        driver.perform(now, &mut actions, &cluster);
        let has_ended = |index: u32| has_ended(&cluster.records()[index as usize]);
        while left > 0 && has_ended(touched[left - 1]) {
            left -= 1;
        }
        if left == 0 {
            break;
        }
        next = driver.next(&cluster);
    }
    cluster
}

/// The decision as it was taken in one run and in another; `None` if the request did not end in both.
fn compared(
    [run, other]: [&[RequestRecord]; 2],
    request: RequestId,
    touched: &[u32],
) -> Option<Decision> {
    let own = request.0 as usize;
    if !has_ended(&run[own]) || !has_ended(&other[own]) {
        return None;
    }
    let ttft = |record: &RequestRecord| record.first_token.since(record.arrival);
    let e2e = |record: &RequestRecord| record.finish.since(record.arrival);
    let taken = |records: &[RequestRecord]| {
        let sum = |of: &dyn Fn(&RequestRecord) -> Span| -> u128 {
            let both = touched
                .iter()
                .filter(|index| has_ended(&other[**index as usize]));
            both.map(|index| u128::from(of(&records[*index as usize]).0))
                .sum()
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
