//! Reads the fields of a section by name and kind, and reports what is not there to be read.
//!
//! A section may lie over another one: the engine of a pool over the engine of the scenario. A field is taken from the
//! upper one if it is written there. Every reader asks for all fields it knows, so that [`Section::finish`] can tell
//! which names are unknown and which known one is nearest.

use super::problem::{Kind, Log, did_you_mean};
use super::tree::{Node, Place, Value};
use calibration::CalibrationError;
use std::cell::RefCell;
use std::ops::RangeInclusive;

/// What is found where nobody asks for a name.
pub const UNKNOWN_FIELD: &str = "an unknown field";

/// A section of the scenario.
#[derive(Debug)]
pub struct Section<'a> {
    log: &'a Log,
    /// Upper layer first; the path of each.
    layers: Vec<(&'a Node, String)>,
    /// Path for messages about what is missing.
    path: String,
    known: RefCell<Vec<&'static str>>,
}

/// A field that is there.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    /// Its value.
    pub node: &'a Node,
    /// Its dotted path.
    pub path: String,
}

impl<'a> Section<'a> {
    /// The section at `path`; `node` is absent when nothing is written there.
    pub fn new(log: &'a Log, path: &str, node: Option<&'a Node>) -> Section<'a> {
        Section::over(log, path, node, &[])
    }

    /// The section at `path` over the layers of another.
    fn over(
        log: &'a Log,
        path: &str,
        node: Option<&'a Node>,
        below: &[(&'a Node, String)],
    ) -> Section<'a> {
        let mut layers = Vec::new();
        if let Some(node) = node.filter(|node| !node.is_null()) {
            match node.value {
                Value::Map(_) => layers.push((node, path.to_owned())),
                _ => log.add(
                    Some(&node.place),
                    path,
                    node.found(),
                    "a section of named fields",
                ),
            }
        }
        layers.extend_from_slice(below);
        Section {
            log,
            layers,
            path: path.to_owned(),
            known: RefCell::default(),
        }
    }

    /// The section of this name.
    pub fn section(&self, name: &'static str) -> Section<'a> {
        let field = self.field(name);
        let path = field
            .as_ref()
            .map_or_else(|| self.path_of(name), |field| field.path.clone());
        Section::new(self.log, &path, field.map(|field| field.node))
    }

    /// The section of this name over `below`.
    pub fn section_over(&self, name: &'static str, below: &Section<'a>) -> Section<'a> {
        let node = self.field(name).map(|field| field.node);
        Section::over(self.log, &self.path_of(name), node, &below.layers)
    }

    /// The field, if something is written there. A null in an upper layer hides what is below.
    pub fn field(&self, name: &'static str) -> Option<Field<'a>> {
        self.known.borrow_mut().push(name);
        let (node, path) = self
            .layers
            .iter()
            .find_map(|(layer, path)| Some((layer.get(name)?, path)))?;
        (!node.is_null()).then(|| Field {
            node,
            path: join(path, name),
        })
    }

    /// True if the section is written, be it empty.
    pub fn is_written(&self) -> bool {
        !self.layers.is_empty()
    }

    /// True if something is written there.
    pub fn has(&self, name: &'static str) -> bool {
        self.field(name).is_some()
    }

    /// True if something is written there under a name that belongs to another kind of section. It is then known, and else
    /// not proposed to anybody.
    pub fn has_foreign(&self, name: &'static str) -> bool {
        let mut layers = self.layers.iter();
        let written = layers.find_map(|(layer, _)| layer.get(name));
        if written.is_some() {
            self.known.borrow_mut().push(name);
        }
        written.is_some_and(|node| !node.is_null())
    }

    /// Where problems go.
    pub fn log(&self) -> &'a Log {
        self.log
    }

    /// The dotted path of a field of this section.
    pub fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Text as it is written, quotes removed.
    pub fn text(&self, name: &'static str) -> Option<(String, Field<'a>)> {
        let field = self.field(name)?;
        match (&field.node.value, &field.node.place) {
            (Value::Text(text), _) => Some((text.clone(), field)),
            // An override is meant as text where text is expected, whatever it would be in YAML.
            (_, Place::Override(_)) | (Value::Number(_), _) => {
                Some((field.node.raw.clone(), field))
            }
            _ => {
                self.wrong(&field, "text");
                None
            }
        }
    }

    /// A whole number.
    pub fn whole(&self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let field = self.field(name)?;
        let whole = match field.node.value {
            // Beyond 2^53 only digits are exact.
            Value::Number(number) => field.node.raw.parse().ok().or_else(|| {
                (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
            }),
            _ => None,
        };
        if let Some(whole) = whole.filter(|whole| range.contains(whole)) {
            return Some(whole);
        }
        let expected = match (*range.start(), *range.end()) {
            (only, end) if only == end => only.to_string(),
            (least, u64::MAX) => format!("a whole number from {least} on"),
            (least, most) => format!("a whole number from {least} to {most}"),
        };
        self.wrong(&field, &expected);
        None
    }

    /// A whole number that fits 32 bits.
    pub fn whole32(&self, name: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let whole = self.whole(name, u64::from(*range.start())..=u64::from(*range.end()))?;
        Some(u32::try_from(whole).expect("the range ends below 2^32"))
    }

    /// A whole number of either sign that fits 32 bits.
    pub fn signed(&self, name: &'static str) -> Option<i32> {
        let field = self.field(name)?;
        if let Value::Number(number) = field.node.value
            && number.fract() == 0.0
            && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number)
        {
            return Some(number as i32);
        }
        self.wrong(&field, "a whole number from -2147483648 to 2147483647");
        None
    }

    /// A number.
    pub fn number(&self, name: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let field = self.field(name)?;
        if let Value::Number(number) = field.node.value
            && range.contains(&number)
        {
            return Some(number);
        }
        let expected = if *range.start() == f64::MIN_POSITIVE {
            format!("a number above 0, at most {}", range.end())
        } else {
            format!("a number from {} to {}", range.start(), range.end())
        };
        self.wrong(&field, &expected);
        None
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &'static str) -> Option<bool> {
        let field = self.field(name)?;
        if let Value::Flag(flag) = field.node.value {
            return Some(flag);
        }
        self.wrong(&field, "true or false");
        None
    }

    /// One of several words; `-` and `_` are alike, and so are upper and lower case.
    pub fn choice<T: Copy>(&self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let (text, field) = self.text(name)?;
        let same = |word: &str| {
            word.to_lowercase().replace('_', "-") == text.trim().to_lowercase().replace('_', "-")
        };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| same(word)) {
            return Some(*choice);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = if words.len() == 1 {
            words[0].to_owned()
        } else {
            format!("one of {}", words.join(", "))
        };
        let suggestion = did_you_mean(&text, words);
        self.log.add_with(
            Some(&field.node.place),
            &field.path,
            field.node.found(),
            expected,
            suggestion,
        );
        None
    }

    /// A list; its items.
    pub fn list(&self, name: &'static str) -> Option<(&'a [Node], Field<'a>)> {
        let field = self.field(name)?;
        if let Value::List(items) = &field.node.value {
            return Some((items, field));
        }
        self.wrong(&field, "a list");
        None
    }

    /// A list of sections.
    pub fn sections(&self, name: &'static str) -> Option<Vec<Section<'a>>> {
        let (items, field) = self.list(name)?;
        let item = |(index, item)| {
            let path = format!("{}[{index}]", field.path);
            Section::new(self.log, &path, Some(item))
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Reports fields that the real system has and this simulator does not model, if they are written.
    pub fn not_modelled(&self, names: &[&'static str]) {
        for name in names {
            if let Some(field) = self.field(name) {
                self.unmodelled(&field, "remove it");
            }
        }
    }

    /// Reports a field that has its place elsewhere, if it is written.
    pub fn belongs_to(&self, name: &'static str, place: &str) {
        if let Some(field) = self.field(name) {
            let expected = format!("it as {place}");
            self.mistake(name, field.node.found(), expected, "move it there");
        }
    }

    /// Reports a value that this simulator does not model.
    pub fn unmodelled(&self, field: &Field<'_>, suggestion: &str) {
        let (place, found) = (Some(&field.node.place), field.node.found());
        let expected = "nothing: it is not modelled yet";
        self.log.add_with(
            place,
            &field.path,
            found,
            expected,
            Some(suggestion.to_owned()),
        );
    }

    /// Reports that a field does not fit the others. The place is the field's, or the section's if it is not written.
    pub fn conflict(
        &self,
        name: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
        suggestion: &str,
    ) {
        self.report(Kind::Conflict, name, found, expected, suggestion);
    }

    /// Reports that a field is wrong by itself, or missing.
    pub fn mistake(
        &self,
        name: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
        suggestion: &str,
    ) {
        self.report(Kind::Mistake, name, found, expected, suggestion);
    }

    fn report(
        &self,
        kind: Kind,
        name: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
        suggestion: &str,
    ) {
        let (place, path) = match self.field(name) {
            Some(field) => (Some(field.node.place.clone()), field.path),
            None => (
                self.layers.first().map(|(layer, _)| layer.place.clone()),
                self.path_of(name),
            ),
        };
        let suggestion = (!suggestion.is_empty()).then(|| suggestion.to_owned());
        self.log
            .add_kind(kind, place.as_ref(), &path, found, expected, suggestion);
    }

    /// Reports what a registry has against a name, or a model against what surrounds it; what does not fit or was not
    /// measured is a conflict always. A problem that names another field of this section goes there.
    pub fn refused(&self, kind: Kind, name: &'static str, error: &CalibrationError) {
        for problem in error.problems() {
            let suggestion = problem.suggestion.as_deref().unwrap_or_default();
            let known = self
                .known
                .borrow()
                .iter()
                .copied()
                .find(|known| *known == problem.field);
            match (known, problem.found.as_str()) {
                (Some(field), found) => {
                    self.report(kind, field, found, problem.expected.clone(), suggestion)
                }
                (None, "nothing") => {
                    self.report(
                        kind,
                        name,
                        format!("no {}", problem.field),
                        problem.expected.clone(),
                        suggestion,
                    );
                }
                (None, found) => {
                    self.report(
                        kind,
                        name,
                        format!("{} {found}", problem.field),
                        problem.expected.clone(),
                        suggestion,
                    );
                }
            }
        }
        let found = self
            .field(name)
            .map_or_else(|| "nothing".to_owned(), |field| field.node.found());
        match error {
            CalibrationError::Invalid(_) => {}
            CalibrationError::NotModelled { reasons, .. } => {
                self.report(
                    kind,
                    name,
                    found,
                    "one that is modelled",
                    &format!("not modelled yet: {}", reasons.join("; ")),
                );
            }
            CalibrationError::NotMeasured { .. } => {
                self.conflict(name, found, "one that was measured", &error.to_string());
            }
            CalibrationError::DoesNotFit { detail, .. } => {
                self.conflict(
                    name,
                    "too little memory",
                    "room for weights and KV cache",
                    detail,
                );
            }
            CalibrationError::Read { .. } | CalibrationError::Json { .. } => {
                self.mistake(name, found, "a readable config.json", &error.to_string());
            }
        }
    }

    /// Reports names that nobody asked for. Those of a lower layer are reported by the section it came from.
    pub fn finish(&self) {
        let Some((
            Node {
                value: Value::Map(entries),
                ..
            },
            path,
        )) = self.layers.first()
        else {
            return;
        };
        if *path != self.path {
            return;
        }
        let known = self.known.borrow();
        for entry in entries
            .iter()
            .filter(|entry| !known.contains(&entry.name.as_str()))
        {
            let path = join(path, &entry.name);
            let suggestion = did_you_mean(&entry.name, known.iter().copied())
                .unwrap_or_else(|| format!("fields here are {}", listed(&known)));
            self.log.add_with(
                Some(&entry.place),
                &path,
                UNKNOWN_FIELD,
                "a known one",
                Some(suggestion),
            );
        }
    }

    fn wrong(&self, field: &Field<'_>, expected: &str) {
        let suggestion = rewritten(field.node, expected);
        self.log.add_with(
            Some(&field.node.place),
            &field.path,
            field.node.found(),
            expected,
            suggestion,
        );
    }
}

/// What the writer probably meant: a number in quotes, or with separators.
fn rewritten(node: &Node, expected: &str) -> Option<String> {
    let Value::Text(text) = &node.value else {
        return None;
    };
    if expected.contains("number") {
        let digits = text.trim().replace(['_', ','], "");
        let number = digits
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())?;
        return Some(if number == 0.0 {
            "write 0".to_owned()
        } else {
            format!("write {digits}")
        });
    }
    match text.trim().to_lowercase().as_str() {
        "yes" | "on" | "true" if expected.starts_with("true") => Some("write true".to_owned()),
        "no" | "off" | "false" if expected.starts_with("true") => Some("write false".to_owned()),
        _ => None,
    }
}

fn listed(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
