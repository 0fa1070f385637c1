use super::*;
use rand::RngExt;
use rand_pcg::Pcg64;

/// Steps of a machine whose law is known, with relative noise of up to `noise` and one step in twenty three times as slow.
fn log(noise: f64, law: impl Fn(&Work) -> f64) -> StepLog {
    let mut random = Pcg64::new(7, 1);
    let observation = |line: usize| {
        let mut work = Work::default();
        for _ in 0..random.random_range(0..16u32) {
            work.add_decode(random.random_range(10..3_000));
        }
        if line.is_multiple_of(3) || work.decode_batch == 0 {
            work.add_chunk(random.random_range(1..512), random.random_range(0..2_000));
        }
        let slow = if random.random_range(0..20u32) == 0 {
            3.0
        } else {
            1.0
        };
        let seconds = law(&work) * (1.0 + noise * random.random_range(-1.0..1.0)) * slow;
        Observation {
            line,
            work,
            seconds,
            host_seconds: None,
        }
    };
    StepLog {
        file: "made.jsonl".to_owned(),
        digest: "0".to_owned(),
        form: "vllm",
        observations: (1..=2_000).map(observation).collect(),
        between_steps: 0.0,
        idle: 0,
    }
}

fn plain(work: &Work) -> f64 {
    0.030
        + 3e-4 * f64::from(work.decode_batch)
        + 1.6e-6 * work.decode_context as f64
        + 3e-4 * work.prefill_tokens as f64
        + 2e-7 * work.prefill_pairs
}

#[test]
fn a_known_law_is_found_through_noise_and_outliers() {
    let fit = fit(&[log(0.1, plain)]).expect("a fit");
    let formula = fit.profile.formula();
    for (term, expected) in [
        (Term::Base, 30_000.0),
        (Term::DecodeContextToken, 1.6),
        (Term::PrefillToken, 300.0),
        (Term::PrefillPair, 0.2),
    ] {
        let us = formula
            .iter()
            .find(|(other, _)| *other == term)
            .expect("plain")
            .1;
        assert!(
            (us / expected - 1.0).abs() < 0.1,
            "{term}: {us} for {expected}"
        );
    }
    assert!(
        fit.profile.held_out.median_error < 0.07,
        "{:?}",
        fit.profile.held_out
    );
    assert_eq!(fit.profile.held_out.rows, 400);
    assert!(
        fit.trials.iter().skip(1).all(|trial| !trial.is_kept),
        "{:?}",
        fit.trials
    );
}

#[test]
fn a_bend_is_added_where_there_is_one() {
    let bent = |work: &Work| 0.030 + 3e-4 * work.new_tokens().saturating_sub(128) as f64;
    let fit = fit(&[log(0.02, bent)]).expect("a fit");
    assert!(
        fit.profile
            .formula()
            .iter()
            .any(|(term, us)| *term == Term::TokenBeyond(128) && *us > 200.0),
        "{:?}",
        fit.profile.coefficients
    );
    assert!(fit.profile.held_out.median_error < 0.03);
}

#[test]
fn what_a_log_cannot_tell_is_said() {
    // Every decode has the same context: sequences and context are one and the same.
    let mut alike = log(0.05, plain);
    for observation in &mut alike.observations {
        let work = &mut observation.work;
        work.decode_context = 500 * u64::from(work.decode_batch);
        observation.seconds = plain(work);
    }
    let fit = fit(&[alike]).expect("a fit");
    let warnings = &fit.profile.warnings;
    assert!(
        warnings.iter().any(|text| text.starts_with("decode_")),
        "{warnings:?}"
    );
}

#[test]
fn the_same_logs_give_the_same_bytes() {
    let json = || fit(&[log(0.1, plain)]).expect("a fit").profile.to_json();
    assert_eq!(json(), json());
}

#[test]
fn too_few_steps_are_refused() {
    let mut short = log(0.1, plain);
    short.observations.truncate(49);
    let error = fit(&[short]).expect_err("49 steps").to_string();
    assert!(
        error.contains("found 49 steps, expected at least 50"),
        "{error}"
    );
}

/// 40 us a step and 5 us a sequence between steps, with noise and outliers: found beside the same law of the device, which
/// it does not disturb. Too few steps that tell it are told from none.
#[test]
fn the_hosts_time_is_fitted_on_its_own() {
    let mut log = log(0.05, plain);
    let without = fit(std::slice::from_ref(&log)).expect("a fit");
    assert_eq!(without.host, None);
    for one in log.observations.iter_mut().take(49) {
        one.host_seconds = Some(1e-3);
    }
    assert_eq!(fit(std::slice::from_ref(&log)).expect("a fit").host, None);
    for (at, one) in log.observations.iter_mut().enumerate() {
        let rows = f64::from(one.work.decode_batch + one.work.prefill_chunks);
        let noise = 1.0 + 0.1 * ((at % 7) as f64 - 3.0) / 3.0;
        let slow = if at.is_multiple_of(23) { 10.0 } else { 1.0 };
        one.host_seconds = Some((40e-6 + 5e-6 * rows) * noise * slow);
    }
    let fit = fit(&[log]).expect("a fit");
    let formula = fit.profile.formula();
    let us = |term| {
        let found = formula.iter().find(|(other, _)| *other == term);
        found.expect("there").1
    };
    assert!((us(Term::HostStep) - 40.0).abs() < 4.0, "{formula:?}");
    assert!((us(Term::HostSequence) - 5.0).abs() < 0.5, "{formula:?}");
    for (term, before) in without.profile.formula() {
        assert_eq!(us(term), before, "{term}");
    }
    let host = fit.host.expect("told");
    assert_eq!((host.steps, host.held_out.rows), (2_000, 400));
    assert!(
        host.held_out.median_error < 0.1 && host.mean_us > host.median_us,
        "{host:?}"
    );
}
