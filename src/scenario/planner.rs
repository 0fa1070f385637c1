//! `planner`: who says how many workers there are, and `lifecycle`, what becomes of them.
//!
//! Dynamo's planner has Dynamo's names (`planner/dynamo.rs`). The others have one set of settings per role: in the section
//! itself for pools that do everything, in `prefill` and `decode` below it for pools of those roles (`planner/others.rs`).

mod dynamo;
mod others;

use super::section::Section;
use super::{disaggregation, lifecycle, weights};
use planner::Role;
use sim::{RouterSpec, Sla};
use sweeps::planner::{PlannerSpec, Policy, role_of};
use sweeps::scenario::{Pool, Role as PoolRole};

/// Policies by name, before their settings.
#[derive(Clone, Copy, PartialEq)]
enum Named {
    Dynamo,
    Hpa,
    Keda,
    LlmD,
    Oracle,
    Schedule,
    Static,
}

const POLICIES: [(&str, Named); 7] = [
    ("dynamo", Named::Dynamo),
    ("hpa", Named::Hpa),
    ("keda", Named::Keda),
    ("llm-d", Named::LlmD),
    ("oracle", Named::Oracle),
    ("schedule", Named::Schedule),
    ("static", Named::Static),
];

/// The planner of a scenario; `None` without the section, and after a problem.
pub fn read(
    root: &Section<'_>,
    pools: Option<&[Pool]>,
    router: Option<&RouterSpec>,
    sla: Option<Sla>,
) -> Option<PlannerSpec> {
    let (section, lifecycle) = (root.section("planner"), root.section("lifecycle"));
    let is_written = root.has("planner");
    if !is_written && root.has("lifecycle") {
        let expected = "a section planner beside it: workers neither start nor stop without one";
        root.conflict("lifecycle", "a section that nothing uses", expected, "");
    }
    let lifecycle = lifecycle::read(&lifecycle);
    if !is_written {
        section.finish();
        return None;
    }
    let named = section.choice("policy", &POLICIES);
    if !section.has("policy") {
        let words = POLICIES.map(|(word, _)| word).join(", ");
        let suggestion = "policy: dynamo is Dynamo's planner";
        section.mistake("policy", "nothing", format!("one of {words}"), suggestion);
    }
    let fits = pools.is_some_and(|pools| scales(root, pools, router));
    let roles = roles(pools.unwrap_or_default());
    let policy = named.and_then(|named| match named {
        Named::Dynamo => dynamo::read(&section, pools.unwrap_or_default(), sla),
        Named::Hpa => others::hpa(&section, &roles),
        Named::Keda => others::keda(&section, &roles),
        Named::LlmD => others::llm_d(&section, &roles),
        Named::Oracle => Some(others::oracle(&section)),
        Named::Schedule => others::schedule(&section, &roles),
        Named::Static => Some(Policy::Static),
    });
    // Nothing can be said about names where policy or roles are not known.
    if named.is_some() && pools.is_some() {
        section.finish();
    }
    let spec = PlannerSpec {
        policy: policy?,
        startup: lifecycle.startup,
        is_startup_guessed: lifecycle.is_guessed,
        gpus: lifecycle.gpus,
        lifecycle: lifecycle.spec,
        drain_limit: lifecycle.drain_limit,
        weights: None,
    };
    let pools = pools.filter(|_| fits)?;
    let problems = spec.problems(pools);
    for problem in &problems {
        let (field, expected) = (others::field_of(problem.field), problem.expected.clone());
        section.mistake(field, problem.found.clone(), expected, problem.suggestion);
    }
    let lives = lifecycle::fits(&root.section("lifecycle"), &spec, pools);
    let has_places = problems.is_empty() && lives && check_places(root, &section, &spec, pools);
    if !has_places {
        return None;
    }
    let weights = match lifecycle.stream {
        Some(stream) => {
            let places = disaggregation::places(pools, Some(&spec));
            Some(weights::read(root, stream, pools, &places)?)
        }
        None => None,
    };
    Some(PlannerSpec { weights, ..spec })
}

/// The roles there are, each with a pool that has it.
fn roles(pools: &[Pool]) -> Vec<(Role, &Pool)> {
    pools.iter().map(|pool| (role_of(pool), pool)).collect()
}

/// Whether these pools can scale; says why not.
fn scales(root: &Section<'_>, pools: &[Pool], router: Option<&RouterSpec>) -> bool {
    let refuse = |found: String, expected: &str| {
        root.conflict("planner", found, expected, "");
        false
    };
    let mut fits = true;
    for role in [PoolRole::Aggregated, PoolRole::Prefill, PoolRole::Decode] {
        let count = pools.iter().filter(|pool| pool.role == role).count();
        if count > 1 {
            let found = format!("{count} pools of one role");
            fits = refuse(
                found,
                "one pool of each role: how a planner shares between pools is not modelled",
            );
        }
    }
    for pool in pools {
        let name = &pool.name;
        if pool.parallel.data > 1 || pool.parallel.pipeline > 1 {
            let found = format!("a planner over pool {name} with ranks or stages");
            fits = refuse(
                found,
                "dp and pp of 1: how they start and stop is not modelled",
            );
        }
        if pool.engine.speculation().is_some() {
            let found = format!("a planner over pool {name} with speculative_config");
            fits = refuse(
                found,
                "no drafts: the planner's estimates with them are not modelled",
            );
        }
        if pool.kvbm.is_some() || pool.host.is_some() {
            let found = format!("a planner over pool {name} with tiers below its GPUs");
            fits = refuse(
                found,
                "no tiers: what becomes of them when a worker goes is not modelled",
            );
        }
        if pool.role != PoolRole::Aggregated && pool.engine.as_vllm().is_none() {
            let found = format!("a planner over pool {name}, whose engine is not vLLM");
            fits = refuse(
                found,
                "vLLM: the planner reads only its queues where KV is handed over",
            );
        }
    }
    if router == Some(&RouterSpec::Clairvoyant) {
        let found = "a planner behind router.mode clairvoyant".to_owned();
        fits = refuse(
            found,
            "another router: an oracle tries workers that do not come and go",
        );
    }
    if router == Some(&RouterSpec::Direct) {
        let found = "a planner behind router.mode direct".to_owned();
        fits = refuse(
            found,
            "another router: requests cannot name workers that come and go",
        );
    }
    fits
}

/// Whether the workers that may be there at once are bounded, and the first ones have GPUs.
fn check_places(
    root: &Section<'_>,
    section: &Section<'_>,
    spec: &PlannerSpec,
    pools: &[Pool],
) -> bool {
    let lifecycle = root.section("lifecycle");
    if spec.places(pools).is_none() {
        section.conflict(
            "max_gpu_budget",
            "no bound",
            "a bound on GPUs, here or as lifecycle.gpus",
            "lifecycle.gpus is the number of GPUs that there are",
        );
        return false;
    }
    let (first, fits) = spec.first_gpus(pools);
    if let Some(gpus) = spec.gpus.filter(|_| !fits) {
        let whose = match (spec.lifecycle.spares.count, spec.lifecycle.gpus_per_node) {
            (0, None) => "which the workers at the start take",
            (_, None) => "which the workers at the start and their spares take",
            (_, Some(_)) => {
                "and nodes in which each worker has room: those at the start and their spares have none"
            }
        };
        let expected = format!("at least {first}, {whose}");
        lifecycle.conflict(
            "gpus",
            gpus.to_string(),
            expected,
            "raise it, or lower pools[].workers",
        );
        return false;
    }
    true
}
