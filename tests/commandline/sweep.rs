//! `dynosim sweep` and `compare` from their caller's side: results that do not depend on luck, and what they say.

use crate::program::{Folder, SCENARIO, assert_contains};
use serde_json::Value;
use std::fs::File;
use std::io::Write;

const SWEEP: [&str; 6] = [
    "sweep",
    "scenario.yaml",
    "--trace",
    "trace.jsonl",
    "--vary",
    "router.mode=kv,round-robin",
];

#[test]
fn a_journal_torn_by_a_crash_costs_one_point_at_most() {
    let folder = Folder::with_scenario_and_trace();
    let run = |out, threads| {
        let args = [
            SWEEP.as_slice(),
            &[
                "--vary",
                "pools.agg.workers=1..4",
                "--out",
                out,
                "--threads",
                threads,
            ],
        ]
        .concat();
        folder.good(&args)
    };
    run("whole", "1");
    run("torn", "2");
    let journal = folder.text("torn/journal.jsonl");
    assert_eq!(journal.lines().count(), 8);
    // The machine went down while the last of five lines was written, and one before it was damaged on the disk.
    let mut lines: Vec<String> = journal.lines().take(5).map(str::to_owned).collect();
    lines[1] = lines[1].replace("latency", "lateness");
    let half = lines[4].len() / 2;
    folder.write(
        "torn/journal.jsonl",
        format!("{}\n{}", lines[..4].join("\n"), &lines[4][..half]),
    );
    for name in [
        "sweep.csv",
        "sweep.parquet",
        "report.json",
        "frontier.png",
        "frontier.svg",
    ] {
        std::fs::remove_file(folder.path(&format!("torn/{name}"))).unwrap();
    }
    let text = run("torn", "2");
    assert_contains(&text, &["8 points, 3 from the journal"]);
    for name in [
        "sweep.csv",
        "sweep.parquet",
        "report.json",
        "frontier.png",
        "frontier.svg",
    ] {
        let file = |out: &str| folder.read(&format!("{out}/{name}"));
        assert_eq!(file("whole"), file("torn"), "{name}");
    }
    assert_contains(&run("torn", "2"), &["8 points, 8 from the journal"]);
}

#[test]
fn points_of_another_workload_are_not_taken_from_the_journal() {
    let folder = Folder::with_scenario_and_trace();
    folder.good(&SWEEP);
    // The file has the same name and other content.
    let more = r#"{"timestamp": 70000, "input_length": 9, "output_length": 9}"#;
    let mut trace = File::options()
        .append(true)
        .open(folder.path("trace.jsonl"))
        .unwrap();
    writeln!(trace, "{more}").unwrap();
    let text = folder.good(&SWEEP);
    assert!(!text.contains("from the journal"), "{text}");
}

#[test]
fn a_point_of_a_sweep_is_the_replay_of_it() {
    let folder = Folder::with_scenario_and_trace();
    let sweep = folder.json(
        &[
            SWEEP.as_slice(),
            &["--vary", "engine.max_num_seqs=2,256", "--json"],
        ]
        .concat(),
    );
    let points = sweep["points"].as_array().unwrap();
    assert_eq!(points.len(), 4);
    let replay = |options: &[&str]| {
        folder.json(
            &[
                &[
                    "replay",
                    "scenario.yaml",
                    "--trace",
                    "trace.jsonl",
                    "--json",
                ],
                options,
            ]
            .concat(),
        )
    };
    let alone = replay(&["--router", "round-robin", "--set", "engine.max_num_seqs=2"]);
    let metrics = &points[2]["metrics"];
    for name in [
        "latency.ttft_ms.p99",
        "latency.itl_ms.mean",
        "throughput.output_tokens_per_s",
        "goodput.share",
        "kv.peak_share",
    ] {
        let pointer = format!("/{}", name.replace('.', "/"));
        assert_eq!(alone.pointer(&pointer), metrics.get(name), "{name}");
        assert!(metrics[name].is_number(), "{name}: {metrics}");
    }
}

#[test]
fn the_greatest_rate_is_an_edge() {
    let folder = Folder::with_scenario_and_trace();
    let args = [
        "sweep",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--find",
        "max-rate",
        "--json",
    ];
    let report = folder.json(&args);
    let search = &report["searches"][0];
    assert_eq!(search["answer"], "found", "{search}");
    let rate = search["value"].as_f64().unwrap();
    let share = |rate: f64| {
        let rate = rate.to_string();
        let args = [
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--arrival-speedup-ratio",
            &rate,
            "--json",
        ];
        folder.json(&args)["goodput"]["share"].as_f64().unwrap()
    };
    assert!(share(rate) >= 0.9, "{rate}: {}", share(rate));
    // The least rate above it that was tried misses the SLA.
    let tried: Vec<f64> = report["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(rate_of)
        .collect();
    let above = tried
        .iter()
        .copied()
        .filter(|one| *one > rate)
        .fold(f64::INFINITY, f64::min);
    assert!(above < 1.1 * rate, "{rate} {tried:?}");
    assert!(share(above) < 0.9, "{above}: {}", share(above));
}

fn rate_of(point: &Value) -> f64 {
    point["overrides"]["workload.load.arrival_speedup_ratio"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn two_replays_are_compared_request_by_request() {
    let folder = Folder::with_scenario_and_trace();
    for (router, out) in [("kv", "a"), ("round-robin", "b")] {
        let args = [
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--workers",
            "4",
            "--router",
            router,
            "--out",
            out,
        ];
        folder.good(&args);
    }
    let text = folder.good(&["compare", "a", "b"]);
    assert_contains(
        &text,
        &[
            "A: a/report.json",
            "B: b/report.json",
            "Requests paired one by one, 40 pairs",
        ],
    );
    let json = folder.json(&["compare", "a", "a", "--json"]);
    let differences = json["differences"].as_array().unwrap();
    assert!(
        !differences.is_empty() && differences.iter().all(|one| one["verdict"] == "equal"),
        "{json}"
    );
    // Other requests cannot be paired: that is a comparison that failed, not wrong usage.
    let args = [
        "replay",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--set",
        "workload.trace.limit=30",
        "--out",
        "c",
    ];
    folder.good(&args);
    let answer = folder.run(&["compare", "a", "c"]);
    assert_eq!(
        (answer.code, answer.stdout.as_str()),
        (Some(1), ""),
        "{answer}"
    );
    for (other, part) in [
        ("nowhere", "nowhere"),
        ("scenario.yaml", "not JSON"),
        ("a#3", "a/report.json: found a single run"),
    ] {
        assert_contains(&folder.refused(&["compare", "a", other]), &[part]);
    }
    assert_contains(
        &folder.refused(&["compare", "a", "b", "--metric", "latency.tftt_ms.p99"]),
        &["latency.ttft_ms.p99"],
    );
}

#[test]
fn warnings_about_a_trace_are_said_once() {
    let folder = Folder::new();
    folder.write("scenario.yaml", SCENARIO);
    folder.write("trace.csv", "arrival_s,input,output\n1,100,5\n0,100,5\n");
    let args = [
        "sweep",
        "scenario.yaml",
        "--trace",
        "trace.csv",
        "--vary",
        "pools.agg.workers=1..3",
    ];
    let answer = folder.run(&args);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_eq!(
        answer.stderr.matches("warning: trace.csv:3: ").count(),
        1,
        "{answer}"
    );
    assert_contains(
        &folder.refused(&[args.as_slice(), &["--strict", "--out", "strict"]].concat()),
        &["trace.csv:3: "],
    );
    assert!(!folder.path("strict").exists());
}

#[test]
fn a_mistake_in_an_axis_is_bad_input_and_told_with_all_others() {
    let folder = Folder::with_scenario_and_trace();
    let vary = |axes: &[&str]| {
        let mut args = vec!["sweep", "scenario.yaml", "--trace", "trace.jsonl"];
        axes.iter().for_each(|axis| args.extend(["--vary", axis]));
        folder.run(&args)
    };
    // Each alone, and beside an axis whose first value is impossible.
    for axes in [
        ["router.mode=kv,kvv", "seed=1"].as_slice(),
        &["pools.agg.workers=1,two"],
        &["gpu=h100_sxm,h100_smx"],
        &["engine.version=0.33,0.34"],
        &["pools.agg.parallel.pp=1,0"],
        &["gpus=8,x"],
        &["workload.trace.path=trace.jsonl,nope.jsonl"],
        &[
            "pools.agg.parallel.tp=3,1",
            "workload.trace.path=trace.jsonl,nope.jsonl",
        ],
    ] {
        let answer = vary(axes);
        assert_eq!(answer.code, Some(2), "{answer}");
        assert!(!folder.path("sweep-results").exists(), "{answer}");
    }
    let answer = vary(&["router.mode=kv,kvv,kwv", "pools.agg.workers=1,two,3"]);
    let expected = "--vary pools.agg.workers: pools.agg.workers: found `two`, expected a whole number from 1 to 100000\n\
        --vary router.mode: router.mode: found `kvv`, expected one of round-robin, random, least-loaded, power-of-two, device-aware-weighted, session-affinity, kv, direct, clairvoyant; \
        did you mean `kv`?\n\
        --vary router.mode: router.mode: found `kwv`, expected one of round-robin, random, least-loaded, power-of-two, device-aware-weighted, session-affinity, kv, direct, clairvoyant\n";
    assert_eq!(answer.stderr, expected, "{answer}");
    let answer = vary(&["workload.trace.path=a.jsonl,trace.jsonl,b.jsonl"]);
    let named = ["a.jsonl", "b.jsonl"].map(|name| answer.stderr.contains(name));
    assert_eq!(named, [true, true], "{answer}");
    // What does not go together stays a point with its reason, the other points count.
    let answer = vary(&["pools.agg.parallel.tp=1,3", "engine.max_num_seqs=256,9000"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_eq!(
        folder
            .text("sweep-results/sweep.csv")
            .matches("impossible")
            .count(),
        6
    );
}

#[test]
fn searches_show_what_decides_best_first_and_why_nothing_meets() {
    let folder = Folder::with_scenario_and_trace();
    let find = |args: &[&str]| {
        let common = ["sweep", "scenario.yaml", "--trace", "trace.jsonl", "--find"];
        folder.run(&[common.as_slice(), args].concat())
    };
    let answer = find(&[
        "max-rate",
        "--vary",
        "pools.agg.workers=1,4,2",
        "--vary",
        "router.mode=kv,random",
    ]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_contains(
        &answer.stdout,
        &[
            "requests within the SLA over times the arrivals",
            "requests within the SLA (%)\n",
            "asked: 90 % within the SLA",
            "At each answer, best first",
        ],
    );
    // The table is in the order of the metric that ranks.
    let table = answer.stdout.split("best first\n").nth(1).unwrap();
    let column = table.lines().next().unwrap().find("tokens/s/GPU").unwrap() + "tokens/s/GPU".len();
    let rows = table.lines().skip(1).take(6);
    let values: Vec<f64> = rows
        .map(|row| row[..column].split_whitespace().last().unwrap())
        .map(|cell| cell.replace(',', "").parse().unwrap())
        .collect();
    assert!(values.is_sorted_by(|left, right| left >= right), "{answer}");

    for goal in ["max-rate", "min-workers"] {
        let answer = find(&[goal, "--set", "sla.ttft_ms=0.1"]);
        assert_eq!(answer.code, Some(1), "{answer}");
        assert_contains(
            &answer.stdout,
            &[
                "the limit of the search, does not meet all constraints:",
                "SLA met by 0 % of requests, 90 % asked: TTFT p90 is",
                "outside the SLA",
            ],
        );
    }
}

#[test]
fn the_text_of_a_sweep_explains_its_signs_and_counts() {
    let folder = Folder::with_scenario_and_trace();
    let text = folder.good(
        &[
            SWEEP.as_slice(),
            &[
                "--vary",
                "pools.agg.workers=1..4",
                "--vary",
                "pools.agg.parallel.tp=1,3",
                "--x",
                "goodput.requests_per_s",
                "--y",
                "kv.mean_share:min",
            ],
        ]
        .concat(),
    );
    assert_contains(
        &text,
        &[
            "* winner\n",
            "Left out: 8 impossible",
            "KV cache used on average",
        ],
    );
    let report = text.split("Written to").next().unwrap();
    for raw in ["mean_share", "per_s", "ttft_ms"] {
        assert!(!report.contains(raw), "{raw}: {text}");
    }
    let alone = [
        "sweep",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--set",
        "sla.ttft_ms=0.1",
    ];
    let text = folder.good(&alone);
    assert_contains(
        &text,
        &[
            "1 outside the SLA",
            "The configuration does not meet all constraints",
            "The only point does not meet all constraints",
        ],
    );
}

#[test]
fn intervals_beside_corrected_p_say_that_they_are_not() {
    let folder = Folder::with_scenario_and_trace();
    for (router, out) in [("kv", "a"), ("round-robin", "b")] {
        let args = ["replay", "scenario.yaml", "--trace", "trace.jsonl"];
        folder.good(&[args.as_slice(), &["--router", router, "--out", out]].concat());
    }
    let text = folder.good(&["compare", "a", "b"]);
    assert_contains(
        &text,
        &[
            "95 % interval, alone",
            "p, corrected",
            "An interval is that of its metric alone",
        ],
    );
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_says_how_to_go_on() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    let folder = Folder::with_scenario_and_trace();
    let args = [
        SWEEP.as_slice(),
        &["--vary", "engine.max_num_seqs=1..3000", "--threads", "1"],
    ]
    .concat();
    let child = folder
        .command(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let journal = folder.path("sweep-results/journal.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&journal).map_or(0, |found| found.len()) < 10_000 {
        assert!(Instant::now() < deadline, "the sweep writes its journal");
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupt = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupt.expect("kill is part of POSIX").success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert_contains(
        &said,
        &["sweep-results/journal.jsonl", "the same command goes on"],
    );
}

#[test]
fn a_sweep_says_where_its_step_times_come_from() {
    let folder = Folder::with_scenario_and_trace();
    let text = folder.good(&SWEEP);
    assert_contains(&text, &["\nStep times: measured (measured)\n"]);
    let mixed = [SWEEP.as_slice(), &["--vary", "gpu=h100_sxm,l40s"]].concat();
    let text = folder.good(&mixed);
    let expected =
        "Step times: measured (measured) at 2 points, roofline (estimated) at 2 points; the two";
    assert_contains(&text, &[expected, "not in the measured tables"]);
    let report = folder.json(&[mixed.as_slice(), &["--json"]].concat());
    assert_eq!(
        report["timing"]["roofline (estimated)"], 2,
        "{}",
        report["timing"]
    );
    // The embedded quick start stands on the tables as a whole.
    let quick = [
        "sweep",
        "--json",
        "--out",
        "quick",
        "--vary",
        "pools.agg.workers=4",
    ];
    let report = folder.json(&quick);
    assert_eq!(report["timing"]["measured (measured)"], 18);
    assert_eq!(report["timing"].as_object().unwrap().len(), 1);
}
