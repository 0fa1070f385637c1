//! Links in `faults`: which one is slow or down.

use super::section::Section;
use engine::Span;
use sim::adversity::faults::FaultKind;
use sim::links::{Impairment, Network, NetworkSpec, SiteKind, Topology};
use sweeps::scenario::Pool;

/// By kind, in the order of [`SiteKind::ALL`]: sites of links there are.
pub type Sites = [u32; SiteKind::ALL.len()];

/// The links of a deployment; `places` are the pools with all workers that there may be.
pub fn sites(spec: NetworkSpec, topology: Option<&Topology>, places: &[Pool]) -> Sites {
    let of = |pool: &Pool| std::iter::repeat_n(pool.gpus_per_worker(), pool.workers as usize);
    let gpus: Vec<u32> = places.iter().flat_map(of).collect();
    let network = Network::new(spec, topology, &gpus);
    SiteKind::ALL.map(|kind| network.sites(kind))
}

/// How bad it is; `None` for faults of other kinds, and after a problem.
pub fn how(is_slow: bool, percent: Option<u32>) -> Option<Impairment> {
    match is_slow {
        true => percent.map(|percent| Impairment::Slow { percent }),
        false => Some(Impairment::Down),
    }
}

/// Which kind of link.
pub fn site(section: &Section<'_>, is_of_links: bool) -> Option<SiteKind> {
    let kinds = SiteKind::ALL.map(|kind| (kind.name(), kind));
    let site = section.choice("link", &kinds);
    match (is_of_links, section.has("link")) {
        (true, false) => section.mistake(
            "link",
            "nothing",
            "which links: worker, nvlink, nic, node, rack, zone or core",
            "for example `link: worker`",
        ),
        (false, true) => section.conflict(
            "link",
            "a link",
            "none: only link_slow and link_down are about links",
            "remove it",
        ),
        _ => {}
    }
    site
}

/// Which of them; `None` for all of a random fault, and after a problem.
pub fn number(
    section: &Section<'_>,
    kind: Option<FaultKind>,
    sites: Option<&Sites>,
    is_scripted: bool,
) -> Option<u32> {
    let number = section.whole32("number", 0..=u32::MAX >> 1);
    let Some(kind) = kind else {
        return number;
    };
    let Some(site) = kind.site() else {
        if section.has("number") {
            section.conflict(
                "number",
                "the number of a link",
                "none: only link_slow and link_down have one; others may have worker",
                "remove it",
            );
        }
        return None;
    };
    let is_one = site == SiteKind::Core;
    if is_scripted && !is_one && !section.has("number") {
        section.mistake(
            "number",
            "nothing",
            format!("which {} it is, from 0", site.name()),
            "for example `number: 0`",
        );
    }
    let there = sites.map(|sites| sites[site as usize]);
    match (there, number) {
        (Some(0), _) => {
            let (found, expected) = (
                format!("a {} link, of which there is none", site.name()),
                missing(site),
            );
            section.conflict("link", found, expected, "");
        }
        (Some(there), Some(number)) if number >= there => {
            let expected = format!(
                "a number below {there}: so many there are of {}",
                site.name()
            );
            section.conflict("number", number.to_string(), expected, "");
        }
        _ => {}
    }
    if is_one && is_scripted {
        return Some(number.unwrap_or(0));
    }
    number
}

/// What a deployment needs to have such links.
const fn missing(site: SiteKind) -> &'static str {
    match site {
        SiteKind::Worker => "network cards: network.topology.nics_per_node above 0",
        SiteKind::NvLink => "a network.topology whose nvlink is node or rack",
        SiteKind::Nic | SiteKind::Node => {
            "a network.topology with nics_per_node above 0; without one `link: worker` is all that a worker sends and receives"
        }
        SiteKind::Rack => {
            "network.topology.leaf_oversubscription: uplinks without one are never full, and are left out"
        }
        SiteKind::Zone => {
            "network.topology.spine_oversubscription: uplinks without one are never full, and are left out"
        }
        SiteKind::Core => "network.core_gb_per_s",
    }
}

/// How long SGLang's servers wait for KV, in seconds (`SGLANG_DISAGGREGATION_WAITING_TIMEOUT`).
const SGLANG_GIVES_UP_S: f64 = 300.0;

/// What links that break need of the deployment.
pub fn check(
    section: &Section<'_>,
    kind: FaultKind,
    lasts: Option<Span>,
    has_links: bool,
    is_sglang: bool,
) {
    let FaultKind::Link { how, .. } = kind else {
        return;
    };
    if !has_links {
        section.conflict(
            "kind",
            "a link that breaks between workers that send each other nothing",
            "pools of role prefill and decode, which send KV, or lifecycle.stream_weights",
            "remove the fault",
        );
    }
    let seconds = lasts.map_or(0.0, Span::as_s);
    if is_sglang && how == Impairment::Down && seconds >= SGLANG_GIVES_UP_S {
        section.conflict(
            "for_s",
            format!("{seconds} s between SGLang servers"),
            "less than 300 s: then they give requests up, which is not modelled yet",
            "",
        );
    }
}
