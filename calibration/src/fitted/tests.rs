use super::*;
use crate::log_file::LogFile;
use engine::Chunk;
use proptest::prelude::*;

fn profile() -> FittedProfile {
    let range = |least, most| Range { least, most };
    FittedProfile::new(Parts {
        method: "by hand".to_owned(),
        sources: Vec::new(),
        coefficients: vec![
            (Term::Base, 1_000.0, 1.0),
            (Term::DecodeSequence, 10.0, 1.0),
            (Term::DecodeContextToken, 0.05, 0.01),
            (Term::PrefillToken, 20.0, 1.0),
            (Term::PrefillPair, 0.01, 0.0),
            (Term::TokenBeyond(100), 5.0, 1.0),
        ],
        front_end_us: 0.0,
        domain: Domain {
            decode_batch: range(1, 16),
            decode_context: range(100, 5_000),
            prefill_tokens: range(1, 512),
            prefill_pairs: range(1, 1_000_000),
        },
        held_out: HeldOut::of("step time", "by hand", &[(11.0, 10.0), (8.0, 10.0)]),
        warnings: Vec::new(),
    })
}

#[test]
fn a_step_is_the_sum_of_its_terms() {
    let timing = Fitted::new(&profile());
    let chunks = [Chunk {
        new_tokens: 200,
        cached_tokens: 50,
    }];
    let shape = StepShape {
        prefill: &chunks,
        decode_batch: 4,
        decode_context: 1_000,
    };
    // Pairs 200·50 + 200·201/2 = 30,100; tokens 204, 104 beyond the knee.
    // 1000 + 40 + 50 + 4000 + 301 + 520 = 5911 us.
    assert_eq!(timing.step(&shape), Span::from_ns(5_911_000));
    let decode = StepShape {
        prefill: &[],
        ..shape
    };
    assert_eq!(timing.step(&decode), Span::from_ns(1_090_000));
}

#[test]
fn steps_outside_the_domain_are_marked() {
    let timing = Fitted::new(&profile());
    let is_marked = |decode_batch, decode_context, new_tokens| {
        let chunk = [Chunk {
            new_tokens,
            cached_tokens: 0,
        }];
        timing.is_extrapolated(&StepShape {
            prefill: if new_tokens > 0 { &chunk } else { &[] },
            decode_batch,
            decode_context,
        })
    };
    assert!(!is_marked(1, 100, 0) && !is_marked(16, 5_000, 512) && !is_marked(0, 0, 1));
    assert!(is_marked(1, 99, 0) && is_marked(1, 5_001, 0) && is_marked(17, 500, 0));
    assert!(is_marked(1, 500, 513));
}

#[test]
fn a_profile_survives_its_file() {
    let profile = profile();
    let again = FittedProfile::parse(&LogFile::from_text("p", &profile.to_json())).expect("good");
    assert_eq!(again, profile);
    let statement = &Fitted::new(&again).source().guesses[0];
    assert!(statement.contains("15.0 % mean"), "{statement}");
}

#[test]
fn bad_profiles_are_refused_with_all_their_problems() {
    let good = profile().to_json();
    for (from, to, needle) in [
        ("\"version\": 1", "\"version\": 7", "version: found 7"),
        (
            "dynosim-fitted",
            "something-else",
            "schema: found something-else-timing",
        ),
        (
            "\"us\": 1000.0",
            "\"us\": -1000.0",
            "coefficients.base.us: found -1000",
        ),
        ("prefill_token\"", "prefil_token\"", "found prefil_token"),
        ("decode_sequence\"", "base\"", "found base twice"),
        ("\"least\": 100", "\"least\": 9000", "found 9000 to 5000"),
        ("\"us\": 1000.0", "\"us\": NaN", "a profile of a fit"),
        ("\"method\"", "\"methods\"", "a profile of a fit"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        let error = FittedProfile::parse(&LogFile::from_text("p.json", &bad)).expect_err(to);
        assert!(error.to_string().contains(needle), "{error}");
    }
    let cut = &good[..good.len() / 2];
    assert!(FittedProfile::parse(&LogFile::from_text("p.json", cut)).is_err());
}

proptest! {
    #[test]
    fn pieces_price_as_single_steps_do_and_join(batch in 1u32..40, context in 1u64..9_000, k in 1u64..200) {
        let timing = Fitted::new(&profile());
        for context in context..context + k {
            let piece = timing.decode(batch, context);
            prop_assert!(piece.from <= context && context < piece.until);
            let shape = StepShape { prefill: &[], decode_batch: batch, decode_context: context };
            let work = Work::of(&shape);
            let us = step_us(&profile().formula(), &work);
            prop_assert_eq!(piece.time(context), Span((us * 1e6).round() as u64));
            let marked = |context| timing.is_extrapolated(&StepShape { decode_context: context, ..shape });
            prop_assert_eq!(marked(piece.from.max(1)), marked(context), "one mark a piece");
        }
    }
}
