//! Prefill and decode apart, an object store between them.

use crate::lives::{kvbm, speed, tier};
use engine::vllm::VllmConfig;
use engine::{NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use sim::disaggregation::{DisaggregationSpec, HandoffOrder, Role};
use sim::kvbm::spec::Medium;
use sim::links::NetworkSpec;
use sim::{Cluster, ClusterSpec, LoadSpec, PoolSpec, Recording, RouterSpec, virtual_clock};
use std::sync::Arc;

/// A prompt of 100 tokens and an answer of 40; a second later both and 20 tokens more.
fn conversation() -> Arc<Workload> {
    let first = Run {
        first: WorkloadBuilder::block_token(1, 0),
        len: 100,
    };
    let answer = Run {
        first: WorkloadBuilder::output_token(0, 0),
        len: 40,
    };
    let more = Run {
        first: WorkloadBuilder::block_token(2, 0),
        len: 20,
    };
    let mut builder = WorkloadBuilder::new();
    for (at_ms, prompt, output_tokens) in
        [(0, &[first][..], 40), (1_000, &[first, answer, more], 2)]
    {
        builder.push(NewRequest {
            arrival: Time::from_ns(at_ms * 1_000_000),
            prompt,
            output_tokens,
            priority: 0,
            session: 0,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn run(decode_writes: bool) -> Recording {
    let pool = |name: &str| PoolSpec {
        name: name.to_owned(),
        workers: 1,
        gpus_per_worker: 1,
        engine: VllmConfig {
            async_scheduling: false,
            ..VllmConfig::default()
        }
        .into(),
    };
    let spec = ClusterSpec {
        pools: vec![pool("prefill"), pool("decode")],
        disaggregation: Some(DisaggregationSpec {
            overlap: sim::disaggregation::Overlap::Chunk,
            topology: None,
            domain: None,
            roles: vec![Role::Prefill, Role::Decode],
            order: HandoffOrder::SourceFirst,
            conditional: None,
            network: NetworkSpec {
                bytes_per_s: 1_000_000_000,
                per_gpu: false,
                core_bytes_per_s: None,
                latency: Span::from_ns(1_000_000),
                setup: Span::from_ns(2_000_000),
            },
            kv_bytes_per_token: 1_000_000,
            failure_rate: 0.0,
        }),
        router: RouterSpec::RoundRobin,
        load: LoadSpec::default(),
        frontend: sim::FrontendSpec::default(),
        seed: 3,
        coasting: true,
        track_block_ids: false,
    };
    let store = kvbm(vec![tier(Medium::Object(speed(1)), 100)]);
    let tiers = [Some(store.clone()), decode_writes.then_some(store)];
    let timing: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(1_000_000, 0, 0));
    let cluster = Cluster::with_kvbm(&spec, &tiers, conversation());
    virtual_clock::run(cluster, &[timing.clone(), timing])
}

#[test]
fn answers_come_back_through_the_store() {
    // The prefill worker keeps the first prompt's 6 full blocks. The decode worker knows 139 tokens with KV in the end: 8 full
    // blocks, of which it writes the 2 behind the prompt's. The second prompt finds 6 on the GPU and 2 in the store; 32 of 160
    // tokens are left to compute.
    let recording = run(true);
    let kvbm = recording.kvbm.expect("there is a store");
    assert_eq!(kvbm.fetches.len(), 1);
    assert_eq!(kvbm.fetches[0].tokens, [0, 0, 32]);
    assert_eq!(kvbm.tiers.len(), 1);
    // 6 and 2, and the second prompt's blocks 9 and 10 from the prefill worker.
    assert_eq!(kvbm.tiers[0].offloaded_blocks, 10);
    assert_eq!(recording.workers[0].prefill_tokens, 100 + 160 - 128);
}

#[test]
fn without_it_answers_are_computed_again() {
    let recording = run(false);
    let kvbm = recording.kvbm.expect("there is a store");
    assert_eq!(kvbm.fetches, []);
    assert_eq!(recording.workers[0].prefill_tokens, 100 + 160 - 96);
}
