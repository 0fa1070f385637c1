//! Adversity between prefill and decode workers, in small: every time and count by hand.
//!
//! Each step takes one millisecond, whatever is in it. A prompt of 100 tokens has 7 blocks of KV, which take 112 ms from its
//! prefill worker to its decode worker. So without adversity: computed at 1 ms, there at 113 ms, first token at 114 ms, tenth at
//! 123 ms.

use engine::sglang::SglangConfig;
use engine::vllm::VllmConfig;
use engine::{EngineConfig, NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use sim::adversity::clients::{CancelSpec, CancelWhen, ClientSpec};
use sim::adversity::faults::{Fault, FaultKind, FaultSpec};
use sim::adversity::record::FaultRecord;
use sim::disaggregation::{DisaggregationSpec, HandoffOrder, Overlap, Role};
use sim::links::NetworkSpec;
use sim::{
    AdversitySpec, Cluster, ClusterSpec, Failure, FrontendSpec, LoadSpec, Outcome, PoolSpec,
    Recording, RouterSpec, virtual_clock,
};
use std::sync::Arc;

const PREFILL: u32 = 0;
/// The first of two decode workers, whose turn it is.
const DECODE: u32 = 1;

/// Prompts of 100 tokens and ten answer tokens each, all different, sent at these times.
fn workload(arrivals_ms: &[f64]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for (index, &arrival_ms) in arrivals_ms.iter().enumerate() {
        let index = index as u32;
        builder.push(NewRequest {
            arrival: Time::from_ms(arrival_ms),
            prompt: &[Run {
                first: WorkloadBuilder::block_token(index, 0),
                len: 100,
            }],
            output_tokens: 10,
            priority: 0,
            session: index,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn vllm(num_gpu_blocks: u32) -> EngineConfig {
    let config = VllmConfig {
        num_gpu_blocks,
        async_scheduling: false,
        ..VllmConfig::default()
    };
    config.into()
}

/// One prefill worker, two decode workers; coasting and stepping must not differ.
fn run(
    (engine, order): (EngineConfig, HandoffOrder),
    adversity: &AdversitySpec,
    arrivals_ms: &[f64],
) -> Recording {
    let run = |coasting: bool| {
        let pool = |name: &str, workers, is_decoder| PoolSpec {
            name: name.to_owned(),
            workers,
            gpus_per_worker: 1,
            engine: engine.clone().as_decoder(is_decoder),
        };
        let spec = ClusterSpec {
            pools: vec![pool("prefill", 1, false), pool("decode", 2, true)],
            disaggregation: Some(DisaggregationSpec {
                roles: vec![Role::Prefill, Role::Decode],
                order,
                conditional: None,
                overlap: Overlap::None,
                network: NetworkSpec {
                    bytes_per_s: 1_000_000_000,
                    per_gpu: false,
                    core_bytes_per_s: None,
                    latency: Span::ZERO,
                    setup: Span::ZERO,
                },
                topology: None,
                domain: None,
                kv_bytes_per_token: 1_000_000,
                failure_rate: 0.0,
            }),
            router: RouterSpec::RoundRobin,
            load: LoadSpec::default(),
            frontend: FrontendSpec::default(),
            seed: 7,
            coasting,
            track_block_ids: false,
        };
        let step: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(1_000_000, 0, 0));
        let workload = workload(arrivals_ms);
        let cluster = Cluster::with_adversity(&spec, &[None, None], adversity, workload);
        virtual_clock::run(cluster, &[step.clone(), step])
    };
    let (coasted, stepped) = (run(true), run(false));
    assert_eq!(coasted.requests, stepped.requests);
    assert_eq!(coasted.transfers, stepped.transfers);
    assert_eq!(coasted.adversity, stepped.adversity);
    coasted
}

/// A worker is gone from then on.
fn crash(worker: u32, at_ms: f64, migration_limit: u32) -> AdversitySpec {
    AdversitySpec {
        faults: FaultSpec {
            timeline: vec![Fault {
                at: Time::from_ms(at_ms),
                kind: FaultKind::Crash,
                worker,
                lasts: Span::from_ms(1e6),
            }],
            random: Vec::new(),
            migration_limit,
            ..FaultSpec::default()
        },
        ..AdversitySpec::default()
    }
}

/// When the first and the last token of a request came, and from where.
fn answer(recording: &Recording, request: usize) -> (f64, f64, u32) {
    let record = &recording.requests[request];
    assert_eq!(record.outcome, Outcome::Completed, "{record:?}");
    assert_eq!(record.output_tokens, 10);
    let (first, last) = (record.first_token.as_ms(), record.finish.as_ms());
    (first, last, record.worker)
}

fn fault(recording: &Recording) -> FaultRecord {
    recording
        .adversity
        .as_ref()
        .expect("something broke")
        .faults[0]
}

const PULL: HandoffOrder = HandoffOrder::SourceFirst;

#[test]
fn without_its_prefill_worker_a_decode_worker_does_all() {
    for order in [HandoffOrder::SourceFirst, HandoffOrder::DecodeFirst] {
        // In the middle of the prompt's step: worker 1 begins anew at once.
        let cut = run((vllm(1000), order), &crash(PREFILL, 0.5, 0), &[0.0]);
        assert_eq!(answer(&cut, 0), (1.5, 10.5, DECODE), "{order:?}");
        assert_eq!((fault(&cut).requests, fault(&cut).migrated), (1, 1));
        // Before the request comes.
        let before = run((vllm(1000), order), &crash(PREFILL, 1.0, 0), &[10.0]);
        assert_eq!(answer(&before, 0), (11.0, 20.0, DECODE), "{order:?}");
        assert_eq!(fault(&before).requests, 0);
    }
}

#[test]
fn a_prompt_that_is_lost_on_its_way_is_computed_where_it_was_to_go() {
    let lost = run((vllm(1000), PULL), &crash(PREFILL, 50.0, 0), &[0.0]);
    assert_eq!(answer(&lost, 0), (51.0, 60.0, DECODE));
    let transfer = lost.transfers[0];
    assert!(transfer.has_failed && transfer.bytes == 0);
    assert_eq!(transfer.ended, Time::from_ms(50.0));
    assert_eq!(fault(&lost).recomputed_tokens, 100);
}

#[test]
fn a_decode_worker_takes_its_requests_with_it() {
    // Who may not move is lost.
    let lost = run((vllm(1000), PULL), &crash(DECODE, 50.0, 0), &[0.0]);
    let outcome = lost.requests[0].outcome;
    assert_eq!(outcome, Outcome::Failed(Failure::WorkerLost));
    assert_eq!((fault(&lost).requests, fault(&lost).lost), (1, 1));
    // Who may comes to the prefill worker again, which has 6 of the 7 blocks, and is there at 51 + 112 ms.
    let moved = run((vllm(1000), PULL), &crash(DECODE, 50.0, 1), &[0.0]);
    assert_eq!(answer(&moved, 0), (164.0, 173.0, DECODE + 1));
    assert_eq!((fault(&moved).migrated, fault(&moved).lost), (1, 0));
    // After three tokens, at 114, 115 and 116 ms: the rest of the answer, with what is there as a part of the prompt.
    let begun = run((vllm(1000), PULL), &crash(DECODE, 116.5, 1), &[0.0]);
    assert_eq!(answer(&begun, 0), (114.0, 236.5, DECODE + 1));
    assert_eq!(fault(&begun).recomputed_tokens, 103);
}

#[test]
fn prompts_that_nobody_reads_are_kept_for_eight_minutes() {
    // The prefill worker has 10 blocks; the first prompt keeps 7 of them until 50 ms + 480 s.
    let kept = run((vllm(11), PULL), &crash(DECODE, 50.0, 0), &[0.0, 60.0]);
    assert_eq!(
        kept.requests[1].first_scheduled,
        Time::from_ms(50.0 + 480_000.0)
    );
    // They are not if the prefill worker has not finished: the step that runs goes on for nothing.
    let cut = run((vllm(11), PULL), &crash(DECODE, 0.5, 0), &[0.0, 60.0]);
    assert_eq!(answer(&cut, 0), (114.0, 123.0, DECODE + 1));
}

#[test]
fn who_leaves_lets_the_pull_end_and_no_prompt_be_computed() {
    let leaves = |after_ms| AdversitySpec {
        clients: ClientSpec {
            ttft_timeout: Some(Span::from_ms(after_ms)),
            ..ClientSpec::default()
        },
        ..AdversitySpec::default()
    };
    // At 50 ms on its way: the second prompt, for which there is no room beside it, begins when it is there.
    let pulled = run((vllm(11), PULL), &leaves(50.0), &[0.0, 90.0]);
    let outcome = |index: usize| pulled.requests[index].outcome;
    assert_eq!(outcome(0), Outcome::Failed(Failure::TtftTimeout));
    assert_eq!(pulled.requests[1].first_scheduled, Time::from_ms(113.0));
    assert_eq!(pulled.transfers[0].ended, Time::from_ms(113.0));
    // Half a step after it came: the prompt is computed to its end, for nobody, and gives its blocks back.
    let cut = run((vllm(11), PULL), &leaves(0.5), &[0.0, 0.0]);
    assert!(cut.transfers.iter().all(|it| it.ended == Time::MAX));
    assert!(cut.workers[PREFILL as usize].steps <= 2);
}

#[test]
fn who_wants_no_more_tokens_leaves_the_decode_worker() {
    for (tokens, engine, order) in [
        (3, vllm(1000), PULL),
        (3, sglang(), HandoffOrder::DestinationFirst),
        (1, sglang(), HandoffOrder::DestinationFirst),
    ] {
        let adversity = AdversitySpec {
            clients: ClientSpec {
                cancel: Some(CancelSpec {
                    share: 1.0,
                    when: CancelWhen::AfterTokens(tokens),
                }),
                ..ClientSpec::default()
            },
            ..AdversitySpec::default()
        };
        let cut = run((engine, order), &adversity, &[0.0]);
        let record = cut.requests[0];
        assert_eq!(record.outcome, Outcome::Cancelled);
        assert_eq!(record.output_tokens, tokens);
        let gaps = f64::from(tokens - 1);
        assert_eq!(
            record.finish.as_ms() - record.first_token.as_ms(),
            gaps,
            "{order:?}"
        );
    }
}

fn sglang() -> EngineConfig {
    let config = SglangConfig {
        page_size: 16,
        max_total_tokens: 16_000,
        ..SglangConfig::default()
    };
    config.into()
}

#[test]
fn sglangs_servers_fail_together() {
    let servers = || (sglang(), HandoffOrder::DestinationFirst);
    // The prefill server is gone: so is the request, and with nobody to prefill it cannot move.
    let lost = run(servers(), &crash(PREFILL, 50.0, 3), &[0.0]);
    let outcome = lost.requests[0].outcome;
    assert_eq!(outcome, Outcome::Failed(Failure::WorkerLost));
    assert_eq!(fault(&lost).lost, 1);
    // The decode server is: memory is given back at once, and another pair begins anew.
    let moved = run(servers(), &crash(DECODE, 50.0, 1), &[0.0]);
    let (first, _, worker) = answer(&moved, 0);
    assert_eq!((first, worker), (163.0, DECODE + 1));
}
