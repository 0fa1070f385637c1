//! Random cases with a planner: workers come and go, by a calendar or by what the planner sees. Coasting, stepping, doing it
//! again and beside other threads change nothing, decisions and lives of workers included.

use std::sync::Arc;

use engine::{RequestId, Span, Time};
use planner::policy::{
    Behavior, Hpa, HpaSpec, LlmD, LlmDSpec, LlmDThresholds, Metric, MetricTarget, Schedule,
    ScheduleEntry, SelectPolicy,
};
use planner::{PerRole, Planner, Role};
use sim::disaggregation;
use sim::links::placement::{Nodes, Placement};
use sim::links::{NetworkSpec, Topology};
use sim::scaling::{Allowance, Life, LifecycleSpec, Spares, Update};
use sim::{Outcome, PoolScaling, PoolSpec, Recording, ScalingSpec, Startup};

use crate::cases::{case, disaggregated_on_vllm};
use crate::differential::compare;
use crate::fast::Case;
use crate::oracle::dice::Dice;
use crate::seeds::{caught, in_parallel, seeds};

const CASES: u64 = 240;

const MARKS: usize = 13;

/// The case of a seed, with a planner.
pub fn scaled(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0x5ca1);
    let mut case = if dice.chance(30) {
        disaggregated_on_vllm(seed)
    } else {
        case(seed)
    };
    if let Some(disaggregation) = &mut case.spec.disaggregation {
        // Workers that come have no places.
        disaggregation.topology = None;
        disaggregation.domain = None;
    } else {
        case.spec.pools.truncate(1);
        case.timing.truncate(1);
    }
    let roles = case.spec.disaggregation.as_ref().map(|it| it.roles.clone());
    let role_of = |index: usize| match roles.as_ref().map(|roles| roles[index]) {
        Some(disaggregation::Role::Prefill) => Role::Prefill,
        Some(disaggregation::Role::Decode) | None => Role::Decode,
    };
    let end = case
        .workload
        .requests
        .last()
        .map_or(Time::ZERO, |it| it.arrival);
    // Where all is sent at once or in a closed loop, arrivals say nothing of how long the run is.
    let length = (end.0 / 4).max(4_000_000_000);
    let startup = Startup {
        schedule: Span(dice.pick(&[0, 0, length / 10])),
        load: Span(dice.pick(&[0, length / 100, length, 2 * length])),
        load_from_neighbour: dice.chance(30).then_some(Span(length / 50)),
        ..Startup::default()
    };
    // A start as long as those of the other kinds, over links that may be shared with KV.
    let streams = dice.chance(50);
    let own = NetworkSpec {
        bytes_per_s: 1_000_000_000,
        per_gpu: dice.chance(30),
        core_bytes_per_s: dice.pick(&[None, Some(1_500_000_000)]),
        latency: Span::from_ns(dice.pick(&[0, 1_000])),
        setup: Span::from_ns(dice.pick(&[0, 5_000_000])),
    };
    let rate = case
        .spec
        .disaggregation
        .as_ref()
        .map_or(own, |it| it.network)
        .bytes_per_s;
    let weights = u128::from(length) * u128::from(rate) / 1_000_000_000_000;
    let weights = weights as u64 / dice.pick(&[1, 1, 3, 30]);
    let startup = Startup {
        weights: streams.then_some(weights.max(1)),
        ..startup
    };
    let mut pools = Vec::new();
    for (index, pool) in case.spec.pools.iter_mut().enumerate() {
        pools.push(PoolScaling {
            role: role_of(index),
            initial: pool.workers,
            startup,
        });
        pool.workers += dice.between(0, 3) as u32;
    }
    let gpus = |workers: u32, pool: &PoolSpec| workers * pool.gpus_per_worker;
    let first = pools.iter().zip(&case.spec.pools);
    let first: u32 = first
        .map(|(scaling, pool)| gpus(scaling.initial, pool))
        .sum();
    let mut lifecycle = lifecycle(&mut dice, &pools, length);
    let spares = lifecycle.spares.count;
    for pool in &mut case.spec.pools {
        pool.workers += 2 * spares;
    }
    let first = first
        + spares
            * case
                .spec
                .pools
                .iter()
                .map(|it| it.gpus_per_worker)
                .sum::<u32>();
    let mut bound = first + dice.between(0, 3) as u32;
    if dice.chance(30) {
        // Nodes that each worker at the start has for itself.
        let most = case.spec.pools.iter().map(|it| it.gpus_per_worker).max();
        let per_node = most.unwrap_or(1).max(1);
        let there = pools.iter().map(|it| it.initial + spares).sum::<u32>();
        bound = (there + dice.between(0, 2) as u32) * per_node;
        lifecycle.gpus_per_node = Some(per_node);
    }
    let has_bound = lifecycle.gpus_per_node.is_some() || dice.chance(40);
    case.scaling = Some(ScalingSpec {
        planner: planner(&mut dice, &case, &pools, length, lifecycle.switch.is_some()),
        pools,
        gpus: has_bound.then_some(bound),
        keeps_latencies: true,
        lifecycle,
        network: (streams && case.spec.disaggregation.is_none()).then_some((own, None)),
    });
    replace(&mut dice, &mut case);
    case
}

/// Half of the deployments that hand requests over get nodes, with a place for each worker that there may be.
fn replace(dice: &mut Dice, case: &mut Case) {
    let Some(disaggregation) = case
        .spec
        .disaggregation
        .as_mut()
        .filter(|_| dice.chance(50))
    else {
        return;
    };
    let gpus: Vec<u32> = (case.spec.pools.iter())
        .flat_map(|pool| std::iter::repeat_n(pool.gpus_per_worker, pool.workers as usize))
        .collect();
    let gpus_per_node = dice.pick(&[1, 2, 4]);
    let nodes = Nodes {
        gpus: gpus_per_node,
        count: None,
    };
    let how = dice.pick(&[0, 1]);
    let placement = [Placement::Packed, Placement::Spread][how].place(&gpus, nodes);
    disaggregation.topology = Some(Topology {
        gpus_per_node,
        nics_per_node: dice.pick(&[1, gpus_per_node]),
        nics_reach_own_node: true,
        nvlink: None,
        nodes_per_rack: dice.pick(&[None, Some(2)]),
        racks_per_zone: None,
        has_rails: false,
        leaf_oversubscription: dice.pick(&[None, Some(2.0)]),
        spine_oversubscription: None,
        placement: placement.expect("there are nodes enough"),
    });
}

/// Spares, changes of role, updates.
fn lifecycle(dice: &mut Dice, pools: &[PoolScaling], length: u64) -> LifecycleSpec {
    let spares = Spares {
        count: dice.pick(&[0, 0, 1, 2]),
        activate: Span(dice.pick(&[0, length / 200])),
    };
    let update = Update {
        at: Time(1 + dice.between(0, 2 * length as usize) as u64),
        surge: dice.pick(&[Allowance::Workers(1), Allowance::Percent(50)]),
        unavailable: dice.pick(&[
            Allowance::Workers(0),
            Allowance::Workers(1),
            Allowance::Percent(25),
        ]),
    };
    let switch = (pools.len() == 2 && dice.chance(60)).then_some(Span(length / 300));
    LifecycleSpec {
        spares: if dice.chance(40) {
            spares
        } else {
            Spares::default()
        },
        switch,
        update: (switch.is_none() && dice.chance(45)).then_some(update),
        gpus_per_node: None,
        shadow: dice.chance(20).then_some(Span(length / 400)),
    }
}

fn planner(
    dice: &mut Dice,
    case: &Case,
    pools: &[PoolScaling],
    length: u64,
    wants_calendar: bool,
) -> Box<dyn Planner> {
    let each = |of: &mut dyn FnMut(usize) -> Option<u32>| {
        let mut counts = PerRole::default();
        for (index, pool) in pools.iter().enumerate() {
            *counts.get_mut(pool.role) = of(index);
        }
        counts
    };
    let most = |index: usize| case.spec.pools[index].workers as usize + 1;
    let interval = Span(dice.pick(&[length / 40, length / 7, length / 3]).max(1));
    // Calendars want more of one role and fewer of the other now and then.
    let kind = dice.between(0, 2);
    if kind == 0 || wants_calendar {
        let mut at = 0;
        let mut entries = Vec::new();
        for _ in 0..dice.between(1, 12) {
            at += 1 + dice.between(0, (length / 2) as usize) as u64;
            let workers =
                each(&mut |index| dice.chance(80).then(|| dice.between(0, most(index)) as u32));
            let at = Time(at);
            entries.push(ScheduleEntry { at, workers });
        }
        // Nobody waits for ever.
        entries.push(ScheduleEntry {
            at: Time(at + 1),
            workers: each(&mut |_| Some(1)),
        });
        return Box::new(Schedule::new(entries).expect("times increase"));
    }
    let tokens = |index: usize| case.spec.pools[index].engine.usable_tokens();
    let behavior = |window: Span| Behavior {
        stabilization_window: window,
        policies: Vec::new(),
        select_policy: SelectPolicy::Max,
    };
    if kind == 1 {
        let metric = dice.between(0, 3);
        let window = Span(dice.pick(&[0, interval.0 * 3]));
        let goal = dice.pick(&[0.2, 0.5, 1.0, 3.0]);
        let mut roles = PerRole {
            prefill: None,
            decode: None,
        };
        for (index, pool) in pools.iter().enumerate() {
            let metric = match metric {
                0 => Metric::QueuedPerWorker,
                1 => Metric::KvUse {
                    max_kv_tokens: tokens(index),
                },
                2 => Metric::TtftP95,
                _ => Metric::Queued,
            };
            // A step takes some milliseconds at most.
            let goal = if metric == Metric::TtftP95 {
                goal / 100.0
            } else {
                goal
            };
            let spec = HpaSpec::new(metric, MetricTarget::Value(goal), 1..=most(index) as u32);
            *roles.get_mut(pool.role) = Some(HpaSpec {
                scale_up: behavior(Span::ZERO),
                scale_down: behavior(window),
                ..spec
            });
        }
        return Box::new(Hpa::new(interval, roles).expect("the settings are sound"));
    }
    let depth = dice.chance(50).then_some(1.0);
    let mut roles = PerRole {
        prefill: None,
        decode: None,
    };
    for (index, pool) in pools.iter().enumerate() {
        *roles.get_mut(pool.role) = Some(LlmDSpec {
            up: LlmDThresholds {
                utilization: 0.4,
                queue_depth: depth,
            },
            down: LlmDThresholds {
                utilization: 0.15,
                queue_depth: None,
            },
            target_utilization: 0.3,
            scale_up_cooldown: interval,
            scale_down_cooldown: interval,
            max_replicas: most(index) as u32,
            ..LlmDSpec::inference_service(tokens(index))
        });
    }
    Box::new(LlmD::new(interval, roles).expect("the settings are sound"))
}

/// What has to occur: a worker that drained with work, one that was called off, one that waited for GPUs, a deployment
/// without workers, a place that was taken again, a request that waited for a worker; a spare that was called in, a worker that
/// changed its role, an update that ended and one that did not; weights that a neighbour sent, that nobody could send, that
/// another one sent on or nobody could any more.
fn marks(recording: &Recording) -> [bool; MARKS] {
    let scaling = recording
        .scaling
        .as_ref()
        .expect("every case has a planner");
    let lives = &scaling.lives;
    let known = |time: Time| time != Time::MAX;
    let any = |is: &dyn Fn(&Life) -> bool| lives.iter().any(is);
    let again = |life: &Life| {
        let others = lives.iter().filter(|other| other.worker == life.worker);
        life.worker != u32::MAX && others.count() > 1
    };
    let waited = recording
        .sent()
        .any(|(_, record)| known(record.placed) && record.placed > record.arrival);
    [
        any(&|life| known(life.drained) && life.gone > life.drained && known(life.gone)),
        any(&|life| known(life.gone) && !known(life.ready)),
        any(&|life| known(life.placed) && life.placed > life.ordered),
        scaling
            .decisions
            .iter()
            .any(|it| it.before.decode.ready == 0),
        any(&again),
        waited,
        any(&|life| known(life.warm) && life.called > life.warm && known(life.ready)),
        any(&|life| {
            let from = life.from.map(|from| lives[from as usize]);
            from.is_some_and(|from| from.gone == life.placed && known(life.placed))
        }),
        scaling
            .updates
            .iter()
            .any(|it| it.replaced > 1 && known(it.ended)),
        scaling.updates.iter().any(|it| !known(it.ended)),
        scaling
            .loads
            .iter()
            .any(|it| it.sources > 0 && !it.fell_back && known(it.ended)),
        scaling
            .loads
            .iter()
            .any(|it| it.sources == 0 && it.fell_back),
        scaling
            .loads
            .iter()
            .any(|it| it.sources > 1 || it.sources > 0 && it.fell_back),
    ]
}

/// What holds for every run.
fn check(case: &Case, recording: &Recording) {
    let scaling = recording
        .scaling
        .as_ref()
        .expect("every case has a planner");
    for life in &scaling.lives {
        let moments = [
            life.ordered,
            life.placed,
            life.warm,
            life.called,
            life.ready,
            life.drained,
        ];
        let known: Vec<Time> = moments.into_iter().filter(|&it| it != Time::MAX).collect();
        assert!(known.is_sorted() && known.iter().all(|&it| it <= life.gone));
    }
    // At no time has a place two workers, and at no time do they have more GPUs than there are.
    for (index, life) in scaling.lives.iter().enumerate() {
        for other in scaling.lives[..index]
            .iter()
            .filter(|it| it.worker == life.worker)
        {
            // Who waits for a worker of the other role may be placed after one that was ordered later.
            let is_after = other.gone <= life.placed || life.gone <= other.placed;
            assert!(life.worker == u32::MAX || is_after);
        }
    }
    let gpus = case.scaling.as_ref().and_then(|scaling| scaling.gpus);
    for at in scaling
        .lives
        .iter()
        .map(|life| life.placed)
        .filter(|&at| at != Time::MAX)
    {
        let there = scaling
            .lives
            .iter()
            .filter(|it| it.placed <= at && at < it.gone);
        let taken: u32 = there
            .filter(|life| life.worker != u32::MAX)
            .map(|life| case.spec.pools[life.pool as usize].gpus_per_worker)
            .sum();
        assert!(
            gpus.is_none_or(|gpus| taken <= gpus),
            "{taken} of {gpus:?} GPUs"
        );
    }
    // A request is placed on a worker that serves then, in the place's life of that time.
    for (id, record) in recording.sent() {
        if record.placed == Time::MAX || case.spec.disaggregation.is_some() {
            continue;
        }
        let serves = |life: &&Life| {
            life.worker == record.worker
                && life.ready <= record.placed
                && record.placed <= life.drained
        };
        let life = scaling.lives.iter().find(serves);
        let life = life.unwrap_or_else(|| panic!("{:?} on nobody", RequestId(id as u32)));
        let is_done = record.outcome == Outcome::Completed;
        assert!(
            !is_done || record.finish <= life.gone,
            "who is gone has finished"
        );
    }
}

#[test]
fn planners_change_nothing_of_that() {
    let seeds = seeds("DYNOSIM_SCALED", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| {
        caught(|| {
            compare(&scaled(seed)).map(|_| {
                let recording = scaled(seed).run();
                check(&scaled(seed), &recording);
                marks(&recording)
            })
        })
    });
    let mut reached = [0u64; MARKS];
    for (seed, verdict) in &verdicts {
        match verdict {
            Ok(Ok(marks)) => (0..MARKS).for_each(|at| reached[at] += u64::from(marks[at])),
            Ok(Err(why)) | Err(why) => panic!("seed {seed}: {why}\n{:?}", scaled(*seed).spec),
        }
    }
    println!(
        "{} cases: drained with work, called off, waited for GPUs, nobody there, place taken again, waited for a worker, spare called in, \
         role changed, updated, not to the end, weights sent, not sent, sent on: {reached:?}",
        verdicts.len()
    );
    let least = (seeds.end - seeds.start) / 80;
    let (sent_on, others) = reached.split_last().expect("there are marks");
    assert!(*sent_on > 0 && others.iter().all(|&cases| cases >= least));
}

/// A planner that looks and leaves everything as it is changes no request.
#[test]
fn a_planner_that_changes_nothing_changes_nothing() {
    for seed in 0..60 {
        let mut case = scaled(seed);
        let scaling = case.scaling.as_mut().expect("every case has a planner");
        let look = |at| ScheduleEntry {
            at: Time(at),
            workers: PerRole::default(),
        };
        let looks = (1..200).map(|at| look(at * 1_000_000)).collect();
        scaling.planner = Box::new(Schedule::new(looks).expect("times increase"));
        // Spares are places that nobody sees, but places are in the order of random choices.
        scaling.lifecycle = LifecycleSpec::default();
        if let Some(disaggregation) = &mut case.spec.disaggregation {
            // Places are not workers.
            disaggregation.topology = None;
        }
        let watched = case.run();
        let scaling = case.scaling.take().expect("there was one");
        for (pool, scaling) in case.spec.pools.iter_mut().zip(&scaling.pools) {
            pool.workers = scaling.initial;
        }
        let alone = Arc::new(case.run());
        assert_eq!(watched.requests.len(), alone.requests.len());
        for (a, b) in watched.requests.iter().zip(&alone.requests) {
            // Places after the first workers shift the numbers of those of a second pool.
            let (mut a, b) = (*a, *b);
            if case.spec.pools.len() > 1 {
                a.worker = b.worker;
            }
            assert_eq!(a, b, "seed {seed}");
        }
    }
}
