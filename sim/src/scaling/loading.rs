//! How far a worker is whose weights come over the network: when they begin to come is known, when all are there is not.

use super::fleet::Fleet;
use super::lifecycle::State;
use crate::event::WorkerId;
use engine::Time;

/// The part of a start that ends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It gets its container and image, and asks for weights then.
    BeforeLoad,
    /// It is sent its weights; nobody knows until when.
    Loading,
    /// The last one.
    Ending,
}

impl Fleet {
    /// The pool of the worker in a place.
    pub fn pool_of(&self, worker: WorkerId) -> usize {
        self.lives()[self.life_of(worker) as usize].pool as usize
    }

    /// The number of the life in a place.
    pub fn life_of(&self, worker: WorkerId) -> u32 {
        self.places[worker.0 as usize].1
    }

    /// Bytes that a worker is to be sent.
    pub fn weights_of(&self, worker: WorkerId) -> Option<u64> {
        self.pools[self.pool_of(worker)].startup.weights
    }

    /// A worker may have come to where it loads its weights; true if it has.
    pub fn begins_to_load(&mut self, now: Time, worker: WorkerId) -> bool {
        let index = worker.0 as usize;
        let (State::Starting { until } | State::Warming { until }) = &mut self.places[index].0
        else {
            return false;
        };
        let begins = *until == now && self.phases[index] == Phase::BeforeLoad;
        if begins {
            *until = Time::MAX;
            self.phases[index] = Phase::Loading;
        }
        begins
    }

    /// Whether a worker is being sent its weights.
    pub fn is_loading(&self, worker: WorkerId) -> bool {
        let index = worker.0 as usize;
        let starts = matches!(
            self.places[index].0,
            State::Starting { .. } | State::Warming { .. }
        );
        starts && self.phases[index] == Phase::Loading
    }

    /// A worker has been sent its weights.
    pub fn has_weights(&mut self, now: Time, worker: WorkerId) {
        let startup = self.pools[self.pool_of(worker)].startup;
        self.ends_start(worker, now + startup.warm_up + startup.capture);
    }

    /// A worker loads its weights from elsewhere. When it has them.
    pub fn loads_from_elsewhere(&mut self, now: Time, worker: WorkerId) -> Time {
        let startup = self.pools[self.pool_of(worker)].startup;
        let loaded = now + startup.load;
        self.ends_start(worker, loaded + startup.warm_up + startup.capture);
        loaded
    }

    fn ends_start(&mut self, worker: WorkerId, end: Time) {
        let index = worker.0 as usize;
        assert!(self.is_loading(worker), "who has loaded was loading");
        self.phases[index] = Phase::Ending;
        if let State::Starting { until } | State::Warming { until } = &mut self.places[index].0 {
            *until = end;
        }
        self.started.push((worker, end));
    }
}
