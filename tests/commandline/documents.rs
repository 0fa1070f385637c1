//! Every command written in the documents, the examples and the help is run.

use crate::fits::provide_logs;
use crate::manners::commands;
use crate::program::{Folder, SCENARIO, repository};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How the documents call the program.
const CALLS: [&str; 3] = [
    "dynosim ",
    "target/release/dynosim ",
    "cargo run --release -- ",
];

/// The arguments of a line that calls the program: what follows its name, up to a comment.
fn call(line: &str) -> Option<String> {
    let line = line.trim().trim_start_matches("$ ");
    let rest = CALLS.iter().find_map(|name| line.strip_prefix(name))?;
    let comment = rest.find(" #").unwrap_or(rest.len());
    Some(rest[..comment].trim().to_owned())
}

/// Calls in the code of a Markdown page: lines of fenced blocks, and spans between backticks.
fn calls_of_page(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 1 {
            let part = part.replace("\\\n", " ");
            found.extend(part.lines().filter_map(call));
        } else {
            let spans = part.split('`').skip(1).step_by(2);
            found.extend(spans.filter_map(|span| call(&span.replace('\n', " "))));
        }
    }
    found
}

fn pages() -> Vec<PathBuf> {
    let inside = |folder: &str, ending: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(repository(folder)).into_iter().flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|found| found == ending))
            .collect()
    };
    let mut pages = [
        inside("", "md"),
        inside("docs", "md"),
        inside("examples", "yaml"),
    ]
    .concat();
    pages.sort();
    pages
}

/// Configurations of models beside the examples.
fn models() -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(repository("examples")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let models = paths.filter(|path| path.extension().is_some_and(|found| found == "json"));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    };
    models.map(read).collect()
}

/// Calls in comments of a scenario file.
fn calls_of_example(text: &str) -> Vec<String> {
    let comments = text.lines().filter_map(|line| line.strip_prefix("# "));
    comments.filter_map(call).collect()
}

/// Calls in the help of every command.
fn calls_of_help(folder: &Folder) -> Vec<String> {
    let mut found = Vec::new();
    for command in commands(folder) {
        let args: Vec<&str> = command
            .iter()
            .map(String::as_str)
            .chain(["--help"])
            .collect();
        let help = folder.good(&args);
        let examples = help.split("\nExample:\n").nth(1).unwrap_or_default();
        // Long lines are wrapped with the indent of the first; words in columns are explanations.
        let mut calls: Vec<String> = Vec::new();
        for line in examples.lines().map(str::trim) {
            let line = line.split("   ").next().unwrap_or_default();
            match (call(line), calls.last_mut()) {
                (Some(call), _) => calls.push(call),
                (None, Some(before)) => *before += &format!(" {line}"),
                (None, None) => {}
            }
        }
        found.extend(calls);
    }
    found
}

/// A folder with all that the documents name; the trace is long enough to be cut.
fn prepared() -> Folder {
    let folder = Folder::new();
    folder.good(&[
        "trace",
        "synth",
        "--preset",
        "quick",
        "--requests",
        "40",
        "--duration",
        "1500",
        "--out",
        "trace.jsonl",
    ]);
    let workload = "workload: {synth: {preset: quick, requests: 40, duration_s: 60}}\n";
    folder.write("scenario.yaml", format!("{SCENARIO}{workload}"));
    folder.write(
        "AzureLLMInferenceTrace_conv.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,48,10\n",
    );
    provide_logs(&folder);
    fs::create_dir(folder.path("examples")).unwrap();
    for page in pages()
        .iter()
        .filter(|page| page.starts_with(repository("examples")))
    {
        let name = Path::new(page.file_name().unwrap());
        folder.write(
            Path::new("examples").join(name).to_str().unwrap(),
            fs::read(page).unwrap(),
        );
    }
    for (name, model) in models() {
        folder.write(&format!("examples/{name}"), model);
    }
    for router in ["round-robin", "kv"] {
        folder.good(&[
            "replay",
            "scenario.yaml",
            "--router",
            router,
            "--out",
            &format!("results/{router}"),
        ]);
    }
    folder
}

/// Gives the trace that a call reads, under whatever name.
fn provide_trace(folder: &Folder, args: &[&str]) {
    let named = args
        .windows(2)
        .filter(|pair| ["--trace", "--like"].contains(&pair[0]))
        .map(|pair| pair[1]);
    let first = args
        .get(2)
        .copied()
        .filter(|word| args[0] == "trace" && !word.starts_with('-'));
    for name in named
        .chain(first)
        .filter(|name| !folder.path(name).exists())
    {
        folder.write(name, folder.read("trace.jsonl"));
    }
}

/// Those that read what another command wrote into the default folder come before that is written anew.
fn is_compare(call: &str) -> bool {
    call.starts_with("compare ")
}

#[test]
fn every_command_in_the_documents_runs() {
    let folder = prepared();
    let mut calls = BTreeSet::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let of_page = if page.extension().unwrap() == "md" {
            calls_of_page(&text)
        } else {
            calls_of_example(&text)
        };
        calls.extend(of_page);
    }
    let written = calls.len();
    assert!(
        written >= 8,
        "the documents show how to use the program: {calls:?}"
    );
    calls.extend(calls_of_help(&folder));
    assert!(calls.len() >= written + 10, "so does the help: {calls:?}");
    // `a|b`, `…` and `<name>` stand for several commands or for none.
    calls.retain(|call| {
        let is_pattern = call.contains(['|', '…']) || call.replace("<=", "").contains('<');
        !is_pattern && !call.starts_with("COMMAND")
    });
    assert!(
        calls.iter().any(|call| call.contains("<=")),
        "a bound is no pattern"
    );

    let names: BTreeSet<String> = commands(&folder)
        .iter()
        .map(|command| command.join(" "))
        .collect();
    let (compare, rest): (Vec<String>, Vec<String>) =
        calls.into_iter().partition(|call| is_compare(call));
    folder.good(&["sweep", "scenario.yaml", "--vary", "pools.agg.workers=1..8"]);
    let mut failed = Vec::new();
    for call in compare.into_iter().chain(rest) {
        let line = [
            "calibration/tests/data",
            "validation/tests/data",
            "tests/golden",
        ]
        .iter()
        .find(|path| call.contains(**path))
        .map_or_else(
            || call.clone(),
            |path| call.replace(path, &repository(path).display().to_string()),
        );
        // Quotes are the shell's; no word in them has a space.
        let line = line.replace('"', "");
        let mut args: Vec<&str> = line.split_whitespace().collect();
        // A command that is only named.
        if names.contains(&call) && call != "sweep" {
            args.push("--help");
        }
        provide_trace(&folder, &args);
        let answer = folder.run(&args);
        // Without a GPU it can only say so.
        let is_told = call.contains("--real cuda")
            && answer.code == Some(2)
            && answer.stderr.contains("--real cuda: found ");
        if answer.code != Some(0) && !is_told {
            failed.push(answer.to_string());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn calls_are_found_in_pages() {
    let page = "Run `dynosim trace\nsynth`:\n```sh\n$ dynosim sweep a.yaml \\\n  --vary x=1,2  # many\ncargo test\ncargo run --release -- sweep\n```\nor `x`.";
    assert_eq!(
        calls_of_page(page),
        ["trace synth", "sweep a.yaml    --vary x=1,2", "sweep"]
    );
    assert_eq!(
        calls_of_example("# A file\n#   dynosim sweep FILE\nseed: 1 # dynosim x"),
        ["sweep FILE"]
    );
    assert_eq!(call("compare a#1 b#2"), None);
    assert_eq!(
        call("dynosim compare a#1 b#2 # why"),
        Some("compare a#1 b#2".to_owned())
    );
}
