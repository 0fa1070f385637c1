//! `dynosim trace`: what goes out comes back in, and says the same about itself.

use crate::program::{Folder, assert_contains, shared};
use serde_json::Value;

fn describe(folder: &Folder, file: &str, options: &[&str]) -> Value {
    folder.json(&[&["trace", "describe", file, "--json"], options].concat())
}

fn workload() -> Folder {
    let folder = Folder::new();
    folder.good(&[
        "trace",
        "synth",
        "--preset",
        "quick",
        "--requests",
        "300",
        "--out",
        "trace.jsonl",
    ]);
    folder
}

#[test]
fn compression_and_conversion_change_nothing() {
    let folder = workload();
    let whole = describe(&folder, "trace.jsonl", &[]);
    assert_eq!(whole["requests"], 300);
    for file in ["copy.jsonl", "copy.jsonl.gz", "copy.jsonl.zst"] {
        folder.good(&["trace", "convert", "trace.jsonl", "--out", file]);
        assert_eq!(describe(&folder, file, &[]), whole, "{file}");
    }
    assert_eq!(folder.read("copy.jsonl"), folder.read("trace.jsonl"));
    assert!(folder.read("copy.jsonl.gz").starts_with(b"\x1f\x8b"));
    assert!(
        folder
            .read("copy.jsonl.zst")
            .starts_with(b"\x28\xb5\x2f\xfd")
    );
    // stdout is the file.
    assert_eq!(
        folder
            .good(&["trace", "convert", "copy.jsonl.zst"])
            .as_bytes(),
        folder.read("trace.jsonl")
    );
    // A file may be converted in its place.
    folder.good(&["trace", "convert", "copy.jsonl", "--out", "copy.jsonl"]);
    assert_eq!(folder.read("copy.jsonl"), folder.read("trace.jsonl"));
}

#[test]
fn a_plain_csv_keeps_times_and_lengths() {
    let folder = workload();
    let answer = folder.run(&["trace", "convert", "trace.jsonl", "--out", "trace.csv"]);
    assert_contains(
        &answer.stderr,
        &["warning: a plain CSV says nothing about what prompts have in common"],
    );
    let (rich, plain) = (
        describe(&folder, "trace.jsonl", &[]),
        describe(&folder, "trace.csv", &[]),
    );
    for name in [
        "requests",
        "duration_s",
        "arrivals",
        "input_tokens",
        "output_tokens",
    ] {
        assert_eq!(rich[name], plain[name], "{name}");
    }
    assert!(rich["blocks"].is_object() && plain["blocks"].is_null());
}

#[test]
fn every_format_of_the_field_is_told_by_its_first_line() {
    let folder = Folder::new();
    for (name, content, input, block_size) in [
        (
            "azure.csv",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n",
            4808,
            None,
        ),
        (
            "burst.csv",
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
            5,1,2.5,ChatGPT,472,18,490,Conversation log\n",
            472,
            None,
        ),
        (
            "bailian.jsonl",
            "{\"chat_id\": 159, \"parent_chat_id\": -1, \"timestamp\": 61.1, \"input_length\": 17, \
            \"output_length\": 8, \"type\": \"text\", \"turn\": 1, \"hash_ids\": [1, 2]}\n",
            17,
            Some(16),
        ),
        (
            "ids.jsonl",
            "{\"input_toks\": 3, \"output_toks\": 2, \"arrival_time_ns\": 46926808, \"input_tok_ids\": [7, 8, 9], \
            \"output_tok_ids\": [1, 2]}\n",
            3,
            Some(512),
        ),
        (
            "dynamo.jsonl",
            "{\"input_tokens\": 600, \"output_tokens\": 52, \"created_time\": 7, \"hash_ids\": [46, 47]}\n",
            600,
            Some(512),
        ),
    ] {
        folder.write(name, content);
        let said = describe(&folder, name, &[]);
        assert_eq!(
            (&said["requests"], &said["input_tokens"]["max"]),
            (&1.into(), &input.into()),
            "{name}: {said}"
        );
        let found = said["blocks"]["block_size"].as_u64();
        assert_eq!(found, block_size, "{name}: {said}");
        // Any of them becomes a Mooncake trace with the same lengths.
        folder.good(&["trace", "convert", name, "--out", "mooncake.jsonl"]);
        let block_size = block_size.unwrap_or(512).to_string();
        let converted = describe(
            &folder,
            "mooncake.jsonl",
            &["--format", "mooncake", "--block-size", &block_size],
        );
        assert_eq!(converted["input_tokens"], said["input_tokens"], "{name}");
        assert_eq!(converted["output_tokens"], said["output_tokens"], "{name}");
    }
}

#[test]
fn slices_and_speeds_do_what_they_say() {
    let folder = workload();
    let whole = describe(&folder, "trace.jsonl", &[]);
    let duration = whole["duration_s"].as_f64().unwrap();
    let made = |options: &[&str]| {
        folder.good(&[options, &["--out", "new.jsonl"]].concat());
        describe(&folder, "new.jsonl", &[])
    };
    let slice = |options: &[&str]| made(&[&["trace", "slice", "trace.jsonl"], options].concat());
    assert_eq!(slice(&["--limit", "17"])["requests"], 17);
    let (early, late) = (slice(&["--end", "40"]), slice(&["--start", "40"]));
    assert!(early["duration_s"].as_f64().unwrap() < 40.0);
    let count = |one: &Value| one["requests"].as_u64().unwrap();
    assert!(count(&early) > 0 && count(&late) > 0);
    assert_eq!(
        count(&early) + count(&late),
        300,
        "every request is in one of the two"
    );
    let half = count(&slice(&["--fraction", "0.5"]));
    assert!((100..200).contains(&half), "{half} of 300");
    assert_eq!(
        slice(&["--fraction", "0.5", "--seed", "0"])["requests"],
        half
    );
    let fast = made(&["trace", "scale", "trace.jsonl", "--speed", "2"]);
    assert_eq!(fast["duration_s"].as_f64().unwrap(), duration / 2.0);
    assert_eq!(
        (&fast["requests"], &fast["blocks"]),
        (&whole["requests"], &whole["blocks"])
    );
}

#[test]
fn a_workload_is_made_by_its_parameters_and_seed() {
    let folder = Folder::new();
    let synth = |options: &[&str]| {
        folder.good(
            &[
                &["trace", "synth", "--preset", "quick", "--requests", "200"],
                options,
            ]
            .concat(),
        )
    };
    let first = synth(&["--save-spec", "spec.json"]);
    assert_eq!(first, synth(&["--seed", "0"]));
    assert_ne!(first, synth(&["--seed", "1"]));
    assert_eq!(
        first,
        folder.good(&["trace", "synth", "--spec", "spec.json"])
    );
    folder.write("wrong.json", "{\"requests\": 0, \"requets\": 4}");
    assert_contains(
        &folder.refused(&["trace", "synth", "--spec", "wrong.json"]),
        &["wrong.json"],
    );
    let json = folder.json(&[
        "trace",
        "synth",
        "--requests",
        "100",
        "--duration",
        "50",
        "--out",
        "made.jsonl",
        "--json",
    ]);
    assert_eq!(json["description"]["requests"], 100);
    assert!(json["description"]["duration_s"].as_f64().unwrap() <= 50.0);
}

#[test]
fn a_fit_says_how_close_it_comes() {
    let folder = workload();
    let answer = folder.run(&[
        "trace",
        "synth",
        "--like",
        "trace.jsonl",
        "--out",
        "like.jsonl",
    ]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_contains(
        &answer.stdout,
        &[
            "input tokens, p50",
            "output tokens, p99",
            "variation of gaps",
            "best possible reuse",
            "hit rate of an LRU cache",
        ],
    );
    assert_eq!(describe(&folder, "like.jsonl", &[])["requests"], 300);
}

#[test]
fn pictures_are_what_their_names_say() {
    let folder = workload();
    folder.good(&["trace", "describe", "trace.jsonl", "--plot", "reuse.png"]);
    folder.good(&["trace", "describe", "trace.jsonl", "--plot", "reuse.svg"]);
    assert_eq!(
        folder.names(),
        [
            "reuse-arrivals.png",
            "reuse-arrivals.svg",
            "reuse.png",
            "reuse.svg",
            "trace.jsonl"
        ]
    );
    assert!(folder.read("reuse.png").starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_contains(
        &folder.text("reuse.svg"),
        &["<svg", "Hit rate over cache size", "</svg>"],
    );
}

#[test]
fn the_conversation_trace_is_described_as_published() {
    let Some(trace) = shared("data/traces/mooncake_conversation_trace.jsonl") else {
        return;
    };
    let folder = Folder::new();
    let trace = trace.to_str().unwrap();
    let text = folder.good(&["trace", "describe", trace]);
    assert_contains(
        &text,
        &["12,031", "288,500", "182,790", "36.64 %", "12,035"],
    );
    let said = describe(&folder, trace, &[]);
    assert_eq!(said["requests"], 12_031);
    assert_eq!(
        (&said["blocks"]["references"], &said["blocks"]["unique"]),
        (&288_500.into(), &182_790.into())
    );
    // Reading and writing keeps the file to the byte.
    assert_eq!(
        folder.good(&["trace", "convert", trace]).as_bytes(),
        std::fs::read(trace).unwrap()
    );
}
