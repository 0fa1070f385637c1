//! Random cases beyond what the oracle knows: schedulers of SGLang and TensorRT-LLM, two pools of different engines, step times made of many
//! pieces, longer answers. Workloads, vLLM's engines and routers are those of the oracle's random scenarios.

use std::sync::Arc;

use calibration::{Polynomial, PolynomialSpec};
use engine::sglang::{SglangConfig, SglangDrafts, SglangPolicy};
use engine::trtllm::{CapacityPolicy, TrtllmConfig};
use engine::{
    AcceptanceMode, DraftMethod, EngineConfig, HostPool, Span, Speculation, StepTime, WritePolicy,
};
use sim::disaggregation::conditional::IslBounding;
use sim::disaggregation::{
    Conditional, DisaggregationSpec, DomainPolicy, Enforcement, HandoffOrder, Overlap, Role,
};
use sim::host::{PrefetchPolicy, StorageSpec};
use sim::kvbm::spec::{Medium, OffloadPolicy, Speed, TierSpec};
use sim::kvbm::{Eviction, FilterSpec};
use sim::links::placement::{Nodes, Placement};
use sim::links::topology::{Domain, NvLink, NvLinkReach};
use sim::links::{NetworkSpec, Topology};
use sim::router::{KvRouterSpec, PrefillLoadModel};
use sim::{HostSpec, KvbmSpec, PoolSpec, RouterSpec};

use crate::fast::{Case, config, workload_sent_ahead};
use crate::oracle::dice::Dice;
use crate::oracle::random::scenario;
use crate::oracle::scenario::{Engine, Scenario};
use crate::timing::Zigzag;

/// The polynomial's steps take about this long.
const POLYNOMIAL_STEP_NS: u64 = 10_000_000;
/// Seeds of second engines lie beyond those of scenarios.
const SECOND_ENGINE: u64 = 1 << 40;

/// The case of a seed.
pub fn case(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0xca5e);
    let mut scenario = scenario(seed);
    if dice.chance(25) {
        let factor = dice.pick(&[3, 10]);
        lengthen(&mut scenario, factor);
    }
    let kinds = [TimingKind::draw(&mut dice), TimingKind::draw(&mut dice)];
    let mut engines = vec![scenario.engine.clone()];
    if dice.chance(35) {
        engines.push(second_engine(seed, &scenario));
    }
    if kinds[..engines.len()].contains(&TimingKind::Polynomial) {
        slow_down(&mut scenario, POLYNOMIAL_STEP_NS);
    }
    let mut case = Case::of(&scenario);
    let linear = case.timing[0].clone();
    let pool = |(index, engine): (usize, &Engine)| PoolSpec {
        name: format!("pool {index}"),
        workers: dice.pick(&[1, 1, 2, 3]),
        gpus_per_worker: 1,
        engine: match dice.between(0, 9) {
            0..=3 => sglang(&mut dice, engine).into(),
            4..=5 => trtllm(&mut dice, engine).into(),
            _ => config(engine).into(),
        },
    };
    case.spec.pools = engines.iter().enumerate().map(pool).collect();
    let timing = |(kind, pool): (&TimingKind, &PoolSpec)| match kind {
        TimingKind::Linear => linear.clone(),
        TimingKind::Zigzag => Arc::new(Zigzag {
            seed,
            base: Span::from_ns(tick_ns(&scenario)),
        }),
        TimingKind::Polynomial => polynomial(&pool.engine),
    };
    case.timing = kinds.iter().zip(&case.spec.pools).map(timing).collect();
    if let RouterSpec::Kv(kv) = &mut case.spec.router
        && dice.chance(33)
    {
        kv.prefill_load_model = PrefillLoadModel::Estimated;
    }
    if dice.chance(25) {
        case.workload = workload_sent_ahead(&scenario, &mut dice);
    }
    case
}

/// The case of a seed, or of the next one whose pools all run vLLM, with prefill and decode on the workers of two pools.
pub fn disaggregated(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0xd15a);
    let hands_over = |case: &Case| {
        let mut pools = case.spec.pools.iter();
        pools.all(|pool| pool.engine.as_vllm().is_some())
    };
    let mut candidates = (0..).map(|more| case(seed + more * 1_000_003));
    let mut case = candidates
        .find(hands_over)
        .expect("there is no end of them");
    if case.spec.pools.len() < 2 {
        let again = (case.spec.pools[0].clone(), case.timing[0].clone());
        case.spec.pools.push(again.0);
        case.timing.push(again.1);
    }
    let (source, decode, destination) = (
        HandoffOrder::SourceFirst,
        HandoffOrder::DecodeFirst,
        HandoffOrder::DestinationFirst,
    );
    let bounds = IslBounding {
        max_tokens: 30,
        max_ratio: 0.7,
    };
    // A step takes some milliseconds at most; a prompt of a hundred tokens from a hundredth of that to a hundred times.
    let rates = [1_000_000, 10_000_000, 1_000_000_000, 100_000_000_000];
    case.spec.disaggregation = Some(DisaggregationSpec {
        roles: vec![Role::Prefill, Role::Decode],
        order: dice.pick(&[source, source, decode, destination]),
        conditional: dice.pick(&[
            None,
            None,
            None,
            Some(Conditional::IslBounding(bounds)),
            Some(Conditional::PrefillLoad { threshold: 0.5 }),
            Some(Conditional::IslOrLoad(bounds, 0.5)),
            Some(Conditional::NonCached { max_tokens: 30 }),
        ]),
        network: NetworkSpec {
            bytes_per_s: dice.pick(&rates),
            per_gpu: false,
            core_bytes_per_s: dice.pick(&[None, None, Some(5_000_000)]),
            latency: Span::from_ns(dice.pick(&[0, 1_000, 500_000])),
            setup: Span::from_ns(dice.pick(&[0, 0, 5_000_000])),
        },
        overlap: Overlap::Chunk,
        topology: None,
        domain: None,
        kv_bytes_per_token: dice.pick(&[1, 100, 1_000]),
        failure_rate: dice.pick(&[0.0, 0.0, 0.0, 0.2]),
    });
    wire(&mut dice, &mut case);
    if dice.chance(35) {
        hand_over_as_sglang(&mut dice, &mut case);
    }
    case
}

/// The same, or that of the next seed whose workers run vLLM: tiers and planners beside SGLang's hand-over are refused.
pub fn disaggregated_on_vllm(seed: u64) -> Case {
    let can = |case: &Case| case.spec.pools[0].engine.as_vllm().is_some();
    let mut candidates = (0..).map(|more| disaggregated(seed + more * 1_000_003));
    candidates.find(can).expect("there is no end of them")
}

/// The same sizes in SGLang's two servers.
fn hand_over_as_sglang(dice: &mut Dice, case: &mut Case) {
    for (index, pool) in case.spec.pools.iter_mut().enumerate() {
        let vllm = pool.engine.as_vllm().expect("both run vLLM").clone();
        let page_size = dice.pick(&[1, vllm.block_size]);
        let chunk = page_size * dice.between(1, 30) as u32;
        let config = SglangConfig {
            max_total_tokens: vllm.usable_blocks() * vllm.block_size,
            max_running_requests: vllm.max_num_seqs,
            chunked_prefill_size: dice.chance(75).then_some(chunk),
            max_prefill_tokens: vllm.max_num_batched_tokens,
            schedule_policy: dice.pick(&[SglangPolicy::Fcfs, SglangPolicy::Lpm]),
            schedule_conservativeness: dice.pick(&[0.1, 1.0]),
            disable_radix_cache: dice.chance(20),
            mixed_chunk: false,
            page_size,
            context_length: vllm.max_model_len.max(8),
            ignore_eos: dice.chance(25),
            num_reserved_decode_tokens: Some(dice.pick(&[0, 1, 8, 40])),
            ..SglangConfig::default()
        };
        pool.engine = EngineConfig::from(config).as_decoder(index > 0);
    }
    let spec = case.spec.disaggregation.as_mut().expect("it hands over");
    spec.order = HandoffOrder::DestinationFirst;
    spec.conditional = None;
    spec.failure_rate = 0.0;
}

/// Half of the cases get nodes, racks and zones; some keep both workers of a request together, some move layer by layer.
fn wire(dice: &mut Dice, case: &mut Case) {
    let spec = case.spec.disaggregation.as_mut().expect("it hands over");
    let overlaps = [
        Overlap::None,
        Overlap::Chunk,
        Overlap::Layer(2),
        Overlap::Layer(32),
    ];
    spec.overlap = dice.pick(&overlaps);
    if dice.chance(50) {
        return;
    }
    let pools = &mut case.spec.pools;
    for pool in pools.iter_mut() {
        pool.gpus_per_worker = dice.pick(&[1, 1, 2, 3, 4]);
    }
    let gpus: Vec<u32> = (pools.iter())
        .flat_map(|pool| std::iter::repeat_n(pool.gpus_per_worker, pool.workers as usize))
        .collect();
    let gpus_per_node = dice.pick(&[1, 2, 4]);
    let nodes = Nodes {
        gpus: gpus_per_node,
        count: None,
    };
    let how = dice.pick(&[0, 1]);
    let placement = [Placement::Packed, Placement::Spread][how].place(&gpus, nodes);
    let reach = dice.pick(&[None, Some(NvLinkReach::Node), Some(NvLinkReach::Rack)]);
    spec.topology = Some(Topology {
        gpus_per_node,
        nics_per_node: dice.pick(&[1, gpus_per_node, 2 * gpus_per_node]),
        nics_reach_own_node: true,
        nvlink: reach.map(|reach| NvLink {
            reach,
            bytes_per_s: 20_000_000,
            latency: Span::from_ns(700),
        }),
        nodes_per_rack: dice.pick(&[None, Some(1), Some(2)]),
        racks_per_zone: dice.pick(&[None, Some(1), Some(2)]),
        has_rails: dice.chance(50),
        leaf_oversubscription: dice.pick(&[None, Some(1.0), Some(3.5)]),
        spine_oversubscription: dice.pick(&[None, Some(2.0)]),
        placement: placement.expect("there are nodes enough"),
    });
    let enforcement = dice.pick(&[Enforcement::Required, Enforcement::Preferred(0.85)]);
    let domain = dice.pick(&[Domain::Host, Domain::Rack, Domain::Zone]);
    spec.domain = dice.chance(40).then_some(DomainPolicy {
        domain,
        enforcement,
    });
}

/// The case of a seed with stages, ranks and drafts, as far as its engines have them; expected acceptance more often than drawn.
pub fn parallel(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0x9a7b);
    let mut case = case(seed);
    for pool in &mut case.spec.pools {
        match &mut pool.engine {
            EngineConfig::Vllm(config) => {
                config.async_scheduling = false;
                if dice.chance(15) {
                    config.pipeline_parallel_size = dice.pick(&[2, 3, 4]);
                    pool.gpus_per_worker = config.pipeline_parallel_size;
                    continue;
                }
                if dice.chance(50) {
                    config.data_parallel_size = dice.pick(&[2, 3, 4]);
                    pool.gpus_per_worker = config.data_parallel_size;
                }
                if config.data_parallel_size == 1 || dice.chance(60) {
                    config.speculation = Some(speculation(&mut dice, seed));
                }
            }
            EngineConfig::Sglang(config) => {
                if dice.chance(25) {
                    config.pp_size = dice.pick(&[2, 3, 4]);
                    config.pp_max_micro_batch_size = dice.pick(&[None, None, Some(2)]);
                    pool.gpus_per_worker = config.pp_size;
                    continue;
                }
                if dice.chance(50) {
                    config.dp_size = dice.pick(&[2, 3, 4]);
                    pool.gpus_per_worker = config.dp_size;
                }
                if config.dp_size == 1 || dice.chance(60) {
                    let drafts = SglangDrafts::chain(speculation(&mut dice, seed));
                    let topk = dice.pick(&[1, 1, 2]);
                    config.mixed_chunk = false;
                    config.speculation = Some(SglangDrafts {
                        topk,
                        num_draft_tokens: drafts.num_draft_tokens + topk - 1,
                        ..drafts
                    });
                }
            }
            EngineConfig::Trtllm(config) => {
                if dice.chance(25) {
                    config.capacity_scheduler_policy = CapacityPolicy::GuaranteedNoEvict;
                    config.pipeline_parallel_size = dice.pick(&[2, 3, 4]);
                    pool.gpus_per_worker = config.pipeline_parallel_size;
                    continue;
                }
                if dice.chance(50) {
                    config.attention_dp_size = dice.pick(&[2, 3, 4]);
                    pool.gpus_per_worker = config.attention_dp_size;
                }
                let drafts = speculation(&mut dice, seed);
                let fits = drafts.num_speculative_tokens < config.max_num_tokens;
                if fits && (config.attention_dp_size == 1 || dice.chance(60)) {
                    config.speculation = Some(drafts);
                }
            }
        }
    }
    case
}

fn speculation(dice: &mut Dice, seed: u64) -> Speculation {
    let drafts = dice.between(1, 7);
    let rates = [0.0, 0.31, 0.62, 0.85, 0.97];
    let acceptance_rates = (0..drafts).map(|_| dice.pick(&rates)).collect();
    Speculation {
        method: dice.pick(&[
            DraftMethod::Mtp,
            DraftMethod::Ngram,
            DraftMethod::DraftModel,
        ]),
        num_speculative_tokens: drafts as u32,
        acceptance_rates,
        mode: if dice.chance(75) {
            AcceptanceMode::Expected
        } else {
            AcceptanceMode::Sampled { seed }
        },
    }
}

/// The case of a seed with tiers below the GPUs of the pools that run vLLM and do not decode for others; one in three has
/// prefill and decode on different workers.
pub fn tiered(seed: u64) -> Case {
    let mut dice = Dice::new(seed, 0x71e2);
    let mut case = if dice.chance(33) {
        disaggregated_on_vllm(seed)
    } else {
        let runs_others = dice.chance(40);
        let can = |case: &Case| match &case.spec.pools[0].engine {
            engine if engine.speculation().is_some() => false,
            EngineConfig::Vllm(_) => !runs_others,
            EngineConfig::Sglang(config) => runs_others && !config.disable_radix_cache,
            EngineConfig::Trtllm(config) => runs_others && config.enable_block_reuse,
        };
        let mut candidates = (0..).map(|more| case(seed + more * 1_000_003));
        candidates.find(can).expect("there is no end of them")
    };
    if dice.chance(30) {
        let mut kv = KvRouterSpec::default();
        kv.weights.shared_cache_multiplier = 0.5;
        case.spec.router = RouterSpec::Kv(kv);
        // Such a router counts in blocks of one size.
        case.spec
            .pools
            .truncate(case.spec.disaggregation.as_ref().map_or(1, |_| 2));
        let block_size = case.spec.pools[0].engine.block_size();
        let same = |pool: &PoolSpec| pool.engine.block_size() == block_size;
        if !case.spec.pools.iter().all(same) {
            case.spec.router = RouterSpec::RoundRobin;
        }
        case.timing.truncate(case.spec.pools.len());
    }
    let kvbm = tiers(&mut dice);
    let is_shared = |tier: &TierSpec| matches!(tier.medium, Medium::Object(_));
    let mut has_store = false;
    let of_pool = |(index, pool): (usize, &PoolSpec)| {
        let decodes = case.spec.disaggregation.is_some() && index > 0;
        let mut kvbm = kvbm.clone();
        // An object store holds blocks of one size.
        let is_apart = case.spec.disaggregation.is_none();
        kvbm.tiers
            .retain(|tier| !(is_shared(tier) && has_store && is_apart));
        has_store |= kvbm.tiers.iter().any(is_shared);
        // Nobody reads what a decode worker keeps for itself.
        kvbm.tiers.retain(|tier| !decodes || is_shared(tier));
        let can = pool.engine.does_parts() && !kvbm.tiers.is_empty();
        can.then_some(kvbm)
    };
    case.kvbm = case.spec.pools.iter().enumerate().map(of_pool).collect();
    let mut storage = None;
    let mut of_pool = |pool: &PoolSpec| {
        let config = match &pool.engine {
            engine if engine.speculation().is_some() => return None,
            EngineConfig::Vllm(_) => return None,
            EngineConfig::Trtllm(config) => {
                return config
                    .enable_block_reuse
                    .then(|| secondary(&mut dice, config));
            }
            EngineConfig::Sglang(config) => config,
        };
        let mut host = (!config.disable_radix_cache).then(|| host_memory(&mut dice, config))?;
        // There is one storage, of pages of one size.
        let page = config.page_size;
        match &storage {
            None => storage = host.storage.map(|storage| (page, storage)),
            Some((size, one)) => host.storage = (page == *size).then_some(*one),
        }
        Some(host)
    };
    case.hosts = case.spec.pools.iter().map(&mut of_pool).collect();
    case
}

/// TensorRT-LLM's, of any size.
fn secondary(dice: &mut Dice, config: &TrtllmConfig) -> HostSpec {
    let rate = dice.pick(&[10_000_000, 1_000_000_000, 100_000_000_000]);
    HostSpec {
        pool: HostPool {
            tokens: config.tokens_per_block * dice.between(1, 200) as u32,
            write_policy: WritePolicy::WriteBack,
            has_storage: false,
        },
        pcie: Speed {
            read_bytes_per_s: rate,
            write_bytes_per_s: rate,
            read_latency: Span::from_ns(dice.pick(&[0, 1_000, 500_000])),
            write_latency: Span::from_ns(0),
        },
        kv_bytes_per_token: dice.pick(&[1, 100, 1_000]),
        layers: 1,
        storage: None,
    }
}

/// Somewhat larger than the pool, as fast as steps or much slower.
fn host_memory(dice: &mut Dice, config: &SglangConfig) -> HostSpec {
    let rates = [10_000_000, 1_000_000_000, 100_000_000_000];
    let speed = |dice: &mut Dice| Speed {
        read_bytes_per_s: dice.pick(&rates),
        write_bytes_per_s: dice.pick(&rates),
        read_latency: Span::from_ns(dice.pick(&[0, 1_000, 500_000])),
        write_latency: Span::from_ns(dice.pick(&[0, 1_000, 500_000])),
    };
    HostSpec {
        pcie: speed(dice),
        storage: dice.chance(50).then(|| StorageSpec {
            pages: dice.between(1, 4_000) as u64,
            speed: speed(dice),
            policy: dice.pick(&[
                PrefetchPolicy::BestEffort,
                PrefetchPolicy::WaitComplete,
                PrefetchPolicy::Timeout {
                    base: Span::from_ns(100_000),
                    per_ki_token: Span::from_ns(10_000_000),
                },
            ]),
            threshold_tokens: dice.between(0, 50) as u32,
        }),
        pool: HostPool {
            tokens: config.usable_tokens() + dice.between(1, 2_000) as u32,
            write_policy: dice.pick(&[
                WritePolicy::WriteThrough,
                WritePolicy::WriteThroughSelective,
                WritePolicy::WriteBack,
            ]),
            has_storage: false,
        },
        kv_bytes_per_token: dice.pick(&[1, 100, 1_000]),
        layers: dice.between(1, 40) as u32,
    }
}

/// One to three tiers, small enough to be full soon, some of them slow.
fn tiers(dice: &mut Dice) -> KvbmSpec {
    let rates = [1_000_000, 10_000_000, 1_000_000_000, 100_000_000_000];
    let speed = |dice: &mut Dice| Speed {
        read_bytes_per_s: dice.pick(&rates),
        write_bytes_per_s: dice.pick(&rates),
        read_latency: Span::from_ns(dice.pick(&[0, 1_000, 500_000])),
        write_latency: Span::from_ns(dice.pick(&[0, 1_000, 500_000])),
    };
    let pcie = speed(dice);
    let media = [
        Medium::Host,
        Medium::Disk(speed(dice)),
        Medium::Object(speed(dice)),
    ];
    let which = dice.between(1, 7);
    let chosen = (0..3).filter(|index| which & (1 << index) != 0);
    let tier = |index: usize| TierSpec {
        medium: media[index],
        blocks: dice.between(1, 60) as u64,
        eviction: dice.pick(&[
            Eviction::Lru,
            Eviction::Lru,
            Eviction::Frequency,
            Eviction::Priority,
            Eviction::Ttl(Span::from_ns(50_000_000)),
        ]),
        filter: (index == 1 && dice.chance(50)).then(FilterSpec::default),
    };
    let tiers = chosen.map(tier).collect();
    KvbmSpec {
        tiers,
        pcie,
        offload: dice.pick(&[
            OffloadPolicy::WriteThrough,
            OffloadPolicy::WriteThrough,
            OffloadPolicy::OnEvict,
        ]),
        prefetch: dice.chance(40),
        workers_per_node: 2,
        kv_bytes_per_token: dice.pick(&[1, 100, 1_000]),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimingKind {
    Linear,
    Zigzag,
    Polynomial,
}

impl TimingKind {
    fn draw(dice: &mut Dice) -> TimingKind {
        let (linear, zigzag) = (TimingKind::Linear, TimingKind::Zigzag);
        dice.pick(&[linear, zigzag, zigzag, TimingKind::Polynomial])
    }
}

/// The reference simulator's curve for the capacity of a worker.
pub fn polynomial(config: &EngineConfig) -> Arc<dyn StepTime> {
    let polynomial = Polynomial::new(PolynomialSpec::default(), config.usable_tokens());
    Arc::new(polynomial.expect("a worker has a block, and not too many"))
}

/// SGLang with as much memory and as many seats, in pages of a block.
fn sglang(dice: &mut Dice, engine: &Engine) -> SglangConfig {
    let page_size = engine.block_size as u32;
    let chunk = page_size * dice.between(1, 1 + 60 / engine.block_size) as u32;
    let chunked_prefill_size = dice.chance(75).then_some(chunk);
    SglangConfig {
        max_total_tokens: (engine.usable_blocks() * engine.block_size) as u32,
        max_running_requests: engine.max_num_seqs as u32,
        chunked_prefill_size,
        max_prefill_tokens: engine.max_num_batched_tokens as u32,
        schedule_policy: dice.pick(&[
            SglangPolicy::Fcfs,
            SglangPolicy::Lpm,
            SglangPolicy::DfsWeight,
        ]),
        schedule_conservativeness: dice.pick(&[0.05, 0.1, 0.3, 1.0]),
        disable_radix_cache: !engine.enable_prefix_caching,
        mixed_chunk: chunked_prefill_size.is_some() && dice.chance(40),
        page_size,
        context_length: engine.max_model_len.max(8) as u32,
        ignore_eos: dice.chance(25),
        ..SglangConfig::default()
    }
}

/// TensorRT-LLM with as much memory and as many seats.
fn trtllm(dice: &mut Dice, engine: &Engine) -> TrtllmConfig {
    let block = engine.block_size as u32;
    let pauses = dice.chance(50);
    let enable_chunked_prefill = pauses || engine.enable_chunked_prefill;
    TrtllmConfig {
        tokens_per_block: block,
        num_blocks: engine.usable_blocks() as u32,
        max_batch_size: engine.max_num_seqs as u32,
        max_num_tokens: (engine.max_num_batched_tokens as u32).max(block),
        max_seq_len: engine.max_model_len as u32,
        enable_block_reuse: engine.enable_prefix_caching,
        enable_chunked_prefill,
        capacity_scheduler_policy: if pauses {
            CapacityPolicy::MaxUtilization
        } else {
            CapacityPolicy::GuaranteedNoEvict
        },
        ..TrtllmConfig::default()
    }
}

/// An engine with other settings; block sizes are equal, because a KV router counts in one.
fn second_engine(seed: u64, first: &Scenario) -> Engine {
    Engine {
        block_size: first.engine.block_size,
        ..scenario(seed + SECOND_ENGINE).engine
    }
}

/// Longer answers, and room for them.
fn lengthen(scenario: &mut Scenario, factor: usize) {
    for request in &mut scenario.requests {
        request.output_len *= factor;
    }
    let engine = &mut scenario.engine;
    engine.num_gpu_blocks *= factor;
    engine.max_model_len *= factor;
    if !engine.enable_chunked_prefill {
        engine.max_num_batched_tokens = engine.max_num_batched_tokens.max(engine.max_model_len);
    }
}

/// A typical step.
fn tick_ns(scenario: &Scenario) -> u64 {
    let cost = scenario.cost;
    cost.a + 20 * cost.b + 40 * cost.c
}

/// Stretches all waiting so that it means something to steps that take `step_ns`.
fn slow_down(scenario: &mut Scenario, step_ns: u64) {
    let factor = (step_ns / tick_ns(scenario)).max(1);
    for request in &mut scenario.requests {
        request.arrival_ns *= factor;
        for dependency in &mut request.after {
            dependency.delay_ns *= factor;
        }
    }
    if let Some(duration_ns) = &mut scenario.duration_ns {
        *duration_ns *= factor;
    }
}
