//! Scenario files good and bad. A bad file of the corpus ends with the messages it must give, each behind `#! `.

use super::{Axes, Kind, Problems, Set, load, sweep, unknown_field};
use ::engine::Span;
use ::engine::sglang::{SglangConfig, SglangPolicy};
use ::engine::trtllm::{CapacityPolicy, TrtllmConfig};
use ::engine::vllm::{SchedulingPolicy, VllmVersion};
use calibration::{Precision, TimingSpec};
use proptest::prelude::*;
use sim::RouterSpec;
use sim::disaggregation::conditional::IslBounding;
use sim::disaggregation::{Conditional, DisaggregationSpec, HandoffOrder, Overlap};
use sim::links::NetworkSpec;
use std::path::{Path, PathBuf};
use sweeps::scenario::{KvBlocks, Scenario, Source};
use traces::Format;

const FULL: &str = "
schema_version: 1
model: Qwen/Qwen3-32B
gpu: h100_sxm
engine:
  backend: vllm
  version: 0.32.0
  block_size: 32
  max_num_seqs: 64
  max_num_batched_tokens: 4096
  max_model_len: 16384
  enable_prefix_caching: false
  long_prefill_token_threshold: 1024
  scheduler_reserve_full_isl: false
  scheduling_policy: priority
  watermark: 0.01
  async_scheduling: false
  gpu_memory_utilization: 0.85
  kv_cache_dtype: fp8
pools:
  - name: large
    role: aggregated
    workers: 3
    parallel: {tp: 4, pp: 1}
  - name: small
    gpu: h200_sxm
    engine: {num_gpu_blocks: 5000, watermark: null, quantization: fp8}
    timing: {source: polynomial, speedup_ratio: 2}
router: {mode: kv, overlap_score_credit: 0.5}
workload:
  trace: {path: traces/week.jsonl, format: mooncake, block_size: 512, start_s: 60, end_s: 120.5, fraction: 0.5, limit: 1000}
  load: {arrival_speedup_ratio: 2, warmup_requests: 10, duration_s: 600}
sla: {ttft_ms: 500, itl_ms: 25.5}
seed: 18446744073709551615
";

fn read(text: &str, overrides: &[(&str, &str)]) -> Result<Scenario, Problems> {
    let overrides: Vec<Set> = overrides
        .iter()
        .map(|&(field, value)| Set::by_option(field, value))
        .collect();
    load(Some(Path::new("here/scenario.yaml")), text, &overrides)
}

fn good(text: &str, overrides: &[(&str, &str)]) -> Scenario {
    read(text, overrides).unwrap_or_else(|problems| panic!("{problems}"))
}

fn bad(text: &str, overrides: &[(&str, &str)]) -> Vec<String> {
    let problems = read(text, overrides).expect_err("not a scenario");
    problems.0.iter().map(ToString::to_string).collect()
}

#[test]
fn a_handover_is_read() {
    const TEXT: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
pools: [{name: p, role: prefill, workers: 2}, {name: d, role: decode, parallel: {tp: 2}}]
engine: {kv_cache_dtype: fp8}
network: {preset: efa, gb_per_s: 5, setup_ms: 2, core_gb_per_s: 20.5, per_gpu: true}
disaggregation: {order: destination_first, conditional: isl_or_load, max_local_tokens: 100, prefill_load_threshold: 3,
                 transfer_failure_rate: 0.01}
router: {mode: kv}
workload: {trace: {path: trace.jsonl}}
";
    let scenario = good(TEXT, &[]);
    let bounds = IslBounding {
        max_tokens: 100,
        max_ratio: 0.7,
    };
    let network = NetworkSpec {
        bytes_per_s: 5_000_000_000,
        per_gpu: true,
        core_bytes_per_s: Some(20_500_000_000),
        // The preset's.
        latency: Span::from_ns(15_000),
        setup: Span::from_ns(2_000_000),
    };
    let expected = DisaggregationSpec {
        roles: vec![sim::Role::Prefill, sim::Role::Decode],
        order: HandoffOrder::DestinationFirst,
        conditional: Some(Conditional::IslOrLoad(bounds, 3.0)),
        network,
        // 2 x 32 layers x 8 heads x 128 bytes.
        overlap: Overlap::Chunk,
        topology: None,
        domain: None,
        kv_bytes_per_token: 65_536,
        failure_rate: 0.01,
    };
    assert_eq!(scenario.disaggregation, Some(expected));
    let set = [
        ("disaggregation.kv_bytes_per_token", "7"),
        ("network.gb_per_s", "null"),
    ];
    let changed = good(TEXT, &set).disaggregation.expect("two roles");
    assert_eq!(changed.kv_bytes_per_token, 7);
    assert_eq!(changed.network.bytes_per_s, 9_600_000_000);
    let whole = [
        ("pools", "[{name: a}]"),
        ("network", "null"),
        ("disaggregation", "null"),
    ];
    assert_eq!(good(TEXT, &whole).disaggregation, None);
}

#[test]
fn a_full_scenario_is_read() {
    let scenario = good(FULL, &[]);
    let [large, small] = &scenario.pools[..] else {
        panic!("two pools")
    };
    assert_eq!(
        (large.name.as_str(), large.workers, large.parallel.tensor),
        ("large", 3, 4)
    );
    assert_eq!(
        (small.name.as_str(), small.workers, small.parallel.tensor),
        ("small", 1, 1)
    );
    assert_eq!(scenario.gpus(), 3 * 4 + 1);
    let [engine, of_small] = [large, small].map(|pool| pool.engine.as_vllm().expect("vLLM"));
    assert_eq!(
        (engine.version, engine.block_size, engine.max_num_seqs),
        (VllmVersion::V0_32, 32, 64)
    );
    assert_eq!(
        (engine.max_num_batched_tokens, engine.max_model_len),
        (4096, 16_384)
    );
    assert_eq!(
        (engine.enable_prefix_caching, engine.enable_chunked_prefill),
        (false, true)
    );
    assert_eq!(
        (
            engine.long_prefill_token_threshold,
            engine.scheduler_reserve_full_isl
        ),
        (1024, false)
    );
    assert_eq!(
        (engine.policy, engine.async_scheduling),
        (SchedulingPolicy::Priority, false)
    );
    assert_eq!(
        (engine.watermark, of_small.watermark),
        (0.01, 0.0),
        "a null takes back what is below"
    );
    assert_eq!(
        (of_small.num_gpu_blocks, small.kv_blocks),
        (5000, KvBlocks::Given)
    );
    let KvBlocks::Computed(capacity) = large.kv_blocks else {
        panic!("computed")
    };
    assert_eq!(u64::from(engine.num_gpu_blocks), capacity.blocks);
    // fp8 KV of 2 of 8 heads: 2 x 64 layers x 2 x 128 bytes.
    assert_eq!(
        (large.kv_cache, capacity.kv_bytes_per_token_per_gpu),
        (Precision::Fp8, 32_768)
    );
    let weights = |pool: &sweeps::scenario::Pool| pool.model.as_ref().expect("a model").weights;
    assert_eq!(
        (weights(large), weights(small)),
        (Precision::Bf16, Precision::Fp8)
    );
    assert_eq!(
        (large.timing.name(), &large.unmeasured),
        ("measured", &None)
    );
    let TimingSpec::Polynomial(polynomial) = small.timing else {
        panic!("a polynomial")
    };
    assert_eq!(
        (polynomial.speedup_ratio, polynomial.decode_speedup_ratio),
        (2.0, 1.0)
    );
    let RouterSpec::Kv(router) = &scenario.router else {
        panic!("KV-aware")
    };
    assert_eq!(
        (
            router.weights.overlap_score_credit,
            router.weights.prefill_load_scale
        ),
        (0.5, 1.0)
    );
    let Source::Trace(trace) = &scenario.workload.source else {
        panic!("a trace")
    };
    assert_eq!(trace.path, PathBuf::from("here/traces/week.jsonl"));
    assert_eq!(
        (trace.format, trace.block_size, trace.is_strict),
        (Some(Format::Mooncake), Some(512), false)
    );
    assert_eq!(
        (trace.start, trace.end),
        (Some(Span::from_s(60.0)), Some(Span::from_s(120.5)))
    );
    assert_eq!((trace.fraction, trace.limit), (Some(0.5), Some(1000)));
    let load = scenario.workload.load;
    assert_eq!(
        (
            load.arrival_speedup_ratio,
            load.concurrency,
            load.warmup_requests
        ),
        (2.0, None, 10)
    );
    assert_eq!(load.duration, Some(Span::from_s(600.0)));
    let sla = scenario.sla.expect("bounds");
    assert_eq!((sla.ttft_ms, sla.itl_ms), (Some(500.0), Some(25.5)));
    assert_eq!(scenario.seed, u64::MAX);
}

#[test]
fn the_least_scenario_has_defaults_and_says_what_it_guesses() {
    let scenario = good("workload: {synth: {preset: quick}}", &[]);
    let pool = &scenario.pools[0];
    assert_eq!(
        (pool.name.as_str(), pool.workers, pool.timing.name()),
        ("agg", 1, "polynomial")
    );
    assert_eq!(pool.engine, ::engine::vllm::VllmConfig::default().into());
    assert_eq!(
        (scenario.router.clone(), scenario.sla, scenario.seed),
        (RouterSpec::RoundRobin, None, 0)
    );
    assert!(
        scenario.guesses()[0].contains("16384 KV blocks of 16 tokens, a default"),
        "{:?}",
        scenario.guesses()
    );
    assert_eq!(pool.context().capacity_tokens, 16_384 * 16);
}

#[test]
fn a_model_bounds_its_context() {
    let text = "{model: meta-llama/Llama-2-7b-hf, workload: {synth: {preset: quick}}}";
    let longest =
        |overrides: &[(&str, &str)]| good(text, overrides).pools[0].engine.longest_sequence();
    assert_eq!(longest(&[]), Some(4096));
    assert_eq!(longest(&[("engine.max_model_len", "2048")]), Some(2048));
    let sglang = ("engine.backend", "sglang");
    assert_eq!(longest(&[sglang]), Some(4096));
    assert_eq!(
        longest(&[sglang, ("engine.context_length", "100")]),
        Some(100)
    );
}

const SGLANG: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
engine:
  backend: sglang
  version: 0.5.23
  page_size: 16
  schedule_policy: lpm
  schedule_conservativeness: 0.5
  max_prefill_tokens: 4096
  enable_mixed_chunk: true
  disable_overlap_schedule: true
  mem_fraction_static: 0.8
pools:
  - name: large
    engine: {context_length: 8192, max_running_requests: 100}
  - name: unknown
    engine: {chunked_prefill_size: -1, enable_mixed_chunk: false, disable_radix_cache: true, max_total_tokens: 5003}
  - name: other
    engine: {backend: vllm, block_size: 16, page_size: null, schedule_policy: null, schedule_conservativeness: null,
      max_prefill_tokens: null, enable_mixed_chunk: null, disable_overlap_schedule: null, mem_fraction_static: null,
      version: 0.33}
router: {mode: kv}
workload: {synth: {preset: quick}}
";

#[test]
fn sglang_is_read_under_its_own_names() {
    let scenario = good(SGLANG, &[]);
    let [large, unknown, other] = &scenario.pools[..] else {
        panic!("three pools")
    };
    let config = large.engine.as_sglang().expect("SGLang");
    let KvBlocks::Computed(capacity) = large.kv_blocks else {
        panic!("computed")
    };
    assert_eq!(
        *config,
        SglangConfig {
            max_total_tokens: u32::try_from(capacity.tokens).expect("below 2^32"),
            max_running_requests: 100,
            chunked_prefill_size: Some(8192),
            max_prefill_tokens: 4096,
            schedule_policy: SglangPolicy::Lpm,
            schedule_conservativeness: 0.5,
            disable_radix_cache: false,
            mixed_chunk: true,
            page_size: 16,
            context_length: 8192,
            ignore_eos: false,
            ..SglangConfig::default()
        }
    );
    let config = unknown.engine.as_sglang().expect("SGLang");
    assert_eq!(
        (config.chunked_prefill_size, config.mixed_chunk),
        (None, false)
    );
    assert_eq!(
        (config.usable_tokens(), unknown.kv_blocks),
        (4992, KvBlocks::Given)
    );
    assert!(config.disable_radix_cache);
    assert!(other.engine.as_vllm().is_some());
    // The kernels are those of the engine.
    let tables = |pool: &sweeps::scenario::Pool| match &pool.timing {
        TimingSpec::Measured(spec) => spec.tables.name(),
        _ => "none",
    };
    assert_eq!([tables(large), tables(other)], ["sglang", "vllm"]);
    assert_eq!(
        tables(&good(SGLANG, &[("timing.tables", "vllm")]).pools[0]),
        "vllm"
    );
}

#[test]
fn without_hardware_sglang_guesses_its_pool() {
    let text = "{engine: {backend: sglang}, workload: {synth: {preset: quick}}}";
    let scenario = good(text, &[]);
    let config = scenario.pools[0].engine.as_sglang().expect("SGLang");
    // Seats as the server gives for 262,144 tokens.
    let expected = SglangConfig {
        max_running_requests: 2048,
        ..SglangConfig::default()
    };
    assert_eq!(*config, expected);
    assert_eq!(
        scenario.guesses(),
        [
            "pool agg: 262144 tokens of KV, a default, as neither max_total_tokens nor model and gpu are given"
        ]
    );
    let share = [("engine.mem_fraction_static", "0.8")];
    let problems = bad(text, &share);
    assert!(
        problems[0].contains("or give max_total_tokens"),
        "{problems:?}"
    );
}

#[test]
fn a_backend_refuses_the_fields_of_another() {
    let vllm = "{engine: {max_num_seqs: 8}, workload: {synth: {preset: quick}}}";
    let switch = Set::by_option("engine.backend", "sglang");
    let problems = load(None, vllm, std::slice::from_ref(&switch)).expect_err("a field of vLLM");
    // A conflict, so that a sweep over backends goes on with the points that can be.
    assert!(
        problems
            .0
            .iter()
            .all(|problem| problem.kind == Kind::Conflict)
    );
    assert_eq!(
        problems.to_string(),
        "scenario:1:25: engine.max_num_seqs: found a field of the backend vllm, expected fields of sglang; sglang has \
         max_running_requests"
    );
    assert_eq!(
        bad(vllm, &[("engine.ignore_eos", "true")]),
        [
            "--set engine.ignore_eos: engine.ignore_eos: found a field of the backend sglang, expected fields of vllm; set \
          backend to sglang, or remove it"
        ]
    );
    // Taken back, they do no harm; and a sweep may vary them.
    good(
        vllm,
        &[
            ("engine.backend", "sglang"),
            ("engine.max_num_seqs", "null"),
        ],
    );
    for field in ["engine.page_size", "engine.block_size"] {
        assert_eq!(unknown_field(None, vllm, &[], field), None, "{field}");
        assert_eq!(unknown_field(None, SGLANG, &[], field), None, "{field}");
    }
}

#[test]
fn tensorrt_llm_is_read_under_its_own_names() {
    let text = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
engine:
  backend: trtllm
  version: 1.2.0
  max_batch_size: 64
  max_num_tokens: 4096
  capacity_scheduler_policy: MAX_UTILIZATION
  enable_chunked_prefill: true
  context_chunking_policy: FIRST_COME_FIRST_SERVED
  disable_overlap_scheduler: true
  free_gpu_memory_fraction: 0.5
pools:
  - name: large
  - name: given
    engine: {max_tokens: 1000, tokens_per_block: 16, max_seq_len: 500, enable_block_reuse: false}
timing: {source: roofline}
workload: {synth: {preset: quick}}
";
    let scenario = good(text, &[]);
    let [large, given] = &scenario.pools[..] else {
        panic!("two pools")
    };
    let KvBlocks::Computed(capacity) = large.kv_blocks else {
        panic!("computed")
    };
    let expected = TrtllmConfig {
        tokens_per_block: 32,
        num_blocks: u32::try_from(capacity.blocks).expect("below 2^32"),
        max_batch_size: 64,
        max_num_tokens: 4096,
        max_seq_len: 131_072,
        enable_block_reuse: true,
        enable_chunked_prefill: true,
        capacity_scheduler_policy: CapacityPolicy::MaxUtilization,
        ..TrtllmConfig::default()
    };
    assert_eq!(large.engine, expected.clone().into());
    let expected = TrtllmConfig {
        tokens_per_block: 16,
        num_blocks: 62,
        max_seq_len: 500,
        enable_block_reuse: false,
        ..expected
    };
    assert_eq!(given.engine, expected.into());
    // A name that two others share is told with both.
    let sglang = [("engine.backend", "sglang")];
    let problems = bad(
        "{engine: {enable_chunked_prefill: true, version: 0.5.23}, workload: {synth: {preset: quick}}}",
        &sglang,
    );
    assert!(
        problems[0].contains("a field of the backend vllm and trtllm"),
        "{problems:?}"
    );
}

#[test]
fn only_a_kv_router_needs_one_block_size() {
    let other = [("pools.other.engine.block_size", "32")];
    let problems = bad(SGLANG, &other);
    assert_eq!(
        problems,
        [
            "here/scenario.yaml:19:5: pools.other: found block sizes 16 and 32, expected one for all pools, in which a KV \
          router counts"
        ]
    );
    good(SGLANG, &[other[0], ("router.mode", "round-robin")]);
}

#[test]
fn the_page_about_scenarios_tells_the_truth() {
    let page = include_str!("../../docs/scenario.md");
    let example = page
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let text = example.expect("the page shows a scenario");
    let scenario = good(text, &[]);
    let vllm = scenario.pools[0].engine.as_vllm().expect("vLLM");
    assert_eq!(vllm.max_num_seqs, 128);
    assert_eq!(sweep(None, text).expect("the page shows a sweep").len(), 2);
    let table = page
        .split("## engine")
        .nth(1)
        .and_then(|rest| rest.split("## workload").next());
    let fields = table.expect("the page has a section on engines").lines();
    for line in fields.filter(|line| line.starts_with("| `")) {
        let field = line
            .split('`')
            .nth(1)
            .expect("a field stands between ticks");
        assert_eq!(
            unknown_field(None, text, &[], &format!("engine.{field}")),
            None
        );
    }
}

#[test]
fn overrides_reach_every_field() {
    let overrides = [
        ("pools.large.workers", "5"),
        ("pools.1.parallel.tp", "2"),
        ("pools.*.engine.num_gpu_blocks", "777"),
        ("engine.gpu_memory_utilization", "null"),
        ("router.mode", "power_of_two"),
        ("router.overlap_score_credit", "null"),
        ("workload.trace.path", "a: strange #name.jsonl"),
        ("workload.load", "{concurrency: 12}"),
        ("workload.load.warmup_requests", "3"),
        ("seed", "1e3"),
    ];
    let scenario = good(FULL, &overrides);
    assert_eq!(scenario.pools[0].workers, 5);
    assert_eq!(scenario.pools[1].parallel.tensor, 2);
    assert!(
        scenario
            .pools
            .iter()
            .all(|pool| pool.engine.usable_blocks() == 776)
    );
    assert_eq!(scenario.router, RouterSpec::PowerOfTwo);
    let Source::Trace(trace) = &scenario.workload.source else {
        panic!("a trace")
    };
    assert_eq!(
        trace.path,
        PathBuf::from("a: strange #name.jsonl"),
        "from the current folder, as typed"
    );
    let load = scenario.workload.load;
    assert_eq!(
        (
            load.concurrency,
            load.warmup_requests,
            load.arrival_speedup_ratio
        ),
        (Some(12), 3, 1.0)
    );
    assert_eq!(scenario.seed, 1000);
    let synth = good(
        FULL,
        &[
            ("workload.trace", "null"),
            ("workload.synth.preset", "quick"),
        ],
    );
    assert!(matches!(synth.workload.source, Source::Synth(_)));
}

#[test]
fn wrong_overrides_name_themselves() {
    let overrides = [
        ("pools.lrge.workers", "5"),
        ("pools.large.workers.most", "5"),
        ("engine.blok_size", "16"),
        ("engine..x", "1"),
        ("pools.small.workers", "none"),
    ];
    let expected = [
        "--set pools.lrge.workers: pools: found `lrge`, expected one of large, small; did you mean `large`?",
        "--set pools.large.workers.most: pools.large.workers: found `3`, expected a section or a list",
        "--set engine..x: found `engine..x`, expected a field as in `engine.block_size`",
        "--set pools.small.workers: pools.small.workers: found `none`, expected a whole number from 1 to 100000",
        "--set engine.blok_size: engine.blok_size: found an unknown field, expected a known one; did you mean \
         `block_size`?",
    ];
    assert_eq!(bad(FULL, &overrides), expected);
}

#[test]
fn measured_tables_price_what_they_have_unless_another_source_is_chosen() {
    let timing = |overrides: &[(&str, &str)]| {
        let pool = good(FULL, overrides).pools.swap_remove(0);
        (pool.timing.name(), pool.unmeasured)
    };
    assert_eq!(timing(&[]), ("measured", None));
    assert_eq!(timing(&[("timing.step_us", "9")]), ("measured", None));
    let sglang = [
        ("timing.tables", "sglang"),
        ("engine.kv_cache_dtype", "auto"),
    ];
    assert_eq!(timing(&sglang), ("measured", None));
    // A coefficient of the roofline asks for the roofline.
    assert_eq!(timing(&[("timing.kernel_us", "3")]), ("roofline", None));
    assert_eq!(timing(&[("timing.source", "roofline")]), ("roofline", None));
    // What the tables do not have falls back, and says so.
    let overrides = [("gpu", "l40s"), ("pools.large.parallel.tp", "8")];
    let (name, why) = timing(&overrides);
    let why = why.expect("there are no tables of this GPU");
    assert!(name == "roofline" && why.contains("l40s vllm"), "{why}");
    let told = good(FULL, &overrides).guesses();
    let expected = "pool large: not in the measured tables, so a roofline prices it: ";
    assert!(told[0].starts_with(expected), "{told:?}");
    // Asked for, the tables must have it.
    let asked = [overrides.as_slice(), &[("timing.source", "measured")]].concat();
    let problems = bad(FULL, &asked);
    assert!(
        problems[0].contains("one that was measured"),
        "{problems:?}"
    );
    // Fields of two sources do not go together.
    let both = [("timing.tables", "vllm"), ("timing.kernel_us", "3")];
    assert!(bad(FULL, &both)[0].contains("a field of the source roofline"));
}

#[test]
fn mistakes_and_conflicts_are_told_apart() {
    let kinds = |field: &str, value: &str| -> Vec<Kind> {
        let problems = read(FULL, &[(field, value)]).expect_err("not a scenario");
        problems.0.iter().map(|problem| problem.kind).collect()
    };
    for (field, value) in [
        ("router.mode", "kvv"),
        ("engine.max_num_seqs", "many"),
        ("engine.version", "0.1"),
        ("gpu", "h1000"),
        ("model", "no/such.json"),
        ("pools.large.parallel.pp", "0"),
        ("pools.none.workers", "2"),
        ("workload.synth.requests", "-1"),
    ] {
        assert!(kinds(field, value).contains(&Kind::Mistake), "{field}");
    }
    for (field, value) in [
        ("pools.large.parallel.tp", "3"),
        ("pools.large.parallel.tp", "16"),
        ("pools.large.engine.block_size", "64"),
        ("engine.max_num_seqs", "5000"),
        ("router.mode", "random"),
        ("engine.gpu_memory_utilization", "0.1"),
        ("workload.trace.end_s", "1"),
    ] {
        let kinds = kinds(field, value);
        assert!(kinds.iter().all(|kind| *kind == Kind::Conflict), "{field}");
    }
}

#[test]
fn a_generator_keeps_the_rate_when_the_number_of_requests_changes() {
    let spec = |text: &str| match good(text, &[]).workload.source {
        Source::Synth(synth) => synth,
        Source::Trace(_) => panic!("a generator"),
    };
    assert_eq!(
        spec("workload: {synth: {preset: quick}}").spec,
        traces::SynthSpec::quick()
    );
    assert_eq!(
        spec("workload: {synth: {tick_ms: 0}}").spec.duration_s,
        Some(3537.0)
    );
    let fewer = spec("workload: {synth: {requests: 100, reuse: 0.4}}");
    assert_eq!(
        (fewer.spec.requests, fewer.spec.duration_s, fewer.reuse),
        (100, None, Some(0.4))
    );
    let both = spec("workload: {synth: {requests: 100, duration_s: 60}}");
    assert_eq!(
        (both.spec.requests, both.spec.duration_s),
        (100, Some(60.0))
    );
}

#[test]
fn a_field_is_known_or_explained() {
    let unknown = |field: &str| unknown_field(None, FULL, &[], field);
    for known in [
        "pools.large.workers",
        "pools.*.parallel.tp",
        "engine.block_size",
        "workload.load.concurrency",
        "workload.trace.fraction",
        "timing.speedup_ratio",
        "router.mode",
        "sla.itl_ms",
        "seed",
        "model",
        "workload.synth.requests",
    ] {
        assert_eq!(unknown(known), None, "{known}");
    }
    let message = unknown("engine.max_num_seq").expect("a typo");
    assert!(
        message.ends_with("did you mean `max_num_seqs`?"),
        "{message}"
    );
    assert!(
        unknown("pools.huge.workers")
            .expect("no such pool")
            .contains("one of large, small")
    );
    assert!(
        unknown("workload.synth.request")
            .expect("a typo")
            .contains("`requests`")
    );
}

#[test]
fn a_sweep_section_is_read_apart() {
    let text = "
workload: {synth: {preset: quick}}
sweep:
  grid:
    pools.agg.workers: [1, 2]
    engine.block_size: 16..64
    router.mode: kv
  zip:
    - {engine.max_num_seqs: [1, 2], seed: [3, 4]}
  list:
    - {engine.watermark: 0.01, router.mode: round-robin}
    - {engine.watermark: null}
";
    good(text, &[]);
    let pair = |field: &str, value: &str| (field.to_owned(), value.to_owned());
    let line = |field: &str, values: &[&str]| {
        (
            field.to_owned(),
            values.iter().map(ToString::to_string).collect(),
        )
    };
    let axes = sweep(None, text).expect("a good section");
    assert_eq!(
        axes,
        [
            Axes::Zip {
                place: "scenario:5:5 sweep.grid.pools.agg.workers".to_owned(),
                fields: vec![line("pools.agg.workers", &["1", "2"])],
            },
            Axes::Text {
                place: "scenario:6:5 sweep.grid.engine.block_size".to_owned(),
                field: "engine.block_size".to_owned(),
                values: "16..64".to_owned(),
            },
            Axes::Text {
                place: "scenario:7:5 sweep.grid.router.mode".to_owned(),
                field: "router.mode".to_owned(),
                values: "kv".to_owned(),
            },
            Axes::Zip {
                place: "scenario:9:7 sweep.zip[0]".to_owned(),
                fields: vec![
                    line("engine.max_num_seqs", &["1", "2"]),
                    line("seed", &["3", "4"])
                ],
            },
            Axes::List {
                place: "scenario:11:5 sweep.list".to_owned(),
                entries: vec![
                    vec![
                        pair("engine.watermark", "0.01"),
                        pair("router.mode", "round-robin")
                    ],
                    vec![pair("engine.watermark", "null")],
                ],
            },
        ]
    );
    assert_eq!(sweep(None, "seed: 1").expect("no section"), []);
    let problems = sweep(
        None,
        "sweep: {gird: 1, grid: {a: {b: 1}, c: [[1]]}, zip: [{d: 1}], list: [5]}",
    );
    assert_eq!(problems.expect_err("five mistakes").0.len(), 5);
}

#[test]
fn every_bad_file_gives_its_messages() {
    let corpus = Path::new(file!()).with_file_name("corpus");
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpus)
        .expect("the corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{} files", files.len());
    let mut differences = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let expected: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("#! "))
            .collect();
        let name = file.file_name().expect("a name");
        let problems = load(Some(Path::new(name)), &text, &[]).expect_err("a bad scenario");
        let found: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        if found != expected {
            let lines: Vec<String> = found.iter().map(|line| format!("#! {line}")).collect();
            differences += &format!("{}\n{}\n", file.display(), lines.join("\n"));
        }
    }
    assert!(differences.is_empty(), "found\n{differences}");
}

#[test]
fn hostile_files_are_refused_and_do_not_crash() {
    let deep_lists = "- ".repeat(200_000);
    let deep_flow = format!("a: {}", "[".repeat(100_000));
    let deep_lines: String = (0..2_000)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    let laughs: String = (1..30)
        .map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1))
        .collect();
    let laughs = format!("a0: &a0 [x, x]\n{laughs}");
    let long = format!("a: {}", "x".repeat(2 << 20));
    for text in [
        deep_lists.as_str(),
        &deep_flow,
        &deep_lines,
        &laughs,
        &long,
        "\0",
        "\u{feff}",
        "%YAML 9.9",
        "? ",
        ": ",
    ] {
        assert!(!bad(text, &[]).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&String::from_utf8_lossy(&bytes), &[]);
    }

    #[test]
    fn random_yaml_never_panics(text in "([a-z]{1,3}: |- |\\[|\\]|\\{|\\}|, |\n *|&a |\\*a|!t |\\? |\"|'|[0-9]{1,3}|#|\\|\n|>\n|~){0,40}") {
        let _ = read(&text, &[]);
        let _ = sweep(None, &text);
    }

    #[test]
    fn damaged_scenarios_never_panic(
        at in 0usize..1_500, cut in 0usize..40, insert in "[ -~\n]{0,12}", field in "[a-z_.*0-9]{0,20}", value in "[ -~\n]{0,12}",
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        let from = at.min(text.len());
        let to = (from + cut).min(text.len());
        text.splice(from..to, insert.chars());
        let text: String = text.into_iter().collect();
        let _ = read(&text, &[(&field, &value)]);
        let _ = unknown_field(None, &text, &[], &field);
    }
}

mod drafts;
mod faults;
mod hicache;
mod kvbm;
mod link_faults;
mod spread;
mod weights;
mod widths;
