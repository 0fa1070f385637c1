//! Closed forms, and runs that may not fall below.

use super::*;
use calibration::Linear;
use engine::{NewRequest, Run, Time, WorkloadBuilder};

/// Content of the prompt, its length, and output tokens.
fn workload(asked: &[(u32, u32, u32)]) -> Workload {
    let mut builder = WorkloadBuilder::new();
    for (index, &(content, len, output_tokens)) in asked.iter().enumerate() {
        builder.push(NewRequest {
            arrival: Time::ZERO,
            prompt: &[Run {
                first: WorkloadBuilder::block_token(content, 0),
                len,
            }],
            output_tokens,
            priority: 0,
            session: index as u32,
            dependencies: &[],
        });
    }
    builder.finish()
}

fn least(timing: Linear, budget: u32, seats: u32, workload: &Workload, demand: Demand) -> f64 {
    let steps = Steps {
        timing: &timing,
        demand,
        budget,
        seats,
        limits: &Limits::of(workload),
    };
    steps.least_seconds()
}

fn near(found: f64, expected: f64) {
    let error = (found / expected - 1.0).abs();
    assert!(error < 2e-3, "{found}, not {expected}");
}

#[test]
fn steps_of_a_constant_are_as_few_as_their_size_allows() {
    let workload = workload(&[(1, 1_000, 101)]);
    let constant = Linear::from_ns(1_000_000, 0, 0);
    // 10 ms for 10 steps of 512 tokens; 100 ms where decoding takes 100 steps of 8.
    let of = |demand| least(constant, 512, 8, &workload, demand);
    near(of([5_120.0, 1.0, 0.0, 0.0]), 0.010);
    near(of([5_120.0, 1.0, 800.0, 1.0]), 0.100);
    // Both at once: what decodes less than the prompts take is covered on the way.
    near(of([5_120.0, 1.0, 40.0, 1.0]), 0.010);
}

#[test]
fn what_is_paid_by_the_token_is_paid_in_any_batch() {
    let workload = workload(&[(1, 1_000, 101)]);
    // 1 ms a step, 10 us a new token, 1 ns a token of context.
    let linear = Linear::from_ns(1_000_000, 10_000, 1);
    // 80 generated tokens in 10 full batches over a context of 500 each: 10 ms, 80 times 10 us, 80 times 500 ns.
    let decode = 80.0;
    let expected = 0.010 + decode * (10e-6 + 500e-9);
    near(
        least(
            linear,
            512,
            8,
            &workload,
            [0.0, 0.0, decode, decode * 500.0],
        ),
        expected,
    );
    // 5,120 prompt tokens in 10 full steps beside them.
    let both = [5_120.0, 1.0, decode, decode * 500.0];
    let found = least(linear, 512, 8, &workload, both);
    // Each chunk has its own tokens as context.
    near(found, expected + 5_120.0 * (10e-6 + 1e-9));
}

#[test]
fn what_prompts_share_is_computed_once_and_what_answers_bring_not_at_all() {
    // Two prompts begin alike for 600 tokens; a third is all of the first.
    let shared = workload(&[(1, 600, 5), (1, 1_000, 3), (1, 600, 1)]);
    let ([tokens, pairs, generated, context], left_out) = demand(u64::MAX, &shared);
    assert_eq!(left_out, 0);
    assert_eq!(tokens, 1_000.0);
    assert_eq!(pairs, 1_000.0 * 1_000.0 / 2.0);
    assert_eq!(generated, 4.0 + 2.0);
    // 601 to 604, 1,001 and 1,002.
    assert_eq!(context, 2_410.0 + 2_003.0);
    // What does not fit may be refused.
    let (demand, left_out) = demand(700, &shared);
    assert_eq!((demand[0], left_out), (600.0, 1));
}
