//! Power of two choices (Mitzenmacher 2001): of two different workers drawn at random, the one with fewer requests
//! placed and not ended; the first drawn if they have equally many.

use super::Candidate;
use crate::event::WorkerId;
use crate::random::{Purpose, draw};

pub fn place(seed: u64, candidate: &Candidate<'_>) -> WorkerId {
    let workers = candidate.workers;
    let entity = u64::from(candidate.request.0);
    let first = draw(seed, Purpose::Route, entity, workers.len());
    if workers.len() == 1 {
        return workers[first];
    }
    let step = 1 + draw(seed, Purpose::RouteSecond, entity, workers.len() - 1);
    let (a, b) = (workers[first], workers[(first + step) % workers.len()]);
    if candidate.active.get(b.0 as usize) < candidate.active.get(a.0 as usize) {
        b
    } else {
        a
    }
}
