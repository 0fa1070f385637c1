//! Shadow failover: beside each worker a second process waits on the same GPUs, with the weights of the first.
//!
//! When the process of a worker that serves crashes, its shadow serves in its place a moment later, on the same GPUs, with an
//! empty KV cache. Requests that were there are lost to the worker. It does not help where GPUs are gone too: with a lost node,
//! with GPUs that a provider takes back, or with a worker that did not serve yet. Source: Dynamo's documentation of shadow engine
//! failover, which states no time.
//
// Model: the next shadow is there at once, and it takes no memory from the KV cache; a real one has its own buffers and
// graphs, a few gigabytes of each GPU.

use super::fleet::Fleet;
use super::lifecycle::{Life, State};
use crate::event::WorkerId;
use engine::Time;

impl Fleet {
    /// The shadow of a worker that crashed takes over; false if there is none or it cannot.
    pub fn fail_over(&mut self, now: Time, worker: WorkerId) -> bool {
        let place = worker.0 as usize;
        let (State::Ready, lost) = self.places[place] else {
            return false;
        };
        let Some(shadow) = self.shadow else {
            return false;
        };
        let until = now + shadow;
        let lost = &mut self.lives[lost as usize];
        lost.gone = now;
        let successor = Life {
            worker: worker.0,
            generation: lost.generation,
            placed: now,
            ..Life::of(lost.pool, now)
        };
        self.places[place] = (State::Starting { until }, self.lives.len() as u32);
        self.lives.push(successor);
        // Who was sent weights by the process that is gone asks for another.
        self.vacated.push(worker);
        self.started.push((worker, until));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::PoolPlaces;
    use super::super::lifecycle::{LifecycleSpec, Startup};
    use super::*;
    use engine::Span;

    #[test]
    fn a_shadow_serves_in_the_same_place_and_a_worker_that_starts_has_none() {
        let pool = PoolPlaces {
            places: 2,
            initial: 1,
            gpus_per_worker: 2,
            startup: Startup {
                load: Span(100),
                ..Startup::default()
            },
        };
        let spec = LifecycleSpec {
            shadow: Some(Span(3)),
            ..LifecycleSpec::default()
        };
        // There are no GPUs but its own.
        let mut fleet = Fleet::new(vec![pool], Some(2), &spec);
        let first = WorkerId(0);
        assert!(fleet.fail_over(Time(10), first));
        fleet.start_waiting(Time(10));
        assert_eq!(fleet.started, [(first, Time(13))]);
        assert!(!fleet.fail_over(Time(11), first), "it does not serve yet");
        assert!(fleet.becomes_ready(Time(13), first));
        let lives: Vec<_> = (fleet.lives().iter())
            .map(|life| (life.worker, life.placed, life.ready, life.gone))
            .collect();
        assert_eq!(lives[0], (0, Time(0), Time(0), Time(10)));
        assert_eq!(lives[1], (0, Time(10), Time(13), Time::MAX));
    }
}
