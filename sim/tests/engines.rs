//! Clusters whose workers run vLLM, SGLang or TensorRT-LLM, alone or beside vLLM, behind routers of all kinds: everybody is
//! served, and coasting changes nothing.

use engine::sglang::{SglangConfig, SglangPolicy};
use engine::trtllm::{CapacityPolicy, TrtllmConfig};
use engine::vllm::VllmConfig;
use engine::{EngineConfig, NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use proptest::prelude::*;
use sim::router::policy_class::{PolicyClass, PolicyProfile, QueuePolicy};
use sim::router::replicas::ReplicaSpec;
use sim::router::{EventChannel, KvRouterSpec, Pruning, Retention};
use sim::{
    Cluster, ClusterSpec, LoadSpec, Outcome, PoolSpec, Recording, RouterSpec, virtual_clock,
};
use std::sync::Arc;

/// Time since the arrival before (µs), prompt as (content, tokens), output tokens.
type Arrival = (u64, Vec<(u64, u32)>, u32);

fn workload(arrivals: &[Arrival]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    let mut now = 0;
    for (index, (gap, segments, output_tokens)) in arrivals.iter().enumerate() {
        now += gap;
        let run = |&(id, len): &(u64, u32)| Run {
            first: WorkloadBuilder::block_token(id as u32, 0),
            len,
        };
        let prompt: Vec<Run> = segments.iter().map(run).collect();
        builder.push(NewRequest {
            arrival: Time::from_ns(now * 1000),
            prompt: &prompt,
            output_tokens: *output_tokens,
            priority: 0,
            session: index as u32,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn run(
    engines: &[EngineConfig],
    router: RouterSpec,
    workload: &Arc<Workload>,
    coasting: bool,
) -> Recording {
    let pool = |(index, engine): (usize, &EngineConfig)| PoolSpec {
        name: format!("pool {index}"),
        workers: 2,
        gpus_per_worker: 1,
        engine: engine.clone(),
    };
    let spec = ClusterSpec {
        pools: engines.iter().enumerate().map(pool).collect(),
        router,
        load: LoadSpec::default(),
        frontend: sim::FrontendSpec::default(),
        seed: 7,
        coasting,
        disaggregation: None,
        track_block_ids: false,
    };
    let linear: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(500_000, 900, 13));
    let timing = vec![linear; engines.len()];
    virtual_clock::run(Cluster::new(&spec, workload.clone()), &timing)
}

/// Gaps between tokens, one by one, in order of size.
fn gaps(recording: &Recording) -> Vec<i64> {
    let mut gaps = Vec::new();
    for run in &recording.gaps {
        for step in 0..i64::from(run.steps) {
            let gap = run.first.0 as i64 + step * run.slope_ps;
            gaps.extend(std::iter::repeat_n(gap, run.sequences as usize));
        }
    }
    gaps.sort_unstable();
    gaps
}

fn sglang() -> impl Strategy<Value = SglangConfig> {
    let policy = prop_oneof![Just(SglangPolicy::Fcfs), Just(SglangPolicy::Lpm)];
    let chunk = prop_oneof![Just(None), (16u32..120).prop_map(Some)];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    (policy, chunk, flags, 200u32..900, 2u32..12, 0.05f64..1.0).prop_map(
        |(
            schedule_policy,
            chunked_prefill_size,
            (mixed, ignore_eos, no_cache),
            tokens,
            seats,
            conservativeness,
        )| {
            SglangConfig {
                max_total_tokens: tokens,
                max_running_requests: seats,
                chunked_prefill_size,
                schedule_policy,
                schedule_conservativeness: conservativeness,
                disable_radix_cache: no_cache,
                mixed_chunk: mixed && chunked_prefill_size.is_some(),
                page_size: 4,
                ignore_eos,
                ..SglangConfig::default()
            }
        },
    )
}

fn trtllm() -> impl Strategy<Value = TrtllmConfig> {
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.8));
    (flags, 60u32..220, 2u32..12, 64u32..300).prop_map(
        |((pauses, chunks, reuse), blocks, seats, budget)| TrtllmConfig {
            tokens_per_block: 4,
            num_blocks: blocks,
            max_batch_size: seats,
            max_num_tokens: budget,
            enable_block_reuse: reuse,
            enable_chunked_prefill: pauses || chunks,
            capacity_scheduler_policy: if pauses {
                CapacityPolicy::MaxUtilization
            } else {
                CapacityPolicy::GuaranteedNoEvict
            },
            ..TrtllmConfig::default()
        },
    )
}

fn vllm() -> impl Strategy<Value = VllmConfig> {
    let flags = (any::<bool>(), prop::bool::weighted(0.8));
    (flags, 60u32..220, 2u32..12, 64u32..300).prop_map(
        |((is_async, caches), blocks, seats, budget)| VllmConfig {
            block_size: 4,
            num_gpu_blocks: blocks,
            max_num_seqs: seats,
            max_num_batched_tokens: budget,
            async_scheduling: is_async,
            enable_prefix_caching: caches,
            ..VllmConfig::default()
        },
    )
}

fn engine() -> impl Strategy<Value = EngineConfig> {
    prop_oneof![
        vllm().prop_map(EngineConfig::from),
        sglang().prop_map(EngineConfig::from),
        trtllm().prop_map(EngineConfig::from)
    ]
}

fn router() -> impl Strategy<Value = RouterSpec> {
    let kv = KvRouterSpec::default();
    let queued = KvRouterSpec {
        queue_threshold: Some(0.01),
        ..kv.clone()
    };
    let class = |name: &str, threshold| PolicyClass {
        binding: Some(("all".to_owned(), name.to_owned())),
        name: name.to_owned(),
        quantum: 64,
        prefill_busy_threshold: Some(threshold),
        ..PolicyClass::sole(QueuePolicy::Wspt, None)
    };
    let buckets = vec![(0, "short".to_owned()), (60, "long".to_owned())];
    let classes = vec![class("short", 40), class("long", 10)];
    let classes = PolicyProfile::new("all".to_owned(), buckets, classes);
    let classes = classes.expect("each bucket has its class");
    let classed = KvRouterSpec {
        policy_classes: Some(Arc::new(classes)),
        ..kv.clone()
    };
    let replicas = |count, sync_delay| ReplicaSpec { count, sync_delay };
    let apart = KvRouterSpec {
        replicas: replicas(3, None),
        ..queued.clone()
    };
    let synced = KvRouterSpec {
        replicas: replicas(2, Some(Span::ZERO)),
        ..classed.clone()
    };
    let late = KvRouterSpec {
        replicas: replicas(2, Some(Span(20_000_000_000))),
        ..kv.clone()
    };
    let lossy = KvRouterSpec {
        events: EventChannel {
            delay: Span(5_000_000_000),
            loss: 0.2,
            recovers: true,
            ..EventChannel::default()
        },
        ..kv.clone()
    };
    let imagined = KvRouterSpec {
        use_kv_events: false,
        retention: Retention::Lru { outputs: true },
        ..queued.clone()
    };
    let pruned = KvRouterSpec {
        use_kv_events: false,
        retention: Retention::Pruned(Pruning {
            max_tree_size: 60,
            prune_target_ratio: 0.5,
        }),
        replicas: replicas(2, None),
        ..kv.clone()
    };
    let tracked = KvRouterSpec {
        track_output_blocks: true,
        ..queued.clone()
    };
    let specs = [
        tracked, kv, queued, classed, apart, synced, late, lossy, imagined, pruned,
    ];
    let kv = prop::sample::select(specs.to_vec()).prop_map(RouterSpec::Kv);
    prop_oneof![
        1 => Just(RouterSpec::RoundRobin),
        1 => Just(RouterSpec::LeastLoaded),
        6 => kv,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coasting_changes_nothing(
        config in engine(),
        has_vllm in any::<bool>(),
        router in router(),
        arrivals in prop::collection::vec(
            (prop_oneof![Just(0), 0u64..30_000], prop::collection::vec((0u64..4, 1u32..60), 1..4), 1u32..60),
            1..40,
        ),
    ) {
        let mut engines = vec![config];
        if has_vllm {
            let vllm = VllmConfig { block_size: 4, num_gpu_blocks: 100, ..VllmConfig::default() };
            engines.push(vllm.into());
        }
        let workload = workload(&arrivals);
        let (coasting, stepping) = (run(&engines, router.clone(), &workload, true), run(&engines, router, &workload, false));
        prop_assert_eq!(&coasting.requests, &stepping.requests);
        prop_assert_eq!(&coasting.workers, &stepping.workers);
        prop_assert_eq!(gaps(&coasting), gaps(&stepping));
        for (record, asked) in coasting.requests.iter().zip(&workload.requests) {
            match record.outcome {
                Outcome::Completed => {
                    let engine = &engines[record.worker as usize / 2];
                    let goal = engine.output_goal(asked.input_tokens, asked.output_tokens);
                    prop_assert_eq!(record.output_tokens, goal);
                }
                Outcome::Rejected(_) => {}
                Outcome::Cancelled | Outcome::Failed(_) => {
                    prop_assert!(false, "nothing goes wrong here: {:?}", record)
                }
                Outcome::Unfinished => prop_assert!(false, "a request was left: {:?}", record),
            }
        }
    }
}

#[test]
fn a_shared_prompt_is_computed_once_its_first_step_is_over() {
    // 512 shared tokens and 8 own ones; two workers take turns. The first two requests of a worker come together: neither
    // finds anything, since what a step computes is shared only when it is over (S8). The third finds all but its own.
    let prompt = |id: u64| vec![(1, 512), (id, 8)];
    let arrivals: Vec<Arrival> = (0..6)
        .map(|id| (if id == 4 { 5_000 } else { 0 }, prompt(10 + id), 4))
        .collect();
    let engine = [SglangConfig::default().into()];
    let recording = run(&engine, RouterSpec::RoundRobin, &workload(&arrivals), true);
    let cached = recording
        .requests
        .iter()
        .map(|request| request.cached_tokens);
    assert_eq!(cached.collect::<Vec<_>>(), [0, 0, 0, 0, 512, 512]);
}
