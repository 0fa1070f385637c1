//! The simulator against itself: coasting and stepping, once and again, alone and beside another thread, with and
//! without ids of KV blocks. Nothing of that may change a result.
//!
//! `DYNOSIM_DIFFERENTIAL_SCENARIOS` sets how many cases are run; `DYNOSIM_DIFFERENTIAL_SEED` runs one seed alone.

use std::collections::BTreeMap;
use std::thread;

use engine::EngineConfig;
use sim::event::{Action, Event};
use sim::{PoolSpec, Recording, RouterSpec};

use crate::cases::{case, disaggregated, parallel, tiered};
use crate::fast::{Case, difference};
use crate::seeds::{caught, in_parallel, seeds};
use sim::disaggregation::Overlap;

const CASES: u64 = 1_000;

#[test]
fn coasting_threads_and_block_ids_change_nothing() {
    let seeds = seeds("DYNOSIM_DIFFERENTIAL", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| caught(|| compare(&case(seed))));
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for (seed, verdict) in &verdicts {
        match verdict {
            Ok(Ok(marks)) => marks
                .iter()
                .for_each(|&mark| *reached.entry(mark).or_default() += 1),
            Ok(Err(why)) | Err(why) => panic!("seed {seed}: {why}\n{:?}", case(*seed).spec),
        }
    }
    println!("{} cases: {reached:#?}", verdicts.len());
    let least = (seeds.end - seeds.start) / 50;
    for mark in MARKS {
        let times = reached.get(mark).copied().unwrap_or(0);
        assert!(
            times >= least,
            "`{mark}` only in {times} of {} cases",
            verdicts.len()
        );
    }
}

const NOBODY_NEAR: sim::Outcome = sim::Outcome::Rejected(sim::Rejection::NoWorkerInDomain);

#[test]
fn disaggregation_changes_nothing_of_that() {
    let seeds = seeds("DYNOSIM_DISAGGREGATED", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| {
        caught(|| compare(&disaggregated(seed)).map(|_| disaggregated(seed).run()))
    });
    let (mut moved, mut failed, mut waited, mut whole) = (0, 0, 0, 0);
    let (mut apart, mut layered, mut shared) = (0, 0, 0);
    for (seed, verdict) in &verdicts {
        let recording = match verdict {
            Ok(Ok(recording)) => recording,
            Ok(Err(why)) | Err(why) => {
                panic!("seed {seed}: {why}\n{:?}", disaggregated(*seed).spec)
            }
        };
        let transfers = &recording.transfers;
        let is_done = |record: &&sim::RequestRecord| record.outcome == sim::Outcome::Completed;
        let done = recording.requests.iter().filter(is_done).count();
        moved += u64::from(!transfers.is_empty());
        failed += u64::from(transfers.iter().any(|it| it.has_failed));
        waited += u64::from(transfers.iter().any(|it| it.reserved > it.prefilled));
        whole += u64::from(done > transfers.len());
        let is_alone = |record: &sim::RequestRecord| record.outcome == NOBODY_NEAR;
        apart += u64::from(recording.requests.iter().any(is_alone));
        let early = |it: &sim::TransferRecord| it.began < it.prefilled;
        let spec = disaggregated(*seed)
            .spec
            .disaggregation
            .expect("it hands over");
        let is_layered = matches!(spec.overlap, Overlap::Layer(_));
        layered += u64::from(is_layered && transfers.iter().any(early));
        shared += u64::from(spec.topology.is_some() && !transfers.is_empty());
    }
    println!(
        "{} cases: KV moved in {moved}, failed in {failed}, waited for blocks in {waited}, stayed in {whole}, \
         nobody was near in {apart}, layers moved alone in {layered}, links were shared in {shared}",
        verdicts.len()
    );
    let least = (seeds.end - seeds.start) / 50;
    assert!(apart > 0);
    assert!(
        [moved, failed, waited, whole, layered, shared]
            .iter()
            .all(|&cases| cases >= least)
    );
}

#[test]
fn stages_ranks_and_drafts_change_nothing_of_that() {
    let seeds = seeds("DYNOSIM_PARALLEL_CASES", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| {
        caught(|| compare(&parallel(seed)).map(|_| longest_coasts(&parallel(seed))))
    });
    let mut reached = [0; KINDS.len()];
    for (seed, verdict) in &verdicts {
        match verdict {
            Ok(Ok(coasts)) => {
                let both = reached.iter_mut().zip(coasts);
                both.for_each(|(count, &longest)| *count += u64::from(longest > 0));
            }
            Ok(Err(why)) | Err(why) => panic!("seed {seed}: {why}\n{:?}", parallel(*seed).spec),
        }
    }
    let named: Vec<_> = KINDS.iter().zip(reached).collect();
    println!("{} cases: {named:?}", verdicts.len());
    let least = (seeds.end - seeds.start) / 100;
    assert!(reached.iter().all(|&cases| cases >= least));
}

/// What of each engine has to be reached: coasts of more than a few steps with drafts, of ranks, of both; steps in stages.
const KINDS: [(&str, &str); 12] = [
    ("vllm", "drafts"),
    ("vllm", "ranks"),
    ("vllm", "ranks with drafts"),
    ("vllm", "stages"),
    ("sglang", "drafts"),
    ("sglang", "ranks"),
    ("sglang", "ranks with drafts"),
    ("sglang", "stages"),
    ("trtllm", "drafts"),
    ("trtllm", "ranks"),
    ("trtllm", "ranks with drafts"),
    ("trtllm", "stages"),
];

/// The longest runs of equal steps of each kind; single steps in stages.
fn longest_coasts(case: &Case) -> [u32; KINDS.len()] {
    let mut longest = [0; KINDS.len()];
    let cluster = case.cluster();
    let pools: Vec<usize> = cluster
        .workers()
        .iter()
        .map(|worker| worker.pool())
        .collect();
    case.run_observed(|_, event, _| {
        let Event::Ran(ran) = event else {
            return;
        };
        let engine = &case.spec.pools[pools[ran.worker.0 as usize]].engine;
        let (kind, counts) = match (engine.speculation().is_some(), engine.ranks() > 1) {
            (true, false) => ("drafts", ran.steps > 4),
            (false, true) => ("ranks", ran.steps > 4),
            (true, true) => ("ranks with drafts", ran.steps > 4),
            (false, false) => ("stages", engine.stages() > 1),
        };
        let place = KINDS.iter().position(|&it| it == (engine.backend(), kind));
        if let Some(place) = place.filter(|_| counts) {
            longest[place] = longest[place].max(ran.steps);
        }
    });
    longest
}

/// What the cases have to reach, in the order of [`marks`].
const MARKS: [&str; 14] = [
    "asynchronous",
    "two pools at work",
    "preemption",
    "coast",
    "coast over several pieces",
    "coast cut short",
    "router found an overlap",
    "random router",
    "SGLang under a KV router",
    "SGLang retracted",
    "SGLang coasted over pieces",
    "SGLang beside vLLM",
    "TensorRT-LLM paused",
    "TensorRT-LLM coasted over pieces",
];

/// A prefix was loaded back whose children in host memory went to make room: it was evicted with them.
#[test]
fn what_is_loaded_back_stays_when_all_below_it_goes() {
    let recording = tiered(22_873).run();
    let is_done = |it: &sim::RequestRecord| it.outcome == sim::Outcome::Completed;
    assert!(recording.requests.iter().any(is_done));
}

#[test]
fn tiers_change_nothing_of_that() {
    let seeds = seeds("DYNOSIM_TIERED", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| {
        caught(|| compare(&tiered(seed)).map(|_| tiered(seed).run()))
    });
    let (mut fetched, mut loaded) = ([0; 3], 0);
    for (seed, verdict) in &verdicts {
        let recording = match verdict {
            Ok(Ok(recording)) => recording,
            Ok(Err(why)) | Err(why) => {
                let case = tiered(*seed);
                panic!(
                    "seed {seed}: {why}\n{:?}\n{:?}\n{:?}",
                    case.spec, case.kvbm, case.hosts
                )
            }
        };
        let Some(kvbm) = &recording.kvbm else {
            continue;
        };
        for tier in &kvbm.tiers {
            assert!(tier.peak_blocks <= tier.capacity_blocks, "seed {seed}");
        }
        for (medium, fetched) in fetched.iter_mut().enumerate() {
            *fetched += u64::from(kvbm.fetches.iter().any(|it| it.tokens[medium] > 0));
        }
        let has_host = tiered(*seed).hosts.iter().any(Option::is_some);
        loaded += u64::from(has_host && !kvbm.fetches.is_empty());
    }
    println!(
        "{} cases: host, disk and object store were read in {fetched:?}, engines loaded from their own host memory in {loaded}",
        verdicts.len()
    );
    let least = (seeds.end - seeds.start) / 50;
    assert!(fetched.iter().all(|&cases| cases >= least) && loaded >= least);
}

/// Everything that may not change a result.
pub fn compare(case: &Case) -> Result<Vec<&'static str>, String> {
    let coasted = case.run();
    if let Some(difference) = difference(&coasted, &case.stepping().run()) {
        return Err(format!("coasting, then stepping: {difference}"));
    }
    let mut with_block_ids = case.clone();
    // SGLang's scheduler keeps none.
    with_block_ids.spec.track_block_ids = !case.spec.pools.iter().any(is_sglang);
    let again = thread::scope(|scope| {
        let twins = [case, case, &with_block_ids].map(|case| scope.spawn(|| case.run()));
        twins.map(|twin| twin.join())
    });
    let names = ["again", "in another thread", "with block ids"];
    for (name, recording) in names.iter().zip(again) {
        let recording = recording.map_err(|_| format!("panic {name}"))?;
        if recording != coasted {
            let difference = difference(&coasted, &recording);
            let difference = difference.unwrap_or("gaps are cut otherwise".to_owned());
            return Err(format!("once, then {name}: {difference}"));
        }
    }
    Ok(marks(case, &coasted))
}

fn is_sglang(pool: &PoolSpec) -> bool {
    pool.engine.as_sglang().is_some()
}

fn is_trtllm(pool: &PoolSpec) -> bool {
    matches!(pool.engine, EngineConfig::Trtllm(_))
}

fn marks(case: &Case, recording: &Recording) -> Vec<&'static str> {
    let workers = &recording.workers;
    let is_pool_at_work = |pool: u32| {
        workers
            .iter()
            .any(|worker| worker.pool == pool && worker.steps > 0)
    };
    let runs = |is: fn(&PoolSpec) -> bool| -> Vec<bool> {
        let pools = workers.iter().map(|worker| worker.pool as usize);
        pools.map(|pool| is(&case.spec.pools[pool])).collect()
    };
    let (runs_sglang, runs_trtllm) = (runs(is_sglang), runs(is_trtllm));
    let (mut longest, mut pieces, mut cuts) = (0, 0, 0);
    let (mut pieces_of_sglang, mut pieces_of_trtllm) = (0, 0);
    // By worker: whether it was asked to run something since its last report.
    let mut is_asked = vec![false; workers.len()];
    case.run_observed(|_, event, actions| {
        if let Event::Ran(ran) = event {
            longest = longest.max(ran.steps);
            let was_asked = std::mem::take(&mut is_asked[ran.worker.0 as usize]);
            let is_further_piece = ran.steps > 1 && !was_asked;
            pieces += u32::from(is_further_piece);
            let worker = ran.worker.0 as usize;
            pieces_of_sglang += u32::from(is_further_piece && runs_sglang[worker]);
            pieces_of_trtllm += u32::from(is_further_piece && runs_trtllm[worker]);
        }
        for action in actions {
            match action {
                Action::Run { worker, .. } => is_asked[worker.0 as usize] = true,
                Action::Cut { .. } => cuts += 1,
                Action::At { .. } | Action::Disturb { .. } => {}
            }
        }
    });
    let preempted = |runs: &[bool]| {
        let mut both = workers.iter().zip(runs);
        both.any(|(worker, is_it)| *is_it && worker.preemptions > 0)
    };
    let verdicts = [
        case.spec.pools.iter().any(|pool| pool.engine.depth() > 1),
        is_pool_at_work(0) && is_pool_at_work(1),
        workers.iter().any(|worker| worker.preemptions > 0),
        longest > 10,
        pieces > 0,
        cuts > 0,
        recording
            .requests
            .iter()
            .any(|request| request.router_overlap_tokens > 0),
        matches!(
            case.spec.router,
            RouterSpec::Random | RouterSpec::PowerOfTwo
        ),
        matches!(case.spec.router, RouterSpec::Kv(_)) && runs_sglang.contains(&true),
        preempted(&runs_sglang),
        pieces_of_sglang > 0,
        runs_sglang.contains(&true)
            && case
                .spec
                .pools
                .iter()
                .any(|pool| pool.engine.as_vllm().is_some()),
        preempted(&runs_trtllm),
        pieces_of_trtllm > 0,
    ];
    let earned = MARKS
        .iter()
        .zip(verdicts)
        .filter(|&(_, is_earned)| is_earned);
    earned.map(|(&mark, _)| mark).collect()
}
