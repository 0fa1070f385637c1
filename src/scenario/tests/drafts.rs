//! Drafts of SGLang and TensorRT-LLM: what a scenario may say of them, and what it is told.

use super::{bad, good};
use ::engine::sglang::SglangDrafts;
use ::engine::{AcceptanceMode, DraftMethod, EngineConfig, Speculation};

const SGLANG: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
engine:
  backend: sglang
  speculative_algorithm: EAGLE3
  speculative_num_steps: 3
  speculative_acceptance_rates: [0.8, 0.7, 0.6]
pools:
  - name: agg
workload: {synth: {preset: quick}}
";

const TRTLLM: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
engine:
  backend: trtllm
  speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 2, acceptance_rates: [0.85, 0.3]}
pools:
  - name: agg
workload: {synth: {preset: quick}}
";

#[test]
fn sglang_drafts_a_chain_unless_told_otherwise() {
    let pool = good(SGLANG, &[]).pools[0].clone();
    let speculation = Speculation {
        method: DraftMethod::Eagle,
        num_speculative_tokens: 3,
        acceptance_rates: vec![0.8, 0.7, 0.6],
        mode: AcceptanceMode::Expected,
    };
    let config = pool.engine.as_sglang().expect("SGLang");
    assert_eq!(
        config.speculation,
        Some(SglangDrafts::chain(speculation.clone()))
    );
    assert_eq!(config.max_running_requests, 48, "SGLang's own with drafts");
    assert_eq!(pool.draft_share, 1.0 / 32.0, "one layer of 32");
    let tree = good(
        SGLANG,
        &[
            ("engine.speculative_eagle_topk", "2"),
            ("engine.speculative_num_draft_tokens", "8"),
            ("engine.speculative_acceptance", "sampled"),
            ("engine.max_running_requests", "100"),
            ("engine.speculative_draft_share", "0.02"),
            ("seed", "7"),
        ],
    );
    let pool = &tree.pools[0];
    let engine = pool.spec_with_draws(tree.seed).engine;
    let config = engine.as_sglang().expect("SGLang");
    let expected = SglangDrafts {
        speculation: Speculation {
            mode: AcceptanceMode::Sampled { seed: 7 },
            ..speculation
        },
        topk: 2,
        num_draft_tokens: 8,
    };
    assert_eq!(config.speculation, Some(expected));
    assert_eq!((config.max_running_requests, pool.draft_share), (100, 0.02));
}

#[test]
fn tensorrt_llm_drafts_under_its_own_names() {
    let pool = good(TRTLLM, &[]).pools[0].clone();
    let EngineConfig::Trtllm(config) = &pool.engine else {
        panic!("TensorRT-LLM")
    };
    assert_eq!((config.max_draft_len(), config.extra_kv_tokens()), (2, 1));
    let speculation = pool.engine.speculation().expect("drafts");
    assert_eq!(speculation.method, DraftMethod::Mtp);
    assert_eq!(pool.draft_share, 1.0 / 32.0);
    let eagle = [
        ("engine.speculative_config.decoding_type", "Eagle3"),
        ("engine.speculative_config.num_nextn_predict_layers", "null"),
        ("engine.speculative_config.max_draft_len", "2"),
        ("engine.speculative_config.draft_share", "0.1"),
    ];
    let pool = good(TRTLLM, &eagle).pools[0].clone();
    let speculation = pool.engine.speculation().expect("drafts");
    assert_eq!(
        (speculation.method, pool.draft_share),
        (DraftMethod::Eagle, 0.1)
    );
}

#[test]
fn what_is_wrong_with_drafts_is_told() {
    let set = |name: &str, value: &'static str| (format!("engine.{name}"), value);
    for (text, (name, value), parts) in [
        (
            SGLANG,
            set("speculative_algorithm", "NGRAM"),
            ["speculative_algorithm: found `NGRAM`", "not modelled yet"],
        ),
        (
            SGLANG,
            set("speculative_algorithm", "null"),
            [
                "found drafts without speculative_algorithm",
                "who drafts beside it",
            ],
        ),
        (
            SGLANG,
            set("speculative_num_steps", "null"),
            [
                "found drafts without speculative_num_steps",
                "how many tokens",
            ],
        ),
        (
            SGLANG,
            set("speculative_num_draft_tokens", "6"),
            ["speculative_num_draft_tokens: found 6", "expected 4"],
        ),
        (
            SGLANG,
            set("speculative_eagle_topk", "2"),
            [
                "found drafts without speculative_num_draft_tokens",
                "the tree",
            ],
        ),
        (
            SGLANG,
            set("speculative_num_steps", "2"),
            ["found 3 of them", "one for each of 2 drafts"],
        ),
        (
            SGLANG,
            set("enable_mixed_chunk", "true"),
            ["mixed chunks beside drafts", "SGLang switches them off"],
        ),
        (
            SGLANG,
            set("speculative_algorithm", "STANDALONE"),
            [
                "speculative_draft_share: found nothing",
                "a share of a step",
            ],
        ),
        (
            TRTLLM,
            set("speculative_config.decoding_type", "Medusa"),
            ["decoding_type: found `Medusa`", "MTP, Eagle and Eagle3"],
        ),
        (
            TRTLLM,
            set("speculative_config.num_nextn_predict_layers", "null"),
            ["max_draft_len: found nothing", "how many tokens"],
        ),
        (
            TRTLLM,
            set("speculative_config.max_draft_len", "3"),
            ["another number than max_draft_len", "one of the two"],
        ),
        (
            TRTLLM,
            set("speculative_config.eagle3_one_model", "false"),
            ["eagle3_one_model: found `false`", "steps in between"],
        ),
        (
            TRTLLM,
            set("max_num_tokens", "2"),
            ["found 2 drafts", "fewer than max_num_tokens"],
        ),
    ] {
        let problems = bad(text, &[(name.as_str(), value)]);
        let all = problems.join("\n");
        for part in parts {
            assert!(all.contains(part), "{name}={value}: {all}");
        }
    }
}
