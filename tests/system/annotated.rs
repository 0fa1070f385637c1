//! Requests that name their workers, require or prefer labels, and say where they stand in a router's queue: coasting and
//! stepping agree, and who was served where is what the requests asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Annotations, Ephemeral, NamedWorkers, RequestId, Span};
use sim::router::KvRouterSpec;
use sim::{Outcome, Recording, Rejection, Role, RouterSpec};

use crate::cases::{case, disaggregated, tiered};
use crate::differential::compare;
use crate::fast::Case;
use crate::oracle::dice::Dice;
use crate::seeds::{caught, in_parallel, seeds};

const CASES: u64 = 1_000;
const TAINTS: [&str; 3] = ["a", "b", "c"];

/// The case of a seed with labels and annotations.
fn annotated(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0xa220);
    let mut case = match dice.between(0, 3) {
        0 => disaggregated(seed),
        1 => tiered(seed),
        _ => case(seed),
    };
    let pools = case.spec.pools.clone();
    let is_named = dice.chance(40);
    let same_blocks = |case: &Case| {
        let mut sizes = case.spec.pools.iter().map(|pool| pool.engine.block_size());
        let first = sizes.next();
        sizes.all(|size| Some(size) == first)
    };
    if is_named && dice.chance(60) {
        case.spec.router = RouterSpec::Direct;
    } else if same_blocks(&case) && dice.chance(60) {
        case.spec.router = RouterSpec::Kv(KvRouterSpec {
            queue_threshold: dice.pick(&[None, Some(0.0), Some(0.5)]),
            track_output_blocks: dice.chance(40),
            ..KvRouterSpec::default()
        });
    }
    let mut labels = |chance| -> Vec<String> {
        let chosen = TAINTS.iter().filter(|_| dice.chance(chance));
        chosen.map(|name| (*name).to_owned()).collect()
    };
    case.taints = pools.iter().map(|_| labels(70)).collect();
    let mut workload = (*case.workload).clone();
    for request in 0..workload.requests.len() {
        let required = labels(10);
        let preferred = labels(30);
        let said = Annotations {
            workers: if is_named {
                named(&case, request)
            } else {
                NamedWorkers::default()
            },
            required_taints: required,
            preferred_taints: preferred.into_iter().map(|name| (name, 0.7)).collect(),
            strict_priority: request as u32 % 3,
            policy_class: None,
            ephemeral_blocks: [None, Some(Ephemeral::Answer), Some(Ephemeral::Request)]
                [request % 5 % 3],
            pin: (request % 4 == 1).then_some(Span::from_ns(3_000_000)),
            speculative_prefill: false,
            expected_output_tokens: (request % 2 == 0).then_some(1 + request as u32 % 40),
        };
        workload.annotations.set(request, &said);
    }
    case.workload = Arc::new(workload);
    case
}

/// Workers for what each does, by the number of the request.
fn named(case: &Case, request: usize) -> NamedWorkers {
    let mut first = 0;
    let mut by_role: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
    for (index, pool) in case.spec.pools.iter().enumerate() {
        let role = case
            .spec
            .disaggregation
            .as_ref()
            .map(|spec| spec.roles[index]);
        let role = match role {
            None => 0,
            Some(Role::Prefill) => 1,
            Some(Role::Decode) => 2,
        };
        let workers = first..first + pool.schedulers();
        first = workers.end;
        by_role.entry(role).or_default().extend(workers);
    }
    let pick = |role: u8| {
        let workers = by_role.get(&role)?;
        Some(workers[request * 7 % workers.len()])
    };
    NamedWorkers {
        whole: pick(0),
        prefill: pick(1),
        decode: pick(2),
    }
}

/// What of the requests' words was met, or the first that was not.
fn check(case: &Case, recording: &Recording) -> Result<[bool; 5], String> {
    let pool_of = |worker: u32| recording.workers[worker as usize].pool as usize;
    let mut seen = [false; 5];
    for (index, record) in recording.requests.iter().enumerate() {
        let said = case.workload.annotations_of(RequestId(index as u32));
        let Some(said) = said else { continue };
        let allows = |worker: u32| said.allows(&case.taints[pool_of(worker)]);
        if record.outcome == Outcome::Rejected(Rejection::RequiredTaintsUnmet) {
            seen[0] = true;
            let is_split = case.spec.disaggregation.is_some();
            let meets = (0..recording.workers.len() as u32).all(allows);
            if meets || (said.required_taints.is_empty() && !is_split) {
                return Err(format!(
                    "request {index}: refused, and could have been served"
                ));
            }
        }
        if record.outcome != Outcome::Completed {
            continue;
        }
        if !allows(record.worker) {
            return Err(format!(
                "request {index}: worker {} lacks {:?}",
                record.worker, said.required_taints
            ));
        }
        seen[1] |= !said.required_taints.is_empty();
        let named = said.workers.whole.or(said.workers.decode);
        if let (Some(named), true) = (named, case.spec.router.reads_names()) {
            if named != record.worker {
                return Err(format!(
                    "request {index}: named {named}, served by {}",
                    record.worker
                ));
            }
            seen[2] |= case.spec.router == RouterSpec::Direct;
            seen[3] |= case.spec.router != RouterSpec::Direct;
        }
        seen[4] |=
            !said.preferred_taints.is_empty() && matches!(case.spec.router, RouterSpec::Kv(_));
    }
    for transfer in &recording.transfers {
        let said = case.workload.annotations_of(transfer.request);
        let Some(said) = said else { continue };
        let is_named =
            said.workers.prefill == Some(transfer.from.0) || !case.spec.router.reads_names();
        if said.workers.prefill.is_some() && !is_named {
            return Err(format!(
                "{:?}: prefilled by {:?}",
                transfer.request, transfer.from
            ));
        }
    }
    Ok(seen)
}

#[test]
fn requests_get_what_they_ask_for_coasting_or_stepping() {
    let seeds = seeds("DYNOSIM_ANNOTATED", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| {
        caught(|| {
            let case = annotated(seed);
            compare(&case)?;
            check(&case, &case.run())
        })
    });
    let mut reached = [0; 5];
    for (seed, verdict) in &verdicts {
        match verdict {
            Ok(Ok(seen)) => (0..5).for_each(|at| reached[at] += u64::from(seen[at])),
            Ok(Err(why)) | Err(why) => panic!("seed {seed}: {why}\n{:?}", annotated(*seed).spec),
        }
    }
    let [refused, required, direct, pinned, preferred] = reached;
    println!(
        "{} cases: refused {refused}, required {required}, direct {direct}, pinned {pinned}, preferred {preferred}",
        verdicts.len()
    );
    let least = (seeds.end - seeds.start) / 50;
    assert!(reached.iter().all(|&cases| cases >= least), "{reached:?}");
}
