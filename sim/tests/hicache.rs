//! Lives of requests with host memory below SGLang's and TensorRT-LLM's pools, computed by hand.

use engine::sglang::SglangConfig;
use engine::trtllm::TrtllmConfig;
use engine::{
    HostPool, NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder, WritePolicy,
};
use sim::host::{PrefetchPolicy, StorageSpec};
use sim::kvbm::Speed;
use sim::router::KvRouterSpec;
use sim::{
    Cluster, ClusterSpec, HostSpec, LoadSpec, PoolSpec, Recording, RouterSpec, virtual_clock,
};
use std::sync::Arc;

/// Prompts of 100 tokens: when (ms), which, and how many tokens of output.
fn workload(arrivals: &[(u64, u32, u32)]) -> Arc<Workload> {
    prompts(100, arrivals)
}

/// The same with prompts of so many tokens.
fn prompts(len: u32, arrivals: &[(u64, u32, u32)]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for &(at_ms, content, output_tokens) in arrivals {
        builder.push(NewRequest {
            arrival: Time::from_ns(at_ms * 1_000_000),
            prompt: &[Run {
                first: WorkloadBuilder::block_token(content, 0),
                len,
            }],
            output_tokens,
            priority: 0,
            session: builder.len() as u32,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

/// Workers with room for 160 tokens on the GPU.
fn cluster(workers: u32, router: RouterSpec) -> ClusterSpec {
    let engine = SglangConfig {
        max_total_tokens: 160,
        ..SglangConfig::default()
    };
    ClusterSpec {
        pools: vec![PoolSpec {
            name: "agg".to_owned(),
            workers,
            gpus_per_worker: 1,
            engine: engine.into(),
        }],
        disaggregation: None,
        router,
        load: LoadSpec::default(),
        frontend: sim::FrontendSpec::default(),
        seed: 1,
        coasting: true,
        track_block_ids: false,
    }
}

/// 1 MB per token over 1 GB/s each way, 1 ms before the first byte, ten layers.
fn host(write_policy: WritePolicy) -> HostSpec {
    HostSpec {
        pool: HostPool {
            tokens: 1_000,
            write_policy,
            has_storage: false,
        },
        pcie: Speed {
            read_bytes_per_s: 1_000_000_000,
            write_bytes_per_s: 1_000_000_000,
            read_latency: Span::from_ns(1_000_000),
            write_latency: Span::from_ns(1_000_000),
        },
        kv_bytes_per_token: 1_000_000,
        layers: 10,
        storage: None,
    }
}

/// Every step computes for 1 ms.
fn run(spec: &ClusterSpec, host: HostSpec, workload: &Arc<Workload>) -> Recording {
    let timing: Vec<Arc<dyn StepTime>> =
        vec![Arc::new(calibration::Linear::from_ns(1_000_000, 0, 0))];
    let cluster = Cluster::with_tiers(spec, &[None], &[Some(host)], workload.clone());
    virtual_clock::run(cluster, &timing)
}

/// A, then B for which A has to go, then A again.
const A_B_A: [(u64, u32, u32); 3] = [(0, 1, 2), (500, 2, 2), (1_000, 1, 2)];

fn first_tokens_ms(recording: &Recording) -> Vec<f64> {
    let first = recording.requests.iter().map(|life| life.first_token);
    first.map(Time::as_ms).collect()
}

#[test]
fn what_the_gpu_lost_is_loaded_back() {
    // A leaves 101 tokens, all copied down. B needs 100, 59 are free: A's answer goes, then its prompt. A again finds 99 tokens
    // of its prompt in host memory, all but the last; for them B's 101 go. 99 MB take 1 + 99 ms, in which all but a tenth of
    // the 1 ms of computing is hidden.
    let spec = cluster(1, RouterSpec::RoundRobin);
    let recording = run(&spec, host(WritePolicy::WriteThrough), &workload(&A_B_A));
    assert_eq!(first_tokens_ms(&recording), [1.0, 501.0, 1_100.1]);
    let life = recording.requests[2];
    assert_eq!(life.cached_tokens, 0);
    assert_eq!(life.finish.as_ms(), 1_101.1);
    assert_eq!(recording.workers[0].prefill_tokens, 100 + 100 + 1);
    let kvbm = recording.kvbm.expect("there is host memory");
    assert_eq!(kvbm.fetches.len(), 1);
    let fetch = kvbm.fetches[0];
    assert_eq!(fetch.tokens, [99, 0, 0]);
    assert_eq!(
        [fetch.began, fetch.ended].map(Time::as_ms),
        [1_000.0, 1_100.0]
    );
    let tier = kvbm.tiers[0];
    assert_eq!((tier.capacity_blocks, tier.peak_blocks), (1_000, 203));
    // A and B, 101 each; of the second A its answer alone is new.
    assert_eq!((tier.offloaded_blocks, tier.onboarded_blocks), (203, 99));
    assert_eq!(tier.onboarded_bytes, 99_000_000);
}

#[test]
fn writing_back_holds_the_step_up() {
    // B waits for 101 MB of A to be written, 1 + 101 ms; the second A for B's, and then for its own.
    let spec = cluster(1, RouterSpec::RoundRobin);
    let recording = run(&spec, host(WritePolicy::WriteBack), &workload(&A_B_A));
    assert_eq!(first_tokens_ms(&recording), [1.0, 603.0, 1_202.1]);
}

#[test]
fn what_is_stored_once_is_not_selected() {
    // An answer of one token ends with its prefill: the prompt is stored once, and gone when B has come. With two tokens it is
    // stored again at the end, which is enough.
    let spec = cluster(1, RouterSpec::RoundRobin);
    let selective = || host(WritePolicy::WriteThroughSelective);
    let twice = run(&spec, selective(), &workload(&A_B_A));
    assert_eq!(first_tokens_ms(&twice), [1.0, 501.0, 1_100.1]);
    let once = A_B_A.map(|(at, content, _)| (at, content, 1));
    let once = run(&spec, selective(), &workload(&once));
    assert_eq!(first_tokens_ms(&once), [1.0, 501.0, 1_001.0]);
    assert_eq!(
        once.kvbm.expect("there is host memory").tiers[0].offloaded_blocks,
        0
    );
}

#[test]
fn a_router_counts_what_is_in_host_memory() {
    // Two workers: A goes to one, B and C to wherever less is to be done; when A comes again, its KV is in the host memory of
    // the first at most, and a router that gives credit for that finds it there.
    let mut kv = KvRouterSpec::default();
    kv.weights.host_cache_hit_weight = 1.0;
    let arrivals = [
        (0, 1, 2),
        (500, 2, 2),
        (1_000, 3, 2),
        (1_500, 4, 2),
        (2_000, 1, 2),
    ];
    let workload = workload(&arrivals);
    let spec = cluster(2, RouterSpec::Kv(kv.clone()));
    let recording = run(&spec, host(WritePolicy::WriteThrough), &workload);
    let first = recording.requests[0].worker;
    let again = recording.requests[4];
    assert_eq!(again.worker, first);
    let others = &recording.requests[1..4];
    assert!(others.iter().any(|life| life.worker == first));
    assert_eq!(again.cached_tokens, 0);
    let kvbm = recording.kvbm.expect("there is host memory");
    assert_eq!(kvbm.fetches.len(), 1);
}

/// A storage of 1 GB/s each way, 1 ms before the first byte.
fn with_storage(policy: PrefetchPolicy) -> HostSpec {
    let host = host(WritePolicy::WriteThrough);
    HostSpec {
        storage: Some(StorageSpec {
            pages: 10_000,
            speed: host.pcie,
            policy,
            threshold_tokens: 10,
        }),
        ..host
    }
}

/// A on the first worker, A on the second, C on the first, B on the second.
const TWO_WORKERS: [(u64, u32, u32); 4] = [(0, 1, 2), (500, 1, 2), (501, 3, 2), (502, 2, 2)];

#[test]
fn what_one_worker_computed_another_prefetches() {
    // The second worker finds 99 tokens of A in the storage: 99 MB, there at 600 ms. B, which comes meanwhile, passes. Then the
    // load to the GPU takes 100 ms more.
    let spec = cluster(2, RouterSpec::RoundRobin);
    let workload = workload(&TWO_WORKERS);
    let waits = with_storage(PrefetchPolicy::WaitComplete);
    let recording = run(&spec, waits, &workload);
    assert_eq!(first_tokens_ms(&recording), [1.0, 700.1, 502.0, 503.0]);
    let kvbm = recording.kvbm.expect("there is host memory");
    assert_eq!(kvbm.fetches.len(), 1);
    assert_eq!(kvbm.fetches[0].tokens, [0, 0, 99]);
    let storage = kvbm.tiers[2];
    assert_eq!((storage.medium, storage.prefetched_blocks), (2, 99));
    // A and its answer, B and C with theirs; the second A's answer is another.
    assert_eq!(storage.offloaded_blocks, 304);
}

#[test]
fn best_effort_takes_what_is_there() {
    // Nothing is, at once: the second A is computed.
    let spec = cluster(2, RouterSpec::RoundRobin);
    let workload = workload(&TWO_WORKERS);
    let recording = run(&spec, with_storage(PrefetchPolicy::BestEffort), &workload);
    assert_eq!(first_tokens_ms(&recording), [1.0, 501.0, 502.0, 503.0]);
    assert_eq!(recording.kvbm.expect("there is host memory").fetches, []);
}

#[test]
fn a_timeout_takes_whole_batches() {
    // 299 tokens would take 1 + 299 ms. After 100 ms and 300/1024 of 341.34 ms, 200 ms in all, 199 pages are there, of which one
    // batch of 128 is complete. It is loaded in 1 + 128 ms; the rest is computed.
    let mut spec = cluster(2, RouterSpec::RoundRobin);
    spec.pools[0].engine = SglangConfig {
        max_total_tokens: 400,
        ..SglangConfig::default()
    }
    .into();
    let timeout = PrefetchPolicy::Timeout {
        base: Span::from_ns(100_000_000),
        per_ki_token: Span::from_ns(342_474_916),
    };
    let workload = prompts(300, &[(0, 1, 2), (500, 1, 2)]);
    let recording = run(&spec, with_storage(timeout), &workload);
    let first = recording.requests[1].first_token.as_ms();
    assert!((first - 829.1).abs() < 1e-4, "{first}");
    assert_eq!(recording.workers[1].prefill_tokens, 172);
    let kvbm = recording.kvbm.expect("there is host memory");
    assert_eq!(kvbm.fetches[0].tokens, [0, 0, 128]);
}

#[test]
fn little_is_not_prefetched() {
    let mut few = with_storage(PrefetchPolicy::WaitComplete);
    few.storage.as_mut().expect("it has one").threshold_tokens = 100;
    let spec = cluster(2, RouterSpec::RoundRobin);
    let recording = run(&spec, few, &workload(&TWO_WORKERS));
    assert_eq!(first_tokens_ms(&recording), [1.0, 501.0, 502.0, 503.0]);
}

#[test]
fn tensorrt_llm_waits_for_its_blocks() {
    // Ten blocks of 16 tokens. A leaves 6 full blocks and 4 blank ones. B needs 7: the last 3 of A move to host memory, 48 MB, and
    // the step waits for them, 1 + 48 ms. A again finds 3 blocks on the GPU and the next 3 in host memory; it needs 4 more, of
    // which 1 is blank and 3 are B's: 48 MB down and 48 MB up, 49 ms each. Then it computes its last 4 tokens.
    let mut spec = cluster(1, RouterSpec::RoundRobin);
    spec.pools[0].engine = TrtllmConfig {
        tokens_per_block: 16,
        num_blocks: 10,
        ..TrtllmConfig::default()
    }
    .into();
    let secondary = HostSpec {
        layers: 1,
        ..host(WritePolicy::WriteBack)
    };
    let recording = run(&spec, secondary, &workload(&A_B_A));
    assert_eq!(first_tokens_ms(&recording), [1.0, 550.0, 1_099.0]);
    assert_eq!(recording.requests[2].cached_tokens, 48);
    assert_eq!(recording.workers[0].prefill_tokens, 100 + 100 + 4);
    let kvbm = recording.kvbm.expect("there is host memory");
    assert_eq!(kvbm.fetches[0].tokens, [48, 0, 0]);
    let tier = kvbm.tiers[0];
    assert_eq!((tier.offloaded_blocks, tier.onboarded_blocks), (6, 3));
}

#[test]
fn a_storage_that_all_share_counts_for_workers_that_have_less() {
    // A is on one worker and in the storage. There each of its 100 blocks saves a quarter; elsewhere, half, if the router asks.
    let second_of = |shared_cache_multiplier, host| {
        let mut kv = KvRouterSpec::default();
        kv.weights.overlap_score_credit = 0.25;
        kv.weights.shared_cache_multiplier = shared_cache_multiplier;
        let spec = cluster(2, RouterSpec::Kv(kv));
        let recording = run(&spec, host, &workload(&[(0, 1, 2), (500, 1, 2)]));
        let [first, second] = [0, 1].map(|id: usize| recording.requests[id]);
        (second.worker == first.worker, second.cached_tokens)
    };
    let storage = || with_storage(PrefetchPolicy::WaitComplete);
    assert_eq!(second_of(0.0, storage()), (true, 99));
    // Its KV comes from the storage: the GPU there had nothing.
    assert_eq!(second_of(0.5, storage()), (false, 0));
    assert_eq!(second_of(0.5, host(WritePolicy::WriteThrough)), (true, 99));
}
