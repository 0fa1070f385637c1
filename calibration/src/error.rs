//! What can be wrong with what a caller asked for.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong, named by the field it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, for example `speedup_ratio`.
    pub field: String,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// What to write instead, if that can be said.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem without a suggestion.
    pub(crate) fn new(
        field: &str,
        found: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Problem {
        Problem {
            field: field.to_owned(),
            found: found.to_string(),
            expected: expected.into(),
            suggestion: None,
        }
    }

    /// The same with a suggestion.
    pub(crate) fn suggest(self, suggestion: impl Into<String>) -> Problem {
        Problem {
            suggestion: Some(suggestion.into()),
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: found {}, expected {}",
            self.field, self.found, self.expected
        )?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// Why there is no timing model, no model shape, or no KV capacity.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// Values that make no sense, all of them.
    #[error("{}", join(.0))]
    Invalid(Vec<Problem>),
    /// The model or deployment is a real one that no formula here covers.
    #[error("{subject} is not modelled yet: {}", .reasons.join("; "))]
    NotModelled {
        /// What was asked for, for example a model id.
        subject: String,
        /// Each thing that stands in the way.
        reasons: Vec<String>,
    },
    /// The weights leave no room for a KV cache.
    #[error("{detail}")]
    DoesNotFit {
        /// The arithmetic in words.
        detail: String,
        /// The least legal tensor parallelism with room, if there is one within a node.
        needs_tensor_parallel: Option<u32>,
    },
    /// No measured table covers what was asked for.
    #[error("{table} holds no {wanted}{}", .nearest.as_ref().map(|near| format!("; nearest: {near}")).unwrap_or_default())]
    NotMeasured {
        /// The table.
        table: String,
        /// What was looked for.
        wanted: String,
        /// The nearest that there is.
        nearest: Option<String>,
    },
    /// A file could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not JSON.
    #[error("{}: not JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: serde_json::Error,
    },
}

impl CalibrationError {
    /// The single problems, empty for errors of another kind.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            CalibrationError::Invalid(problems) => problems,
            _ => &[],
        }
    }
}

fn join(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// `Ok` when there are no problems.
pub(crate) fn check(problems: Vec<Problem>) -> Result<(), CalibrationError> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(CalibrationError::Invalid(problems))
    }
}

/// Adds a problem unless `value` is a number in `range`.
pub(crate) fn check_range(
    problems: &mut Vec<Problem>,
    field: &str,
    value: f64,
    range: std::ops::RangeInclusive<f64>,
    unit: &str,
) {
    if !range.contains(&value) {
        let expected = format!("a number from {} to {}{unit}", range.start(), range.end());
        problems.push(Problem::new(field, value, expected));
    }
}

/// The candidate nearest to `name`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = name.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let likeness = strsim::jaro_winkler(&name, &candidate.to_lowercase());
        if likeness > best.map_or(0.8, |(best, _)| best) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
