//! The live driver: on the real clock, sped up, with steps that sleep. Nobody can say beforehand what happens when, but
//! all requests complete, and the journal played into a fresh cluster makes it decide the same again, to the last action.

use std::sync::Arc;

use calibration::Linear;
use engine::vllm::VllmConfig;
use engine::{
    Dependency, NewRequest, RequestId, Run, Span, StepTime, Time, Trigger, Workload,
    WorkloadBuilder,
};
use sim::event::{Action, Event};
use sim::journal::Departure;
use sim::live::LiveRun;
use sim::router::KvRouterSpec;
use sim::{Cluster, ClusterSpec, LoadSpec, Outcome, PoolSpec, RouterSpec, live};

/// Steps take 4 ms and 20 us per token.
const COST: Linear = Linear::from_ns(4_000_000, 20_000, 0);
/// Real steps then take a millisecond or two.
const SPEEDUP: f64 = 4.0;
const SESSIONS: u32 = 9;

/// Sessions of two turns. Prompts are longer than the budget of a step; the first nine fill up to four workers of 30
/// blocks of 8 tokens, and leave no room for all their answers.
fn workload() -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    let run = |first, len| Run { first, len };
    let question = |session, turn| run(WorkloadBuilder::private_token(2 * session + turn, 0), 64);
    let instructions = run(WorkloadBuilder::block_token(0, 0), 32);
    for session in 0..SESSIONS {
        builder.push(NewRequest {
            arrival: Time::ZERO,
            prompt: &[instructions, question(session, 0)],
            output_tokens: 20 + 3 * session,
            priority: 0,
            session,
            dependencies: &[],
        });
    }
    for session in 0..SESSIONS {
        let answer = run(WorkloadBuilder::output_token(session, 0), 20 + 3 * session);
        builder.push(NewRequest {
            arrival: Time::ZERO,
            prompt: &[
                instructions,
                question(session, 0),
                answer,
                question(session, 1),
            ],
            output_tokens: 15,
            priority: 0,
            session,
            dependencies: &[Dependency {
                on: RequestId(session),
                trigger: Trigger::Completion,
                delay: Span::from_ms(10.0),
            }],
        });
    }
    Arc::new(builder.finish())
}

fn cluster(workers: u32, router: RouterSpec, async_scheduling: bool) -> Cluster {
    let spec = ClusterSpec {
        pools: vec![PoolSpec {
            name: "live".to_owned(),
            workers,
            gpus_per_worker: 1,
            engine: VllmConfig {
                block_size: 8,
                num_gpu_blocks: 1 + 30,
                max_num_seqs: 8,
                max_num_batched_tokens: 48,
                scheduler_reserve_full_isl: false,
                async_scheduling,
                ..VllmConfig::default()
            }
            .into(),
        }],
        router,
        load: LoadSpec::default(),
        frontend: sim::FrontendSpec::default(),
        seed: 1,
        coasting: false,
        disaggregation: None,
        track_block_ids: false,
    };
    Cluster::new(&spec, workload())
}

/// Serves the workload live and plays the journal back.
fn serve(workers: u32, router: RouterSpec, async_scheduling: bool) -> LiveRun {
    let fresh = cluster(workers, router, async_scheduling);
    let timing: [Arc<dyn StepTime>; 1] = [Arc::new(COST)];
    let run = live::run(fresh.clone(), &timing, SPEEDUP).expect("the system has timers");
    for life in &run.recording.requests {
        assert_eq!(life.outcome, Outcome::Completed, "{life:?}");
        assert!(
            life.first_scheduled >= life.placed && life.first_token < life.finish,
            "{life:?}"
        );
    }
    let sum = |of: fn(&sim::WorkerRecord) -> u64| run.recording.workers.iter().map(of).sum::<u64>();
    assert_eq!(sum(|worker| worker.requests), 2 * u64::from(SESSIONS));
    assert!(
        sum(|worker| worker.preemptions) > 0,
        "there is not room for all answers"
    );
    assert!(run.recording.workers.iter().all(|worker| worker.steps > 20));

    let mut played = fresh;
    assert_eq!(run.journal.play(&mut played), Ok(()));
    assert_eq!(played.finish(), run.recording);
    run
}

#[test]
fn round_robin_synchronous() {
    serve(2, RouterSpec::RoundRobin, false);
}

#[test]
fn round_robin_asynchronous() {
    let run = serve(3, RouterSpec::RoundRobin, true);
    // With two plans in flight a worker is asked to run one before it has reported the other.
    let mut in_flight = [0; 3];
    let mut most = 0;
    for entry in &run.journal.entries {
        if let Event::Ran(ran) = entry.event {
            assert_eq!(ran.steps, 1, "live steps are reported one by one");
            in_flight[ran.worker.0 as usize] -= 1;
        }
        for action in &entry.actions {
            if let Action::Run { worker, .. } = action {
                in_flight[worker.0 as usize] += 1;
                most = most.max(in_flight[worker.0 as usize]);
            }
        }
    }
    assert_eq!(most, 2);
}

#[test]
fn kv_router_synchronous() {
    let run = serve(4, RouterSpec::Kv(KvRouterSpec::default()), false);
    let overlaps = run
        .recording
        .requests
        .iter()
        .map(|life| life.router_overlap_tokens);
    assert!(overlaps.sum::<u32>() > 0, "second turns are recognised");
}

#[test]
fn kv_router_asynchronous() {
    serve(3, RouterSpec::Kv(KvRouterSpec::default()), true);
}

#[test]
fn a_journal_of_another_deployment_departs() {
    let run = serve(2, RouterSpec::RoundRobin, false);
    let departure = run
        .journal
        .play(&mut cluster(2, RouterSpec::RoundRobin, true));
    assert!(
        matches!(departure, Err(Departure { entry: Some(_), .. })),
        "{departure:?}"
    );
}
