//! Lives of requests, computed by hand.

use engine::vllm::VllmConfig;
use engine::{NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use sim::kvbm::spec::{Medium, OffloadPolicy, Speed, TierSpec};
use sim::kvbm::{Eviction, FilterSpec, KvbmSpec};
use sim::{Cluster, ClusterSpec, LoadSpec, PoolSpec, Recording, RouterSpec, virtual_clock};
use std::sync::Arc;

/// Arrival (µs), prompt as (content, tokens), output tokens.
pub type Arrival = (u64, Vec<(u64, u32)>, u32);

pub fn workload(arrivals: &[Arrival]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for (index, (at_us, segments, output_tokens)) in arrivals.iter().enumerate() {
        let run = |&(id, len): &(u64, u32)| Run {
            first: WorkloadBuilder::block_token(id as u32, 0),
            len,
        };
        let prompt: Vec<Run> = segments.iter().map(run).collect();
        builder.push(NewRequest {
            arrival: Time::from_ns(at_us * 1000),
            prompt: &prompt,
            output_tokens: *output_tokens,
            priority: (index % 3) as i32,
            session: index as u32,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

/// So many GB/s each way, 1 ms before the first byte.
pub fn speed(gb_per_s: u64) -> Speed {
    Speed {
        read_bytes_per_s: gb_per_s * 1_000_000_000,
        write_bytes_per_s: gb_per_s * 1_000_000_000,
        read_latency: Span::from_ns(1_000_000),
        write_latency: Span::from_ns(1_000_000),
    }
}

pub fn tier(medium: Medium, blocks: u64) -> TierSpec {
    TierSpec {
        medium,
        blocks,
        eviction: Eviction::Lru,
        filter: None,
    }
}

/// 1 MB per token, PCIe of 1 GB/s.
pub fn kvbm(tiers: Vec<TierSpec>) -> KvbmSpec {
    KvbmSpec {
        tiers,
        pcie: speed(1),
        offload: OffloadPolicy::WriteThrough,
        prefetch: false,
        workers_per_node: 2,
        kv_bytes_per_token: 1_000_000,
    }
}

pub fn cluster(workers: u32, engine: VllmConfig) -> ClusterSpec {
    ClusterSpec {
        pools: vec![PoolSpec {
            name: "agg".to_owned(),
            workers,
            gpus_per_worker: 1,
            engine: engine.into(),
        }],
        disaggregation: None,
        router: RouterSpec::RoundRobin,
        load: LoadSpec::default(),
        frontend: sim::FrontendSpec::default(),
        seed: 3,
        coasting: true,
        track_block_ids: false,
    }
}

pub fn run(
    spec: &ClusterSpec,
    kvbm: Option<KvbmSpec>,
    timing: calibration::Linear,
    workload: &Arc<Workload>,
) -> Recording {
    let timing: Vec<Arc<dyn StepTime>> = vec![Arc::new(timing)];
    let cluster = Cluster::with_kvbm(spec, &[kvbm], workload.clone());
    virtual_clock::run(cluster, &timing)
}

/// Ten usable blocks of 16 tokens.
fn ten_blocks() -> VllmConfig {
    VllmConfig {
        async_scheduling: false,
        num_gpu_blocks: 11,
        ..VllmConfig::default()
    }
}

/// Every step 1 ms.
fn one_ms() -> calibration::Linear {
    calibration::Linear::from_ns(1_000_000, 0, 0)
}

const US: u64 = 1_000;

/// A, then B which evicts the tail of A, then A again.
fn a_b_a() -> Arc<Workload> {
    let prompt = |content: u64| vec![(content, 100)];
    workload(&[
        (0, prompt(1), 2),
        (500 * US, prompt(2), 2),
        (1_000 * US, prompt(1), 2),
    ])
}

fn ms(time: Time) -> f64 {
    time.as_ms()
}

#[test]
fn what_the_gpu_lost_comes_back_from_the_host() {
    // A has 7 blocks, 6 of them full, which are copied down. B needs 7: 4 that are blank and the last 3 cached ones of A.
    // A again finds 3 in the cache and 3 in the host: 48 MB at 1 GB/s, and 1 ms: at 1,049 ms it computes its last 4 tokens.
    let host = kvbm(vec![tier(Medium::Host, 100)]);
    let recording = run(&cluster(1, ten_blocks()), Some(host), one_ms(), &a_b_a());
    let life = recording.requests[2];
    assert_eq!(
        [life.placed, life.first_scheduled, life.first_token].map(ms),
        [1_000.0, 1_049.0, 1_050.0]
    );
    assert_eq!(life.cached_tokens, 48);
    let kvbm = recording.kvbm.expect("there are tiers");
    assert_eq!(kvbm.fetches.len(), 1);
    assert_eq!(kvbm.fetches[0].tokens, [48, 0, 0]);
    assert_eq!(
        [kvbm.fetches[0].began, kvbm.fetches[0].ended].map(ms),
        [1_000.0, 1_049.0]
    );
    let host = kvbm.tiers[0];
    assert_eq!((host.offloaded_blocks, host.onboarded_blocks), (12, 3));
    assert_eq!(host.onboarded_bytes, 48_000_000);
    assert_eq!(recording.workers[0].prefill_tokens, 100 + 100 + 4);
}

#[test]
fn without_pressure_nothing_is_fetched() {
    let roomy = VllmConfig {
        num_gpu_blocks: 1_000,
        ..ten_blocks()
    };
    let host = kvbm(vec![tier(Medium::Host, 100)]);
    let with = run(&cluster(1, roomy.clone()), Some(host), one_ms(), &a_b_a());
    let without = run(&cluster(1, roomy), None, one_ms(), &a_b_a());
    assert_eq!(with.requests, without.requests);
    assert_eq!(with.kvbm.expect("there are tiers").fetches, []);
}

#[test]
fn others_go_on_while_kv_comes() {
    // A again at 1,000 ms waits for its KV until 1,049 ms; C, which comes 1 ms later and fits beside it, does not wait.
    let mut arrivals = vec![
        (0, vec![(1, 100)], 2),
        (500 * US, vec![(2, 100)], 2),
        (1_000 * US, vec![(1, 100)], 2),
    ];
    arrivals.push((1_001 * US, vec![(3, 20)], 2));
    let host = kvbm(vec![tier(Medium::Host, 100)]);
    let recording = run(
        &cluster(1, ten_blocks()),
        Some(host),
        one_ms(),
        &workload(&arrivals),
    );
    assert_eq!(ms(recording.requests[3].finish), 1_003.0);
    assert_eq!(ms(recording.requests[2].first_token), 1_050.0);
}

#[test]
fn the_filter_keeps_the_disk_from_what_comes_once() {
    // A host of 6 blocks loses A to B. The disk takes nothing of the first A and B; the second A is computed in part, comes to the
    // host a second time, and then to the disk.
    let disk = TierSpec {
        filter: Some(FilterSpec::default()),
        ..tier(Medium::Disk(speed(1)), 100)
    };
    let tiers = kvbm(vec![tier(Medium::Host, 6), disk]);
    let recording = run(&cluster(1, ten_blocks()), Some(tiers), one_ms(), &a_b_a());
    let kvbm = recording.kvbm.expect("there are tiers");
    let [host, disk] = kvbm.tiers[..] else {
        panic!("two tiers");
    };
    assert_eq!((host.evicted_blocks, host.peak_blocks), (9, 6));
    // Computed again: the 3 blocks that the cache had lost.
    assert_eq!(host.offloaded_blocks, 6 + 6 + 3);
    assert_eq!((disk.filtered_blocks, disk.offloaded_blocks), (12, 3));
}

#[test]
fn what_the_host_lost_comes_back_from_the_disk() {
    // A host of 6 blocks holds A, then B. The disk, unfiltered, has both: 48 MB over disk and PCIe, 1 ms for each of them.
    let tiers = kvbm(vec![
        tier(Medium::Host, 6),
        tier(Medium::Disk(speed(1)), 100),
    ]);
    let recording = run(&cluster(1, ten_blocks()), Some(tiers), one_ms(), &a_b_a());
    let kvbm = recording.kvbm.expect("there are tiers");
    assert_eq!(kvbm.fetches[0].tokens, [0, 48, 0]);
    assert_eq!(ms(recording.requests[2].first_scheduled), 1_050.0);
}

#[test]
fn an_object_store_is_read_by_all_workers() {
    // Two workers take turns: the second prompt is the first one's, on the other worker. 6 blocks from the store, 96 MB.
    let arrivals = [(0, vec![(1, 100)], 2), (500 * US, vec![(1, 100)], 2)];
    let store = kvbm(vec![tier(Medium::Object(speed(1)), 100)]);
    let recording = run(
        &cluster(2, ten_blocks()),
        Some(store),
        one_ms(),
        &workload(&arrivals),
    );
    let life = recording.requests[1];
    assert_eq!((life.worker, life.cached_tokens), (1, 0));
    let kvbm = recording.kvbm.expect("there is a tier");
    assert_eq!(kvbm.tiers.len(), 1);
    assert_eq!(kvbm.fetches[0].tokens, [0, 0, 96]);
    assert_eq!(ms(life.first_scheduled), 598.0);
}

#[test]
fn on_evict_copies_what_the_cache_loses() {
    let spec = KvbmSpec {
        offload: OffloadPolicy::OnEvict,
        ..kvbm(vec![tier(Medium::Host, 100)])
    };
    let recording = run(&cluster(1, ten_blocks()), Some(spec), one_ms(), &a_b_a());
    let kvbm = recording.kvbm.expect("there is a tier");
    // B evicts 3 blocks of A, A takes 3 of B (7 needed, 3 shared, 1 blank).
    assert_eq!(kvbm.tiers[0].offloaded_blocks, 6);
    assert_eq!(kvbm.fetches[0].tokens, [48, 0, 0]);
}

#[test]
fn what_waits_is_read_up_meanwhile() {
    // Steps of 50 ms and one seat. A host of 6 blocks lost A to B; the disk has both. C takes the seat from 1,000 to 1,150 ms. A
    // again comes at 1,010 ms: the GPU has 3 of its blocks, the next 3 are read from the disk meanwhile, 48 MB in 1 + 48 ms. At
    // 1,150 ms they come from host memory: 1 + 48 ms. Without prefetch they come from the disk, over two links: 2 + 48 ms.
    let arrivals = [
        (0, vec![(1, 100)], 2),
        (500 * US, vec![(2, 100)], 2),
        (1_000 * US, vec![(3, 10)], 3),
        (1_010 * US, vec![(1, 100)], 2),
    ];
    let one_seat = VllmConfig {
        max_num_seqs: 1,
        ..ten_blocks()
    };
    let life = |prefetch: bool| {
        let tiers = KvbmSpec {
            prefetch,
            ..kvbm(vec![
                tier(Medium::Host, 6),
                tier(Medium::Disk(speed(1)), 100),
            ])
        };
        let timing = calibration::Linear::from_ns(50_000_000, 0, 0);
        let spec = cluster(1, one_seat.clone());
        let recording = run(&spec, Some(tiers), timing, &workload(&arrivals));
        let kvbm = recording.kvbm.expect("there are tiers");
        assert_eq!(ms(recording.requests[2].finish), 1_150.0);
        let fetch = kvbm.fetches.last().expect("A is fetched");
        let life = recording.requests[3];
        (
            fetch.tokens,
            ms(life.first_scheduled),
            kvbm.tiers[1].prefetched_blocks,
        )
    };
    assert_eq!(life(true), ([48, 0, 0], 1_199.0, 3));
    assert_eq!(life(false), ([0, 48, 0], 1_200.0, 0));
}
