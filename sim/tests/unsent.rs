//! A run that ends by its duration leaves requests that were never sent; they are no part of it.

use engine::vllm::VllmConfig;
use engine::{NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use sim::{
    Cluster, ClusterSpec, LoadSpec, PoolSpec, RouterSpec, Sla, series, summarize, virtual_clock,
};
use std::sync::Arc;

fn workload(requests: u32) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for index in 0..requests {
        let first = WorkloadBuilder::private_token(index, 0);
        builder.push(NewRequest {
            arrival: Time::ZERO,
            prompt: &[Run { first, len: 100 }],
            output_tokens: 10,
            priority: 0,
            session: index,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

#[test]
fn requests_after_the_end_of_sending_do_not_count() {
    let load = LoadSpec {
        concurrency: Some(1),
        duration: Some(Span::from_ms(25.0)),
        ..LoadSpec::default()
    };
    let spec = ClusterSpec {
        pools: vec![PoolSpec {
            name: "agg".to_owned(),
            workers: 1,
            gpus_per_worker: 1,
            engine: VllmConfig::default().into(),
        }],
        router: RouterSpec::RoundRobin,
        load,
        frontend: sim::FrontendSpec::default(),
        seed: 0,
        coasting: true,
        disaggregation: None,
        track_block_ids: false,
    };
    // 1 ms a step: each request takes 10 ms, so the third is sent at 20 ms and the fourth would be at 30 ms.
    let timing: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(1_000_000, 0, 0));
    let recording = virtual_clock::run(Cluster::new(&spec, workload(50)), &[timing]);
    let sla = Sla {
        ttft_ms: Some(1.0),
        itl_ms: None,
    };
    let summary = summarize(&recording, &["agg".to_owned()], Some(sla));
    assert_eq!(summary.requests.total, 3);
    assert_eq!(summary.requests.completed, 3);
    assert_eq!(summary.requests.unfinished, 0);
    assert_eq!(summary.throughput.duration_s, 0.03);
    assert_eq!(summary.goodput.map(|goodput| goodput.share), Some(1.0));
    let windows = series(&recording, Span::from_ms(10.0)).windows;
    assert_eq!(windows.iter().map(|window| window.arrivals).sum::<u64>(), 3);
    assert!(windows.len() <= 4, "{} windows", windows.len());
}
