//! What the cluster does about links between workers that are slow or down: their capacity changes, what crosses them moves
//! on at its new rate, and when all is over the fault is told what it cost.
//!
//! vLLM's prefill workers wait no longer than [`UNREAD_FOR`](crate::disaggregation::UNREAD_FOR) for a prompt to be read: then its blocks are free, the decode worker's read
//! fails, and it computes the prompt itself (`kv_load_failure_policy: recompute`).
//!
//! Source: vLLM 0.10 and later, NIXL connector (`VLLM_NIXL_ABORT_REQUEST_TIMEOUT`, 480 s).

// Model: the decode worker hears of it at once. NIXL itself gives no transfer up before: with UCX's retries set as Dynamo's guide has
// them (`UCX_RC_TIMEOUT=600s`) a broken connection would show later than that.

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

    /// Prompts that were not read in time are computed where they are needed.
    pub(super) fn give_up_reads(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(parts) = &mut self.disaggregated
            && let Some(id) = parts.handoffs.next_overdue(now)
        {
            let (from, _) = parts.handoffs.ends_of(id);
            if self.is_over(id) {
                continue;
            }
            self.lose_prompt(now, id, from, actions);
            self.workers[from.0 as usize].scheduler.release(id);
            self.notify(now, from, actions);
            if let Some(adversity) = &mut self.adversity {
                adversity.record.transfer_timeouts += 1;
            }
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
