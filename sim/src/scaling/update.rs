//! Rolling updates: every worker of a pool is replaced by one of the next generation.
//!
//! As Kubernetes rolls a Deployment. With `wanted` workers, at every step:
//! 1. old ones that do not serve yet are called off;
//! 2. new ones are ordered while there are fewer than `wanted` of them and fewer than `wanted + surge` in all (those that
//!    drain do not count, but have their GPUs);
//! 3. the oldest old ones drain while `wanted - unavailable` would still serve.
//!
//! It is over when the last old one is gone and `wanted` new ones serve. Old spares go at once, new ones are ordered behind
//! the workers. Routers treat both generations alike: new workers join with empty caches, old ones drain. A planner goes on:
//! the workers that it wants are those that are `wanted`, and what is missing of them is shown to it as starting.
//!
//! Model: with prefill and decode apart both roles roll at once and any pair of generations works together, as with Dynamo's
//! Grove deployments; its other deployments keep generations apart.

use super::fleet::Fleet;
use super::lifecycle::{Count, Life, State, Update};
use crate::event::WorkerId;
use engine::Time;

/// What became of the update of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateRecord {
    /// Index of the pool.
    pub pool: u32,
    /// When it began.
    pub began: Time,
    /// When the last old worker was gone and all new ones served; [`Time::MAX`] if that did not happen.
    pub ended: Time,
    /// Workers that were replaced, or called off.
    pub replaced: u32,
    /// Workers that could be too many.
    pub surge: u32,
    /// Workers that could be missing.
    pub unavailable: u32,
}

/// An update under way, or over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rolling {
    pub record: UpdateRecord,
    wanted: u32,
}

impl Rolling {
    pub fn is_over(&self) -> bool {
        self.record.ended < Time::MAX
    }
}

impl Fleet {
    /// All workers of all pools are old from now on.
    pub fn begin_update(&mut self, now: Time, update: &Update) {
        self.generation += 1;
        for pool in 0..self.pools.len() {
            let wanted = self.count(pool).staying();
            let (surge, unavailable) = update.allowances(wanted);
            let record = UpdateRecord {
                pool: pool as u32,
                began: now,
                ended: Time::MAX,
                replaced: wanted,
                surge,
                unavailable,
            };
            self.rolling[pool] = Some(Rolling { record, wanted });
            let is_spare = |it: &State| matches!(it, State::Spare | State::Warming { .. });
            for (worker, _) in self.in_state(pool, is_spare) {
                self.vacate(now, worker);
            }
        }
        for life in std::mem::take(&mut self.waiting_spares) {
            self.lives[life as usize].gone = now;
        }
    }

    /// The update of a pool, if one is under way.
    fn under_way(&mut self, pool: usize) -> Option<&mut Rolling> {
        self.rolling[pool].as_mut().filter(|it| !it.is_over())
    }

    /// What became of the updates.
    pub fn updates(&self) -> Vec<UpdateRecord> {
        let begun = self.rolling.iter().flatten();
        begun.map(|rolling| rolling.record).collect()
    }

    /// Whether a pool is being updated.
    pub fn rolls(&self, pool: usize) -> bool {
        self.rolling[pool].is_some_and(|it| !it.is_over())
    }

    /// So many workers are wanted of a pool that is being updated.
    pub fn want(&mut self, pool: usize, workers: u32) {
        let rolling = self.under_way(pool);
        rolling.expect("only then this is asked").wanted = workers;
    }

    /// What a planner is shown: while a pool is updated the workers that are wanted, those that do not serve as starting.
    pub fn shown(&self, pool: usize) -> Count {
        let count = self.count(pool);
        match self.rolling[pool].filter(|it| !it.is_over()) {
            None => count,
            Some(rolling) => Count {
                waiting: 0,
                starting: rolling.wanted.saturating_sub(count.ready),
                ready: count.ready,
                draining: count.draining,
            },
        }
    }

    /// The next steps of a pool's update; appends who drains from now on.
    pub fn roll(&mut self, now: Time, pool: usize, drained: &mut Vec<WorkerId>) {
        let Some(&mut Rolling { wanted, record }) = self.under_way(pool) else {
            return;
        };
        let generation = self.generation;
        let is_old = |life: &Life| life.generation < generation;
        while self.call_off(now, pool, is_old) {}
        while self.new_staying(pool) > wanted && self.call_off(now, pool, |life| !is_old(life)) {}
        loop {
            let staying = self.count(pool).staying();
            if self.new_staying(pool) < wanted && staying < wanted + record.surge {
                self.order(now, pool as u32);
                continue;
            }
            let ready = self.in_state(pool, |state| *state == State::Ready);
            let least = wanted.saturating_sub(record.unavailable) as usize;
            let old = ready.iter().find(|it| is_old(&self.lives[it.1 as usize]));
            let too_many = self.new_staying(pool) > wanted;
            let goes = match old {
                Some(&(worker, _)) if ready.len() > least => worker,
                // A planner wants fewer than are new.
                None if too_many => ready.last().expect("they serve").0,
                _ => break,
            };
            self.drain(now, goes);
            drained.push(goes);
        }
        let is_there = |at: usize| {
            let (state, life) = self.places[at];
            state != State::Vacant && is_old(&self.lives[life as usize])
        };
        let old_are_gone = !self.places_of(pool).any(is_there);
        if old_are_gone && self.count(pool).ready >= wanted {
            self.under_way(pool).expect("it is").record.ended = now;
        }
    }

    /// Workers of the newest generation that serve or will.
    fn new_staying(&self, pool: usize) -> u32 {
        let is_new = |life: u32| {
            let life = &self.lives[life as usize];
            life.pool as usize == pool && life.generation == self.generation
        };
        let waiting = self.waiting.iter().filter(|&&life| is_new(life)).count();
        let stays = |it: &State| matches!(it, State::Ready | State::Starting { .. });
        let there = self.in_state(pool, stays);
        (waiting + there.iter().filter(|it| is_new(it.1)).count()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::PoolPlaces;
    use super::super::lifecycle::{Allowance, LifecycleSpec, Startup};
    use super::*;
    use engine::Span;

    /// Workers that start within 10 and drain within 1; the fewest that served, the most that had GPUs, and how long it took.
    fn run(
        workers: u32,
        gpus: Option<u32>,
        surge: u32,
        unavailable: u32,
    ) -> (u32, u32, Option<u64>) {
        let pool = PoolPlaces {
            places: 2 * workers + surge,
            initial: workers,
            gpus_per_worker: 1,
            startup: Startup {
                load: Span(10),
                ..Startup::default()
            },
        };
        let mut fleet = Fleet::new(vec![pool], gpus, &LifecycleSpec::default());
        let update = Update {
            at: Time(100),
            surge: Allowance::Workers(surge),
            unavailable: Allowance::Workers(unavailable),
        };
        let (mut fewest, mut most) = (workers, workers);
        let mut due: Vec<(Time, WorkerId)> = Vec::new();
        fleet.begin_update(Time(100), &update);
        for now in (100..300).map(Time) {
            let mut drained = Vec::new();
            for &(time, worker) in due.iter().filter(|it| it.0 == now) {
                if fleet.state(worker) == State::Draining {
                    fleet.vacate(time, worker);
                } else {
                    fleet.becomes_ready(time, worker);
                }
            }
            fleet.roll(now, 0, &mut drained);
            fleet.start_waiting(now);
            let started = std::mem::take(&mut fleet.started);
            due.extend(started.into_iter().map(|(worker, time)| (time, worker)));
            due.extend(drained.into_iter().map(|worker| (now + Span(1), worker)));
            let count = fleet.count(0);
            fewest = fewest.min(count.ready);
            most = most.max(count.starting + count.ready + count.draining);
            if !fleet.rolls(0) {
                return (fewest, most, Some(now.0 - 100));
            }
        }
        (fewest, most, None)
    }

    #[test]
    fn never_more_and_never_fewer_than_allowed() {
        // Dynamo's examples. Surge 1: one new one each 10, then the old one drains; the next start overlaps with that.
        assert_eq!(run(4, None, 1, 0), (4, 6, Some(41)));
        // Two at a time: they drain (1), new ones start (10), four times; the last start is the end.
        assert_eq!(run(8, Some(8), 0, 2), (6, 8, Some(44)));
        // All at once.
        assert_eq!(run(3, None, 3, 0), (3, 6, Some(11)));
        // No GPU for one too many: it never begins.
        assert_eq!(run(3, Some(3), 1, 0), (3, 3, None));
        assert_eq!(run(0, None, 1, 0), (0, 0, Some(0)));
    }
}
