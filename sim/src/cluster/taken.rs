//! What the cluster does about nodes that are lost and about workers that a provider takes back.
//!
//! A worker that is taken back is told so: it gets no more requests and goes on with those it has until the notice is over.
//! What it has then goes on elsewhere or is lost, as after a crash. With a planner another is ordered at the notice, and the GPUs can
//! be had again when the interruption is over; without one the worker itself is back then, empty.
//
// Model: a provider tells every worker with the same notice and takes it at its very end; real ones take some earlier, and
// interruptions of one market come together, where these are independent: a fleet may lose more at once than here.

use super::Cluster;
use super::faults::at;
use crate::adversity::faults::{begin_of, worker_of};
use crate::event::{Action, WorkerId};
use crate::scaling::lifecycle::State;
use engine::{Span, Time};

impl Cluster {
    /// A provider wants a worker back.
    pub(super) fn interrupt(
        &mut self,
        now: Time,
        number: u32,
        worker: WorkerId,
        notice: Span,
        actions: &mut Vec<Action>,
    ) {
        self.record_of(number).requests = self.requests_on(worker).len() as u32;
        let is_told = match self.scaling.is_some() {
            true => self.claim(now, number, worker, actions),
            false => self.warn(number, worker),
        };
        if is_told {
            let end = self.breaks().faults.reclaim(number, now + notice);
            actions.push(at(end.1, begin_of(end.0)));
        }
    }

    /// A worker that stays in its place serves nothing new. False if it is gone already.
    fn warn(&mut self, number: u32, worker: WorkerId) -> bool {
        let faults = &mut self.breaks().faults;
        let away = &mut faults.away[worker.0 as usize];
        *away += 1;
        let was_there = *away == 1;
        if was_there {
            faults.warned[worker.0 as usize] = Some(number);
            self.group_of(worker).hold_back(worker);
        }
        was_there
    }

    /// A worker that a planner ordered drains, and another is ordered. False if it did not serve, and is gone at once.
    fn claim(
        &mut self,
        now: Time,
        number: u32,
        worker: WorkerId,
        actions: &mut Vec<Action>,
    ) -> bool {
        self.scales().fleet.claim(worker, number);
        match self.scales().fleet.state(worker) {
            State::Ready => {
                self.group_of(worker).leave(worker);
                self.scales().fleet.drain_claimed(now, worker);
                self.go_on(now, actions);
                true
            }
            State::Draining => true,
            State::Vacant | State::Spare | State::Warming { .. } | State::Starting { .. } => {
                self.crash(now, number, &[worker], actions);
                false
            }
        }
    }

    /// A notice is over: what the worker still has is lost to it.
    pub(super) fn reclaim(&mut self, now: Time, number: u32, actions: &mut Vec<Action>) {
        let worker = worker_of(&self.breaks().faults.get(number));
        let is_there = match &self.scaling {
            Some(scaling) => scaling.fleet.is_claimed(worker, number),
            None => {
                let faults = &mut self.breaks().faults;
                let warned = &mut faults.warned[worker.0 as usize];
                let is_there = warned.take_if(|by| *by == number).is_some();
                // The crash counts for itself.
                faults.away[worker.0 as usize] -= u32::from(is_there);
                is_there
            }
        };
        if is_there {
            // Each is counted once.
            let told = std::mem::take(&mut self.record_of(number).requests);
            self.crash(now, number, &[worker], actions);
            let requests = &mut self.record_of(number).requests;
            *requests = told.max(*requests);
        }
    }

    /// There is capacity again.
    pub(super) fn end_interruption(&mut self, now: Time, number: u32, actions: &mut Vec<Action>) {
        // Where both are at one instant.
        self.reclaim(now, number, actions);
        if self.scaling.is_some() {
            self.scales().fleet.release(number);
            return self.go_on(now, actions);
        }
        let worker = worker_of(&self.breaks().faults.get(number));
        self.comes_back(now, worker, actions);
    }

    /// All workers with GPUs in a node are gone at one instant.
    pub(super) fn lose_node(
        &mut self,
        now: Time,
        number: u32,
        node: u32,
        actions: &mut Vec<Action>,
    ) {
        let workers = match &mut self.scaling {
            Some(scaling) => scaling.fleet.lose_node(node),
            None => {
                let there = self.breaks().faults.workers_on(node).iter();
                there.map(|&worker| WorkerId(worker)).collect()
            }
        };
        self.record_of(number).workers = workers.len() as u32;
        self.crash(now, number, &workers, actions);
    }

    /// A node that was lost is back, and so are the workers that stay there.
    pub(super) fn regain_node(&mut self, now: Time, node: u32, actions: &mut Vec<Action>) {
        if let Some(scaling) = &mut self.scaling {
            scaling.fleet.regain_node(node);
            return self.go_on(now, actions);
        }
        let workers = self.breaks().faults.workers_on(node).to_vec();
        for worker in workers {
            self.comes_back(now, WorkerId(worker), actions);
        }
    }
}
