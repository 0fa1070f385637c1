//! GPUs that are there no more for a time: nodes that are lost, GPUs that a provider takes back.
//!
//! Who had GPUs in a lost node is gone, and nobody gets any there before it is back. GPUs that a provider takes back stay
//! with the worker until it is gone, and are free again when the interruption is over.

use super::fleet::Fleet;
use super::lifecycle::State;
use crate::event::WorkerId;
use engine::Time;

impl Fleet {
    /// A node is lost: the workers that had GPUs there, in order of their places.
    pub fn lose_node(&mut self, node: u32) -> Vec<WorkerId> {
        self.inventory.lose(node);
        let has_some = |&at: &usize| self.taken[at].contains(&node);
        let places = (0..self.places.len()).filter(has_some);
        places.map(|at| WorkerId(at as u32)).collect()
    }

    /// It is there again.
    pub fn regain_node(&mut self, node: u32) {
        self.inventory.regain(node);
    }

    /// A provider will take back the GPUs of this worker, whoever of them is there now.
    pub fn claim(&mut self, worker: WorkerId, interruption: u32) {
        self.claimed[worker.0 as usize].get_or_insert(interruption);
    }

    /// Who serves and will be taken back drains, and another is ordered; a rolling update does that by itself.
    pub fn drain_claimed(&mut self, now: Time, worker: WorkerId) {
        let life = self.places[worker.0 as usize].1;
        let pool = self.lives[life as usize].pool;
        self.drain(now, worker);
        if !self.rolls(pool as usize) {
            self.order(now, pool);
        }
    }

    /// Whether the worker there has drained since this moment or longer, for this interruption.
    pub fn is_claimed(&self, worker: WorkerId, interruption: u32) -> bool {
        let (state, _) = self.places[worker.0 as usize];
        state == State::Draining && self.claimed[worker.0 as usize] == Some(interruption)
    }

    /// An interruption is over: its GPUs can be had again.
    pub fn release(&mut self, interruption: u32) {
        let is_its = |&mut (by, ..): &mut (u32, u32, Vec<u32>)| by == interruption;
        let back: Vec<_> = self.taken_back.extract_if(.., is_its).collect();
        for (_, gpus, taken) in back {
            self.inventory.give_back(gpus, &taken);
        }
        for claimed in &mut self.claimed {
            claimed.take_if(|by| *by == interruption);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::PoolPlaces;
    use super::super::lifecycle::{LifecycleSpec, Startup};
    use super::*;
    use engine::Span;

    /// Two workers of two GPUs in nodes of four; a start takes 10.
    fn fleet(gpus: u32) -> Fleet {
        let pool = PoolPlaces {
            places: 6,
            initial: 2,
            gpus_per_worker: 2,
            startup: Startup {
                load: Span(10),
                ..Startup::default()
            },
        };
        let spec = LifecycleSpec {
            gpus_per_node: Some(4),
            ..LifecycleSpec::default()
        };
        Fleet::new(vec![pool], Some(gpus), &spec)
    }

    #[test]
    fn gpus_that_are_taken_back_are_free_when_the_interruption_is_over() {
        let mut fleet = fleet(4);
        fleet.claim(WorkerId(0), 7);
        fleet.drain_claimed(Time(5), WorkerId(0));
        assert!(fleet.is_claimed(WorkerId(0), 7) && !fleet.is_claimed(WorkerId(0), 8));
        fleet.start_waiting(Time(5));
        assert_eq!(fleet.count(0).waiting, 1, "its successor has no GPUs");
        fleet.vacate(Time(9), WorkerId(0));
        fleet.start_waiting(Time(9));
        assert_eq!(fleet.count(0).waiting, 1, "nor when it is gone");
        fleet.release(7);
        fleet.start_waiting(Time(20));
        assert_eq!((fleet.count(0).waiting, fleet.count(0).starting), (0, 1));
        assert!(fleet.becomes_ready(Time(30), WorkerId(0)));
    }

    #[test]
    fn a_lost_node_takes_its_workers_and_gives_no_gpus() {
        let mut fleet = fleet(8);
        // Both workers are in the first node; a third goes to the second.
        fleet.order(Time(1), 0);
        fleet.start_waiting(Time(1));
        assert_eq!(fleet.lose_node(1), [WorkerId(2)]);
        fleet.regain_node(1);
        let lost = fleet.lose_node(0);
        assert_eq!(lost, [WorkerId(0), WorkerId(1)]);
        for worker in lost {
            fleet.crash(Time(2), worker);
        }
        fleet.start_waiting(Time(2));
        // One finds room beside the third; the other waits for the node.
        assert_eq!((fleet.count(0).starting, fleet.count(0).waiting), (2, 1));
        fleet.regain_node(0);
        fleet.start_waiting(Time(3));
        assert_eq!(fleet.count(0).waiting, 0);
    }
}
