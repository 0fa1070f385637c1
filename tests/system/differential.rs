//! The simulator against itself: coasting and stepping, once and again, alone and beside another thread, with and
//! without ids of KV blocks. Nothing of that may change a result.
//!
//! `DYNOSIM_DIFFERENTIAL_SCENARIOS` sets how many cases are run; `DYNOSIM_DIFFERENTIAL_SEED` runs one seed alone.

use std::collections::BTreeMap;
use std::thread;

use sim::event::{Action, Event};
use sim::{Recording, RouterSpec};

use crate::cases::case;
use crate::fast::{Case, difference};
use crate::seeds::{caught, in_parallel, seeds};

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

/// What the cases have to reach, in the order of [`marks`].
const MARKS: [&str; 8] = [
    "asynchronous",
    "two pools at work",
    "preemption",
    "coast",
    "coast over several pieces",
    "coast cut short",
    "router found an overlap",
    "random router",
];

fn compare(case: &Case) -> Result<Vec<&'static str>, String> {
    let coasted = case.run();
    if let Some(difference) = difference(&coasted, &case.stepping().run()) {
        return Err(format!("coasting, then stepping: {difference}"));
    }
    let mut with_block_ids = case.clone();
    with_block_ids.spec.track_block_ids = true;
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

fn marks(case: &Case, recording: &Recording) -> Vec<&'static str> {
    let workers = &recording.workers;
    let is_pool_at_work = |pool: u32| {
        workers
            .iter()
            .any(|worker| worker.pool == pool && worker.steps > 0)
    };
    let (mut longest, mut pieces, mut cuts) = (0, 0, 0);
    // By worker: whether it was asked to run something since its last report.
    let mut is_asked = vec![false; workers.len()];
    case.run_observed(|_, event, actions| {
        if let Event::Ran(ran) = event {
            longest = longest.max(ran.steps);
            let was_asked = std::mem::take(&mut is_asked[ran.worker.0 as usize]);
            pieces += u32::from(ran.steps > 1 && !was_asked);
        }
        for action in actions {
            match action {
                Action::Run { worker, .. } => is_asked[worker.0 as usize] = true,
                Action::Cut { .. } => cuts += 1,
                Action::At { .. } => {}
            }
        }
    });
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
    ];
    let earned = MARKS
        .iter()
        .zip(verdicts)
        .filter(|&(_, is_earned)| is_earned);
    earned.map(|(&mark, _)| mark).collect()
}
