//! Nodes, racks and zones: which links a transfer between two workers crosses.
//!
//! A worker has consecutive GPUs. Each GPU of the sender sends an equal share of the KV, in order, to the GPUs of the receiver:
//! with as many GPUs on both sides the first to the first and so on, else the shares are cut so that every GPU sends and
//! receives as much as the others of its side. Between two GPUs the way is
//!
//! ```text
//! in one NVLink domain (a node or a rack)   NVLink of the sender → NVLink of the receiver
//! else                                      NIC → (leaf up → (spine up → spine down) → leaf down) → NIC
//! ```
//!
//! NICs belong to a node; its GPUs use them in order, several GPUs one NIC or one GPU several. The nodes of a rack hang on a
//! leaf switch; what leaves the rack goes up and comes down through the leaves' uplinks, which carry the NICs' sum divided by
//! `leaf_oversubscription`. Rails: the n-th NICs of all nodes have a leaf of their own in each rack, and what changes the rail
//! goes through the spine too. What leaves a zone also crosses the spines' uplinks, which carry the sum of the zone's leaves'
//! uplinks divided by `spine_oversubscription`. Levels that are not oversubscribed are never full and are left out.
//!
//! Source: NVIDIA's reference architectures (HGX nodes with a NIC per GPU on rails, leaf and spine; GB200 NVL72 with NVLink
//! across the rack).

// Model: uplinks of a leaf are one link, as if packets were spread evenly over them. Hashing flows onto uplinks, as routers
// without adaptive routing do, can put two flows on one of eight: up to half the rate for some, not measured.
// Model: a NIC carries its rate in and out at once; PCIe switches between GPU and NIC are never the limit.

use super::{Fabric, LinkId, LinkKind, NetworkSpec, SiteKind};
use engine::Span;

/// A deployment's place in a data centre.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// GPUs of a node.
    pub gpus_per_node: u32,
    /// Network cards of a node, each as fast as the network says; 0 for none.
    pub nics_per_node: u32,
    /// Whether the cards of a node reach each other (EFA's do not).
    pub nics_reach_own_node: bool,
    /// NVLink between workers; `None` where each worker keeps its own to itself.
    pub nvlink: Option<NvLink>,
    /// Nodes of a rack; `None` for one rack.
    pub nodes_per_rack: Option<u32>,
    /// Racks of a zone; `None` for one zone.
    pub racks_per_zone: Option<u32>,
    /// Whether the n-th cards of all nodes have switches of their own.
    pub has_rails: bool,
    /// What the NICs below a leaf carry over what its uplinks carry; `None` for uplinks that are never full.
    pub leaf_oversubscription: Option<f64>,
    /// What the uplinks of a zone's leaves carry over what its spines' uplinks carry; `None` for such that are never full.
    pub spine_oversubscription: Option<f64>,
    /// By worker: its first GPU, counted over all nodes.
    pub placement: Vec<u32>,
}

/// NVLink between GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvLink {
    /// How far it reaches.
    pub reach: NvLinkReach,
    /// Of a GPU, each way.
    pub bytes_per_s: u64,
    /// Before the first byte.
    pub latency: Span,
}

/// How far NVLink reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvLinkReach {
    /// The GPUs of a node.
    Node,
    /// The GPUs of a rack.
    Rack,
}

/// How workers are grouped by where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A node.
    Host,
    /// Nodes below one leaf.
    Rack,
    /// Racks below one spine.
    Zone,
}

impl Domain {
    /// Dynamo's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Domain::Host => "host",
            Domain::Rack => "rack",
            Domain::Zone => "zone",
        }
    }
}

/// Why two workers cannot reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// They have no network cards and no NVLink in common.
    NoLink,
    /// They are on one node, whose cards do not reach each other.
    SameNode,
}

/// A part of a transfer: shards that take the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strand {
    pub path: Vec<LinkId>,
    /// Shards of it, of those of all strands together.
    pub shards: u64,
    pub latency: Span,
}

impl Topology {
    fn node_of(&self, gpu: u32) -> u32 {
        gpu / self.gpus_per_node
    }

    fn rack_of(&self, node: u32) -> u32 {
        self.nodes_per_rack.map_or(0, |nodes| node / nodes)
    }

    fn zone_of(&self, rack: u32) -> u32 {
        self.racks_per_zone.map_or(0, |racks| rack / racks)
    }

    /// Which domain a worker is in: that of its first GPU.
    #[must_use]
    pub fn domain_of(&self, worker: usize, domain: Domain) -> u32 {
        let host = self.node_of(self.placement[worker]);
        match domain {
            Domain::Host => host,
            Domain::Rack => self.rack_of(host),
            Domain::Zone => self.zone_of(self.rack_of(host)),
        }
    }

    /// Why one worker cannot send to another, if it cannot; `gpus` by worker.
    #[must_use]
    pub fn barrier(&self, gpus: &[u32], from: usize, to: usize) -> Option<Unreachable> {
        let [from, to] = [from, to].map(|worker| (self.placement[worker], gpus[worker]));
        let mut barriers = pairs(from, to).filter_map(|(a, b)| self.barrier_between(a, b));
        barriers.next()
    }

    fn barrier_between(&self, a: u32, b: u32) -> Option<Unreachable> {
        if self.share_nvlink(a, b) {
            None
        } else if self.nics_per_node == 0 {
            Some(Unreachable::NoLink)
        } else if self.node_of(a) == self.node_of(b) && !self.nics_reach_own_node {
            Some(Unreachable::SameNode)
        } else {
            None
        }
    }

    fn share_nvlink(&self, a: u32, b: u32) -> bool {
        let [a, b] = [a, b].map(|gpu| self.node_of(gpu));
        self.nvlink.is_some_and(|nvlink| match nvlink.reach {
            NvLinkReach::Node => a == b,
            NvLinkReach::Rack => self.rack_of(a) == self.rack_of(b),
        })
    }

    /// Groups of cards that work as one: those of one GPU, or one that several GPUs share.
    fn cards_per_node(&self) -> u32 {
        self.nics_per_node.min(self.gpus_per_node)
    }

    fn card_of(&self, gpu: u32) -> u32 {
        let within = gpu % self.gpus_per_node * self.cards_per_node() / self.gpus_per_node;
        self.node_of(gpu) * self.cards_per_node() + within
    }
}

/// The GPUs that exchange shards: of (first, count) of the sender and of the receiver, as often as shards are cut.
fn pairs(from: (u32, u32), to: (u32, u32)) -> impl Iterator<Item = (u32, u32)> {
    let shards = least_common_multiple(from.1.max(1), to.1.max(1));
    let gpu = move |(first, count): (u32, u32), shard: u32| {
        first + (u64::from(shard) * u64::from(count.max(1)) / u64::from(shards)) as u32
    };
    (0..shards).map(move |shard| (gpu(from, shard), gpu(to, shard)))
}

fn least_common_multiple(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// The links of a topology, each kind in two directions.
#[derive(Debug, Clone)]
pub(super) struct Wiring {
    topology: Topology,
    gpus: Vec<u32>,
    latency: Span,
    /// By worker: its GPUs' NVLink together.
    nvlink: Vec<[LinkId; 2]>,
    /// By card.
    nics: Vec<[LinkId; 2]>,
    /// By rack and rail; none where they are never full.
    leaves: Vec<[LinkId; 2]>,
    rails: u32,
    /// By zone.
    spines: Vec<[LinkId; 2]>,
    core: Option<LinkId>,
}

impl Wiring {
    pub fn new(topology: &Topology, spec: &NetworkSpec, gpus: &[u32], fabric: &mut Fabric) -> Self {
        assert!(
            topology.placement.len() == gpus.len(),
            "every worker has a place"
        );
        let ends = topology.placement.iter().zip(gpus);
        let last = ends.map(|(first, gpus)| first + gpus.max(&1) - 1).max();
        let nodes = last.map_or(0, |gpu| topology.node_of(gpu) + 1);
        let mut both = |kind, bytes_per_s: u64, count: u32| -> Vec<[LinkId; 2]> {
            let both = |_| [(); 2].map(|()| fabric.add_link_of(kind, bytes_per_s.max(1)));
            (0..count).map(both).collect()
        };
        let nvlink = topology.nvlink.map_or_else(Vec::new, |nvlink| {
            let of =
                |gpus: &u32| both(LinkKind::NvLink, nvlink.bytes_per_s * u64::from(*gpus), 1)[0];
            gpus.iter().map(of).collect()
        });
        let cards = topology.cards_per_node();
        let card_rate = spec.bytes_per_s * u64::from(topology.nics_per_node / cards.max(1));
        let nics = both(LinkKind::Nic, card_rate, nodes * cards);
        let rails = if topology.has_rails { cards.max(1) } else { 1 };
        let (racks, zones) = match nodes.checked_sub(1) {
            Some(last) => {
                let rack = topology.rack_of(last);
                (rack + 1, topology.zone_of(rack) + 1)
            }
            None => (0, 0),
        };
        // Full racks and zones, whether or not the deployment fills them.
        let below_leaf = card_rate as f64
            * f64::from(topology.nodes_per_rack.unwrap_or(nodes))
            * f64::from(cards)
            / f64::from(rails);
        let up = |over: f64| (below_leaf / over).round() as u64;
        let leaves = topology
            .leaf_oversubscription
            .map_or_else(Vec::new, |over| {
                both(LinkKind::Leaf, up(over), racks * rails)
            });
        let below_spine = below_leaf / topology.leaf_oversubscription.unwrap_or(1.0)
            * f64::from(rails)
            * f64::from(topology.racks_per_zone.unwrap_or(racks));
        let spines = topology
            .spine_oversubscription
            .map_or_else(Vec::new, |over| {
                both(LinkKind::Spine, (below_spine / over).round() as u64, zones)
            });
        Wiring {
            gpus: gpus.to_vec(),
            latency: spec.latency,
            nvlink,
            nics,
            leaves,
            rails,
            spines,
            core: spec
                .core_bytes_per_s
                .map(|core| fabric.add_link_of(LinkKind::Core, core)),
            topology: topology.clone(),
        }
    }

    /// How many sites of a kind there are whose links can be slow or down.
    pub fn sites(&self, kind: SiteKind) -> u32 {
        let has_cards = !self.nics.is_empty();
        let count = match kind {
            SiteKind::Worker if has_cards => self.gpus.len(),
            SiteKind::Worker => 0,
            SiteKind::NvLink => self.nvlink.len(),
            SiteKind::Nic => self.nics.len(),
            SiteKind::Node => self.nics.len() / (self.topology.cards_per_node().max(1) as usize),
            SiteKind::Rack => self.leaves.len() / self.rails as usize,
            SiteKind::Zone => self.spines.len(),
            SiteKind::Core => usize::from(self.core.is_some()),
        };
        count as u32
    }

    /// The links of one of them, both ways.
    pub fn links_of(&self, kind: SiteKind, site: u32) -> Vec<LinkId> {
        let at = site as usize;
        let group = |links: &[[LinkId; 2]], first: usize, count: usize| {
            let links = links.iter().skip(first).take(count);
            links.flatten().copied().collect()
        };
        let cards = self.topology.cards_per_node() as usize;
        let rails = self.rails as usize;
        match kind {
            SiteKind::Worker => {
                let first = self.topology.placement[at];
                let gpus = first..first + self.gpus[at].max(1);
                let mut cards: Vec<u32> = gpus.map(|gpu| self.topology.card_of(gpu)).collect();
                cards.dedup();
                let links = cards.iter().flat_map(|&card| self.nics[card as usize]);
                links.collect()
            }
            SiteKind::NvLink => group(&self.nvlink, at, 1),
            SiteKind::Nic => group(&self.nics, at, 1),
            SiteKind::Node => group(&self.nics, at * cards, cards),
            SiteKind::Rack => group(&self.leaves, at * rails, rails),
            SiteKind::Zone => group(&self.spines, at, 1),
            SiteKind::Core => self.core.into_iter().collect(),
        }
    }

    /// The ways of a transfer.
    pub fn strands(&self, from: usize, to: usize) -> Vec<Strand> {
        let [a, b] = [from, to].map(|worker| (self.topology.placement[worker], self.gpus[worker]));
        let mut strands: Vec<Strand> = Vec::new();
        for pair in pairs(a, b) {
            let (path, latency) = self.path((from, to), pair);
            match strands.iter_mut().find(|strand| strand.path == path) {
                Some(strand) => strand.shards += 1,
                None => strands.push(Strand {
                    path,
                    shards: 1,
                    latency,
                }),
            }
        }
        strands
    }

    fn path(&self, (from, to): (usize, usize), (a, b): (u32, u32)) -> (Vec<LinkId>, Span) {
        let topology = &self.topology;
        assert!(
            topology.barrier_between(a, b).is_none(),
            "workers that do not reach each other are refused before a run"
        );
        if let Some(nvlink) = topology.nvlink.filter(|_| topology.share_nvlink(a, b)) {
            return (
                vec![self.nvlink[from][0], self.nvlink[to][1]],
                nvlink.latency,
            );
        }
        let [out, into] = [a, b].map(|gpu| topology.card_of(gpu) as usize);
        let cards = topology.cards_per_node();
        let rail = |card: usize| card as u32 % cards % self.rails;
        let [from, to] = [a, b].map(|gpu| topology.rack_of(topology.node_of(gpu)));
        let mut path = vec![self.nics[out][0]];
        if from != to || rail(out) != rail(into) {
            let leaf = |rack: u32, card: usize| (rack * self.rails + rail(card)) as usize;
            let [up, down] = [leaf(from, out), leaf(to, into)];
            let zones = [from, to].map(|rack| topology.zone_of(rack) as usize);
            path.extend(self.leaves.get(up).map(|leaf| leaf[0]));
            if zones[0] != zones[1] {
                path.extend(self.spines.get(zones[0]).map(|spine| spine[0]));
                path.extend(self.spines.get(zones[1]).map(|spine| spine[1]));
            }
            path.extend(self.leaves.get(down).map(|leaf| leaf[1]));
        }
        path.extend(self.core);
        path.push(self.nics[into][1]);
        (path, self.latency)
    }
}
