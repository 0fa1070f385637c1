//! What a run costs, in events of the driver: counts, which are the same on every machine. Cost follows what is decided,
//! not how many tokens are generated nor how many blocks they fill.

use std::sync::Arc;

use engine::vllm::VllmConfig;
use sim::event::Event;
use sim::router::KvRouterSpec;
use sim::{ClusterSpec, LoadSpec, PoolSpec, RouterSpec};
use traces::{SynthSpec, Trace};

use crate::cases::polynomial;
use crate::fast::Case;

/// Tokens of KV cache per worker.
const CAPACITY: u32 = 1 << 20;

fn conversation() -> Trace {
    SynthSpec::quick()
        .generate(1)
        .expect("the preset is a good one")
}

fn case(trace: &Trace, block_size: u32, router: RouterSpec) -> Case {
    let engine = VllmConfig {
        block_size,
        num_gpu_blocks: CAPACITY / block_size,
        async_scheduling: false,
        ..VllmConfig::default()
    };
    Case {
        kvbm: Vec::new(),
        taints: Vec::new(),
        hosts: Vec::new(),
        adversity: sim::AdversitySpec::default(),
        scaling: None,
        timing: vec![polynomial(&engine.clone().into())],
        spec: ClusterSpec {
            pools: vec![PoolSpec {
                name: "all".to_owned(),
                workers: 4,
                gpus_per_worker: 1,
                engine: engine.into(),
            }],
            router,
            load: LoadSpec::default(),
            frontend: sim::FrontendSpec::default(),
            seed: 1,
            coasting: true,
            disaggregation: None,
            track_block_ids: false,
        },
        workload: Arc::new(trace.workload()),
    }
}

/// Events the driver handled, engine steps they stand for, tokens these generated.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    events: u64,
    steps: u64,
    tokens: u64,
}

fn cost(case: &Case) -> Cost {
    let mut cost = Cost::default();
    let recording = case.run_observed(|_, event, _| {
        cost.events += 1;
        if let Event::Ran(ran) = event {
            cost.steps += u64::from(ran.steps);
        }
    });
    let requests = recording.requests.iter();
    cost.tokens = requests
        .map(|request| u64::from(request.output_tokens))
        .sum();
    cost
}

#[test]
fn longer_answers_cost_few_more_events() {
    let mut trace = conversation();
    let usual = cost(&case(&trace, 512, RouterSpec::RoundRobin));
    for row in &mut trace.rows {
        row.output_tokens *= 2;
    }
    let doubled = cost(&case(&trace, 512, RouterSpec::RoundRobin));
    println!("{usual:?}, with answers twice as long {doubled:?}");
    assert_eq!(doubled.tokens, 2 * usual.tokens);
    assert!(
        doubled.events * 10 < usual.events * 13,
        "{usual:?}, {doubled:?}"
    );
}

#[test]
fn smaller_blocks_cost_no_more_events() {
    for router in [
        RouterSpec::RoundRobin,
        RouterSpec::Kv(KvRouterSpec::default()),
    ] {
        let trace = conversation();
        let (large, small) = (
            cost(&case(&trace, 512, router.clone())),
            cost(&case(&trace, 16, router.clone())),
        );
        println!("{router:?}: blocks of 512 {large:?}, of 16 {small:?}");
        // Behind the KV router a worker reports before an arrival if it has stored or evicted a block.
        assert!(
            small.events * 100 < large.events * 110,
            "{large:?}, {small:?}"
        );
        assert!(
            large.events * 100 < small.events * 105,
            "{large:?}, {small:?}"
        );
    }
}

#[test]
fn coasting_saves_most_events() {
    let coasting = case(&conversation(), 512, RouterSpec::RoundRobin);
    let (coasted, stepped) = (cost(&coasting), cost(&coasting.stepping()));
    println!("coasting {coasted:?}, stepping {stepped:?}");
    assert_eq!(coasted.steps, stepped.steps);
    assert!(
        coasted.events * 5 < stepped.events,
        "{coasted:?}, {stepped:?}"
    );
}
