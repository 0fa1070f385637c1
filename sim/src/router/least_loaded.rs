//! Least loaded: the worker with the fewest requests placed and not ended; of several one drawn by (seed, request).

use super::Candidate;
use crate::event::WorkerId;
use crate::random::{Purpose, draw};

pub fn place(seed: u64, candidate: &Candidate<'_>) -> WorkerId {
    let active = |worker: &WorkerId| candidate.active[worker.0 as usize];
    let workers = candidate.workers.iter();
    let least = workers
        .clone()
        .map(active)
        .min()
        .expect("there is a worker to choose");
    let idlest = || workers.clone().filter(|worker| active(worker) == least);
    let tie = draw(
        seed,
        Purpose::RouteTie,
        u64::from(candidate.request.0),
        idlest().count(),
    );
    *idlest().nth(tie).expect("a draw is below the count")
}
