//! A KV router that knows how long prefills take, against one that does not: a case by hand, and what it may not change.

use calibration::Linear;
use engine::vllm::VllmConfig;
use engine::{EngineConfig, NewRequest, Run, StepTime, Time, Workload, WorkloadBuilder};
use sim::router::replicas::ReplicaSpec;
use sim::router::{KvRouterSpec, PrefillLoadModel};
use sim::{
    Cluster, ClusterSpec, FrontendSpec, LoadSpec, PoolSpec, Recording, RouterSpec, virtual_clock,
};
use std::sync::Arc;

/// Prompts that share nothing: when (ms), tokens.
fn workload(arrivals: &[(u64, u32)]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for &(at_ms, len) in arrivals {
        let owner = builder.len() as u32;
        builder.push(NewRequest {
            arrival: Time::from_ns(at_ms * 1_000_000),
            prompt: &[Run {
                first: WorkloadBuilder::private_token(owner, 0),
                len,
            }],
            output_tokens: 1,
            priority: 0,
            session: owner,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn router(prefill_load_model: PrefillLoadModel) -> KvRouterSpec {
    KvRouterSpec {
        track_active_blocks: false,
        prefill_load_model,
        ..KvRouterSpec::default()
    }
}

/// Two workers whose steps take 10 us a token.
fn run(router: KvRouterSpec, workload: &Arc<Workload>) -> Recording {
    let engine = EngineConfig::Vllm(VllmConfig {
        num_gpu_blocks: 1_000,
        ..VllmConfig::default()
    });
    let spec = ClusterSpec {
        pools: vec![PoolSpec {
            name: "agg".to_owned(),
            workers: 2,
            gpus_per_worker: 1,
            engine,
        }],
        disaggregation: None,
        router: RouterSpec::Kv(router),
        load: LoadSpec::default(),
        frontend: FrontendSpec::default(),
        seed: 3,
        coasting: true,
        track_block_ids: false,
    };
    let timing: Vec<Arc<dyn StepTime>> = vec![Arc::new(Linear::from_ns(0, 10_000, 0))];
    let cluster = Cluster::new(&spec, workload.clone()).timed(&timing);
    virtual_clock::run(cluster, &timing)
}

/// A at 0 for 16 ms, B at 12 for 8 ms, C at 15.
const A_B_C: [(u64, u32); 3] = [(0, 1_600), (12, 800), (15, 160)];

#[test]
fn the_worker_that_is_nearly_done_is_the_less_busy_one() {
    let places = |model| {
        let recording = run(router(model), &workload(&A_B_C));
        let worker = |request: usize| recording.requests[request].worker;
        assert_ne!(worker(0), worker(1));
        (worker(2) == worker(0), recording.requests[2].first_token)
    };
    // A counts 1,600 tokens and B 800 until their first tokens: C goes to B, and waits for 5 of its 8 ms.
    let waits = Time::from_ns((20_000 + 1_600) * 1_000);
    assert_eq!(places(PrefillLoadModel::None), (false, waits));
    // At 15 ms A counts 1,600 · 1/16 = 100 tokens and B 800 · 5/8 = 500: C goes to A, and waits for 1 ms.
    let waits = Time::from_ns((16_000 + 1_600) * 1_000);
    assert_eq!(places(PrefillLoadModel::Estimated), (true, waits));
}

#[test]
fn routers_tell_each_other_how_long_prefills_take() {
    // C comes to the first of two routers, which placed A itself and heard of B.
    let mut told = router(PrefillLoadModel::Estimated);
    told.replicas = ReplicaSpec {
        count: 2,
        sync_delay: Some(engine::Span::ZERO),
    };
    let one = run(router(PrefillLoadModel::Estimated), &workload(&A_B_C));
    assert_eq!(run(told, &workload(&A_B_C)).requests, one.requests);
}

#[test]
#[should_panic(expected = "a router with a load model knows how long steps take")]
fn nobody_forgets_to_say_how_long_steps_take() {
    let spec = ClusterSpec {
        pools: vec![PoolSpec {
            name: "agg".to_owned(),
            workers: 1,
            gpus_per_worker: 1,
            engine: EngineConfig::Vllm(VllmConfig::default()),
        }],
        disaggregation: None,
        router: RouterSpec::Kv(router(PrefillLoadModel::Estimated)),
        load: LoadSpec::default(),
        frontend: FrontendSpec::default(),
        seed: 3,
        coasting: true,
        track_block_ids: false,
    };
    Cluster::new(&spec, workload(&A_B_C)).start(&mut Vec::new());
}
