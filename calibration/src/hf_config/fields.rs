//! The fields of a configuration; what is wrong is collected.

use super::Object;
use crate::error::{CalibrationError, Problem, check};
use serde_json::Value;
use std::fmt;
use std::ops::RangeInclusive;

pub(super) struct Fields<'a> {
    id: &'a str,
    config: &'a Object,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(id: &'a str, config: &'a Object) -> Fields<'a> {
        Fields {
            id,
            config,
            problems: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> &'a str {
        self.id
    }

    pub(super) fn config(&self) -> &'a Object {
        self.config
    }

    /// A whole number from 1 to `most`; 1 after a problem.
    pub(super) fn count(&mut self, key: &str, most: u32, default: Option<u32>) -> u32 {
        self.whole(key, 1..=most, default)
    }

    /// A whole number of `range`; its least after a problem.
    pub(super) fn whole(
        &mut self,
        key: &str,
        range: RangeInclusive<u32>,
        default: Option<u32>,
    ) -> u32 {
        let value = self.config.get(key).filter(|value| !value.is_null());
        let found = match (value, default) {
            (None, Some(default)) => return default,
            (None, None) => "nothing".to_owned(),
            (Some(value), _) => {
                match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
                    Some(number) if range.contains(&number) => return number,
                    _ => value.to_string(),
                }
            }
        };
        let (least, most) = (*range.start(), *range.end());
        self.problem(key, found, format!("a whole number from {least} to {most}"));
        least
    }

    /// A boolean, false when absent.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        match self.config.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.problem(key, other, "true or false".to_owned());
                false
            }
        }
    }

    pub(super) fn problem(&mut self, key: &str, found: impl fmt::Display, expected: String) {
        let field = format!("{}: {key}", self.id);
        self.problems.push(Problem::new(&field, found, expected));
    }

    /// Nothing was wrong so far.
    pub(super) fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// # Errors
    /// Everything that was wrong.
    pub(super) fn check(self) -> Result<(), CalibrationError> {
        check(self.problems)
    }
}
