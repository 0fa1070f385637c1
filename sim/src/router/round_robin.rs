//! Round robin: the workers take turns. Refused requests do not take one. A worker that cannot hold the request is
//! passed over.

use super::Candidate;
use crate::event::WorkerId;

/// Whose turn it is.
#[derive(Debug, Clone, Default)]
pub struct RoundRobin {
    next: u32,
}

impl RoundRobin {
    pub fn place(&mut self, candidate: &Candidate<'_>) -> WorkerId {
        let workers = candidate.workers;
        let turn = workers.partition_point(|worker| worker.0 < self.next);
        let worker = workers[if turn == workers.len() { 0 } else { turn }];
        self.next = worker.0 + 1;
        worker
    }
}
