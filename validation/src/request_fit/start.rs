//! Where the parameters start: orders of magnitude that a log shows at a glance.
//!
//! A usual token (median TPOT) is a step: half of it is given to reading the weights (the base), a quarter each to the
//! sequences of the batch and to their context, by their mean number (Little's law); that is what the published rooflines
//! of dense models come to at the batches that people run. The fastest prompts (5th percentile of TTFT per prompt token)
//! say what a prompt token costs at most. Attention of a token to another is a ten-thousandth of what a token costs in
//! the projections: 4 L h operations against 24 L h² at h = 4,096 wide, less efficient by half.

use super::Question;
use calibration::fitted::Term;

/// Microseconds by term, then of the front end where the log's times include one.
pub(super) fn values(question: &Question<'_>) -> Vec<f64> {
    let requests = &question.log.requests[..question.fitted_count()];
    let tpots = sorted(requests.iter().filter_map(|one| one.outcome.tpot_ms()));
    let token_us = 1e3 * at(&tpots, 0.5).unwrap_or(20.0);
    let per_token = |one: &crate::request_log::LoggedRequest| {
        one.outcome.ttft.as_ms() / f64::from(one.input_tokens)
    };
    let prompt_us = 1e3 * at(&sorted(requests.iter().map(per_token)), 0.05).unwrap_or(0.1);
    let count = requests.len() as f64;
    let mean = |of: &dyn Fn(&crate::request_log::LoggedRequest) -> f64| {
        requests.iter().map(of).sum::<f64>() / count
    };
    let mean_input = mean(&|one| f64::from(one.input_tokens));
    let context = mean_input + mean(&|one| f64::from(one.outcome.output_tokens)) / 2.0;
    let decoding_s = count * mean(&|one| one.outcome.e2e.as_s() - one.outcome.ttft.as_s());
    let ends = requests
        .iter()
        .map(|one| one.counted_from.as_s() + one.outcome.e2e.as_s());
    let beside = (decoding_s / ends.fold(1e-3, f64::max)).max(1.0);
    let value = |term: &Term| match term {
        Term::Base | Term::HostStep => 0.5 * token_us,
        Term::PrefillStep => 0.1 * token_us,
        Term::DecodeSequence | Term::SequenceBeyond(_) | Term::HostSequence => {
            0.25 * token_us / beside
        }
        Term::DecodeContextToken => 0.25 * token_us / (beside * context),
        Term::PrefillToken | Term::TokenBeyond(_) => prompt_us,
        Term::PrefillPair => 1e-4 * prompt_us,
    };
    let front_end = question
        .has_front_end()
        .then(|| 0.1 * 1e3 * fastest_ttft_ms(question));
    let terms = question.terms.iter().map(value);
    terms.chain(front_end).map(|us| us.max(1e-6)).collect()
}

fn fastest_ttft_ms(question: &Question<'_>) -> f64 {
    let ttfts = question
        .log
        .requests
        .iter()
        .map(|one| one.outcome.ttft.as_ms());
    ttfts.fold(f64::INFINITY, f64::min)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn at(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[(last as f64 * share).round() as usize])
}
