//! Fitting the generator to a trace: known workloads are found again, odd ones do no harm, public ones are met closely.

use std::path::PathBuf;

use engine::Time;
use proptest::prelude::*;
use traces::describe::Description;
use traces::like::Closeness;
use traces::synth::TurnOrder;
use traces::{Lengths, NewContent, NewRow, ReadOptions, SynthSpec, Trace, TraceBuilder, read};

fn generate(spec: &SynthSpec, seed: u64) -> Trace {
    spec.generate(seed)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// How close the fit to `given` comes under a seed that the fit has not seen.
fn closeness(given: &Trace, spec: &SynthSpec, seed: u64) -> Closeness {
    Closeness::of(given, &generate(spec, seed))
}

#[test]
fn a_trace_is_close_to_itself() {
    let trace = generate(&SynthSpec::quick(), 1);
    let closeness = Closeness::of(&trace, &trace);
    assert_eq!(
        (
            closeness.input_tokens.worst_error,
            closeness.output_tokens.ks_distance
        ),
        (0.0, 0.0)
    );
    assert_eq!(
        (
            closeness.lru_distance,
            closeness.best_reuse.map(|pair| pair.difference())
        ),
        (0.0, Some(0.0))
    );
}

#[test]
fn the_parameters_of_a_made_up_workload_are_found_again() {
    let given = generate(
        &SynthSpec {
            requests: 6000,
            duration_s: Some(1800.0),
            ..SynthSpec::quick()
        },
        1,
    );
    let spec = SynthSpec::like(&given);
    assert_eq!(
        (spec.requests, spec.tick_ms, spec.block_size),
        (6000, 3000, 512)
    );
    // One system prompt of one whole block, which every session has.
    assert_eq!(
        (spec.system_prompts.len(), spec.system_prompts[0].share),
        (1, 1.0)
    );
    assert_eq!(spec.system_prompts[0].tokens, Lengths::Fixed(512));
    assert!(matches!(spec.turn_order, TurnOrder::Timed { .. }));
    for seed in 1..4 {
        let closeness = closeness(&given, &spec, seed);
        assert!(
            closeness.input_tokens.worst_error < 0.10,
            "{:?}",
            closeness.input_tokens
        );
        assert!(
            closeness.output_tokens.ks_distance < 0.02,
            "{:?}",
            closeness.output_tokens
        );
        assert!(closeness.rate_per_s.relative_error() < 0.02);
        assert!(
            closeness
                .best_reuse
                .is_some_and(|pair| pair.difference() < 0.02),
            "{:?}",
            closeness.best_reuse
        );
        assert!(closeness.lru_distance < 0.05, "{:?}", closeness.lru);
    }
}

#[test]
fn shuffled_and_waiting_turns_are_told_apart() {
    let shuffled = SynthSpec {
        requests: 3000,
        turn_order: TurnOrder::Shuffled,
        ..SynthSpec::quick()
    };
    let spec = SynthSpec::like(&generate(&shuffled, 1));
    assert_eq!(spec.turn_order, TurnOrder::Shuffled);

    let think_ms = Lengths::Lognormal {
        mean: 20_000.0,
        stddev: 15_000.0,
        max: 100_000,
    };
    let order = TurnOrder::AfterAnswer {
        think_ms,
        answer_ms_per_token: 30.0,
    };
    let given = generate(
        &SynthSpec {
            turn_order: order,
            ..SynthSpec::quick()
        },
        1,
    );
    let spec = SynthSpec::like(&given);
    let TurnOrder::AfterAnswer { think_ms, .. } = &spec.turn_order else {
        panic!("{:?}", spec.turn_order)
    };
    let thoughts = think_ms.sample(1, 4000);
    let mean = thoughts.iter().map(|&ms| f64::from(ms)).sum::<f64>() / 4000.0;
    assert!((mean / 20_000.0 - 1.0).abs() < 0.05, "{mean}");
    let closeness = closeness(&given, &spec, 5);
    assert!(
        closeness.rate_per_s.relative_error() < 0.05,
        "{:?}",
        closeness.rate_per_s
    );
    assert!(
        closeness
            .best_reuse
            .is_some_and(|pair| pair.difference() < 0.02),
        "{:?}",
        closeness.best_reuse
    );
}

#[test]
fn several_system_prompts_are_found_with_their_shares() {
    let mut given = SynthSpec {
        requests: 4000,
        ..SynthSpec::quick()
    };
    given.system_prompts = [(0.5, 1024), (0.3, 4096)]
        .map(|(share, tokens)| traces::synth::SystemPrompts {
            count: 1,
            zipf_exponent: 0.0,
            share,
            tokens: Lengths::Fixed(tokens),
        })
        .into();
    let spec = SynthSpec::like(&generate(&given, 1));
    let found: Vec<&Lengths> = spec
        .system_prompts
        .iter()
        .map(|group| &group.tokens)
        .collect();
    assert_eq!(found, [&Lengths::Fixed(1024), &Lengths::Fixed(4096)]);
    for (group, share) in spec.system_prompts.iter().zip([0.5, 0.3]) {
        assert!((group.share - share).abs() < 0.03, "{}", group.share);
    }
}

#[test]
fn the_fit_is_the_same_every_time() {
    let given = generate(
        &SynthSpec {
            requests: 500,
            ..SynthSpec::quick()
        },
        1,
    );
    assert_eq!(SynthSpec::like(&given), SynthSpec::like(&given));
}

#[test]
fn a_trace_without_contents_gives_lengths_and_arrivals() {
    let mut builder = TraceBuilder::new(512);
    for k in 0..600u64 {
        let (input, output) = (100 + (k * k % 71) as u32, 5 + (k % 3) as u32);
        builder.push(NewRow::alone(
            Time::from_ns(k * 250_000_000),
            input,
            output,
            NewContent::Private,
        ));
    }
    let given = builder.finish();
    let spec = SynthSpec::like(&given);
    let closeness = closeness(&given, &spec, 3);
    assert!(
        closeness.input_tokens.worst_error < 0.03 && closeness.output_tokens.ks_distance < 0.02
    );
    assert!(
        closeness.gap_cv.synth < 0.1,
        "a constant rate stays constant: {:?}",
        closeness.gap_cv
    );
    assert_eq!(closeness.best_reuse, None);
}

#[test]
fn tiny_traces_are_fitted_too() {
    let mut builder = TraceBuilder::new(512);
    builder.push(NewRow::alone(
        Time::from_ns(7),
        3,
        2,
        NewContent::Blocks(&[4]),
    ));
    let one = builder.clone().finish();
    let again = generate(&SynthSpec::like(&one), 1);
    assert_eq!(
        (
            again.rows.len(),
            again.rows[0].input_tokens,
            again.rows[0].output_tokens
        ),
        (1, 3, 2)
    );
    builder.push(NewRow::alone(
        Time::from_ns(7),
        3,
        2,
        NewContent::Blocks(&[4]),
    ));
    let two = generate(&SynthSpec::like(&builder.finish()), 1);
    assert_eq!(two.rows.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever a trace looks like, the fit can be used.
    #[test]
    fn any_trace_can_be_fitted(
        rows in prop::collection::vec((0u64..50, prop::collection::vec(0u64..3, 1..6), 1u32..20), 1..60)
    ) {
        let mut builder = TraceBuilder::new(4);
        for (s, path, output) in &rows {
            // A walk down a narrow tree, so that prompts share prefixes of all lengths.
            let mut id = 0;
            let blocks: Vec<u64> = path.iter().map(|step| { id = id * 4 + step + 1; id }).collect();
            let tokens = 4 * blocks.len() as u32 - output % 4;
            let row = NewRow::alone(Time::from_ns(s * 1_000_000_000), tokens, *output, NewContent::Blocks(&blocks));
            builder.push(row);
        }
        let given = builder.finish();
        let spec = SynthSpec::like(&given);
        prop_assert_eq!(spec.check("fit").map_err(|problems| problems.to_string()), Ok(()));
        prop_assert_eq!(generate(&spec, 1).rows.len(), rows.len());
    }
}

/// A public trace that lies beside the repository, or a note that the test is skipped.
fn public(name: &str) -> Option<Trace> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/traces")
        .join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(
        read(&path, &ReadOptions::default())
            .expect("a public trace is good")
            .trace,
    )
}

#[test]
fn the_conversation_trace_is_described_as_published() {
    let Some(trace) = public("mooncake_conversation_trace.jsonl") else {
        return;
    };
    let description = Description::of(&trace);
    let blocks = description.blocks.expect("contents are known");
    assert_eq!(
        (description.requests, description.input_tokens.mean.round()),
        (12_031, 12_035.0)
    );
    assert_eq!((blocks.references, blocks.unique), (288_500, 182_790));
    assert_eq!(format!("{:.2} %", 100.0 * blocks.best_reuse), "36.64 %");
    assert_eq!(description.arrivals.distinct_times, 1180);
}

#[test]
fn the_conversation_trace_is_met_closely() {
    let Some(given) = public("mooncake_conversation_trace.jsonl") else {
        return;
    };
    let spec = SynthSpec::like(&given);
    assert_eq!(spec.tick_ms, 3000);
    for seed in 1..5 {
        let closeness = closeness(&given, &spec, seed);
        assert!(
            closeness.input_tokens.worst_error < 0.10,
            "{:?}",
            closeness.input_tokens
        );
        assert!(
            closeness.output_tokens.worst_error < 0.10,
            "{:?}",
            closeness.output_tokens
        );
        assert!(closeness.rate_per_s.relative_error() < 0.02);
        assert!(
            closeness
                .best_reuse
                .is_some_and(|pair| pair.difference() < 0.02),
            "{:?}",
            closeness.best_reuse
        );
        assert!(closeness.lru_distance < 0.05, "{:?}", closeness.lru);
        assert!(
            closeness.gap_cv.relative_error() < 0.05,
            "{:?}",
            closeness.gap_cv
        );
    }
}

#[test]
fn the_synthetic_trace_is_met_closely() {
    let Some(given) = public("mooncake_synthetic_trace.jsonl") else {
        return;
    };
    let spec = SynthSpec::like(&given);
    assert_eq!(spec.turn_order, TurnOrder::Shuffled);
    for seed in 1..5 {
        let closeness = closeness(&given, &spec, seed);
        assert!(
            closeness.input_tokens.ks_distance < 0.03,
            "{:?}",
            closeness.input_tokens
        );
        for quantile in &closeness.input_tokens.quantiles {
            let most = match quantile.p {
                // Lengths are rare around the quartile and the median: 25 % of the prompts have up to 277 tokens, 30 %
                // up to 912. And the longest 40 prompts belong to about ten sessions.
                0.25 | 0.5 | 0.99 => 0.25,
                _ => 0.10,
            };
            assert!(quantile.tokens.relative_error() < most, "{quantile:?}");
        }
        assert!(
            closeness.output_tokens.ks_distance < 0.03,
            "{:?}",
            closeness.output_tokens
        );
        assert!(closeness.rate_per_s.relative_error() < 0.02);
        assert!(
            closeness
                .best_reuse
                .is_some_and(|pair| pair.difference() < 0.02),
            "{:?}",
            closeness.best_reuse
        );
        assert!(closeness.lru_distance < 0.05, "{:?}", closeness.lru);
    }
}
