//! Random: every worker is equally likely, drawn by (seed, request).

use super::Candidate;
use crate::event::WorkerId;
use crate::random::{Purpose, draw};

pub fn place(seed: u64, candidate: &Candidate<'_>) -> WorkerId {
    candidate.workers[draw(
        seed,
        Purpose::Route,
        u64::from(candidate.request.0),
        candidate.workers.len(),
    )]
}
