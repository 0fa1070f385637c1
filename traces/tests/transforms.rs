//! Windows, samples, limits, speeds and block sizes: small cases by hand, invariants on random traces.

use engine::{Dependency, RequestId, Span, Time, Trigger};
use proptest::prelude::*;
use traces::transform::{self, Delays, TransformError};
use traces::{Content, Lengths, NewContent, NewRow, Reuse, SynthSpec, Trace, TraceBuilder};

const S: u64 = 1_000_000_000;

fn seconds(s: u64) -> Span {
    Span::from_ns(s * S)
}

/// Two conversations and a loner: (a) at 0 s with a turn 5 s after the answer and another 5 s later, (b) at 2 s with a
/// turn 1 s after the answer, (c) at 20 s.
fn conversations() -> Trace {
    let mut builder = TraceBuilder::new(4);
    let mut push = |session: u64, at_s: u64, waits: Option<(u32, u64)>, blocks: &[u64]| {
        let dependencies: Vec<Dependency> = waits
            .iter()
            .map(|&(on, s)| Dependency {
                on: RequestId(on),
                trigger: Trigger::Completion,
                delay: seconds(s),
            })
            .collect();
        let tokens = 4 * blocks.len() as u32;
        builder.push(NewRow {
            session: Some(session),
            dependencies: &dependencies,
            ..NewRow::alone(
                Time::from_ns(at_s * S),
                tokens,
                1,
                NewContent::Blocks(blocks),
            )
        });
    };
    push(10, 0, None, &[1, 2]);
    push(11, 2, None, &[1, 9]);
    push(11, 3, Some((1, 1)), &[1, 9, 8]);
    push(10, 5, Some((0, 5)), &[1, 2, 3]);
    push(10, 10, Some((3, 5)), &[1, 2, 3, 4]);
    push(12, 20, None, &[7]);
    builder.finish()
}

/// Arrival in s, session, row waited for and delay in s.
type Outline = (u64, u32, Option<(u32, u64)>);

fn outline(trace: &Trace) -> Vec<Outline> {
    let row = |row: &traces::Row| {
        let wait = trace
            .dependencies_of(row)
            .first()
            .map(|d| (d.on.0, d.delay.0 / 1000 / S));
        (row.arrival.as_ns() / S, row.session, wait)
    };
    trace.rows.iter().map(row).collect()
}

#[test]
fn a_window_keeps_what_arrives_inside_and_frees_turns_cut_off_from_their_past() {
    let trace = transform::window(&conversations(), seconds(3), seconds(20)).expect("three rows");
    // Turns at 3, 5 and 10 s, now at 0, 2 and 7; only the last still waits for a turn that is there.
    assert_eq!(
        outline(&trace),
        [(0, 0, None), (2, 1, None), (7, 1, Some((1, 5)))]
    );
    let blocks: Vec<&[u32]> = trace.rows.iter().map(|row| trace.blocks(row)).collect();
    assert_eq!(
        blocks,
        [&[0, 1, 2][..], &[0, 3, 4], &[0, 3, 4, 5]],
        "numbered by first appearance"
    );
    assert_eq!((trace.unique_blocks, trace.sessions), (6, 2));
}

#[test]
fn an_empty_selection_is_an_error_that_says_why() {
    let error = transform::window(&conversations(), seconds(21), Span(u64::MAX))
        .expect_err("nothing is that late");
    assert_eq!(
        error.to_string(),
        "no request left: the window begins at 21.000 s, the last request arrives at 20.000 s; widen the selection"
    );
    assert!(matches!(
        transform::limit(&conversations(), 0),
        Err(TransformError::Empty(_))
    ));
    assert!(matches!(
        transform::sample(&conversations(), 0.01, 1),
        Err(TransformError::Empty(_))
    ));
    for fraction in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(matches!(
            transform::sample(&conversations(), fraction, 1),
            Err(TransformError::Fraction(_))
        ));
    }
    for speed in [0.0, -2.0, f64::NAN, f64::INFINITY] {
        let refused = transform::scale(&conversations(), speed, Delays::Kept);
        assert!(matches!(refused, Err(TransformError::Speed(_))));
    }
    let slow = transform::scale(&conversations(), 1e-9, Delays::Kept);
    assert!(matches!(slow, Err(TransformError::TooSlow(_))));
}

#[test]
fn the_first_requests_keep_their_turns() {
    let trace = transform::limit(&conversations(), 4).expect("four rows");
    assert_eq!(
        outline(&trace),
        [
            (0, 0, None),
            (2, 1, None),
            (3, 1, Some((1, 1))),
            (5, 0, Some((0, 5)))
        ]
    );
    let all = transform::limit(&conversations(), 99).expect("all rows");
    assert_eq!(outline(&all), outline(&conversations()));
}

#[test]
fn twice_the_speed_halves_times_and_delays_or_times_only() {
    let both = transform::scale(&conversations(), 0.5, Delays::Scaled).expect("a good speed");
    assert_eq!(
        outline(&both),
        [
            (0, 0, None),
            (4, 1, None),
            (6, 1, Some((1, 2))),
            (10, 0, Some((0, 10))),
            (20, 0, Some((3, 10))),
            (40, 2, None)
        ]
    );
    // Starts at 0, 4 and 40 s; (b) thinks 1 s still, (a) 5 s twice.
    let starts = transform::scale(&conversations(), 0.5, Delays::Kept).expect("a good speed");
    assert_eq!(
        outline(&starts),
        [
            (0, 0, None),
            (4, 1, None),
            (5, 1, Some((1, 1))),
            (5, 0, Some((0, 5))),
            (10, 0, Some((3, 5))),
            (40, 2, None)
        ]
    );
}

#[test]
fn a_row_that_stands_before_the_one_it_waits_for_is_found() {
    // Both at time 0; the first in the file waits for the second.
    let mut builder = TraceBuilder::new(4);
    let wait = Dependency {
        on: RequestId(1),
        trigger: Trigger::Dispatch,
        delay: Span::ZERO,
    };
    builder.push(NewRow {
        dependencies: &[wait],
        ..NewRow::alone(Time::ZERO, 3, 1, NewContent::Private)
    });
    builder.push(NewRow::alone(Time::ZERO, 4, 1, NewContent::Private));
    let trace = transform::scale(&builder.finish(), 2.0, Delays::Scaled).expect("a good speed");
    assert_eq!(trace.dependencies_of(&trace.rows[0])[0].on, RequestId(1));
    let alone = transform::limit(&trace, 1).expect("one row");
    assert_eq!(outline(&alone), [(0, 0, None)]);
}

#[test]
fn a_turn_told_as_a_delta_keeps_its_length_when_its_past_is_cut_off() {
    let mut builder = TraceBuilder::new(4);
    builder.push(NewRow::alone(Time::ZERO, 8, 2, NewContent::Blocks(&[1, 2])));
    let delta = NewRow::alone(Time::from_ns(S), 14, 1, NewContent::Blocks(&[3]));
    builder.push(NewRow {
        own_tokens: 4,
        extends: Some(0),
        ..delta
    });
    let trace = transform::window(&builder.finish(), seconds(1), seconds(2)).expect("one row");
    let row = &trace.rows[0];
    assert_eq!(
        (row.input_tokens, row.own_tokens, row.extends),
        (14, 4, None)
    );
}

#[test]
fn smaller_blocks_know_what_larger_ones_knew() {
    // Blocks of 4 in blocks of 2: [1 1' 2 2'] and [1 1' 2]: the last block of the shorter prompt holds 2 of 4 tokens of
    // block 2, so that in blocks of 2 it is whole and shared.
    let mut builder = TraceBuilder::new(4);
    builder.push(NewRow::alone(Time::ZERO, 8, 1, NewContent::Blocks(&[1, 2])));
    builder.push(NewRow::alone(Time::ZERO, 6, 1, NewContent::Blocks(&[1, 2])));
    builder.push(NewRow::alone(Time::ZERO, 5, 1, NewContent::Blocks(&[1, 2])));
    builder.push(NewRow::alone(Time::ZERO, 3, 1, NewContent::Private));
    let trace = transform::in_blocks_of(&builder.finish(), 2);
    let blocks: Vec<&[u32]> = trace.rows.iter().map(|row| trace.blocks(row)).collect();
    // The fifth token alone is a partial block of its own.
    assert_eq!(blocks, [&[0, 1, 2, 3][..], &[0, 1, 2], &[0, 1, 4], &[]]);
    assert_eq!(trace.rows[3].content, Content::Private);
    assert_eq!(trace.block_size, 2);
}

fn best_reuse(trace: &Trace) -> u64 {
    let contents = traces::Contents::of(trace);
    Reuse::of(&contents, trace.rows.iter().map(|row| row.input_tokens)).shared_tokens
}

/// A small made-up workload with turns that wait.
fn workload(seed: u64) -> Trace {
    let mut spec = SynthSpec {
        requests: 120,
        ..SynthSpec::quick()
    };
    spec.turn_order = traces::synth::TurnOrder::AfterAnswer {
        think_ms: Lengths::Fixed(7000),
        answer_ms_per_token: 10.0,
    };
    spec.generate(seed).expect("good parameters")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sampling_keeps_conversations_whole(seed: u64, fraction in 0.05f64..1.0) {
        let trace = workload(seed);
        let Ok(part) = transform::sample(&trace, fraction, seed) else { return Ok(()) };
        let wanted = (fraction * f64::from(trace.sessions)).round() as u32;
        prop_assert_eq!(part.sessions, wanted);
        // No turn lost the one it waits for: as many follow-ups as rows beyond the first of each session.
        let waiting = part.rows.iter().filter(|row| row.dependency_count > 0).count();
        prop_assert_eq!(waiting, part.rows.len() - part.sessions as usize);
    }

    #[test]
    fn a_larger_sample_holds_the_smaller_one(seed: u64, small in 0.1f64..0.9, more in 0.0f64..0.1) {
        let trace = workload(seed);
        let rows = |fraction| {
            let part = transform::sample(&trace, fraction, 1).expect("some rows");
            part.rows.iter().map(|row| (row.arrival, row.input_tokens, row.output_tokens)).collect::<Vec<_>>()
        };
        let (small, large) = (rows(small), rows(small + more));
        prop_assert!(small.iter().all(|row| large.contains(row)));
    }

    #[test]
    fn there_and_back_is_the_same(seed: u64, power in -4i32..5) {
        let trace = transform::limit(&workload(seed), u32::MAX).expect("all rows");
        // Powers of two lose nothing: all times are multiples of 16 ns.
        let speed = 2f64.powi(power);
        let there = transform::scale(&trace, speed, Delays::Scaled).expect("a good speed");
        prop_assert_eq!(transform::scale(&there, 1.0 / speed, Delays::Scaled).expect("a good speed"), trace);
    }

    #[test]
    fn windows_and_limits_cut_the_rows_without_changing_them(seed: u64, cut in 1u32..119) {
        let trace = workload(seed);
        let head = transform::limit(&trace, cut).expect("some rows");
        let lengths = |rows: &[traces::Row]| rows.iter().map(|r| (r.input_tokens, r.output_tokens)).collect::<Vec<_>>();
        prop_assert_eq!(lengths(&head.rows), lengths(&trace.rows[..cut as usize]));
        let start = Span(trace.rows[cut as usize].arrival.0);
        let tail = transform::window(&trace, start, Span(u64::MAX)).expect("some rows");
        let first = trace.rows.partition_point(|row| row.arrival.0 < start.0);
        prop_assert_eq!(lengths(&tail.rows), lengths(&trace.rows[first..]));
        prop_assert_eq!(tail.rows[0].arrival, Time::ZERO);
    }

    /// Tokens shared in blocks of 512 are still shared in blocks of 64, and back again.
    #[test]
    fn blocks_can_be_cut_and_joined(seed: u64) {
        let trace = workload(seed);
        let small = transform::in_blocks_of(&trace, 64);
        prop_assert!(best_reuse(&small) >= best_reuse(&trace));
        prop_assert_eq!(best_reuse(&transform::in_blocks_of(&small, 512)), best_reuse(&trace));
    }
}
