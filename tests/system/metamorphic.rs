//! Changes to a case whose effect on the result is known: all times doubled, workers renamed, somebody looking on, the
//! cluster cloned on the way.

use std::sync::Arc;

use engine::{
    Dependency, NewRequest, Piece, RequestId, Run, Span, StepShape, StepTime, Time, TimingSource,
    Trigger, Workload, WorkloadBuilder,
};
use sim::journal::{Entry, Journal};
use sim::router::KvRouterSpec;
use sim::virtual_clock;
use sim::{Cluster, GapRun, PoolSpec, Recording, RequestRecord, RouterSpec, WorkerRecord};

use crate::cases::case;
use crate::fast::{Case, difference};
use crate::oracle::dice::Dice;
use crate::seeds::{caught, in_parallel, seeds};
use crate::timing::Zigzag;

const CASES: u64 = 500;

/// Both recordings of every seed are equal.
fn agree(both: impl Fn(u64) -> (Recording, Recording) + Sync) {
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
    let worker = |record: &WorkerRecord| WorkerRecord {
        busy: record.busy * 2,
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
        workers: recording.workers.iter().map(worker).collect(),
        gaps: recording.gaps.iter().map(gap).collect(),
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
        let mut log = String::new();
        let observed =
            case.run_observed(|now, event, actions| log = format!("{now} {event:?} {actions:?}"));
        assert!(!log.is_empty() || observed.gaps.is_empty());
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

/// Two pools that can hold different requests: those of `short` end at 100 tokens, those of `roomy` have blocks for 200.
/// Prompts under 100 tokens with long answers fit only the one, longer prompts only the other.
fn two_pools(dice: &mut Dice, case: &Case) -> [PoolSpec; 2] {
    let engine = engine::vllm::VllmConfig {
        block_size: 8,
        num_gpu_blocks: 1 + dice.between(13, 40) as u32,
        max_model_len: 100,
        max_num_batched_tokens: dice.pick(&[128, 256, 1024]),
        max_num_seqs: dice.pick(&[2, 4, 64]),
        ..case.spec.pools[0].engine.clone()
    };
    let roomy = engine::vllm::VllmConfig {
        num_gpu_blocks: 1 + 25,
        max_model_len: 1_000,
        max_num_batched_tokens: 1_024,
        async_scheduling: dice.chance(50),
        ..engine.clone()
    };
    let mut pool = |name: &str, engine| PoolSpec {
        name: name.to_owned(),
        workers: dice.pick(&[1, 2, 3]),
        gpus_per_worker: 1,
        engine,
    };
    [pool("short", engine), pool("roomy", roomy)]
}

/// Requests of which each fits one pool of [`two_pools`] or none, with prompts that share their beginnings.
fn divided_workload(dice: &mut Dice) -> Workload {
    let mut builder = WorkloadBuilder::new();
    let mut arrival = 0;
    for request in 0..60 {
        let (input, output) = match dice.between(0, 9) {
            0 => (dice.between(100, 150), 300),
            1..=5 => (dice.between(10, 60), dice.between(260, 300)),
            _ => (dice.between(100, 150), dice.between(1, 40)),
        };
        let shared = dice.between(0, input - 1) as u32;
        let run = |id, len| Run {
            first: WorkloadBuilder::block_token(id, 0),
            len,
        };
        let prompt = [
            run(dice.between(0, 3) as u32, shared),
            run(100 + request, input as u32 - shared),
        ];
        let another = [Dependency {
            on: RequestId(request.saturating_sub(dice.between(1, 5) as u32)),
            trigger: Trigger::Completion,
            delay: Span::from_ns(dice.between(0, 3_000) as u64),
        }];
        let waits = request > 0 && dice.chance(20);
        arrival += dice.pick(&[0, 0, 1_000, 30_000]);
        builder.push(NewRequest {
            arrival: Time::from_ns(arrival),
            prompt: if shared > 0 { &prompt } else { &prompt[1..] },
            output_tokens: output as u32,
            priority: dice.between(0, 2) as i32,
            session: request,
            dependencies: if waits { &another } else { &[] },
        });
    }
    builder.finish()
}

#[test]
fn renaming_workers_permutes_results() {
    agree(|seed| {
        let mut dice = Dice::new(seed, 0x4e4a);
        let mut case = case(seed);
        let pools = two_pools(&mut dice, &case);
        let workers = pools.each_ref().map(|pool| pool.workers);
        case.spec.pools = pools.to_vec();
        case.spec.router = dice.pick(&[
            RouterSpec::Random,
            RouterSpec::PowerOfTwo,
            RouterSpec::LeastLoaded,
            RouterSpec::Kv(KvRouterSpec::default()),
        ]);
        case.spec.load.concurrency = dice.chance(40).then(|| dice.between(1, 20) as u32);
        case.spec.load.duration = None;
        case.workload = Arc::new(divided_workload(&mut dice));
        let zigzag = |seed| {
            Arc::new(Zigzag {
                seed,
                base: Span::from_ns(1_000),
            }) as Arc<dyn StepTime>
        };
        case.timing = vec![zigzag(seed), zigzag(seed + 1)];
        let mut recording = case.run();
        assert!(
            recording
                .workers
                .iter()
                .all(|worker| worker.requests > 0 || workers.iter().any(|&count| count > 1))
        );

        case.spec.pools.reverse();
        case.timing.reverse();
        recording.workers.rotate_left(workers[0] as usize);
        for worker in &mut recording.workers {
            worker.pool = 1 - worker.pool;
        }
        for request in recording
            .requests
            .iter_mut()
            .filter(|request| request.worker != u32::MAX)
        {
            request.worker = (request.worker + workers[1]) % (workers[0] + workers[1]);
        }
        (recording, case.run())
    });
}
