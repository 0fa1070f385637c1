//! The fit of step times to a log of requests alone, with the simulator in the loop.
//!
//! In words: all requests of the log are simulated (what one does to the next carries over), with step times by a formula
//! of a few terms; the loss looks at the requests of the first part by arrival and nothing else, each by its TTFT and its
//! TPOT, relative to what was measured ([`question`]). Parameters start at what the log shows at a glance (`start.rs`) and
//! at three places around it, and are moved by `optimise.rs`; the best end counts. Its standard errors take in how far the
//! other ends lie that explain the log nearly as well: what the log cannot tell apart is told. The other requests are then
//! predicted, and that error is the fit's.
//!
//! The KV capacity is the engine's, pinned, or fitted beside ([`fit_kv_blocks`]), and said either way.
// Model: one engine of one rank; what the front end costs is one constant per request.

mod observed;
mod optimise;
pub mod question;
mod start;

pub use question::Question;

use crate::outcome::{Compared, Outcome, compare};
use crate::request_log::RequestLog;
use calibration::fitted::{HeldOut, Parts, ProfileSource, Term};
use calibration::{CalibrationError, FittedProfile};
use observed::Observed;
use optimise::{Problem, Solution};
use std::path::Path;
use std::sync::Arc;

/// Base, a constant for steps with prefill (they leave the engine's captured graphs), decode sequences and their context,
/// prompt tokens and their attention.
pub const TERMS: [Term; 6] = [
    Term::Base,
    Term::PrefillStep,
    Term::DecodeSequence,
    Term::DecodeContextToken,
    Term::PrefillToken,
    Term::PrefillPair,
];

/// Standard deviation of the logarithm of a parameter before the log has spoken: a factor of 7, made narrower by the root
/// of 10, since the loss counts every residual though neighbours in one queue err together, about ten at a time.
const PRIOR_SIGMA: f64 = 0.63;
/// A parameter whose logarithm is known no better than this is not identified.
const UNKNOWN: f64 = 0.5;
/// The starts beside the first one: by which factor, up (+) or down (−), parameters are moved. Rows of a two-level design.
const OTHER_STARTS: [[i8; 7]; 3] = [
    [1, -1, 1, -1, -1, 1, 1],
    [-1, 1, 1, 1, -1, -1, 1],
    [1, 1, -1, -1, 1, -1, -1],
];
const START_FACTOR: f64 = 2.0;
/// An end whose loss is within this share of the best one explains the log nearly as well: neighbours in one queue err
/// together, and of some 15 independent errors a loss half as high again is no more than two standard errors away.
const AS_GOOD: f64 = 0.5;
/// KV blocks tried, as shares of the engine's; then as shares of the best so far, twice.
const COARSE: [f64; 6] = [0.55, 0.7, 0.85, 1.2, 1.5, 2.0];
const FINE: [f64; 6] = [0.9, 0.95, 0.98, 1.02, 1.05, 1.1];
const FINEST: [f64; 4] = [0.992, 0.996, 1.004, 1.008];
/// Blocks are identified if twenty per cent more or less raise the loss by this share.
const BLOCKS_MATTER: f64 = 0.1;

/// A parameter and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// A term, or `front_end`.
    pub name: String,
    /// Microseconds per unit.
    pub us: f64,
    /// Standard error, as a share of the value.
    pub relative_error: f64,
    /// False if the log leaves it open.
    pub is_identified: bool,
}

/// Where the KV capacity comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KvBlocks {
    /// The scenario.
    Pinned(u32),
    /// The log.
    Fitted {
        /// The best.
        blocks: u32,
        /// False if others explain the log as well.
        is_identified: bool,
    },
}

/// A fit with its errors.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestFit {
    /// The result.
    pub profile: FittedProfile,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// The requests that were fitted to, and how many they are.
    pub fitted: (usize, Vec<Compared>),
    /// The others.
    pub held_out: (usize, Vec<Compared>),
    /// KV blocks of the engine.
    pub kv_blocks: KvBlocks,
    /// Half the sum of squared errors in units of 5 %, beyond two of them linearly.
    pub loss: f64,
    /// Simulations run.
    pub simulations: usize,
}

impl KvBlocks {
    /// How many.
    #[must_use]
    pub const fn blocks(self) -> u32 {
        match self {
            KvBlocks::Pinned(blocks) | KvBlocks::Fitted { blocks, .. } => blocks,
        }
    }

    /// `2588 KV blocks, pinned`
    #[must_use]
    pub fn in_words(self) -> String {
        let how = match self {
            KvBlocks::Pinned(_) => "pinned",
            KvBlocks::Fitted {
                is_identified: true,
                ..
            } => "fitted",
            KvBlocks::Fitted { .. } => "fitted, though others would do as well",
        };
        format!("{} KV blocks, {how}", self.blocks())
    }
}

/// Fits the formula with the engine's KV blocks pinned.
///
/// # Errors
/// Too few requests, requests that the engine would refuse, or a fit that does not come to rest.
pub fn fit(question: &Question<'_>) -> Result<RequestFit, CalibrationError> {
    question.check()?;
    let first = start::values(question);
    let mut solutions = vec![solve(question, &first, &first)];
    for moved in OTHER_STARTS {
        let signs = moved
            .iter()
            .cycle()
            .map(|sign| START_FACTOR.powi(i32::from(*sign)));
        let start: Vec<f64> = first
            .iter()
            .zip(signs)
            .map(|(us, factor)| us * factor)
            .collect();
        solutions.push(solve(question, &start, &first));
    }
    let blocks = question.engine.num_gpu_blocks;
    answer(question, &solutions, KvBlocks::Pinned(blocks))
}

/// The same, and the number of KV blocks that explains the log best, near that of the engine.
///
/// # Errors
/// As [`fit`].
pub fn fit_kv_blocks(question: &Question<'_>) -> Result<RequestFit, CalibrationError> {
    question.check()?;
    let start = start::values(question);
    let with = |blocks: u32| {
        let mut other = question.clone();
        other.engine.num_gpu_blocks = blocks;
        other
    };
    // Those that cannot hold the longest request explain nothing.
    let loss = |blocks: u32| {
        let other = with(blocks);
        other
            .check()
            .ok()
            .map(|()| (solve(&other, &start, &start).loss, blocks))
    };
    let around = |best: u32, shares: &[f64]| -> Vec<(f64, u32)> {
        let blocks = shares
            .iter()
            .map(|share| (f64::from(best) * share).round() as u32);
        blocks.filter_map(loss).collect()
    };
    let lowest = |tried: &[(f64, u32)]| tried.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0));
    let mut tried = around(question.engine.num_gpu_blocks, &[1.0]);
    tried.extend(around(question.engine.num_gpu_blocks, &COARSE));
    for shares in [FINE.as_slice(), &FINEST] {
        let (_, best) = lowest(&tried).expect("the engine's own number was checked");
        tried.extend(around(best, shares));
    }
    let (best, blocks) = lowest(&tried).expect("the engine's own number was checked");
    let far = |other: u32| (f64::from(other) / f64::from(blocks) - 1.0).abs() >= 0.2;
    let is_as_good = |(loss, _): &&(f64, u32)| *loss < best * (1.0 + BLOCKS_MATTER);
    let rivals = tried
        .iter()
        .filter(|(_, other)| far(*other))
        .filter(is_as_good);
    let found = KvBlocks::Fitted {
        blocks,
        is_identified: rivals.count() == 0,
    };
    let mut fit = fit(&with(blocks))?;
    fit.kv_blocks = found;
    fit.profile.method = method(question, fit.simulations, found);
    if let KvBlocks::Fitted {
        is_identified: false,
        ..
    } = found
    {
        fit.profile.warnings.push(format!(
            "the number of KV blocks is not identified: {blocks} explains the log best, others by 20 % and more nearly as \
             well; pin it (num_gpu_blocks, as the engine prints it when it starts)"
        ));
    }
    Ok(fit)
}

/// A minimum near `start`, with priors around `prior`, both in microseconds.
fn solve(question: &Question<'_>, start: &[f64], prior: &[f64]) -> Solution {
    let residuals = |at: &[f64]| {
        let us: Vec<f64> = at.iter().map(|x| x.exp()).collect();
        question.residuals(&us)
    };
    Problem {
        residuals: &residuals,
        start: start.iter().map(|us| us.ln()).collect(),
        prior: prior.iter().map(|us| us.ln()).collect(),
        prior_sigma: PRIOR_SIGMA,
    }
    .solve()
}

/// The best of several ends, its parameters, and what it says about the requests that were held out.
fn answer(
    question: &Question<'_>,
    solutions: &[Solution],
    kv_blocks: KvBlocks,
) -> Result<RequestFit, CalibrationError> {
    let best = solutions.iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
    let best = best.expect("there is a solution");
    if !best.has_settled || !best.loss.is_finite() {
        let mut findings = calibration::log_file::Findings::new(&question.log.file);
        let hint = "parameters run away: is it the log of one engine with the scenario's settings?";
        let found = format!("a loss of {:.1} that still falls", best.loss);
        findings.add(0, "", found, "a fit that comes to rest", hint);
        findings.finish()?;
    }
    let parameters = parameters(question, best, solutions);
    let us: Vec<f64> = parameters.iter().map(|one| one.us).collect();
    let observer = Arc::new(Observed::new(question.timing(&us)));
    let recording = question.simulate(observer.clone());
    let predicted = question.outcomes(&recording, question.front_end(&us));
    let measured: Vec<Outcome> = question
        .log
        .requests
        .iter()
        .map(|one| one.outcome)
        .collect();
    let count = question.fitted_count();
    let held_out = measured.len() - count;
    let pairs = predicted[count..].iter().zip(&measured[count..]);
    let pairs: Vec<(f64, f64)> = pairs
        .map(|(ours, real)| (ours.e2e.as_ms(), real.e2e.as_ms()))
        .collect();
    let how = format!(
        "the last {held_out} of {} requests by arrival",
        measured.len()
    );
    let simulations = solutions.iter().map(|one| one.evaluations).sum();
    let terms = question.terms.iter().zip(&parameters);
    let profile = FittedProfile::new(Parts {
        method: method(question, simulations, kv_blocks),
        sources: vec![source(question.log)],
        coefficients: terms
            .map(|(term, one)| (*term, one.us, one.us * one.relative_error))
            .collect(),
        front_end_us: us.get(question.terms.len()).copied().unwrap_or(0.0),
        domain: observer.domain(),
        held_out: HeldOut::of("E2E", &how, &pairs),
        warnings: warnings(question, &parameters),
    });
    Ok(RequestFit {
        profile,
        parameters,
        fitted: (count, compare(&predicted[..count], &measured[..count])),
        held_out: (held_out, compare(&predicted[count..], &measured[count..])),
        kv_blocks,
        loss: best.loss,
        simulations,
    })
}

fn parameters(question: &Question<'_>, best: &Solution, all: &[Solution]) -> Vec<Parameter> {
    let as_good: Vec<&Solution> = all
        .iter()
        .filter(|one| one.loss <= best.loss * (1.0 + AS_GOOD))
        .collect();
    let names = question.terms.iter().map(ToString::to_string);
    let names = names.chain(question.has_front_end().then(|| "front_end".to_owned()));
    let parameter = |(at, name): (usize, String)| {
        let apart = as_good.iter().map(|one| (one.at[at] - best.at[at]).powi(2));
        let spread = apart.sum::<f64>() / as_good.len() as f64;
        let relative_error = best.sigma[at].hypot(spread.sqrt());
        Parameter {
            name,
            us: best.at[at].exp(),
            relative_error,
            is_identified: relative_error < UNKNOWN,
        }
    };
    names.enumerate().map(parameter).collect()
}

fn method(question: &Question<'_>, simulations: usize, kv_blocks: KvBlocks) -> String {
    format!(
        "TTFT and TPOT of the first {} requests, {simulations} simulations in the loop; {} of {} tokens",
        question.fitted_count(),
        kv_blocks.in_words(),
        question.engine.block_size
    )
}

fn source(log: &RequestLog) -> ProfileSource {
    let name = Path::new(&log.file).file_name();
    ProfileSource {
        file: name.map_or_else(
            || log.file.clone(),
            |name| name.to_string_lossy().into_owned(),
        ),
        blake3: log.digest.clone(),
        form: log.form.to_owned(),
        rows: log.requests.len(),
        recorded: log.recorded(),
    }
}

fn warnings(question: &Question<'_>, parameters: &[Parameter]) -> Vec<String> {
    let open = parameters.iter().filter(|one| !one.is_identified);
    let mut warnings: Vec<String> = open
        .map(|one| {
            format!(
                "{} is not identified: {:.4} us with a standard error of {:.0} %; the log can be explained without \
                 knowing it",
                one.name,
                one.us,
                100.0 * one.relative_error
            )
        })
        .collect();
    if question.log.failed > 0 {
        warnings.push(format!(
            "{} failed, cancelled or warm-up requests are left out, and with them the load they were",
            question.log.failed
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
