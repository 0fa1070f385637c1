//! The fit of step times to step logs.
//!
//! In words: the steps of each log are cut into 25 blocks of consecutive steps; every fifth block is held out. On the
//! others the plain form (base, decode sequences, decode context, prefill tokens, attended pairs) is fitted robustly
//! ([`crate::least_squares`]); then bends and a constant for steps with prefill are added one at a time, the best first,
//! each only if it lowers the error on blocks left out in turn (cross-validation within the four fifths) by at least 2 %.
//! The error that is printed is that of the form so chosen, fitted to the four fifths, on the fifth that nobody looked at.
//! The coefficients that are written are of the same form, fitted to everything.
//!
//! Where logs tell the host's time between steps apart, it is fitted on its own to (1, sequences of the step), by the same
//! rule, and the two terms stand beside the others: a step takes the sum.

use crate::error::{CalibrationError, Problem};
use crate::fitted::{Domain, FittedProfile, HeldOut, Parts, ProfileSource, Term, step_us};
use crate::least_squares::{self, Solution};
use crate::step_log::{Observation, StepLog};
use crate::work::Work;
use std::path::Path;

/// Blocks that a log is cut into.
const BLOCKS: usize = 25;
/// Of five blocks in a row this one is held out.
const HELD_OUT: usize = 2;
const FOLDS: usize = 5;
const HELD_OUT_HOW: &str = "every fifth of 25 blocks of consecutive steps";
/// The terms of the host's time.
const HOST: [Term; 2] = [Term::HostStep, Term::HostSequence];
/// The least that the host takes, microseconds.
const LEAST_HOST_US: f64 = 1.0;
/// Fewer steps than this are no fit.
const LEAST_STEPS: usize = 50;
/// How much a further term must lower the error to be kept, as a share.
const WORTH: f64 = 0.02;
/// Most further terms.
const MOST_MORE: usize = 3;
/// Steps used to choose the form: evenly spaced ones if there are more.
const MOST_FOR_CHOICE: usize = 20_000;
/// A coefficient whose standard error is beyond this share of it is not known.
const UNKNOWN: f64 = 0.5;
/// Of `n` steps, so many at most must lie beyond a bend on either side.
const LEAST_BEYOND: usize = 20;

/// A fit and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct StepFit {
    /// The result.
    pub profile: FittedProfile,
    /// The forms tried: the term added (none for the plain form) and the error in cross-validation; the last that lowered
    /// it enough was taken.
    pub trials: Vec<Trial>,
    /// Every step, predicted by the fit to the four fifths.
    pub predictions: Vec<Prediction>,
    /// Error on held-out steps that only decode; `None` if there are none.
    pub held_out_decode: Option<HeldOut>,
    /// Error on held-out steps with prefill.
    pub held_out_prefill: Option<HeldOut>,
    /// The host's time between steps; `None` where too few steps tell it.
    pub host: Option<HostFit>,
}

/// What the host takes between steps.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFit {
    /// Steps that told it.
    pub steps: usize,
    /// Mean over them, microseconds.
    pub mean_us: f64,
    /// Median over them, microseconds.
    pub median_us: f64,
    /// Error where it was not fitted.
    pub held_out: HeldOut,
    solution: Solution,
}

/// A form that was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// What was added to the form before.
    pub added: Option<Term>,
    /// Mean |predicted − measured| / measured on blocks left out.
    pub error: f64,
    /// Whether it was kept.
    pub is_kept: bool,
}

/// A step and what the fit says about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Index of its log.
    pub log: usize,
    /// Line there.
    pub line: usize,
    /// Whether it holds prefill.
    pub has_prefill: bool,
    /// Whether it was held out.
    pub is_held_out: bool,
    /// Seconds measured.
    pub measured: f64,
    /// Seconds predicted.
    pub predicted: f64,
}

/// A step with its place in the blocks.
#[derive(Debug, Clone, Copy)]
struct Placed {
    log: usize,
    fold: usize,
    observation: Observation,
}

/// Fits one form to all logs.
///
/// # Errors
/// Too few steps, steps that are all alike, or a fit that does not converge.
pub fn fit(logs: &[StepLog]) -> Result<StepFit, CalibrationError> {
    let placed = placed(logs);
    if placed.len() < LEAST_STEPS {
        let found = format!("{} steps", placed.len());
        let expected = format!("at least {LEAST_STEPS}");
        return Err(refused(logs, found, expected));
    }
    let (held_out, seen): (Vec<Placed>, Vec<Placed>) =
        placed.iter().partition(|step| step.fold == HELD_OUT);
    let stride = seen.len().div_ceil(MOST_FOR_CHOICE);
    let for_choice: Vec<Placed> = seen.iter().copied().step_by(stride).collect();
    let failed = |error: least_squares::NoConvergence| {
        refused(
            logs,
            error.to_string(),
            "a fit that settles; do several engines share a log?".to_owned(),
        )
    };
    let (terms, trials) = choose(&for_choice).map_err(failed)?;
    let honest = formula(&terms, &solve(&terms, &seen).map_err(failed)?);
    let all = solve(&terms, &placed).map_err(failed)?;

    let predictions: Vec<Prediction> = placed
        .iter()
        .map(|step| Prediction {
            log: step.log,
            line: step.observation.line,
            has_prefill: step.observation.work.prefill_tokens > 0,
            is_held_out: step.fold == HELD_OUT,
            measured: step.observation.seconds,
            predicted: step_us(&honest, &step.observation.work) * 1e-6,
        })
        .collect();
    let error_of = |which: &dyn Fn(&Prediction) -> bool| {
        let chosen = predictions
            .iter()
            .filter(|one| one.is_held_out && which(one));
        let pairs: Vec<(f64, f64)> = chosen.map(|one| (one.predicted, one.measured)).collect();
        (!pairs.is_empty()).then(|| HeldOut::of("step time", HELD_OUT_HOW, &pairs))
    };
    let held_out_all = error_of(&|_| true).expect("a fifth of the steps is held out");
    debug_assert_eq!(held_out_all.rows, held_out.len());
    let host = fit_host(&placed).map_err(failed)?;
    let host_terms = host.iter().flat_map(|host| {
        let numbers = host.solution.coefficients.iter();
        HOST.iter().zip(numbers.zip(&host.solution.standard_errors))
    });
    let works = placed.iter().map(|step| &step.observation.work);
    let profile = FittedProfile::new(Parts {
        method: "least squares on relative errors, Huber's weights, no coefficient below 0"
            .to_owned(),
        sources: logs.iter().map(source).collect(),
        coefficients: terms
            .iter()
            .zip(all.coefficients.iter().zip(&all.standard_errors))
            .chain(host_terms)
            .map(|(term, (us, error))| (*term, *us, *error))
            .collect(),
        front_end_us: 0.0,
        domain: Domain::around(works),
        held_out: held_out_all,
        warnings: warnings(&terms, &all),
    });
    Ok(StepFit {
        profile,
        trials,
        held_out_decode: error_of(&|one| !one.has_prefill),
        held_out_prefill: error_of(&|one| one.has_prefill),
        host: host.clone(),
        predictions,
    })
}

fn refused(logs: &[StepLog], found: String, expected: String) -> CalibrationError {
    let names: Vec<&str> = logs.iter().map(|log| log.file.as_str()).collect();
    CalibrationError::Invalid(vec![Problem::new(&names.join(", "), found, expected)])
}

fn source(log: &StepLog) -> ProfileSource {
    let name = Path::new(&log.file).file_name();
    ProfileSource {
        file: name.map_or_else(
            || log.file.clone(),
            |name| name.to_string_lossy().into_owned(),
        ),
        blake3: log.digest.clone(),
        form: log.form.to_owned(),
        rows: log.observations.len(),
        recorded: None,
    }
}

fn placed(logs: &[StepLog]) -> Vec<Placed> {
    let mut placed = Vec::new();
    for (log, steps) in logs.iter().enumerate() {
        let count = steps.observations.len();
        for (at, observation) in steps.observations.iter().enumerate() {
            placed.push(Placed {
                log,
                fold: at * BLOCKS / count % FOLDS,
                observation: *observation,
            });
        }
    }
    placed
}

/// The form: plain terms that occur, and those further ones that are worth it.
fn choose(steps: &[Placed]) -> Result<(Vec<Term>, Vec<Trial>), least_squares::NoConvergence> {
    let plain = [
        Term::Base,
        Term::DecodeSequence,
        Term::DecodeContextToken,
        Term::PrefillToken,
        Term::PrefillPair,
    ];
    let occurs = |term: &Term| {
        steps
            .iter()
            .any(|step| term.of(&step.observation.work) > 0.0)
    };
    let mut terms: Vec<Term> = plain.into_iter().filter(occurs).collect();
    let mut best = cross_validated(&terms, steps)?;
    let mut trials = vec![Trial {
        added: None,
        error: best,
        is_kept: true,
    }];
    for _ in 0..MOST_MORE {
        let mut tried = Vec::new();
        for term in further(steps)
            .into_iter()
            .filter(|term| !terms.contains(term))
        {
            let with = [terms.as_slice(), &[term]].concat();
            tried.push((cross_validated(&with, steps)?, term));
        }
        let Some(&(error, term)) = tried.iter().min_by(|a, b| a.0.total_cmp(&b.0)) else {
            break;
        };
        let is_kept = error < best * (1.0 - WORTH);
        trials.push(Trial {
            added: Some(term),
            error,
            is_kept,
        });
        if !is_kept {
            break;
        }
        best = error;
        terms.push(term);
    }
    Ok((terms, trials))
}

/// Bends at powers of two with steps on both sides, and a constant for steps with prefill where there are others.
fn further(steps: &[Placed]) -> Vec<Term> {
    let is_possible = |term: &Term| {
        let beyond = steps
            .iter()
            .filter(|step| term.of(&step.observation.work) > 0.0);
        let beyond = beyond.count();
        beyond >= LEAST_BEYOND && beyond + LEAST_BEYOND <= steps.len()
    };
    let tokens = (3..16).map(|power| Term::TokenBeyond(1 << power));
    let sequences = (1..10).map(|power| Term::SequenceBeyond(1 << power));
    let all = std::iter::once(Term::PrefillStep)
        .chain(tokens)
        .chain(sequences);
    all.filter(is_possible).collect()
}

/// Mean relative error on folds left out in turn.
fn cross_validated(terms: &[Term], steps: &[Placed]) -> Result<f64, least_squares::NoConvergence> {
    let (mut sum, mut count) = (0.0, 0);
    for fold in (0..FOLDS).filter(|fold| *fold != HELD_OUT) {
        let (left_out, seen): (Vec<Placed>, Vec<Placed>) =
            steps.iter().partition(|step| step.fold == fold);
        if seen.is_empty() {
            continue;
        }
        let formula = formula(terms, &solve(terms, &seen)?);
        for step in &left_out {
            let predicted = step_us(&formula, &step.observation.work) * 1e-6;
            sum += (predicted - step.observation.seconds).abs() / step.observation.seconds;
            count += 1;
        }
    }
    Ok(sum / f64::from(count.max(1)))
}

/// The host's time between steps, if enough of them tell it.
fn fit_host(steps: &[Placed]) -> Result<Option<HostFit>, least_squares::NoConvergence> {
    // A step that the host did not delay at all is no mistake, but has no relative error: it counts as a microsecond.
    let told: Vec<(Vec<f64>, f64)> = steps
        .iter()
        .filter_map(|step| {
            let us = (step.observation.host_seconds? * 1e6).max(LEAST_HOST_US);
            let row = HOST.map(|term| term.of(&step.observation.work));
            Some((row.to_vec(), us))
        })
        .collect();
    let count = told.len();
    if count < LEAST_STEPS {
        return Ok(None);
    }
    let told: Vec<(usize, Vec<f64>, f64)> = (0..)
        .zip(told)
        .map(|(at, (row, us))| (at * BLOCKS / count % FOLDS, row, us))
        .collect();
    let solved = |is_seen: &dyn Fn(usize) -> bool| {
        let seen = told.iter().filter(|(fold, ..)| is_seen(*fold));
        let (rows, targets): (Vec<Vec<f64>>, Vec<f64>) =
            seen.map(|(_, row, us)| (row.clone(), *us)).unzip();
        least_squares::robust(&rows, &targets)
    };
    let honest = solved(&|fold| fold != HELD_OUT)?;
    let predicted = |row: &[f64]| -> f64 {
        let terms = row.iter().zip(&honest.coefficients);
        terms.map(|(x, us)| x * us).sum()
    };
    let pairs: Vec<(f64, f64)> = told
        .iter()
        .filter(|(fold, ..)| *fold == HELD_OUT)
        .map(|(_, row, us)| (predicted(row), *us))
        .collect();
    let mut all: Vec<f64> = told.iter().map(|(_, _, us)| *us).collect();
    all.sort_by(f64::total_cmp);
    Ok(Some(HostFit {
        steps: told.len(),
        mean_us: all.iter().sum::<f64>() / all.len() as f64,
        median_us: all[all.len() / 2],
        held_out: HeldOut::of("host's time", HELD_OUT_HOW, &pairs),
        solution: solved(&|_| true)?,
    }))
}

/// Coefficients in microseconds.
fn solve(terms: &[Term], steps: &[Placed]) -> Result<Solution, least_squares::NoConvergence> {
    let row = |work: &Work| terms.iter().map(|term| term.of(work)).collect();
    let rows: Vec<Vec<f64>> = steps
        .iter()
        .map(|step| row(&step.observation.work))
        .collect();
    let targets: Vec<f64> = steps
        .iter()
        .map(|step| step.observation.seconds * 1e6)
        .collect();
    least_squares::robust(&rows, &targets)
}

fn formula(terms: &[Term], solution: &Solution) -> Vec<(Term, f64)> {
    terms
        .iter()
        .copied()
        .zip(solution.coefficients.iter().copied())
        .collect()
}

fn warnings(terms: &[Term], solution: &Solution) -> Vec<String> {
    let values = solution.coefficients.iter().zip(&solution.standard_errors);
    let mut warnings = Vec::new();
    for (term, (us, error)) in terms.iter().zip(values) {
        if *us == 0.0 {
            warnings.push(format!(
                "{term} is 0: the log shows no cost of it, or cannot tell it from the other terms"
            ));
        } else if *error > UNKNOWN * us {
            warnings.push(format!(
                "{term} is not known: {us:.4} us with a standard error of {error:.4}; the log has too few steps that differ in it"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
