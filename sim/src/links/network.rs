//! The network between workers.
//!
//! Without a [topology](Topology) each worker has one way out and one way in, and all of them may share a core: a transfer
//! crosses the sender's way out, the core if it is limited, and the receiver's way in. With a topology it is cut into
//! *strands* that each take a way of their own, and is over when the last of them is. The first transfer between two workers
//! also waits for them to get acquainted.

// Model: without a topology a worker's network cards are one link each way, as fast as all of them together: transports that
// stripe over cards (NIXL over libfabric or UCX) do that for transfers of megabytes.

use super::impaired::{Impaired, Impairment, LinkCost, SiteKind};
use super::topology::{Strand, Wiring};
use super::{Fabric, FlowId, LinkId, LinkKind, LinkUse, NewFlow, Topology};
use crate::event::WorkerId;
use engine::{Span, Time};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Speeds and costs of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkSpec {
    /// What a worker sends at most, and what it receives at most; in a topology, what a network card does.
    pub bytes_per_s: u64,
    /// Whether that is for each of its GPUs.
    pub per_gpu: bool,
    /// What all transfers together carry at most; `None` for a core that is never full.
    pub core_bytes_per_s: Option<u64>,
    /// Of every transfer, before its first byte.
    pub latency: Span,
    /// Of the first transfer between two workers, besides (the NIXL handshake).
    pub setup: Span,
}

/// A network and the transfers over it.
#[derive(Debug, Clone)]
pub struct Network {
    spec: NetworkSpec,
    fabric: Fabric,
    ways: Ways,
    acquainted: FxHashSet<(WorkerId, WorkerId)>,
    /// By tag.
    under_way: FxHashMap<u32, UnderWay>,
    impaired: Impaired,
    ended: Vec<(u32, FlowId)>,
}

/// A transfer under way.
#[derive(Debug, Clone)]
struct UnderWay {
    bytes: u64,
    /// Those of its flows that have not ended.
    flows: Vec<FlowId>,
}

#[derive(Debug, Clone)]
enum Ways {
    Flat {
        /// By worker.
        out: Vec<LinkId>,
        into: Vec<LinkId>,
        core: Option<LinkId>,
    },
    Wired {
        wiring: Box<Wiring>,
        known: FxHashMap<(WorkerId, WorkerId), Arc<[Strand]>>,
    },
}

/// A transfer to be started.
#[derive(Debug, Clone, Copy)]
pub struct NewTransfer {
    /// The caller's name for it, of which none other is under way.
    pub tag: u32,
    /// Who sends.
    pub from: WorkerId,
    /// Who receives.
    pub to: WorkerId,
    /// How much.
    pub bytes: u64,
    /// How long there is nothing to be sent yet.
    pub delay: Span,
    /// Bytes per second that there are to be sent at most, until it is [unbound](Network::unbind); `None` if all is there.
    pub source: Option<u64>,
}

impl Network {
    /// An idle network between workers of so many GPUs each.
    #[must_use]
    pub fn new(spec: NetworkSpec, topology: Option<&Topology>, gpus: &[u32]) -> Network {
        let mut fabric = Fabric::default();
        let ways = match topology {
            Some(topology) => Ways::Wired {
                wiring: Box::new(Wiring::new(topology, &spec, gpus, &mut fabric)),
                known: FxHashMap::default(),
            },
            None => Network::flat(spec, gpus, &mut fabric),
        };
        Network {
            ways,
            spec,
            fabric,
            acquainted: FxHashSet::default(),
            under_way: FxHashMap::default(),
            impaired: Impaired::default(),
            ended: Vec::new(),
        }
    }

    fn flat(spec: NetworkSpec, gpus: &[u32], fabric: &mut Fabric) -> Ways {
        let mut ways = || -> Vec<LinkId> {
            let capacity = |&gpus: &u32| match spec.per_gpu {
                true => spec.bytes_per_s * u64::from(gpus.max(1)),
                false => spec.bytes_per_s,
            };
            let add = |gpus| fabric.add_link_of(LinkKind::Worker, capacity(gpus));
            gpus.iter().map(add).collect()
        };
        Ways::Flat {
            out: ways(),
            into: ways(),
            core: spec
                .core_bytes_per_s
                .map(|core| fabric.add_link_of(LinkKind::Core, core)),
        }
    }

    /// Starts a transfer; [`Network::advance`] returns its tag when it is over.
    pub fn send(&mut self, now: Time, new: NewTransfer) {
        let NewTransfer { tag, from, to, .. } = new;
        let mut delay = new.delay;
        if self.acquainted.insert((from, to)) {
            delay += self.spec.setup;
        }
        let flows = match &mut self.ways {
            Ways::Flat { out, into, core } => {
                let path = [out[from.0 as usize], into[to.0 as usize]];
                let all = [path[0], path[1], core.unwrap_or(path[1])];
                let path = if core.is_some() { &all[..] } else { &path };
                let flow = NewFlow {
                    tag,
                    path,
                    bytes: new.bytes,
                    delay: delay + self.spec.latency,
                };
                vec![self.fabric.start_from(now, flow, new.source)]
            }
            Ways::Wired { wiring, known } => {
                let strands = known.entry((from, to)).or_insert_with(|| {
                    let strands = wiring.strands(from.0 as usize, to.0 as usize);
                    strands.into()
                });
                start_strands(
                    &mut self.fabric,
                    now,
                    strands,
                    &NewTransfer { delay, ..new },
                )
            }
        };
        let bytes = new.bytes;
        let before = self.under_way.insert(tag, UnderWay { bytes, flows });
        assert!(before.is_none(), "one transfer of a name at a time");
    }

    /// All that a transfer has left to send is there, if it is under way.
    pub fn unbind(&mut self, now: Time, tag: u32) {
        let flows = self.under_way.get(&tag).map(|it| &it.flows);
        for &flow in flows.into_iter().flatten() {
            self.fabric.unbind(now, flow);
        }
    }

    /// Ends a transfer before its time; what it has moved is lost.
    pub fn cancel(&mut self, now: Time, tag: u32) {
        let transfer = self.under_way.remove(&tag);
        let transfer = transfer.expect("only a transfer under way is cancelled");
        for &flow in &transfer.flows {
            self.charge(now, (tag, transfer.bytes), flow);
            self.fabric.cancel(now, flow);
        }
        self.impaired.settle(tag);
    }

    /// Bytes that a transfer under way has moved by `now`.
    #[must_use]
    pub fn carried(&self, now: Time, tag: u32) -> u64 {
        self.under_way.get(&tag).map_or(0, |transfer| {
            let left = |&flow: &FlowId| self.fabric.left(now, flow);
            transfer.bytes - transfer.flows.iter().map(left).sum::<u64>()
        })
    }

    /// Whether something is on its way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// How many sites of a kind there are.
    #[must_use]
    pub fn sites(&self, kind: SiteKind) -> u32 {
        match (&self.ways, kind) {
            (Ways::Flat { out, .. }, SiteKind::Worker) => out.len() as u32,
            (Ways::Flat { core, .. }, SiteKind::Core) => u32::from(core.is_some()),
            (Ways::Flat { .. }, _) => 0,
            (Ways::Wired { wiring, .. }, _) => wiring.sites(kind),
        }
    }

    /// From now on something is wrong with a site, by the number of the fault. Everything due by `now` has been advanced over.
    pub fn impair(
        &mut self,
        now: Time,
        number: u32,
        (kind, site): (SiteKind, u32),
        how: Impairment,
    ) {
        let links = match (&self.ways, kind) {
            (Ways::Flat { out, into, .. }, SiteKind::Worker) => {
                vec![out[site as usize], into[site as usize]]
            }
            (Ways::Flat { core, .. }, SiteKind::Core) => core.iter().copied().collect(),
            (Ways::Flat { .. }, _) => Vec::new(),
            (Ways::Wired { wiring, .. }, _) => wiring.links_of(kind, site),
        };
        assert!(!links.is_empty(), "sites that do not exist are refused");
        self.charge_all(now);
        (self.impaired).begin(now, &mut self.fabric, number, links, how);
    }

    /// That is over. What it cost.
    pub fn repair(&mut self, now: Time, number: u32) -> LinkCost {
        self.charge_all(now);
        self.impaired.end(now, &mut self.fabric, number)
    }

    fn charge_all(&mut self, now: Time) {
        if self.impaired.is_sound() {
            return;
        }
        let mut tags: Vec<u32> = self.under_way.keys().copied().collect();
        tags.sort_unstable();
        for tag in tags {
            let UnderWay { bytes, flows } = self.under_way[&tag].clone();
            for flow in flows {
                self.charge(now, (tag, bytes), flow);
            }
        }
    }

    /// Takes account of how long a flow was held up.
    fn charge(&mut self, now: Time, transfer: (u32, u64), flow: FlowId) {
        if !self.impaired.is_sound() {
            let held = self.fabric.take_held(now, flow);
            (self.impaired).charge(self.fabric.path(flow), transfer, (flow, held));
        }
    }

    /// Who has been acquainted with a worker is not any more.
    pub fn forget(&mut self, worker: WorkerId) {
        (self.acquainted).retain(|(from, to)| *from != worker && *to != worker);
    }

    /// When something happens next, if nothing is sent before.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        self.fabric.next_event()
    }

    /// Appends the tags of the transfers that are over by `now`.
    pub fn advance(&mut self, now: Time, ended: &mut Vec<u32>) {
        let mut flows = std::mem::take(&mut self.ended);
        self.fabric.advance_flows(now, &mut flows);
        for (tag, flow) in flows.drain(..) {
            let transfer = self.under_way.get_mut(&tag);
            let transfer = transfer.expect("what ends was under way");
            transfer.flows.retain(|&other| other != flow);
            let (bytes, is_over) = (transfer.bytes, transfer.flows.is_empty());
            self.charge(now, (tag, bytes), flow);
            if is_over {
                self.under_way.remove(&tag);
                self.impaired.settle(tag);
                ended.push(tag);
            }
        }
        self.ended = flows;
    }

    /// What each link did.
    #[must_use]
    pub fn links(&self) -> Vec<LinkUse> {
        self.fabric.uses().collect()
    }
}

/// Each strand carries its shards' part of the bytes.
fn start_strands(
    fabric: &mut Fabric,
    now: Time,
    strands: &[Strand],
    new: &NewTransfer,
) -> Vec<FlowId> {
    let all: u64 = strands.iter().map(|strand| strand.shards).sum();
    let part =
        |shards: u64, whole: u64| (u128::from(whole) * u128::from(shards) / u128::from(all)) as u64;
    let mut behind = 0;
    let mut start = |strand: &Strand| {
        let before = part(behind, new.bytes);
        behind += strand.shards;
        let flow = NewFlow {
            tag: new.tag,
            path: &strand.path,
            bytes: part(behind, new.bytes) - before,
            delay: new.delay + strand.latency,
        };
        let source = new.source.map(|rate| part(strand.shards, rate).max(1));
        fabric.start_from(now, flow, source)
    };
    strands.iter().map(&mut start).collect()
}
