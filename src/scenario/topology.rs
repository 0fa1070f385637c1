//! `network.topology`: nodes, racks and zones, and where the workers are among them.

use super::disaggregation::DomainFields;
use super::section::Section;
use super::tree::{Node, Value};
use engine::Span;
use sim::disaggregation::Enforcement;
use sim::links::placement::{NoRoom, Nodes, Placement};
use sim::links::topology::{NvLink, NvLinkReach, Unreachable};
use sim::links::{Topology, Transport};
use sweeps::scenario::{Pool, Role};

/// Where it stands in `network`.
pub const SECTION: &str = "topology";

const MAX_GB_PER_S: f64 = 1e6;
const MAX_OVERSUBSCRIPTION: f64 = 1e3;

/// What a preset fills in.
#[derive(Debug, Clone, Copy)]
struct Preset {
    gpus_per_node: u32,
    nics_per_node: u32,
    reach: NvLinkReach,
    nvlink_bytes_per_s: u64,
    nodes_per_rack: Option<u32>,
    has_rails: bool,
}

/// Eight GPUs and eight cards on rails, NVLink 4 within the node (HGX and DGX H100, H200).
const HGX: Preset = Preset {
    gpus_per_node: 8,
    nics_per_node: 8,
    reach: NvLinkReach::Node,
    nvlink_bytes_per_s: 450_000_000_000,
    nodes_per_rack: None,
    has_rails: true,
};

/// GB200 NVL72: 18 trays of four GPUs and four cards, NVLink 5 across the rack.
const NVL72: Preset = Preset {
    gpus_per_node: 4,
    nics_per_node: 4,
    reach: NvLinkReach::Rack,
    nvlink_bytes_per_s: 900_000_000_000,
    nodes_per_rack: Some(18),
    has_rails: true,
};

const PRESETS: [(&str, Preset); 2] = [("hgx", HGX), ("gb200-nvl72", NVL72)];

/// What is written, each field judged by itself. `placement` is still to be made.
struct Fields {
    topology: Topology,
    nodes: Option<u32>,
}

/// Judges the section where nobody uses it.
pub fn judge(section: &Section<'_>) {
    fields(section, None);
    section.has("placement");
}

/// The topology of a deployment, if one is written. `None` after a problem too.
pub fn read(
    network: &Section<'_>,
    section: &Section<'_>,
    pools: &[Pool],
    domain: Option<&DomainFields>,
) -> Option<Topology> {
    if !network.has(SECTION) {
        return None;
    }
    let efa = network.text("preset").map(|(name, _)| name);
    let is_efa = efa.is_some_and(|name| {
        name.trim()
            .eq_ignore_ascii_case(Transport::Efa.preset().name)
    });
    let Fields { topology, nodes } = fields(section, Some(is_efa))?;
    let gpus = gpus_by_worker(pools);
    let placement = placement(section, pools)?;
    let room = Nodes {
        gpus: topology.gpus_per_node,
        count: nodes,
    };
    let placement = match placement.place(&gpus, room) {
        Ok(placement) => placement,
        Err(no_room) => {
            complain_of_room(section, pools, &gpus, no_room);
            return None;
        }
    };
    let topology = Topology {
        placement,
        ..topology
    };
    is_connected(section, &topology, pools, &gpus, domain).then_some(topology)
}

fn fields(section: &Section<'_>, is_efa: Option<bool>) -> Option<Fields> {
    let preset = match section.has("preset") {
        true => Some(section.choice("preset", &PRESETS)?),
        false => None,
    };
    let whole = |name, least: u32| section.whole32(name, least..=1 << 20);
    let written = (
        whole("gpus_per_node", 1),
        whole("nics_per_node", 0),
        whole("nodes", 1),
        whole("nodes_per_rack", 1),
        whole("racks_per_zone", 1),
    );
    let (gpus_per_node, nics_per_node, nodes, nodes_per_rack, racks_per_zone) = written;
    let reaches = [
        ("none", None),
        ("node", Some(NvLinkReach::Node)),
        ("rack", Some(NvLinkReach::Rack)),
    ];
    let reach = match section.has("nvlink") {
        true => section.choice("nvlink", &reaches)?,
        false => Some(preset.map_or(NvLinkReach::Node, |preset| preset.reach)),
    };
    let rate = section.number("nvlink_gb_per_s", f64::MIN_POSITIVE..=MAX_GB_PER_S);
    let latency = section.number("nvlink_latency_us", 0.0..=1e9);
    let has_rails = section.flag("rails");
    let over = |name| section.number(name, f64::MIN_POSITIVE..=MAX_OVERSUBSCRIPTION);
    let leaf_oversubscription = over("leaf_oversubscription");
    let spine_oversubscription = over("spine_oversubscription");
    for name in ["nvlink_gb_per_s", "nvlink_latency_us"] {
        if reach.is_none() && section.has(name) {
            section.conflict(
                name,
                "a speed of NVLink that nobody uses",
                "nvlink: node or rack",
                "",
            );
        }
    }
    let Some(gpus_per_node) = gpus_per_node.or(preset.map(|preset| preset.gpus_per_node)) else {
        if !section.has("gpus_per_node") {
            section.mistake(
                "gpus_per_node",
                "nothing",
                "the GPUs of a node, or a preset",
                "for example `preset: hgx`",
            );
        }
        return None;
    };
    let nics_per_node = nics_per_node.or(preset.map(|preset| preset.nics_per_node));
    let nics_per_node = nics_per_node.unwrap_or(gpus_per_node);
    if nics_per_node > 0
        && !nics_per_node.is_multiple_of(gpus_per_node)
        && !gpus_per_node.is_multiple_of(nics_per_node)
    {
        section.conflict(
            "nics_per_node",
            format!("{nics_per_node} network cards for {gpus_per_node} GPUs"),
            "as many cards for each GPU, or as many GPUs for each card",
            "",
        );
        return None;
    }
    let preset_rate = preset.map_or(HGX.nvlink_bytes_per_s, |preset| preset.nvlink_bytes_per_s);
    let nvlink = reach.map(|reach| NvLink {
        reach,
        bytes_per_s: rate.map_or(preset_rate, |gb| (gb * 1e9).round().max(1.0) as u64),
        latency: latency.map_or(Transport::NvLink.preset().latency, |us| {
            Span((us * 1e6).round() as u64)
        }),
    });
    let nodes_per_rack = nodes_per_rack.or(preset.and_then(|preset| preset.nodes_per_rack));
    let needs_racks = [
        ("racks_per_zone", racks_per_zone.is_some()),
        ("spine_oversubscription", spine_oversubscription.is_some()),
    ];
    for (name, is_written) in needs_racks {
        if is_written && nodes_per_rack.is_none() {
            section.conflict(name, "racks of no size", "nodes_per_rack beside it", "");
        }
    }
    if spine_oversubscription.is_some() && racks_per_zone.is_none() {
        let expected = "racks_per_zone beside it: a spine's uplinks lead to other zones";
        section.conflict("spine_oversubscription", "one zone", expected, "");
    }
    Some(Fields {
        topology: Topology {
            gpus_per_node,
            nics_per_node,
            nics_reach_own_node: !is_efa.unwrap_or(false),
            nvlink,
            nodes_per_rack,
            racks_per_zone,
            has_rails: has_rails.unwrap_or_else(|| preset.is_some_and(|preset| preset.has_rails)),
            leaf_oversubscription,
            spine_oversubscription,
            placement: Vec::new(),
        },
        nodes,
    })
}

fn gpus_by_worker(pools: &[Pool]) -> Vec<u32> {
    let of = |pool: &Pool| std::iter::repeat_n(pool.gpus_per_worker(), pool.workers as usize);
    pools.iter().flat_map(of).collect()
}

/// The name of a worker: its pool and number in it.
fn worker_name(pools: &[Pool], mut worker: usize) -> String {
    for pool in pools {
        match worker.checked_sub(pool.workers as usize) {
            Some(left) => worker = left,
            None => return format!("{}.{worker}", pool.name),
        }
    }
    unreachable!("every worker belongs to a pool")
}

/// `packed`, `spread`, or by pool the node of each worker.
fn placement(section: &Section<'_>, pools: &[Pool]) -> Option<Placement> {
    let Some(field) = section.field("placement") else {
        return Some(Placement::Packed);
    };
    let Value::Map(entries) = &field.node.value else {
        let choices = [("packed", true), ("spread", false)];
        return section
            .choice("placement", &choices)
            .map(|is_packed| match is_packed {
                true => Placement::Packed,
                false => Placement::Spread,
            });
    };
    let complain = |place: Option<&Node>, found: String, expected: String| {
        let place = place.unwrap_or(field.node);
        (section.log()).add(Some(&place.place), &field.path, found, expected);
    };
    let mut is_fine = true;
    for entry in entries {
        if !pools.iter().any(|pool| pool.name == entry.name) {
            complain(
                Some(&entry.node),
                format!("`{}`", entry.name),
                "names of pools".to_owned(),
            );
            is_fine = false;
        }
    }
    let mut nodes = Vec::new();
    for pool in pools {
        let entry = entries.iter().find(|entry| entry.name == pool.name);
        let listed = entry.and_then(|entry| nodes_of(&entry.node));
        match listed {
            Some(listed) if listed.len() == pool.workers as usize => nodes.extend(listed),
            _ => {
                let expected = format!(
                    "the node of each of the {} workers of pool {}, counted from 0",
                    pool.workers, pool.name
                );
                let found = entry.map_or("nothing".to_owned(), |entry| entry.node.found());
                complain(entry.map(|entry| &entry.node), found, expected);
                is_fine = false;
            }
        }
    }
    is_fine.then_some(Placement::Listed(nodes))
}

fn nodes_of(node: &Node) -> Option<Vec<u32>> {
    let Value::List(items) = &node.value else {
        return None;
    };
    let whole = |item: &Node| match item.value {
        Value::Number(number) if number.fract() == 0.0 && (0.0..1e6).contains(&number) => {
            Some(number as u32)
        }
        _ => None,
    };
    items.iter().map(whole).collect()
}

fn complain_of_room(section: &Section<'_>, pools: &[Pool], gpus: &[u32], no_room: NoRoom) {
    let name = worker_name(pools, no_room.worker);
    let gpus = gpus[no_room.worker];
    match no_room.node {
        Some(node) => section.conflict(
            "placement",
            format!("worker {name} of {gpus} GPUs on node {node}, which has not so many left"),
            "nodes with room for their workers",
            "a worker larger than a node starts on an empty one",
        ),
        None => section.conflict(
            "nodes",
            format!("no room for worker {name} of {gpus} GPUs"),
            "nodes enough for all workers",
            "remove it, and there are as many as it takes",
        ),
    }
}

/// Whether every prefill worker reaches every decode worker that its requests may go to.
fn is_connected(
    section: &Section<'_>,
    topology: &Topology,
    pools: &[Pool],
    gpus: &[u32],
    domain: Option<&DomainFields>,
) -> bool {
    let roles: Vec<Role> = (pools.iter())
        .flat_map(|pool| std::iter::repeat_n(pool.role, pool.workers as usize))
        .collect();
    let of = |role: Role| {
        let workers = 0..roles.len();
        workers
            .filter(|&worker| roles[worker] == role)
            .collect::<Vec<_>>()
    };
    let required = domain.filter(|domain| domain.policy.enforcement == Enforcement::Required);
    let may_meet = |a: usize, b: usize| {
        required.is_none_or(|required| {
            let [a, b] = [a, b].map(|worker| topology.domain_of(worker, required.policy.domain));
            a == b
        })
    };
    let (from, to) = (of(Role::Prefill), of(Role::Decode));
    for &a in &from {
        for &b in &to {
            let barrier = may_meet(a, b)
                .then(|| topology.barrier(gpus, a, b))
                .flatten();
            let Some(barrier) = barrier else { continue };
            let [from, to] = [a, b].map(|worker| {
                let node = topology.placement[worker] / topology.gpus_per_node;
                format!("{} on node {node}", worker_name(pools, worker))
            });
            match barrier {
                Unreachable::NoLink => section.conflict(
                    "nvlink",
                    format!("no link between {from} and {to}"),
                    "one NVLink domain for all workers that hand KV over, or network cards",
                    "give nics_per_node, or bind requests to a domain with disaggregation.kv_transfer_domain",
                ),
                Unreachable::SameNode => section.conflict(
                    "nvlink",
                    format!("{from} and {to}, whose EFA does not reach its own node"),
                    "NVLink within a node, or prefill and decode on different nodes",
                    "",
                ),
            }
            return false;
        }
    }
    true
}
