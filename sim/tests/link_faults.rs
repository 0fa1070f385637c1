//! Links between prefill and decode workers that break, by sums that are done by hand.

use engine::vllm::VllmConfig;
use engine::{NewRequest, Run, Span, StepTime, Time, WorkloadBuilder};
use sim::adversity::faults::{Fault, FaultKind, FaultSpec, RandomFault};
use sim::disaggregation::{DisaggregationSpec, Overlap, Role};
use sim::links::{Impairment, NetworkSpec, SiteKind};
use sim::{
    AdversitySpec, Cluster, ClusterSpec, FrontendSpec, HandoffOrder, LoadSpec, Outcome, PoolSpec,
    Recording, RouterSpec, virtual_clock,
};
use std::sync::Arc;

const GB: u64 = 1_000_000_000;

const fn ms(ms: u64) -> Time {
    Time(ms * 1_000_000_000)
}

/// One prefill worker, two decode workers, 1 GB/s, steps of 1 ms. Prompts of 160 tokens, 1 GB each, at these seconds.
fn run(arrivals: &[u64], faults: FaultSpec) -> Recording {
    let engine = VllmConfig {
        async_scheduling: false,
        ..VllmConfig::default()
    };
    let pool = |name: &str, workers| PoolSpec {
        name: name.to_owned(),
        workers,
        gpus_per_worker: 1,
        engine: engine.clone().into(),
    };
    let spec = ClusterSpec {
        pools: vec![pool("prefill", 1), pool("decode", 2)],
        disaggregation: Some(DisaggregationSpec {
            roles: vec![Role::Prefill, Role::Decode],
            order: HandoffOrder::SourceFirst,
            conditional: None,
            overlap: Overlap::None,
            network: NetworkSpec {
                bytes_per_s: GB,
                per_gpu: false,
                core_bytes_per_s: None,
                latency: Span::ZERO,
                setup: Span::ZERO,
            },
            topology: None,
            domain: None,
            kv_bytes_per_token: GB / 160,
            failure_rate: 0.0,
        }),
        router: RouterSpec::RoundRobin,
        load: LoadSpec::default(),
        frontend: FrontendSpec::default(),
        seed: 1,
        coasting: true,
        track_block_ids: false,
    };
    let mut builder = WorkloadBuilder::new();
    for (index, at) in (0..).zip(arrivals) {
        let prompt = [Run {
            first: WorkloadBuilder::block_token(index, 0),
            len: 160,
        }];
        builder.push(NewRequest {
            arrival: ms(1000 * at),
            prompt: &prompt,
            output_tokens: 10,
            priority: 0,
            session: index,
            dependencies: &[],
        });
    }
    let adversity = AdversitySpec {
        faults,
        ..AdversitySpec::default()
    };
    let workload = Arc::new(builder.finish());
    let cluster = Cluster::with_adversity(&spec, &[None, None], &adversity, workload);
    let step: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(1_000_000, 0, 0));
    virtual_clock::run(cluster, &[step.clone(), step])
}

fn fault(at_s: f64, how: Impairment, worker: u32, lasts_s: f64) -> FaultSpec {
    let site = SiteKind::Worker;
    FaultSpec {
        timeline: vec![Fault {
            at: Time::ZERO + Span::from_s(at_s),
            kind: FaultKind::Link { site, how },
            worker,
            lasts: Span::from_s(lasts_s),
        }],
        ..FaultSpec::default()
    }
}

#[test]
fn what_is_on_its_way_goes_on_when_the_link_is_back() {
    // Computed at 1 ms, moved until 1.001 s. Down from 0.5 s to 3.5 s: 4.001 s.
    let sound = run(&[0], FaultSpec::default());
    assert_eq!(sound.transfers[0].ended, ms(1001));
    let down = run(&[0], fault(0.5, Impairment::Down, 1, 3.0));
    let transfer = down.transfers[0];
    assert_eq!((transfer.ended, transfer.bytes), (ms(4001), GB));
    assert_eq!(down.requests[0].outcome, Outcome::Completed);
    let record = down.adversity.unwrap();
    let cost = record.faults[0].link.unwrap().cost;
    assert_eq!(
        (cost.transfers, cost.bytes, cost.held),
        (1, GB, Span::from_s(3.0))
    );
    // A quarter from 0.5 s on: the other half takes 2 s.
    let slow = Impairment::Slow { percent: 400 };
    let slow = run(&[0], fault(0.501, slow, 0, 10.0));
    assert_eq!(slow.transfers[0].ended, ms(2501));
}

#[test]
fn a_link_that_nobody_needs_costs_nothing() {
    // The first request goes to worker 1, and worker 2 is cut off.
    let recording = run(&[0], fault(0.5, Impairment::Down, 2, 3.0));
    assert_eq!(recording.transfers[0].ended, ms(1001));
    let record = recording.adversity.unwrap();
    assert_eq!(record.faults[0].link.unwrap().cost.transfers, 0);
}

#[test]
fn who_is_not_read_for_eight_minutes_is_computed_where_it_is_needed() {
    // Down for ten minutes. The prompt of 0 s is given up at 480.001 s, computed by worker 1 and answered; that of 200 s, which goes to
    // worker 2, is not cut off there, and neither is the one of 610 s, which waits for nothing.
    let recording = run(&[0, 200, 610], fault(0.5, Impairment::Down, 1, 600.0));
    let record = recording.adversity.as_ref().unwrap();
    assert_eq!(record.transfer_timeouts, 1);
    let [first, second, third] = [0, 1, 2].map(|index| recording.transfers[index]);
    assert!(first.has_failed && !second.has_failed && !third.has_failed);
    assert_eq!(recording.requests[0].first_token, ms(480_002));
    assert_eq!(second.ended, ms(201_001));
    assert_eq!(third.ended, ms(611_001));
    let done = recording.requests.iter();
    assert!(done.into_iter().all(|it| it.outcome == Outcome::Completed));
    // Half of its bytes had come, and none count that are of no use.
    assert_eq!(first.bytes, 0);
}

#[test]
fn a_random_fault_without_a_number_strikes_each_link() {
    let site = SiteKind::Worker;
    let how = Impairment::Down;
    let rule = RandomFault {
        mtbf: Span::from_s(20.0),
        kind: FaultKind::Link { site, how },
        worker: None,
        lasts: Span::from_s(1.0),
    };
    let faults = FaultSpec {
        random: vec![rule],
        ..FaultSpec::default()
    };
    let arrivals: Vec<u64> = (0..100).collect();
    let recording = run(&arrivals, faults);
    let record = recording.adversity.unwrap();
    let mut struck: Vec<u32> = (record.faults.iter())
        .map(|fault| fault.link.unwrap().number)
        .collect();
    struck.sort_unstable();
    struck.dedup();
    assert_eq!(struck, [0, 1, 2]);
    let done = recording.requests.iter();
    assert!(done.into_iter().all(|it| it.outcome == Outcome::Completed));
}
