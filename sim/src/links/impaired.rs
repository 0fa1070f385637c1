//! Links that are slow or down, and what that costs.
//!
//! A *site* is what breaks at once: the ways of a worker, a network card, the uplinks of a rack. Each of its links, in both
//! directions, carries a part of what it could while a fault lasts, or nothing; of several faults on one link the worst counts.
//! Transfers stand still on a link that is down, and go on when it is back.
//!
//! What a fault costs: at every moment a flow has a rate, and one that it would have if all links were sound
//! ([`Fabric::take_held`]); where it has half of that, a second holds it up for half a second. A transfer is held up for as
//! long as the strand of it that is held up longest, by each of the faults on its way.

// Model: a fault breaks both directions of a link, as a cable or a card does. A link that is slow loses bandwidth and no
// packets: retransmissions, which cost latency besides, are left out.

use super::{Fabric, FlowId, LinkId};
use engine::{Span, Time};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// What of a network breaks at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteKind {
    /// All that a worker sends and receives; in a topology, the cards of its GPUs.
    Worker,
    /// NVLink of a worker's GPUs.
    NvLink,
    /// One network card, or the cards of one GPU; counted over all nodes.
    Nic,
    /// All network cards of a node.
    Node,
    /// The uplinks of a rack's leaf switches.
    Rack,
    /// The uplinks of a zone's spine.
    Zone,
    /// What all share.
    Core,
}

impl SiteKind {
    /// All of them.
    pub const ALL: [SiteKind; 7] = [
        SiteKind::Worker,
        SiteKind::NvLink,
        SiteKind::Nic,
        SiteKind::Node,
        SiteKind::Rack,
        SiteKind::Zone,
        SiteKind::Core,
    ];

    /// Its name in scenarios and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SiteKind::Worker => "worker",
            SiteKind::NvLink => "nvlink",
            SiteKind::Nic => "nic",
            SiteKind::Node => "node",
            SiteKind::Rack => "rack",
            SiteKind::Zone => "zone",
            SiteKind::Core => "core",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impairment {
    /// What took a second takes so many hundredths of one; 100 and more.
    Slow {
        /// Per cent.
        percent: u32,
    },
    /// Nothing moves.
    Down,
}

impl Impairment {
    /// What is left of a link.
    fn of(self, bytes_per_s: u64) -> u64 {
        match self {
            Impairment::Down => 0,
            Impairment::Slow { percent } => {
                let left = u128::from(bytes_per_s) * 100 / u128::from(percent.max(100));
                (left as u64).max(1)
            }
        }
    }
}

/// What the faults of a site cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCost {
    /// Transfers that were held up.
    pub transfers: u32,
    /// Bytes that these were to move, moved or not when the fault began.
    pub bytes: u64,
    /// For how long, all together.
    pub held: Span,
}

/// A fault that lasts.
#[derive(Debug, Clone)]
struct Fault {
    number: u32,
    how: Impairment,
    links: Vec<LinkId>,
    cost: LinkCost,
    transfers: BTreeSet<u32>,
    /// Of transfers under way, by tag: how long each flow has been held up.
    held: FxHashMap<u32, Vec<(FlowId, Span)>>,
}

/// The faults of a network that last.
#[derive(Debug, Clone, Default)]
pub(super) struct Impaired {
    faults: Vec<Fault>,
}

impl Impaired {
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// A fault begins; what flows were held up before has been [charged](Impaired::charge).
    pub fn begin(
        &mut self,
        now: Time,
        fabric: &mut Fabric,
        number: u32,
        links: Vec<LinkId>,
        how: Impairment,
    ) {
        self.faults.push(Fault {
            number,
            how,
            links: links.clone(),
            cost: LinkCost::default(),
            transfers: BTreeSet::new(),
            held: FxHashMap::default(),
        });
        self.set(now, fabric, &links);
    }

    /// It is over; what flows were held up before has been charged. What it cost.
    pub fn end(&mut self, now: Time, fabric: &mut Fabric, number: u32) -> LinkCost {
        let at = self.faults.iter().position(|fault| fault.number == number);
        let mut fault = (self.faults).remove(at.expect("only a fault that lasts is over"));
        self.set(now, fabric, &fault.links);
        let mut tags: Vec<u32> = fault.held.keys().copied().collect();
        tags.sort_unstable();
        for tag in tags {
            fault.settle(tag);
        }
        fault.cost
    }

    /// Sets links to the worst that is wrong with each.
    fn set(&self, now: Time, fabric: &mut Fabric, links: &[LinkId]) {
        for &link in links {
            let sound = fabric.sound_capacity(link);
            let faults = self.faults.iter().filter(|it| it.links.contains(&link));
            let left = faults.map(|fault| fault.how.of(sound)).min();
            fabric.set_capacity(now, link, left.unwrap_or(sound));
        }
    }

    /// A flow of a transfer of so many bytes was held up.
    pub fn charge(
        &mut self,
        path: &[LinkId],
        (tag, bytes): (u32, u64),
        (flow, held): (FlowId, Span),
    ) {
        if held == Span::ZERO {
            return;
        }
        for fault in &mut self.faults {
            if !path.iter().any(|link| fault.links.contains(link)) {
                continue;
            }
            if !fault.held.contains_key(&tag) {
                fault.cost.bytes += bytes;
                fault.transfers.insert(tag);
                fault.cost.transfers = fault.transfers.len() as u32;
            }
            let flows = fault.held.entry(tag).or_default();
            match flows.iter_mut().find(|(other, _)| *other == flow) {
                Some((_, sum)) => *sum += held,
                None => flows.push((flow, held)),
            }
        }
    }

    /// A transfer is over.
    pub fn settle(&mut self, tag: u32) {
        for fault in &mut self.faults {
            fault.settle(tag);
        }
    }
}

impl Fault {
    fn settle(&mut self, tag: u32) {
        let flows = self.held.remove(&tag);
        let longest = flows.into_iter().flatten().map(|(_, held)| held).max();
        self.cost.held += longest.unwrap_or_default();
    }
}
