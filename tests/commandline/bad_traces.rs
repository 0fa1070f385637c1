//! Broken traces: each is refused with its line and field, by every command that reads one, and nothing is written.

use crate::program::{Folder, assert_contains};

const GOOD: &str = r#"{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [1]}"#;

/// A Mooncake row.
fn row(timestamp: &str, input: &str, output: &str, hash_ids: &str) -> String {
    format!(
        r#"{{"timestamp": {timestamp}, "input_length": {input}, "output_length": {output}, "hash_ids": {hash_ids}}}"#
    ) + "\n"
}

/// Describes, converts and replays the file, each of which must be refused with these words and leave nothing behind.
fn refused(folder: &Folder, name: &str, content: &[u8], parts: &[&str]) {
    folder.write(name, content);
    folder.write("scenario.yaml", "seed: 1");
    let before = folder.names();
    for args in [
        ["trace", "describe", name, "--plot", "plot.png"],
        ["trace", "convert", name, "--out", "new.jsonl"],
        ["replay", "scenario.yaml", "--trace", name, "--out=results"],
        ["sweep", "scenario.yaml", "--trace", name, "--out=results"],
    ] {
        let stderr = folder.refused(&args);
        assert_contains(&stderr, parts);
        assert!(stderr.starts_with(name), "the place comes first: {stderr}");
    }
    assert_eq!(folder.names(), before, "nothing was written");
    std::fs::remove_file(folder.path(name)).unwrap();
}

#[test]
fn files_that_are_no_traces() {
    let folder = Folder::new();
    let binary: Vec<u8> = (0..3000_u32).map(|i| (i * i + i / 7) as u8).collect();
    for (name, content, parts) in [
        (
            "empty.jsonl",
            b"".as_slice(),
            ["found no request", "expected at least one"],
        ),
        (
            "blank.jsonl",
            b"\n \n\n",
            ["found no request", "expected at least one"],
        ),
        (
            "header.csv",
            b"arrival_s,input,output\n",
            ["found no request", "expected at least one"],
        ),
        (
            "binary.jsonl",
            &binary,
            [
                "binary.jsonl:1: found `",
                "expected the first line of one of the formats mooncake,",
            ],
        ),
        (
            "number.jsonl",
            b"5\n",
            ["number.jsonl:1: found `5`", "docs/trace-formats.md"],
        ),
        (
            "array.jsonl",
            b"[1, 2]\n",
            ["array.jsonl:1: ", "write one object per line"],
        ),
        (
            "scenario.txt",
            b"model: x\n",
            [
                "scenario.txt:1: found `model: x`",
                "expected the first line of",
            ],
        ),
        (
            "cut.jsonl.gz",
            b"\x1f\x8b\x08\x00",
            ["expected a whole file", "cut off or damaged"],
        ),
    ] {
        refused(&folder, name, content, &parts);
    }
}

#[test]
fn rows_that_are_cut_off_or_no_text() {
    let folder = Folder::new();
    let cut = format!("{GOOD}\n{}", &GOOD[..40]);
    refused(
        &folder,
        "cut.jsonl",
        cut.as_bytes(),
        &[
            "cut.jsonl:2: found a line that ends in the middle",
            "fetch it again",
        ],
    );
    let mut bytes = format!("{GOOD}\n{}\n", GOOD.replace("}", r#", "x": "?"}"#)).into_bytes();
    let place = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[place] = 0xff;
    refused(
        &folder,
        "bytes.jsonl",
        &bytes,
        &["bytes.jsonl:2: ", "UTF-8"],
    );
    let csv = "arrival_s,input,output\n0,5,5\n1,5\n2,,5\n";
    refused(
        &folder,
        "short.csv",
        csv.as_bytes(),
        &[
            "short.csv:3: found 2 fields, expected 3",
            "short.csv:4: input: found nothing, expected a whole number of tokens",
        ],
    );
    // Anything so long is no row, and reading it whole could fill the memory.
    let mut long = GOOD.as_bytes()[..GOOD.len() - 1].to_vec();
    long.resize((64 << 20) + 1, b' ');
    long.extend_from_slice(b"}\n");
    refused(
        &folder,
        "long.jsonl",
        &long,
        &["long.jsonl:1: found a line of more than 67108864 bytes"],
    );
}

#[test]
fn numbers_out_of_range() {
    let folder = Folder::new();
    let most = u64::MAX.to_string();
    let beyond = "18446744073709551616";
    for (name, rows, part) in [
        (
            "negative",
            row("-1", "5", "5", "[1]"),
            "timestamp: found `-1`, expected a number of milliseconds, 0 or more",
        ),
        (
            "zero_in",
            row("0", "0", "5", "[]"),
            "input_length: found `0`, expected a whole number of tokens from 1 to 2147483647",
        ),
        (
            "zero_out",
            row("0", "5", "0", "[1]"),
            "output_length: found `0`, expected a whole number of tokens from 1",
        ),
        (
            "trillion",
            row("0", "1000000000000", "5", "[1]"),
            "input_length: found `1000000000000`, expected a whole number",
        ),
        (
            "trillion_out",
            row("0", "5", "1e12", "[1]"),
            "output_length: found `1e12`, expected a whole number",
        ),
        (
            "most",
            row("0", &most, "5", "[1]"),
            "input_length: found `18446744073709551615`, expected a whole number",
        ),
        (
            "late",
            row(&most, "5", "5", "[1]"),
            "timestamp: found `18446744073709551615`, expected a number of milliseconds",
        ),
        (
            "half",
            row("0", "1.5", "5", "[1]"),
            "input_length: found `1.5`, expected a whole number",
        ),
        (
            "hash",
            row("0", "5", "5", &format!("[{beyond}]")),
            "hash_ids: found `18446744073709551616` as item 0",
        ),
        (
            "hash_below",
            row("0", "5", "5", "[-1]"),
            "hash_ids: found `-1` as item 0",
        ),
        (
            "few_hashes",
            row("0", "513", "5", "[1]"),
            "hash_ids: found 1 block ids, expected 2 for 513 tokens in blocks of 512",
        ),
        (
            "many_hashes",
            row("0", "512", "5", "[1, 2]"),
            "hash_ids: found 2 block ids, expected 1 for 512 tokens",
        ),
        (
            "text",
            row("\"soon\"", "5", "5", "[1]"),
            "timestamp: found `\"soon\"`, expected a number of milliseconds",
        ),
    ] {
        // The first row is good, so that the line matters.
        refused(
            &folder,
            &format!("{name}.jsonl"),
            format!("{GOOD}\n{rows}").as_bytes(),
            &[&format!("{name}.jsonl:2: {part}")],
        );
    }
    for time in ["inf", "nan", "1e999", "-0.5"] {
        let csv = format!("arrival_s,input,output\n{time},5,5\n");
        refused(
            &folder,
            "times.csv",
            csv.as_bytes(),
            &[&format!("times.csv:2: arrival_s: found `{time}`, expected")],
        );
    }
}

#[test]
fn rows_that_contradict_each_other() {
    let folder = Folder::new();
    let named = |name: &str, more: &str| {
        format!(r#"{{"request_id": "{name}", "input_length": 5, "output_length": 5, {more}}}"#)
            + "\n"
    };
    let twice = named("a", r#""timestamp": 0"#).repeat(2);
    refused(
        &folder,
        "twice.jsonl",
        twice.as_bytes(),
        &[
            "twice.jsonl:2: request_id: found `a` a second time, expected a name of its own for every request",
        ],
    );
    let cycle = named("a", r#""wait_for": ["b"]"#) + &named("b", r#""wait_for": ["a"]"#);
    refused(
        &folder,
        "cycle.jsonl",
        cycle.as_bytes(),
        &["dependencies: found a cycle", "line 1", "line 2"],
    );
    let key = GOOD.replace("{", r#"{"timestamp": 3, "#);
    refused(
        &folder,
        "key.jsonl",
        key.as_bytes(),
        &["key.jsonl:1: timestamp: found it twice"],
    );
}

#[test]
fn all_problems_of_a_file_at_once() {
    let folder = Folder::new();
    let rows: String = (1..=30)
        .map(|i| row(&format!("-{i}"), "0", "5", "[1]"))
        .collect();
    folder.write("bad.jsonl", rows);
    let stderr = folder.refused(&["trace", "describe", "bad.jsonl"]);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 21, "{stderr}");
    for (i, pair) in lines[..20].chunks(2).enumerate() {
        assert_contains(pair[0], &[&format!("bad.jsonl:{}: timestamp", i + 1)]);
        assert_contains(pair[1], &[&format!("bad.jsonl:{}: input_length", i + 1)]);
    }
    assert_eq!(lines[20], "and 40 more problems");
}

#[test]
fn what_is_read_with_a_warning_is_an_error_when_strict() {
    let folder = Folder::new();
    folder.write("scenario.yaml", "seed: 1");
    let unsorted = [3, 1, 2]
        .map(|time| row(&time.to_string(), "5", "5", "[1]"))
        .concat();
    let unknown = format!("{}\n", GOOD.replace("}", r#", "colour": "red"}"#)).repeat(2);
    for (name, content, warning) in [
        (
            "unsorted.jsonl",
            unsorted,
            "2 rows earlier than a row before",
        ),
        (
            "unknown.jsonl",
            unknown,
            "2 values of unknown keys (colour)",
        ),
    ] {
        folder.write(name, content);
        for args in [
            vec!["trace", "describe", name],
            vec!["trace", "convert", name],
            vec!["replay", "scenario.yaml", "--trace", name],
        ] {
            let answer = folder.run(&args);
            assert_eq!(answer.code, Some(0), "{answer}");
            let warnings: Vec<&str> = answer
                .stderr
                .lines()
                .filter(|line| line.starts_with("warning: "))
                .collect();
            assert_eq!(warnings.len(), 1, "{answer}");
            assert_contains(warnings[0], &[name, warning]);
            let stderr = folder.refused(&[args.as_slice(), &["--strict"]].concat());
            assert_contains(&stderr, &[name, warning]);
        }
    }
    let sorted = folder.good(&["trace", "convert", "unsorted.jsonl", "--to", "csv"]);
    assert_eq!(
        sorted,
        "arrival_s,input_tokens,output_tokens\n0.001,5,5\n0.002,5,5\n0.003,5,5\n"
    );
}

#[test]
fn files_that_cannot_be_opened() {
    let folder = Folder::new();
    folder.write("scenario.yaml", "seed: 1");
    std::fs::create_dir(folder.path("folder.jsonl")).unwrap();
    for name in ["missing.jsonl", "folder.jsonl"] {
        for args in [
            ["trace", "describe", name].as_slice(),
            &["replay", "scenario.yaml", "--trace", name],
            &["sweep", "scenario.yaml", "--trace", name],
            &["trace", "synth", "--like", name],
        ] {
            let stderr = folder.refused(args);
            assert!(stderr.starts_with(name), "{args:?}: {stderr}");
        }
    }
    assert_eq!(folder.names(), ["folder.jsonl", "scenario.yaml"]);
}
