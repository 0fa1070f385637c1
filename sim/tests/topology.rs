//! Nodes, racks and zones: transfers whose ways are followed by hand, both workers of a request kept together, and KV that
//! moves layer by layer, against the closed form.

use engine::vllm::VllmConfig;
use engine::{NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use sim::disaggregation::{
    DisaggregationSpec, DomainPolicy, Enforcement, HandoffOrder, Overlap, Role,
};
use sim::event::WorkerId;
use sim::links::placement::{Nodes, Placement};
use sim::links::topology::{Domain, NvLink, NvLinkReach, Unreachable};
use sim::links::{LinkKind, Network, NetworkSpec, NewTransfer, Topology};
use sim::router::KvRouterSpec;
use sim::{
    Cluster, ClusterSpec, LoadSpec, Outcome, PoolSpec, Recording, Rejection, RouterSpec,
    virtual_clock,
};
use std::sync::Arc;

const GB: u64 = 1_000_000_000;

/// Cards of 10 GB/s, nothing takes time but bytes.
const CARDS: NetworkSpec = NetworkSpec {
    bytes_per_s: 10 * GB,
    per_gpu: false,
    core_bytes_per_s: None,
    latency: Span::ZERO,
    setup: Span::ZERO,
};

/// Nodes of four GPUs and four cards; workers of so many GPUs each, packed.
fn nodes_of_four(gpus: &[u32]) -> Topology {
    let four = Nodes {
        gpus: 4,
        count: None,
    };
    Topology {
        gpus_per_node: 4,
        nics_per_node: 4,
        nics_reach_own_node: true,
        nvlink: None,
        nodes_per_rack: Some(1),
        racks_per_zone: None,
        has_rails: false,
        leaf_oversubscription: None,
        spine_oversubscription: None,
        placement: Placement::Packed.place(gpus, four).expect("nodes enough"),
    }
}

/// When each of several transfers (from, to, GB), begun together, is over, in ms.
fn ends(topology: &Topology, gpus: &[u32], sent: &[(u32, u32, u64)]) -> Vec<f64> {
    let mut network = Network::new(CARDS, Some(topology), gpus);
    for (tag, &(from, to, gigabytes)) in sent.iter().enumerate() {
        let transfer = NewTransfer {
            tag: tag as u32,
            from: WorkerId(from),
            to: WorkerId(to),
            bytes: gigabytes * GB,
            delay: Span::ZERO,
            source: None,
        };
        network.send(Time::ZERO, transfer);
    }
    let mut ends = vec![0.0; sent.len()];
    while let Some(now) = network.next_event() {
        let mut ended = Vec::new();
        network.advance(now, &mut ended);
        for tag in ended {
            ends[tag as usize] = now.as_ms();
        }
    }
    ends
}

#[test]
fn a_worker_sends_over_the_cards_of_its_gpus() {
    // Four GPUs with a card each send 40 GB in one second; to a worker of two, whose two cards each receive from two GPUs of
    // the sender, it takes two.
    let gpus = [4, 4, 2];
    let topology = nodes_of_four(&gpus);
    assert_eq!(ends(&topology, &gpus, &[(0, 1, 40)]), [1_000.0]);
    assert_eq!(ends(&topology, &gpus, &[(0, 2, 40)]), [2_000.0]);
    // Three GPUs of which two share a card: it carries two thirds of 30 GB.
    let gpus = [3, 3];
    let shared = Topology {
        nics_per_node: 2,
        ..nodes_of_four(&gpus)
    };
    assert_eq!(ends(&shared, &gpus, &[(0, 1, 30)]), [2_000.0]);
}

#[test]
fn workers_of_a_node_share_its_cards() {
    // Two workers of two GPUs on a node with a single card send to two on another: each gets half of 10 GB/s.
    let gpus = [2, 2, 2, 2];
    let one_card = Topology {
        nics_per_node: 1,
        ..nodes_of_four(&gpus)
    };
    let both = [(0, 2, 10), (1, 3, 10)];
    assert_eq!(ends(&one_card, &gpus, &both), [2_000.0, 2_000.0]);
    // With a card for each GPU nobody waits for the other.
    assert_eq!(ends(&nodes_of_four(&gpus), &gpus, &both), [500.0, 500.0]);
}

#[test]
fn nvlink_within_its_domain_and_cards_beyond() {
    // 4 GPUs x 100 GB/s of NVLink inside; cards of 10 GB/s outside. Of 40 GB: 0.1 s and 1 s.
    let gpus = [2, 2, 4];
    let topology = Topology {
        nvlink: Some(NvLink {
            reach: NvLinkReach::Node,
            bytes_per_s: 100 * GB,
            latency: Span::from_ns(1_000_000),
        }),
        ..nodes_of_four(&gpus)
    };
    assert_eq!(ends(&topology, &gpus, &[(0, 1, 40)]), [201.0]);
    assert_eq!(ends(&topology, &gpus, &[(0, 2, 40)]), [2_000.0]);
    let rack = Topology {
        nvlink: topology.nvlink.map(|nvlink| NvLink {
            reach: NvLinkReach::Rack,
            ..nvlink
        }),
        nodes_per_rack: Some(2),
        ..topology
    };
    assert_eq!(ends(&rack, &gpus, &[(0, 2, 40)]), [201.0]);
}

#[test]
fn uplinks_of_leaves_and_spines_are_shared() {
    // Racks of one node with four cards of 10 GB/s, leaves 4:1: an uplink of 10 GB/s. Four workers of a node send 10 GB each to
    // another rack: 40 GB through 10 GB/s. Within the rack the leaf is no limit.
    let gpus = [1; 16];
    let leaves = Topology {
        leaf_oversubscription: Some(4.0),
        ..nodes_of_four(&gpus)
    };
    let across: Vec<(u32, u32, u64)> = (0..4).map(|worker| (worker, worker + 4, 10)).collect();
    assert_eq!(ends(&leaves, &gpus, &across), [4_000.0; 4]);
    let one_rack = Topology {
        nodes_per_rack: Some(2),
        ..leaves.clone()
    };
    assert_eq!(ends(&one_rack, &gpus, &across), [1_000.0; 4]);
    // Zones of two racks, spines 2:1 over leaves' uplinks of 2 x 10 GB/s: 10 GB/s. Two racks send to the other zone: the first
    // four share their leaf and the spine with the other four.
    let zones = Topology {
        racks_per_zone: Some(2),
        spine_oversubscription: Some(2.0),
        ..leaves
    };
    let far: Vec<(u32, u32, u64)> = (0..8).map(|worker| (worker, worker + 8, 10)).collect();
    assert_eq!(ends(&zones, &gpus, &far), [8_000.0; 8]);
    assert_eq!(ends(&zones, &gpus, &across), [4_000.0; 4]);
}

#[test]
fn what_changes_the_rail_goes_up() {
    // One rack on rails, leaves 2:1: each rail's leaf has 2 cards below and an uplink of 10 GB/s. GPU 0 to GPU 4 stays on rail 0;
    // GPUs 0 and 1 to GPUs 5 and 4 leave their rails.
    let gpus = [1; 8];
    let topology = Topology {
        has_rails: true,
        nodes_per_rack: Some(2),
        leaf_oversubscription: Some(2.0),
        ..nodes_of_four(&gpus)
    };
    let mut network = Network::new(CARDS, Some(&topology), &gpus);
    let send = |network: &mut Network, tag, from, to| {
        let transfer = NewTransfer {
            tag,
            from: WorkerId(from),
            to: WorkerId(to),
            bytes: GB,
            delay: Span::ZERO,
            source: None,
        };
        network.send(Time::ZERO, transfer);
    };
    send(&mut network, 0, 0, 4);
    send(&mut network, 1, 1, 6);
    let mut ended = Vec::new();
    while let Some(now) = network.next_event() {
        network.advance(now, &mut ended);
    }
    assert_eq!(ended, [0, 1]);
    let links = network.links();
    let carried = |kind| {
        let of_kind = links.iter().filter(|link| link.kind == kind);
        of_kind.map(|link| link.record.bytes).sum::<u64>()
    };
    // Each crosses two cards; only the second an uplink up and one down.
    assert_eq!(carried(LinkKind::Nic), 4 * GB);
    assert_eq!(carried(LinkKind::Leaf), 2 * GB);
}

#[test]
fn a_cancelled_transfer_makes_room_at_once() {
    // Two of 10 GB share 10 GB/s; after half a second, 2.5 GB each, one is cancelled: the other needs 0.75 s more.
    let gpus = [4, 4];
    let topology = Topology {
        nics_per_node: 1,
        ..nodes_of_four(&gpus)
    };
    let mut network = Network::new(CARDS, Some(&topology), &gpus);
    for tag in 0..2 {
        let transfer = NewTransfer {
            tag,
            from: WorkerId(0),
            to: WorkerId(1),
            bytes: 10 * GB,
            delay: Span::ZERO,
            source: None,
        };
        network.send(Time::ZERO, transfer);
    }
    let half = Time::from_ns(500_000_000);
    let mut ended = Vec::new();
    network.advance(half, &mut ended);
    network.cancel(half, 0);
    while let Some(now) = network.next_event() {
        network.advance(now, &mut ended);
        assert!(
            ended.is_empty() || now == Time::from_ns(1_250_000_000),
            "{now}"
        );
    }
    assert_eq!(ended, [1]);
}

#[test]
fn who_cannot_reach_whom() {
    let gpus = [2, 2, 4];
    let nvlink = Some(NvLink {
        reach: NvLinkReach::Node,
        bytes_per_s: GB,
        latency: Span::ZERO,
    });
    let no_cards = Topology {
        nics_per_node: 0,
        nvlink,
        ..nodes_of_four(&gpus)
    };
    assert_eq!(no_cards.barrier(&gpus, 0, 1), None);
    assert_eq!(no_cards.barrier(&gpus, 0, 2), Some(Unreachable::NoLink));
    let efa = Topology {
        nics_reach_own_node: false,
        ..nodes_of_four(&gpus)
    };
    assert_eq!(efa.barrier(&gpus, 0, 1), Some(Unreachable::SameNode));
    assert_eq!(efa.barrier(&gpus, 0, 2), None);
}

/// Every step 1 ms, whatever it holds.
const STEP_NS: u64 = 1_000_000;

/// Prompts of 96 tokens, six blocks of 16, and two answer tokens, at these µs.
fn prompts(arrivals_us: &[u64]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for (index, at_us) in (0..).zip(arrivals_us) {
        let prompt = [Run {
            first: WorkloadBuilder::block_token(index, 0),
            len: 96,
        }];
        builder.push(NewRequest {
            arrival: Time::from_ns(at_us * 1000),
            prompt: &prompt,
            output_tokens: 2,
            priority: 0,
            session: index,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn pool(name: &str, workers: u32) -> PoolSpec {
    let engine = VllmConfig {
        async_scheduling: false,
        ..VllmConfig::default()
    };
    PoolSpec {
        name: name.to_owned(),
        workers,
        gpus_per_worker: 4,
        engine: engine.into(),
    }
}

/// `workers` of each role, four GPUs each; 1 MB of KV per token.
fn spec(workers: (u32, u32), order: HandoffOrder) -> ClusterSpec {
    ClusterSpec {
        pools: vec![pool("prefill", workers.0), pool("decode", workers.1)],
        disaggregation: Some(DisaggregationSpec {
            roles: vec![Role::Prefill, Role::Decode],
            order,
            conditional: None,
            overlap: Overlap::Chunk,
            network: CARDS,
            topology: None,
            domain: None,
            kv_bytes_per_token: 1_000_000,
            failure_rate: 0.0,
        }),
        router: RouterSpec::RoundRobin,
        load: LoadSpec::default(),
        frontend: sim::FrontendSpec::default(),
        seed: 3,
        coasting: true,
        track_block_ids: false,
    }
}

fn run(spec: &ClusterSpec, workload: &Arc<Workload>) -> Recording {
    let timing: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(STEP_NS, 0, 0));
    let timing = vec![timing; spec.pools.len()];
    virtual_clock::run(Cluster::new(spec, workload.clone()), &timing)
}

/// Two workers of each role, one of each on each of two nodes of eight GPUs.
fn on_two_nodes(domain: Option<DomainPolicy>, order: HandoffOrder) -> ClusterSpec {
    let mut spec = spec((2, 2), order);
    let gpus = [4; 4];
    let eight = Nodes {
        gpus: 8,
        count: None,
    };
    let disaggregation = spec.disaggregation.as_mut().expect("it hands over");
    disaggregation.topology = Some(Topology {
        gpus_per_node: 8,
        nics_per_node: 8,
        placement: Placement::Listed(vec![0, 1, 0, 1])
            .place(&gpus, eight)
            .expect("nodes enough"),
        ..nodes_of_four(&gpus)
    });
    disaggregation.domain = domain;
    spec
}

const SAME_HOST: DomainPolicy = DomainPolicy {
    domain: Domain::Host,
    enforcement: Enforcement::Required,
};

fn crossings(recording: &Recording) -> usize {
    // Workers 0 and 2 are on the first node, 1 and 3 on the second.
    let crosses = |it: &&sim::TransferRecord| it.from.0 % 2 != it.to.0 % 2;
    recording.transfers.iter().filter(crosses).count()
}

const ORDERS: [HandoffOrder; 3] = [
    HandoffOrder::SourceFirst,
    HandoffOrder::DecodeFirst,
    HandoffOrder::DestinationFirst,
];

#[test]
fn required_keeps_both_workers_in_one_domain() {
    // Least-loaded routers choose each side for itself, unless they must not.
    for order in ORDERS {
        let ask = prompts(&[0, 100, 200, 5_000, 5_500, 9_000, 9_100, 9_200, 9_300]);
        let mut free = on_two_nodes(None, order);
        free.router = RouterSpec::Random;
        assert!(crossings(&run(&free, &ask)) > 0, "{order:?}");
        let mut kept = on_two_nodes(Some(SAME_HOST), order);
        kept.router = RouterSpec::Random;
        let recording = run(&kept, &ask);
        assert_eq!((recording.transfers.len(), crossings(&recording)), (9, 0));
    }
}

#[test]
fn without_a_worker_in_the_domain_a_request_is_refused_before_its_prefill() {
    // Two prefill workers on two nodes, one decode worker on the first. Round robin sends every second request to the second
    // prefill worker, whose node decodes nothing: refused, however idle the decode worker is.
    let mut spec = on_two_nodes(Some(SAME_HOST), HandoffOrder::SourceFirst);
    spec.pools[1].workers = 1;
    let topology = spec
        .disaggregation
        .as_mut()
        .expect("it hands over")
        .topology
        .as_mut();
    topology.unwrap().placement.truncate(3);
    let recording = run(&spec, &prompts(&[0, 50_000, 100_000, 150_000]));
    let outcomes: Vec<Outcome> = recording.requests.iter().map(|it| it.outcome).collect();
    let refused = Outcome::Rejected(Rejection::NoWorkerInDomain);
    let done = Outcome::Completed;
    assert_eq!(outcomes, [done, refused, done, refused]);
    assert_eq!(recording.workers[1].prefill_tokens, 0);
    // Decode first it is the prefill worker that has to be near: only the first may get anything.
    spec.disaggregation.as_mut().expect("it hands over").order = HandoffOrder::DecodeFirst;
    let recording = run(&spec, &prompts(&[0, 50_000, 100_000, 150_000]));
    assert!(recording.requests.iter().all(|it| it.outcome == done));
    assert_eq!(recording.workers[1].requests, 0);
}

#[test]
fn preferred_is_outweighed_by_load_alone() {
    // Four prompts come one by one while the decode workers are idle: equal costs of 0 are not made cheaper by a factor, so the
    // tie is drawn. Together, a worker nearby costs exp(-tanh(1)) = 0.467 of what it would.
    let preferred = DomainPolicy {
        domain: Domain::Host,
        enforcement: Enforcement::Preferred(1.0),
    };
    let ask = prompts(&(0..40).map(|nth| nth * 300).collect::<Vec<u64>>());
    let kv = RouterSpec::Kv(KvRouterSpec::default());
    let mut free = on_two_nodes(None, HandoffOrder::SourceFirst);
    free.router = kv.clone();
    let mut rather = on_two_nodes(Some(preferred), HandoffOrder::SourceFirst);
    rather.router = kv;
    let [free, rather] = [free, rather].map(|spec| crossings(&run(&spec, &ask)));
    assert!(rather < free, "{rather} of 40 cross, {free} without");
}

/// The end of the transfer of one prompt, in ms.
fn transfer_ends(overlap: Overlap, budget: u32, gb_per_s: u64) -> f64 {
    let mut spec = spec((1, 1), HandoffOrder::DestinationFirst);
    let engine = VllmConfig {
        max_num_batched_tokens: budget,
        async_scheduling: false,
        ..VllmConfig::default()
    };
    spec.pools[0].engine = engine.into();
    let disaggregation = spec.disaggregation.as_mut().expect("it hands over");
    disaggregation.overlap = overlap;
    disaggregation.network.bytes_per_s = gb_per_s * GB;
    let recording = run(&spec, &prompts(&[0]));
    assert_eq!(recording.transfers[0].bytes, 96_000_000);
    recording.transfers[0].ended.as_ms()
}

fn is_close(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-5
}

#[test]
fn layers_move_behind_each_other_as_the_closed_form_says() {
    // One step of T = 1 ms computes 96 MB in L = 4 layers. On links of R GB/s they take X = 96 / R ms.
    for gb_per_s in [10, 50, 96, 100, 400, 9_600] {
        let x = 96.0 / gb_per_s as f64;
        let none = transfer_ends(Overlap::None, 8_192, gb_per_s);
        let chunk = transfer_ends(Overlap::Chunk, 8_192, gb_per_s);
        assert!(is_close(none, 1.0 + x) && is_close(chunk, 1.0 + x));
        let layer = transfer_ends(Overlap::Layer(4), 8_192, gb_per_s);
        let closed_form = f64::max(1.0 + x / 4.0, 0.25 + x);
        assert!(
            is_close(layer, closed_form),
            "{gb_per_s}: {layer}, {closed_form}"
        );
    }
}

#[test]
fn chunks_and_layers_together() {
    // Three steps of 1 ms with 32 MB each. On 16 GB/s each part takes 2 ms. Chunk: 1-3, 3-5 and 5-7 ms (the last two are one
    // part: at 3 ms both are computed). Layers, 4 of them: the first part begins at 0.25 ms and takes 2 ms, until 2.25; by
    // then the second is computed, 2.25-4.25, and then the third, until 6.25.
    assert!(is_close(transfer_ends(Overlap::Chunk, 32, 16), 7.0));
    assert!(is_close(transfer_ends(Overlap::Layer(4), 32, 16), 6.25));
    // On 64 GB/s each part takes half a millisecond: the links are faster than the layers, and the last step's last layer is
    // left, a quarter of 0.5 ms. Chunk leaves the last step's whole part.
    assert!(is_close(transfer_ends(Overlap::Chunk, 32, 64), 3.5));
    assert!(is_close(transfer_ends(Overlap::Layer(4), 32, 64), 3.125));
    assert!(is_close(transfer_ends(Overlap::None, 32, 64), 3.0 + 1.5));
}

#[test]
fn a_source_leaves_the_rest_of_the_link_to_others() {
    // Two prompts at once on one prefill worker are one step of 1 ms: both come at 96 GB/s, together less than the link's
    // 400 GB/s; each ends when a quarter of its bytes, both sharing the link, is over: 2 x 24 MB / 400 GB/s.
    let mut spec = spec((1, 1), HandoffOrder::DestinationFirst);
    let disaggregation = spec.disaggregation.as_mut().expect("it hands over");
    disaggregation.overlap = Overlap::Layer(4);
    disaggregation.network.bytes_per_s = 400 * GB;
    let recording = run(&spec, &prompts(&[0, 0]));
    for transfer in &recording.transfers {
        assert!(
            is_close(transfer.ended.as_ms(), 1.0 + 48.0 / 400.0),
            "{transfer:?}"
        );
    }
}
