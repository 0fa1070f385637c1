//! Made-up workloads: arithmetic by hand where everything is fixed, statistics where it is drawn.

use engine::{Span, Time, Trigger};
use traces::synth::{Draws, FollowUp, SessionKind, SynthSpec, SystemPrompts, TurnOrder};
use traces::{Arrivals, Description, Lengths, Process, Quantiles, Rate, Trace};

/// One session after the other in blocks of 4 tokens: a system prompt of 10, a first text of 5, answers of 3, three
/// turns, one request per second, everything fixed.
fn fixed(follow_up: FollowUp) -> SynthSpec {
    SynthSpec {
        requests: 3,
        duration_s: None,
        arrivals: Arrivals {
            process: Process::Constant,
            rate: Rate::Constant { per_s: 1.0 },
        },
        tick_ms: 0,
        block_size: 4,
        system_prompts: vec![SystemPrompts {
            count: 1,
            zipf_exponent: 0.0,
            share: 1.0,
            tokens: Lengths::Fixed(10),
        }],
        sessions: vec![SessionKind {
            weight: 1.0,
            first_input_tokens: Lengths::Fixed(5),
            output_tokens: Lengths::Fixed(3),
            turns: Lengths::Fixed(3),
            follow_ups: vec![follow_up],
        }],
        turn_order: TurnOrder::Timed {
            think_ms: Lengths::Fixed(1),
            answer_ms_per_token: 100.0,
        },
        draws: Draws::Independent,
        max_input_tokens: 1000,
    }
}

fn append(tokens: u32) -> FollowUp {
    FollowUp::Append {
        weight: 1.0,
        user_tokens: Lengths::Fixed(tokens),
    }
}

/// Prompt length and blocks of every row.
fn prompts(trace: &Trace) -> Vec<(u32, Vec<u32>)> {
    trace
        .rows
        .iter()
        .map(|row| (row.input_tokens, trace.blocks(row).to_vec()))
        .collect()
}

fn generate(spec: &SynthSpec, seed: u64) -> Trace {
    spec.generate(seed)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn an_appending_turn_holds_the_turn_before_and_its_answer() {
    // 10 + 5 = 15 tokens: blocks 0 and 1 are the system prompt's, 2 (half system prompt) and 3 (3 tokens) the session's.
    // 15 + 3 + 2 = 20 tokens keep 15 / 4 = 3 blocks; 20 + 3 + 2 = 25 keep 5 and begin two.
    let trace = generate(&fixed(append(2)), 9);
    assert_eq!(
        prompts(&trace),
        [
            (15, vec![0, 1, 2, 3]),
            (20, vec![0, 1, 2, 4, 5]),
            (25, vec![0, 1, 2, 4, 5, 6, 7])
        ]
    );
    // Answers of 300 ms and a thought of 1 ms are shorter than a second: every arrival finds a turn due.
    let at_s: Vec<f64> = trace.rows.iter().map(|row| row.arrival.as_s()).collect();
    assert_eq!(at_s, [0.0, 1.0, 2.0]);
}

#[test]
fn a_repeated_turn_is_the_same_and_a_revised_one_keeps_a_share() {
    let trace = generate(&fixed(FollowUp::Repeat { weight: 1.0 }), 9);
    assert_eq!(prompts(&trace), vec![(15, vec![0, 1, 2, 3]); 3]);
    // Of 4 blocks 3 are kept and 6 tokens follow: 18 tokens in 5 blocks; of those 5 · 0.75 = 3.75, rounded 4: 22 tokens.
    let revise = |share, tokens| FollowUp::Revise {
        weight: 1.0,
        kept_share: Quantiles::constant(share),
        user_tokens: Lengths::Fixed(tokens),
    };
    let trace = generate(&fixed(revise(0.75, 6)), 9);
    assert_eq!(
        prompts(&trace),
        [
            (15, vec![0, 1, 2, 3]),
            (18, vec![0, 1, 2, 4, 5]),
            (22, vec![0, 1, 2, 4, 6, 7])
        ]
    );
    // The system prompt stays whatever the share.
    let trace = generate(&fixed(revise(0.0, 1)), 9);
    assert_eq!(prompts(&trace)[1], (9, vec![0, 1, 4]));
}

#[test]
fn a_session_ends_before_it_outgrows_the_longest_prompt() {
    let spec = SynthSpec {
        max_input_tokens: 24,
        requests: 4,
        ..fixed(append(2))
    };
    let lengths: Vec<u32> = generate(&spec, 1)
        .rows
        .iter()
        .map(|row| row.input_tokens)
        .collect();
    assert_eq!(lengths, [15, 20, 15, 20], "25 tokens would be too many");
}

#[test]
fn turns_wait_for_answers_where_they_should() {
    let think_ms = Lengths::Fixed(400);
    let spec = SynthSpec {
        turn_order: TurnOrder::AfterAnswer {
            think_ms,
            answer_ms_per_token: 100.0,
        },
        ..fixed(append(2))
    };
    let trace = generate(&spec, 1);
    assert_eq!(trace.sessions, 1);
    // Without answers, which is the earliest: 0, 0.4 and 0.8 s.
    let at_ms: Vec<f64> = trace.rows.iter().map(|row| row.arrival.as_ms()).collect();
    assert_eq!(at_ms, [0.0, 400.0, 800.0]);
    for (index, row) in trace.rows.iter().enumerate().skip(1) {
        let [dependency] = trace.dependencies_of(row) else {
            panic!("one dependency")
        };
        assert_eq!(dependency.on.0 as usize, index - 1);
        assert_eq!(
            (dependency.trigger, dependency.delay),
            (Trigger::Completion, Span::from_ns(400_000_000))
        );
    }
}

#[test]
fn a_turn_that_is_not_due_leaves_its_place_to_a_new_session() {
    // Answers take 3 · 500 ms: due after 1.501 s, so that of requests at 0, 1, 2, 3 s the third is the first session's
    // second turn and the fourth the second session's.
    let spec = SynthSpec {
        requests: 4,
        turn_order: TurnOrder::Timed {
            think_ms: Lengths::Fixed(1),
            answer_ms_per_token: 500.0,
        },
        ..fixed(append(2))
    };
    let lengths: Vec<u32> = generate(&spec, 1)
        .rows
        .iter()
        .map(|row| row.input_tokens)
        .collect();
    assert_eq!(lengths, [15, 15, 20, 20]);
}

#[test]
fn independent_requests_share_nothing() {
    let output = Lengths::Uniform { min: 1, max: 9 };
    let spec = SynthSpec::independent(400, Arrivals::poisson(2.0), Lengths::Fixed(700), output);
    let description = Description::of(&generate(&spec, 1));
    assert_eq!(
        (
            description.requests,
            description.sessions,
            description.waiting_requests
        ),
        (400, 400, 0)
    );
    assert_eq!(
        (description.input_tokens.min, description.input_tokens.max),
        (700, 700)
    );
    assert_eq!(best_reuse(&description), 0.0);
    // 399 gaps of 1/2 s on average: 199.5 s, with a standard deviation of 10 s.
    assert!(
        (description.duration_s - 199.5).abs() < 40.0,
        "{}",
        description.duration_s
    );
}

#[test]
fn ticks_round_times_down() {
    let spec = SynthSpec {
        requests: 7,
        tick_ms: 3000,
        ..fixed(append(2))
    };
    let at_s: Vec<f64> = generate(&spec, 1)
        .rows
        .iter()
        .map(|row| row.arrival.as_s())
        .collect();
    assert_eq!(at_s, [0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 6.0]);
}

#[test]
fn shuffled_sessions_all_come_to_their_end() {
    let spec = SynthSpec {
        requests: 3000,
        turn_order: TurnOrder::Shuffled,
        ..fixed(append(2))
    };
    let trace = generate(&spec, 5);
    // 1,000 sessions of three turns, told apart by their first own block.
    let turns = |tokens| {
        trace
            .rows
            .iter()
            .filter(|row| row.input_tokens == tokens)
            .count()
    };
    assert_eq!((turns(15), turns(20), turns(25)), (1000, 1000, 1000));
    let new_in = |rows: &[traces::Row]| rows.iter().filter(|row| row.input_tokens == 15).count();
    // While hardly any session has ended, each is still untouched after n arrivals with probability e^(-n / 1000): 451
    // of 1,000 have begun after 600. At the end hardly any is left to begin.
    let (first, last) = (new_in(&trace.rows[..600]), new_in(&trace.rows[2400..]));
    assert!((410..490).contains(&first) && last < 45, "{first} {last}");
}

#[test]
fn popular_system_prompts_follow_zipfs_law() {
    let group = SystemPrompts {
        count: 3,
        zipf_exponent: 1.0,
        share: 0.75,
        tokens: Lengths::Fixed(8),
    };
    let mut spec = SynthSpec {
        requests: 11_000,
        system_prompts: vec![group],
        ..fixed(append(2))
    };
    spec.sessions[0].turns = Lengths::Fixed(1);
    let trace = generate(&spec, 2);
    let mut sessions = std::collections::BTreeMap::new();
    for row in trace.rows.iter().filter(|row| row.input_tokens == 13) {
        *sessions.entry(trace.blocks(row)[0]).or_insert(0u32) += 1;
    }
    let mut counts: Vec<u32> = sessions.into_values().collect();
    counts.sort_unstable();
    // 8,250 ± 45 sessions with a prompt in proportion 1 : 1/2 : 1/3, that is 6 : 3 : 2 of 11: 1,500, 2,250, 4,500.
    for (count, expected) in counts.iter().zip([1500.0, 2250.0, 4500.0]) {
        assert!((f64::from(*count) - expected).abs() < 200.0, "{counts:?}");
    }
    assert_eq!(counts.len(), 3);
}

#[test]
fn the_same_seed_gives_the_same_workload_and_another_one_another() {
    let spec = SynthSpec {
        requests: 500,
        ..SynthSpec::quick()
    };
    assert_eq!(generate(&spec, 3), generate(&spec, 3));
    assert_ne!(generate(&spec, 3), generate(&spec, 4));
}

#[test]
fn more_requests_only_add_to_the_end() {
    let short = SynthSpec {
        requests: 200,
        duration_s: None,
        ..SynthSpec::quick()
    };
    let long = SynthSpec {
        requests: 500,
        ..short.clone()
    };
    let (short, long) = (generate(&short, 3), generate(&long, 3));
    assert_eq!(short.rows, long.rows[..200]);
    assert_eq!(short.block_list, long.block_list[..short.block_list.len()]);
}

#[test]
fn other_answers_shift_no_other_draw() {
    let mut spec = SynthSpec {
        requests: 300,
        ..SynthSpec::quick()
    };
    spec.sessions[0].turns = Lengths::Fixed(1);
    let before = generate(&spec, 3);
    spec.sessions[0].output_tokens = Lengths::Uniform { min: 1, max: 9 };
    let after = generate(&spec, 3);
    let rest = |trace: &Trace| {
        trace
            .rows
            .iter()
            .map(|row| (row.arrival, row.input_tokens))
            .collect::<Vec<_>>()
    };
    assert_eq!(rest(&before), rest(&after));
    assert_ne!(before.rows, after.rows);
}

/// Mean of a number over a few seeds, and its standard deviation.
fn over_seeds(spec: &SynthSpec, number: impl Fn(&Description) -> f64) -> (f64, f64) {
    let numbers: Vec<f64> = (0..6)
        .map(|seed| number(&Description::of(&generate(spec, seed))))
        .collect();
    let mean = numbers.iter().sum::<f64>() / 6.0;
    let variance = numbers
        .iter()
        .map(|number| (number - mean).powi(2))
        .sum::<f64>()
        / 5.0;
    (mean, variance.sqrt())
}

fn best_reuse(description: &Description) -> f64 {
    description
        .blocks
        .as_ref()
        .expect("contents are known")
        .best_reuse
}

#[test]
fn the_conversation_preset_resembles_the_trace_it_is_named_after() {
    let spec = SynthSpec::conversation();
    let description = Description::of(&generate(&spec, 0));
    assert_eq!(description.requests, 12_031);
    assert!((description.duration_s - 3537.0).abs() <= 3.0);
    // Of the trace: mean prompt 12,035, mean answer 343, best reuse 36.6 %, 10 requests per tick of 3 s.
    let (input, _) = over_seeds(&spec, |d| d.input_tokens.mean);
    let (output, _) = over_seeds(&spec, |d| d.output_tokens.mean);
    let (reuse, _) = over_seeds(&spec, best_reuse);
    assert!((input / 12_035.0 - 1.0).abs() < 0.03, "{input}");
    assert!((output / 343.0 - 1.0).abs() < 0.03, "{output}");
    assert!((reuse - 0.366).abs() < 0.01, "{reuse}");
    assert_eq!(description.arrivals.distinct_times, 1180);
}

#[test]
fn the_quick_preset_is_alike_but_short() {
    let spec = SynthSpec::quick();
    assert_eq!(generate(&spec, 0).rows.len(), 2000);
    let (input, _) = over_seeds(&spec, |d| d.input_tokens.mean);
    let (reuse, _) = over_seeds(&spec, best_reuse);
    assert!((input / 12_035.0 - 1.0).abs() < 0.05, "{input}");
    assert!((reuse - 0.366).abs() < 0.02, "{reuse}");
}

#[test]
fn reuse_can_be_chosen_without_changing_the_mean_prompt() {
    let quick = SynthSpec::quick();
    let (input, _) = over_seeds(&quick, |d| d.input_tokens.mean);
    for reuse in [0.1, 0.25, 0.5] {
        let spec = quick
            .with_reuse(reuse)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let (reached, _) = over_seeds(&spec, best_reuse);
        assert!((reached - reuse).abs() < 0.03, "{reached} for {reuse}");
        let (mean, _) = over_seeds(&spec, |d| d.input_tokens.mean);
        assert!((mean / input - 1.0).abs() < 0.08, "{mean} for {input}");
    }
    // Ten minutes are too short for that, and a system prompt alone is more than this.
    for reuse in [0.97, 0.001, -1.0, f64::NAN] {
        let problems = quick.with_reuse(reuse).expect_err("out of reach");
        assert_eq!(problems.total(), 1, "{problems}");
    }
}

#[test]
fn even_draws_scatter_less_from_seed_to_seed() {
    let mut spec = SynthSpec {
        requests: 1000,
        ..SynthSpec::quick()
    };
    spec.sessions[0].first_input_tokens =
        Lengths::of_sample(spec.sessions[0].first_input_tokens.sample(1, 2000));
    let (mean, scatter) = over_seeds(&spec, |d| d.input_tokens.mean);
    let (even_mean, even_scatter) = over_seeds(
        &SynthSpec {
            draws: Draws::Even,
            ..spec.clone()
        },
        |d| d.input_tokens.mean,
    );
    assert!((even_mean / mean - 1.0).abs() < 0.05, "{even_mean} {mean}");
    assert!(even_scatter < scatter / 1.5, "{even_scatter} {scatter}");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let mut spec = fixed(append(2));
    spec.requests = 0;
    spec.arrivals.rate = Rate::Constant { per_s: 0.0 };
    spec.system_prompts[0].share = 1.5;
    spec.sessions[0].output_tokens = Lengths::Fixed(0);
    spec.sessions[0].follow_ups = Vec::new();
    spec.sessions.push(SessionKind {
        weight: -1.0,
        ..spec.sessions[0].clone()
    });
    let problems = spec.check("scenario.yaml").expect_err("many faults");
    let fields: Vec<&str> = problems
        .shown()
        .iter()
        .map(|problem| &*problem.field)
        .collect();
    assert_eq!(
        fields,
        [
            "requests",
            "arrivals.rate",
            "system_prompts[0].share",
            "system_prompts",
            "sessions",
            "sessions[0].output_tokens",
            "sessions[0].follow_ups",
            "sessions[1].weight",
            "sessions[1].output_tokens",
            "sessions[1].follow_ups"
        ]
    );
    assert!(
        problems
            .to_string()
            .starts_with("scenario.yaml: requests: found 0, expected 1 to 2^28"),
        "{problems}"
    );
    assert!(spec.generate(0).is_err());
}

#[test]
fn a_rate_that_would_take_years_is_refused() {
    // 3 requests at one in ten million seconds: 347 days.
    let mut spec = fixed(append(2));
    spec.arrivals.rate = Rate::Constant { per_s: 1e-7 };
    let problems = spec.check("synth").expect_err("too slow");
    assert!(
        problems
            .to_string()
            .contains("arrivals.rate: found a rate at which 3 requests take 30000000 s"),
        "{problems}"
    );
}

#[test]
fn a_file_names_only_what_differs_from_the_conversation_preset() {
    let spec: SynthSpec =
        serde_json::from_str(r#"{"requests": 50, "duration_s": 20.0}"#).expect("good parameters");
    assert_eq!(
        spec,
        SynthSpec {
            requests: 50,
            duration_s: Some(20.0),
            ..SynthSpec::conversation()
        }
    );
    assert!(
        serde_json::from_str::<SynthSpec>(r#"{"request": 50}"#).is_err(),
        "a typing error is not ignored"
    );
    let trace = generate(&spec, 0);
    assert!(
        trace
            .rows
            .last()
            .is_some_and(|row| row.arrival <= Time::from_ns(20_000_000_000))
    );
}
