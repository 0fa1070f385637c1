//! Whatever the bytes, a reader ends with a trace that holds together or with problems, never with a panic.

use proptest::prelude::*;
use proptest::sample::Index;
use traces::{Format, Loaded, ReadOptions, Trace, TraceError, parse};

/// A good file of every format.
const SAMPLES: [&str; 10] = [
    "{\"timestamp\": 27, \"input_length\": 600, \"output_length\": 7, \"hash_ids\": [46, 47]}\n\
     {\"timestamp\": 30.5, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [46]}\n",
    "{\"session_id\": \"a\", \"timestamp\": 0, \"input_length\": 5, \"output_length\": 2, \"hash_ids\": [1], \"priority\": 3}\n\
     {\"session_id\": \"a\", \"delay\": 1, \"input_length\": 5, \"output_length\": 2, \"hash_ids\": [2], \"request_id\": \"r\"}\n",
    "{\"schema\": \"dynamo.agentic_mooncake\", \"version\": 2, \"block_size\": 4, \"hash_id_scope\": \"local\"}\n\
     {\"request_id\": \"a\", \"not_before_ms\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1, 2]}\n\
     {\"request_id\": \"b\", \"input_length\": 5, \"output_length\": 1, \"dependencies\": [{\"request_id\": \"a\", \
     \"trigger\": \"dispatch\", \"delay_ms\": 2.5}]}\n",
    "{\"request_id\": \"a\", \"timestamp\": 50, \"input_length\": 5, \"output_length\": 2, \"wait_for\": []}\n\
     {\"request_id\": \"b\", \"wait_for\": [\"a\"], \"tool_wait_ms\": 3, \"input_length\": 5, \"output_length\": 2}\n",
    "{\"schema\":\"dynamo.request.trace.v1\",\"event_type\":\"request_end\",\"event_time_unix_ms\":1100,\"agent_context\":\
     {\"session_id\":\"s\"},\"request\":{\"request_id\":\"a\",\"output_tokens\":2,\"request_received_ms\":1000,\
     \"total_time_ms\":90,\"replay\":{\"trace_block_size\":2,\"input_length\":3,\"input_sequence_hashes\":[11,22]}}}\n",
    "{\"chat_id\": 1, \"parent_chat_id\": -1, \"timestamp\": 6.5, \"input_length\": 17, \"output_length\": 1, \"hash_ids\": [1, 2]}\n\
     {\"chat_id\": 2, \"parent_chat_id\": 1, \"timestamp\": 7, \"input_length\": 17, \"output_length\": 1, \"turn\": 2}\n",
    "{\"input_toks\": 2, \"output_toks\": 1, \"arrival_time_ns\": 7, \"input_tok_ids\": [1, 2], \"output_tok_ids\": [3]}\n\
     {\"arrival_time_ns\": 9, \"sub_requests\": [{\"input_toks\": 1, \"output_toks\": 1, \"tool_duration_ns\": 4, \
     \"input_tok_ids\": [1], \"output_tok_ids\": [3]}, {\"input_toks\": 3, \"output_toks\": 1, \"input_tok_ids\": [1, 3, 5]}]}\n",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.03,318,8\n",
    "Timestamp,Session ID,Request tokens,Response tokens\n5,1,472,18\n45,1,1087,0\n",
    "request_id,arrival_ms,input,output,priority\na,0.5,100,20,-1\nb,7,\"5\",20,1\n",
];

/// Pieces that are likely to hurt when they land in a file.
const PIECES: [&str; 22] = [
    "",
    "\n",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "-",
    ".",
    "e9",
    "0",
    "null",
    "NaN",
    "1e12",
    "18446744073709551615",
    "\\u0000",
    "\u{feff}",
    "é",
    "\"wait_for\": [\"b\"], ",
    "\"timestamp\": ",
];

fn read(bytes: &[u8], format: Option<Format>, is_strict: bool) -> Result<Loaded, TraceError> {
    parse(
        bytes,
        "x",
        &ReadOptions {
            format,
            is_strict,
            block_size: None,
        },
    )
}

/// What every trace promises.
fn check(trace: &Trace) {
    assert!(!trace.rows.is_empty());
    assert!(trace.rows.is_sorted_by_key(|row| row.arrival));
    assert!(
        trace
            .block_list
            .iter()
            .all(|&block| block < trace.unique_blocks)
    );
    for row in &trace.rows {
        assert!(
            row.input_tokens > 0 && row.output_tokens > 0 && row.own_tokens <= row.input_tokens
        );
        assert!(row.session < trace.sessions);
        for dependency in trace.dependencies_of(row) {
            let on = &trace.rows[dependency.on.0 as usize];
            assert!(
                on.arrival + dependency.delay <= row.arrival,
                "the arrival holds nobody back"
            );
        }
    }
    // Building contents costs as much as there are blocks and tokens, which the file had room for.
    let workload = trace.workload();
    assert_eq!(workload.requests.len(), trace.rows.len());
    for (request, row) in workload.requests.iter().zip(&trace.rows) {
        assert_eq!(
            (request.arrival, request.input_tokens),
            (row.arrival, row.input_tokens)
        );
        assert_eq!(
            workload.tree.end(request.leaf),
            row.input_tokens + row.output_tokens
        );
    }
}

fn survives(bytes: &[u8]) {
    for format in std::iter::once(None).chain(Format::ALL.map(Some)) {
        match (read(bytes, format, false), read(bytes, format, true)) {
            (Ok(loaded), strict) => {
                check(&loaded.trace);
                assert_eq!(strict.is_ok(), loaded.warnings.is_empty());
            }
            (Err(TraceError::Invalid(problems)), Err(_)) => {
                assert!(
                    problems.total() >= problems.shown().len() as u64
                        && !problems.shown().is_empty()
                );
                assert!(!problems.to_string().is_empty());
            }
            (Err(error), _) => panic!("{error}"),
        }
    }
}

#[test]
fn the_samples_are_good() {
    for sample in SAMPLES {
        check(
            &read(sample.as_bytes(), None, false)
                .unwrap_or_else(|error| panic!("{sample}: {error}"))
                .trace,
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&bytes);
    }

    #[test]
    fn random_bytes_behind_magic_numbers(is_gzip in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let magic: &[u8] = if is_gzip { &[0x1f, 0x8b, 8, 0] } else { &[0x28, 0xb5, 0x2f, 0xfd] };
        survives(&[magic, &bytes].concat());
    }

    #[test]
    fn mutated_samples(
        sample in 0..SAMPLES.len(),
        edits in prop::collection::vec((any::<Index>(), 0usize..12, 0..PIECES.len()), 1..6),
    ) {
        let mut bytes = SAMPLES[sample].as_bytes().to_vec();
        for (at, removed, piece) in edits {
            let at = at.index(bytes.len() + 1);
            let to = (at + removed).min(bytes.len());
            bytes.splice(at..to, PIECES[piece].bytes());
        }
        survives(&bytes);
    }

    #[test]
    fn flipped_bits(sample in 0..SAMPLES.len(), flips in prop::collection::vec((any::<Index>(), 0u8..8), 1..4)) {
        let mut bytes = SAMPLES[sample].as_bytes().to_vec();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        survives(&bytes);
    }

    /// Plain lines take a fast path; a null field sends the same row the general way.
    #[test]
    fn plain_lines_are_read_alike_both_ways(
        rows in prop::collection::vec((0u64..1 << 40, 0u64..5000, 0u64..3, prop::collection::vec(any::<u64>(), 0..12)), 1..6),
        spaces in 0usize..3,
        is_mutated in any::<bool>(),
        at in any::<Index>(),
        piece in 0..PIECES.len(),
    ) {
        let space = " ".repeat(spaces);
        let mut text: String = rows.iter().map(|(time, input, output, hashes)| {
            let hashes: Vec<String> = hashes.iter().map(u64::to_string).collect();
            let hashes = hashes.join(&format!("{space},{space}"));
            format!("{{\"timestamp\":{space}{time},\"input_length\":{input}{space},\"output_length\":{output},\"hash_ids\":[{hashes}]}}\n")
        }).collect();
        if is_mutated {
            let at = (0..=at.index(text.len() + 1)).rev().find(|&at| text.is_char_boundary(at)).unwrap();
            text.insert_str(at, PIECES[piece]);
        }
        let general = text.replace("}\n", ",\"priority\":null}\n");
        let read = |text: &str| read(text.as_bytes(), Some(Format::Mooncake), false).map(|loaded| (loaded.trace, loaded.warnings));
        match (read(&text), read(&general)) {
            (Ok(fast), Ok(general)) => prop_assert_eq!(fast, general),
            (Err(TraceError::Invalid(fast)), Err(TraceError::Invalid(general))) => prop_assert_eq!(fast.total(), general.total()),
            (fast, general) => prop_assert!(false, "{:?} but {:?}", fast.is_ok(), general.is_ok()),
        }
    }

    /// Nothing is lost without a word: a file that is read has as many rows as lines.
    #[test]
    fn rows_are_not_lost(fields in prop::collection::vec(prop::collection::vec(0usize..9, 0..7), 1..5)) {
        const FIELDS: [&str; 9] = [
            "\"timestamp\": 5", "\"timestamp\": null", "\"input_length\": 5", "\"input_length\": null", "\"output_length\": 2",
            "\"hash_ids\": [1]", "\"hash_ids\": null", "\"session_id\": \"a\"", "\"request_id\": null",
        ];
        let line = |fields: &Vec<usize>| {
            let fields: Vec<&str> = fields.iter().map(|&field| FIELDS[field]).collect();
            format!("{{{}}}\n", fields.join(", "))
        };
        let text: String = fields.iter().map(line).collect();
        for format in [Format::Mooncake, Format::MooncakeDelta, Format::AgenticMooncake, Format::Bailian] {
            if let Ok(loaded) = read(text.as_bytes(), Some(format), false) {
                prop_assert_eq!(loaded.trace.rows.len(), fields.len());
            }
        }
    }
}
