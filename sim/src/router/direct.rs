//! Direct: the request names its worker. Nothing is chosen, so a gateway that chooses elsewhere (Dynamo's `direct`), or a
//! recorded placement, can be replayed.
//!
//! A request whose worker cannot hold it, or has not the labels it requires, is refused before it comes here.

use super::Candidate;
use crate::event::WorkerId;

pub fn place(candidate: &Candidate<'_>) -> WorkerId {
    candidate
        .pinned
        .expect("every request names its worker, or the scenario is refused")
}

#[cfg(test)]
mod tests {
    use super::super::min_tree::MinTree;
    use super::*;
    use engine::{RequestId, Workload};

    #[test]
    fn the_named_worker_gets_it_however_loaded() {
        let candidate = Candidate {
            request: RequestId(0),
            workload: &Workload::default(),
            workers: &[WorkerId(2)],
            active: &MinTree::of(&[0, 0, 9]),
            tiers: None,
            pinned: Some(WorkerId(2)),
            cost_factors: None,
        };
        assert_eq!(place(&candidate), WorkerId(2));
    }
}
