//! What is wrong with a file is said with place, field, finding, expectation and a suggestion, and all at once.

use std::io::Write;

use traces::{Format, Problems, ReadOptions, TraceError, parse};

fn problems_with(bytes: &[u8], options: ReadOptions) -> Problems {
    match parse(bytes, "bad", &options) {
        Err(TraceError::Invalid(problems)) => {
            for problem in problems.shown() {
                let Ok(line) = u32::try_from(bytes.split(|&byte| byte == b'\n').count()) else {
                    panic!("too long")
                };
                assert!(
                    problem.place.line <= line
                        || bytes.starts_with(&[0x1f])
                        || bytes.starts_with(&[0x28])
                );
                for text in [&problem.found, &problem.expected, &problem.suggestion] {
                    assert!(!text.is_empty(), "{problem:?}");
                }
            }
            problems
        }
        Err(error) => panic!("{error}"),
        Ok(loaded) => panic!(
            "read as {} with {} rows",
            loaded.format,
            loaded.trace.rows.len()
        ),
    }
}

fn problems(text: &str) -> Problems {
    problems_with(text.as_bytes(), ReadOptions::default())
}

fn forced(text: &str, format: Format) -> Problems {
    problems_with(
        text.as_bytes(),
        ReadOptions {
            format: Some(format),
            ..ReadOptions::default()
        },
    )
}

/// The only problem, as a user sees it.
fn one(problems: &Problems) -> String {
    assert_eq!(problems.total(), 1, "{problems}");
    problems.to_string()
}

/// The only problem of a Mooncake file of one good row and one with these fields.
fn row(fields: &str) -> String {
    one(&problems(&format!(
        "{{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1}}\n{{{fields}}}"
    )))
}

#[test]
fn an_empty_file() {
    for text in ["", "\n", " \n\r\n\t\n", "\u{feff}"] {
        assert_eq!(
            one(&problems(text)),
            "bad: found no request, expected at least one; check that this is the right file"
        );
    }
    for format in Format::ALL {
        assert_eq!(forced("", format).total(), 1, "{format}");
    }
    let header = "arrival_s,input,output\n";
    assert_eq!(
        one(&problems(header)),
        "bad: found no request, expected at least one; check that this is the right file"
    );
}

#[test]
fn a_line_that_is_cut_off() {
    let whole = r#"{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1, 2]}"#;
    for cut in 1..whole.len() {
        let problems = problems(&format!("{whole}\n{whole}\n{}", &whole[..cut]));
        let text = one(&problems);
        assert!(
            text.starts_with(
                "bad:3: found a line that ends in the middle, expected one JSON object"
            ),
            "{text}"
        );
        assert!(text.contains("the file may be cut off"), "{text}");
    }
    let text = one(&problems("arrival_s,input,output\n1,2,3\n2,3"));
    assert!(
        text.starts_with(
            "bad:3: found 2 fields, expected 3, as in the header; the file may be cut off"
        ),
        "{text}"
    );
}

#[test]
fn what_is_no_trace_at_all() {
    let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0>\0\x01\0\0\0";
    let text = one(&problems_with(elf, ReadOptions::default()));
    assert!(text.starts_with("bad:1: found `\\u{7f}ELF\\u{2}"), "{text}");
    assert!(
        text.contains(
            "mooncake, mooncake-delta, agentic-mooncake, dynamo, bailian, sharegpt, azure"
        ),
        "{text}"
    );
    for text in [
        "hello",
        "1,2,3",
        "{}",
        "[1, 2]",
        "null",
        "\"x\"",
        "{\"a\": 1}",
        "timestamp,input,output\n0,1,1",
    ] {
        assert!(one(&problems(text)).starts_with("bad:1: found `"), "{text}");
    }
    assert!(
        one(&problems("[{\"timestamp\": 0}]"))
            .ends_with("write one object per line (jq -c '.[]' does that)")
    );
    let junk: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for format in Format::ALL {
        let options = ReadOptions {
            format: Some(format),
            ..ReadOptions::default()
        };
        assert!(problems_with(&junk, options).total() > 1, "{format}");
    }
}

#[test]
fn what_is_not_utf8() {
    let mut bytes =
        br#"{"timestamp": 0, "input_length": 5, "output_length": 1, "request_id": "#.to_vec();
    bytes.extend_from_slice(b"\"\xff\xfe\"}");
    let options = ReadOptions {
        format: Some(Format::Mooncake),
        ..ReadOptions::default()
    };
    let text = one(&problems_with(&bytes, options));
    assert!(
        text.starts_with("bad:1: found bytes `\\xff\\xfe\"}` at column 72, expected UTF-8 text"),
        "{text}"
    );
    assert_eq!(problems_with(&bytes, ReadOptions::default()).total(), 1);
    let csv = b"arrival_s,input,output\n1,2,3\n\xff,2,3\n";
    assert!(
        one(&problems_with(csv, ReadOptions::default()))
            .starts_with("bad:3: found `\\xff,2,3`, expected UTF-8")
    );
}

#[test]
fn times_that_are_no_times() {
    let rest = r#", "input_length": 5, "output_length": 1"#;
    let says = |time: &str| row(&format!("\"timestamp\": {time}{rest}"));
    assert_eq!(
        says("-5"),
        "bad:2: timestamp: found `-5`, expected a number of milliseconds, 0 or more; \
         shift all times so that none is negative"
    );
    assert!(says("-0.001").contains("found `-0.001`"));
    assert!(says("\"12\"").contains("found `\"12\"`, expected a number of milliseconds"));
    assert!(says("true").contains("found `true`"));
    assert!(says("[1]").contains("found `[1]`"));
    assert!(says("1e300").contains("found `1e300`"));
    assert!(says("1e12").contains("found 11574 days, expected at most 200 days"));
    assert!(
        says("NaN")
            .contains(r#"bad:2: found `NaN, "input_length": 5, "output_length":...` at column 15"#)
    );
    assert!(says("NaN").ends_with("write finite numbers only"));
    assert!(says("Infinity").ends_with("write finite numbers only"));
    for time in ["nan", "inf", "-inf", "", "x", "1:30"] {
        let text = one(&problems(&format!("arrival_s,input,output\n{time},2,3\n")));
        assert!(text.contains("bad:2: arrival_s: found "), "{text}");
    }
    let text = one(&problems(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n16.11.2023 18:17:03,1,1\n",
    ));
    assert!(
        text.contains(
            "bad:2: timestamp: found `16.11.2023 18:17:03`, expected a date and time like"
        ),
        "{text}"
    );
}

#[test]
fn lengths_that_are_no_lengths() {
    let cases = [
        ("0", "leave requests without tokens out"),
        ("-1", "repair or remove the row"),
        ("1.5", "round it when the trace is written"),
        ("1e12", "check the unit of the column"),
        ("2147483648", "check the unit of the column"),
        ("18446744073709551615", "check the unit of the column"),
        ("1e999", "check the unit of the column"),
        ("\"7\"", "repair or remove the row"),
        ("{}", "repair or remove the row"),
        ("false", "repair or remove the row"),
    ];
    for (length, suggestion) in cases {
        for (field, fields) in [
            (
                "input_length",
                format!(r#""timestamp": 0, "input_length": {length}, "output_length": 1"#),
            ),
            (
                "output_length",
                format!(r#""timestamp": 0, "input_length": 1, "output_length": {length}"#),
            ),
        ] {
            let expected = format!(
                "bad:2: {field}: found `{length}`, expected a whole number of tokens from 1 to 2147483647; {suggestion}"
            );
            assert_eq!(row(&fields), expected);
        }
    }
    for length in [
        "",
        "0",
        "-1",
        "1.5",
        "1e12",
        "99999999999999999999",
        "NaN",
        "ten",
    ] {
        assert!(
            one(&problems(&format!(
                "arrival_s,input,output\n1,{length},3\n"
            )))
            .contains("bad:2: input: found")
        );
    }
    // Plain lines take another way through the reader.
    let plain = |input: &str, output: &str| {
        format!(
            r#""timestamp": 0, "input_length": {input}, "output_length": {output}, "hash_ids": [1]"#
        )
    };
    assert!(row(&plain("0", "1")).contains("input_length: found `0`"));
    assert!(row(&plain("1", "0")).contains("output_length: found `0`"));
    assert!(row(&plain("1", "4294967297")).contains("output_length: found `4294967297`"));
    let null = row(r#""timestamp": 0, "input_length": null, "output_length": 1"#);
    assert!(null.contains("input_length: found nothing"), "{null}");
}

#[test]
fn prompt_and_answer_that_are_too_long_together() {
    let text = row(r#""timestamp": 0, "input_length": 2147483647, "output_length": 1"#);
    assert!(
        text.starts_with(
            "bad:2: found 2147483647 + 1 tokens, expected prompt and answer of at most"
        ),
        "{text}"
    );
    let session: String = (0..3)
        .map(|_| "{\"session_id\": \"a\", \"timestamp\": 0, \"input_length\": 1000000000, \"output_length\": 1}\n")
        .collect();
    let text = one(&forced(&session, Format::MooncakeDelta));
    assert!(
        text.starts_with("bad:3: found 3000000002 + 1 tokens"),
        "{text}"
    );
}

#[test]
fn hash_lists_that_do_not_match() {
    let says = |hashes: &str| {
        row(&format!(
            r#""timestamp": 0, "input_length": 100, "output_length": 1, "hash_ids": {hashes}"#
        ))
    };
    assert_eq!(
        says("[1, 2, 3, 4, 5, 6, 7]"),
        "bad:2: hash_ids: found 7 block ids, expected 1 for 100 tokens in blocks of 512; \
         check the trace's block size (16 would fit this row)"
    );
    assert!(says("[]").contains("found 0 block ids, expected 1"));
    assert!(says("[-1]").contains("found `-1` as item 0, expected block ids"));
    assert!(says("[18446744073709551616]").contains("as item 0"));
    assert!(says("[1.5]").contains("as item 0"));
    assert!(says("[\"a\"]").contains("as item 0"));
    assert!(says("[[1]]").contains("as item 0"));
    assert!(says("7").contains("found `7`, expected a list of block ids"));
    assert!(says("{}").contains("found `{}`, expected a list of block ids"));
    let ids = |ids: &str| {
        format!(
            r#"{{"input_toks": 3, "output_toks": 1, "arrival_time_ns": 0, "input_tok_ids": {ids}}}"#
        )
    };
    assert!(
        one(&problems(&ids("[1, 2]")))
            .contains("input_tok_ids: found 2 ids, expected 3, one per token")
    );
    assert!(one(&problems(&ids("[1, 2, 4294967296]"))).contains("found `4294967296` as item 2"));
    let bailian = r#"{"chat_id": 1, "timestamp": 0, "input_length": 502, "output_length": 1, "hash_ids": [1]}"#;
    assert!(
        one(&problems(bailian))
            .contains("found 1 block ids, expected 32 for 502 tokens in blocks of 16")
    );
}

#[test]
fn fields_that_are_missing_or_twice() {
    assert!(
        row(r#""timestamp": 0, "input_length": 5"#)
            .starts_with("bad:2: output_length: found nothing")
    );
    assert!(
        row(r#""timestamp": 0, "output_length": 5"#)
            .starts_with("bad:2: input_length: found nothing")
    );
    assert!(
        row(r#""output_length": 5, "input_length": 5"#)
            .starts_with("bad:2: timestamp: found nothing")
    );
    let twice = row(r#""timestamp": 0, "input_length": 5, "output_length": 1, "input_tokens": 5"#);
    assert!(
        twice.starts_with("bad:2: input_length: found `input_tokens` too, expected one value"),
        "{twice}"
    );
    let twice = row(r#""timestamp": 0, "input_length": 5, "output_length": 1, "timestamp": 0"#);
    assert!(
        twice.starts_with("bad:2: timestamp: found it twice"),
        "{twice}"
    );
    let header = forced("timestamp,input,isl\n1,2,3\n", Format::Csv).to_string();
    assert!(
        header.contains(
            "bad:1: header: found none, expected an arrival column; name one of: arrival_s, "
        ),
        "{header}"
    );
    assert!(
        header.contains("found input and isl, expected a column of prompt tokens"),
        "{header}"
    );
    assert!(
        header.contains("found none, expected a column of answer tokens"),
        "{header}"
    );
}

#[test]
fn request_ids_that_are_not_unique() {
    let line = r#"{"request_id": "x", "timestamp": 0, "input_length": 5, "output_length": 1}"#;
    assert_eq!(
        one(&problems(&format!("{line}\n{line}"))),
        "bad:2: request_id: found `x` a second time, expected a name of its own for every request; \
         rename or remove one of the two"
    );
    let chat = r#"{"chat_id": 1, "timestamp": 0, "input_length": 5, "output_length": 1}"#;
    assert!(
        one(&problems(&format!("{chat}\n{chat}")))
            .contains("bad:2: chat_id: found `1` a second time")
    );
    let csv = "request_id,arrival_s,input,output\nr,0,1,1\nr,0,1,1\n";
    assert!(one(&problems(csv)).contains("bad:3: request_id: found `r` a second time"));
}

/// Rows of the flat agentic form: (id, whom it waits for).
fn graph(rows: &[(&str, &[&str])]) -> String {
    let line = |(id, on): &(&str, &[&str])| {
        format!(
            "{{\"request_id\": \"{id}\", \"timestamp\": 0, \"wait_for\": {on:?}, \"input_length\": 5, \"output_length\": 1}}\n"
        )
    };
    rows.iter().map(line).collect()
}

#[test]
fn dependencies_on_nobody_and_on_oneself() {
    let text = one(&problems(&graph(&[("a", &[]), ("b", &["a", "nobody"])])));
    assert!(
        text.starts_with(
            "bad:2: dependencies: found `nobody`, expected the name of a request of this file"
        ),
        "{text}"
    );
    let text = one(&problems(&graph(&[("a", &["a"])])));
    assert!(
        text.contains("found a cycle (line 1 -> line 1; 1 rows can never be sent)"),
        "{text}"
    );
    let text = one(&problems(&graph(&[
        ("a", &[]),
        ("b", &["a", "d"]),
        ("c", &["b"]),
        ("d", &["c"]),
        ("e", &["d"]),
    ])));
    assert!(text.contains("4 rows can never be sent"), "{text}");
    assert!(text.contains("cycle (line "), "{text}");
    let bad = r#"{"request_id": "a", "not_before_ms": 0, "input_length": 5, "output_length": 1, "dependencies": [{"request_id": "a", "trigger": "start"}]}"#;
    assert!(
        one(&problems(bad)).contains("trigger: found `start`, expected `dispatch` or `completion`")
    );
    // A row with a problem of its own is known by name: nothing is said twice.
    let broken = format!(
        "{}{}",
        r#"{"request_id": "a", "timestamp": 0, "wait_for": [], "input_length": 0, "output_length": 1}"#,
        "\n"
    );
    let text = one(&problems(&format!("{broken}{}", graph(&[("b", &["a"])]))));
    assert!(text.starts_with("bad:1: input_length"), "{text}");
}

#[test]
fn sessions_that_go_backwards() {
    let turn = |time: u32| {
        format!(
            "{{\"session_id\": \"s\", \"timestamp\": {time}, \"input_length\": 5, \"output_length\": 1}}\n"
        )
    };
    let text = one(&problems(&format!("{}{}", turn(5), turn(4))));
    assert!(
        text.starts_with("bad:2: timestamp: found a turn before the previous one"),
        "{text}"
    );
    let text = row(
        r#""session_id": "s", "delay": 5, "timestamp": 0, "input_length": 5, "output_length": 1"#,
    );
    assert!(
        text.starts_with("bad:2: delay: found a delay, expected none in the first turn"),
        "{text}"
    );
}

#[test]
fn a_line_without_end() {
    let mut bytes = b"{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1}\n".to_vec();
    bytes.resize(bytes.len() + (65 << 20), b' ');
    let text = one(&problems_with(&bytes, ReadOptions::default()));
    assert!(
        text.starts_with(
            "bad:2: found a line of more than 67108864 bytes, expected one request per line"
        ),
        "{text}"
    );
}

#[test]
fn compressed_files_that_are_cut_off() {
    let text = "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1}\n".repeat(2000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    for whole in [
        encoder.finish().unwrap(),
        zstd::encode_all(text.as_bytes(), 1).unwrap(),
    ] {
        assert_eq!(
            parse(&whole[..], "good", &ReadOptions::default())
                .unwrap()
                .trace
                .rows
                .len(),
            2000
        );
        for len in [whole.len() - 1, whole.len() / 2, 20] {
            let text = one(&problems_with(&whole[..len], ReadOptions::default()));
            assert!(text.contains("found no way to read on ("), "{text}");
            assert!(
                text.ends_with(
                    "expected a whole file; the file may be cut off or damaged: fetch it again"
                ),
                "{text}"
            );
        }
    }
}

#[test]
fn all_problems_at_once_and_the_list_is_capped() {
    let text: String = (0..50)
        .map(|row| {
            format!(
                "{{\"timestamp\": -{}, \"input_length\": 0, \"output_length\": 1.5}}\n",
                row + 1
            )
        })
        .collect();
    let problems = problems(&text);
    assert_eq!(
        (problems.total(), problems.shown().len()),
        (150, Problems::SHOWN)
    );
    assert_eq!(problems.shown()[3].place.line, 2);
    assert!(problems.to_string().ends_with("\nand 130 more problems"));
}

#[test]
fn strict_reading_makes_problems_of_warnings() {
    let text = "arrival_s,input,output,extra\n1,2,3,x\n0,2,3,y\n";
    assert_eq!(
        parse(text.as_bytes(), "bad", &ReadOptions::default())
            .unwrap()
            .warnings
            .len(),
        2
    );
    let strict = ReadOptions {
        is_strict: true,
        ..ReadOptions::default()
    };
    let problems = problems_with(text.as_bytes(), strict);
    assert_eq!(problems.total(), 2);
    assert!(
        problems
            .to_string()
            .contains("bad:1: found 1 value of unknown keys (extra), expected keys of the format")
    );
    assert!(
        problems.to_string().contains(
            "bad:3: found 1 row earlier than a row before, expected rows in order of time"
        )
    );
}

#[test]
fn files_that_could_be_two_formats() {
    let text = one(&problems(
        r#"{"chat_id": 1, "input_toks": 5, "output_toks": 1}"#,
    ));
    assert!(
        text.starts_with("bad:1: found a line that could be bailian, sharegpt, expected"),
        "{text}"
    );
    assert!(text.ends_with("name the format with --format"), "{text}");
}

#[test]
fn headers_that_do_not_fit() {
    let header = |fields: &str| format!("{{\"schema\": \"dynamo.agentic_mooncake\", {fields}}}\n");
    let row = r#"{"request_id": "a", "not_before_ms": 0, "input_length": 5, "output_length": 1}"#;
    let good = header(r#""version": 2, "block_size": 64, "hash_id_scope": "local""#);
    assert!(
        parse(
            format!("{good}{row}").as_bytes(),
            "good",
            &ReadOptions::default()
        )
        .is_ok()
    );
    let says = |fields: &str| one(&problems(&format!("{}{row}", header(fields))));
    assert!(
        says(r#""version": 3, "block_size": 64, "hash_id_scope": "local""#)
            .contains("version: found 3, expected 2")
    );
    assert!(
        says(r#""version": 2, "block_size": 0, "hash_id_scope": "local""#)
            .contains("block_size: found `0`")
    );
    assert!(
        says(r#""version": 2, "block_size": 64, "hash_id_scope": "global""#)
            .contains("hash_id_scope: found `global`")
    );
    let twice = one(&problems(&format!("{good}{row}\n{good}")));
    assert!(
        twice.contains("bad:3: schema: found a header, expected one header, in the first line"),
        "{twice}"
    );
    let options = ReadOptions {
        block_size: Some(16),
        ..ReadOptions::default()
    };
    let other = one(&problems_with(format!("{good}{row}").as_bytes(), options));
    assert!(
        other.contains("block_size: found 64, expected 16, as asked for"),
        "{other}"
    );
    let zero = ReadOptions {
        block_size: Some(0),
        ..ReadOptions::default()
    };
    assert!(
        problems_with(row.as_bytes(), zero)
            .to_string()
            .contains("bad: block_size: found 0, expected at least 1")
    );
}

#[test]
fn a_file_that_is_not_there() {
    let error = traces::read("no/such/file".as_ref(), &ReadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "no/such/file: cannot be opened");
    assert!(std::error::Error::source(&error).is_some());
}
