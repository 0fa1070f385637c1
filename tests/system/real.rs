//! Real steps: a transformer computes what schedulers plan, on threads of their own. Nobody can say beforehand what happens
//! when, but the journal played into a fresh cluster makes it decide the same again, to the last action, and a request's
//! tokens are the same on whichever worker and in whatever batch.
#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

use std::sync::Arc;

use engine::vllm::VllmConfig;
use engine::{
    Batch, Contents, Dependency, Executor, ExecutorError, NewRequest, RequestId, Run, Span, Time,
    Trigger, Workload, WorkloadBuilder,
};
use executor::{CpuExecutor, CpuSettings, Model, ModelConfig, Tokens, WeightSource};
use sim::event::{Action, Event};
use sim::live::{self, Accounted, LiveEnd, LiveRun};
use sim::router::KvRouterSpec;
use sim::{Cluster, ClusterSpec, LoadSpec, Outcome, PoolSpec, RouterSpec};

const CONFIG: &str = r#"{"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "vocab_size": 199}"#;
const SESSIONS: u32 = 8;
const BLOCKS: u32 = 1 + 34;
const BLOCK_SIZE: u32 = 8;

/// Sessions of two turns over common instructions; the second quotes the first answer. Prompts are longer than the budget
/// of a step, and two workers have no room for all answers.
fn workload() -> (Arc<Workload>, Contents) {
    let (mut builder, mut contents) = (WorkloadBuilder::new(), Contents::new());
    let run = |first, len| Run { first, len };
    let question = |session, turn| run(WorkloadBuilder::private_token(2 * session + turn, 0), 60);
    let instructions = run(WorkloadBuilder::block_token(0, 0), 32);
    let mut push = |prompt: &[Run], output_tokens, session, dependencies: &[Dependency]| {
        builder.push(NewRequest {
            arrival: Time(Span::from_ms(f64::from(session)).0),
            prompt,
            output_tokens,
            priority: 0,
            session,
            dependencies,
        });
        contents.push(prompt);
    };
    for session in 0..SESSIONS {
        let prompt = [instructions, question(session, 0)];
        push(&prompt, 20 + 3 * session, session, &[]);
    }
    for session in 0..SESSIONS {
        let answer = run(WorkloadBuilder::output_token(session, 0), 20 + 3 * session);
        let waits = Dependency {
            on: RequestId(session),
            trigger: Trigger::Completion,
            delay: Span::from_ms(2.0),
        };
        let prompt = [
            instructions,
            question(session, 0),
            answer,
            question(session, 1),
        ];
        push(&prompt, 12, SESSIONS + session, &[waits]);
    }
    (Arc::new(builder.finish()), contents)
}

fn engine(async_scheduling: bool) -> VllmConfig {
    VllmConfig {
        block_size: BLOCK_SIZE,
        num_gpu_blocks: BLOCKS,
        max_num_seqs: 6,
        max_num_batched_tokens: 48,
        scheduler_reserve_full_isl: false,
        async_scheduling,
        ..VllmConfig::default()
    }
}

fn cluster(workers: u32, engine: VllmConfig, router: RouterSpec) -> Cluster {
    let spec = ClusterSpec {
        pools: vec![PoolSpec {
            name: "real".to_owned(),
            workers,
            gpus_per_worker: 1,
            engine: engine.into(),
        }],
        router,
        load: LoadSpec::default(),
        frontend: sim::FrontendSpec::default(),
        seed: 1,
        coasting: false,
        disaggregation: None,
        track_block_ids: true,
    };
    Cluster::new(&spec, workload().0)
}

fn executors(workers: u32, blocks: u32) -> (Vec<Box<dyn Executor>>, Arc<Tokens>) {
    let config = ModelConfig::parse("config.json", CONFIG).unwrap();
    let tokens = Arc::new(Tokens::new(workload().1, config.vocab, 1));
    let model = Arc::new(Model::new(config, &WeightSource::Generated(5)).unwrap());
    let settings = CpuSettings {
        num_gpu_blocks: blocks,
        block_size: BLOCK_SIZE,
        threads: 1,
    };
    let executor = |_| -> Box<dyn Executor> {
        Box::new(CpuExecutor::new(model.clone(), tokens.clone(), settings).unwrap())
    };
    ((0..workers).map(executor).collect(), tokens)
}

/// Answers of a run in which nothing is shared, cut or waited for: one worker, one request at a time.
fn answers_alone() -> Vec<Vec<u32>> {
    let engine = VllmConfig {
        block_size: BLOCK_SIZE,
        num_gpu_blocks: 64,
        max_num_seqs: 1,
        enable_prefix_caching: false,
        async_scheduling: false,
        ..VllmConfig::default()
    };
    let (executors, tokens) = executors(1, 64);
    let (_stopper, signal) = live::stopper();
    let cluster = cluster(1, engine, RouterSpec::RoundRobin);
    let run = live::run_executors(cluster, executors, signal).unwrap();
    assert_eq!(run.end, LiveEnd::Complete);
    let worker = run.recording.workers[0];
    assert_eq!((worker.hit_tokens, worker.preemptions), (0, 0));
    tokens.answers()
}

/// Serves the workload and plays the journal back.
fn serve(workers: u32, async_scheduling: bool, router: RouterSpec) -> LiveRun {
    let fresh = cluster(workers, engine(async_scheduling), router);
    let (executors, tokens) = executors(workers, BLOCKS);
    let (_stopper, signal) = live::stopper();
    let run = live::run_executors(fresh.clone(), executors, signal).unwrap();
    assert_eq!(run.end, LiveEnd::Complete);
    let all = Accounted {
        completed: 2 * SESSIONS as usize,
        ..Accounted::default()
    };
    assert_eq!(run.accounted(), all);
    assert_eq!(tokens.answers(), answers_alone());

    let sum = |of: fn(&sim::WorkerRecord) -> u64| run.recording.workers.iter().map(of).sum::<u64>();
    assert!(
        sum(|worker| worker.preemptions) > 0,
        "there is not room for all answers"
    );
    assert!(
        sum(|worker| worker.hit_tokens) > 0,
        "prompts have a beginning in common"
    );
    assert_eq!(sum(|worker| worker.steps), run.steps.len() as u64);
    let is_cut = run
        .steps
        .iter()
        .any(|step| step.samples < step.prefill.len());
    assert!(is_cut, "prompts are computed in chunks");
    for step in &run.steps {
        assert!(
            step.ready <= step.began && step.handed_over <= step.began && step.began < step.end,
            "{step:?}"
        );
        assert_eq!(
            step.host_time() + step.end.since(step.began),
            step.wall_time()
        );
    }
    // One step after the other, each ready no sooner than the one before it ended.
    for worker in 0..workers {
        let own = run.steps.iter().filter(|step| step.worker.0 == worker);
        let own: Vec<_> = own.collect();
        for pair in own.windows(2) {
            assert!(pair[0].end <= pair[1].ready, "{pair:?}");
        }
        // A worker that has work is given it when the step before has ended: what passes until then is the host's time.
        let back_to_back = own.windows(2).filter(|pair| pair[0].end == pair[1].ready);
        assert!(2 * back_to_back.count() > own.len(), "{} steps", own.len());
    }

    let mut played = fresh;
    assert_eq!(run.journal.play(&mut played), Ok(()));
    assert_eq!(played.finish(), run.recording);
    run
}

#[test]
fn one_worker_synchronous() {
    serve(1, false, RouterSpec::RoundRobin);
}

#[test]
fn two_workers_and_the_kv_router() {
    for async_scheduling in [false, true] {
        let run = serve(2, async_scheduling, RouterSpec::Kv(KvRouterSpec::default()));
        assert!(
            run.recording
                .workers
                .iter()
                .all(|worker| worker.requests > 0)
        );
        let requests = run.recording.requests.iter();
        let overlap: u32 = requests.map(|life| life.router_overlap_tokens).sum();
        assert!(overlap > 0, "the router learns from real KV events");
    }
}

/// Computes as the executor inside does, until the step of this number.
struct Failing {
    inside: Box<dyn Executor>,
    left: u32,
    panics: bool,
}

impl Executor for Failing {
    fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
        if self.left == 0 {
            assert!(!self.panics, "a bug in the worker");
            return Err(ExecutorError("the device is gone".to_owned()));
        }
        self.left -= 1;
        self.inside.run(batch)
    }
}

/// Both ways for a worker to die, with plans ahead and without: what happened until then is in the books, every request is
/// accounted for, and the journal plays.
#[test]
fn a_worker_that_dies_ends_the_run_with_its_books_closed() {
    for (panics, async_scheduling) in [(false, true), (true, false), (true, true)] {
        let fresh = cluster(2, engine(async_scheduling), RouterSpec::RoundRobin);
        let (mut executors, _) = executors(2, BLOCKS);
        let inside = executors.pop().unwrap();
        executors.push(Box::new(Failing {
            inside,
            left: 40,
            panics,
        }));
        let (_stopper, signal) = live::stopper();
        let run = live::run_executors(fresh.clone(), executors, signal).unwrap();
        let LiveEnd::Failed { worker, why } = &run.end else {
            panic!("{:?}", run.end);
        };
        assert_eq!(worker.0, 1);
        let expected = if panics {
            "its thread panicked: a bug in the worker"
        } else {
            "the device is gone"
        };
        assert_eq!(why, expected);
        let Accounted {
            completed,
            rejected,
            given_up,
            in_progress,
            unsent,
        } = run.accounted();
        assert_eq!(
            completed + rejected + given_up + in_progress + unsent,
            2 * SESSIONS as usize
        );
        assert!(in_progress > 0);
        assert_eq!(run.recording.workers[1].steps, 40);
        let mut played = fresh;
        assert_eq!(run.journal.play(&mut played), Ok(()));
        assert_eq!(played.finish(), run.recording);
    }
}

/// Stops the run from inside a step, as Ctrl-C does from outside.
struct Stopping {
    inside: Box<dyn Executor>,
    stopper: live::Stopper,
    left: u32,
}

impl Executor for Stopping {
    fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.stopper.stop();
        }
        self.inside.run(batch)
    }
}

#[test]
fn a_run_that_is_stopped_keeps_what_happened() {
    let fresh = cluster(1, engine(true), RouterSpec::RoundRobin);
    let (mut executors, _) = executors(1, BLOCKS);
    let (stopper, signal) = live::stopper();
    let stopping: Box<dyn Executor> = Box::new(Stopping {
        inside: executors.pop().unwrap(),
        stopper,
        left: 60,
    });
    let run = live::run_executors(fresh.clone(), vec![stopping], signal).unwrap();
    assert_eq!(run.end, LiveEnd::Stopped);
    // The 60th step was planned when the 58th had been heard of.
    assert!(
        run.recording.workers[0].steps >= 58,
        "{:?}",
        run.recording.workers
    );
    let done = |life: &&sim::RequestRecord| life.outcome == Outcome::Completed;
    let completed = run.recording.requests.iter().filter(done).count();
    assert_eq!(run.accounted().completed, completed);
    assert!(
        run.accounted().in_progress > 0,
        "it was stopped in the middle"
    );
    let mut played = fresh;
    assert_eq!(run.journal.play(&mut played), Ok(()));
}

/// The first step takes longer than the whole workload was to last, as if the clock had jumped ahead (a machine that was
/// suspended): everything that fell due meanwhile is one instant, in the order of events, and nothing is lost or sent early.
#[test]
fn a_clock_that_jumps_ahead_makes_one_instant_of_what_it_passed() {
    struct Suspended {
        inside: Box<dyn Executor>,
        is_first: bool,
    }
    impl Executor for Suspended {
        fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
            if std::mem::take(&mut self.is_first) {
                std::thread::sleep(std::time::Duration::from_millis(150));
            }
            self.inside.run(batch)
        }
    }
    let fresh = cluster(1, engine(false), RouterSpec::RoundRobin);
    let (mut executors, _) = executors(1, BLOCKS);
    let suspended: Box<dyn Executor> = Box::new(Suspended {
        inside: executors.pop().unwrap(),
        is_first: true,
    });
    let (_stopper, signal) = live::stopper();
    let run = live::run_executors(fresh.clone(), vec![suspended], signal).unwrap();
    assert_eq!(run.accounted().completed, 2 * SESSIONS as usize);
    let times: Vec<Time> = run.journal.entries.iter().map(|entry| entry.time).collect();
    assert!(times.is_sorted(), "time goes forward");
    let first = &run.steps[0];
    assert!(first.wall_time() > Span::from_ms(150.0));
    for (request, record) in workload().0.requests.iter().zip(&run.recording.requests) {
        assert!(record.arrival >= request.arrival, "nothing is sent early");
    }
    assert_eq!(run.journal.play(&mut fresh.clone()), Ok(()));
}

#[test]
fn steps_of_one_worker_that_end_together_are_handled_one_by_one() {
    /// Takes no time at all: two steps in flight are over before anybody looks.
    struct Instantaneous;
    impl Executor for Instantaneous {
        fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
            Ok(batch
                .rows
                .iter()
                .filter(|row| row.samples)
                .map(|_| 0)
                .collect())
        }
    }
    let fresh = cluster(2, engine(true), RouterSpec::RoundRobin);
    let executors: Vec<Box<dyn Executor>> = vec![Box::new(Instantaneous), Box::new(Instantaneous)];
    let (_stopper, signal) = live::stopper();
    let run = live::run_executors(fresh.clone(), executors, signal).unwrap();
    assert_eq!(run.accounted().completed, 2 * SESSIONS as usize);
    let mut ends = [Time::ZERO; 2];
    for entry in &run.journal.entries {
        if let Event::Ran(ran) = entry.event {
            let last = &mut ends[ran.worker.0 as usize];
            assert!(ran.start >= *last, "a worker does one step after the other");
            *last = ran.end();
        }
        let runs = entry
            .actions
            .iter()
            .filter(|action| matches!(action, Action::Run { .. }));
        assert!(runs.count() <= 1, "one plan per event");
    }
    assert_eq!(run.journal.play(&mut fresh.clone()), Ok(()));
}
