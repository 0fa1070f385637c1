//! Scenario files: YAML text and overrides in, a checked [`Scenario`] out, or every problem at once.
//!
//! Three passes. [`tree`] reads YAML into values that know their place. [`patch`] applies `--set` overrides to that tree,
//! so that an override is judged by the same rules as the file. Then one reader per section takes the fields it knows
//! through [`section::Section`], which reports wrong kinds, values out of range and unknown names, and each reader
//! reports what does not go together. Nothing is ignored: a field that is written is used or refused.

mod annotations;
mod clients;
mod costs;
mod disaggregation;
mod engine;
mod faults;
mod hicache;
mod host_cache;
mod kvbm;
mod lifecycle;
mod link_faults;
mod network;
mod patch;
mod planner;
pub mod policy_file;
mod pools;
mod problem;
mod router;
mod section;
mod spot;
mod sweep;
mod synth;
#[cfg(test)]
mod tests;
mod timing;
mod topology;
mod tree;
mod weights;
mod workload;

pub use patch::Set;
pub use problem::{Kind, Problem, Problems};
pub use sweep::{Axes, sweep};

use faults::Deployment;
use problem::Log;
use section::{Section, UNKNOWN_FIELD};
use sim::{AdversitySpec, Sla};
use std::path::Path;
use sweeps::scenario::{Scenario, WorkloadSpec};
use tree::{Entry, Node, Place, Value};

/// The version of the format.
const SCHEMA_VERSION: u64 = 1;

/// Reads a scenario.
///
/// `path` names the file in messages, and files named in it are looked for beside it. Overrides are
/// applied in order; a value is YAML, `null` removes what the file says. Files named by an override are looked for in the
/// current directory.
///
/// # Errors
/// Everything that is wrong, each with place, field, what was found and what was expected.
pub fn load(path: Option<&Path>, text: &str, overrides: &[Set]) -> Result<Scenario, Problems> {
    let file = path.map_or_else(|| "scenario".to_owned(), |path| path.display().to_string());
    let log = Log::new(&file);
    let scenario = tree::parse_file(text, &log).and_then(|mut root| {
        if !matches!(root.value, Value::Map(_)) {
            log.add(
                Some(&root.place),
                "",
                root.found(),
                "named fields, for example `seed: 1`",
            );
            return None;
        }
        add_default_pool(&mut root);
        for set in overrides {
            patch::set(&mut root, set, &log);
        }
        let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
        read(&root, folder, &log)
    });
    log.finish(scenario)
}

/// Why the scenario with these overrides has no field of this name, if it has none: what a sweep asks before it varies one.
#[must_use]
pub fn unknown_field(
    path: Option<&Path>,
    text: &str,
    overrides: &[Set],
    field: &str,
) -> Option<String> {
    // A null is as good as nothing wherever the name is known.
    let set = Set::by_option(field, "null");
    let all = [overrides, std::slice::from_ref(&set)].concat();
    let Problems(problems) = load(path, text, &all).err()?;
    let is_about_names = |problem: &&Problem| {
        problem.place == set.place
            && (problem.found == UNKNOWN_FIELD || problem.found.starts_with('`'))
    };
    let Problem {
        field,
        found,
        expected,
        suggestion,
        ..
    } = problems.iter().find(is_about_names)?;
    let suggestion = suggestion
        .as_ref()
        .map_or_else(String::new, |suggestion| format!("; {suggestion}"));
    Some(format!(
        "{field}: found {found}, expected {expected}{suggestion}"
    ))
}

/// Without pools there is one, `agg`, so that an override can address it.
fn add_default_pool(root: &mut Node) {
    let place = root.place.clone();
    let Value::Map(entries) = &mut root.value else {
        return;
    };
    if entries.iter().any(|entry| entry.name == "pools") {
        return;
    }
    let node = |raw: &str, value| Node {
        place: place.clone(),
        raw: raw.to_owned(),
        value,
    };
    let entry = |name: &str, node| Entry {
        name: name.to_owned(),
        place: place.clone(),
        node,
    };
    let pool = node(
        "",
        Value::Map(vec![entry(
            "name",
            node("agg", Value::Text("agg".to_owned())),
        )]),
    );
    entries.push(entry("pools", node("", Value::List(vec![pool]))));
}

fn read(root: &Node, folder: &Path, log: &Log) -> Option<Scenario> {
    let section = Section::new(log, "", Some(root));
    section.belongs_to("kvbm", "pools[].kvbm");
    section.belongs_to("hicache", "pools[].hicache");
    section.belongs_to("links", "network");
    // Read by `sweep`.
    section.has("sweep");
    section.whole("schema_version", SCHEMA_VERSION..=SCHEMA_VERSION);
    let router_section = section.section("router");
    let router = router::read(&router_section, folder);
    let pools = pools::read(&section, folder, router.as_ref());
    if let Some(pools) = &pools {
        router::check_with(&router_section, router.as_ref(), pools);
        kvbm::check_together(&section, &router_section, router.as_ref(), pools);
        hicache::check_together(&section, &router_section, router.as_ref(), pools);
    }
    let workload = workload::read(&section.section("workload"), folder);
    let sla = sla(&section.section("sla"));
    let planner = planner::read(&section, pools.as_deref(), router.as_ref(), sla);
    let disaggregation = disaggregation::read(
        &section,
        pools.as_deref(),
        router.as_ref(),
        planner.as_ref(),
    );
    let is_complete = planner.is_some() || !section.has("planner");
    let costs_section = section.section("costs");
    let known = pools.as_deref();
    let costs = known.map(|pools| costs::costs(&costs_section, pools));
    let priced = costs.as_ref().and_then(Option::as_ref);
    let spot = spot::rules(&costs_section, priced, known, planner.as_ref());
    let deployment = pools.as_deref().map(|pools| Deployment {
        pools,
        router: router.as_ref(),
        topology: disaggregation.as_ref().and_then(|it| it.topology.as_ref()),
        spot,
        has_planner: section.has("planner"),
        planner: planner.as_ref(),
        workers: match &planner {
            Some(planner) => planner.places(pools).unwrap_or_default().iter().sum(),
            None => pools.iter().map(|pool| pool.workers).sum(),
        },
        sites: {
            let weights = planner.as_ref().and_then(|it| it.weights.as_ref());
            let own = weights.and_then(|it| it.network.as_ref());
            let own = own.map(|(network, topology)| (*network, topology.as_ref()));
            let handing_over = disaggregation.as_ref();
            let handing_over = handing_over.map(|it| (it.network, it.topology.as_ref()));
            let places = disaggregation::places(pools, planner.as_ref());
            (handing_over.or(own))
                .map(|(network, topology)| link_faults::sites(network, topology, &places))
        },
    });
    let adversity = adversity(&section, deployment.as_ref());
    let energy_section = section.section("energy");
    let energy = known.map(|pools| costs::energy(&energy_section, pools));
    let is_priced = costs
        .iter()
        .all(|it| it.is_some() || !costs_section.is_written());
    let is_powered = energy
        .iter()
        .all(|it| it.is_some() || !energy_section.is_written());
    let seed = section.whole("seed", 0..=u64::MAX).unwrap_or(0);
    section.finish();
    let (pools, router) = (pools?, router?);
    Some(Scenario {
        disaggregation,
        adversity,
        workload: WorkloadSpec {
            workers: annotations::worker_names(&pools, &router).filter(|_| planner.is_none()),
            ..workload?
        },
        pools,
        router,
        sla,
        planner: is_complete.then_some(planner)?,
        costs: is_priced.then_some(costs.flatten())?,
        energy: is_powered.then_some(energy.flatten())?,
        seed,
    })
}

/// What goes wrong: `clients`, `admission` and `faults`.
fn adversity(root: &Section<'_>, deployment: Option<&Deployment<'_>>) -> AdversitySpec {
    let adversity = AdversitySpec {
        clients: clients::read(&root.section("clients")),
        shedding: clients::admission(&root.section("admission")),
        faults: faults::read(&root.section("faults"), deployment),
    };
    if let Some(deployment) = deployment {
        faults::check_together(root, &adversity, deployment);
    }
    adversity
}

fn sla(section: &Section<'_>) -> Option<Sla> {
    const MAX_MS: f64 = 1e9;
    let bound = |name| section.number(name, f64::MIN_POSITIVE..=MAX_MS);
    let sla = Sla {
        ttft_ms: bound("ttft_ms"),
        itl_ms: bound("itl_ms"),
    };
    section.finish();
    (sla != Sla::default()).then_some(sla)
}

/// A file named in the scenario: beside it, unless an override named it.
fn beside(folder: &Path, name: &str, place: &Place) -> std::path::PathBuf {
    match place {
        Place::File { .. } => folder.join(name),
        Place::Override(_) => name.into(),
    }
}
