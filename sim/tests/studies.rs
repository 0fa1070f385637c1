//! The shapes that the studies in `docs/studies.md` show, on workloads small enough to follow, and the oracles.

use engine::vllm::{Eviction, VllmConfig};
use engine::{NewRequest, RequestId, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use sim::event::WorkerId;
use sim::links::{NetworkSpec, Transport};
use sim::router::KvRouterSpec;
use sim::virtual_clock::{self, Decision, Sample};
use sim::{
    Cluster, ClusterSpec, DisaggregationSpec, FrontendSpec, HandoffOrder, LoadSpec, PoolSpec,
    Recording, Regret, Role, RouterSpec,
};
use std::sync::Arc;

/// Arrival (ns), prompt as (content, tokens), output tokens.
type Ask = (u64, Vec<(u32, u32)>, u32);

fn workload(asks: &[Ask]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for (index, (arrival_ns, prompt, output_tokens)) in asks.iter().enumerate() {
        let run = |&(id, len): &(u32, u32)| Run {
            first: WorkloadBuilder::block_token(id, 0),
            len,
        };
        let prompt: Vec<Run> = prompt.iter().map(run).collect();
        builder.push(NewRequest {
            arrival: Time::from_ns(*arrival_ns),
            prompt: &prompt,
            output_tokens: *output_tokens,
            priority: 0,
            session: index as u32,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn engine() -> VllmConfig {
    VllmConfig {
        block_size: 16,
        num_gpu_blocks: 2_000,
        async_scheduling: false,
        ..VllmConfig::default()
    }
}

fn spec(engine: VllmConfig, workers: u32, router: RouterSpec) -> ClusterSpec {
    ClusterSpec {
        pools: vec![pool("agg", engine, workers)],
        router,
        load: LoadSpec::default(),
        frontend: FrontendSpec::default(),
        seed: 3,
        coasting: true,
        disaggregation: None,
        track_block_ids: false,
    }
}

fn pool(name: &str, engine: VllmConfig, workers: u32) -> PoolSpec {
    PoolSpec {
        name: name.to_owned(),
        workers,
        gpus_per_worker: 1,
        engine: engine.into(),
    }
}

/// Base, per new token and per token of context, in nanoseconds.
fn timing(base: u64, new: u64, context: u64, pools: usize) -> Vec<Arc<dyn StepTime>> {
    let linear: Arc<dyn StepTime> = Arc::new(calibration::Linear::from_ns(base, new, context));
    vec![linear; pools]
}

/// Half a millisecond a step, a microsecond per prompt token: 1,000 tokens take 1.5 ms.
fn usual(pools: usize) -> Vec<Arc<dyn StepTime>> {
    timing(500_000, 1_000, 10, pools)
}

fn run(spec: &ClusterSpec, workload: &Arc<Workload>) -> Recording {
    let cluster = Cluster::new(spec, workload.clone());
    virtual_clock::run(cluster, &usual(spec.pools.len()))
}

fn mean_ttft_ms(recording: &Recording) -> f64 {
    let spans = recording
        .sent()
        .map(|(_, record)| record.first_token.since(record.arrival).0);
    spans.sum::<u64>() as f64 / recording.requests.len() as f64 / 1e9
}

/// Draws as `sim::random` mixes them, for workloads only.
fn draw(seed: u64, entity: u64, below: u64) -> u64 {
    let mut z = (seed << 32 ^ entity).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 31)) % below
}

/// Prompts of one of 12 shared beginnings of 1,600 tokens and an end of their own, every `gap_us`.
fn shared_prefixes(count: u64, gap_us: u64) -> Arc<Workload> {
    let ask = |index: u64| {
        let beginning = draw(1, index, 12) as u32;
        let own = (1_000 + index as u32, 100 + draw(2, index, 200) as u32);
        let output = 5 + draw(3, index, 20) as u32;
        (
            index * gap_us * 1_000,
            vec![(beginning, 1_600), own],
            output,
        )
    };
    workload(&(0..count).map(ask).collect::<Vec<Ask>>())
}

const KV: fn() -> RouterSpec = || RouterSpec::Kv(KvRouterSpec::default());

#[test]
fn kv_routing_lowers_ttft_where_prefixes_repeat_and_the_more_the_busier() {
    // A pool holds about four of the twelve beginnings beside what runs.
    let small = VllmConfig {
        num_gpu_blocks: 600,
        ..engine()
    };
    let gain = |gap_us: u64| {
        let workload = shared_prefixes(600, gap_us);
        let of = |router: RouterSpec| {
            mean_ttft_ms(&run(&spec(small.clone(), 4, router.clone()), &workload))
        };
        1.0 - of(KV()) / of(RouterSpec::RoundRobin)
    };
    let (idle, busy) = (gain(2_000), gain(600));
    assert!(idle > 0.2 && busy > idle, "{idle} {busy}");
}

fn over(transport: Transport) -> NetworkSpec {
    let preset = transport.preset();
    NetworkSpec {
        bytes_per_s: preset.bytes_per_s,
        per_gpu: false,
        core_bytes_per_s: None,
        latency: preset.latency,
        setup: Span::ZERO,
    }
}

/// A GPU for each part.
fn disaggregated(network: NetworkSpec, load: LoadSpec) -> ClusterSpec {
    ClusterSpec {
        pools: vec![pool("prefill", engine(), 1), pool("decode", engine(), 1)],
        load,
        disaggregation: Some(DisaggregationSpec {
            roles: vec![Role::Prefill, Role::Decode],
            order: HandoffOrder::SourceFirst,
            conditional: None,
            network,
            overlap: sim::disaggregation::Overlap::Chunk,
            topology: None,
            domain: None,
            kv_bytes_per_token: 131_072,
            failure_rate: 0.0,
        }),
        ..spec(engine(), 1, RouterSpec::RoundRobin)
    }
}

#[test]
fn what_a_decode_gpu_of_its_own_gives_grows_with_the_prompt() {
    // Ten at a time, answers of 50 tokens; prompts that nobody shares. One GPU that does all, against one for each part.
    let load = LoadSpec {
        concurrency: Some(10),
        ..LoadSpec::default()
    };
    let gains = [1_000, 2_000, 4_000, 8_000].map(|tokens| {
        let ask = |index: u32| (0, vec![(index, tokens)], 50);
        let workload = workload(&(0..100).map(ask).collect::<Vec<Ask>>());
        let end = |spec: &ClusterSpec| {
            // A prompt token takes 20 us, a step 6 ms besides: an H100 and a model of 8 billion parameters.
            let timing = timing(6_000_000, 20_000, 20, spec.pools.len());
            let recording = virtual_clock::run(Cluster::new(spec, workload.clone()), &timing);
            let ends = recording.sent().map(|(_, record)| record.finish);
            ends.max().expect("requests were sent").as_s()
        };
        let small = VllmConfig {
            num_gpu_blocks: 8_000,
            ..engine()
        };
        let together = ClusterSpec {
            load,
            ..spec(small.clone(), 1, RouterSpec::RoundRobin)
        };
        let mut apart = disaggregated(over(Transport::Efa), load);
        for pool in &mut apart.pools {
            pool.engine = small.clone().into();
        }
        end(&together) / end(&apart) - 1.0
    });
    // Nothing at 1,000 tokens; then more and more, until at 8,000 the one that prefills has no time left.
    assert!(gains[0] < 0.0 && 0.05 < gains[1], "{gains:?}");
    assert!(gains[1] < gains[2] && 0.05 < gains[3], "{gains:?}");
}

#[test]
fn a_slower_network_never_lowers_ttft() {
    let workload = shared_prefixes(300, 2_500);
    let ttft = [
        Transport::NvLink,
        Transport::InfinibandNdr,
        Transport::Roce,
        Transport::Efa,
        Transport::Tcp,
    ]
    .map(|transport| {
        let spec = disaggregated(over(transport), LoadSpec::default());
        mean_ttft_ms(&run(&spec, &workload))
    });
    assert!(ttft.is_sorted() && ttft[4] > 1.2 * ttft[0], "{ttft:?}");
}

fn hit_tokens(recording: &Recording) -> u64 {
    recording.workers.iter().map(|it| it.hit_tokens).sum()
}

/// A pool without end finds at least what Belady's order finds in a small one, and that at least what LRU finds.
#[test]
fn eviction_oracles_bound_lru() {
    let workload = shared_prefixes(400, 3_000);
    for router in [RouterSpec::RoundRobin, KV()] {
        let hits = |blocks: u32, eviction: Eviction| {
            let engine = VllmConfig {
                num_gpu_blocks: blocks,
                eviction,
                ..engine()
            };
            hit_tokens(&run(&spec(engine, 2, router.clone()), &workload))
        };
        let endless = hits(1_000_000, Eviction::Lru);
        let belady = hits(400, Eviction::Belady);
        let lru = hits(400, Eviction::Lru);
        assert!(endless > belady && belady > lru, "{endless} {belady} {lru}");
    }
}

#[test]
fn oracles_coast_as_they_step() {
    let workload = shared_prefixes(300, 700);
    let belady = VllmConfig {
        num_gpu_blocks: 400,
        eviction: Eviction::Belady,
        ..engine()
    };
    for (engine, router) in [
        (belady.clone(), RouterSpec::RoundRobin),
        (belady.clone(), KV()),
        (
            VllmConfig {
                async_scheduling: true,
                ..belady
            },
            RouterSpec::LeastLoaded,
        ),
        (engine(), RouterSpec::Clairvoyant),
    ] {
        let coasting = spec(engine, 3, router.clone());
        let stepping = ClusterSpec {
            coasting: false,
            ..coasting.clone()
        };
        let (a, b) = (run(&coasting, &workload), run(&stepping, &workload));
        assert_eq!(a.requests, b.requests, "{router:?}");
        assert_eq!(a.workers, b.workers, "{router:?}");
    }
}

#[test]
fn a_clairvoyant_router_does_better_than_one_that_guesses() {
    let small = VllmConfig {
        num_gpu_blocks: 600,
        ..engine()
    };
    let workload = shared_prefixes(600, 700);
    let ttft =
        |router: RouterSpec| mean_ttft_ms(&run(&spec(small.clone(), 4, router.clone()), &workload));
    let oracle = ttft(RouterSpec::Clairvoyant);
    for router in [
        RouterSpec::RoundRobin,
        RouterSpec::LeastLoaded,
        RouterSpec::PowerOfTwo,
    ] {
        let real = ttft(router.clone());
        assert!(oracle < real, "{router:?}: {oracle} {real}");
    }
}

fn sample(decisions: usize) -> Sample {
    Sample {
        decisions,
        seed: 11,
        horizon: Span::from_ns(1_000_000_000),
    }
}

/// Two workers, a step takes 1,000 ns and 10 ns per prompt token, answers of one token.
///
/// * 0 at 0 ns, 100 tokens: round robin takes worker 0, 2,000 ns.
/// * 1 at 500 ns, 20 tokens: worker 1, 1,200 ns, until 1,700.
/// * 2 at 600 ns, 10 tokens: worker 0, which is busy until 2,000; then 1,100 ns, until 3,100.
///
/// What if:
/// * 0 had gone to worker 1: then 1 to worker 0, and 2 to worker 1, busy until 2,000: the names are swapped, nothing else.
/// * 1 had gone to worker 0: it waits until 2,000, and its turn leaves 2 to worker 1, which is idle: 1,100 ns, until 1,700.
///   1 alone in its step: until 3,200.
/// * 2 had gone to worker 1: that is busy until 1,700; then until 2,800.
fn by_hand() -> (Arc<Workload>, Vec<Arc<dyn StepTime>>) {
    let asks = [(0, 100), (500, 20), (600, 10)];
    let ask = |(index, (at, tokens)): (usize, &(u64, u32))| (*at, vec![(index as u32, *tokens)], 1);
    let asks: Vec<Ask> = asks.iter().enumerate().map(ask).collect();
    (workload(&asks), timing(1_000, 10, 0, 1))
}

#[test]
fn regret_of_round_robin_by_hand() {
    let (workload, timing) = by_hand();
    let spec = spec(engine(), 2, RouterSpec::RoundRobin);
    let cluster = Cluster::new(&spec, workload);
    let plain = virtual_clock::run(cluster.clone(), &timing);
    let (recording, decisions) = virtual_clock::run_with_regret(cluster, &timing, sample(3));
    assert_eq!(recording, plain, "looking changes nothing");
    let ns = |span: Span| span.0 / 1_000;
    let brief = |it: &Decision| {
        let Decision {
            request: RequestId(request),
            chosen,
            second,
        } = *it;
        let all_ns = (chosen.all_e2e_ps / 1_000, second.all_e2e_ps / 1_000);
        let workers = (chosen.worker.0, second.worker.0);
        (request, workers, (ns(chosen.e2e), ns(second.e2e)), all_ns)
    };
    // E2E of all in the run: 2,000 + 1,200 + 2,500.
    assert_eq!(
        decisions.iter().map(brief).collect::<Vec<_>>(),
        [
            (0, (0, 1), (2_000, 2_000), (5_700, 5_700)),
            (1, (1, 0), (1_200, 2_700), (5_700, 2_000 + 2_700 + 1_100)),
            (2, (0, 1), (2_500, 2_200), (5_700, 2_000 + 1_200 + 2_200)),
        ]
    );
    assert!(decisions.iter().all(|it| it.chosen.ttft == it.chosen.e2e));
    let regret = Regret::new(sample(3), &decisions);
    let close = |found: f64, ns: f64| (found * 1e6 - ns).abs() < 1e-6;
    let e2e = regret.e2e_ms;
    assert_eq!((regret.sampled, regret.compared), (3, 3));
    assert!(close(e2e.chosen_mean, 5_700.0 / 3.0) && close(e2e.second_mean, 6_900.0 / 3.0));
    assert!(close(e2e.regret_mean, 100.0) && close(e2e.regret_max, 300.0));
    assert!((e2e.second_better_share - 1.0 / 3.0).abs() < 1e-12);
    // 0, 100 and -300 ns saved.
    assert!(close(e2e.saved_all_mean, -200.0 / 3.0), "{e2e:?}");
}

/// Of the three above, 2 is sent 100 ns after 1 is placed: with a horizon of 50 ns it does not count.
#[test]
fn a_short_horizon_leaves_out_who_comes_later() {
    let (workload, timing) = by_hand();
    let cluster = Cluster::new(&spec(engine(), 2, RouterSpec::RoundRobin), workload);
    let short = Sample {
        horizon: Span::from_ns(50),
        ..sample(3)
    };
    let (_, decisions) = virtual_clock::run_with_regret(cluster, &timing, short);
    let all_ns = |it: &Decision| [it.chosen, it.second].map(|taken| taken.all_e2e_ps / 1_000);
    let all: Vec<[u128; 2]> = decisions.iter().map(all_ns).collect();
    assert_eq!(all, [[2_000, 2_000], [3_200, 4_700], [5_700, 5_400]]);
}

#[test]
fn a_clairvoyant_router_by_hand() {
    let (workload, timing) = by_hand();
    let spec = spec(engine(), 2, RouterSpec::Clairvoyant);
    let cluster = Cluster::new(&spec, workload);
    let (recording, decisions) = virtual_clock::run_with_regret(cluster, &timing, sample(3));
    let workers: Vec<u32> = recording.requests.iter().map(|it| it.worker).collect();
    assert_eq!(workers, [0, 1, 1]);
    // Nobody does better by going elsewhere.
    assert_eq!(decisions.len(), 3);
    assert!(decisions.iter().all(|it| it.second.e2e >= it.chosen.e2e));
    assert!(
        decisions
            .iter()
            .all(|it| it.second.worker != it.chosen.worker)
    );
    assert_eq!(decisions[2].second.worker, WorkerId(0));
}

#[test]
fn regret_is_the_same_every_time_and_of_every_router() {
    let workload = shared_prefixes(120, 700);
    let queued = KvRouterSpec {
        queue_threshold: Some(0.01),
        ..KvRouterSpec::default()
    };
    for router in [
        RouterSpec::Random,
        RouterSpec::LeastLoaded,
        RouterSpec::SessionAffinity {
            ttl: Span(1_000_000_000_000_000),
        },
        KV(),
        RouterSpec::Kv(queued),
        RouterSpec::Clairvoyant,
    ] {
        let cluster = Cluster::new(&spec(engine(), 3, router.clone()), workload.clone());
        let ask = || virtual_clock::run_with_regret(cluster.clone(), &usual(1), sample(20));
        let (recording, decisions) = ask();
        assert_eq!((recording, decisions.clone()), ask(), "{router:?}");
        assert!(!decisions.is_empty(), "{router:?}");
        for decision in &decisions {
            assert_ne!(decision.chosen.worker, decision.second.worker);
        }
    }
}
