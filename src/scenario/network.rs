//! `network`: how fast KV gets from pools that prefill to pools that decode.

use super::disaggregation::DomainFields;
use super::section::Section;
use super::topology;
use engine::Span;
use sim::links::{NetworkSpec, Topology, Transport};
use sweeps::scenario::Pool;

/// The section `network`; `places` are the pools with all workers that there may be.
pub fn read(
    root: &Section<'_>,
    section: &Section<'_>,
    pools: &[Pool],
    places: &[Pool],
    domain: Option<&DomainFields>,
) -> Option<(NetworkSpec, Option<Topology>)> {
    if !root.has("network") {
        root.mistake(
            "network",
            "nothing",
            "how KV gets from prefill to decode workers",
            "for example `network: {preset: infiniband-ndr}`",
        );
        return None;
    }
    let wiring = section.section(topology::SECTION);
    let topology = topology::read(section, &wiring, places, domain);
    wiring.finish();
    if section.has(topology::SECTION) {
        let spec = speed(section);
        check_beside_topology(section);
        return Some((spec?, Some(topology?)));
    }
    if let Some(domain) = domain {
        let name = domain.policy.domain.name();
        let found = format!("{name}s of a network without places");
        let expected = "network.topology, which says where workers are";
        domain
            .section
            .conflict("kv_transfer_domain", found, expected, "");
        return None;
    }
    let spec = speed(section);
    let gpus: u64 = pools
        .iter()
        .map(|pool| u64::from(pool.workers) * u64::from(pool.gpus_per_worker()))
        .sum();
    let domain = pools.iter().find_map(|pool| pool.gpu);
    if let Some(gpu) = domain
        && section
            .text("preset")
            .is_some_and(|(name, _)| name == Transport::NvLink.preset().name)
        && gpus > u64::from(gpu.gpus_per_node)
    {
        let most = gpu.gpus_per_node;
        section.conflict(
            "preset",
            format!("nvlink between {gpus} GPUs"),
            format!(
                "at most the {most} GPUs that share NVLink in a {} node",
                gpu.name
            ),
            "workers on different nodes reach each other over infiniband-ndr, roce, efa or tcp",
        );
        return None;
    }
    Some((spec?, None))
}

/// Fields that say nothing, or something else, where a topology is given.
fn check_beside_topology(section: &Section<'_>) {
    if section.has("per_gpu") {
        let expected = "topology.nics_per_node, which says how many cards there are";
        section.conflict(
            "per_gpu",
            "a speed by GPU beside a topology",
            expected,
            "remove it",
        );
    }
    let nvlink = Transport::NvLink.preset().name;
    if section
        .text("preset")
        .is_some_and(|(name, _)| name == nvlink)
    {
        let expected = "the network cards' transport: topology.nvlink is for the rest";
        let hint = "with nics_per_node 0 any will do";
        section.conflict("preset", "nvlink beside a topology", expected, hint);
    }
}

/// A preset, and what is written over it.
pub fn speed(section: &Section<'_>) -> Option<NetworkSpec> {
    const MAX_GB_PER_S: f64 = 1e6;
    let presets = Transport::ALL.map(|transport| (transport.preset().name, transport));
    let preset = if section.has("preset") {
        Some(section.choice("preset", &presets)?.preset())
    } else {
        None
    };
    // A byte per second is the least that can be counted.
    let rate = |name| section.number(name, f64::MIN_POSITIVE..=MAX_GB_PER_S);
    let bytes = |gb: f64| (gb * 1e9).round().max(1.0) as u64;
    let written = rate("gb_per_s").map(bytes);
    let core = rate("core_gb_per_s").map(bytes);
    let span = |name, unit_ps: f64| {
        let number = section.number(name, 0.0..=1e9);
        number.map(|number| Span((number * unit_ps).round() as u64))
    };
    let latency = span("latency_us", 1e6);
    let setup = span("setup_ms", 1e9);
    let per_gpu = section.flag("per_gpu");
    if preset.is_none() && !section.has("gb_per_s") {
        section.mistake(
            "gb_per_s",
            "nothing",
            "what a worker sends and receives at most, or a preset",
            "for example `preset: infiniband-ndr` or `gb_per_s: 50`",
        );
    }
    Some(NetworkSpec {
        bytes_per_s: written.or(preset.map(|preset| preset.bytes_per_s))?,
        per_gpu: per_gpu.unwrap_or(false),
        core_bytes_per_s: core,
        latency: latency
            .or(preset.map(|preset| preset.latency))
            .unwrap_or_default(),
        setup: setup.unwrap_or_default(),
    })
}
