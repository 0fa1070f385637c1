//! What becomes of a worker, and how long it takes to be ready.
//!
//! A worker is *ordered* by a planner, *waits* until there are GPUs for it, *starts* in parts (schedule, pull the image, load
//! weights, warm up, capture graphs), is *ready*, *drains* (no new requests, what it has is finished) and is *gone*. Only then
//! are its GPUs free. One that waits or starts can be called off at once; of several the newest goes first, and of ready
//! workers the newest too, as in Dynamo's replay.
//!
//! The cluster has a fixed number of places for workers in each pool. A place is taken by one worker after the other; each of
//! them begins with an empty KV cache, and has a number of its own that is never used again.

use crate::event::WorkerId;
use engine::{Span, Time};

/// How long the parts of a start take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Startup {
    /// From the order to a container on a node.
    pub schedule: Span,
    /// Until the image is there.
    pub pull: Span,
    /// Until the weights are in the GPUs.
    pub load: Span,
    /// The same where a ready worker of the pool can send them; `None` if neighbours do not.
    pub load_from_neighbour: Option<Span>,
    /// Memory profile and first passes.
    pub warm_up: Span,
    /// Graphs and kernels for the batch sizes to come.
    pub capture: Span,
}

impl Startup {
    /// All parts; a neighbour may send the weights.
    #[must_use]
    pub fn total(&self, has_neighbour: bool) -> Span {
        let load = self.load_from_neighbour.filter(|_| has_neighbour);
        self.schedule + self.pull + load.unwrap_or(self.load) + self.warm_up + self.capture
    }
}

/// What a place for a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody.
    Vacant,
    /// A worker that will be ready then.
    Starting {
        /// When.
        until: Time,
    },
    /// A worker that serves.
    Ready,
    /// A worker that finishes what it has.
    Draining,
}

/// The life of one worker. Moments that have not come are [`Time::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its place, `u32::MAX` while it waits for GPUs.
    pub worker: u32,
    /// Index of its pool.
    pub pool: u32,
    /// A planner asked for it.
    pub ordered: Time,
    /// It got its GPUs.
    pub placed: Time,
    /// It began to serve.
    pub ready: Time,
    /// It got no more requests.
    pub drained: Time,
    /// Its GPUs were free again, or it was called off.
    pub gone: Time,
}

/// Workers of a pool by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Waiting for GPUs.
    pub waiting: u32,
    /// Starting.
    pub starting: u32,
    /// Serving.
    pub ready: u32,
    /// Finishing.
    pub draining: u32,
}

impl Count {
    /// Those that serve or will.
    #[must_use]
    pub const fn staying(&self) -> u32 {
        self.waiting + self.starting + self.ready
    }
}

/// What a pool's workers have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolPlaces {
    pub places: u32,
    pub initial: u32,
    pub gpus_per_worker: u32,
    pub startup: Startup,
}

/// All places and who is there.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pools: Vec<PoolPlaces>,
    /// By pool: its first place.
    first: Vec<u32>,
    /// By place: its state and the number of the life that it holds or held.
    places: Vec<(State, u32)>,
    lives: Vec<Life>,
    /// Lives without GPUs, oldest first.
    waiting: Vec<u32>,
    /// GPUs that nobody has; `None` without a bound.
    free_gpus: Option<u32>,
    draining: u32,
}

/// Who goes when there is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dismissed {
    /// One that did not serve yet.
    CalledOff,
    /// This one gets no more requests.
    Drains(WorkerId),
}

impl Fleet {
    /// The first workers of each pool are ready at once; they fit into `gpus`.
    pub fn new(pools: Vec<PoolPlaces>, gpus: Option<u32>) -> Self {
        let mut fleet = Fleet {
            first: Vec::new(),
            places: Vec::new(),
            lives: Vec::new(),
            waiting: Vec::new(),
            free_gpus: gpus,
            draining: 0,
            pools,
        };
        for pool in 0..fleet.pools.len() as u32 {
            let PoolPlaces {
                places, initial, ..
            } = fleet.pools[pool as usize];
            assert!(initial <= places, "the first workers have places");
            fleet.first.push(fleet.places.len() as u32);
            fleet.places.extend((0..places).map(|_| (State::Vacant, 0)));
            (0..initial).for_each(|_| fleet.order(Time::ZERO, pool));
        }
        fleet.settle(Time::ZERO, true);
        assert!(fleet.waiting.is_empty(), "the first workers have GPUs");
        fleet
    }

    pub fn state(&self, worker: WorkerId) -> State {
        self.places[worker.0 as usize].0
    }

    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// Whether somebody drains.
    pub fn drains(&self) -> bool {
        self.draining > 0
    }

    /// Whether somebody starts. Who waits for GPUs that nobody gives back may wait for ever.
    pub fn grows(&self) -> bool {
        let is_starting = |(state, _): &(State, u32)| matches!(state, State::Starting { .. });
        self.places.iter().any(is_starting)
    }

    fn places_of(&self, pool: usize) -> std::ops::Range<usize> {
        let first = self.first[pool] as usize;
        first..first + self.pools[pool].places as usize
    }

    /// The places whose state is `wanted` and the numbers of their workers, oldest worker first.
    pub fn in_state(&self, pool: usize, wanted: State) -> Vec<(WorkerId, u32)> {
        let places = self.places_of(pool);
        let those = places.filter(|&at| self.places[at].0 == wanted);
        let mut those: Vec<(WorkerId, u32)> = those
            .map(|at| (WorkerId(at as u32), self.places[at].1))
            .collect();
        those.sort_unstable_by_key(|&(_, life)| life);
        those
    }

    pub fn count(&self, pool: usize) -> Count {
        let waiting = self.waiting.iter();
        let waiting = waiting.filter(|&&life| self.lives[life as usize].pool as usize == pool);
        let mut count = Count {
            waiting: waiting.count() as u32,
            ..Count::default()
        };
        for (state, _) in &self.places[self.places_of(pool)] {
            match state {
                State::Vacant => {}
                State::Starting { .. } => count.starting += 1,
                State::Ready => count.ready += 1,
                State::Draining => count.draining += 1,
            }
        }
        count
    }

    /// One more is wanted; it waits until [`Fleet::start_waiting`].
    pub fn order(&mut self, now: Time, pool: u32) {
        self.waiting.push(self.lives.len() as u32);
        self.lives.push(Life {
            worker: u32::MAX,
            pool,
            ordered: now,
            placed: Time::MAX,
            ready: Time::MAX,
            drained: Time::MAX,
            gone: Time::MAX,
        });
    }

    /// Starts those that wait, oldest first, as far as there are places and GPUs. Appends who will be ready when.
    pub fn start_waiting(&mut self, now: Time, started: &mut Vec<(WorkerId, Time)>) {
        if self.waiting.is_empty() {
            return;
        }
        for worker in self.settle(now, false) {
            let State::Starting { until } = self.state(worker) else {
                unreachable!("who gets a place starts");
            };
            started.push((worker, until));
        }
    }

    /// Gives places to those that wait.
    fn settle(&mut self, now: Time, are_ready: bool) -> Vec<WorkerId> {
        let mut settled = Vec::new();
        let mut left = Vec::new();
        for life in std::mem::take(&mut self.waiting) {
            let pool = self.lives[life as usize].pool as usize;
            let gpus = self.pools[pool].gpus_per_worker;
            let mut places = self.places_of(pool);
            let place = places.find(|&at| self.places[at].0 == State::Vacant);
            let has_gpus = self.free_gpus.is_none_or(|free| free >= gpus);
            let Some(place) = place.filter(|_| has_gpus) else {
                left.push(life);
                continue;
            };
            let has_neighbour = self.count(pool).ready > 0;
            let until = now + self.pools[pool].startup.total(has_neighbour);
            let record = &mut self.lives[life as usize];
            record.worker = place as u32;
            record.placed = now;
            let state = if are_ready {
                record.ready = now;
                State::Ready
            } else {
                State::Starting { until }
            };
            self.places[place] = (state, life);
            self.free_gpus = self.free_gpus.map(|free| free - gpus);
            settled.push(WorkerId(place as u32));
        }
        self.waiting = left;
        settled
    }

    /// A worker may have come to the end of its start; true if it has.
    pub fn becomes_ready(&mut self, now: Time, worker: WorkerId) -> bool {
        let (state, life) = &mut self.places[worker.0 as usize];
        // One that was called off, or a later one in its place, does not count.
        let is_due = *state == State::Starting { until: now };
        if is_due {
            *state = State::Ready;
            self.lives[*life as usize].ready = now;
        }
        is_due
    }

    /// Takes away the newest worker of a pool that has one: who waits, then who starts, then who serves.
    pub fn dismiss(&mut self, now: Time, pool: usize) -> Dismissed {
        let newest = |life: &&u32| self.lives[**life as usize].pool as usize == pool;
        if let Some(&life) = self.waiting.iter().rfind(newest) {
            self.waiting.retain(|&other| other != life);
            self.lives[life as usize].gone = now;
            return Dismissed::CalledOff;
        }
        let places = self.places_of(pool);
        let starting = places.filter(|&at| matches!(self.places[at].0, State::Starting { .. }));
        if let Some(at) = starting.max_by_key(|&at| self.places[at].1) {
            self.vacate(now, WorkerId(at as u32));
            return Dismissed::CalledOff;
        }
        let ready = self.in_state(pool, State::Ready);
        let &(worker, life) = ready.last().expect("a pool has a worker to take away");
        self.places[worker.0 as usize].0 = State::Draining;
        self.lives[life as usize].drained = now;
        self.draining += 1;
        Dismissed::Drains(worker)
    }

    /// When a worker will be ready that starts now on the GPUs of one that is lost; now if none will.
    pub fn starts_again_by(&self, now: Time, worker: WorkerId) -> Time {
        let (state, life) = self.places[worker.0 as usize];
        let others = match state {
            State::Vacant | State::Draining => return now,
            State::Starting { .. } => 0,
            State::Ready => 1,
        };
        let pool = self.lives[life as usize].pool as usize;
        let has_neighbour = self.count(pool).ready > others;
        now + self.pools[pool].startup.total(has_neighbour)
    }

    /// A worker is lost. Unless it was about to leave another one starts on its GPUs: when that will be ready.
    pub fn crash(&mut self, now: Time, worker: WorkerId) -> Option<Time> {
        let (state, old) = self.places[worker.0 as usize];
        if state == State::Draining {
            self.vacate(now, worker);
            return None;
        }
        let until = self.starts_again_by(now, worker);
        let next = self.lives.len() as u32;
        let old = &mut self.lives[old as usize];
        assert!(state != State::Vacant, "who is lost was there");
        old.gone = now;
        let next_life = Life {
            worker: worker.0,
            pool: old.pool,
            ordered: now,
            placed: now,
            ready: Time::MAX,
            drained: Time::MAX,
            gone: Time::MAX,
        };
        self.lives.push(next_life);
        self.places[worker.0 as usize] = (State::Starting { until }, next);
        Some(until)
    }

    /// A worker leaves its place, and its GPUs are free.
    pub fn vacate(&mut self, now: Time, worker: WorkerId) {
        let (state, life) = &mut self.places[worker.0 as usize];
        assert!(*state != State::Vacant, "who leaves was there");
        self.draining -= u32::from(*state == State::Draining);
        *state = State::Vacant;
        let life = &mut self.lives[*life as usize];
        life.gone = now;
        let gpus = self.pools[life.pool as usize].gpus_per_worker;
        self.free_gpus = self.free_gpus.map(|free| free + gpus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(places: u32, gpus: Option<u32>) -> Fleet {
        let startup = Startup {
            schedule: Span(5),
            load: Span(100),
            load_from_neighbour: Some(Span(10)),
            ..Startup::default()
        };
        let pool = PoolPlaces {
            places,
            initial: 1,
            gpus_per_worker: 2,
            startup,
        };
        Fleet::new(vec![pool], gpus)
    }

    #[test]
    fn workers_wait_for_gpus_that_those_who_drain_still_have() {
        let mut fleet = fleet(4, Some(4));
        let mut started = Vec::new();
        fleet.order(Time(7), 0);
        fleet.order(Time(7), 0);
        fleet.start_waiting(Time(7), &mut started);
        // A neighbour sends the weights; two GPUs are left for one of them.
        assert_eq!(started, [(WorkerId(1), Time(22))]);
        assert_eq!(fleet.count(0).waiting, 1);
        assert!(!fleet.becomes_ready(Time(21), WorkerId(1)));
        assert!(fleet.becomes_ready(Time(22), WorkerId(1)));
        assert_eq!(fleet.dismiss(Time(30), 0), Dismissed::CalledOff);
        // Of the ready ones the newest goes.
        assert_eq!(fleet.dismiss(Time(31), 0), Dismissed::Drains(WorkerId(1)));
        fleet.order(Time(32), 0);
        started.clear();
        fleet.start_waiting(Time(32), &mut started);
        assert!(started.is_empty() && fleet.drains());
        fleet.vacate(Time(40), WorkerId(1));
        fleet.start_waiting(Time(40), &mut started);
        assert_eq!(started, [(WorkerId(1), Time(55))]);
        let moments = |life: &Life| (life.placed, life.ready, life.drained, life.gone);
        assert_eq!(
            moments(&fleet.lives()[1]),
            (Time(7), Time(22), Time(31), Time(40))
        );
        assert_eq!(fleet.lives()[2].gone, Time(30));
    }

    #[test]
    fn a_start_that_was_called_off_makes_nobody_ready() {
        let mut fleet = fleet(2, None);
        let mut started = Vec::new();
        fleet.order(Time(0), 0);
        fleet.start_waiting(Time(0), &mut started);
        assert_eq!(fleet.dismiss(Time(3), 0), Dismissed::CalledOff);
        assert!(!fleet.becomes_ready(Time(15), WorkerId(1)));
        assert_eq!(fleet.count(0).staying(), 1);
    }
}
