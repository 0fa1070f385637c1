//! What a sample of a router's decisions was worth, in numbers with stable names.

use crate::virtual_clock::{Decision, Sample};
use engine::Span;
use serde::Serialize;

/// A router's decisions against its second choices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Regret {
    /// Decisions asked for.
    pub sampled: u64,
    /// Requests sent so long after a decision count among all that it touches, beside those under way.
    pub horizon_s: f64,
    /// Those with a second choice whose request ended either way; the numbers below are of these.
    pub compared: u64,
    /// Arrival to first token.
    pub ttft_ms: Against,
    /// Arrival to last token.
    pub e2e_ms: Against,
}

/// A latency under the choices that were made, and under the second ones. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Against {
    /// Mean over the decisions, of the request that was placed.
    pub chosen_mean: f64,
    /// The same had it gone to the second choice.
    pub second_mean: f64,
    /// Share of decisions whose second choice would have been better for the request.
    pub second_better_share: f64,
    /// What the second choice would have saved the request, 0 where nothing: its mean.
    pub regret_mean: f64,
    /// The most.
    pub regret_max: f64,
    /// What a decision saved all requests together that it touches, against the second choice: its mean.
    pub saved_all_mean: f64,
    /// Standard error of that mean.
    pub saved_all_error: f64,
}

impl Regret {
    /// The numbers of `decisions`, found for `sample`.
    #[must_use]
    pub fn new(sample: Sample, decisions: &[Decision]) -> Regret {
        let ttft = |decision: &Decision| Pair {
            chosen: decision.chosen.ttft,
            second: decision.second.ttft,
            saved_all_ms: saved_ms(decision.chosen.all_ttft_ps, decision.second.all_ttft_ps),
        };
        let e2e = |decision: &Decision| Pair {
            chosen: decision.chosen.e2e,
            second: decision.second.e2e,
            saved_all_ms: saved_ms(decision.chosen.all_e2e_ps, decision.second.all_e2e_ps),
        };
        Regret {
            sampled: sample.decisions as u64,
            horizon_s: sample.horizon.as_s(),
            compared: decisions.len() as u64,
            ttft_ms: Against::new(decisions.iter().map(ttft)),
            e2e_ms: Against::new(decisions.iter().map(e2e)),
        }
    }
}

struct Pair {
    chosen: Span,
    second: Span,
    saved_all_ms: f64,
}

fn saved_ms(chosen_ps: u128, second_ps: u128) -> f64 {
    (second_ps as f64 - chosen_ps as f64) / 1e9
}

impl Against {
    fn new(pairs: impl Iterator<Item = Pair>) -> Against {
        let pairs: Vec<Pair> = pairs.collect();
        if pairs.is_empty() {
            return Against::default();
        }
        let count = pairs.len() as f64;
        let mean = |of: &dyn Fn(&Pair) -> f64| pairs.iter().map(of).sum::<f64>() / count;
        let regret = |pair: &Pair| pair.chosen.0.saturating_sub(pair.second.0) as f64 / 1e9;
        let saved_all_mean = mean(&|pair| pair.saved_all_ms);
        let squares = mean(&|pair| (pair.saved_all_ms - saved_all_mean).powi(2));
        Against {
            chosen_mean: mean(&|pair| pair.chosen.0 as f64 / 1e9),
            second_mean: mean(&|pair| pair.second.0 as f64 / 1e9),
            second_better_share: mean(&|pair| f64::from(u8::from(pair.second < pair.chosen))),
            regret_mean: mean(&regret),
            regret_max: pairs.iter().map(regret).fold(0.0, f64::max),
            saved_all_mean,
            saved_all_error: (squares / count).sqrt(),
        }
    }
}
