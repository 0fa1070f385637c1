//! What the cluster does while workers come and go: starts those that wait, rolls updates on, lets drained ones go, until
//! nothing more can be done at this instant.

use super::Cluster;
use crate::event::Action;
use engine::Time;

impl Cluster {
    /// A rolling update begins.
    pub(super) fn begin_update(&mut self, now: Time, actions: &mut Vec<Action>) {
        let scaling = self.scales();
        let update = scaling.update.expect("only what is asked for begins");
        scaling.fleet.begin_update(now, &update);
        self.go_on(now, actions);
    }

    /// Everything that follows when workers were ordered, became ready, drain or are gone.
    pub(super) fn go_on(&mut self, now: Time, actions: &mut Vec<Action>) {
        loop {
            self.roll(now, actions);
            self.start_workers(now, actions);
            if !self.retire_drained(now) {
                return;
            }
        }
    }

    /// Replaces workers where an update is under way, as far as that is allowed.
    fn roll(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut drained = Vec::new();
        let fleet = &mut self.scales().fleet;
        for pool in 0..fleet.pools() {
            fleet.roll(now, pool, &mut drained);
        }
        for worker in drained {
            self.group_of(worker).leave(worker);
            self.limit_drain(now, worker, actions);
        }
    }
}
