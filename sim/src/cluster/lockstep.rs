//! Ranks that step together: attention data parallelism.
//!
//! In words: each rank has a scheduler and KV blocks of its own, and the router chooses among ranks. But a step is one forward
//! pass of all of them, since the experts behind attention are shared. All ranks plan at the same instant; who has nothing
//! to do takes part with a dummy batch; the step lasts as long as the slowest rank, and no rank plans before it is over. Where
//! all have nothing but decodes, the ranks coast together, for as many steps as the first of them that has to plan again.
//!
//! To the rest of the cluster each rank is a worker. The first of them, the leader, stands for all in the driver's queue.
//!
//! Source: vLLM 0.9 and later, `v1/engine/core.py` (`DPEngineCoreProc`: `execute_dummy_batch`); SGLang and Dynamo address a
//! rank by (worker, dp_rank) in the same way.

use super::Cluster;
use crate::cluster::ClusterSpec;
use crate::event::{Action, Ran, WorkerId};
use crate::worker::Worker;
use engine::Time;

impl Cluster {
    /// The workers that step together with the one that leads them, itself first; it alone if it steps alone.
    #[must_use]
    pub fn ranks_of(&self, leader: WorkerId) -> &[Worker] {
        let first = leader.0 as usize;
        &self.workers[first..first + self.workers[first].ranks as usize]
    }

    pub(super) fn leader_of(&self, worker: WorkerId) -> WorkerId {
        self.workers[worker.0 as usize].leader
    }

    /// The leader of the worker that is about to be made.
    pub(super) fn leader_of_next(&self, spec: &ClusterSpec) -> WorkerId {
        let next = self.workers.len() as u32;
        let mut first = 0;
        for pool in &spec.pools {
            if next < first + pool.schedulers() {
                return WorkerId(next - (next - first) % pool.engine.ranks());
            }
            first += pool.schedulers();
        }
        unreachable!("every worker belongs to a pool")
    }

    pub(super) fn steps_together(&self, worker: WorkerId) -> bool {
        self.workers[worker.0 as usize].ranks > 1
    }

    fn places_of_ranks(&self, leader: WorkerId) -> std::ops::Range<usize> {
        let first = leader.0 as usize;
        first..first + self.workers[first].ranks as usize
    }

    /// All ranks look for something to do, or go on with what they do.
    pub(super) fn plan_together(&mut self, now: Time, leader: WorkerId, actions: &mut Vec<Action>) {
        let ranks = self.places_of_ranks(leader);
        let first = &mut self.workers[ranks.start];
        first.is_woken = false;
        let is_cut = first.cut_at.take_if(|at| *at <= now).is_some();
        if !is_cut && first.steps_together > 0 {
            for worker in &mut self.workers[ranks] {
                if !worker.scheduler.is_idle() {
                    let goes_on = worker.scheduler.coast_on();
                    assert!(goes_on, "all ranks may take the steps that they share");
                }
            }
            return;
        }
        let coasts = first.coasts;
        let mut runs = Vec::new();
        let mut reserved = Vec::new();
        for worker in &mut self.workers[ranks.clone()] {
            worker.scheduler.stop_coasting();
            worker.plan(
                now,
                &mut self.recording.requests,
                &mut runs,
                &mut reserved,
                None,
                |_, _| None,
            );
        }
        assert!(reserved.is_empty(), "ranks do whole requests");
        let steps = runs.iter().map(|action| match action {
            Action::Run { up_to, .. } => *up_to,
            Action::Cut { .. } | Action::Disturb { .. } | Action::At { .. } => {
                unreachable!("planning asks for runs alone")
            }
        });
        let Some(up_to) = steps.min() else {
            self.workers[ranks.start].steps_together = 0;
            return;
        };
        assert!(
            coasts || up_to == 1,
            "who does not coast takes single steps"
        );
        self.workers[ranks.start].steps_together = up_to;
        actions.push(Action::Run {
            worker: leader,
            up_to,
            ahead: 0,
        });
    }

    /// Steps of all ranks ended.
    pub(super) fn ran_together(&mut self, now: Time, ran: &Ran, actions: &mut Vec<Action>) {
        let ranks = self.places_of_ranks(ran.worker);
        self.workers[ranks.start].steps_together -= ran.steps;
        for rank in ranks {
            if !self.workers[rank].scheduler.is_idle() {
                let worker = WorkerId(rank as u32);
                self.ran(now, &Ran { worker, ..*ran }, actions);
            }
        }
    }
}
