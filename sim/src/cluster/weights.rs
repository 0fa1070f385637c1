//! What the cluster does about weights that workers load from their neighbours: each function is one moment in it.

use super::Cluster;
use crate::event::{Action, WorkerId};
use crate::links::Network;
use crate::scaling::weights::{HAS_NETWORK, Loading, Streams};
use crate::scaling::{Scaling, ScalingSpec};
use engine::Time;

const STREAMS: &str = "only who streams weights loads them";

impl Cluster {
    /// What streams weights, if something does.
    pub(super) fn streams(&self, spec: &ScalingSpec) -> Option<Streams> {
        if spec.pools.iter().all(|pool| pool.startup.weights.is_none()) {
            return None;
        }
        let pools = self.pools.iter();
        let gpus: Vec<u32> = pools
            .flat_map(|pool| std::iter::repeat_n(pool.gpus_per_worker, pool.workers as usize))
            .collect();
        let Some(parts) = &self.disaggregated else {
            let (network, topology) = spec.network.clone().expect(HAS_NETWORK);
            let own = Network::new(network, topology.as_ref(), &gpus);
            return Some(Streams::new(gpus, topology, Some(own)));
        };
        let topology = parts.handoffs.spec.topology.clone();
        Some(Streams::new(gpus, topology, None))
    }

    /// The state of scaling, and the network of those that hand requests over.
    fn scaling_and_network(&mut self) -> (&mut Scaling, Option<&mut Network>) {
        let scaling = self.scaling.as_mut().expect(STREAMS);
        let parts = self.disaggregated.as_mut();
        let network = parts.map(|parts| parts.handoffs.network_mut());
        (scaling, network)
    }

    /// A worker has its image and asks for weights.
    pub(super) fn load_weights(&mut self, now: Time, worker: WorkerId, actions: &mut Vec<Action>) {
        let (scaling, network) = self.scaling_and_network();
        let streams = scaling.streams.as_mut().expect(STREAMS);
        let fleet = &scaling.fleet;
        let bytes = fleet.weights_of(worker).expect(STREAMS);
        let to = (worker, fleet.life_of(worker));
        if streams.begin(now, to, bytes, fleet, network) == Loading::FromElsewhere {
            self.load_from_elsewhere(now, worker);
        }
        self.ask_for_links(actions);
        self.go_on(now, actions);
    }

    /// Nobody sends a worker its weights.
    fn load_from_elsewhere(&mut self, now: Time, worker: WorkerId) {
        let scaling = self.scales();
        let until = scaling.fleet.loads_from_elsewhere(now, worker);
        let streams = scaling.streams.as_mut().expect(STREAMS);
        streams.loads_until(worker, until);
    }

    /// Workers whose weights are there.
    pub(super) fn weights_arrived(
        &mut self,
        now: Time,
        workers: &[WorkerId],
        actions: &mut Vec<Action>,
    ) {
        for &worker in workers {
            let scaling = self.scales();
            let streams = scaling.streams.as_mut().expect(STREAMS);
            streams.arrived(now, worker);
            scaling.fleet.has_weights(now, worker);
        }
        if !workers.is_empty() {
            self.go_on(now, actions);
        }
    }

    /// Streams to and from workers that have left their places end.
    pub(super) fn end_streams(&mut self, now: Time, actions: &mut Vec<Action>) {
        let (scaling, mut network) = self.scaling_and_network();
        let gone = std::mem::take(&mut scaling.fleet.vacated);
        let Some(streams) = &mut scaling.streams else {
            return;
        };
        if gone.is_empty() {
            return;
        }
        let mut without = Vec::new();
        for worker in gone {
            let network = network.as_deref_mut();
            without.extend(streams.left(now, worker, &scaling.fleet, network));
        }
        for worker in without {
            // Unless it is gone as well.
            if self.scales().fleet.is_loading(worker) {
                self.load_from_elsewhere(now, worker);
            }
        }
        self.ask_for_links(actions);
    }

    /// Something happens on the links of a deployment where weights alone are sent.
    pub(super) fn move_weights(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(streams) = self.scaling.as_mut().and_then(|it| it.streams.as_mut()) else {
            return;
        };
        let mut loaded = Vec::new();
        streams.advance(now, &mut loaded);
        self.weights_arrived(now, &loaded, actions);
    }

    /// Says of faults that took workers away when others served in their place, where that was not known.
    pub(super) fn close_replacements(&mut self) {
        let (Some(adversity), Some(scaling)) =
            (&mut self.recording.adversity, &self.recording.scaling)
        else {
            return;
        };
        for fault in &mut adversity.faults {
            if fault.ended == Time::MAX {
                let lives = scaling.lives.iter();
                let ordered =
                    lives.filter(|life| life.ordered == fault.began || life.called == fault.began);
                let served = ordered.map(|life| life.ready.min(life.gone));
                let served = served.filter(|&it| it != Time::MAX).max();
                fault.ended = served.unwrap_or(fault.began);
            }
        }
    }
}
