//! What the cluster does about links between workers that are slow or down: their capacity changes, what crosses them moves
//! on at its new rate, and when all is over the fault is told what it cost.

use super::Cluster;
use crate::adversity::faults::Fault;
use crate::adversity::record::LinkFaultRecord;
use crate::event::Action;
use crate::links::{Impairment, LinkCost, Network, SiteKind};
use engine::Time;

const HAS_LINKS: &str = "links break only where there are some";

/// What a fault enters into the record when it begins.
pub(super) fn blank(fault: &Fault) -> Option<LinkFaultRecord> {
    fault.kind.site().map(|site| LinkFaultRecord {
        site,
        number: fault.worker,
        cost: LinkCost::default(),
    })
}

impl Cluster {
    /// The network between workers, if there is one.
    pub(super) fn network(&mut self) -> Option<&mut Network> {
        match &mut self.disaggregated {
            Some(parts) => Some(parts.handoffs.network_mut()),
            None => {
                let streams = self.scaling.as_mut()?.streams.as_mut()?;
                streams.own_network()
            }
        }
    }

    /// Tells the faults how many sites there are.
    pub(super) fn count_sites(&mut self) {
        let Some(network) = self.network() else {
            return;
        };
        let sites = SiteKind::ALL.map(|kind| network.sites(kind));
        if let Some(adversity) = &mut self.adversity {
            adversity.faults.sites = sites;
        }
    }

    pub(super) fn impair_links(
        &mut self,
        now: Time,
        number: u32,
        site: (SiteKind, u32),
        how: Impairment,
        actions: &mut Vec<Action>,
    ) {
        let network = self.network().expect(HAS_LINKS);
        network.impair(now, number, site, how);
        self.ask_for_links(actions);
    }

    pub(super) fn repair_links(&mut self, now: Time, number: u32, actions: &mut Vec<Action>) {
        let cost = self.network().expect(HAS_LINKS).repair(now, number);
        let record = self.record_of(number).link.as_mut();
        record.expect("it is links that broke").cost = cost;
        self.ask_for_links(actions);
    }
}
