//! What is wrong with one value of a generator's parameters, before anybody knows where it stands.
//!
//! Distributions are part of larger descriptions (a scenario, a file of generator parameters). They say what was found
//! and what was expected; the owner adds the field's path and the file.

use crate::error::{Place, Problem, Problems};

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: &'static str,
}

impl Fault {
    /// `fault` when `is_fine` does not hold.
    pub(crate) fn unless(
        is_fine: bool,
        found: impl FnOnce() -> String,
        expected: &'static str,
    ) -> Option<Fault> {
        (!is_fine).then(|| Fault {
            found: found(),
            expected,
        })
    }
}

/// Collects the faults of one description under their fields' paths.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    /// Name of the file or description.
    pub(crate) name: &'a str,
    pub(crate) problems: Problems,
}

impl Faults<'_> {
    pub(crate) fn new(name: &str) -> Faults<'_> {
        Faults {
            name,
            problems: Problems::default(),
        }
    }

    pub(crate) fn add(&mut self, field: String, fault: Option<Fault>) {
        let Some(fault) = fault else { return };
        self.problems.add(|| Problem {
            place: Place {
                file: self.name.to_string(),
                line: 0,
            },
            field: field.into(),
            found: fault.found.into(),
            expected: fault.expected.into(),
            suggestion: "correct the value".into(),
        });
    }

    pub(crate) fn finish(self) -> Result<(), Problems> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(self.problems)
        }
    }
}
