//! `dynosim sweep` and `dynosim compare` as programs: on files, killed, resumed, with bad input.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SCENARIO: &str = "
schema_version: 1
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
pools: [{name: agg, workers: 4}]
workload: {synth: {preset: quick, requests: 300, duration_s: 90}}
sla: {ttft_ms: 2000, itl_ms: 30}
sweep:
  grid:
    pools.agg.workers: \"2..6\"
    router.mode: [round-robin, kv]
";

/// A folder with the scenario in it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("scenario.yaml"), SCENARIO).expect("the folder can be written");
    folder
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynosim"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().expect("the program starts")
}

fn good(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("results are text")
}

/// Exit code and stderr of a command that must fail.
fn bad(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = run(folder, args);
    assert!(
        output.stdout.is_empty(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    (
        output.status.code().expect("it ends by itself"),
        String::from_utf8(output.stderr).expect("messages are text"),
    )
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let folder = folder();
    for (threads, out) in [("1", "one"), ("2", "two"), ("7", "seven")] {
        good(
            folder.path(),
            &["sweep", "scenario.yaml", "--threads", threads, "--out", out],
        );
    }
    let read = |out: &str, file: &str| fs::read(folder.path().join(out).join(file)).unwrap();
    for file in [
        "sweep.csv",
        "sweep.parquet",
        "report.json",
        "frontier.svg",
        "frontier.png",
    ] {
        assert_eq!(read("one", file), read("two", file), "{file}");
        assert_eq!(read("one", file), read("seven", file), "{file}");
    }
    let csv = String::from_utf8(read("one", "sweep.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(lines.len(), 10);
    for (index, line) in lines.iter().enumerate() {
        let router = ["round-robin", "kv"][index % 2];
        assert!(
            line.starts_with(&format!("{index},{},{router},", 2 + index / 2)),
            "{line}"
        );
    }
}

#[test]
fn a_sweep_killed_at_any_moment_goes_on_where_it_was() {
    let folder = folder();
    let args = [
        "sweep",
        "scenario.yaml",
        "--vary",
        "engine.max_num_seqs=16,32,48,64,96,128,192,256",
        "--threads",
        "2",
    ];
    let args = |out: &'static str| [args.as_slice(), &["--out", out]].concat();
    good(folder.path(), &args("whole"));

    let journal = folder.path().join("killed/journal.jsonl");
    let lines = || {
        fs::read(&journal).map_or(0, |bytes| {
            bytes.iter().filter(|byte| **byte == b'\n').count()
        })
    };
    let mut kept = 0;
    // Killed with SIGKILL as soon as some more points are in the journal, until it gets through.
    for more in [1, 7, 20, 30] {
        let mut child = command(folder.path(), &args("killed"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while lines() < kept + more && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the sweep writes its journal");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lines() >= kept, "no finished point is lost");
        kept = lines();
    }
    let text = good(folder.path(), &args("killed"));
    assert!(
        text.contains(&format!("{kept} from the journal")),
        "{kept} kept: {text}"
    );
    assert_eq!(lines(), 80, "no point was simulated twice");
    let read = |out: &str, file: &str| fs::read(folder.path().join(out).join(file)).unwrap();
    for file in ["sweep.csv", "report.json"] {
        assert_eq!(read("whole", file), read("killed", file), "{file}");
    }
    // `--fresh` starts over.
    let text = good(
        folder.path(),
        &[args("killed").as_slice(), &["--fresh"]].concat(),
    );
    assert!(!text.contains("from the journal"), "{text}");
    assert_eq!(lines(), 80);
}

#[test]
fn the_quick_start_shows_a_frontier_and_writes_its_picture() {
    let folder = tempfile::tempdir().unwrap();
    let text = good(folder.path(), &["sweep"]);
    // Lines break where they must.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "quick start",
        "Pareto frontier",
        "Winner: point",
        "Runner-up: point",
        "What binds:",
        "frontier.png",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let picture = fs::read(folder.path().join("sweep-results/frontier.png")).unwrap();
    assert_eq!(&picture[..8], b"\x89PNG\r\n\x1a\n");
}

#[test]
fn the_search_ends_at_an_edge_of_the_grid() {
    let folder = folder();
    let json = good(
        folder.path(),
        &[
            "sweep",
            "scenario.yaml",
            "--vary",
            "pools.agg.workers=1..16",
            "--json",
        ],
    );
    let grid: serde_json::Value = serde_json::from_str(&json).unwrap();
    // The axis of the command line comes behind that of the scenario.
    let place = |workers: usize, router: usize| 16 * router + workers - 1;
    let meets =
        |workers: usize, router: usize| grid["points"][place(workers, router)]["reason"].is_null();
    // The scenario's own values of the field give way to the search.
    let args = [
        "sweep",
        "scenario.yaml",
        "--find",
        "min-workers",
        "--json",
        "--out",
        "search",
    ];
    let found: serde_json::Value = serde_json::from_str(&good(folder.path(), &args)).unwrap();
    for router in 0..2 {
        let search = &found["searches"][router];
        assert_eq!(search["answer"], "found");
        let workers = search["value"].as_f64().unwrap() as usize;
        assert!(
            workers > 1 && meets(workers, router) && !meets(workers - 1, router),
            "{search}"
        );
        let metrics =
            |report: &serde_json::Value, point: usize| report["points"][point]["metrics"].clone();
        let answer = search["answer_point"].as_u64().unwrap() as usize;
        assert_eq!(
            metrics(&found, answer),
            metrics(&grid, place(workers, router)),
            "the same simulation"
        );
    }
    assert!(folder.path().join("search/search.svg").is_file());
}

#[test]
fn replicates_tell_a_real_difference_from_chance() {
    let folder = folder();
    good(
        folder.path(),
        &[
            "sweep",
            "scenario.yaml",
            "--vary",
            "pools.agg.workers=4",
            "--replicates",
            "6",
        ],
    );
    let text = good(
        folder.path(),
        &["compare", "sweep-results#0", "sweep-results#1"],
    );
    assert!(text.contains("Runs paired by seed, 6 pairs"), "{text}");
    assert!(
        text.contains("real: B is better"),
        "a KV-aware router finds more prefixes: {text}"
    );
    let json = good(
        folder.path(),
        &["compare", "sweep-results#1", "sweep-results#1", "--json"],
    );
    let same: serde_json::Value = serde_json::from_str(&json).unwrap();
    let differences = same["differences"].as_array().unwrap();
    assert!(
        differences.len() > 10 && differences.iter().all(|one| one["verdict"] == "equal"),
        "{json}"
    );

    good(
        folder.path(),
        &[
            "sweep",
            "scenario.yaml",
            "--vary",
            "workload.synth.requests=301",
            "--out",
            "other",
        ],
    );
    let (code, error) = bad(folder.path(), &["compare", "sweep-results#0", "other#0"]);
    assert_eq!(code, 1);
    assert!(error.contains("different workloads (seed 0"), "{error}");
}

#[test]
fn bad_input_is_told_all_at_once_and_leaves_nothing() {
    let folder = folder();
    let (code, error) = bad(
        folder.path(),
        &[
            "sweep",
            "scenario.yaml",
            "--vary",
            "pools.agg.worker=1,2",
            "--vary",
            "engine.block_size=64..16",
            "--x",
            "latency.tftt_ms.p99",
            "--require",
            "throughput.gpus=8",
            "--attainment",
            "90",
        ],
    );
    assert_eq!(code, 2);
    for part in [
        "--vary pools.agg.worker: ",
        "did you mean `workers`?",
        "--vary engine.block_size: found `64..16`, expected a rising range",
        "--x: unknown metric `latency.tftt_ms.p99`: did you mean `latency.ttft_ms.p99`?",
        "--require: found `throughput.gpus=8`, expected `metric<=number`",
        "--attainment: found 90, expected a share",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    for (args, part) in [
        (vec!["sweep", "missing.yaml"], "missing.yaml: "),
        (
            vec!["sweep", "scenario.yaml", "--trace", "missing.jsonl"],
            "missing.jsonl",
        ),
        (
            vec!["sweep", "scenario.yaml", "--vary", "sla.ttft_ms=1,2"],
            "the SLA is what points are judged by",
        ),
        (
            vec!["sweep", "scenario.yaml", "--vary", "router.mode=kvv"],
            "did you mean `kv`?",
        ),
        (
            vec![
                "sweep",
                "scenario.yaml",
                "--find",
                "min-workers",
                "--vary",
                "pools.agg.workers=1,2",
            ],
            "expected it to be left to the search",
        ),
        (
            vec!["sweep", "scenario.yaml", "--find", "most-workers"],
            "expected `min-workers`",
        ),
        (
            vec!["sweep", "scenario.yaml", "--vary", "seed=1..100001"],
            "found 1000010 points, expected at most 100000",
        ),
        (
            vec!["sweep", "scenario.yaml", "--vary", "gpus=2"],
            "expected one of the two",
        ),
        (
            vec!["compare", "scenario.yaml", "nowhere"],
            "scenario.yaml: not JSON",
        ),
    ] {
        let (code, error) = bad(folder.path(), &args);
        assert_eq!(code, 2, "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
    }
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["scenario.yaml"], "nothing was written");
}

#[test]
fn impossible_points_keep_their_reason() {
    let folder = folder();
    let args = [
        "sweep",
        "scenario.yaml",
        "--set",
        "model=meta-llama/Llama-3.1-70B",
        "--vary",
        "router.mode=kv",
    ];
    good(
        folder.path(),
        &[args.as_slice(), &["--vary", "pools.agg.parallel.tp=1,4"]].concat(),
    );
    let csv = fs::read_to_string(folder.path().join("sweep-results/sweep.csv")).unwrap();
    let impossible: Vec<&str> = csv
        .lines()
        .filter(|line| line.contains("impossible"))
        .collect();
    assert_eq!(
        impossible.len(),
        5,
        "70 B parameters do not fit one H100: {csv}"
    );
}
