//! What is wrong with a trace file: every problem with its place, all problems at once.
//!
//! Readers go on after a bad row, so that one run shows everything there is to repair. The first
//! [`Problems::SHOWN`] problems are kept in full, the others are counted.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// Why a trace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file could not be opened.
    #[error("{file}: cannot be opened")]
    Open {
        /// The file, as the caller named it.
        file: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The contents are not a valid trace.
    #[error("{0}")]
    Invalid(Problems),
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the caller named it.
    pub file: String,
    /// From 1; 0 for the file as a whole.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Field or column; empty where the line as a whole is meant.
    pub field: Cow<'static, str>,
    /// What is there.
    pub found: Cow<'static, str>,
    /// What should be there.
    pub expected: Cow<'static, str>,
    /// What to do about it.
    pub suggestion: Cow<'static, str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(
            f,
            "found {}, expected {}; {}",
            self.found, self.expected, self.suggestion
        )
    }
}

/// All problems of one file: the first ones in full, all of them counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    shown: Vec<Problem>,
    total: u64,
}

impl Problems {
    /// How many problems are kept in full.
    pub const SHOWN: usize = 20;

    /// The problems that are kept in full, in the order in which they were found.
    #[must_use]
    pub fn shown(&self) -> &[Problem] {
        &self.shown
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// True when nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Adds one; `problem` is called only while there is room to keep it.
    pub(crate) fn add(&mut self, problem: impl FnOnce() -> Problem) {
        if self.shown.len() < Problems::SHOWN {
            self.shown.push(problem());
        }
        self.total += 1;
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.shown.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        match self.total - self.shown.len() as u64 {
            0 => Ok(()),
            1 => f.write_str("\nand 1 more problem"),
            more => write!(f, "\nand {more} more problems"),
        }
    }
}

/// Something that was read with a shrug. Under [`crate::ReadOptions::is_strict`] it is a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What kind of thing.
    pub kind: WarningKind,
    /// How often.
    pub count: u64,
    /// Where first.
    pub first: Place,
    /// Names that belong to it (unknown keys), in order of appearance; at most [`Warning::NAMES`].
    pub names: Vec<String>,
}

/// What a [`Warning`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningKind {
    /// Rows that are earlier than a row before them. They are sorted, stably.
    UnsortedRows,
    /// Keys or columns that mean nothing here. They are skipped.
    UnknownKeys,
    /// Rows of failed requests (no answer). They are left out.
    FailedRequests,
    /// Rows that continue a conversation whose previous turn is not in the file. They stand alone.
    MissingParents,
    /// A file without timestamps: all requests may be sent at once.
    NoTimestamps,
}

impl Warning {
    /// How many names are kept.
    pub const NAMES: usize = 20;

    pub(crate) fn found(&self) -> String {
        let count = self.count;
        let s = if count == 1 { "" } else { "s" };
        match self.kind {
            WarningKind::UnsortedRows => format!("{count} row{s} earlier than a row before"),
            WarningKind::UnknownKeys => {
                format!(
                    "{count} value{s} of unknown keys ({})",
                    self.names.join(", ")
                )
            }
            WarningKind::FailedRequests => format!("{count} failed request{s}"),
            WarningKind::MissingParents => {
                format!("{count} row{s} whose previous turn is not in the file")
            }
            WarningKind::NoTimestamps => format!("{count} row{s} and no timestamp"),
        }
    }

    pub(crate) fn expected(&self) -> &'static str {
        match self.kind {
            WarningKind::UnsortedRows => "rows in order of time",
            WarningKind::UnknownKeys => "keys of the format only",
            WarningKind::FailedRequests => "answered requests only",
            WarningKind::MissingParents => "every earlier turn",
            WarningKind::NoTimestamps => "a timestamp in every row that starts a conversation",
        }
    }

    fn consequence(&self) -> &'static str {
        match self.kind {
            WarningKind::UnsortedRows => "sorted by time",
            WarningKind::UnknownKeys => "skipped",
            WarningKind::FailedRequests => "left out",
            WarningKind::MissingParents => "each starts a conversation of its own",
            WarningKind::NoTimestamps => "all may be sent at time 0: use it with a closed loop",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}",
            self.first,
            self.found(),
            self.consequence()
        )
    }
}
