//! Engines other than vLLM from their caller's side: named in reports, swept, mixed, refused with a hint.

use crate::program::{Folder, assert_contains, repository};

const SGLANG: [&str; 6] = [
    "--set",
    "engine.block_size=null",
    "--set",
    "engine.backend=sglang",
    "--set",
    "engine.page_size=64",
];

fn with(command: &[&'static str], more: &[&'static str]) -> Vec<&'static str> {
    [command, &["--trace", "trace.jsonl"], &SGLANG, more].concat()
}

#[test]
fn sglang_serves_and_is_named() {
    let folder = Folder::with_scenario_and_trace();
    let replay = ["replay", "scenario.yaml"];
    let report = folder.json(&with(&replay, &["--json"]));
    assert_eq!(report["engines"]["agg"], "sglang");
    assert_eq!(report["requests"]["completed"], 40);
    let detail = report["timing"]["detail"].as_str().unwrap();
    assert!(detail.contains("h100_sxm sglang"), "{detail}");
    let stepping = folder.json(&with(&replay, &["--json", "--stepping"]));
    assert_eq!(report, stepping);
    let text = folder.good(&with(&replay, &[]));
    assert_contains(&text, &["Engine          sglang"]);

    let check = ["check-scenario", "scenario.yaml"];
    assert_contains(
        &folder.good(&with(&check, &[])),
        &[
            "SGLang: page_size 64",
            "chunked_prefill_size 8192",
            "tokens in pages of 64",
        ],
    );
    let pool = &folder.json(&with(&check, &["--json"]))["pools"][0];
    assert_eq!(pool["backend"], "sglang");
    assert_eq!(pool["chunked_prefill_size"], 8192);
    assert!(
        pool["max_total_tokens"].as_u64().unwrap() > 300_000,
        "{pool}"
    );
}

#[test]
fn tensorrt_llm_serves_and_is_named() {
    let folder = Folder::with_scenario_and_trace();
    let engine = "engine={backend: trtllm, tokens_per_block: 64, enable_chunked_prefill: true}";
    let timing = "timing={source: roofline}";
    let args = [
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--set",
        engine,
        "--set",
        timing,
    ];
    let replay = [&["replay"], args.as_slice(), &["--json"]].concat();
    let report = folder.json(&replay);
    assert_eq!(report["engines"]["agg"], "trtllm");
    assert_eq!(report["requests"]["completed"], 40);
    assert_eq!(
        report,
        folder.json(&[replay.as_slice(), &["--stepping"]].concat())
    );
    let check = [&["check-scenario"], args.as_slice()].concat();
    assert_contains(
        &folder.good(&check),
        &[
            "TensorRT-LLM: tokens_per_block 64",
            "GUARANTEED_NO_EVICT",
            "tokens in",
        ],
    );
    let pool = &folder.json(&[check.as_slice(), &["--json"]].concat())["pools"][0];
    assert_eq!(pool["backend"], "trtllm");
    assert!(pool["max_tokens"].as_u64().unwrap() > 300_000, "{pool}");
}

#[test]
fn two_engines_in_one_deployment() {
    let folder = Folder::with_scenario_and_trace();
    let pools =
        "pools=[{name: a}, {name: b, engine: {backend: sglang, block_size: null, page_size: 64}}]";
    let args = [
        "replay",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--set",
        pools,
    ];
    let report = folder.json(&[args.as_slice(), &["--json"]].concat());
    assert_eq!(report["engines"]["a"], "vllm");
    assert_eq!(report["engines"]["b"], "sglang");
    for worker in report["workers"].as_array().unwrap() {
        assert!(worker["requests"].as_u64().unwrap() > 0, "{worker}");
    }
    assert_contains(&folder.good(&args), &["Engine          a vllm, b sglang"]);
}

#[test]
fn engines_are_swept() {
    let folder = Folder::with_scenario_and_trace();
    let sweep = ["sweep", "scenario.yaml", "--trace", "trace.jsonl", "--json"];
    // With a field of vLLM left there is no such deployment under SGLang, and the sweep goes on without it.
    let vary = ["--vary", "engine.backend=vllm,sglang"];
    let report = folder.json(&[sweep.as_slice(), &vary].concat());
    let points = &report["points"];
    assert_eq!(points[0]["standing"], "frontier");
    assert_eq!(points[1]["standing"], "impossible");
    let reason = points[1]["reason"].as_str().unwrap();
    assert!(reason.contains("sglang has page_size"), "{reason}");
    let free = [
        "--set",
        "engine.block_size=null",
        "--set",
        "router.mode=round-robin",
    ];
    let both = folder.json(&[sweep.as_slice(), &vary, &free].concat());
    let ttft = |point: usize| both["points"][point]["metrics"]["latency.ttft_ms.mean"].as_f64();
    assert!(ttft(0).unwrap() > 0.0 && ttft(1).unwrap() > 0.0);
    assert_ne!(ttft(0), ttft(1));
    // Whole configurations, each with its own fields.
    let mut scenario = folder
        .text("scenario.yaml")
        .replace("engine: {block_size: 64}\n", "");
    scenario.push_str(
        "sweep:\n  list:\n    - {engine.backend: vllm, engine.block_size: 64}\n    - {engine.backend: sglang, engine.page_size: 64}\n",
    );
    folder.write("scenario.yaml", scenario);
    let listed = folder.json(&sweep);
    let impossible = &listed["standings"]["impossible"];
    assert!(impossible.is_null(), "{listed}");
    assert_eq!(listed["points"].as_array().unwrap().len(), 2);
}

#[test]
fn the_example_is_the_comparison_with_the_reference() {
    let folder = Folder::with_scenario_and_trace();
    let example = repository("examples/peer-sglang.yaml");
    let replay = [
        "replay",
        example.to_str().unwrap(),
        "--trace",
        "trace.jsonl",
        "--json",
    ];
    let report = folder.json(&replay);
    assert_eq!(report["engines"]["agg"], "sglang");
    assert_eq!(report["workers"].as_array().unwrap().len(), 8);
    // --block-size is vLLM's name.
    let vllm = [replay.as_slice(), &["--block-size", "16"]].concat();
    assert_contains(
        &folder.refused(&vllm),
        &["--block-size", "sglang has page_size"],
    );
}

#[test]
fn drafts_stages_and_ranks_of_other_engines_reach_the_report() {
    let folder = Folder::with_scenario_and_trace();
    let run = |command: &str, sets: &[&str], more: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let first = [command, "scenario.yaml", "--trace", "trace.jsonl"];
        let args: Vec<&str> = first
            .into_iter()
            .chain(sets)
            .chain(more.iter().copied())
            .collect();
        folder.good(&args)
    };
    let report = |sets: &[&str]| -> serde_json::Value {
        let [coasting, stepping] =
            [&["--json"][..], &["--json", "--stepping"]].map(|more| run("replay", sets, more));
        assert_eq!(coasting, stepping, "{sets:?}");
        serde_json::from_str(&coasting).unwrap()
    };
    let roofline = "timing={source: roofline}";
    let drafts = [
        "engine={backend: sglang, page_size: 64, speculative_algorithm: EAGLE, speculative_num_steps: 3, \
         speculative_acceptance_rates: [0.8, 0.7, 0.6]}",
        "engine={backend: trtllm, tokens_per_block: 64, enable_chunked_prefill: true, speculative_config: {decoding_type: MTP, max_draft_len: 3, \
         acceptance_rates: [0.8, 0.7, 0.6]}}",
    ];
    for engine in drafts {
        let sets = [engine, roofline];
        let report = report(&sets);
        assert_eq!(report["requests"]["completed"], 40);
        // 1 + 0.8 + 0.56 + 0.336.
        let length = report["speculation"]["acceptance_length"].as_f64().unwrap();
        assert!((length - 2.696).abs() < 0.01, "{length}");
        assert_contains(
            &run("check-scenario", &sets, &[]),
            &["3 drafts of which 2.70 tokens"],
        );
    }
    let engines = [
        "engine={backend: sglang, page_size: 64, max_total_tokens: 400000}",
        "engine={backend: trtllm, tokens_per_block: 64, enable_chunked_prefill: true, max_tokens: 400000}",
    ];
    for engine in engines {
        let stages = [engine, roofline, "pools=[{name: agg, parallel: {pp: 2}}]"];
        assert_eq!(report(&stages)["requests"]["completed"], 40);
        assert_contains(&run("check-scenario", &stages, &[]), &["2 stages"]);
        let ranks = [
            engine,
            "model=Qwen/Qwen3-30B-A3B",
            "gpu=h200_sxm",
            "pools=[{name: agg, parallel: {dp: 4, ep: 4}}]",
        ];
        let report = report(&ranks);
        assert_eq!(report["workers"].as_array().unwrap().len(), 4);
        let guesses = report["timing"]["guesses"].to_string();
        assert!(guesses.contains("ranks that share experts"), "{guesses}");
    }
}
