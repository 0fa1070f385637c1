//! What can be wrong with a space, in the words of who gave it.

use crate::values::ValueError;
use thiserror::Error;

/// One thing that is wrong and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {kind}")]
pub struct SpaceError {
    /// Option or field.
    pub place: String,
    /// What is wrong there.
    pub kind: SpaceErrorKind,
}

/// What can be wrong with a space.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpaceErrorKind {
    /// Not `field=values`.
    #[error("found `{found}`, expected `field=values`, for example `pools.agg.workers=1,2,4`")]
    NotAnAxis {
        /// What was given.
        found: String,
    },
    /// The values cannot be read.
    #[error(transparent)]
    Values(#[from] ValueError),
    /// No alternative to choose from.
    #[error("found no values, expected at least one")]
    NoValues,
    /// Zipped axes differ in length.
    #[error(
        "`{field}` has {found} values, expected {expected} as `{first}` has: zipped axes advance together"
    )]
    UnequalZip {
        /// The axis that differs.
        field: String,
        /// Its number of values.
        found: usize,
        /// The first axis.
        first: String,
        /// Its number of values.
        expected: usize,
    },
    /// The same alternative twice.
    #[error("`{entry}` is given twice, expected every value once: remove one")]
    Repeated {
        /// The repeated value or configuration.
        entry: String,
    },
    /// The same field in two factors, or twice in one entry.
    #[error("`{field}` is already set by {other}, expected one place: remove one")]
    SetTwice {
        /// The field.
        field: String,
        /// Where it was set before.
        other: String,
    },
    /// The scenario has no such field.
    #[error("{message}")]
    UnknownField {
        /// What the scenario said.
        message: String,
    },
    /// More points than allowed.
    #[error("found {points} points, expected at most {limit}: vary less or raise --max-points")]
    TooManyPoints {
        /// Their number, `more than 10^18` when it does not fit.
        points: String,
        /// The limit.
        limit: usize,
    },
}
