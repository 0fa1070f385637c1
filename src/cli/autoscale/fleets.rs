//! How many workers of each role: fixed fleets, and the bounds of those that planners make.
//!
//! With one pool a fleet is a number. With one pool that prefills and one that decodes it is a pair, `2P 3D`, of which all are
//! tried that have no more workers than allowed, one of each role at least. Planners may then have as many GPUs as the largest
//! fleet: who orders a worker beyond that waits until another is gone.

use super::runs::{Candidate, Kind};
use crate::scenario::Set;
use sweeps::scenario::{Role, Scenario};

/// Fleets of at most so many workers that never change.
pub fn fixed(base: &Scenario, most: u32) -> Vec<Candidate> {
    let sizes: Vec<Vec<u32>> = match base.pools.len() {
        1 => (1..=most).map(|workers| vec![workers]).collect(),
        _ => (1..most)
            .flat_map(|first| (1..=most - first).map(move |second| vec![first, second]))
            .collect(),
    };
    let candidate = |sizes: Vec<u32>| {
        let mut scenario = base.clone();
        for (pool, &workers) in scenario.pools.iter_mut().zip(&sizes) {
            pool.workers = workers;
        }
        Candidate {
            name: format!("fixed, {}", name(&scenario)),
            kind: Kind::Fixed,
            scenario,
        }
    };
    sizes.into_iter().map(candidate).collect()
}

/// `3`, or `2P 3D`.
fn name(scenario: &Scenario) -> String {
    let of = |role: Role| {
        let pool = scenario.pools.iter().find(|pool| pool.role == role);
        pool.map(|pool| pool.workers)
    };
    match (of(Role::Prefill), of(Role::Decode)) {
        (Some(prefill), Some(decode)) => format!("{prefill}P {decode}D"),
        _ => scenario.pools[0].workers.to_string(),
    }
}

/// GPUs of the largest fleet.
pub fn gpus(base: &Scenario, most: u32) -> u32 {
    let per_worker = base.pools.iter().map(|pool| pool.gpus_per_worker());
    most * per_worker.max().expect("there is a pool")
}

/// Workers of a role in the largest fleet.
pub fn most_of_a_role(base: &Scenario, most: u32) -> u32 {
    most + 1 - base.pools.len() as u32
}

/// What keeps a planner within the largest fleet, and its first workers.
pub fn bound(base: &Scenario, most: u32) -> Vec<Set> {
    let first: u32 = base.pools.iter().map(|pool| pool.workers).sum();
    let workers = |(index, workers): (usize, u32)| {
        Set::by_option(&format!("pools.{index}.workers"), &workers.to_string())
    };
    let roles = base.pools.len() as u32;
    let mut sets = Vec::new();
    if first > most {
        let even = base.pools.iter().map(|_| (most / roles).max(1));
        sets.extend(even.enumerate().map(workers));
    }
    if roles > 1 {
        let gpus = gpus(base, most).to_string();
        sets.push(Set::by_option("lifecycle.gpus", &gpus));
    }
    sets
}

/// A planner section with the settings of prefill workers, of decode workers, or of those that do both.
pub fn by_role(base: &Scenario, most: u32, policy: &str, settings: [&str; 3]) -> String {
    let bound = format!("max_replicas: {}", most_of_a_role(base, most));
    let [prefill, decode, both] = settings;
    if base.pools.len() == 1 {
        return format!("{{policy: {policy}, {both}, {bound}}}");
    }
    format!("{{policy: {policy}, prefill: {{{prefill}, {bound}}}, decode: {{{decode}, {bound}}}}}")
}
