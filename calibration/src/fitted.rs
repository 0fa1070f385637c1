//! Step times fitted to somebody's own logs.
//!
//! A step costs the sum of a few terms, each a coefficient that is not negative times a number of the step ([`Term`]):
//!
//! ```text
//! step = base + prefill_step·[P > 0] + decode_sequence·B + decode_context_token·C + prefill_token·P + prefill_pair·A
//!      + Σ token_beyond_k·max(0, P + B − k) + Σ sequence_beyond_k·max(0, B − k)
//!      + host_step + host_sequence·(B + n)
//! ```
//!
//! with P prefill tokens in n chunks, A attended pairs, B decoding sequences, C their summed context
//! ([`crate::work::Work`]); the last line is the host's time between steps, where the log tells it apart. For a
//! fixed batch that is a line in C, so a batch is one piece within what the fit has seen and one beyond, and coasting is
//! exact; the slope is rounded to whole picoseconds per token.
//!
//! A [`FittedProfile`] is the file that a fit leaves: form, coefficients with their uncertainty, the domain it has seen,
//! its error on held-out data and the digests of the logs. Steps outside the domain are priced by the same form and marked
//! extrapolated.

mod profile;

pub use profile::{Coefficient, Domain, FittedProfile, HeldOut, Parts, ProfileSource, Range};

use crate::work::Work;
use engine::{Basis, Piece, Span, StepShape, StepTime, TimingSource};
use std::fmt;
use std::str::FromStr;

const PS_PER_US: f64 = 1e6;

/// A number of a step that its time may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// 1.
    Base,
    /// 1 if the step holds a chunk of a prompt.
    PrefillStep,
    /// Sequences that decode.
    DecodeSequence,
    /// Their summed context.
    DecodeContextToken,
    /// Tokens of prompts.
    PrefillToken,
    /// Pairs of a prompt token and one it attends to.
    PrefillPair,
    /// Tokens computed beyond so many: below, the weights are read in the time that the arithmetic takes anyway.
    TokenBeyond(u32),
    /// Decoding sequences beyond so many.
    SequenceBeyond(u32),
    /// 1: what the host takes for each step while the device waits.
    HostStep,
    /// Sequences of the step, decoding or not: what the host takes for each.
    HostSequence,
}

impl Term {
    /// The number of a step.
    #[must_use]
    pub fn of(self, work: &Work) -> f64 {
        let beyond = |count: u64, knee: u32| count.saturating_sub(u64::from(knee)) as f64;
        match self {
            Term::Base | Term::HostStep => 1.0,
            Term::HostSequence => f64::from(work.decode_batch + work.prefill_chunks),
            Term::PrefillStep => f64::from(u8::from(work.prefill_tokens > 0)),
            Term::DecodeSequence => f64::from(work.decode_batch),
            Term::DecodeContextToken => work.decode_context as f64,
            Term::PrefillToken => work.prefill_tokens as f64,
            Term::PrefillPair => work.prefill_pairs,
            Term::TokenBeyond(knee) => beyond(work.new_tokens(), knee),
            Term::SequenceBeyond(knee) => beyond(u64::from(work.decode_batch), knee),
        }
    }
}

const PLAIN: [(&str, Term); 8] = [
    ("base", Term::Base),
    ("prefill_step", Term::PrefillStep),
    ("decode_sequence", Term::DecodeSequence),
    ("decode_context_token", Term::DecodeContextToken),
    ("prefill_token", Term::PrefillToken),
    ("prefill_pair", Term::PrefillPair),
    ("host_step", Term::HostStep),
    ("host_sequence", Term::HostSequence),
];

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::TokenBeyond(knee) => write!(f, "token_beyond_{knee}"),
            Term::SequenceBeyond(knee) => write!(f, "sequence_beyond_{knee}"),
            plain => {
                let named = PLAIN.iter().find(|(_, term)| term == plain);
                f.pad(named.expect("every plain term has a name").0)
            }
        }
    }
}

impl FromStr for Term {
    type Err = String;

    fn from_str(text: &str) -> Result<Term, String> {
        if let Some((_, term)) = PLAIN.iter().find(|(name, _)| *name == text) {
            return Ok(*term);
        }
        let knee = |prefix| text.strip_prefix(prefix)?.parse::<u32>().ok();
        knee("token_beyond_")
            .map(Term::TokenBeyond)
            .or_else(|| knee("sequence_beyond_").map(Term::SequenceBeyond))
            .ok_or_else(|| {
                let names: Vec<&str> = PLAIN.iter().map(|(name, _)| *name).collect();
                format!("{}, token_beyond_N or sequence_beyond_N", names.join(", "))
            })
    }
}

/// Terms with their coefficients in microseconds.
pub type Formula = [(Term, f64)];

/// The time of a step by a formula, in microseconds.
#[must_use]
pub fn step_us(formula: &Formula, work: &Work) -> f64 {
    formula.iter().map(|(term, us)| us * term.of(work)).sum()
}

/// A fitted formula as a timing model.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// All terms but that of the context.
    flat: Vec<(Term, f64)>,
    slope_ps: u64,
    domain: Domain,
    source: TimingSource,
}

impl Fitted {
    /// The timing model of a checked profile.
    #[must_use]
    pub fn new(profile: &FittedProfile) -> Fitted {
        Fitted {
            source: source(profile),
            ..Fitted::of_formula(&profile.formula(), profile.domain)
        }
    }

    /// The timing model of a formula on its way to be fitted.
    #[must_use]
    pub fn of_formula(formula: &Formula, domain: Domain) -> Fitted {
        let is_slope = |term: &Term| *term == Term::DecodeContextToken;
        let slope_us: f64 = formula
            .iter()
            .filter(|(term, _)| is_slope(term))
            .map(|(_, us)| us)
            .sum();
        Fitted {
            flat: formula
                .iter()
                .filter(|(term, _)| !is_slope(term))
                .copied()
                .collect(),
            slope_ps: (slope_us * PS_PER_US).round() as u64,
            domain,
            source: TimingSource {
                name: "fitted".to_owned(),
                basis: Basis::Fitted,
                detail: String::new(),
                guesses: Vec::new(),
            },
        }
    }

    /// Everything but the context, at least a picosecond.
    fn flat_ps(&self, work: &Work) -> u64 {
        ((step_us(&self.flat, work) * PS_PER_US).round() as u64).max(1)
    }
}

impl StepTime for Fitted {
    #[inline]
    fn decode(&self, batch: u32, context: u64) -> Piece {
        let work = Work {
            decode_batch: batch,
            ..Work::default()
        };
        let Range { least, most } = self.domain.decode_context;
        let (from, until) = if context < least {
            (0, least)
        } else if context <= most {
            (least, most + 1)
        } else {
            (most + 1, u64::MAX)
        };
        Piece {
            from,
            until,
            at: Span(self.flat_ps(&work) + self.slope_ps * from),
            slope_ps: self.slope_ps as i64,
        }
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        let work = Work::of(shape);
        Span(self.flat_ps(&work) + self.slope_ps * work.decode_context)
    }

    fn is_extrapolated(&self, shape: &StepShape<'_>) -> bool {
        !self.domain.covers(&Work::of(shape))
    }

    fn source(&self) -> TimingSource {
        self.source.clone()
    }
}

fn source(profile: &FittedProfile) -> TimingSource {
    let coefficients = profile.coefficients.iter();
    let terms: Vec<String> = coefficients
        .map(|one| format!("{} {:.4} us", one.term, one.us))
        .collect();
    let files: Vec<String> = profile
        .sources
        .iter()
        .map(|source| format!("{} ({} rows)", source.file, source.rows))
        .collect();
    TimingSource {
        name: "fitted".to_owned(),
        basis: Basis::Fitted,
        detail: format!("{}; fitted to {}", terms.join(" + "), files.join(", ")),
        guesses: vec![
            format!("step times are a fit: {}", profile.held_out.in_words()),
            format!(
                "the fit has seen {}; other steps are extrapolated",
                profile.domain.in_words()
            ),
        ],
    }
}

#[cfg(test)]
mod tests;
