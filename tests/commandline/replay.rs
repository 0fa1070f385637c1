//! `dynosim replay`: names and meaning of its numbers, files, determinism, options.

use crate::program::{Folder, assert_contains};
use serde_json::Value;
use std::collections::BTreeMap;

const REPLAY: [&str; 4] = ["replay", "scenario.yaml", "--trace", "trace.jsonl"];

fn replay(folder: &Folder, options: &[&str]) -> Value {
    folder.json(&[REPLAY.as_slice(), options, &["--json"]].concat())
}

/// Columns of `requests.csv` by name.
fn requests(folder: &Folder, out: &str) -> BTreeMap<String, Vec<String>> {
    let text = folder.text(&format!("{out}/requests.csv"));
    let mut lines = text
        .lines()
        .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let rows: Vec<Vec<String>> = lines.collect();
    let column = |index: usize| rows.iter().map(|row| row[index].clone()).collect();
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| (name, column(index)))
        .collect()
}

fn numbers(column: &[String]) -> Vec<f64> {
    column.iter().filter_map(|cell| cell.parse().ok()).collect()
}

#[test]
fn names_of_the_report_are_the_documented_ones() {
    let folder = Folder::with_scenario_and_trace();
    let report = replay(&folder, &[]);
    for latency in ["ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "queue_ms"] {
        let one = &report["latency"][latency];
        let values =
            ["min", "p50", "p90", "p95", "p99", "max"].map(|name| one[name].as_f64().unwrap());
        assert!(values.is_sorted(), "{latency}: {one}");
        let mean = one["mean"].as_f64().unwrap();
        assert!(values[0] <= mean && mean <= values[5], "{latency}: {one}");
    }
    for (section, names) in [
        (
            "requests",
            [
                "total",
                "completed",
                "rejected",
                "unfinished",
                "preemptions",
            ]
            .as_slice(),
        ),
        (
            "throughput",
            &[
                "output_tokens_per_s",
                "total_tokens_per_s",
                "output_tokens_per_s_per_gpu",
                "output_tokens_per_s_per_user",
            ],
        ),
        ("goodput", &["requests", "share", "requests_per_s"]),
        (
            "prefix",
            &[
                "first_admission_share",
                "all_admissions_share",
                "router_overlap_share",
            ],
        ),
        ("kv", &["peak_share", "mean_share"]),
    ] {
        for name in names {
            assert!(
                report[section][name].is_number(),
                "{section}.{name}: {report}"
            );
        }
    }
    assert_eq!(report["timing"]["source"], "measured");
    assert_eq!(report["timing"]["basis"], "measured");
    assert!(!report["timing"]["guesses"].as_array().unwrap().is_empty());
    assert_eq!(report["workers"].as_array().unwrap().len(), 2);
    assert!(report["workers"][1]["utilisation"].is_number());
    // Without an SLA there is no goodput.
    assert!(replay(&folder, &["--set", "sla=null"])["goodput"].is_null());
}

#[test]
fn numbers_of_the_report_are_those_of_the_requests() {
    let folder = Folder::with_scenario_and_trace();
    let report = replay(&folder, &["--out", "out"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&folder.read("out/report.json")).unwrap(),
        report
    );
    let columns = requests(&folder, "out");
    let total = columns["outcome"].len();
    assert_eq!(
        (
            total,
            &report["requests"]["total"],
            &report["requests"]["completed"]
        ),
        (40, &40.into(), &40.into())
    );
    for (latency, column) in [
        ("ttft_ms", "ttft_ms"),
        ("e2e_ms", "e2e_ms"),
        ("tpot_ms", "tpot_ms"),
        ("queue_ms", "queue_ms"),
    ] {
        let mut values = numbers(&columns[column]);
        values.sort_by(f64::total_cmp);
        let one = &report["latency"][latency];
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!(
            (one["mean"].as_f64().unwrap() - mean).abs() <= 1e-9 * mean,
            "{latency}: {mean} {one}"
        );
        // Nearest rank; the two may round the last digit differently.
        let rank = (0.9 * values.len() as f64).ceil() as usize;
        for (name, value) in [("p90", values[rank - 1]), ("max", values[values.len() - 1])] {
            let reported = one[name].as_f64().unwrap();
            assert!(
                (reported - value).abs() <= 1e-14 * value,
                "{latency} {name}: {reported} {value}"
            );
        }
    }
    let ttft = numbers(&columns["ttft_ms"]);
    let tpot = numbers(&columns["tpot_ms"]);
    assert!(tpot.len() == 40, "every request has two tokens or more");
    let good = ttft
        .iter()
        .zip(&tpot)
        .filter(|(ttft, tpot)| **ttft <= 2000.0 && **tpot <= 30.0)
        .count();
    assert_eq!(report["goodput"]["requests"], good);
    let start = numbers(&columns["arrival_ms"])
        .into_iter()
        .fold(f64::INFINITY, f64::min);
    let end = numbers(&columns["finish_ms"])
        .into_iter()
        .fold(0.0, f64::max);
    let tokens: f64 = numbers(&columns["output_tokens"]).iter().sum();
    let rate = report["throughput"]["output_tokens_per_s"]
        .as_f64()
        .unwrap();
    assert!(
        (rate - 1000.0 * tokens / (end - start)).abs() < 1e-6 * rate,
        "{rate}"
    );
    assert!(
        (2.0 * report["throughput"]["output_tokens_per_s_per_gpu"]
            .as_f64()
            .unwrap()
            - rate)
            .abs()
            < 1e-9 * rate
    );
}

#[test]
fn every_file_is_what_its_name_says() {
    let folder = Folder::with_scenario_and_trace();
    let text = folder.good(&[REPLAY.as_slice(), &["--out", "new/out", "--window-s", "5"]].concat());
    assert_contains(
        &text,
        &[
            "40 completed of 40",
            "Time to first token",
            "measured (measured): meta-llama/Llama-3.1-8B",
            "Goodput",
        ],
    );
    for name in ["report.json", "timeline.json", "profile_export_aiperf.json"] {
        let value: Value =
            serde_json::from_slice(&folder.read(&format!("new/out/{name}"))).unwrap();
        assert!(value.is_object(), "{name}");
    }
    let records = folder.text("new/out/profile_export.jsonl");
    assert_eq!(records.lines().count(), 40);
    assert!(
        records
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).unwrap().is_object())
    );
    let parquet = folder.read("new/out/requests.parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    let series = folder.text("new/out/series.csv");
    let starts: Vec<&str> = series
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap())
        .collect();
    assert_eq!(starts[..3], ["0", "5", "10"]);
    let left = folder.names().join(" ");
    assert_eq!(
        left, "new scenario.yaml trace.jsonl",
        "nothing but the folder that was asked for"
    );
}

#[test]
fn twice_the_same_and_coasting_equals_stepping() {
    let folder = Folder::with_scenario_and_trace();
    // Short of blocks, so that there are preemptions too.
    let options = [
        "--num-gpu-blocks",
        "1000",
        "--workers",
        "1",
        "--arrival-speedup-ratio",
        "20",
    ];
    let run = |more: &[&str]| folder.good(&[REPLAY.as_slice(), &options, more].concat());
    assert_contains(&run(&["--out", "once"]), &["Preemptions"]);
    let written = "\nWritten to twice: report.json, requests.csv, requests.parquet, series.csv, timeline.json, \
        profile_export_aiperf.json, profile_export.jsonl\n";
    assert_eq!(
        run(&["--out", "twice"]),
        run(&[]) + written,
        "files change nothing"
    );
    run(&["--out", "stepping", "--stepping"]);
    // The digest is the identity of the run, not a result.
    let results = |out: &str, name: &str| {
        let lines = folder.read(&format!("{out}/{name}"));
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| {
            let line = String::from_utf8_lossy(line);
            !line.contains("\"digest\":") && !line.contains("\"benchmark_id\":")
        });
        lines.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    for name in [
        "report.json",
        "requests.csv",
        "requests.parquet",
        "series.csv",
        "timeline.json",
        "profile_export.jsonl",
        "profile_export_aiperf.json",
    ] {
        let file = |out: &str| folder.read(&format!("{out}/{name}"));
        assert_eq!(file("once"), file("twice"), "{name}");
        assert_eq!(results("once", name), results("stepping", name), "{name}");
    }
}

#[test]
fn another_seed_is_another_workload_and_nothing_else_is() {
    let folder = Folder::new();
    folder.write(
        "scenario.yaml",
        "workload: {synth: {preset: quick, requests: 30, duration_s: 30}}",
    );
    let run =
        |options: &[&str]| folder.json(&[&["replay", "scenario.yaml", "--json"], options].concat());
    let seed = |seed: &str| run(&["--seed", seed]);
    for same in ["digest", "workload_digest", "latency", "seed"] {
        assert_eq!(run(&[])[same], seed("0")[same], "{same}");
    }
    assert_ne!(seed("0")["workload_digest"], seed("1")["workload_digest"]);
    assert_ne!(seed("0")["latency"], seed("1")["latency"]);
    // The workload does not depend on what serves it.
    assert_eq!(
        seed("1")["workload_digest"],
        run(&["--seed", "1", "--workers", "3", "--router", "random"])["workload_digest"]
    );
}

#[test]
fn what_can_never_fit_is_counted_with_its_reason() {
    let folder = Folder::new();
    folder.write(
        "scenario.yaml",
        "{engine: {block_size: 16, num_gpu_blocks: 65, max_model_len: 1500}}",
    );
    // 64 blocks of 16 tokens beside the null block, and the last token is never in the cache: one prompt fits with its
    // answer, one only without, one not at all, one not the model.
    folder.write(
        "trace.csv",
        "arrival_s,input,output\n0,1000,25\n0,1000,26\n0,1025,5\n0,1500,5\n",
    );
    let args = ["replay", "scenario.yaml", "--trace", "trace.csv"];
    let report = folder.json(&[args.as_slice(), &["--json", "--out", "out"]].concat());
    let reasons = serde_json::json!({ "output_exceeds_kv_cache": 1, "prompt_exceeds_kv_cache": 1, "prompt_too_long": 1 });
    assert_eq!(report["requests"]["rejected_by"], reasons);
    assert_eq!(
        (
            &report["requests"]["completed"],
            &report["requests"]["rejected"]
        ),
        (&1.into(), &3.into())
    );
    let columns = requests(&folder, "out");
    assert_eq!(
        columns["outcome"],
        ["completed", "rejected", "rejected", "rejected"]
    );
    assert_eq!(
        columns["rejection"],
        [
            "",
            "output_exceeds_kv_cache",
            "prompt_exceeds_kv_cache",
            "prompt_too_long"
        ]
    );
    assert_contains(
        &folder.good(&args),
        &[
            "1 completed of 4",
            "3 rejected",
            "1 output_exceeds_kv_cache",
        ],
    );
}

#[test]
fn a_closed_loop_holds_so_many_at_once() {
    let folder = Folder::with_scenario_and_trace();
    replay(&folder, &["--concurrency", "3", "--out", "out"]);
    let columns = requests(&folder, "out");
    let arrivals = numbers(&columns["arrival_ms"]);
    let ends = numbers(&columns["finish_ms"]);
    let in_flight = |time: f64| {
        arrivals
            .iter()
            .zip(&ends)
            .filter(|(from, to)| **from <= time && time < **to)
            .count()
    };
    let most = arrivals.iter().map(|time| in_flight(*time)).max();
    assert_eq!(most, Some(3));
}

#[test]
fn options_reach_the_scenario() {
    let folder = Folder::with_scenario_and_trace();
    // The last word is with --set.
    let report = replay(&folder, &["--workers", "5", "--set", "pools.agg.workers=3"]);
    assert_eq!(report["workers"].as_array().unwrap().len(), 3);
    assert_eq!(report["throughput"]["gpus"], 3);
    let wide = replay(&folder, &["--set", "pools.agg.parallel.tp=4"]);
    assert_eq!(wide["throughput"]["gpus"], 8);
    assert!(
        wide["latency"]["ttft_ms"]["mean"].as_f64() < report["latency"]["ttft_ms"]["mean"].as_f64()
    );
    // Twice the arrivals in half the time, the same requests.
    let fast = replay(&folder, &["--arrival-speedup-ratio", "2", "--out", "fast"]);
    assert_eq!(fast["requests"]["total"], 40);
    replay(&folder, &["--out", "slow"]);
    let last = |out| {
        numbers(&requests(&folder, out)["arrival_ms"])
            .into_iter()
            .fold(0.0, f64::max)
    };
    assert_eq!(last("slow"), 2.0 * last("fast"));
    let limited = replay(&folder, &["--set", "workload.trace.limit=7"]);
    assert_eq!(limited["requests"]["total"], 7);
    // Requests before the statistics begin.
    let warm = replay(&folder, &["--set", "workload.load.warmup_requests=10"]);
    assert_eq!(
        (
            &warm["requests"]["warmup"],
            &warm["latency"]["ttft_ms"]["count"]
        ),
        (&10.into(), &30.into())
    );
}

#[test]
fn live_runs_the_same_cluster_on_the_real_clock() {
    let folder = Folder::with_scenario_and_trace();
    let answer =
        folder.run(&[REPLAY.as_slice(), &["--live", "--speedup", "200", "--json"]].concat());
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_contains(
        &answer.stderr,
        &["replayed on the virtual clock: the same actions"],
    );
    let report: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(report["requests"]["completed"], 40);
    assert_contains(
        report["timing"]["detail"].as_str().unwrap(),
        &["run on the real clock 200 times as fast"],
    );
}

#[test]
fn a_report_says_what_was_replayed() {
    let folder = Folder::with_scenario_and_trace();
    let options = [
        "--workers",
        "3",
        "--set",
        "workload.trace.limit=30",
        "--set",
        "pools.0.workers=4",
        "--arrival-speedup-ratio",
        "2",
    ];
    let text = folder.good(&[REPLAY.as_slice(), &options].concat());
    assert_contains(
        &text,
        &[
            "\nWorkload        trace.jsonl, at most 30 requests; arrivals 2 times as fast\n",
            "\nSet             pools.0.workers=4, workload.load.arrival_speedup_ratio=2, workload.trace.limit=30, \
             workload.trace.path=trace.jsonl\n",
        ],
    );
    let report = replay(&folder, &options);
    assert_eq!(report["overrides"]["pools.0.workers"], "4");
    assert_eq!(report["overrides"]["workload.trace.path"], "trace.jsonl");
    assert_eq!(report["overrides"].as_object().unwrap().len(), 4);
    assert_eq!(replay(&folder, &options), report);
    folder.write(
        "made.yaml",
        "workload: {synth: {preset: quick, requests: 30, duration_s: 30}, load: {concurrency: 4}}",
    );
    let text = folder.good(&["replay", "made.yaml"]);
    assert_contains(
        &text,
        &["Workload        30 generated requests; closed loop of 4 sessions\n"],
    );
    assert!(!text.contains("\nSet "), "{text}");
}

#[test]
fn a_trace_that_cannot_be_read_is_refused_with_the_systems_reason() {
    let folder = Folder::with_scenario_and_trace();
    let said = folder.refused(&["replay", "scenario.yaml", "--trace", "nope.jsonl"]);
    assert_eq!(said, "nope.jsonl: No such file or directory (os error 2)\n");
    std::fs::create_dir(folder.path("folder")).unwrap();
    let said = folder.refused(&["replay", "scenario.yaml", "--trace", "folder"]);
    assert_contains(&said, &["folder", "directory"]);
}

#[test]
fn the_null_block_is_counted_and_holds_nothing() {
    let folder = Folder::new();
    folder.write("scenario.yaml", "timing: {source: polynomial}");
    folder.write(
        "trace.csv",
        "arrival_s,input,output\n0,65536,1\n1,65537,1\n",
    );
    // What README and docs/scenario.md say: 65,536 tokens are so many blocks.
    for (block_size, blocks) in [("512", 129), ("64", 1025)] {
        let requests = |blocks: u32| {
            let blocks = blocks.to_string();
            let args = ["replay", "scenario.yaml", "--trace", "trace.csv", "--json"];
            let pool = ["--block-size", block_size, "--num-gpu-blocks", &blocks];
            folder.json(&[args.as_slice(), &pool].concat())["requests"].clone()
        };
        assert_eq!(requests(blocks)["completed"], 1, "{}", requests(blocks));
        assert_eq!(requests(blocks - 1)["completed"], 0);
        assert_eq!(requests(blocks + 1)["completed"], 2);
    }
}

#[test]
fn prefill_and_decode_on_different_workers() {
    let folder = Folder::new();
    folder.write(
        "scenario.yaml",
        "pools: [{name: p, role: prefill}, {name: d, role: decode}]\n\
         engine: {num_gpu_blocks: 1024, async_scheduling: false}\n\
         network: {gb_per_s: 1, latency_us: 1000, setup_ms: 2}\n\
         disaggregation: {kv_bytes_per_token: 1000000}\n\
         timing: {source: linear, base_ns: 1000000, per_new_token_ns: 0, per_context_token_ns: 0}\n",
    );
    folder.write("trace.csv", "arrival_s,input,output\n0,100,10\n");
    let args = ["replay", "scenario.yaml", "--trace", "trace.csv"];
    let report = folder.json(&[args.as_slice(), &["--json"]].concat());
    // 1 ms of prefill; 2 ms of set-up, 1 ms of latency and 112 ms for 7 blocks of 16 MB; 1 ms for the first token.
    assert_eq!(report["latency"]["ttft_ms"]["mean"], 117.0);
    assert_eq!(report["latency"]["e2e_ms"]["mean"], 126.0);
    assert_eq!(report["transfers"]["bytes"], 112_000_000);
    assert_eq!(report["transfers"]["exposed_ms"]["mean"], 115.0);
    assert_contains(
        &folder.good(&args),
        &["KV transfers    1 transfer, 0.1 GB", "1 d"],
    );
    let live = ["--live", "--speedup", "1", "--json"];
    let live = folder.json(&[args.as_slice(), &live].concat());
    assert_eq!(live["requests"]["completed"], 1);
    let ttft = live["latency"]["ttft_ms"]["mean"].as_f64().unwrap();
    assert!((117.0..1_000.0).contains(&ttft), "{ttft}");
    folder.good(&[args.as_slice(), &["--out", "run"]].concat());
    assert!(folder.path("run/timeline.json").is_file());
}
