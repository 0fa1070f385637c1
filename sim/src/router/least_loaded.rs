//! Least loaded: the worker with the fewest requests placed and not ended; of several one drawn by (seed, request).

//!
//! Among all workers these are known from a [tournament](super::min_tree); among some, all of them are looked at.

use super::Candidate;
use crate::event::WorkerId;
use crate::random::{Purpose, draw};

pub fn place(seed: u64, candidate: &Candidate<'_>) -> WorkerId {
    let tie = |ties| {
        let entity = u64::from(candidate.request.0);
        draw(seed, Purpose::RouteTie, entity, ties)
    };
    if candidate.workers.len() == candidate.active.len() {
        let least = candidate.active.least();
        return WorkerId(candidate.active.nth_least(tie(least.count)) as u32);
    }
    let active = |worker: &WorkerId| candidate.active.get(worker.0 as usize);
    let workers = candidate.workers.iter();
    let least = workers
        .clone()
        .map(active)
        .min()
        .expect("there is a worker to choose");
    let idlest = || workers.clone().filter(|worker| active(worker) == least);
    *idlest()
        .nth(tie(idlest().count()))
        .expect("a draw is below the count")
}
