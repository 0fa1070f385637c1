//! The file that a fit leaves: JSON, written and read by [`FittedProfile`] alone.

use super::Term;
use crate::error::CalibrationError;
use crate::log_file::{Findings, LogFile};
use crate::work::Work;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What stands in `schema`.
const SCHEMA: &str = "dynosim-fitted-timing";
/// The version written and read.
const VERSION: u32 = 1;
/// A coefficient beyond this is no time of a step: 1,000 s.
const MOST_US: f64 = 1e9;

/// A fitted formula with all that can be said about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedProfile {
    schema: String,
    version: u32,
    /// The program that made it.
    pub program: String,
    /// How it was fitted, in one line.
    pub method: String,
    /// The logs.
    pub sources: Vec<ProfileSource>,
    /// The terms of the formula, each once.
    pub coefficients: Vec<Coefficient>,
    /// Time from the client to the engine and back that is part of no step, in microseconds; fits to step logs have none.
    pub front_end_us: f64,
    /// What the fit has seen.
    pub domain: Domain,
    /// How far it is off where it was not fitted.
    pub held_out: HeldOut,
    /// What its user should know.
    pub warnings: Vec<String>,
}

/// A log that was fitted to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileSource {
    /// Its name without the folder.
    pub file: String,
    /// BLAKE3 of its bytes.
    pub blake3: String,
    /// Its form.
    pub form: String,
    /// Steps or requests in it.
    pub rows: usize,
    /// When it was recorded (UTC), where the log says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
}

/// A term of the formula.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coefficient {
    /// Its name: that of a [`Term`].
    pub term: String,
    /// Microseconds per unit of the term.
    pub us: f64,
    /// Standard error of that.
    pub standard_error_us: f64,
}

/// Bounds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct Range {
    pub least: u64,
    pub most: u64,
}

impl Range {
    /// Everything.
    pub const ALL: Range = Range {
        least: 0,
        most: u64::MAX - 1,
    };

    const fn holds(self, value: u64) -> bool {
        self.least <= value && value <= self.most
    }

    fn over(values: impl Iterator<Item = u64>) -> Range {
        values.fold(Range { least: 0, most: 0 }, |range, value| Range {
            least: if range.least == 0 {
                value
            } else {
                range.least.min(value)
            },
            most: range.most.max(value),
        })
    }
}

/// The steps that a fit has seen, as a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Sequences of steps that decode.
    pub decode_batch: Range,
    /// Their summed context.
    pub decode_context: Range,
    /// Prompt tokens of steps that hold some.
    pub prefill_tokens: Range,
    /// Attended pairs of those, rounded down.
    pub prefill_pairs: Range,
}

impl Domain {
    /// No bounds.
    pub const ALL: Domain = Domain {
        decode_batch: Range::ALL,
        decode_context: Range::ALL,
        prefill_tokens: Range::ALL,
        prefill_pairs: Range::ALL,
    };

    /// The box around some steps.
    #[must_use]
    pub fn around<'a>(steps: impl Iterator<Item = &'a Work> + Clone) -> Domain {
        let decodes = steps.clone().filter(|work| work.decode_batch > 0);
        let prefills = steps.filter(|work| work.prefill_tokens > 0);
        Domain {
            decode_batch: Range::over(decodes.clone().map(|work| u64::from(work.decode_batch))),
            decode_context: Range::over(decodes.map(|work| work.decode_context)),
            prefill_tokens: Range::over(prefills.clone().map(|work| work.prefill_tokens)),
            prefill_pairs: Range::over(prefills.map(|work| work.prefill_pairs as u64)),
        }
    }

    /// Whether a step lies inside.
    #[must_use]
    pub fn covers(&self, work: &Work) -> bool {
        let decodes = work.decode_batch == 0
            || (self.decode_batch.holds(u64::from(work.decode_batch))
                && self.decode_context.holds(work.decode_context));
        let prefills = work.prefill_tokens == 0
            || (self.prefill_tokens.holds(work.prefill_tokens)
                && self.prefill_pairs.holds(work.prefill_pairs as u64));
        decodes && prefills
    }

    /// The bounds in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "{} to {} decodes with {} to {} tokens of context, and {} to {} prompt tokens in a step",
            self.decode_batch.least,
            self.decode_batch.most,
            self.decode_context.least,
            self.decode_context.most,
            self.prefill_tokens.least,
            self.prefill_tokens.most
        )
    }
}

/// Errors on data that the coefficients were not fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// What was predicted: `step time`, `TTFT`, ...
    pub of: String,
    /// How it was held out.
    pub how: String,
    /// Rows predicted.
    pub rows: usize,
    /// Mean of |predicted − measured| / measured.
    pub mean_error: f64,
    /// Median of the same.
    pub median_error: f64,
    /// 90th percentile of the same.
    pub p90_error: f64,
    /// Sum predicted over sum measured, minus 1.
    pub bias: f64,
}

impl HeldOut {
    /// Of predicted and measured values; zeros measured are left out.
    #[must_use]
    pub fn of(what: &str, how: &str, pairs: &[(f64, f64)]) -> HeldOut {
        let positive = pairs.iter().filter(|(_, measured)| *measured > 0.0);
        let mut errors: Vec<f64> = positive
            .map(|(predicted, measured)| (predicted - measured).abs() / measured)
            .collect();
        errors.sort_by(f64::total_cmp);
        let count = errors.len();
        let rank = |share: f64| ((count as f64 * share).ceil() as usize).max(1) - 1;
        let at = |share: f64| errors.get(rank(share)).copied().unwrap_or(0.0);
        let sum = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
        let measured = sum(|pair| pair.1);
        HeldOut {
            of: what.to_owned(),
            how: how.to_owned(),
            rows: pairs.len(),
            mean_error: errors.iter().sum::<f64>() / count.max(1) as f64,
            median_error: at(0.5),
            p90_error: at(0.9),
            bias: if measured > 0.0 {
                sum(|pair| pair.0) / measured - 1.0
            } else {
                0.0
            },
        }
    }

    /// One line for reports.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "held-out error of the {} {:.1} % mean, {:.1} % median, {:.1} % p90, bias {:+.1} % ({} rows: {})",
            self.of,
            100.0 * self.mean_error,
            100.0 * self.median_error,
            100.0 * self.p90_error,
            100.0 * self.bias,
            self.rows,
            self.how
        )
    }
}

/// What a fit hands over to become a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// See [`FittedProfile::method`].
    pub method: String,
    /// See [`FittedProfile::sources`].
    pub sources: Vec<ProfileSource>,
    /// Terms, microseconds and their standard errors.
    pub coefficients: Vec<(Term, f64, f64)>,
    /// See [`FittedProfile::front_end_us`].
    pub front_end_us: f64,
    /// See [`FittedProfile::domain`].
    pub domain: Domain,
    /// See [`FittedProfile::held_out`].
    pub held_out: HeldOut,
    /// See [`FittedProfile::warnings`].
    pub warnings: Vec<String>,
}

impl FittedProfile {
    /// The profile of a fit.
    #[must_use]
    pub fn new(parts: Parts) -> FittedProfile {
        let coefficients = parts.coefficients.iter();
        FittedProfile {
            schema: SCHEMA.to_owned(),
            version: VERSION,
            program: format!("dynosim {}", env!("CARGO_PKG_VERSION")),
            method: parts.method,
            sources: parts.sources,
            coefficients: coefficients
                .map(|(term, us, standard_error_us)| Coefficient {
                    term: term.to_string(),
                    us: *us,
                    standard_error_us: *standard_error_us,
                })
                .collect(),
            front_end_us: parts.front_end_us,
            domain: parts.domain,
            held_out: parts.held_out,
            warnings: parts.warnings,
        }
    }

    /// The terms and their coefficients in microseconds.
    ///
    /// # Panics
    /// If it was not read or made by this type.
    #[must_use]
    pub fn formula(&self) -> Vec<(Term, f64)> {
        let terms = self.coefficients.iter();
        let term = |one: &Coefficient| {
            one.term
                .parse()
                .expect("names are checked when a profile is read")
        };
        terms.map(|one| (term(one), one.us)).collect()
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// A file that cannot be read or is no profile, of another version, or with values that make no sense, all of them.
    pub fn read(path: &Path) -> Result<FittedProfile, CalibrationError> {
        FittedProfile::parse(&LogFile::read(path)?)
    }

    /// The same from text.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &LogFile) -> Result<FittedProfile, CalibrationError> {
        let mut findings = Findings::new(&file.name);
        match serde_json::from_str::<FittedProfile>(file.text()) {
            Ok(profile) => {
                profile.check(&mut findings);
                findings.finish()?;
                Ok(profile)
            }
            Err(error) => {
                let hint = "`dynosim calibrate fit-steps` and `fit-requests` write profiles";
                findings.add(error.line(), "", error, "a profile of a fit", hint);
                Err(findings.finish().expect_err("a problem was added"))
            }
        }
    }

    fn check(&self, findings: &mut Findings<'_>) {
        if self.schema != SCHEMA {
            findings.add(0, "schema", &self.schema, SCHEMA, "");
        }
        if self.version != VERSION {
            let hint = "fit again with this version";
            findings.add(0, "version", self.version, VERSION.to_string(), hint);
        }
        let mut seen = Vec::new();
        for one in &self.coefficients {
            match one.term.parse::<Term>() {
                Err(expected) => findings.add(0, "coefficients", &one.term, expected, ""),
                Ok(term) if seen.contains(&term) => {
                    findings.add(
                        0,
                        "coefficients",
                        format!("{term} twice"),
                        "each term once",
                        "",
                    );
                }
                Ok(term) => seen.push(term),
            }
            for (what, value) in [("us", one.us), ("standard_error_us", one.standard_error_us)] {
                if !(0.0..=MOST_US).contains(&value) {
                    let field = format!("coefficients.{}.{what}", one.term);
                    findings.add(
                        0,
                        &field,
                        value,
                        format!("a number from 0 to {MOST_US}"),
                        "",
                    );
                }
            }
        }
        let is_timed = |one: &Coefficient| {
            let takes_time = ["base", "decode_sequence", "decode_context_token"];
            one.us > 0.0 && takes_time.contains(&one.term.as_str())
        };
        if !self.coefficients.iter().any(is_timed) {
            let expected =
                "a positive base, decode_sequence or decode_context_token: a step takes time";
            findings.add(0, "coefficients", "neither", expected, "");
        }
        for (field, range) in [
            ("decode_batch", self.domain.decode_batch),
            ("decode_context", self.domain.decode_context),
            ("prefill_tokens", self.domain.prefill_tokens),
            ("prefill_pairs", self.domain.prefill_pairs),
        ] {
            if range.least > range.most || range.most == u64::MAX {
                let found = format!("{} to {}", range.least, range.most);
                findings.add(0, &format!("domain.{field}"), found, "least, then most", "");
            }
        }
        if !(0.0..=MOST_US).contains(&self.front_end_us) {
            let expected = format!("a number from 0 to {MOST_US}");
            findings.add(0, "front_end_us", self.front_end_us, expected, "");
        }
    }

    /// The text of the file.
    ///
    /// # Panics
    /// Never: a profile holds only what JSON can.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("plain data");
        text + "\n"
    }
}
