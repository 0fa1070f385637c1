//! `speculative_config`, `parallel.pp` and `parallel.dp`: what a scenario may say of them, and what it is told.

use super::{bad, good};
use ::engine::{AcceptanceMode, DraftMethod, Speculation};
use sweeps::scenario::{KvBlocks, Pool};

const DRAFTS: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
engine:
  speculative_config: {method: eagle3, num_speculative_tokens: 2, acceptance_rates: [0.85, 0.3]}
pools:
  - name: agg
workload: {synth: {preset: quick}}
";

const RANKS: &str = "
engine: {num_gpu_blocks: 2000}
pools:
  - name: agg
    workers: 2
    parallel: {tp: 2, dp: 4}
timing: {source: linear, base_ns: 8000000, per_new_token_ns: 20000, per_context_token_ns: 10}
workload: {synth: {preset: quick}}
";

#[test]
fn drafts_are_read_with_their_defaults() {
    let scenario = good(DRAFTS, &[]);
    let pool = &scenario.pools[0];
    let expected = Speculation {
        method: DraftMethod::Eagle,
        num_speculative_tokens: 2,
        acceptance_rates: vec![0.85, 0.3],
        mode: AcceptanceMode::Expected,
    };
    assert_eq!(pool.engine.speculation(), Some(&expected));
    assert_eq!(pool.engine.depth(), 1, "planned synchronously");
    assert_eq!(pool.draft_share, 1.0 / 32.0, "one layer of 32");
    let set = |name: &'static str, value: &'static str| {
        let field = format!("engine.speculative_config.{name}");
        let scenario = good(DRAFTS, &[(field.as_str(), value), ("seed", "7")]);
        scenario.pools[0].clone()
    };
    assert_eq!(set("draft_share", "0.1").draft_share, 0.1);
    assert_eq!(set("method", "ngram").draft_share, 0.0);
    let sampled = set("acceptance", "sampled").spec_with_draws(7);
    let mode = &sampled.engine.speculation().expect("drafts").mode;
    assert_eq!(*mode, AcceptanceMode::Sampled { seed: 7 });
}

#[test]
fn stages_hold_a_part_of_the_layers_and_more_tokens() {
    let capacity = |stages: &str| {
        let overrides = [
            ("engine.speculative_config", "null"),
            ("model", "meta-llama/Llama-3.1-70B"),
            ("pools.agg.parallel.tp", "4"),
            ("pools.agg.parallel.pp", stages),
        ];
        let pool: Pool = good(DRAFTS, &overrides).pools[0].clone();
        assert_eq!(pool.engine.stages().to_string(), stages);
        assert_eq!(pool.gpus_per_worker(), 4 * pool.engine.stages());
        match pool.kv_blocks {
            KvBlocks::Computed(capacity) => capacity,
            other => panic!("{other:?}"),
        }
    };
    let (one, two) = (capacity("1"), capacity("2"));
    assert_eq!(
        one.kv_bytes_per_token_per_gpu,
        2 * two.kv_bytes_per_token_per_gpu
    );
    // Embedding and head, 128,256 · 8,192 numbers of 2 bytes each split over 4 GPUs, stay; layers are halved.
    let ends = 2 * 2 * 128_256 * 8_192 / 4;
    let halved = (one.weight_bytes - ends) / 2 + ends;
    assert!(two.weight_bytes.abs_diff(halved) < 1 << 20, "{two:?}");
    assert!(two.tokens > 2 * one.tokens);
}

#[test]
fn ranks_are_workers_to_the_cluster() {
    let pool = &good(RANKS, &[]).pools[0];
    assert_eq!((pool.gpus_per_worker(), pool.engine.ranks()), (8, 4));
    assert_eq!(pool.spec().schedulers(), 8);
    assert_eq!(pool.engine.depth(), 1);
}

#[test]
fn what_does_not_go_together_is_told() {
    let config = |name: &str| format!("engine.speculative_config.{name}");
    let [method, drafts, rates, share, acceptance] = [
        "method",
        "num_speculative_tokens",
        "acceptance_rates",
        "draft_share",
        "acceptance",
    ]
    .map(config);
    let [method, drafts, rates, share, acceptance] =
        [&method, &drafts, &rates, &share, &acceptance].map(String::as_str);
    let (pp, dp) = ("pools.agg.parallel.pp", "pools.agg.parallel.dp");
    let no_drafts = ("engine.speculative_config", "null");
    for (text, overrides, parts) in [
        (
            DRAFTS,
            vec![(method, "medusa")],
            vec!["method: found `medusa`", "not modelled yet"],
        ),
        (
            DRAFTS,
            vec![(method, "eagel")],
            vec!["method: found `eagel`", "eagle"],
        ),
        (
            DRAFTS,
            vec![(method, "null")],
            vec!["method: found nothing", "who drafts"],
        ),
        (
            DRAFTS,
            vec![(method, "draft_model")],
            vec!["draft_share: found nothing", "0.1"],
        ),
        (
            DRAFTS,
            vec![(drafts, "0")],
            vec!["num_speculative_tokens: found `0`", "from 1 to 64"],
        ),
        (
            DRAFTS,
            vec![(drafts, "3")],
            vec![
                "acceptance_rates: found 2 of them",
                "one for each of 3 drafts",
            ],
        ),
        (
            DRAFTS,
            vec![(rates, "[0.8, 1.2]")],
            vec!["acceptance_rates: found", "numbers from 0 to 1"],
        ),
        (
            DRAFTS,
            vec![(rates, "null")],
            vec!["acceptance_rates: found nothing", "for example"],
        ),
        (
            DRAFTS,
            vec![(share, "-1")],
            vec!["draft_share: found `-1`", "from 0 to 10"],
        ),
        (
            DRAFTS,
            vec![(acceptance, "always")],
            vec!["acceptance: found `always`", "expected"],
        ),
        (
            DRAFTS,
            vec![("engine.speculative_config.max_model_len", "9")],
            vec!["not modelled yet"],
        ),
        (
            DRAFTS,
            vec![("model", "null"), ("gpu", "null")],
            vec![
                "speculative_config: found drafts of a layer of an unknown model",
                "draft_share",
            ],
        ),
        (
            DRAFTS,
            vec![("engine.async_scheduling", "true")],
            vec![
                "async_scheduling: found true beside pp, dp or speculative_config",
                "remove it",
            ],
        ),
        (
            DRAFTS,
            vec![("engine.backend", "sglang")],
            vec!["a field of the backend vllm"],
        ),
        (
            DRAFTS,
            vec![(pp, "2")],
            vec!["pp: found 2 stages beside ranks or drafts"],
        ),
        (
            DRAFTS,
            vec![no_drafts, (pp, "9")],
            vec!["pp: found 9", "at most 8 with tp 1"],
        ),
        (
            DRAFTS,
            vec![no_drafts, (dp, "2")],
            vec![
                "dp: found 2 ranks",
                "the model has none",
                "use more workers",
            ],
        ),
        (
            RANKS,
            vec![
                ("model", "Qwen/Qwen3-235B-A22B"),
                ("gpu", "h200_sxm"),
                ("engine.num_gpu_blocks", "null"),
            ],
            vec!["dp: found 4 ranks", "num_gpu_blocks of a rank"],
        ),
        (
            RANKS,
            vec![
                ("model", "Qwen/Qwen3-235B-A22B"),
                ("gpu", "h200_sxm"),
                ("timing", "null"),
                ("pools.agg.timing", "{source: roofline}"),
                ("pools.agg.parallel", "{tp: 4, dp: 4}"),
            ],
            vec!["dp: found 4 ranks on 16 GPUs", "at most the 8 GPUs"],
        ),
        (
            RANKS,
            vec![
                ("model", "Qwen/Qwen3-235B-A22B"),
                ("gpu", "h200_sxm"),
                ("timing", "null"),
                ("pools.agg.parallel", "{tp: 2, dp: 4, ep: 4}"),
            ],
            vec!["ep: found 4", "1 or tp · dp, 8"],
        ),
        (
            RANKS,
            vec![(pp, "2")],
            vec!["pp: found 2 stages beside ranks or drafts"],
        ),
    ] {
        let messages = bad(text, &overrides);
        assert_eq!(messages.len(), 1, "{overrides:?}: {messages:?}");
        for part in parts {
            assert!(messages[0].contains(part), "{part} in {}", messages[0]);
        }
    }
}

#[test]
fn stages_and_ranks_of_other_engines_are_theirs() {
    let pool = |engine: &str, parallel: &str| {
        let overrides = [("engine", engine), ("pools.agg.parallel", parallel)];
        good(RANKS, &overrides).pools[0].engine.clone()
    };
    // Limits are divided among ranks, and conservativeness falls, as SGLang's server does it.
    let given = "{backend: sglang, max_total_tokens: 50000, max_running_requests: 100, chunked_prefill_size: 8192}";
    let ranks = pool(given, "{tp: 2, dp: 4}");
    let config = ranks.as_sglang().expect("SGLang");
    assert_eq!((ranks.ranks(), ranks.stages(), ranks.depth()), (4, 1, 1));
    let limits = (config.max_running_requests, config.chunked_prefill_size);
    assert_eq!(limits, (25, Some(2_048)));
    assert_eq!(config.schedule_conservativeness, 0.3);
    assert_eq!(config.max_total_tokens, 50_000, "of a rank, as given");
    let stages = pool(given, "{tp: 2, pp: 4}");
    let config = stages.as_sglang().expect("SGLang");
    assert_eq!((stages.ranks(), stages.stages(), stages.depth()), (1, 4, 4));
    assert_eq!(
        (config.micro_batch_seats(), config.max_running_requests),
        (25, 100)
    );
    let given = "{backend: sglang, max_total_tokens: 50000, pp_max_micro_batch_size: 7}";
    let stages = pool(given, "{tp: 2, pp: 4}");
    assert_eq!(stages.as_sglang().expect("SGLang").micro_batch_seats(), 7);
    let given = "{backend: trtllm, max_tokens: 50000}";
    assert_eq!(pool(given, "{tp: 1, dp: 8}").ranks(), 8);
    assert_eq!(pool(given, "{tp: 2, pp: 4}").depth(), 4);
    for (engine, parallel, part) in [
        (
            "{backend: trtllm, max_tokens: 9000}",
            "{tp: 2, dp: 4}",
            "ranks hold attention whole",
        ),
        (
            "{backend: trtllm, enable_chunked_prefill: true, capacity_scheduler_policy: MAX_UTILIZATION}",
            "{pp: 2}",
            "MAX_UTILIZATION with stages",
        ),
        (
            "{backend: sglang}",
            "{pp: 2, dp: 2}",
            "2 stages beside ranks or drafts",
        ),
        (
            "{backend: sglang, pp_async_batch_depth: 1}",
            "{pp: 2}",
            "not modelled yet",
        ),
        (
            "{backend: sglang, enable_dp_attention: true}",
            "{dp: 2}",
            "pools[].parallel.dp",
        ),
        (
            "{backend: trtllm, attention_dp_config: {}}",
            "{dp: 2}",
            "not modelled yet",
        ),
    ] {
        let overrides = [("engine", engine), ("pools.agg.parallel", parallel)];
        let messages = bad(RANKS, &overrides);
        assert_eq!(messages.len(), 1, "{engine} {parallel}: {messages:?}");
        assert!(messages[0].contains(part), "{part} in {messages:?}");
    }
}

#[test]
fn workers_that_hand_over_have_neither_stages_nor_ranks_nor_drafts() {
    let roles = "[{name: p, role: prefill}, {name: d, role: decode}]";
    let text = DRAFTS.replace("\n  - name: agg", &format!(" {roles}"));
    let messages = bad(&text, &[("network", "{preset: infiniband-ndr}")]);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(
        messages[0].contains("stages, ranks or drafts"),
        "{messages:?}"
    );
}

#[test]
fn ranks_of_a_mixture_are_priced_without_times_given() {
    let overrides = [
        ("model", "Qwen/Qwen3-235B-A22B"),
        ("gpu", "h200_sxm"),
        ("timing", "null"),
        ("pools.agg.parallel", "{tp: 2, dp: 4, ep: 8}"),
    ];
    let scenario = good(RANKS, &overrides);
    let pool = &scenario.pools[0];
    let why = pool.unmeasured.as_ref();
    let why = why.expect("neither collectives nor experts are embedded");
    assert!(why.contains("no all_gather over 8 GPUs"), "{why}");
    let timing = pool.timing.compile(&pool.context()).expect("a roofline");
    let detail = timing.source().detail;
    assert!(detail.contains("4 ranks that share experts"), "{detail}");
    assert!(timing.together(64).0 > 0);
}
