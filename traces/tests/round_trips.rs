//! What is written reads back equal, whatever rows wait for and however the file is compressed.

use std::path::Path;

use engine::{Annotations, Dependency, Ephemeral, NamedWorkers, RequestId, Span, Time, Trigger};
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use traces::write::{OutputFormat, losses, write_file, write_to};
use traces::{
    Format, NewContent, NewRow, ReadOptions, SynthSpec, Trace, TraceBuilder, parse, transform,
};

const BLOCK_SIZE: u32 = 16;

/// Which rows wait for which.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Waiting {
    /// None.
    Nobody,
    /// Later turns of a session for the one before.
    Turns,
    /// Any for any before.
    Anybody,
}

/// A trace of `count` random rows, numbered as a reader numbers them.
fn random_trace(seed: u64, count: usize, waiting: Waiting, has_contents: bool) -> Trace {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut builder = TraceBuilder::new(BLOCK_SIZE);
    let mut now = 0;
    let mut arrivals: Vec<Time> = Vec::new();
    let mut last_turn = [None; 4];
    for index in 0..count {
        // Whole milliseconds, fractions of them, and ties.
        now += [0, 1_000_000, 7, 2_500_123][rng.random_range(0..4)];
        let session = rng.random_range(0..4usize);
        let mut dependencies = Vec::new();
        let mut arrival = Time::from_ns(now);
        let mut wait = |on: u32, trigger, delay_ns: u64| {
            let delay = Span::from_ns(delay_ns);
            dependencies.push(Dependency {
                on: RequestId(on),
                trigger,
                delay,
            });
            arrivals[on as usize] + delay
        };
        match waiting {
            Waiting::Nobody => {}
            Waiting::Turns => {
                if let Some(before) = last_turn[session].replace(index as u32) {
                    arrival = wait(before, Trigger::Completion, rng.random_range(0..9_000_000));
                }
            }
            Waiting::Anybody => {
                for _ in 0..rng.random_range(0..3usize).min(index) {
                    let trigger = if rng.random() {
                        Trigger::Dispatch
                    } else {
                        Trigger::Completion
                    };
                    let on = rng.random_range(0..index as u32);
                    arrival = arrival.max(wait(on, trigger, rng.random_range(0..9_000_000)));
                }
            }
        }
        arrivals.push(arrival);
        let input_tokens = rng.random_range(1..100);
        let blocks = random_blocks(&mut rng, input_tokens);
        let is_known = has_contents && rng.random_range(0..4) > 0;
        let content = if is_known {
            NewContent::Blocks(&blocks)
        } else {
            NewContent::Private
        };
        builder.push(NewRow {
            session: (waiting != Waiting::Nobody).then_some(session as u64),
            priority: [0, 0, 3, -2][rng.random_range(0..4)],
            dependencies: &dependencies,
            ..NewRow::alone(arrival, input_tokens, rng.random_range(1..50), content)
        });
        if has_contents && rng.random() {
            builder.annotate(&random_words(&mut rng));
        }
    }
    numbered_by_row(&builder.finish())
}

/// What a row says about itself.
fn random_words(rng: &mut impl Rng) -> Annotations {
    let labels = |rng: &mut dyn Rng| -> Vec<String> {
        let all = ["gold", "gpu=h100", "\u{e4} \"quoted\""];
        let taken = all.iter().filter(|_| rng.random_range(0..2) == 0);
        let mut taken: Vec<String> = taken.map(|&label| label.to_owned()).collect();
        taken.sort();
        taken
    };
    let worker = |rng: &mut dyn Rng| (rng.random_range(0..2) == 0).then(|| rng.random_range(0..9));
    let weights = labels(rng);
    let weights = weights
        .into_iter()
        .map(|name| (name, f64::from(rng.random_range(-9..9)) / 7.0));
    Annotations {
        preferred_taints: weights.collect(),
        workers: NamedWorkers {
            whole: worker(rng),
            prefill: worker(rng),
            decode: worker(rng),
        },
        required_taints: labels(rng),
        strict_priority: rng.random_range(0..3),
        policy_class: worker(rng).map(|number| format!("class {number}")),
        expected_output_tokens: worker(rng).map(|number| number + 1),
        pin: worker(rng).map(|number| Span::from_ns(1_000_000_000 * (u64::from(number) + 1))),
        ephemeral_blocks: [None, Some(Ephemeral::Answer), Some(Ephemeral::Request)]
            [rng.random_range(0..3)],
        speculative_prefill: rng.random(),
    }
}

/// Hashes that share prefixes now and then.
fn random_blocks(rng: &mut impl Rng, input_tokens: u32) -> Vec<u64> {
    let mut id = 0u64;
    let count = input_tokens.div_ceil(BLOCK_SIZE);
    (0..count)
        .map(|_| {
            id = id * 3 + rng.random_range(1..4u64);
            id
        })
        .collect()
}

/// Blocks, sessions and dependencies in the order in which rows, and so a file, name them; no lines.
fn numbered_by_row(trace: &Trace) -> Trace {
    let mut trace = transform::limit(trace, u32::MAX).expect("a trace with rows");
    trace.rows.iter_mut().for_each(|row| row.line = 0);
    trace
}

fn read_back(bytes: &[u8], format: Format) -> Trace {
    let options = ReadOptions {
        block_size: None,
        is_strict: true,
        format: None,
    };
    let block_size = (format == Format::Mooncake).then_some(BLOCK_SIZE);
    let loaded = parse(
        bytes,
        "written",
        &ReadOptions {
            block_size,
            ..options
        },
    );
    let loaded =
        loaded.unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(bytes)));
    assert_eq!(loaded.format, format);
    numbered_by_row(&loaded.trace)
}

fn round_trip(trace: &Trace, format: OutputFormat, expected: Format) -> Trace {
    let mut bytes = Vec::new();
    let written = write_to(trace, &mut bytes, format).expect("a vector takes everything");
    assert_eq!((written, format.format_for(trace)), (expected, expected));
    read_back(&bytes, expected)
}

proptest! {
    #[test]
    fn mooncake_reads_back_equal(seed: u64, count in 1usize..40) {
        let trace = random_trace(seed, count, Waiting::Nobody, true);
        prop_assert_eq!(round_trip(&trace, OutputFormat::Mooncake, Format::Mooncake), trace);
    }

    #[test]
    fn sessions_read_back_equal(seed: u64, count in 1usize..40) {
        let trace = random_trace(seed, count, Waiting::Turns, true);
        prop_assert_eq!(round_trip(&trace, OutputFormat::Mooncake, Format::Mooncake), trace);
    }

    #[test]
    fn dependencies_of_any_kind_read_back_equal(seed: u64, count in 1usize..40) {
        let trace = random_trace(seed, count, Waiting::Anybody, true);
        let format = OutputFormat::Mooncake.format_for(&trace);
        // A few rows may happen to wait for nobody, but sessions alone never tell dependencies on others.
        prop_assert!(format == Format::AgenticMooncake || trace.dependencies.len() < count);
        if format == Format::AgenticMooncake {
            prop_assert_eq!(round_trip(&trace, OutputFormat::Mooncake, format), trace);
        }
    }

    #[test]
    fn csv_reads_back_equal(seed: u64, count in 1usize..40) {
        let mut trace = random_trace(seed, count, Waiting::Nobody, false);
        trace.block_size = 512;
        prop_assert_eq!(losses(&trace, Format::Csv), Vec::<&str>::new());
        prop_assert_eq!(round_trip(&trace, OutputFormat::Csv, Format::Csv), trace);
    }
}

#[test]
fn made_up_traces_read_back_equal() {
    for after_answer in [false, true] {
        let mut spec = SynthSpec {
            requests: 300,
            ..SynthSpec::quick()
        };
        if after_answer {
            spec.turn_order = traces::synth::TurnOrder::AfterAnswer {
                think_ms: traces::Lengths::Lognormal {
                    mean: 9000.0,
                    stddev: 9000.0,
                    max: 60_000,
                },
                answer_ms_per_token: 20.0,
            };
        }
        let trace = numbered_by_row(&spec.generate(4).expect("good parameters"));
        assert_eq!(trace.dependencies.is_empty(), !after_answer);
        let mut bytes = Vec::new();
        write_to(&trace, &mut bytes, OutputFormat::Mooncake).expect("a vector takes everything");
        let loaded = parse(&bytes[..], "written", &ReadOptions::default()).expect("a good trace");
        assert_eq!(numbered_by_row(&loaded.trace), trace);
    }
}

#[test]
fn token_ids_and_deltas_become_hashes_of_whole_prompts() {
    // The second prompt is the first (20 tokens), its answer (3) and 10 tokens more; the third repeats the first.
    let mut builder = TraceBuilder::new(BLOCK_SIZE);
    let tokens: Vec<u32> = (100..120).collect();
    let known = NewContent::Tokens {
        prompt: &tokens,
        answer: &[],
    };
    builder.push(NewRow::alone(Time::ZERO, 20, 3, known));
    builder.push(NewRow {
        own_tokens: 10,
        extends: Some(0),
        ..NewRow::alone(Time::from_ns(5), 33, 1, NewContent::Blocks(&[7]))
    });
    builder.push(NewRow::alone(Time::from_ns(9), 20, 3, known));
    let trace = builder.finish();
    assert_eq!(losses(&trace, Format::Mooncake).len(), 2);
    let back = round_trip(&trace, OutputFormat::Mooncake, Format::Mooncake);
    let blocks: Vec<&[u32]> = back.rows.iter().map(|row| back.blocks(row)).collect();
    // Whole block 0 is shared by all; the partial block of 4 tokens only by the first and the third.
    assert_eq!(blocks, [&[0, 1][..], &[0, 2, 3], &[0, 1]]);
    assert!(
        back.rows
            .iter()
            .all(|row| row.own_tokens == row.input_tokens)
    );
}

#[test]
fn extremes_survive() {
    let mut builder = TraceBuilder::new(BLOCK_SIZE);
    let end = Time::from_ns(199 * 86_400 * 1_000_000_000 + 1);
    for (at, priority) in [(Time::ZERO, i32::MAX), (end, -i32::MAX)] {
        let row = NewRow::alone(at, (1 << 31) - 2, 1, NewContent::Private);
        builder.push(NewRow { priority, ..row });
    }
    let trace = builder.finish();
    assert_eq!(
        round_trip(&trace, OutputFormat::Mooncake, Format::Mooncake),
        trace
    );
}

#[test]
fn files_are_compressed_by_name() {
    let trace = random_trace(1, 200, Waiting::Nobody, true);
    let written = |name: &str| {
        let (path, mut bytes) = (Path::new(name), Vec::new());
        write_file(&trace, path, &mut bytes, OutputFormat::of_file(path))
            .expect("a vector takes everything");
        bytes
    };
    let mut sizes = Vec::new();
    for name in ["t.jsonl", "t.jsonl.gz", "t.JSONL.ZST"] {
        let bytes = written(name);
        sizes.push(bytes.len());
        assert_eq!(read_back(&bytes, Format::Mooncake), trace, "{name}");
        assert_eq!(written(name), bytes, "the same bytes every time");
    }
    assert!(sizes[1] < sizes[0] && sizes[2] < sizes[0], "{sizes:?}");
}

#[test]
fn what_is_lost_is_said() {
    let sessions = random_trace(3, 30, Waiting::Turns, true);
    assert_eq!(losses(&sessions, Format::Csv).len(), 3);
    assert_eq!(losses(&sessions, Format::Mooncake), Vec::<&str>::new());
    // Sessions as labels only, as in a CSV: plain Mooncake would make their requests wait.
    let labels = b"arrival_s,input_tokens,output_tokens,session_id\n0,5,1,a\n1,5,1,a\n2,5,1,b\n";
    let labels = parse(&labels[..], "labels", &ReadOptions::default())
        .expect("a good trace")
        .trace;
    assert_eq!(losses(&labels, Format::Mooncake).len(), 1);
}
