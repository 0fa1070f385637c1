//! Random cases in which links between prefill and decode workers are slow or down for a time. Coasting, stepping and doing it
//! again change nothing; nobody is lost; a link of factor 1 is no fault; without a fault that holds anything up nothing is
//! different.

use std::sync::Arc;

use engine::{Span, Time};
use sim::adversity::faults::{Fault, FaultKind, FaultSpec, RandomFault};
use sim::links::{Impairment, Network, SiteKind};
use sim::{AdversitySpec, Outcome, Recording};

use crate::adverse::stays_unfinished;
use crate::cases::disaggregated;
use crate::differential::compare;
use crate::fast::Case;
use crate::oracle::dice::Dice;
use crate::seeds::{caught, in_parallel, seeds};

const CASES: u64 = 300;

/// A disaggregated case with faults of links that there are.
pub fn with_link_faults(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0x11f0);
    let mut case = disaggregated(seed);
    case.workload = Arc::new(case.workload.without_ahead());
    let kinds = sites(&case);
    let span = last_finish(&case.run()).max(1_000_000);
    let within = |dice: &mut Dice| Span(span / 1_000 * dice.between(1, 1_000) as u64);
    let kind = |dice: &mut Dice| {
        let (site, there) = dice.pick(&kinds);
        let percent = dice.pick(&[150, 400, 10_000]);
        let how = dice.pick(&[Impairment::Down, Impairment::Slow { percent }]);
        let number = dice.between(0, there as usize - 1) as u32;
        (FaultKind::Link { site, how }, number)
    };
    let faults = dice.between(1, 8);
    let timeline = (0..faults).map(|_| {
        let (kind, worker) = kind(&mut dice);
        Fault {
            at: Time::ZERO + within(&mut dice),
            kind,
            worker,
            lasts: Span(within(&mut dice).0 / 3),
        }
    });
    let timeline = timeline.collect();
    let random = dice.chance(40).then(|| RandomFault {
        mtbf: within(&mut dice),
        kind: kind(&mut dice).0,
        worker: None,
        lasts: Span(within(&mut dice).0 / 10),
    });
    case.adversity = AdversitySpec {
        faults: FaultSpec {
            timeline,
            random: random.into_iter().collect(),
            ..FaultSpec::default()
        },
        ..AdversitySpec::default()
    };
    case
}

/// Kinds of links that there are, and how many of each.
fn sites(case: &Case) -> Vec<(SiteKind, u32)> {
    let spec = case.spec.disaggregation.as_ref().expect("it hands over");
    let gpus: Vec<u32> = (case.spec.pools.iter())
        .flat_map(|pool| std::iter::repeat_n(pool.gpus_per_worker, pool.workers as usize))
        .collect();
    let network = Network::new(spec.network, spec.topology.as_ref(), &gpus);
    let kinds = SiteKind::ALL.map(|kind| (kind, network.sites(kind)));
    kinds.into_iter().filter(|(_, there)| *there > 0).collect()
}

fn last_finish(recording: &Recording) -> u64 {
    let moments = recording.sent().map(|(_, request)| request.last_moment().0);
    moments.max().unwrap_or(0)
}

const MARKS: [&str; 6] = [
    "held up by a slow link",
    "held up by a link that was down",
    "held up by two faults",
    "a random fault",
    "a transfer longer than without",
    "in a topology, beyond its cards",
];

fn marks(case: &Case, recording: &Recording) -> [bool; MARKS.len()] {
    let mut sound = case.clone();
    sound.adversity = AdversitySpec::default();
    let sound = sound.run();
    let longest = |recording: &Recording| {
        let ended = recording.transfers.iter();
        let ended = ended.filter(|it| it.ended != Time::MAX);
        ended.map(|it| it.ended.since(it.began)).max()
    };
    let record = recording.adversity.as_ref().expect("every case has faults");
    let held = |is: &dyn Fn(SiteKind, Impairment) -> bool| {
        let mut faults = record.faults.iter();
        faults.any(|fault| {
            let FaultKind::Link { site, how } = fault.kind else {
                return false;
            };
            let link = fault.link.expect("it is links that broke");
            link.cost.transfers > 0 && is(site, how)
        })
    };
    let holding = record.faults.iter();
    let holding = holding.filter(|it| it.link.is_some_and(|link| link.cost.transfers > 0));
    let cards = [
        SiteKind::Worker,
        SiteKind::Nic,
        SiteKind::Node,
        SiteKind::Core,
    ];
    [
        held(&|_, how| how != Impairment::Down),
        held(&|_, how| how == Impairment::Down),
        holding.count() > 1,
        record.faults.len() > case.adversity.faults.timeline.len(),
        longest(recording) > longest(&sound),
        held(&|site, _| !cards.contains(&site)),
    ]
}

/// Everybody is answered who is without faults, and a fault that held nobody up cost nothing.
fn check(case: &Case, recording: &Recording) -> Result<(), String> {
    let mut sound = case.clone();
    sound.adversity = AdversitySpec::default();
    let sound = sound.run();
    let ended = |recording: &Recording, outcome: fn(&Outcome) -> bool| {
        let all = recording.requests.iter();
        all.filter(|it| outcome(&it.outcome)).count()
    };
    for outcome in [
        |it: &Outcome| *it == Outcome::Completed,
        |it: &Outcome| matches!(it, Outcome::Rejected(_)),
        |it: &Outcome| *it == Outcome::Unfinished,
    ] {
        let (with, without) = (ended(recording, outcome), ended(&sound, outcome));
        // What can preempt in circles may do so with one timing and not with another; who stops sending after a while sends less
        // where answers come later.
        let sends_all = case.spec.load.duration.is_none();
        if with != without && sends_all && !stays_unfinished(case) {
            return Err(format!("{with} and without faults {without} of an outcome"));
        }
    }
    let record = recording.adversity.as_ref().expect("every case has faults");
    let mut costs = record
        .faults
        .iter()
        .map(|it| it.link.expect("it is links that broke").cost);
    if costs.all(|cost| cost.held == Span::ZERO) && recording.requests != sound.requests {
        return Err("nothing was held up, and something is different".to_owned());
    }
    for fault in &record.faults {
        let cost = fault.link.expect("it is links that broke").cost;
        let longest = fault.ended.since(fault.began).0 * u64::from(cost.transfers);
        if cost.held.0 > longest || (cost.transfers > 0) != (cost.held > Span::ZERO) {
            return Err(format!("held up for longer than it lasted: {fault:?}"));
        }
    }
    let mut same = case.clone();
    for fault in &mut same.adversity.faults.timeline {
        if let FaultKind::Link { how, .. } = &mut fault.kind {
            *how = Impairment::Slow { percent: 100 };
        }
    }
    same.adversity.faults.random.clear();
    let same = same.run();
    if same.requests != sound.requests || same.transfers != sound.transfers {
        return Err("a factor of 1 changes something".to_owned());
    }
    Ok(())
}

#[test]
fn links_that_break_hold_up_and_lose_nobody() {
    let seeds = seeds("DYNOSIM_LINKS", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| {
        caught(|| {
            let case = with_link_faults(seed);
            compare(&case)?;
            let recording = case.run();
            check(&case, &recording)?;
            Ok(marks(&case, &recording))
        })
    });
    let mut reached = [0; MARKS.len()];
    for (seed, verdict) in &verdicts {
        match verdict {
            Ok(Ok(marks)) => (0..MARKS.len()).for_each(|at| reached[at] += u64::from(marks[at])),
            Ok(Err(why)) | Err(why) => {
                let case = with_link_faults(*seed);
                panic!("seed {seed}: {why}\n{:?}\n{:?}", case.adversity, case.spec)
            }
        }
    }
    let told: Vec<_> = MARKS.iter().zip(reached).collect();
    println!("{} cases: {told:?}", verdicts.len());
    let least = (seeds.end - seeds.start) / 80;
    for (mark, times) in told {
        assert!(times >= least, "`{mark}` only in {times} cases");
    }
}
