//! Clairvoyant: the worker on which the request ends first, found by trying. An oracle, no router can do it.
//!
//! When a request is to be placed, a copy of the whole deployment gets it on every worker at once and runs on until it has
//! ended on one (`virtual_clock/look_ahead.rs`); of workers where it ends at the same moment the first is taken. So the router
//! knows exactly what every worker has in its queue, batch and KV cache, how long every answer will be, and what every step
//! will take. It does not know who comes later, and it looks after the request at hand alone: what it takes from others, and a
//! cache better left to somebody else, are not counted. It bounds what knowledge of the present can do for a request that comes
//! now; over a whole run a router that spares others can be better.

use super::Candidate;
use crate::event::WorkerId;

/// What the driver found out for the request to be placed next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clairvoyant {
    advice: Option<WorkerId>,
}

impl Clairvoyant {
    /// The next request ends first here.
    pub fn advise(&mut self, worker: WorkerId) {
        self.advice = Some(worker);
    }

    pub fn place(&mut self, candidate: &Candidate<'_>) -> WorkerId {
        let worker = self.advice.take();
        let worker =
            worker.expect("only the virtual clock drives a clairvoyant router, and it looks ahead");
        debug_assert!(
            candidate.workers.contains(&worker),
            "it was tried where it can run"
        );
        worker
    }
}
