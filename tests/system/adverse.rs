//! Random cases in which things go wrong: clients that cancel, lose patience and try again, requests turned away, workers
//! that crash, hang and slow down, routers that miss events and forget. Coasting still changes nothing, whoever came is
//! completed, rejected, cancelled or failed, once, and all blocks are given back (the cluster asserts that at its end).

use std::sync::Arc;

use engine::{Span, Time};
use sim::adversity::clients::{CancelSpec, CancelWhen, ClientSpec};
use sim::adversity::faults::{Fault, FaultKind, FaultSpec, RandomFault, SpotRule};
use sim::adversity::shedding::Shedding;
use sim::router::{EventChannel, KvRouterSpec};
use sim::{AdversitySpec, Outcome, Recording, RouterSpec};

use crate::cases::{case, disaggregated, parallel, tiered};
use crate::fast::{Case, difference};
use crate::oracle::dice::Dice;
use crate::scaled::scaled;
use crate::seeds::{caught, in_parallel, seeds};

const CASES: u64 = 1_000;

/// The case of a seed, or of the next one whose workers step alone without drafts, with adversities.
fn adverse(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0xadd5);
    let has_tiers = dice.chance(10);
    let has_planner = !has_tiers && dice.chance(20);
    let mut case = if has_tiers {
        tiered(seed)
    } else if has_planner {
        scaled(seed)
    } else if dice.chance(40) {
        disaggregated(seed)
    } else if dice.chance(40) {
        stepping_alone(seed)
    } else {
        case(seed)
    };
    case.workload = Arc::new(case.workload.without_ahead());
    if !has_tiers && dice.chance(20) {
        let block_size = case.spec.pools[0].engine.block_size();
        if (case.spec.pools.iter()).all(|pool| pool.engine.block_size() == block_size) {
            let events = EventChannel {
                delay: Span::from_ns(dice.pick(&[0, 0, 3_000_000])),
                recovers: dice.chance(50),
                ..EventChannel::default()
            };
            let kv = KvRouterSpec {
                queue_threshold: dice.pick(&[None, Some(0.5), Some(2.0)]),
                events,
                ..KvRouterSpec::default()
            };
            case.spec.router = RouterSpec::Kv(kv);
        }
    }
    let workers: u32 = case.spec.pools.iter().map(|pool| pool.workers).sum();
    let span = last_finish(&case).max(1_000_000);
    let within = |dice: &mut Dice| Span(span / 1_000 * dice.between(1, 1_000) as u64);
    let step = |dice: &mut Dice| Span(span / 1_000 * dice.between(1, 60) as u64);
    let cancel = dice.chance(40).then(|| CancelSpec {
        share: dice.pick(&[0.2, 0.5, 1.0]),
        when: if dice.chance(50) {
            CancelWhen::After(step(&mut dice))
        } else {
            CancelWhen::AfterTokens(dice.between(1, 12) as u32)
        },
    });
    let engines = || case.spec.pools.iter().map(|pool| &pool.engine);
    let has_drafts = engines().any(|engine| engine.speculation().is_some());
    let has_stages = engines().any(|engine| engine.stages() > 1);
    let clients = ClientSpec {
        cancel: cancel.filter(|it| !has_drafts || matches!(it.when, CancelWhen::After(_))),
        ttft_timeout: dice.chance(40).then(|| step(&mut dice)),
        timeout: dice.chance(30).then(|| within(&mut dice)),
        retries: dice.pick(&[0, 1, 3]),
        backoff: step(&mut dice),
    };
    let shedding = Shedding {
        active_decode_blocks: dice.chance(20).then_some(0.6),
        active_prefill_tokens: dice.chance(10).then_some(30),
        active_prefill_tokens_frac: dice.chance(10).then_some(0.9),
    };
    let planner = case.scaling.as_ref().map(|it| it.planner.name());
    let looks = planner.is_some_and(|name| name != "schedule");
    let drain_limit = (has_planner && dice.chance(50)).then(|| Span(step(&mut dice).0 / 4));
    let kind = |dice: &mut Dice| {
        let percent = dice.pick(&[137, 200, 1_000]);
        let mut kinds = vec![
            FaultKind::RouterRestart {
                reads_caches: dice.chance(50),
            },
            FaultKind::EventLoss,
        ];
        if !has_stages {
            kinds.extend([FaultKind::Hang, FaultKind::Straggler { percent }]);
        }
        if !has_tiers {
            kinds.extend([FaultKind::Crash; 3]);
        }
        if has_planner && looks {
            kinds.push(FaultKind::PlannerRestart);
        }
        dice.pick(&kinds)
    };
    let faults = if dice.chance(25) {
        0
    } else {
        dice.between(1, 6)
    };
    let timeline = (0..faults).map(|_| Fault {
        at: Time::ZERO + within(&mut dice),
        kind: kind(&mut dice),
        worker: dice.between(0, workers as usize - 1) as u32,
        lasts: step(&mut dice),
    });
    let timeline = timeline.collect();
    let random = dice.chance(30).then(|| RandomFault {
        // Refused requests may be sent long after the last one that is served.
        mtbf: Span(within(&mut dice).0.max(span / 100).max(100_000_000)),
        kind: kind(&mut dice),
        worker: dice.chance(50).then_some(0),
        lasts: step(&mut dice),
    });
    case.adversity = AdversitySpec {
        clients,
        shedding,
        faults: FaultSpec {
            timeline,
            random: random.into_iter().collect(),
            migration_limit: dice.pick(&[0, 1, 3]),
            drain_limit,
            ..FaultSpec::default()
        },
    };
    if !has_tiers {
        add_capacity_losses(&mut dice, &mut case, span, workers);
    }
    case
}

/// The case of a seed with stages or drafts, or of the next one that has no ranks.
fn stepping_alone(seed: u64) -> Case {
    let can = |case: &Case| (case.spec.pools.iter()).all(|pool| pool.engine.ranks() == 1);
    let mut candidates = (0..).map(|more| parallel(seed + more * 1_000_003));
    candidates.find(can).expect("there is no end of them")
}

/// Workers that a provider takes back, and nodes that are lost.
fn add_capacity_losses(dice: &mut Dice, case: &mut Case, span: u64, workers: u32) {
    let part = |dice: &mut Dice, most: usize| Span(span / 1_000 * dice.between(1, most) as u64);
    if dice.chance(25) {
        let (notice, away) = (part(dice, 40), part(dice, 60));
        let lasts = match case.scaling {
            Some(_) => notice,
            None => notice + away,
        };
        case.adversity.faults.spot = vec![SpotRule {
            first: 0,
            workers: dice.between(1, workers as usize) as u32,
            mtbf: Span(part(dice, 500).0.max(span / 100).max(100_000_000)),
            notice: if dice.chance(20) { Span(0) } else { notice },
            away,
            lasts,
        }];
    }
    if let Some(scaling) = &mut case.scaling
        && scaling.gpus.is_none()
    {
        // A node for each worker that there may be.
        let pools = case.spec.pools.iter();
        let per_node = pools
            .map(|pool| pool.gpus_per_worker)
            .max()
            .unwrap_or(0)
            .max(1);
        scaling.gpus = Some(per_node * workers);
        scaling.lifecycle.gpus_per_node = Some(per_node);
    }
    let nodes = match &case.scaling {
        None => (0..workers)
            .collect::<Vec<u32>>()
            .chunks(2)
            .map(<[u32]>::to_vec)
            .collect(),
        Some(scaling) => {
            let per_node = scaling.lifecycle.gpus_per_node;
            let nodes = scaling
                .gpus
                .zip(per_node)
                .map_or(0, |(all, each)| all / each);
            vec![Vec::new(); nodes as usize]
        }
    };
    let nodes: Vec<Vec<u32>> = nodes;
    let share = if case.scaling.is_some() { 100 } else { 25 };
    if !nodes.is_empty() && dice.chance(share) {
        case.adversity.faults.timeline.push(Fault {
            at: Time::ZERO + part(dice, 1_000),
            kind: FaultKind::NodeLoss,
            worker: dice.between(0, nodes.len() - 1) as u32,
            lasts: part(dice, 60),
        });
        case.adversity.faults.nodes = nodes;
    }
}

/// When the case is over if nothing goes wrong, in picoseconds.
fn last_finish(case: &Case) -> u64 {
    let recording = case.run();
    let moments = recording.sent().map(|(_, request)| request.last_moment().0);
    moments.max().unwrap_or(0)
}

#[test]
fn adversity_is_the_same_coasting_and_stepping_and_loses_nobody() {
    let seeds = seeds("DYNOSIM_ADVERSE", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| {
        caught(|| {
            let case = adverse(seed);
            let coasted = case.run();
            if let Some(difference) = difference(&coasted, &case.stepping().run()) {
                return Err(format!("coasting, then stepping: {difference}"));
            }
            if coasted != case.run() {
                return Err("once, then again: a difference".to_owned());
            }
            check(&case, &coasted)?;
            Ok(marks(&coasted))
        })
    });
    let mut reached = [0; MARKS.len()];
    for (seed, verdict) in &verdicts {
        if let Ok(Err(why)) | Err(why) = verdict {
            println!("seed {seed}: {why}");
        }
    }
    for (seed, verdict) in &verdicts {
        match verdict {
            Ok(Ok(marks)) => (0..MARKS.len()).for_each(|at| reached[at] += u64::from(marks[at])),
            Ok(Err(why)) | Err(why) => {
                let case = adverse(*seed);
                panic!("seed {seed}: {why}\n{:?}\n{:?}", case.adversity, case.spec)
            }
        }
    }
    let told: Vec<_> = MARKS.iter().zip(reached).collect();
    println!("{} cases: {told:?}", verdicts.len());
    let least = (seeds.end - seeds.start) / 100;
    for (mark, times) in told {
        assert!(times >= least, "`{mark}` only in {times} cases");
    }
}

/// Everybody who came is over, in one way, with as many tokens as that brings.
fn check(case: &Case, recording: &Recording) -> Result<(), String> {
    if recording.requests.len() != case.workload.requests.len() {
        return Err("a record of each request, and no other".to_owned());
    }
    for (index, record) in recording.sent() {
        let asked = &case.workload.requests[index];
        let is_fine = match record.outcome {
            Outcome::Completed => {
                record.output_tokens > 0
                    && record.output_tokens <= asked.output_tokens
                    && record.first_token <= record.finish
                    && record.arrival <= record.first_scheduled
            }
            Outcome::Rejected(_) | Outcome::Cancelled | Outcome::Failed(_) => {
                record.finish != Time::MAX && record.output_tokens <= asked.output_tokens
            }
            // Preempted in circles, or sent behind one that was.
            Outcome::Unfinished => stays_unfinished(case) || waits_for_gpus(case),
        };
        if !is_fine {
            return Err(format!("request {index}: {record:?}"));
        }
    }
    let record = recording.adversity.as_ref();
    let faults = record.map(|it| it.faults.as_slice()).unwrap_or_default();
    for fault in faults {
        if fault.migrated + fault.lost > fault.requests {
            return Err(format!(
                "more were moved or lost than there were: {fault:?}"
            ));
        }
    }
    Ok(())
}

/// True if a worker that drains until its prompts are read can hold the GPUs, or be the worker, that who would read them is to
/// get.
fn waits_for_gpus(case: &Case) -> bool {
    let waits = |scaling: &sim::scaling::ScalingSpec| {
        scaling.gpus.is_some() || scaling.lifecycle.switch.is_some()
    };
    case.spec.disaggregation.is_some() && case.scaling.as_ref().is_some_and(waits)
}

/// True if the engine can preempt in circles even if nothing goes wrong.
pub fn stays_unfinished(case: &Case) -> bool {
    let mut pools = case.spec.pools.iter();
    pools.any(|pool| {
        let vllm = pool.engine.as_vllm();
        // Blocks that wait to be read are nobody's who could be preempted.
        let hands_over = case.spec.disaggregation.is_some();
        vllm.is_some_and(|config| {
            config.policy == engine::vllm::SchedulingPolicy::Priority
                || (hands_over && !config.scheduler_reserve_full_isl)
        })
    })
}

const MARKS: [&str; 21] = [
    "cancelled",
    "failed by time-out",
    "failed with its worker",
    "tried again and was completed",
    "turned away for load",
    "turned away without workers",
    "moved",
    "missed events",
    "three faults",
    "moved away from a worker that a planner started",
    "cut off while it drained",
    "a planner began anew",
    "cancelled between two workers",
    "lost its prefill worker, decoded alone",
    "lost its decode worker, moved",
    "pools of a planner lost a worker",
    "taken back with requests left",
    "taken back with none left",
    "taken back beside a planner",
    "lost a node of several workers",
    "lost a node beside a planner",
];

fn marks(recording: &Recording) -> [bool; MARKS.len()] {
    use sim::{Failure, Rejection};
    let record = recording.adversity.clone().unwrap_or_default();
    let ended = |outcome: Outcome| recording.requests.iter().any(|it| it.outcome == outcome);
    let is_interruption = |kind| matches!(kind, FaultKind::Interruption { .. });
    let scales = recording.scaling.is_some();
    let times_out = [Failure::TtftTimeout, Failure::Timeout];
    let hands_over = !recording.transfers.is_empty();
    let moved = |of_pool: &mut dyn FnMut(u32) -> bool| {
        let mut faults = record.faults.iter().filter(|fault| fault.migrated > 0);
        faults.any(|fault| {
            let worker = fault.worker.map(|worker| worker as usize);
            worker.is_some_and(|worker| of_pool(recording.workers[worker].pool))
        })
    };
    [
        ended(Outcome::Cancelled),
        times_out.iter().any(|why| ended(Outcome::Failed(*why))),
        ended(Outcome::Failed(Failure::WorkerLost)),
        record.retries > 0 && ended(Outcome::Completed),
        record.shed > 0,
        ended(Outcome::Rejected(Rejection::NoWorker)),
        record.faults.iter().any(|fault| fault.migrated > 0),
        record.faults.iter().any(|fault| fault.missed_events > 0),
        record.faults.len() >= 3,
        recording.scaling.is_some() && record.faults.iter().any(|fault| fault.migrated > 0),
        (record.faults.iter()).any(|it| it.kind == FaultKind::DrainLimit && it.requests > 0),
        (record.faults.iter()).any(|it| it.kind == FaultKind::PlannerRestart),
        hands_over && ended(Outcome::Cancelled),
        hands_over && moved(&mut |pool| pool == 0),
        hands_over && moved(&mut |pool| pool == 1),
        hands_over && recording.scaling.is_some() && moved(&mut |_| true),
        (record.faults.iter()).any(|it| is_interruption(it.kind) && it.migrated + it.lost > 0),
        (record.faults.iter())
            .any(|it| is_interruption(it.kind) && it.requests > 0 && it.migrated + it.lost == 0),
        scales && (record.faults.iter()).any(|it| is_interruption(it.kind) && it.requests > 0),
        (record.faults.iter()).any(|it| it.workers > 1 && it.requests > 0),
        scales && (record.faults.iter()).any(|it| it.workers > 0 && it.requests > 0),
    ]
}
