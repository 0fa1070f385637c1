//! `parallel`: what a model can be split into, and what that does to memory and timing.

use super::{bad, good};
use calibration::TimingSpec;
use sweeps::scenario::{KvBlocks, Parallel, Scenario};

const MIXTURE: &str = "
schema_version: 1
model: Qwen/Qwen3-235B-A22B
gpu: h200_sxm
pools:
  - name: agg
    parallel: {tp: 8}
workload: {synth: {preset: quick}}
";

fn weight_bytes(scenario: &Scenario) -> u64 {
    match &scenario.pools[0].kv_blocks {
        KvBlocks::Computed(capacity) => capacity.weight_bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn experts_are_split_or_dealt_out() {
    let split = good(MIXTURE, &[]);
    let parallel = split.pools[0].parallel;
    assert_eq!(
        parallel,
        Parallel {
            tensor: 8,
            expert: 1,
            pipeline: 1,
            data: 1
        }
    );
    let dealt_out = good(MIXTURE, &[("pools.agg.parallel.ep", "8")]);
    assert_eq!(dealt_out.pools[0].parallel.expert, 8);
    assert_eq!(dealt_out.pools[0].gpus_per_worker(), 8);
    assert_eq!(dealt_out.pools[0].context().expert_parallel, 8);
    // 128 experts over 8 GPUs either way.
    assert_eq!(weight_bytes(&dealt_out), weight_bytes(&split));
    let timing = |scenario: &Scenario| {
        let pool = &scenario.pools[0];
        let compiled = pool.timing.compile(&pool.context()).expect("priced");
        compiled.decode(8, 8_000).time(8_000)
    };
    assert!(matches!(split.pools[0].timing, TimingSpec::Roofline(_)));
    assert_ne!(
        timing(&split),
        timing(&dealt_out),
        "other experts are touched"
    );
}

#[test]
fn widths_that_cannot_be_are_told_with_those_that_can() {
    for (overrides, parts) in [
        (
            vec![("pools.agg.parallel.ep", "4")],
            vec![
                "pools.agg.parallel.ep: found 4",
                "expected 1 or tp, 8",
                "--enable-expert-parallel",
            ],
        ),
        (
            vec![("pools.agg.parallel.ep", "3")],
            vec!["must divide tp, 8", "with tp 8 it can be 1 or 8"],
        ),
        (
            vec![("model", "Qwen/Qwen3-32B"), ("pools.agg.parallel.ep", "8")],
            vec!["must be 1: Qwen/Qwen3-32B has no experts"],
        ),
        (
            vec![
                ("model", "null"),
                ("gpu", "null"),
                ("pools.agg.parallel.ep", "8"),
            ],
            vec![
                "expected 1 where no model is given",
                "name a mixture of experts",
            ],
        ),
        // A name that was not understood says nothing about widths.
        (
            vec![
                ("model", "Qwen/Qwen3-235B-A2B"),
                ("pools.agg.parallel.ep", "8"),
            ],
            vec!["did you mean `Qwen/Qwen3-235B-A22B`"],
        ),
        (
            vec![("pools.agg.parallel.ep", "0")],
            vec!["pools.agg.parallel.ep: found `0`"],
        ),
    ] {
        let messages = bad(MIXTURE, &overrides);
        assert_eq!(messages.len(), 1, "{overrides:?}: {messages:?}");
        for part in parts {
            assert!(messages[0].contains(part), "{part} in {}", messages[0]);
        }
    }
}

#[test]
fn a_mixture_with_windows_is_priced_by_the_roofline() {
    let overrides = [
        ("model", "openai/gpt-oss-120b"),
        ("pools.agg.parallel.tp", "2"),
    ];
    let scenario = good(MIXTURE, &overrides);
    let pool = &scenario.pools[0];
    assert!(matches!(pool.timing, TimingSpec::Roofline(_)));
    let why = pool.unmeasured.as_deref().expect("a reason");
    assert!(why.contains("sliding-window attention"), "{why}");
}
