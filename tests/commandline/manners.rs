//! What holds for every command: help with an example, exit codes, results on stdout, one JSON object.

use crate::fits::provide_logs;
use crate::program::{Folder, assert_contains, repository};
use crate::real::provide_real;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// All commands with their words, the program itself (no words) first.
pub fn commands(folder: &Folder) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut next = 0;
    while next < commands.len() {
        let command: Vec<String> = commands[next].clone();
        let args: Vec<&str> = command
            .iter()
            .map(String::as_str)
            .chain(["--help"])
            .collect();
        let help = folder.good(&args);
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in listed.take_while(|line| line.starts_with("  ")) {
            let name = line.split_whitespace().next().unwrap_or_default();
            // Wrapped descriptions are indented further.
            if line.starts_with("  ") && !line.starts_with("   ") && name != "help" {
                commands.push([command.as_slice(), &[name.to_owned()]].concat());
            }
        }
        next += 1;
    }
    commands
}

#[test]
fn every_command_has_help_with_an_example() {
    let folder = Folder::new();
    let commands = commands(&folder);
    assert!(commands.len() >= 12, "{commands:?}");
    for command in commands {
        let args: Vec<&str> = command
            .iter()
            .map(String::as_str)
            .chain(["--help"])
            .collect();
        let help = folder.good(&args);
        let example = help
            .split("\nExample:\n")
            .nth(1)
            .unwrap_or_else(|| panic!("{args:?}: no example in {help}"));
        let expected = format!("  dynosim {}", command.join(" "));
        assert!(example.starts_with(&expected), "{args:?}: {example}");
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{args:?}: {help}"
        );
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let folder = Folder::with_scenario_and_trace();
    let before = folder.names();
    for args in [
        [].as_slice(),
        &["reply"],
        &["trace"],
        &["conform"],
        &["conform", "trtllm", "."],
        &["replay"],
        &[
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--live",
            "--stepping",
        ],
        &[
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--speedup",
            "2",
        ],
        &[
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--unknown",
        ],
        &[
            "sweep",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--threads",
            "many",
        ],
        &[
            "sweep",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--find",
            "most-workers",
        ],
        &["compare", "one"],
        &["trace", "describe"],
        &["trace", "describe", "trace.jsonl", "--format", "parquet"],
        &["trace", "scale", "trace.jsonl"],
        &["trace", "scale", "trace.jsonl", "--speed", "0"],
        &[
            "trace",
            "slice",
            "trace.jsonl",
            "--start",
            "50",
            "--end",
            "10",
        ],
        &["trace", "slice", "trace.jsonl", "--fraction", "2"],
        &["trace", "slice", "trace.jsonl", "--json"],
        &["trace", "synth", "--preset", "quik"],
        &["trace", "synth", "--requests", "0"],
        &["trace", "synth", "--arrivals", "gamma"],
        &[
            "trace",
            "synth",
            "--preset",
            "quick",
            "--like",
            "trace.jsonl",
        ],
    ] {
        folder.refused(args);
    }
    assert_eq!(folder.names(), before, "nothing was written");
}

#[test]
fn json_is_one_object_wherever_it_is_offered() {
    let folder = Folder::with_scenario_and_trace();
    provide_logs(&folder);
    provide_real(&folder);
    let golden = repository("tests/golden/vllm/async_simple.case.json.gz");
    let sglang = repository("tests/golden/sglang/full_hit.case.json.gz");
    let router_golden = repository("tests/golden/router");
    let planner_golden = repository("tests/golden/planner");
    let sample = repository("calibration/tests/data/reference_sample.csv");
    let benchmarks = repository("validation/tests/data/benchmarks.csv");
    folder.good(&[
        "replay",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--out",
        "one",
    ]);
    let offered = |args: &[String]| {
        folder
            .good(&args.iter().map(String::as_str).collect::<Vec<_>>())
            .contains("--json")
    };
    let mut commands = commands(&folder);
    commands.retain(|command| offered(&[command.as_slice(), &["--help".to_owned()]].concat()));
    for command in commands {
        let rest: &[&str] = match command.join(" ").as_str() {
            "replay" | "check-scenario" | "autoscale" => {
                &["scenario.yaml", "--trace", "trace.jsonl"]
            }
            "sweep" => &[
                "scenario.yaml",
                "--trace",
                "trace.jsonl",
                "--vary",
                "pools.agg.workers=1,2",
            ],
            "compare" => &["one", "one"],
            "trace describe" => &["trace.jsonl"],
            "trace convert" => &["trace.jsonl", "--out", "new.csv"],
            "trace slice" => &["trace.jsonl", "--limit", "3", "--out", "new.jsonl"],
            "trace scale" => &["trace.jsonl", "--speed", "2", "--out", "new.jsonl"],
            "trace synth" => &["--like", "trace.jsonl", "--out", "new.jsonl"],
            "conform vllm" => &[golden.to_str().unwrap()],
            "conform sglang" => &[sglang.to_str().unwrap()],
            "conform router" => &[router_golden.to_str().unwrap()],
            "conform planner" => &[planner_golden.to_str().unwrap()],
            "conform steps" | "calibrate fit-steps" => &["engine.steplog.jsonl"],
            "calibrate collect" => &[
                "real.yaml",
                "--real",
                "cpu",
                "--budget-s",
                "3",
                "--out",
                "steps.jsonl",
            ],
            "validate real" => &["real.yaml", "--real", "cpu", "--runs", "1"],
            "calibrate fit-requests" => &["profile_export.jsonl", "--scenario", "engine.yaml"],
            "validate timing" => &[sample.to_str().unwrap()],
            "validate serving" => &[benchmarks.to_str().unwrap()],
            unknown => panic!("say here how `{unknown}` is called"),
        };
        let words: Vec<&str> = command
            .iter()
            .map(String::as_str)
            .chain(rest.iter().copied())
            .collect();
        folder.json(&[words.as_slice(), &["--json"]].concat());
        assert!(
            !folder.good(&words).starts_with('{'),
            "{words:?}: text without --json"
        );
    }
    // Numbers that do not exist are left out or null, even where nothing completed.
    let nothing = folder.json(&[
        "replay",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--num-gpu-blocks",
        "2",
        "--json",
    ]);
    assert_eq!(
        (
            &nothing["requests"]["completed"],
            &nothing["requests"]["rejected"]
        ),
        (&0.into(), &40.into())
    );
}

#[test]
fn a_reader_that_goes_away_has_what_it_wanted() {
    let folder = Folder::with_scenario_and_trace();
    for args in [
        ["trace", "synth", "--preset", "quick"].as_slice(),
        &[
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--workers",
            "1000",
            "--json",
        ],
    ] {
        let size = folder.good(args).len();
        assert!(size > 1 << 17, "{args:?}: more than a pipe holds, {size}");
        let mut child = folder
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(line.starts_with('{'), "{line}");
        assert_eq!(
            (output.status.code(), output.stderr.len()),
            (Some(0), 0),
            "{args:?}: {output:?}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure() {
    let folder = Folder::with_scenario_and_trace();
    for args in [
        ["trace", "synth", "--preset", "quick"].as_slice(),
        &["replay", "scenario.yaml", "--trace", "trace.jsonl"],
        &["trace", "describe", "trace.jsonl"],
    ] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = folder.command(args).stdout(full).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert_contains(&stderr, &["stdout: No space left"]);
    }
}

#[test]
fn progress_and_notes_stay_off_stdout() {
    let folder = Folder::with_scenario_and_trace();
    // The trace itself is the result; what is said about it goes elsewhere.
    let answer = folder.run(&["trace", "synth", "--like", "trace.jsonl", "--requests", "7"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_eq!(answer.stdout.lines().count(), 7);
    assert!(
        answer
            .stdout
            .lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{answer}"
    );
    assert_contains(
        &answer.stderr,
        &["fitting to 40 requests", "best possible reuse"],
    );
    // And where all is well and stderr is no terminal, nothing is said there.
    for args in [
        ["replay", "scenario.yaml", "--trace", "trace.jsonl"].as_slice(),
        &[
            "sweep",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--vary",
            "pools.agg.workers=1,2",
        ],
        &["trace", "describe", "trace.jsonl"],
    ] {
        let answer = folder.run(args);
        assert_eq!(
            (answer.code, answer.stderr.as_str()),
            (Some(0), ""),
            "{answer}"
        );
    }
}
