//! What is wrong with settings: each problem with its place, what was found, what may be, and what to do.

use std::fmt;

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The setting.
    pub field: &'static str,
    /// What it is.
    pub found: String,
    /// What it may be.
    pub expected: String,
    /// What to do.
    pub suggestion: &'static str,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigProblem {
            field,
            found,
            expected,
            suggestion,
        } = self;
        write!(
            f,
            "{field}: found {found}, expected {expected}; {suggestion}"
        )
    }
}

/// Collects them.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<ConfigProblem>);

impl Problems {
    /// One more.
    pub(crate) fn add(
        &mut self,
        field: &'static str,
        found: impl fmt::Display,
        expected: &str,
        suggestion: &'static str,
    ) {
        self.0.push(ConfigProblem {
            field,
            found: found.to_string(),
            expected: expected.to_owned(),
            suggestion,
        });
    }
    /// Those found.
    pub(crate) fn all(self) -> Vec<ConfigProblem> {
        self.0
    }

    /// `value` if there are none.
    pub(crate) fn none_or<T>(self, value: T) -> Result<T, Vec<ConfigProblem>> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }
}
