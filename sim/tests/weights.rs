//! Weights that workers send each other: how long a start takes, by sums that are done by hand.
#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

use engine::vllm::VllmConfig;
use engine::{NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use planner::policy::{Schedule, ScheduleEntry};
use planner::{PerRole, Role};
use sim::adversity::faults::{Fault, FaultKind, FaultSpec};
use sim::disaggregation::{self, DisaggregationSpec, Overlap};
use sim::links::topology::{NvLink, NvLinkReach};
use sim::links::{Impairment, NetworkSpec, SiteKind, Topology};
use sim::scaling::{LifecycleSpec, LoadRecord};
use sim::{
    AdversitySpec, Cluster, ClusterSpec, FrontendSpec, HandoffOrder, LoadSpec, PoolScaling,
    PoolSpec, Recording, RouterSpec, ScalingSpec, Startup, virtual_clock,
};
use std::sync::Arc;

const GB: u64 = 1_000_000_000;

const fn s(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000_000)
}

/// Ten bytes a second for a hundred seconds, say: 10 GB at 1 GB/s, between a second for the image and two for graphs; a minute from
/// elsewhere.
fn startup() -> Startup {
    Startup {
        schedule: Span::from_s(1.0),
        load: Span::from_s(60.0),
        warm_up: Span::from_s(2.0),
        weights: Some(10 * GB),
        ..Startup::default()
    }
}

fn network() -> NetworkSpec {
    NetworkSpec {
        bytes_per_s: GB,
        per_gpu: false,
        core_bytes_per_s: None,
        latency: Span::ZERO,
        setup: Span::ZERO,
    }
}

/// A small request a second, the first of `tokens` tokens.
fn workload(tokens: u32) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for index in 0..150 {
        let prompt = [Run {
            first: WorkloadBuilder::block_token(index, 0),
            len: if index == 0 { tokens } else { 16 },
        }];
        builder.push(NewRequest {
            arrival: s(u64::from(index)),
            prompt: &prompt,
            output_tokens: 1,
            priority: 0,
            session: index,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

struct Deployment {
    /// Workers at the start; more places than that there are.
    initial: u32,
    /// (from when on, how many).
    wanted: Vec<(u64, u32)>,
    topology: Option<Topology>,
    faults: Vec<Fault>,
    places: u32,
}

impl Default for Deployment {
    fn default() -> Deployment {
        Deployment {
            initial: 1,
            wanted: vec![(10, 2)],
            topology: None,
            faults: Vec::new(),
            places: 6,
        }
    }
}

fn engine() -> VllmConfig {
    VllmConfig {
        async_scheduling: false,
        ..VllmConfig::default()
    }
}

fn pool(name: &str, workers: u32) -> PoolSpec {
    PoolSpec {
        name: name.to_owned(),
        workers,
        gpus_per_worker: 1,
        engine: engine().into(),
    }
}

fn cluster_spec(pools: Vec<PoolSpec>) -> ClusterSpec {
    ClusterSpec {
        pools,
        disaggregation: None,
        router: RouterSpec::RoundRobin,
        load: LoadSpec::default(),
        frontend: FrontendSpec::default(),
        seed: 1,
        coasting: true,
        track_block_ids: false,
    }
}

fn calendar(wanted: &[(u64, u32)], role: Role) -> Box<Schedule> {
    let entry = |&(at, workers): &(u64, u32)| {
        let mut counts = PerRole::default();
        *counts.get_mut(role) = Some(workers);
        ScheduleEntry {
            at: s(at),
            workers: counts,
        }
    };
    Box::new(Schedule::new(wanted.iter().map(entry).collect()).unwrap())
}

fn step() -> Arc<dyn StepTime> {
    Arc::new(calibration::Linear::from_ns(1_000_000, 0, 0))
}

impl Deployment {
    fn run(&self) -> Recording {
        let spec = cluster_spec(vec![pool("agg", self.places)]);
        let adversity = AdversitySpec {
            faults: FaultSpec {
                timeline: self.faults.clone(),
                ..FaultSpec::default()
            },
            ..AdversitySpec::default()
        };
        let scaling = ScalingSpec {
            planner: calendar(&self.wanted, Role::Decode),
            pools: vec![PoolScaling {
                role: Role::Decode,
                initial: self.initial,
                startup: startup(),
            }],
            gpus: None,
            keeps_latencies: false,
            lifecycle: LifecycleSpec::default(),
            network: Some((network(), self.topology.clone())),
        };
        let cluster = Cluster::with_adversity(&spec, &[None], &adversity, workload(16));
        virtual_clock::run(cluster.scaled(scaling, &spec.router), &[step()])
    }
}

fn loads(recording: &Recording) -> &[LoadRecord] {
    &recording.scaling.as_ref().unwrap().loads
}

/// Of each start, by place: when it asked, when it had its weights, and who sent them.
fn told(recording: &Recording) -> Vec<(u32, u64, Option<u64>, Option<u32>)> {
    let seconds = |time: Time| (time != Time::MAX).then(|| time.0 / s(1).0);
    let all = loads(recording).iter();
    all.map(|it| (it.worker, it.began.0 / s(1).0, seconds(it.ended), it.from))
        .collect()
}

fn ready(recording: &Recording) -> Vec<Time> {
    let lives = recording.scaling.as_ref().unwrap().lives.iter();
    lives.map(|life| life.ready).collect()
}

#[test]
fn one_start_over_idle_links_takes_bytes_over_bandwidth() {
    let recording = Deployment::default().run();
    assert_eq!(told(&recording), [(1, 11, Some(21), Some(0))]);
    assert_eq!(loads(&recording)[0].bytes, 10 * GB);
    assert_eq!(ready(&recording), [Time::ZERO, s(23)]);
    let carried = recording.links.iter().map(|link| link.record.bytes);
    assert_eq!(carried.sum::<u64>(), 20 * GB);
}

#[test]
fn starts_that_come_together_share_their_source_or_find_one_each() {
    // From one source twice the time; with two sources each has one.
    let two = Deployment {
        wanted: vec![(10, 3)],
        ..Deployment::default()
    };
    let recording = two.run();
    let expected = [(1, 11, Some(31), Some(0)), (2, 11, Some(31), Some(0))];
    assert_eq!(told(&recording), expected);
    let from_two = Deployment {
        initial: 2,
        wanted: vec![(10, 4)],
        ..Deployment::default()
    };
    let recording = from_two.run();
    let expected = [(2, 11, Some(21), Some(0)), (3, 11, Some(21), Some(1))];
    assert_eq!(told(&recording), expected);
    // Ordered 5 s later, the second has half of the way out until the first is done at 26 s, and 5 of its 10 GB then.
    let one_after_the_other = Deployment {
        wanted: vec![(10, 2), (15, 3)],
        ..Deployment::default()
    };
    let recording = one_after_the_other.run();
    let expected = [(1, 11, Some(26), Some(0)), (2, 16, Some(31), Some(0))];
    assert_eq!(told(&recording), expected);
}

#[test]
fn kv_and_weights_slow_each_other() {
    // Prefill worker 0 sends 8 GB of KV from 10.001 s on, and from 11 s on 10 GB of weights to the second. KV has half of the way
    // out until it is over, after 0.999 GB alone and 7.001 GB at half: at 25.002 s. By then 7.001 GB of weights have come; the
    // rest takes 2.999 s: 28.001 s.
    let pools = vec![pool("prefill", 3), pool("decode", 1)];
    let spec = ClusterSpec {
        disaggregation: Some(DisaggregationSpec {
            roles: vec![disaggregation::Role::Prefill, disaggregation::Role::Decode],
            order: HandoffOrder::SourceFirst,
            conditional: None,
            overlap: Overlap::None,
            network: network(),
            topology: None,
            domain: None,
            kv_bytes_per_token: GB / 200,
            failure_rate: 0.0,
        }),
        ..cluster_spec(pools)
    };
    let mut builder = WorkloadBuilder::new();
    // 1,600 tokens, a whole number of blocks.
    for (index, at, tokens) in [(0, 10, 1600), (1, 100, 16)] {
        let prompt = [Run {
            first: WorkloadBuilder::block_token(index, 0),
            len: tokens,
        }];
        builder.push(NewRequest {
            arrival: s(at),
            prompt: &prompt,
            output_tokens: 1,
            priority: 0,
            session: index,
            dependencies: &[],
        });
    }
    let scaling = |role, weights| PoolScaling {
        role,
        initial: 1,
        startup: Startup {
            weights,
            ..startup()
        },
    };
    let scaling = ScalingSpec {
        planner: calendar(&[(10, 2)], Role::Prefill),
        pools: vec![
            scaling(Role::Prefill, Some(10 * GB)),
            scaling(Role::Decode, None),
        ],
        gpus: None,
        keeps_latencies: false,
        lifecycle: LifecycleSpec::default(),
        network: None,
    };
    let cluster = Cluster::new(&spec, Arc::new(builder.finish()));
    let cluster = cluster.scaled(scaling, &spec.router);
    let recording = virtual_clock::run(cluster, &[step(), step()]);
    let ms = |time: Time| time.0 / 1_000_000_000;
    assert_eq!(recording.transfers[0].bytes, 8 * GB);
    assert_eq!(ms(recording.transfers[0].began), 10_001);
    assert_eq!(ms(recording.transfers[0].ended), 25_002);
    assert_eq!(ms(loads(&recording)[0].ended), 28_001);
}

fn crash(at: u64, worker: u32) -> Fault {
    Fault {
        at: s(at),
        kind: FaultKind::Crash,
        worker,
        lasts: Span::ZERO,
    }
}

#[test]
fn when_a_source_is_gone_another_one_sends_the_rest() {
    // Worker 0 sends from 11 s on and crashes at 16: worker 1 sends the other 5 GB. The one in the place of the lost one asks it
    // at 17: 4 GB are left of the first, which take 8 s at half, 25 s; then 6 GB of the second, 31 s.
    let deployment = Deployment {
        initial: 2,
        wanted: vec![(10, 3)],
        faults: vec![crash(16, 0)],
        ..Deployment::default()
    };
    let recording = deployment.run();
    let expected = [(2, 11, Some(25), Some(1)), (0, 17, Some(31), Some(1))];
    assert_eq!(told(&recording), expected);
    let sources: Vec<u32> = loads(&recording).iter().map(|it| it.sources).collect();
    assert_eq!(sources, [2, 1]);
    assert!(
        loads(&recording)
            .iter()
            .all(|it| it.bytes == 10 * GB && !it.fell_back)
    );
    let fault = recording.adversity.as_ref().unwrap().faults[0];
    // Whoever took the place of the lost one served two seconds after its weights had come.
    assert_eq!(fault.ended, s(33));
}

#[test]
fn without_a_source_weights_come_from_elsewhere() {
    // Nobody else is left at 16 s: a minute from then on for both, the second a second later.
    let deployment = Deployment {
        faults: vec![crash(16, 0)],
        ..Deployment::default()
    };
    let recording = deployment.run();
    let expected = [(1, 11, Some(76), Some(0)), (0, 17, Some(77), None)];
    assert_eq!(told(&recording), expected);
    let first = loads(&recording)[0];
    assert_eq!((first.bytes, first.fell_back), (5 * GB, true));
}

#[test]
fn who_is_called_off_is_sent_no_more() {
    // Two start from one source; the newer is called off at 15 s, and the other has 2 of its 10 GB, then all of the link.
    let deployment = Deployment {
        wanted: vec![(10, 3), (15, 2)],
        ..Deployment::default()
    };
    let recording = deployment.run();
    let expected = [(1, 11, Some(23), Some(0)), (2, 11, None, Some(0))];
    assert_eq!(told(&recording), expected);
    assert_eq!(loads(&recording)[1].bytes, 2 * GB);
}

#[test]
fn the_nearest_that_can_be_reached_sends() {
    // Two GPUs in a node, one card for both; cards do not reach their own node, NVLink does or not.
    let topology = |nvlink: Option<NvLink>| Topology {
        gpus_per_node: 2,
        nics_per_node: 1,
        nics_reach_own_node: false,
        nvlink,
        nodes_per_rack: None,
        racks_per_zone: None,
        has_rails: false,
        leaf_oversubscription: None,
        spine_oversubscription: None,
        placement: (0..6).collect(),
    };
    let nvlink = NvLink {
        reach: NvLinkReach::Node,
        bytes_per_s: 10 * GB,
        latency: Span::ZERO,
    };
    let deployment = |topology| Deployment {
        initial: 3,
        wanted: vec![(10, 4)],
        topology: Some(topology),
        ..Deployment::default()
    };
    let recording = deployment(topology(Some(nvlink))).run();
    assert_eq!(told(&recording), [(3, 11, Some(12), Some(2))]);
    // Worker 2 shares the node of the new one and cannot reach it: the first of the others does.
    let recording = deployment(topology(None)).run();
    assert_eq!(told(&recording), [(3, 11, Some(21), Some(0))]);
}

#[test]
fn a_link_that_is_down_holds_a_start_up() {
    let down = Fault {
        at: s(15),
        kind: FaultKind::Link {
            site: SiteKind::Worker,
            how: Impairment::Down,
        },
        worker: 0,
        lasts: Span::from_s(7.0),
    };
    let deployment = Deployment {
        faults: vec![down],
        ..Deployment::default()
    };
    let recording = deployment.run();
    assert_eq!(told(&recording), [(1, 11, Some(28), Some(0))]);
    let fault = recording.adversity.as_ref().unwrap().faults[0];
    let cost = fault.link.unwrap().cost;
    assert_eq!((cost.transfers, cost.held), (1, Span::from_s(7.0)));
    assert_eq!(cost.bytes, 10 * GB);
}
