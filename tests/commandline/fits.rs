//! `dynosim calibrate fit-steps`, `fit-requests` and `conform steps`: logs in, profiles out, nothing half-written.

use crate::program::{Folder, assert_contains, shared};
use std::fmt::Write as _;

/// The log of an engine that serves `requests` one after another, whose step takes 10 ms, 0.1 ms a prompt token and a
/// little more with every token of context.
pub fn step_log(requests: u32) -> String {
    let mut log = String::from(
        "{\"kind\":\"init\",\"num_gpu_blocks\":400,\"block_size\":16,\"max_num_seqs\":8,\
         \"max_num_batched_tokens\":512,\"async_scheduling\":false,\"prefix_caching\":true}\n",
    );
    let mut now = 1_000_000_000u64;
    for number in 0..requests {
        let prompt = 60 + 97 * (number % 7);
        let output = 4 + number % 5;
        let id = format!("r{number:06}-0a1b2c3d");
        let _ = writeln!(
            log,
            "{{\"kind\":\"add\",\"t\":{now},\"id\":\"{id}\",\"n\":{prompt},\"max_tokens\":{output}}}"
        );
        let mut computed = 0;
        while computed < prompt + output - 1 {
            let new = if computed < prompt {
                (prompt - computed).min(512)
            } else {
                1
            };
            let prefill = if computed < prompt { new } else { 0 };
            let (t0, t1) = (now + 20_000, now + 120_000);
            let t2 = t1 + 10_000_000 + 100_000 * u64::from(prefill) + 500 * u64::from(computed);
            let t3 = t2 + 50_000;
            let is_over = computed + new == prompt + output - 1;
            let held = if is_over {
                0
            } else {
                (computed + new).div_ceil(16)
            };
            let _ = writeln!(
                log,
                "{{\"kind\":\"step\",\"t0\":{t0},\"t1\":{t1},\"t2\":{t2},\"t3\":{t3},\
                 \"sched\":[[\"{id}\",{new},{computed}]],\"free\":{}}}",
                399 - held
            );
            computed += new;
            now = t3;
        }
    }
    log
}

/// What the same prompts would be in a file beside the log: each its own.
pub const PROMPTS: &str = "[{\"id\": 0, \"prompt\": [[1, 60]]}]";

/// AIPerf's export of `requests` requests, one in 400 ms, each alone.
pub fn client_log(requests: u32) -> String {
    let record = |number: u32| {
        let (input, output) = (100 + 37 * (number % 19), 10 + number % 13);
        let start = 1_777_142_838_000_000_000 + 400_000_000 * u64::from(number);
        let ttft = 12.0 + 0.04 * f64::from(input);
        let e2e = ttft + 11.0 * f64::from(output - 1);
        format!(
            "{{\"metadata\":{{\"x_request_id\":\"{number}\",\"request_start_ns\":{start},\"was_cancelled\":false}},\
             \"metrics\":{{\"time_to_first_token\":{{\"value\":{ttft},\"unit\":\"ms\"}},\
             \"request_latency\":{{\"value\":{e2e},\"unit\":\"ms\"}},\
             \"input_sequence_length\":{{\"value\":{input},\"unit\":\"tokens\"}},\
             \"output_sequence_length\":{{\"value\":{output},\"unit\":\"tokens\"}}}},\"error\":null}}\n"
        )
    };
    (0..requests).map(record).collect()
}

/// A scenario of one engine, as `fit-requests` wants it.
pub const ENGINE: &str = "schema_version: 1
engine: {num_gpu_blocks: 4000, max_num_seqs: 64, max_num_batched_tokens: 2048}
timing: {source: linear, base_ns: 1000}
";

/// Gives a folder the logs that documents and help name.
pub fn provide_logs(folder: &Folder) {
    folder.write("engine.steplog.jsonl", step_log(24));
    folder.write("engine.requests.json", PROMPTS);
    folder.write("profile_export.jsonl", client_log(60));
    folder.write("engine.yaml", ENGINE);
}

#[test]
fn a_step_log_is_replayed_fitted_and_used() {
    let folder = Folder::new();
    provide_logs(&folder);
    let log = "engine.steplog.jsonl";
    assert_contains(
        &folder.good(&["conform", "steps", log]),
        &["steps identical"],
    );
    let text = folder.good(&[
        "calibrate",
        "fit-steps",
        log,
        "--out",
        "fit.json",
        "--plot",
        "residuals.svg",
        "--predict",
        log,
    ]);
    assert_contains(
        &text,
        &[
            "held-out error of the step time",
            "prefill_token",
            "fitted to this log",
            "TTFT mean",
        ],
    );
    assert!(folder.text("residuals.svg").contains("</svg>"));
    folder.write(
        "used.yaml",
        ENGINE.replace(
            "{source: linear, base_ns: 1000}",
            "{source: fitted, profile: fit.json}",
        ),
    );
    folder.good(&[
        "trace",
        "synth",
        "--preset",
        "quick",
        "--requests",
        "20",
        "--duration",
        "60",
        "--out",
        "trace.jsonl",
    ]);
    let report = folder.good(&["replay", "used.yaml", "--trace", "trace.jsonl"]);
    assert_contains(&report, &["fitted", "held-out error of the step time"]);
    // The same bytes twice.
    folder.good(&["calibrate", "fit-steps", log, "--out", "again.json"]);
    assert_eq!(folder.text("fit.json"), folder.text("again.json"));
}

#[test]
fn a_client_log_is_fitted() {
    let folder = Folder::new();
    provide_logs(&folder);
    let args = [
        "calibrate",
        "fit-requests",
        "profile_export.jsonl",
        "--scenario",
        "engine.yaml",
    ];
    let json = folder.json(&[args.as_slice(), &["--out", "fit.json", "--json"]].concat());
    assert_eq!(json["held_out"]["requests"], 30);
    let metrics = json["held_out"]["metrics"].as_array().unwrap();
    for row in metrics {
        assert!(row["error"].as_f64().unwrap().abs() < 0.1, "{row}");
    }
    assert_contains(
        &folder.text("fit.json"),
        &["dynosim-fitted-timing", "pinned", "2026-04-25T18:47Z"],
    );
}

#[test]
fn a_scheduler_that_differs_is_told_where() {
    let folder = Folder::new();
    let log = step_log(3).replacen("\"free\":395", "\"free\":394", 1);
    folder.write("engine.steplog.jsonl", log);
    let answer = folder.run(&["conform", "steps", "engine.steplog.jsonl"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert_contains(
        &answer.stdout,
        &["engine.steplog.jsonl:3: step 0: free blocks", "394", "395"],
    );
}

#[test]
fn bad_logs_are_refused_and_nothing_is_written() {
    let folder = Folder::new();
    provide_logs(&folder);
    let good = step_log(24);
    folder.write("cut.jsonl", &good[..good.len() - 30]);
    folder.write("empty.jsonl", "");
    folder.write("csv.jsonl", "a,b\n1,2\n");
    folder.write("short.jsonl", step_log(2));
    folder.write(
        "backwards.jsonl",
        good.replacen("\"t0\":1000020000", "\"t0\":20000", 1),
    );
    let requests = client_log(60);
    folder.write(
        "twice.jsonl",
        format!("{requests}{}", requests.lines().next().unwrap()),
    );
    folder.write("few.jsonl", client_log(30));
    folder.write(
        "broken.yaml",
        ENGINE.replace(
            "{source: linear, base_ns: 1000}",
            "{source: fitted, profile: csv.jsonl}",
        ),
    );
    folder.write(
        "alone.yaml",
        ENGINE.replace("{source: linear, base_ns: 1000}", "{source: fitted}"),
    );
    folder.write(
        "absent.yaml",
        ENGINE.replace(
            "{source: linear, base_ns: 1000}",
            "{source: fitted, profile: nowhere.json}",
        ),
    );
    let before = folder.names();
    let steps = |log: &str| {
        folder.refused(&[
            "calibrate",
            "fit-steps",
            log,
            "--out",
            "new.json",
            "--plot",
            "new.png",
        ])
    };
    for (log, needle) in [
        ("cut.jsonl", "cut.jsonl:"),
        ("empty.jsonl", "an empty file"),
        ("csv.jsonl", "no JSON"),
        ("short.jsonl", "expected at least 50"),
        ("backwards.jsonl", "the clock ran backwards"),
        ("nowhere.jsonl", "nowhere.jsonl"),
    ] {
        assert_contains(&steps(log), &[needle]);
    }
    let two = folder.refused(&["calibrate", "fit-steps", "cut.jsonl", "empty.jsonl"]);
    assert_contains(&two, &["cut.jsonl", "empty.jsonl"]);
    let requests = |log: &str, more: &[&str]| {
        let args = [
            "calibrate",
            "fit-requests",
            log,
            "--out",
            "new.json",
            "--scenario",
        ];
        folder.refused(&[args.as_slice(), more].concat())
    };
    for (log, more, needle) in [
        (
            "twice.jsonl",
            ["engine.yaml"].as_slice(),
            "twice.jsonl:61: id",
        ),
        ("few.jsonl", &["engine.yaml"], "15 requests to fit to"),
        (
            "engine.steplog.jsonl",
            &["engine.yaml"],
            "an object with neither",
        ),
        (
            "profile_export.jsonl",
            &["engine.yaml", "--share", "2"],
            "--share 2",
        ),
        (
            "profile_export.jsonl",
            &["engine.yaml", "--set", "engine.num_gpu_blocks=20"],
            "exceeds_kv_cache",
        ),
        (
            "profile_export.jsonl",
            &["engine.yaml", "--set", "pools.agg.workers=2"],
            "expected 1",
        ),
        (
            "profile_export.jsonl",
            &["engine.yaml", "--prompts", "nowhere"],
            "nowhere",
        ),
    ] {
        assert_contains(&requests(log, more), &[needle]);
    }
    folder.write(
        "trace.jsonl",
        "{\"timestamp\":0,\"input_length\":10,\"output_length\":1,\"hash_ids\":[1]}\n",
    );
    for (scenario, needle) in [
        ("broken.yaml", "timing.profile"),
        ("alone.yaml", "profile, the file of a fit"),
        ("absent.yaml", "nowhere.json"),
    ] {
        assert_contains(
            &folder.refused(&["replay", scenario, "--trace", "trace.jsonl"]),
            &[needle],
        );
    }
    let mut after = folder.names();
    after.retain(|name| name != "trace.jsonl");
    assert_eq!(after, before, "nothing was written");
}

#[test]
fn every_step_of_the_recorded_engine_is_identical() {
    for (log, steps) in [("replay1", 1448), ("replay2", 1970), ("sweep", 2150)] {
        let Some(path) = shared(&format!("golden/vllm_cpu_run/{log}.steplog.jsonl.gz")) else {
            return;
        };
        let text = Folder::new().good(&["conform", "steps", path.to_str().unwrap()]);
        assert_contains(&text, &[&format!("{steps} steps identical")]);
    }
}
