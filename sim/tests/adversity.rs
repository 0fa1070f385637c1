//! Adversity in small: every time and count by hand. Each step takes one millisecond, whatever is in it.

use engine::sglang::SglangConfig;
use engine::trtllm::TrtllmConfig;
use engine::vllm::VllmConfig;
use engine::{EngineConfig, NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use sim::adversity::clients::{CancelSpec, CancelWhen, ClientSpec};
use sim::adversity::faults::{Fault, FaultKind, FaultSpec, SpotRule};
use sim::adversity::shedding::Shedding;
use sim::router::KvRouterSpec;
use sim::{
    AdversitySpec, Cluster, ClusterSpec, Failure, LoadSpec, Outcome, PoolSpec, Recording,
    Rejection, RouterSpec, virtual_clock,
};
use std::sync::Arc;

/// Arrival (ms), content and length of the prompt, output tokens.
type Asked = (f64, u32, u32, u32);

fn workload(asked: &[Asked]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for (index, &(arrival_ms, content, input, output)) in asked.iter().enumerate() {
        builder.push(NewRequest {
            arrival: Time::from_ms(arrival_ms),
            prompt: &[Run {
                first: WorkloadBuilder::block_token(content, 0),
                len: input,
            }],
            output_tokens: output,
            priority: 0,
            session: index as u32,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

struct Deployment {
    engine: EngineConfig,
    workers: u32,
    router: RouterSpec,
}

/// One seat, so that the second request starts when the first is out of the way.
fn one_seat() -> Deployment {
    Deployment {
        engine: VllmConfig {
            max_num_seqs: 1,
            async_scheduling: false,
            ..VllmConfig::default()
        }
        .into(),
        workers: 1,
        router: RouterSpec::RoundRobin,
    }
}

fn two_workers() -> Deployment {
    Deployment {
        engine: VllmConfig::default().into(),
        workers: 2,
        router: RouterSpec::RoundRobin,
    }
}

/// Runs it coasting and stepping, which must not differ.
fn run(deployment: &Deployment, adversity: &AdversitySpec, asked: &[Asked]) -> Recording {
    let run = |coasting: bool| {
        let spec = ClusterSpec {
            pools: vec![PoolSpec {
                name: "all".to_owned(),
                workers: deployment.workers,
                gpus_per_worker: 1,
                engine: deployment.engine.clone(),
            }],
            router: deployment.router.clone(),
            load: LoadSpec::default(),
            frontend: sim::FrontendSpec::default(),
            seed: 7,
            coasting,
            disaggregation: None,
            track_block_ids: false,
        };
        let step: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(1_000_000, 0, 0));
        let cluster = Cluster::with_adversity(&spec, &[None], adversity, workload(asked));
        virtual_clock::run(cluster, &[step])
    };
    let (coasted, stepped) = (run(true), run(false));
    assert_eq!(coasted.requests, stepped.requests);
    assert_eq!(coasted.workers, stepped.workers);
    assert_eq!(coasted.adversity, stepped.adversity);
    assert_eq!(gaps(&coasted), gaps(&stepped));
    coasted
}

/// Gaps between tokens in microseconds, in order of size.
fn gaps(recording: &Recording) -> Vec<u64> {
    let mut gaps = Vec::new();
    for run in &recording.gaps {
        for step in 0..i64::from(run.steps) {
            let gap = (run.first.0 as i64 + step * run.slope_ps) as u64 / 1_000_000;
            gaps.extend(std::iter::repeat_n(gap, run.sequences as usize));
        }
    }
    gaps.sort_unstable();
    gaps
}

fn clients(clients: ClientSpec) -> AdversitySpec {
    AdversitySpec {
        clients,
        ..AdversitySpec::default()
    }
}

fn fault(at_ms: f64, kind: FaultKind, for_ms: f64) -> AdversitySpec {
    faults(&[(at_ms, kind, for_ms)], 0)
}

/// All of worker 0.
fn faults(all: &[(f64, FaultKind, f64)], migration_limit: u32) -> AdversitySpec {
    let fault = |&(at_ms, kind, for_ms): &(f64, FaultKind, f64)| Fault {
        at: Time::from_ms(at_ms),
        kind,
        worker: 0,
        lasts: Span::from_ms(for_ms),
    };
    AdversitySpec {
        faults: FaultSpec {
            timeline: all.iter().map(fault).collect(),
            random: Vec::new(),
            migration_limit,
            ..FaultSpec::default()
        },
        ..AdversitySpec::default()
    }
}

fn ms(time: Time) -> f64 {
    time.as_ms()
}

#[test]
fn a_client_that_has_enough_tokens_frees_its_seat() {
    let enough = clients(ClientSpec {
        cancel: Some(CancelSpec {
            share: 1.0,
            when: CancelWhen::AfterTokens(4),
        }),
        ..ClientSpec::default()
    });
    // Tokens at 1, 2, 3, 4 ms. vLLM and TensorRT-LLM hear of it between two steps; SGLang computes one token more, and so does
    // a vLLM that schedules ahead, where the fifth step is under way.
    let asked = [(0.0, 1, 20, 50), (0.5, 2, 20, 3)];
    let sglang = SglangConfig {
        max_running_requests: 1,
        ..SglangConfig::default()
    };
    let trtllm = TrtllmConfig {
        max_batch_size: 1,
        ..TrtllmConfig::default()
    };
    let ahead = VllmConfig {
        max_num_seqs: 1,
        async_scheduling: true,
        ..VllmConfig::default()
    };
    let engines: [(EngineConfig, f64); 4] = [
        (one_seat().engine, 4.0),
        (ahead.into(), 5.0),
        (sglang.into(), 5.0),
        (trtllm.into(), 4.0),
    ];
    for (engine, starts) in engines {
        let deployment = Deployment {
            engine,
            ..one_seat()
        };
        let recording = run(&deployment, &enough, &asked);
        let [first, second] = &recording.requests[..] else {
            panic!("two requests")
        };
        assert_eq!(first.outcome, Outcome::Cancelled);
        assert_eq!((ms(first.finish), first.output_tokens), (4.0, 4));
        assert_eq!(second.outcome, Outcome::Completed);
        assert_eq!(
            ms(second.first_scheduled),
            starts,
            "{:?}",
            deployment.engine
        );
        assert_eq!(recording.adversity.unwrap().wasted_tokens, 4);
    }
}

#[test]
fn a_time_out_is_heard_at_the_end_of_the_step() {
    let patience = clients(ClientSpec {
        timeout: Some(Span::from_ms(3.5)),
        retries: 1,
        backoff: Span::from_ms(100.0),
        ..ClientSpec::default()
    });
    // The first gives up at 3.5 with three tokens, the second takes its seat at 4 and is done at 6. The retry comes 50 to
    // 100 ms later and gives up as well.
    let asked = [(0.0, 1, 20, 50), (3.0, 2, 20, 2)];
    let recording = run(&one_seat(), &patience, &asked);
    let [first, second] = &recording.requests[..] else {
        panic!("two requests")
    };
    assert_eq!(first.outcome, Outcome::Failed(Failure::Timeout));
    assert_eq!(first.output_tokens, 3);
    assert!((57.0..107.0).contains(&ms(first.finish)), "{first:?}");
    assert_eq!(ms(second.first_scheduled), 4.0);
    assert_eq!(
        (second.outcome, ms(second.finish)),
        (Outcome::Completed, 6.0)
    );
    let record = recording.adversity.unwrap();
    assert_eq!(
        (record.timeouts, record.retries, record.wasted_tokens),
        (2, 1, 6)
    );
    // Two before each time-out, and one of the second request: the token after it reaches nobody.
    assert_eq!(gaps(&run(&one_seat(), &patience, &asked)), [1_000; 5]);
}

#[test]
fn latency_counts_from_the_first_attempt() {
    // The worker hangs until 20; the client gives up at 5, comes again 5 to 10 ms later, gives up again, and is served at its
    // third attempt, which comes 10 to 20 ms after that.
    let mut adversity = fault(0.0, FaultKind::Hang, 20.0);
    adversity.clients = ClientSpec {
        ttft_timeout: Some(Span::from_ms(5.0)),
        retries: 2,
        backoff: Span::from_ms(10.0),
        ..ClientSpec::default()
    };
    let recording = run(&one_seat(), &adversity, &[(0.0, 1, 20, 2)]);
    let only = recording.requests[0];
    assert_eq!(only.outcome, Outcome::Completed);
    assert_eq!(ms(only.arrival), 0.0);
    assert!((26.0..=41.0).contains(&ms(only.first_token)), "{only:?}");
    assert_eq!(recording.adversity.unwrap().ttft_timeouts, 2);
}

#[test]
fn stragglers_and_hangs_take_the_time_they_take() {
    // Tokens at 1 and 2; the third step has begun when the worker slows down, the next two take 2 ms, to 5 and 7.
    let slow = fault(2.5, FaultKind::Straggler { percent: 200 }, 4.0);
    let finish = |adversity: &AdversitySpec, tokens: u32| {
        let recording = run(&one_seat(), adversity, &[(0.0, 1, 20, tokens)]);
        ms(recording.requests[0].finish)
    };
    assert_eq!(
        [3, 4, 5, 6].map(|tokens| finish(&slow, tokens)),
        [3.0, 5.0, 7.0, 8.0]
    );
    // A slowdown that begins between two steps takes the next one.
    let slow = fault(2.0, FaultKind::Straggler { percent: 150 }, 100.0);
    assert_eq!(
        [2, 3, 4].map(|tokens| finish(&slow, tokens)),
        [2.0, 3.5, 5.0]
    );
    // The third step lasts until 7.
    let hang = fault(2.5, FaultKind::Hang, 4.0);
    assert_eq!(
        [2, 3, 5].map(|tokens| finish(&hang, tokens)),
        [2.0, 7.0, 9.0]
    );
    // A second hang adds what lies beyond the first.
    let hangs = faults(
        &[(2.5, FaultKind::Hang, 4.0), (4.5, FaultKind::Hang, 4.0)],
        0,
    );
    assert_eq!(
        [2, 3, 5].map(|tokens| finish(&hangs, tokens)),
        [2.0, 9.0, 11.0]
    );
}

#[test]
fn another_worker_goes_on_with_what_is_there() {
    // Three tokens at 1, 2, 3; the worker is lost at 3.5, and the other computes prompt and tokens at once.
    let lost = faults(&[(3.5, FaultKind::Crash, 50.0)], 1);
    let asked = [(0.0, 1, 20, 6)];
    let recording = run(&two_workers(), &lost, &asked);
    let only = recording.requests[0];
    assert_eq!((only.outcome, only.worker), (Outcome::Completed, 1));
    assert_eq!((ms(only.first_token), ms(only.finish)), (1.0, 6.5));
    assert_eq!((only.output_tokens, only.cached_tokens), (6, 0));
    assert_eq!(gaps(&recording), [1_000, 1_000, 1_000, 1_000, 1_500]);
    // On the second worker 20 + 3 tokens are prefilled.
    assert_eq!(recording.workers[1].prefill_tokens, 23);
    let fault = recording.adversity.as_ref().unwrap().faults[0];
    assert_eq!((fault.requests, fault.migrated, fault.lost), (1, 1, 0));
    assert_eq!(fault.recomputed_tokens, 23);

    let recording = run(
        &two_workers(),
        &faults(&[(3.5, FaultKind::Crash, 50.0)], 0),
        &asked,
    );
    let only = recording.requests[0];
    assert_eq!(only.outcome, Outcome::Failed(Failure::WorkerLost));
    assert_eq!((ms(only.finish), only.output_tokens), (3.5, 3));
}

#[test]
fn a_worker_that_is_gone_gets_nothing_until_it_is_back() {
    let gone = faults(&[(0.5, FaultKind::Crash, 10.0)], 0);
    // Round robin would give the second to worker 1, the third to worker 0.
    let asked = [
        (1.0, 1, 20, 2),
        (2.0, 2, 20, 2),
        (3.0, 3, 20, 2),
        (11.0, 4, 20, 2),
    ];
    let recording = run(&two_workers(), &gone, &asked);
    let workers = recording.requests.iter().map(|request| request.worker);
    assert_eq!(workers.collect::<Vec<_>>(), [1, 1, 1, 0]);
    let alone = Deployment {
        workers: 1,
        ..two_workers()
    };
    let recording = run(&alone, &gone, &asked);
    let outcomes = recording.requests.iter().map(|request| request.outcome);
    let refused = Outcome::Rejected(Rejection::NoWorker);
    let expected = [refused, refused, refused, Outcome::Completed];
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);
}

#[test]
fn a_worker_that_is_taken_back_finishes_what_its_notice_allows() {
    let rule = SpotRule {
        first: 0,
        workers: 1,
        mtbf: Span::from_ms(200.0),
        notice: Span::from_ms(20.0),
        away: Span::from_ms(50_000.0),
        lasts: Span::from_ms(50_020.0),
    };
    let mut spot = faults(&[], 1);
    spot.faults.spot = vec![rule];
    let asked = [(0.0, 1, 20, 2_000)];
    let alone = run(&two_workers(), &spot, &asked);
    // When it is told depends on the seed alone.
    let told = alone.adversity.as_ref().unwrap().faults[0].began;
    let whole = ms(told).floor();
    // The second goes to worker 1, the third to worker 0 and is over in time, the fourth comes during the notice.
    let more = [
        asked[0],
        (whole - 9.0, 2, 20, 2),
        (whole - 7.0, 3, 20, 15),
        (whole + 5.0, 4, 20, 2),
    ];
    let recording = run(&two_workers(), &spot, &more);
    let workers = recording.requests.iter().map(|request| request.worker);
    assert_eq!(workers.collect::<Vec<_>>(), [1, 1, 0, 1]);
    let fault = recording.adversity.as_ref().unwrap().faults[0];
    assert_eq!((fault.worker, fault.began), (Some(0), told));
    assert_eq!(fault.ended, told + Span::from_ms(50_020.0));
    assert_eq!((fault.requests, fault.migrated, fault.lost), (2, 1, 0));
    // A token a millisecond until it is gone; prompt and tokens are computed again, by a step that begins then.
    let had = whole as u64 + 20;
    assert_eq!(fault.recomputed_tokens, 20 + had);
    let first = recording.requests[0];
    assert_eq!(first.outcome, Outcome::Completed);
    let gone = told + Span::from_ms(20.0);
    let late = first.finish.since(gone).as_ms() - (2_000 - had) as f64;
    assert!((0.0..1.0).contains(&late), "{late}");
    // It came after a step had begun, and has 15 of its own.
    assert_eq!(recording.requests[2].finish, Time::from_ms(whole + 9.0));
    // A crash during the notice takes it at once.
    let mut crash = spot.clone();
    crash.faults.timeline = vec![Fault {
        at: told + Span::from_ms(3.0),
        kind: FaultKind::Crash,
        worker: 0,
        lasts: Span::from_ms(5.0),
    }];
    let recording = run(&two_workers(), &crash, &more);
    let faults = &recording.adversity.as_ref().unwrap().faults;
    let lost: Vec<_> = (faults.iter())
        .map(|it| (it.requests, it.migrated))
        .collect();
    assert_eq!(lost, [(2, 0), (2, 2)]);
    let workers = recording.requests.iter().map(|request| request.worker);
    assert_eq!(workers.collect::<Vec<_>>(), [1, 1, 1, 1]);
}

#[test]
fn workers_of_a_lost_node_go_at_once_and_leave_nothing_to_each_other() {
    let four = Deployment {
        workers: 4,
        ..two_workers()
    };
    let mut loss = fault(3.5, FaultKind::NodeLoss, 10.0);
    loss.faults.migration_limit = 1;
    loss.faults.nodes = vec![vec![0, 1], vec![2, 3]];
    let asked: Vec<Asked> = (0..5)
        .map(|index| (f64::from(index) / 10.0, index + 1, 20, 20))
        .chain([(9.0, 9, 20, 2), (9.1, 10, 20, 2)])
        .chain((0..4).map(|index| (14.0 + f64::from(index) / 10.0, 11 + index, 20, 2)))
        .collect();
    let recording = run(&four, &loss, &asked);
    let fault = recording.adversity.as_ref().unwrap().faults[0];
    assert_eq!(
        (fault.node, fault.worker, fault.workers),
        (Some(0), None, 2)
    );
    assert_eq!((fault.requests, fault.migrated, fault.lost), (3, 3, 0));
    let workers: Vec<u32> = recording.requests.iter().map(|it| it.worker).collect();
    assert!(
        workers[..7].iter().all(|&worker| worker >= 2),
        "{workers:?}"
    );
    // The node is back at 13.5.
    let mut after = workers[7..].to_vec();
    after.sort_unstable();
    assert_eq!(after, [0, 1, 2, 3]);
    assert!(
        (recording.requests.iter()).all(|it| it.outcome == Outcome::Completed),
        "others go on"
    );
}

fn under_a_kv_router() -> Deployment {
    Deployment {
        router: RouterSpec::Kv(KvRouterSpec::default()),
        ..two_workers()
    }
}

#[test]
fn a_router_forgets_and_may_read_anew() {
    let asked = [(0.0, 1, 64, 2), (20.0, 1, 64, 2)];
    let overlap = |adversity: &AdversitySpec| {
        let recording = run(&under_a_kv_router(), adversity, &asked);
        recording.requests[1].router_overlap_tokens
    };
    let restart = |reads_caches| fault(10.0, FaultKind::RouterRestart { reads_caches }, 0.0);
    let nothing = AdversitySpec::default();
    assert_eq!(overlap(&nothing), 64);
    assert_eq!(overlap(&restart(false)), 0);
    assert_eq!(overlap(&restart(true)), 64);
    // What a crashed worker held is gone, whoever asks.
    let both = [
        (10.0, FaultKind::Crash, 1.0),
        (12.0, FaultKind::RouterRestart { reads_caches: true }, 0.0),
    ];
    let mut of_both_workers = faults(&both, 0);
    of_both_workers.faults.timeline.push(Fault {
        worker: 1,
        ..of_both_workers.faults.timeline[0]
    });
    assert_eq!(overlap(&of_both_workers), 0);
}

#[test]
fn a_router_forgets_bookings_under_way() {
    // The first request runs when the router restarts; its end concerns nobody then. The third comes after both.
    let restart = fault(
        5.5,
        FaultKind::RouterRestart {
            reads_caches: false,
        },
        0.0,
    );
    let asked = [(0.0, 1, 64, 20), (6.0, 2, 64, 4), (30.0, 3, 64, 4)];
    for router in [
        RouterSpec::LeastLoaded,
        RouterSpec::Kv(KvRouterSpec::default()),
    ] {
        let deployment = Deployment {
            router,
            ..two_workers()
        };
        let recording = run(&deployment, &restart, &asked);
        let done = |request: &sim::RequestRecord| request.outcome == Outcome::Completed;
        assert!(recording.requests.iter().all(done));
        assert_eq!(recording.adversity.unwrap().faults[0].requests, 1);
    }
}

#[test]
fn lost_events_are_not_known() {
    let asked = [
        (0.0, 1, 64, 2),
        (20.0, 1, 64, 2),
        (40.0, 2, 64, 2),
        (60.0, 2, 64, 2),
    ];
    let mut deaf = fault(0.0, FaultKind::EventLoss, 30.0);
    deaf.faults.timeline.push(Fault {
        worker: 1,
        ..deaf.faults.timeline[0]
    });
    let recording = run(&under_a_kv_router(), &deaf, &asked);
    let overlaps = recording.requests.iter().map(|it| it.router_overlap_tokens);
    assert_eq!(overlaps.collect::<Vec<_>>(), [0, 0, 0, 64]);
    let faults = recording.adversity.unwrap().faults;
    assert!(faults.iter().any(|fault| fault.missed_events > 0));
}

#[test]
fn overload_is_turned_away_while_all_are_busy() {
    let mut adversity = AdversitySpec {
        shedding: Shedding {
            active_prefill_tokens: Some(100),
            ..Shedding::default()
        },
        ..AdversitySpec::default()
    };
    // Each worker gets two of 100 tokens: 100 are not more than 100. The fifth finds 200 on both.
    let asked = [0.0, 0.0, 0.0, 0.0, 0.5, 5.0].map(|arrival| (arrival, 1, 100, 2));
    let recording = run(&two_workers(), &adversity, &asked);
    let outcomes = recording.requests.iter().map(|request| request.outcome);
    let shed = Outcome::Rejected(Rejection::Overloaded);
    let done = Outcome::Completed;
    let expected = [done, done, done, done, shed, done];
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    // A client that tries again finds room.
    adversity.clients = ClientSpec {
        retries: 1,
        backoff: Span::from_ms(10.0),
        ..ClientSpec::default()
    };
    let recording = run(&two_workers(), &adversity, &asked);
    assert_eq!(recording.requests[4].outcome, done);
    assert!(ms(recording.requests[4].first_token) >= 6.5);
    let record = recording.adversity.unwrap();
    assert_eq!((record.shed, record.retries), (1, 1));
}
