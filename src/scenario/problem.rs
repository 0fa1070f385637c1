//! What is wrong with a scenario: every problem with its place, all at once.

use super::tree::Place;
use std::cell::RefCell;
use std::fmt;

/// How a scenario can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value, a name or a file is wrong whatever stands beside it: a mistake of the writer.
    Mistake,
    /// Every value is fine and they do not go together: there can be no such deployment.
    Conflict,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How it is wrong.
    pub kind: Kind,
    /// Where: `scenario.yaml:12:5`, or the override that brought it in.
    pub place: String,
    /// Dotted path of the field; empty where the file as a whole is meant.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong: overrides first, then by line and column of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems while a scenario is read. What several pools share is read once for each and reported once.
#[derive(Debug)]
pub struct Log {
    file: String,
    problems: RefCell<Vec<(Option<Place>, Problem)>>,
}

impl Log {
    /// A log of the problems of this file.
    pub fn new(file: &str) -> Log {
        Log {
            file: file.to_owned(),
            problems: RefCell::default(),
        }
    }

    /// True once something is wrong.
    pub fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// Adds a mistake; `place` is absent where the file as a whole is meant.
    pub fn add(
        &self,
        place: Option<&Place>,
        field: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.add_with(place, field, found, expected, None);
    }

    /// The same with a suggestion.
    pub fn add_with(
        &self,
        place: Option<&Place>,
        field: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.add_kind(Kind::Mistake, place, field, found, expected, suggestion);
    }

    /// Adds a problem of either kind.
    pub fn add_kind(
        &self,
        kind: Kind,
        place: Option<&Place>,
        field: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
        suggestion: Option<String>,
    ) {
        let text = place.map_or_else(|| self.file.clone(), |place| place.text(&self.file));
        let (found, expected) = (found.into(), expected.into());
        let problem = Problem {
            kind,
            place: text,
            field: field.to_owned(),
            found,
            expected,
            suggestion,
        };
        let mut problems = self.problems.borrow_mut();
        if problems.iter().all(|(_, other)| *other != problem) {
            problems.push((place.cloned(), problem));
        }
    }

    /// `value` if nothing was wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        let mut problems = self.problems.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                assert!(!problems.is_empty(), "what could not be read was reported");
                problems.sort_by_key(|(place, _)| match place {
                    None | Some(Place::Override(_)) => (0, 0),
                    Some(Place::File { line, column }) => (*line, *column),
                });
                Err(Problems(
                    problems.into_iter().map(|(_, problem)| problem).collect(),
                ))
            }
        }
    }
}

/// `did you mean ...?` with the candidate nearest to `name`, if one is near enough.
pub fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let name = name.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let likeness = strsim::jaro_winkler(&name, &candidate.to_lowercase());
        if likeness > best.map_or(0.75, |(best, _)| best) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}
