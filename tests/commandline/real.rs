//! `--real cpu`: runs on the real clock, calibration and validation on this machine. What comes out differs from run to run;
//! that it is complete and consistent does not.

use crate::program::{Folder, assert_contains, repository};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

/// A model of a few thousand weights, so that a step takes next to nothing.
const MODEL: &str = r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
    "intermediate_size": 48, "vocab_size": 64, "max_position_embeddings": 2048}"#;
const SCENARIO: &str = "schema_version: 1
model: model.json
engine: {block_size: 8, num_gpu_blocks: 65, max_num_seqs: 8, max_num_batched_tokens: 64}
pools: [{name: agg, workers: 2}]
router: {mode: kv}
timing: {source: linear, base_ns: 100000, per_new_token_ns: 10000, per_context_token_ns: 10}
workload:
  synth:
    requests: 24
    duration_s: 0.5
    tick_ms: 0
    block_size: 16
    system_prompts: [{count: 1, share: 1.0, tokens: {fixed: 32}}]
    sessions:
      - weight: 1
        first_input_tokens: {lognormal: {mean: 120, stddev: 40, max: 240}}
        output_tokens: {fixed: 9}
        turns: {fixed: 2}
        follow_ups:
          - append: {weight: 1, user_tokens: {fixed: 20}}
    turn_order:
      after_answer: {answer_ms_per_token: 1, think_ms: {fixed: 5}}
";

/// `real.yaml` and its model.
pub fn provide_real(folder: &Folder) {
    folder.write("model.json", MODEL);
    folder.write("real.yaml", SCENARIO);
}

fn prepared() -> Folder {
    let folder = Folder::new();
    folder.write("model.json", MODEL);
    folder.write("scenario.yaml", SCENARIO);
    folder
}

#[test]
fn a_scenario_is_run_for_real_and_its_journal_replays() {
    let folder = prepared();
    let args = [
        "replay",
        "scenario.yaml",
        "--real",
        "cpu",
        "--out",
        "run",
        "--json",
    ];
    let answer = folder.run(&args);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_contains(
        &answer.stderr,
        &["replayed on the virtual clock: the same actions"],
    );
    let report: Value = serde_json::from_str(&answer.stdout).unwrap();
    let simulated = folder.json(&["replay", "scenario.yaml", "--json"]);
    assert_eq!(report["requests"]["completed"], 24);
    assert_eq!(report["workload_digest"], simulated["workload_digest"]);
    assert_eq!(report["timing"]["source"], "cpu");
    assert_eq!(report["timing"]["basis"], "measured");
    assert_contains(
        report["timing"]["detail"].as_str().unwrap(),
        &["model.json", "random weights of seed 0", "per worker"],
    );
    assert!(
        report["prefix"]["all_admissions_share"].as_f64().unwrap() > 0.1,
        "second turns hit"
    );
    let steps = folder.text("run/steps.jsonl");
    let counted = report["workers"].as_array().unwrap().iter();
    let counted: u64 = counted
        .map(|worker| worker["steps"].as_u64().unwrap())
        .sum();
    assert_eq!(steps.lines().count() as u64, counted);
    assert!(folder.path("run/report.json").is_file());

    // What was run can be fitted to, and simulated.
    folder.good(&[
        "calibrate",
        "fit-steps",
        "run/steps.jsonl",
        "--out",
        "fit.json",
    ]);
    let fitted = "--set timing=null --set timing.source=fitted --set timing.profile=fit.json";
    let words: Vec<&str> = ["replay", "scenario.yaml", "--json"]
        .into_iter()
        .chain(fitted.split(' '))
        .collect();
    assert_eq!(folder.json(&words)["requests"]["completed"], 24);
}

#[test]
fn what_cannot_be_run_for_real_is_refused_all_at_once() {
    let folder = prepared();
    folder.write("gemma.json", MODEL.replace("llama", "mixtral"));
    let before = folder.names();
    let real = |more: &[&str]| {
        folder.refused(
            &[
                &["replay", "scenario.yaml", "--real", "cpu", "--out", "run"],
                more,
            ]
            .concat(),
        )
    };
    let told = real(&[
        "--set",
        "engine.backend=trtllm",
        "--set",
        "model=meta-llama/Llama-3.1-8B",
        "--set",
        "engine=null",
        "--set",
        "engine.backend=sglang",
        "--set",
        "engine.max_total_tokens=4000",
        "--weights",
        "none.safetensors",
    ]);
    assert_contains(
        &told,
        &[
            "--real: pool agg: found backend sglang, expected vllm",
            "--real: model: found the name meta-llama/Llama-3.1-8B, expected the path of a Hugging Face config.json",
            "none.safetensors",
        ],
    );
    assert_contains(&real(&["--set", "model=null"]), &["--real: found no model"]);
    let told = real(&["--set", "engine.num_gpu_blocks=200000000"]);
    assert_contains(
        &told,
        &[
            "GiB of free memory",
            "KV blocks of all workers",
            "would fit",
        ],
    );
    assert_contains(
        &real(&["--weights", "."]),
        &["found no *.safetensors in the folder"],
    );
    folder.write("bad.safetensors", "no such thing");
    assert_contains(
        &real(&["--weights", "bad.safetensors"]),
        &["bad.safetensors: no safetensors"],
    );
    fs::remove_file(folder.path("bad.safetensors")).unwrap();
    assert_contains(&real(&["--live"]), &["cannot be used with"]);
    assert_contains(
        &real(&["--set", "planner.policy=static"]),
        &["--real: found a planner, expected a fixed number of workers"],
    );
    let told = folder.refused(&["replay", "scenario.yaml", "--real", "tpu"]);
    assert_contains(
        &told,
        &[
            "invalid value 'tpu' for '--real <DEVICE>'",
            "possible values: cpu",
        ],
    );
    let told = folder.refused(&["replay", "scenario.yaml", "--weights", "x"]);
    assert_contains(&told, &["--real"]);
    let told = folder.refused(&[
        "calibrate",
        "collect",
        "scenario.yaml",
        "--real",
        "cpu",
        "--out",
        "no/such/steps.jsonl",
    ]);
    assert_contains(&told, &["no/such/steps.jsonl"]);
    let told = folder.refused(&[
        "calibrate",
        "collect",
        "scenario.yaml",
        "--real",
        "cpu",
        "--out",
        "steps.jsonl",
        "--kv-copies",
        "no/such/copies.jsonl",
    ]);
    assert_contains(&told, &["--kv-copies no/such/copies.jsonl: cannot write"]);
    let told = folder.refused(&[
        "validate",
        "real",
        "scenario.yaml",
        "--real",
        "cpu",
        "--profile",
        "model.json",
    ]);
    assert_contains(&told, &["model.json"]);
    assert_eq!(folder.names(), before, "nothing was written");
}

/// Calibration, then validation with what it gave: complete tables; how far off they are is the machine's business.
#[test]
fn a_machine_is_measured_and_validated() {
    let folder = prepared();
    let answer = folder.run(&[
        "calibrate",
        "collect",
        "scenario.yaml",
        "--real",
        "cpu",
        "--budget-s",
        "4",
        "--out",
        "steps.jsonl",
        "--profile",
        "cpu.fit.json",
        "--per-op",
        "--kv-copies",
        "copies.jsonl",
        "--json",
    ]);
    assert_eq!(answer.code, Some(0), "{answer}");
    let collected: Value = serde_json::from_str(&answer.stdout).unwrap();
    let rows = folder.text("steps.jsonl");
    assert_eq!(
        rows.lines().count() as u64,
        collected["steps"].as_u64().unwrap()
    );
    for word in [
        "\"shape\":\"decode\"",
        "\"shape\":\"prefill\"",
        "\"shape\":\"mixed\"",
        "\"shape\":\"served\"",
        "\"is_again\":true",
        "\"ops\":{\"attention\":",
        "\"clocks\":{",
    ] {
        assert!(rows.contains(word), "{word}");
    }
    let held_out = &collected["profile"]["held_out"];
    assert!(held_out["rows"].as_u64().unwrap() * 4 < collected["steps"].as_u64().unwrap());
    assert!(held_out["mean_error"].as_f64().unwrap() > 0.0);

    // Served steps tell the host's time, and the profile has it.
    let served = rows
        .lines()
        .filter(|row| row.contains("\"shape\":\"served\""));
    let times = served.map(|row| serde_json::from_str::<Value>(row).unwrap());
    let times: Vec<(f64, f64)> = times
        .map(|row| {
            (
                row["host_time"].as_f64().unwrap(),
                row["wall_time"].as_f64().unwrap(),
            )
        })
        .collect();
    assert!(times.iter().all(|(host, wall)| (0.0..*wall).contains(host)));
    assert_eq!(
        collected["host"]["steps"].as_u64().unwrap(),
        times.len() as u64
    );
    let coefficients = collected["profile"]["coefficients"].as_array().unwrap();
    let us = |name: &str| {
        let found = coefficients.iter().find(|one| one["term"] == name);
        found.unwrap()["us"].as_f64().unwrap()
    };
    assert!(
        us("host_step") + us("host_sequence") > 0.0,
        "{coefficients:?}"
    );

    // Copies of 1, 2, 4, ... 32 of 64 blocks, each way; a block is 8 tokens of two heads of 16 numbers, twice, in f32.
    let copies = folder.text("copies.jsonl");
    let copies: Vec<Value> = copies
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    for direction in ["within", "out", "in"] {
        let own = copies.iter().filter(|row| row["direction"] == direction);
        let bytes: Vec<u64> = own.map(|row| row["bytes"].as_u64().unwrap()).collect();
        assert_eq!(
            bytes,
            [1, 2, 4, 8, 16, 32].map(|blocks| blocks * 8 * 32 * 2 * 4),
            "{direction}"
        );
    }
    assert!(
        copies
            .iter()
            .all(|row| row["p10_s"].as_f64() <= row["p90_s"].as_f64())
    );

    let args = [
        "validate",
        "real",
        "scenario.yaml",
        "--real",
        "cpu",
        "--profile",
        "cpu.fit.json",
        "--plot",
        "real.svg",
    ];
    let validated = folder.json(&[&args[..], &["--json"]].concat());
    assert_eq!(
        (&validated["runs"], &validated["requests"]),
        (&2.into(), &24.into())
    );
    let metrics = validated["metrics"].as_array().unwrap();
    for metric in metrics {
        assert_eq!(metric["real"].as_array().unwrap().len(), 2, "{metric}");
    }
    let of = |name: &str| metrics.iter().find(|row| row["metric"] == name).unwrap();
    for name in [
        "TTFT p50, ms",
        "ITL p99, ms",
        "E2E p90, ms",
        "output tokens/s",
        "steps",
    ] {
        assert!(of(name)["measured"].as_f64().unwrap() > 0.0, "{name}");
        assert!(of(name)["noise"].as_f64().unwrap() >= 0.0, "{name}");
        assert!(of(name)["error"].is_number(), "{name}");
        assert_eq!(of(name)["own_steps"].as_array().unwrap().len(), 2, "{name}");
        assert!(of(name)["own_steps_error"].is_number(), "{name}");
        assert!(of(name)["one_pace_error"].is_null(), "{name}");
    }
    assert_eq!(validated["paces"].as_array().unwrap().len(), 0);
    assert!(folder.text("real.svg").contains("<svg"));
    let text = folder.good(&[&args[..], &["--runs", "1"]].concat());
    assert_contains(
        &text,
        &["TTFT p50, ms", "noise", "mean of 1 real run;", "priced, ms"],
    );
}

/// Measurements before, between and after the runs: each run has a pace, and a simulation at that pace.
#[test]
fn runs_are_simulated_at_the_pace_that_they_had() {
    let folder = prepared();
    let args = ["validate", "real", "scenario.yaml", "--real", "cpu"];
    let told = folder.refused(&[&args[..], &["--calibrate-s", "0.5"]].concat());
    let range = "--calibrate-s: found 0.5, expected seconds from 1 to 3600";
    assert_contains(&told, &[range]);
    let with_profile = ["--calibrate-s", "2", "--profile", "model.json"];
    let told = folder.refused(&[&args[..], &with_profile].concat());
    assert_contains(&told, &["cannot be used with"]);

    let args = [&args[..], &["--calibrate-s", "2", "--json"]].concat();
    let answer = folder.run(&args);
    assert_eq!(answer.code, Some(0), "{answer}");
    let measurements = answer.stderr.matches("measuring steps for 2 s").count();
    assert_eq!(measurements, 3, "before, between and after two runs");
    let validated: Value = serde_json::from_str(&answer.stdout).unwrap();
    let paces = validated["paces"].as_array().unwrap();
    assert_eq!(paces.len(), 2);
    for pace in paces {
        let of = |name: &str| pace[name].as_f64().unwrap();
        assert!(of("measurements_mean") > 0.9, "{pace}");
        assert!((0.5..=1.25).contains(&of("power")), "{pace}");
        assert!(
            1.0 <= of("run_p10") && of("run_p10") <= of("run_p90"),
            "{pace}"
        );
    }
    for metric in validated["metrics"].as_array().unwrap() {
        for field in ["real", "simulated_runs", "one_pace", "own_steps"] {
            assert_eq!(
                metric[field].as_array().unwrap().len(),
                2,
                "{field}: {metric}"
            );
        }
    }
    let kinds = validated["kinds"].as_array().unwrap();
    let counted: u64 = kinds
        .iter()
        .map(|kind| kind["steps"].as_u64().unwrap())
        .sum();
    assert_eq!(validated["steps"]["steps"], counted);
    assert!(
        kinds
            .iter()
            .all(|kind| kind["priced_us_mean"].as_f64().unwrap() > 0.0)
    );
}

/// Ctrl-C in the middle: a report of what happened so far, complete files, every request accounted for, exit code 130.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_run_with_its_results() {
    let folder = prepared();
    let args = [
        "replay",
        "scenario.yaml",
        "--real",
        "cpu",
        "--out",
        "run",
        "--json",
        "--set",
        "workload.synth.duration_s=600",
        "--set",
        "workload.synth.requests=4000",
    ];
    let mut child = folder
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Long enough to have begun on any machine; the run would take ten minutes.
    std::thread::sleep(Duration::from_secs(3));
    let pid = child.id().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .unwrap();
    assert!(killed.success());
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    let stderr: Vec<String> = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    let stderr = stderr.join("\n");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    assert_contains(
        &stderr,
        &[
            "interrupted; of 4",
            "in progress",
            "not sent",
            "the same actions",
        ],
    );
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let count = |name: &str| report["requests"][name].as_u64().unwrap();
    assert_eq!(
        count("total"),
        count("completed") + count("rejected") + count("unfinished")
    );
    assert!(
        count("completed") > 0 && count("total") < 4000,
        "{}",
        report["requests"]
    );
    let written: Value = serde_json::from_slice(&folder.read("run/report.json")).unwrap();
    assert_eq!(written["requests"], report["requests"]);
    assert!(folder.path("run/steps.jsonl").is_file());
}

/// The example's numbers are those that the documents tell.
#[test]
fn the_example_is_as_it_says() {
    let folder = Folder::new();
    for name in ["real-cpu.yaml", "tiny-qwen3.json"] {
        folder.write(name, fs::read(repository("examples").join(name)).unwrap());
    }
    let answer = folder.run(&[
        "replay",
        "real-cpu.yaml",
        "--real",
        "cpu",
        "--json",
        "--set",
        "workload.synth.requests=4",
    ]);
    assert_eq!(answer.code, Some(0), "{answer}");
    let report: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_contains(
        report["timing"]["detail"].as_str().unwrap(),
        &["0.9 million parameters"],
    );
    assert_eq!(report["requests"]["completed"], report["requests"]["total"]);
}
