//! The places for workers and who is there.
//!
//! The cluster has a fixed number of places for workers in each pool. A place is taken by one worker after the other; each of
//! them begins with an empty KV cache, and has a number of its own that is never used again.
//!
//! Who is wanted gets, in this order: the oldest spare that is warm; a drained worker of the other role, where those switch;
//! the place of a spare that starts; or a start of its own as soon as there are GPUs, oldest order first, where one that
//! does not fit lets others pass. Spares get GPUs when nobody who is wanted waits.

use super::inventory::{Inventory, Taken};
use super::lifecycle::{Count, Life, LifecycleSpec, Spares, Startup, State};
use super::loading::Phase;
use super::update::Rolling;
use crate::event::WorkerId;
use engine::{Span, Time};

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
    pub(super) pools: Vec<PoolPlaces>,
    /// By pool: its first place.
    first: Vec<u32>,
    /// By place: its state and the number of the life that it holds or held.
    pub(super) places: Vec<(State, u32)>,
    /// By place: how far the start of the worker there is.
    pub(super) phases: Vec<Phase>,
    /// Places that workers have left since somebody looked.
    pub vacated: Vec<WorkerId>,
    /// By place: where its GPUs are.
    pub(super) taken: Vec<Taken>,
    pub(super) lives: Vec<Life>,
    /// Lives without GPUs, oldest first: workers that are wanted, and spares.
    pub(super) waiting: Vec<u32>,
    pub(super) waiting_spares: Vec<u32>,
    pub(super) inventory: Inventory,
    /// By place: the interruption that will keep its GPUs.
    pub(super) claimed: Vec<Option<u32>>,
    /// GPUs that a provider has taken back: by which interruption, how many and where.
    pub(super) taken_back: Vec<(u32, u32, Taken)>,
    draining: u32,
    spares: Spares,
    switch: Option<Span>,
    pub(super) shadow: Option<Span>,
    /// By pool: its update.
    pub(super) rolling: Vec<Option<Rolling>>,
    /// Updates so far.
    pub(super) generation: u32,
    /// Who has begun to start or was called in, and when something becomes of them.
    pub started: Vec<(WorkerId, Time)>,
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
    /// The first workers of each pool are ready at once, and so are their spares; they fit into `gpus`.
    pub fn new(pools: Vec<PoolPlaces>, gpus: Option<u32>, spec: &LifecycleSpec) -> Self {
        let mut fleet = Fleet {
            first: Vec::new(),
            places: Vec::new(),
            phases: Vec::new(),
            vacated: Vec::new(),
            taken: Vec::new(),
            lives: Vec::new(),
            waiting: Vec::new(),
            waiting_spares: Vec::new(),
            inventory: Inventory::new(gpus, spec.gpus_per_node),
            claimed: Vec::new(),
            taken_back: Vec::new(),
            draining: 0,
            spares: spec.spares,
            switch: spec.switch,
            shadow: spec.shadow,
            rolling: vec![None; pools.len()],
            generation: 0,
            started: Vec::new(),
            pools,
        };
        for pool in 0..fleet.pools.len() as u32 {
            let PoolPlaces {
                places, initial, ..
            } = fleet.pools[pool as usize];
            assert!(
                initial + spec.spares.count <= places,
                "the first workers and their spares have places"
            );
            fleet.first.push(fleet.places.len() as u32);
            fleet.places.extend((0..places).map(|_| (State::Vacant, 0)));
            (0..initial).for_each(|_| fleet.wait(Time::ZERO, pool));
        }
        fleet.taken = vec![Taken::new(); fleet.places.len()];
        fleet.phases = vec![Phase::Ending; fleet.places.len()];
        fleet.claimed = vec![None; fleet.places.len()];
        fleet.start_waiting(Time::ZERO);
        fleet.started.clear();
        for (state, life) in &mut fleet.places {
            match state {
                State::Starting { .. } => {
                    *state = State::Ready;
                    fleet.lives[*life as usize].ready = Time::ZERO;
                }
                State::Warming { .. } => {
                    *state = State::Spare;
                    fleet.lives[*life as usize].warm = Time::ZERO;
                }
                _ => {}
            }
        }
        assert!(
            fleet.waiting.is_empty() && fleet.waiting_spares.is_empty(),
            "the first workers have GPUs"
        );
        fleet
    }

    pub fn state(&self, worker: WorkerId) -> State {
        self.places[worker.0 as usize].0
    }

    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    pub fn pools(&self) -> usize {
        self.pools.len()
    }

    /// Whether drained workers may restart in another role.
    pub fn switches(&self) -> bool {
        self.switch.is_some()
    }

    /// Whether somebody drains.
    pub fn drains(&self) -> bool {
        self.draining > 0
    }

    /// Whether somebody starts who will serve. Who waits for GPUs that nobody gives back may wait for ever.
    pub fn grows(&self) -> bool {
        let is_starting = |(state, _): &(State, u32)| matches!(state, State::Starting { .. });
        self.places.iter().any(is_starting)
    }

    pub(super) fn places_of(&self, pool: usize) -> std::ops::Range<usize> {
        let first = self.first[pool] as usize;
        first..first + self.pools[pool].places as usize
    }

    /// The places whose state is as wanted and the numbers of their workers, oldest worker first.
    pub fn in_state(&self, pool: usize, is_wanted: fn(&State) -> bool) -> Vec<(WorkerId, u32)> {
        let places = self.places_of(pool);
        let those = places.filter(|&at| is_wanted(&self.places[at].0));
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
                State::Vacant | State::Spare | State::Warming { .. } => {}
                State::Starting { .. } => count.starting += 1,
                State::Ready => count.ready += 1,
                State::Draining => count.draining += 1,
            }
        }
        count
    }

    /// One more is wanted. Where no spare is warm it starts with [`Fleet::start_waiting`].
    pub fn order(&mut self, now: Time, pool: u32) {
        if self.call_in(now, pool as usize, |state| *state == State::Spare) {
            return;
        }
        let switched = self.next_to_switch(pool);
        if switched.is_none() && self.call_in(now, pool as usize, is_warming) {
            return;
        }
        self.wait(now, pool);
        let life = self.lives.last_mut().expect("it was just ordered");
        life.from = switched;
    }

    fn wait(&mut self, now: Time, pool: u32) {
        self.waiting.push(self.lives.len() as u32);
        self.enter(now, pool);
    }

    fn enter(&mut self, now: Time, pool: u32) {
        let generation = self.generation;
        self.lives.push(Life {
            generation,
            ..Life::of(pool, now)
        });
    }

    /// The oldest such spare is to serve; false if there is none.
    fn call_in(&mut self, now: Time, pool: usize, is_wanted: fn(&State) -> bool) -> bool {
        let spares = self.in_state(pool, is_wanted);
        let Some(&(worker, life)) = spares.first() else {
            return false;
        };
        let state = &mut self.places[worker.0 as usize].0;
        let until = match *state {
            State::Warming { until } => until,
            _ => now + self.spares.activate,
        };
        *state = State::Starting { until };
        self.lives[life as usize].called = now;
        if until != Time::MAX {
            self.started.push((worker, until));
        }
        true
    }

    /// The oldest worker of another role that drains and is to go, if those switch and nothing is being updated.
    fn next_to_switch(&self, pool: u32) -> Option<u32> {
        self.switch?;
        if self.rolling.iter().flatten().any(|it| !it.is_over()) {
            return None;
        }
        let others = (0..self.pools.len()).filter(|&other| other != pool as usize);
        let draining = others.flat_map(|other| self.in_state(other, |it| *it == State::Draining));
        let is_promised = |life: u32| {
            let mut waiting = self.waiting.iter();
            waiting.any(|&other| self.lives[other as usize].from == Some(life))
        };
        draining
            .map(|(_, life)| life)
            .filter(|&life| !is_promised(life))
            .min()
    }

    /// Orders the spares that are missing, and starts those that wait as far as there are places and GPUs.
    pub fn start_waiting(&mut self, now: Time) {
        for pool in 0..self.pools.len() {
            self.refill(now, pool);
        }
        for life in std::mem::take(&mut self.waiting) {
            if self.is_to_switch(life) || !self.settle(now, life, false) {
                self.waiting.push(life);
            }
        }
        if self.waiting.is_empty() {
            for life in std::mem::take(&mut self.waiting_spares) {
                if !self.settle(now, life, true) {
                    self.waiting_spares.push(life);
                }
            }
        }
    }

    fn refill(&mut self, now: Time, pool: usize) {
        if self.spares.count == 0 {
            return;
        }
        let is_spare = |state: &State| *state == State::Spare || is_warming(state);
        let waiting = self.waiting_spares.iter();
        let waiting = waiting.filter(|&&life| self.lives[life as usize].pool as usize == pool);
        let there = waiting.count() + self.in_state(pool, is_spare).len();
        for _ in there..self.spares.count as usize {
            self.waiting_spares.push(self.lives.len() as u32);
            self.enter(now, pool as u32);
        }
    }

    /// Whether it waits for a worker that still drains.
    fn is_to_switch(&self, life: u32) -> bool {
        let from = self.lives[life as usize].from;
        from.is_some_and(|from| self.lives[from as usize].gone == Time::MAX)
    }

    /// Gives a place and GPUs to one that waits; false if there are none.
    fn settle(&mut self, now: Time, life: u32, is_spare: bool) -> bool {
        let Life { pool, from, .. } = self.lives[life as usize];
        let pool = pool as usize;
        let mut places = self.places_of(pool);
        let Some(place) = places.find(|&at| self.places[at].0 == State::Vacant) else {
            return false;
        };
        let Some(taken) = self.inventory.take(self.pools[pool].gpus_per_worker) else {
            return false;
        };
        let (phase, time) = self.first_phase(now, pool, from);
        let until = now + time;
        self.phases[place] = phase;
        self.places[place] = match is_spare {
            true => (State::Warming { until }, life),
            false => (State::Starting { until }, life),
        };
        self.taken[place] = taken;
        let record = &mut self.lives[life as usize];
        record.worker = place as u32;
        record.placed = now;
        self.started.push((WorkerId(place as u32), until));
        true
    }

    /// What a worker begins its start with, and how long that takes.
    fn first_phase(&self, now: Time, pool: usize, from: Option<u32>) -> (Phase, Span) {
        let has_just_gone = |from: &u32| self.lives[*from as usize].gone == now;
        if let (Some(switch), Some(_)) = (self.switch, from.filter(has_just_gone)) {
            return (Phase::Ending, switch);
        }
        let startup = self.pools[pool].startup;
        if startup.weights.is_some() {
            return (Phase::BeforeLoad, startup.schedule + startup.pull);
        }
        let has_weights = |state: &State| matches!(state, State::Ready | State::Spare);
        let mut there = self.places[self.places_of(pool)].iter();
        let has_neighbour = there.any(|(state, _)| has_weights(state));
        (Phase::Ending, startup.total(has_neighbour))
    }

    /// A worker may have come to the end of its start; true if it serves from now on.
    pub fn becomes_ready(&mut self, now: Time, worker: WorkerId) -> bool {
        let (state, life) = &mut self.places[worker.0 as usize];
        let life = &mut self.lives[*life as usize];
        // One that was called off, or a later one in its place, does not count.
        if *state == (State::Starting { until: now }) {
            *state = State::Ready;
            life.ready = now;
            return true;
        }
        if *state == (State::Warming { until: now }) {
            *state = State::Spare;
            life.warm = now;
        }
        false
    }

    /// Takes away the newest worker of a pool that has one: who waits, then who starts, then who serves.
    pub fn dismiss(&mut self, now: Time, pool: usize) -> Dismissed {
        if self.call_off(now, pool, |_| true) {
            return Dismissed::CalledOff;
        }
        let ready = self.in_state(pool, |state| *state == State::Ready);
        let &(worker, _) = ready.last().expect("a pool has a worker to take away");
        self.drain(now, worker);
        Dismissed::Drains(worker)
    }

    /// Calls off the newest such worker that waits or starts; false if there is none.
    pub(super) fn call_off(
        &mut self,
        now: Time,
        pool: usize,
        is_meant: impl Fn(&Life) -> bool,
    ) -> bool {
        let is_of_pool = |life: &&u32| {
            let life = &self.lives[**life as usize];
            life.pool as usize == pool && is_meant(life)
        };
        if let Some(&life) = self.waiting.iter().rfind(is_of_pool) {
            self.waiting.retain(|&other| other != life);
            self.lives[life as usize].gone = now;
            return true;
        }
        let starting = self.in_state(pool, |state| matches!(state, State::Starting { .. }));
        let mut starting = starting.into_iter().rev();
        match starting.find(|&(_, life)| is_meant(&self.lives[life as usize])) {
            Some((worker, _)) => self.vacate(now, worker),
            None => return false,
        }
        true
    }

    /// A worker that serves is to finish what it has.
    pub(super) fn drain(&mut self, now: Time, worker: WorkerId) {
        let (state, life) = &mut self.places[worker.0 as usize];
        assert!(*state == State::Ready, "who drains has served");
        *state = State::Draining;
        self.lives[*life as usize].drained = now;
        self.draining += 1;
    }

    /// Since when the worker in a place drains, if it does.
    pub fn drains_since(&self, worker: WorkerId) -> Option<Time> {
        let (state, life) = self.places[worker.0 as usize];
        (state == State::Draining).then(|| self.lives[life as usize].drained)
    }

    /// A worker is lost, and its GPUs are free. If it was to serve, another is ordered; a rolling update does that by itself.
    pub fn crash(&mut self, now: Time, worker: WorkerId) {
        let (state, lost) = self.places[worker.0 as usize];
        self.vacate(now, worker);
        for &life in &self.waiting {
            // Who was to take it over starts from nothing.
            let from = &mut self.lives[life as usize].from;
            *from = from.filter(|&from| from != lost);
        }
        let pool = self.lives[lost as usize].pool;
        let was_to_serve = matches!(state, State::Ready | State::Starting { .. });
        if was_to_serve && !self.rolls(pool as usize) {
            self.order(now, pool);
        }
    }

    /// When whoever was ordered or called in now will serve; now if nobody begins to start, `Time::MAX` if that is not known yet.
    pub fn replaced_by(&self, now: Time) -> Time {
        let places = self.places.iter().zip(&self.phases);
        let starts = places.filter_map(|(&(state, life), phase)| {
            let life = &self.lives[life as usize];
            match state {
                State::Starting { until } if life.ordered == now || life.called == now => {
                    let is_known = *phase == Phase::Ending;
                    Some(if is_known { until } else { Time::MAX })
                }
                _ => None,
            }
        });
        starts.max().unwrap_or(now)
    }

    /// A worker leaves its place, and its GPUs are free.
    pub fn vacate(&mut self, now: Time, worker: WorkerId) {
        let (state, life) = &mut self.places[worker.0 as usize];
        assert!(*state != State::Vacant, "who leaves was there");
        self.draining -= u32::from(*state == State::Draining);
        *state = State::Vacant;
        self.vacated.push(worker);
        let life = &mut self.lives[*life as usize];
        life.gone = now;
        let gpus = self.pools[life.pool as usize].gpus_per_worker;
        let taken = std::mem::take(&mut self.taken[worker.0 as usize]);
        match self.claimed[worker.0 as usize].take() {
            Some(by) => self.taken_back.push((by, gpus, taken)),
            None => self.inventory.give_back(gpus, &taken),
        }
    }
}

fn is_warming(state: &State) -> bool {
    matches!(state, State::Warming { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(places: u32, gpus: Option<u32>, spec: &LifecycleSpec) -> Fleet {
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
        Fleet::new(vec![pool], gpus, spec)
    }

    fn started(fleet: &mut Fleet) -> Vec<(WorkerId, Time)> {
        std::mem::take(&mut fleet.started)
    }

    #[test]
    fn workers_wait_for_gpus_that_those_who_drain_still_have() {
        let mut fleet = fleet(4, Some(4), &LifecycleSpec::default());
        fleet.order(Time(7), 0);
        fleet.order(Time(7), 0);
        fleet.start_waiting(Time(7));
        // A neighbour sends the weights; two GPUs are left for one of them.
        assert_eq!(started(&mut fleet), [(WorkerId(1), Time(22))]);
        assert_eq!(fleet.count(0).waiting, 1);
        assert!(!fleet.becomes_ready(Time(21), WorkerId(1)));
        assert!(fleet.becomes_ready(Time(22), WorkerId(1)));
        assert_eq!(fleet.dismiss(Time(30), 0), Dismissed::CalledOff);
        // Of the ready ones the newest goes.
        assert_eq!(fleet.dismiss(Time(31), 0), Dismissed::Drains(WorkerId(1)));
        fleet.order(Time(32), 0);
        fleet.start_waiting(Time(32));
        assert!(started(&mut fleet).is_empty() && fleet.drains());
        fleet.vacate(Time(40), WorkerId(1));
        fleet.start_waiting(Time(40));
        assert_eq!(started(&mut fleet), [(WorkerId(1), Time(55))]);
        let moments = |life: &Life| (life.placed, life.ready, life.drained, life.gone);
        assert_eq!(
            moments(&fleet.lives()[1]),
            (Time(7), Time(22), Time(31), Time(40))
        );
        assert_eq!(fleet.lives()[2].gone, Time(30));
    }

    #[test]
    fn a_start_that_was_called_off_makes_nobody_ready() {
        let mut fleet = fleet(2, None, &LifecycleSpec::default());
        fleet.order(Time(0), 0);
        fleet.start_waiting(Time(0));
        assert_eq!(fleet.dismiss(Time(3), 0), Dismissed::CalledOff);
        assert!(!fleet.becomes_ready(Time(15), WorkerId(1)));
        assert_eq!(fleet.count(0).staying(), 1);
    }

    #[test]
    fn a_spare_is_called_in_and_another_one_starts_behind_those_who_are_wanted() {
        let spares = Spares {
            count: 1,
            activate: Span(3),
        };
        let spec = LifecycleSpec {
            spares,
            ..LifecycleSpec::default()
        };
        let mut fleet = fleet(6, Some(8), &spec);
        assert_eq!(fleet.state(WorkerId(1)), State::Spare);
        assert_eq!(fleet.count(0).staying(), 1);
        // Three are wanted: the spare, and two that start. Six GPUs are theirs, two the first worker's, none the new spare's.
        (0..3).for_each(|_| fleet.order(Time(10), 0));
        fleet.start_waiting(Time(10));
        let expected = [(1, 13), (2, 25), (3, 25)].map(|(at, time)| (WorkerId(at), Time(time)));
        assert_eq!(started(&mut fleet), expected);
        assert!(fleet.becomes_ready(Time(13), WorkerId(1)));
        fleet.becomes_ready(Time(25), WorkerId(2));
        assert_eq!(fleet.dismiss(Time(26), 0), Dismissed::CalledOff);
        fleet.start_waiting(Time(26));
        assert_eq!(started(&mut fleet), [(WorkerId(3), Time(41))]);
        assert!(matches!(fleet.state(WorkerId(3)), State::Warming { .. }));
        // It is called in before it is warm, and is ready when its start ends.
        fleet.order(Time(30), 0);
        assert_eq!(started(&mut fleet), [(WorkerId(3), Time(41))]);
        assert!(fleet.becomes_ready(Time(41), WorkerId(3)));
        let life = fleet.lives().iter().rfind(|life| life.worker == 3).unwrap();
        assert_eq!((life.warm, life.called), (Time::MAX, Time(30)));
    }
}
