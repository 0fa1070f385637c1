//! Changes to a case whose effect on the result is known: all times doubled, somebody looking on, the cluster cloned on
//! the way. `DYNOSIM_METAMORPHIC_SCENARIOS` and `DYNOSIM_METAMORPHIC_SEED` set which cases are run.

use std::sync::Arc;

use engine::{Piece, Span, StepShape, StepTime, Time, TimingSource, Workload};
use sim::event::Event;
use sim::journal::{Entry, Journal};
use sim::virtual_clock;
use sim::{AheadRecord, Cluster, GapRun, Recording, RequestRecord, WorkerRecord};

use crate::cases::case;
use crate::fast::{Case, difference};
use crate::oracle::dice::Dice;
use crate::seeds::{caught, in_parallel, seeds};

const CASES: u64 = 500;

/// Both recordings of every seed are equal.
pub fn agree(both: impl Fn(u64) -> (Recording, Recording) + Sync) {
    let compare = |seed| {
        let (a, b) = both(seed);
        match difference(&a, &b) {
            Some(difference) => Err(difference),
            None => Ok(()),
        }
    };
    for (seed, verdict) in in_parallel(seeds("DYNOSIM_METAMORPHIC", CASES), |seed| {
        caught(|| compare(seed))
    }) {
        if let Ok(Err(why)) | Err(why) = verdict {
            panic!("seed {seed}: {why}");
        }
    }
}

/// Every step takes twice as long.
struct Doubled(Arc<dyn StepTime>);

impl StepTime for Doubled {
    fn decode(&self, batch: u32, context: u64) -> Piece {
        let piece = self.0.decode(batch, context);
        Piece {
            at: piece.at * 2,
            slope_ps: piece.slope_ps * 2,
            ..piece
        }
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        self.0.mixed(shape) * 2
    }

    fn source(&self) -> TimingSource {
        self.0.source()
    }
}

fn doubled_case(case: &Case) -> Case {
    let mut workload = Workload::clone(&case.workload);
    for request in &mut workload.requests {
        request.arrival = doubled(request.arrival);
    }
    for dependency in &mut workload.dependencies {
        dependency.delay = dependency.delay * 2;
    }
    let mut spec = case.spec.clone();
    spec.load.duration = spec.load.duration.map(|duration| duration * 2);
    let timing = case.timing.iter();
    Case {
        kvbm: case.kvbm.clone(),
        taints: case.taints.clone(),
        hosts: case.hosts.clone(),
        adversity: case.adversity.clone(),
        scaling: case.scaling.clone(),
        spec,
        workload: Arc::new(workload),
        timing: timing
            .map(|timing| Arc::new(Doubled(timing.clone())) as Arc<dyn StepTime>)
            .collect(),
    }
}

fn doubled(time: Time) -> Time {
    if time == Time::MAX {
        time
    } else {
        Time(time.0 * 2)
    }
}

fn doubled_recording(recording: &Recording) -> Recording {
    let request = |record: &RequestRecord| RequestRecord {
        arrival: doubled(record.arrival),
        placed: doubled(record.placed),
        first_scheduled: doubled(record.first_scheduled),
        first_token: doubled(record.first_token),
        finish: doubled(record.finish),
        ..*record
    };
    let ahead = |record: &AheadRecord| AheadRecord {
        life: request(&record.life),
        ..*record
    };
    let worker = |record: &WorkerRecord| WorkerRecord {
        busy: record.busy * 2,
        prefill_busy: record.prefill_busy * 2,
        held_token_ps: record.held_token_ps * 2,
        ..*record
    };
    let gap = |run: &GapRun| GapRun {
        first: run.first * 2,
        slope_ps: run.slope_ps * 2,
        ..*run
    };
    Recording {
        requests: recording.requests.iter().map(request).collect(),
        ahead: recording.ahead.iter().map(ahead).collect(),
        workers: recording.workers.iter().map(worker).collect(),
        gaps: recording.gaps.iter().map(gap).collect(),
        transfers: recording.transfers.clone(),
        links: recording.links.clone(),
        kvbm: recording.kvbm.clone(),
        adversity: None,
        scaling: recording.scaling.clone(),
    }
}

#[test]
fn doubling_all_times_doubles_all_latencies() {
    agree(|seed| {
        let case = case(seed);
        (doubled_recording(&case.run()), doubled_case(&case).run())
    });
}

#[test]
fn looking_on_changes_nothing() {
    agree(|seed| {
        let case = case(seed);
        let mut log = Vec::new();
        let observed =
            case.run_observed(|now, event, actions| log.push((now, event, actions.len())));
        let runs = log
            .iter()
            .any(|(_, event, _)| matches!(event, Event::Ran(_)));
        assert_eq!(runs, observed.workers.iter().any(|worker| worker.steps > 0));
        (virtual_clock::run(case.cluster(), &case.timing), observed)
    });
}

/// Hands events to a cluster and insists on the actions of the journal.
fn play(cluster: &mut Cluster, entries: &[Entry]) {
    let mut actions = Vec::new();
    for entry in entries {
        actions.clear();
        cluster.handle(entry.time, entry.event, &mut actions);
        assert_eq!(actions, entry.actions, "at {}", entry.time);
    }
}

#[test]
fn a_clone_goes_on_like_its_original() {
    agree(|seed| {
        let (journal, recording) = case(seed).journal();
        let Journal { opening, entries } = &journal;
        let (first, rest) = entries.split_at(Dice::new(seed, 0xc10e).between(0, entries.len()));
        let mut original = case(seed).cluster();
        original.start(&mut Vec::with_capacity(opening.len()));
        play(&mut original, first);
        let mut clone = original.clone();
        play(&mut original, rest);
        assert_eq!(original.finish(), recording, "a journal says all");
        play(&mut clone, rest);
        (recording, clone.finish())
    });
}
