//! What the studies use: oracles, regret, curves over a field.

use crate::program::{Folder, assert_contains};

const REPLAY: [&str; 4] = ["replay", "scenario.yaml", "--trace", "trace.jsonl"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&REPLAY, more].concat()
}

#[test]
fn oracles_serve_and_say_that_they_are_oracles() {
    let folder = Folder::with_scenario_and_trace();
    let oracles = [
        "--router",
        "clairvoyant",
        "--set",
        "engine.eviction=belady",
        "--num-gpu-blocks",
        "2500",
    ];
    let report = folder.json(&with(&[&oracles[..], &["--json"]].concat()));
    assert_eq!(report["requests"]["completed"], 40);
    let guesses = report["timing"]["guesses"].to_string();
    assert_contains(
        &guesses,
        &[
            "an oracle evicts (belady)",
            "an oracle routes (clairvoyant)",
        ],
    );
    let stepping = folder.json(&with(&[&oracles[..], &["--json", "--stepping"]].concat()));
    assert_eq!(report, stepping);
    let check = [
        &["check-scenario", "scenario.yaml", "--trace", "trace.jsonl"],
        &oracles[..],
    ];
    assert_contains(
        &folder.good(&check.concat()),
        &["evicting as Belady, an oracle", "clairvoyant, an oracle"],
    );
    let told = folder.refused(&with(&[&oracles[..], &["--live"]].concat()));
    assert_contains(
        &told,
        &[
            "--live: found pool agg: an oracle evicts",
            "--live: found an oracle routes",
        ],
    );
}

#[test]
fn oracles_are_refused_where_there_is_none() {
    let folder = Folder::with_scenario_and_trace();
    let parts = "pools=[{name: p, role: prefill, workers: 1}, {name: d, role: decode, workers: 1}]";
    let network = "network.preset=efa";
    let apart = ["--set", parts, "--set", network];
    let told = folder.refused(&with(&[&apart[..], &["--router", "clairvoyant"]].concat()));
    assert_contains(
        &told,
        &[
            "router",
            "clairvoyant before pools of role prefill and decode",
        ],
    );
    let told = folder.refused(&with(&[&apart[..], &["--regret", "3"]].concat()));
    assert_contains(&told, &["--regret: found pools of role prefill and decode"]);
    let told = folder.refused(&with(&["--workers", "1", "--regret", "3"]));
    assert_contains(&told, &["--regret: found one worker"]);
    let told = folder.refused(&with(&["--set", "engine.eviction=fifo"]));
    assert_contains(
        &told,
        &["engine.eviction: found `fifo`, expected one of lru, belady"],
    );
}

#[test]
fn regret_is_part_of_the_report_when_asked_for() {
    let folder = Folder::with_scenario_and_trace();
    let plain = folder.json(&with(&["--json"]));
    let mut report = folder.json(&with(&["--json", "--regret", "7"]));
    let regret = report.as_object_mut().unwrap().remove("regret").unwrap();
    assert_eq!(report, plain, "asking changes nothing else");
    assert_eq!(
        (&regret["sampled"], &regret["compared"]),
        (&7.into(), &7.into())
    );
    for latency in ["ttft_ms", "e2e_ms"] {
        let number = |name: &str| regret[latency][name].as_f64().unwrap();
        assert!(
            number("chosen_mean") > 0.0 && number("second_mean") > 0.0,
            "{regret}"
        );
        assert!(number("regret_mean") <= number("regret_max"), "{regret}");
    }
    // More decisions than requests: all of them.
    let all = folder.json(&with(&["--json", "--regret", "1000"]));
    assert_eq!(all["regret"]["sampled"], 40);
    let text = folder.good(&with(&["--regret", "7"]));
    assert_contains(&text, &["7 decisions against 2nd choice (ms)", "saved all"]);
}

#[test]
fn a_sweep_over_a_field_gives_tables_and_curves() {
    let folder = Folder::with_scenario_and_trace();
    let over = |field| {
        [
            "sweep",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--vary",
            "router.mode=kv,random",
            "--vary",
            "workload.load.concurrency=1,2,16",
            "--y",
            "latency.ttft_ms.mean",
            "--over",
            field,
        ]
    };
    let told = folder.refused(&over("router.mode"));
    assert_contains(
        &told,
        &["--over: found the value `kv` of router.mode, expected numbers"],
    );
    let told = folder.refused(&over("seed"));
    assert_contains(
        &told,
        &[
            "--over: found `seed`",
            "router.mode, workload.load.concurrency",
        ],
    );
    assert!(
        !folder.path("sweep-results").exists(),
        "nothing is left behind"
    );
    let asked = [
        &over("workload.load.concurrency")[..],
        &["--x", "throughput.gpu_hours"],
    ]
    .concat();
    assert_contains(&folder.good(&asked), &["GPU-hours  "]);
    let text = folder.good(&[&over("workload.load.concurrency")[..], &["--fresh"]].concat());
    let is_head = |line: &&str| line.trim_start().starts_with("TTFT mean (ms)  ");
    let mut lines = text.lines().skip_while(|line| !is_head(line));
    let mut words = || lines.next().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(words(), ["TTFT", "mean", "(ms)", "1", "2", "16"]);
    let kv = words();
    assert_eq!((kv.len(), &kv[..2]), (5, &["router.mode", "kv"][..]));
    assert_eq!(words()[..2], ["router.mode", "random"]);
    assert_contains(
        &text,
        &["TPOT mean (ms)", "tokens/s/GPU", "curves.png, curves.svg"],
    );
    for name in ["curves.png", "curves.svg", "frontier.png"] {
        assert!(folder.path("sweep-results").join(name).exists(), "{name}");
    }
}
