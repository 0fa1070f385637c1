//! Workers that come and go: hand-computed lives, what routers forget, and what a planner is shown.
#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

use engine::vllm::VllmConfig;
use engine::{NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use planner::policy::{Schedule, ScheduleEntry};
use planner::{Decision, Observations, PerRole, Planner, Role};
use sim::router::KvRouterSpec;
use sim::scaling::{Allowance, LifecycleSpec, Spares, Update};
use sim::{
    Cluster, ClusterSpec, LoadSpec, Outcome, PoolScaling, PoolSpec, Recording, RouterSpec,
    ScalingSpec, Startup, virtual_clock,
};
use std::sync::{Arc, Mutex};

/// Arrival (ms), content, prompt tokens, output tokens.
type Arrival = (u64, u32, u32, u32);

fn workload(arrivals: &[Arrival]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for (index, &(at_ms, content, len, output_tokens)) in arrivals.iter().enumerate() {
        let first = WorkloadBuilder::block_token(content, 0);
        builder.push(NewRequest {
            arrival: Time::from_ns(at_ms * 1_000_000),
            prompt: &[Run { first, len }],
            output_tokens,
            priority: 0,
            session: index as u32,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn ms(ms: u64) -> Time {
    Time::from_ns(ms * 1_000_000)
}

/// A cluster of so many places, every step 1 ms.
struct Deployment {
    places: u32,
    initial: u32,
    startup_ms: u64,
    gpus: Option<u32>,
    router: RouterSpec,
    seats: u32,
    lifecycle: LifecycleSpec,
}

impl Default for Deployment {
    fn default() -> Self {
        Deployment {
            places: 4,
            initial: 1,
            startup_ms: 50,
            gpus: None,
            router: RouterSpec::RoundRobin,
            seats: 256,
            lifecycle: LifecycleSpec::default(),
        }
    }
}

impl Deployment {
    fn run(&self, planner: Box<dyn Planner>, workload: &Arc<Workload>) -> Recording {
        let engine = VllmConfig {
            async_scheduling: false,
            max_num_seqs: self.seats,
            ..VllmConfig::default()
        };
        let spec = ClusterSpec {
            pools: vec![PoolSpec {
                name: "agg".to_owned(),
                workers: self.places,
                gpus_per_worker: 2,
                engine: engine.into(),
            }],
            disaggregation: None,
            router: self.router.clone(),
            load: LoadSpec::default(),
            frontend: sim::FrontendSpec::default(),
            seed: 3,
            coasting: true,
            track_block_ids: false,
        };
        let pool = PoolScaling {
            role: Role::Decode,
            initial: self.initial,
            startup: Startup {
                load: Span::from_ns(self.startup_ms * 1_000_000),
                ..Startup::default()
            },
        };
        let scaling = ScalingSpec {
            planner,
            pools: vec![pool],
            gpus: self.gpus,
            keeps_latencies: false,
            lifecycle: self.lifecycle,
            network: None,
        };
        let cluster = Cluster::new(&spec, workload.clone()).scaled(scaling, &spec.router);
        let timing: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(1_000_000, 0, 0));
        virtual_clock::run(cluster, &[timing])
    }
}

/// So many workers from such a millisecond on.
fn schedule(entries: &[(u64, u32)]) -> Box<dyn Planner> {
    let entry = |&(at, workers): &(u64, u32)| ScheduleEntry {
        at: ms(at),
        workers: PerRole {
            prefill: None,
            decode: Some(workers),
        },
    };
    Box::new(Schedule::new(entries.iter().map(entry).collect()).unwrap())
}

fn workers_of(recording: &Recording) -> Vec<u32> {
    recording.requests.iter().map(|it| it.worker).collect()
}

#[test]
fn a_worker_serves_when_it_is_ready_and_finishes_what_it_has() {
    // Ordered at 10 ms, ready at 60; in between everything goes to the first. At 70 both are there; at 80 the newer one
    // drains with a request of 100 tokens, which it got at 71 and ends at 171.
    let arrivals = [
        (0, 1, 16, 1),
        (59, 2, 16, 1),
        (70, 3, 16, 1),
        (71, 4, 16, 100),
        (81, 5, 16, 1),
        (82, 6, 16, 1),
        (400, 7, 16, 1),
    ];
    let workload = workload(&arrivals);
    let recording = Deployment::default().run(schedule(&[(10, 2), (80, 1)]), &workload);
    assert!(
        recording
            .requests
            .iter()
            .all(|it| it.outcome == Outcome::Completed)
    );
    let workers = workers_of(&recording);
    assert_eq!(workers[..2], [0, 0]);
    assert_eq!(workers[4..], [0, 0, 0]);
    assert_ne!(workers[2], workers[3], "two workers take turns");
    let scaling = recording.scaling.as_ref().unwrap();
    let long = (0..4).find(|&at| workers[at] == 1).unwrap();
    let end = recording.requests[long].finish;
    let life = scaling.lives[1];
    assert_eq!(
        [life.ordered, life.placed, life.ready, life.drained],
        [ms(10), ms(10), ms(60), ms(80)]
    );
    assert_eq!(life.gone, end.max(ms(80)));
    assert_eq!((scaling.ticks, scaling.decisions.len()), (2, 2));
    assert_eq!(scaling.decisions[0].before.decode.ready, 1);
    let summary = sim::summarize(&recording, &["agg".to_owned()], None);
    let told = summary.scaling.unwrap();
    assert_eq!(
        (
            told.workers_started,
            told.workers_drained,
            told.peak_workers
        ),
        (1, 1, 2)
    );
    // 401 ms of the first, then 50 ms of starting, 20 of serving and the rest of draining, two GPUs each.
    let seconds = told.gpu_hours.total() * 3600.0;
    let expected = 2.0 * (0.401 + 0.050 + 0.020 + life.gone.since(ms(80)).as_s());
    assert!((seconds - expected).abs() < 1e-9, "{seconds} {expected}");
    assert!((summary.throughput.gpu_hours * 3600.0 - expected).abs() < 1e-9);
    assert_eq!(summary.throughput.gpus, 4);
}

#[test]
fn without_workers_requests_wait_for_the_first_in_their_order() {
    // None at 5 ms; asked for again at 100 ms, ready at 150.
    let workload = workload(&[
        (0, 1, 16, 1),
        (20, 2, 16, 2),
        (30, 3, 16, 1),
        (151, 4, 16, 1),
    ]);
    let deployment = Deployment {
        seats: 1,
        ..Deployment::default()
    };
    let recording = deployment.run(schedule(&[(5, 0), (100, 1)]), &workload);
    let first_tokens: Vec<Time> = recording.requests.iter().map(|it| it.first_token).collect();
    // One seat: two steps for the second request, then one for each.
    assert_eq!(first_tokens, [ms(1), ms(151), ms(153), ms(154)]);
    let lives = &recording.scaling.as_ref().unwrap().lives;
    assert_eq!((lives[0].drained, lives[0].gone), (ms(5), ms(5)));
    assert_eq!((lives[1].worker, lives[1].ready), (0, ms(150)));
}

#[test]
fn gpus_that_are_not_there_are_waited_for() {
    // Four GPUs are two workers: the third waits until the second, which drains, has finished at 109 ms.
    let workload = workload(&[(0, 1, 16, 1), (0, 2, 16, 109), (300, 3, 16, 1)]);
    let deployment = Deployment {
        initial: 2,
        gpus: Some(4),
        startup_ms: 10,
        ..Deployment::default()
    };
    let recording = deployment.run(schedule(&[(1, 1), (2, 2)]), &workload);
    let lives = &recording.scaling.as_ref().unwrap().lives;
    assert_eq!((lives[1].drained, lives[1].gone), (ms(1), ms(109)));
    assert_eq!(
        [lives[2].ordered, lives[2].placed, lives[2].ready],
        [ms(2), ms(109), ms(119)]
    );
}

#[test]
fn the_next_worker_in_a_place_has_an_empty_cache_and_the_router_knows() {
    // The same prompt again and again: cached on the only worker, not on the one that takes its place at 60 ms.
    let arrivals = [0, 10, 100, 110].map(|at| (at, 1, 160, 1));
    let workload = workload(&arrivals);
    let deployment = Deployment {
        places: 1,
        startup_ms: 5,
        router: RouterSpec::Kv(KvRouterSpec::default()),
        ..Deployment::default()
    };
    let recording = deployment.run(schedule(&[(50, 0), (60, 1)]), &workload);
    let cached: Vec<(u32, u32)> = (recording.requests.iter())
        .map(|it| (it.router_overlap_tokens, it.cached_tokens))
        .collect();
    assert_eq!(cached[1].0, 160);
    assert!(cached[1].1 > 0);
    assert_eq!(cached[2], (0, 0));
    assert_eq!(cached[3].0, 160);
    assert_eq!(recording.scaling.unwrap().lives.len(), 2);
}

/// Writes down what it is shown and changes nothing.
#[derive(Debug, Clone)]
struct Onlooker {
    seen: Arc<Mutex<Vec<Observations>>>,
    every_ms: u64,
}

impl Planner for Onlooker {
    fn name(&self) -> &'static str {
        "onlooker"
    }

    fn first_tick(&self) -> Option<Time> {
        Some(ms(self.every_ms))
    }

    fn tick(&mut self, now: Time, seen: &Observations) -> Decision {
        self.seen.lock().unwrap().push(seen.clone());
        Decision {
            next_tick: Some(now + Span::from_ns(self.every_ms * 1_000_000)),
            ..Decision::default()
        }
    }

    fn boxed(&self) -> Box<dyn Planner> {
        Box::new(self.clone())
    }
}

#[test]
fn a_planner_is_shown_the_step_that_ended_last_also_in_the_middle_of_a_coast() {
    // One request of 32 prompt tokens decodes 3000 tokens alone, one seat; another waits behind it. Steps end at 1, 2, … ms.
    let workload = workload(&[(0, 1, 32, 3000), (500, 2, 48, 2)]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let onlooker = Onlooker {
        seen: seen.clone(),
        every_ms: 1000,
    };
    let deployment = Deployment {
        seats: 1,
        ..Deployment::default()
    };
    let recording = deployment.run(Box::new(onlooker), &workload);
    assert!(
        recording
            .requests
            .iter()
            .all(|it| it.outcome == Outcome::Completed)
    );
    let seen = seen.lock().unwrap();
    // The run ends at 3002 ms; the tick at 4000 finds that, and is the last.
    assert_eq!(seen.len(), 4);
    let pass = seen[1].pools.decode.passes[0];
    // At 2000 ms the 2000th step has ended: the first gave one token, each further one computes a token of context.
    assert_eq!(pass.wall_time_s, 0.001);
    assert_eq!(pass.scheduled.decode_requests, 1);
    assert_eq!(pass.scheduled.decode_kv_tokens, 32 + 1999);
    assert_eq!(
        (pass.queued.prefill_requests, pass.queued.prefill_tokens),
        (1, 48)
    );
    assert_eq!(seen[0].traffic.requests, 2.0);
    assert_eq!(seen[1].traffic.requests, 0.0);
    // The first request ends with the step that ends at 3000 ms, the other at 3002.
    let completed = |at: usize| (seen[at].traffic.completed, seen[at].traffic.osl);
    assert_eq!([completed(2), completed(3)], [(1.0, 3000.0), (1.0, 2.0)]);
    // It was idle for 998 ms then, so the last pass is still the last report.
    assert_eq!(seen[3].pools.decode.passes[0].scheduled.decode_requests, 1);
    // Looking changes nothing.
    let alone = deployment.run(schedule(&[(5000, 1)]), &workload);
    assert_eq!(recording.requests, alone.requests);
    assert_eq!(recording.workers, alone.workers);
}

#[test]
fn ticks_end_with_the_work_and_where_nothing_can_happen_any_more() {
    let count = |planner: Onlooker, deployment: Deployment, arrivals: &[Arrival]| {
        let seen = planner.seen.clone();
        let recording = deployment.run(Box::new(planner), &workload(arrivals));
        let ticks = seen.lock().unwrap().len();
        (ticks, recording.requests[0].outcome)
    };
    let onlooker = || Onlooker {
        seen: Arc::default(),
        every_ms: 60_000,
    };
    assert_eq!(
        count(onlooker(), Deployment::default(), &[(0, 1, 16, 1)]),
        (1, Outcome::Completed)
    );
    // Nobody is there and nobody comes: a thousand ticks of that are enough.
    let nobody = Deployment {
        initial: 0,
        ..Deployment::default()
    };
    assert_eq!(
        count(onlooker(), nobody, &[(0, 1, 16, 1)]),
        (1000, Outcome::Unfinished)
    );
}

#[test]
fn a_spare_serves_as_soon_as_it_is_called_in_and_is_paid_for_before() {
    // Ordered at 10 ms: the spare serves at 12, where a start takes until 60. The next spare starts at 10 and is warm at 60.
    let workload = workload(&[
        (0, 1, 16, 1),
        (13, 2, 16, 1),
        (14, 3, 16, 1),
        (100, 4, 16, 1),
    ]);
    let deployment = Deployment {
        lifecycle: LifecycleSpec {
            spares: Spares {
                count: 1,
                activate: Span::from_ns(2_000_000),
            },
            ..LifecycleSpec::default()
        },
        ..Deployment::default()
    };
    let recording = deployment.run(schedule(&[(10, 2)]), &workload);
    let mut both = workers_of(&recording)[1..3].to_vec();
    both.sort_unstable();
    assert_eq!(both, [0, 1]);
    let lives = &recording.scaling.as_ref().unwrap().lives;
    assert_eq!(
        [lives[1].warm, lives[1].called, lives[1].ready],
        [ms(0), ms(10), ms(12)]
    );
    assert_eq!((lives[2].placed, lives[2].warm), (ms(10), ms(60)));
    let summary = sim::summarize(&recording, &["agg".to_owned()], None);
    let told = summary.scaling.unwrap();
    assert_eq!((told.workers_started, told.workers_called_in), (1, 1));
    let gpu_s = |hours: f64| (hours * 3.6e6 / 2.0).round() as u64;
    // 10 ms of the first spare and 41 of the second, to the end at 101 ms; 50 ms of its start and 2 ms of a call.
    assert_eq!(gpu_s(told.gpu_hours.spare), 10 + 41);
    assert_eq!(gpu_s(told.gpu_hours.starting), 50 + 2);
    assert_eq!(gpu_s(told.gpu_hours.ready), 101 + 89);
}

#[test]
fn an_update_replaces_every_worker_and_the_report_says_how_long_it_took() {
    // Two workers, surge 1, from 10 ms on: the first new one serves at 60, an old one drains and is gone (it is idle), the next
    // new one serves at 110. A request of 200 tokens keeps one of the old ones until 201 ms.
    let mut arrivals = vec![(0, 1, 16, 200)];
    arrivals.extend((1..30).map(|nth| (nth * 10, nth as u32 + 1, 16, 1)));
    let workload = workload(&arrivals);
    let deployment = Deployment {
        places: 6,
        initial: 2,
        lifecycle: LifecycleSpec {
            update: Some(Update {
                at: ms(10),
                surge: Allowance::Workers(1),
                unavailable: Allowance::Workers(0),
            }),
            ..LifecycleSpec::default()
        },
        ..Deployment::default()
    };
    let recording = deployment.run(Box::new(planner::policy::Fixed), &workload);
    let done = |it: &sim::RequestRecord| it.outcome == Outcome::Completed;
    assert!(recording.requests.iter().all(done));
    let scaling = recording.scaling.as_ref().unwrap();
    let generations: Vec<u32> = scaling.lives.iter().map(|it| it.generation).collect();
    assert_eq!(generations, [0, 0, 1, 1]);
    let ready: Vec<Time> = scaling.lives.iter().map(|it| it.ready).collect();
    assert_eq!(ready, [ms(0), ms(0), ms(60), ms(110)]);
    let drained: Vec<Time> = scaling.lives[..2].iter().map(|it| it.drained).collect();
    assert_eq!(drained, [ms(60), ms(110)]);
    let long = recording.requests[0];
    assert_eq!(scaling.lives[long.worker as usize].gone, long.finish);
    let told = sim::summarize(&recording, &["agg".to_owned()], None)
        .scaling
        .unwrap();
    let update = &told.updates[0];
    let took = long.finish.max(ms(110)).since(ms(10)).as_s();
    assert_eq!((update.began_s, update.took_s), (0.01, Some(took)));
    assert_eq!((update.replaced, update.fewest_ready), (2, 2));
    assert_eq!(update.mixed_s, 0.05);
    // Requests at 10 ms to 190 ms; the others are those before and after.
    let meanwhile = (0..30).filter(|&nth| (10..10 + (took * 1000.0) as u64).contains(&(nth * 10)));
    assert_eq!(update.ttft_ms.count, meanwhile.count() as u64);
    assert_eq!(update.ttft_ms.count + update.other_ttft_ms.count, 30);
    // Whoever comes after the last old one drained goes to a new one.
    let late = recording.requests.iter().filter(|it| it.arrival > ms(110));
    assert!(late.into_iter().all(|it| {
        scaling.lives[2..]
            .iter()
            .any(|life| life.worker == it.worker)
    }));
}

#[test]
fn a_planner_goes_on_while_workers_are_replaced() {
    // Two workers; at 50 ms four are wanted, at 200 one. All in the end are of the new generation.
    let arrivals: Vec<Arrival> = (0..40).map(|nth| (nth * 10, nth as u32, 16, 5)).collect();
    let deployment = Deployment {
        places: 10,
        initial: 2,
        lifecycle: LifecycleSpec {
            update: Some(Update {
                at: ms(40),
                surge: Allowance::Percent(25),
                unavailable: Allowance::Percent(25),
            }),
            ..LifecycleSpec::default()
        },
        ..Deployment::default()
    };
    let recording = deployment.run(schedule(&[(50, 4), (200, 1)]), &workload(&arrivals));
    let scaling = recording.scaling.as_ref().unwrap();
    assert_eq!(scaling.decisions[0].before.decode.staying(), 2);
    assert_eq!(scaling.decisions[0].target.decode, Some(4));
    let left: Vec<u32> = (scaling.lives.iter())
        .filter(|it| it.ready < Time::MAX && it.drained == Time::MAX)
        .map(|it| it.generation)
        .collect();
    assert_eq!(left, [1]);
    assert!(scaling.updates[0].ended < Time::MAX);
    let most = (0..400).map(|at| {
        let at = ms(at);
        let serves = |it: &&sim::scaling::Life| it.ready <= at && at < it.drained;
        scaling.lives.iter().filter(serves).count()
    });
    assert_eq!(most.max(), Some(4));
}
