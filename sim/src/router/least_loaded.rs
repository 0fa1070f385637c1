//! Least loaded: the worker with the fewest requests placed and not ended; of several the first.

use super::Candidate;
use crate::event::WorkerId;

pub fn place(candidate: &Candidate<'_>) -> WorkerId {
    let active = |worker: &&WorkerId| candidate.active[worker.0 as usize];
    *candidate
        .workers
        .iter()
        .min_by_key(active)
        .expect("there is a worker to choose")
}
