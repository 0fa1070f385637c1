//! `dynosim init` and `check-scenario`: a scenario to begin with, and what is said of good ones and bad ones.

use crate::program::{Folder, SCENARIO, assert_contains};

#[test]
fn the_file_of_init_is_good_and_runs() {
    let folder = Folder::new();
    folder.good(&["init"]);
    let text = folder.good(&["check-scenario", "scenario.yaml"]);
    assert_contains(
        &text,
        &[
            "scenario.yaml: nothing is wrong with it",
            "2000 generated requests (2000 requests)",
            "Pool agg        2 workers of 1 GPU (h100_sxm), meta-llama/Llama-3.1-8B",
            "measured (measured)",
            "TTFT within 2000 ms, TPOT within 30 ms",
            "Sweep           6 points",
        ],
    );
    let smaller = ["--set", "workload.synth.requests=50"];
    for command in ["replay", "sweep"] {
        folder.good(&[[command, "scenario.yaml"].as_slice(), &smaller].concat());
    }
    // A file that is there stays, unless asked otherwise.
    folder.write("scenario.yaml", "mine");
    assert_contains(&folder.refused(&["init"]), &["scenario.yaml: found a file"]);
    assert_eq!(folder.text("scenario.yaml"), "mine");
    folder.good(&["init", "--force"]);
    folder.good(&["init", "other.yaml"]);
    let other = folder
        .text("scenario.yaml")
        .replace(" scenario.yaml", " other.yaml");
    assert_eq!(folder.text("other.yaml"), other);
    assert_contains(&other, &["dynosim replay other.yaml"]);
}

#[test]
fn every_option_in_the_file_of_init_can_be_used() {
    let folder = Folder::new();
    folder.good(&["init"]);
    let template = folder.text("scenario.yaml");
    let is_option = |line: &str| {
        let rest = line.trim_start().strip_prefix('#');
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()))
    };
    let options: Vec<usize> = (0..)
        .zip(template.lines())
        .filter_map(|(index, line)| is_option(line).then_some(index))
        .collect();
    assert!(options.len() >= 8, "{template}");
    for wanted in options {
        let used = (0..)
            .zip(template.lines())
            .map(|(index, line)| match index {
                _ if index == wanted => line.replacen('#', "", 1) + "\n",
                _ => line.to_owned() + "\n",
            });
        folder.write("used.yaml", used.collect::<String>());
        folder.good(&["check-scenario", "used.yaml"]);
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let folder = Folder::with_scenario_and_trace();
    let bad = SCENARIO.replace("mode: kv", "mode: kvv")
        + "workload: {trace: {path: nope.jsonl}}\n\
           sweep: {grid: {pools.agg.workers: [1, none], engine.blok_size: [1]}}\n";
    folder.write("bad.yaml", bad);
    let said = folder.refused(&["check-scenario", "bad.yaml"]);
    assert_contains(
        &said,
        &["bad.yaml:6:16: router.mode: found `kvv`", "blok_size"],
    );
    assert_eq!(said.matches("kvv").count(), 1, "{said}");
    // With the deployment mended, values of the sweep and the trace are what is left.
    let said = folder.refused(&["check-scenario", "bad.yaml", "--router", "kv"]);
    assert_contains(&said, &["blok_size", "nope.jsonl: No such file"]);
    let good = ["check-scenario", "scenario.yaml", "--trace", "trace.jsonl"];
    let report = folder.json(&[good.as_slice(), &["--workers", "3", "--json"]].concat());
    let replay = [
        "replay",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--json",
    ];
    let replay = folder.json(&replay);
    assert_eq!(report["workload_digest"], replay["workload_digest"]);
    assert_eq!(report["pools"][0]["workers"], 3);
    assert_eq!(
        report["pools"][0]["timing"]["source"],
        replay["timing"]["source"]
    );
    assert_eq!(
        report["pools"][0]["num_gpu_blocks_from"],
        "computed from the GPU's memory"
    );
    assert_eq!(
        (&report["requests"], &report["sweep_points"]),
        (&40.into(), &1.into())
    );
}
