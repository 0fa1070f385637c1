//! A YAML document as a tree in which every value knows where it was written and how.

use super::problem::Log;
use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};

/// Largest file read: a scenario of a thousand pools is far below.
const MAX_BYTES: usize = 1 << 20;
/// Deepest indentation, in columns. The YAML reader recurses once per level; this bounds its stack.
const MAX_INDENT: usize = 80;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file; both from 1.
    File {
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// In an override, given there: `--set router.mode`.
    Override(String),
}

impl Place {
    /// For messages.
    pub fn text(&self, file: &str) -> String {
        match self {
            Place::File { line, column } => format!("{file}:{line}:{column}"),
            Place::Override(place) => place.clone(),
        }
    }

    fn of(marker: Marker) -> Place {
        Place::File {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where.
    pub place: Place,
    /// How it was written; empty for lists and maps of the file.
    pub raw: String,
    /// What it is.
    pub value: Value,
}

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number, whole or not.
    Number(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Named values in order, each name once.
    Map(Vec<Entry>),
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Where the name was written.
    pub place: Place,
    /// The value.
    pub node: Node,
}

impl Node {
    /// What was found, for a message.
    pub fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a section".to_owned(),
            _ => quoted(&self.raw),
        }
    }

    /// The named value, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        entries
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| &entry.node)
    }

    /// True when nothing is written.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }
}

/// Text in back quotes, cut to a length that fits a line.
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN)
        .collect();
    if text.chars().count() > SHOWN {
        format!("`{line}...`")
    } else {
        format!("`{line}`")
    }
}

/// Reads a file that holds one YAML document. `None` after a problem.
pub fn parse_file(text: &str, log: &Log) -> Option<Node> {
    if text.len() > MAX_BYTES {
        log.add(
            None,
            "",
            format!("{} bytes", text.len()),
            "a scenario of at most 1 MiB",
        );
        return None;
    }
    if let Some(line) = too_deep(text) {
        let place = Place::File {
            line,
            column: MAX_INDENT,
        };
        log.add(
            Some(&place),
            "",
            "deeper nesting",
            format!("at most {MAX_INDENT} columns of indentation"),
        );
        return None;
    }
    let documents = match MarkedYaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => {
            let place = Place::of(*error.marker());
            match error.info() {
                "duplicated key in mapping" => {
                    log.add(
                        Some(&place),
                        "",
                        "a name that was already given",
                        "every field once",
                    );
                }
                info => log.add_with(
                    Some(&place),
                    "",
                    "broken YAML",
                    "valid YAML",
                    Some(info.to_owned()),
                ),
            }
            return None;
        }
    };
    if let Some(second) = documents.get(1) {
        log.add(
            Some(&Place::of(second.span.start)),
            "",
            "a second YAML document",
            "one",
        );
        return None;
    }
    let lines: Vec<&str> = text.lines().collect();
    let root = documents
        .first()
        .map(|document| node(document, &lines, log))
        .filter(|root| !root.is_null());
    if root.is_none() {
        log.add(None, "", "an empty file", "a scenario");
    }
    root
}

/// Reads the value of an override: YAML if it is, plain text otherwise.
pub fn parse_override(place: &str, text: &str) -> Node {
    let place = Place::Override(place.to_owned());
    let log = Log::new("");
    let parsed = if text.trim().is_empty() {
        None
    } else {
        parse_file(text, &log)
    };
    let value = parsed
        .filter(|_| log.finish(Some(())).is_ok())
        .map(|node| moved(node.value, &place));
    let value = value.unwrap_or_else(|| match text.trim() {
        "" | "~" | "null" => Value::Null,
        _ => Value::Text(text.to_owned()),
    });
    Node {
        place,
        raw: text.to_owned(),
        value,
    }
}

/// The value as if all of it had been written at `place`.
fn moved(value: Value, place: &Place) -> Value {
    let node = |node: Node| Node {
        place: place.clone(),
        raw: node.raw,
        value: moved(node.value, place),
    };
    match value {
        Value::List(items) => Value::List(items.into_iter().map(node).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|entry| Entry {
                    name: entry.name,
                    place: place.clone(),
                    node: node(entry.node),
                })
                .collect(),
        ),
        scalar => scalar,
    }
}

/// The first line that is indented so deep that the YAML reader should not see it. Block structure nests at most twice
/// per column, and only behind a run of blanks and indicators.
fn too_deep(text: &str) -> Option<usize> {
    let is_too_deep = |line: &str| {
        let rest = line.trim_start_matches([' ', '\t', '-', '?', ':']);
        line.len() - rest.len() > MAX_INDENT && !line.trim().is_empty() && !rest.starts_with('#')
    };
    text.split(['\n', '\r'])
        .position(is_too_deep)
        .map(|index| index + 1)
}

fn node(yaml: &MarkedYaml<'_>, lines: &[&str], log: &Log) -> Node {
    let place = Place::of(yaml.span.start);
    let mut raw = String::new();
    let value = match &yaml.data {
        YamlData::Value(scalar) => {
            raw = written(yaml, lines).unwrap_or_default();
            match scalar {
                Scalar::Null => Value::Null,
                Scalar::Boolean(flag) => Value::Flag(*flag),
                Scalar::Integer(whole) => Value::Number(*whole as f64),
                Scalar::FloatingPoint(number) => Value::Number(number.into_inner()),
                Scalar::String(text) => Value::Text(text.to_string()),
            }
        }
        YamlData::Sequence(items) => {
            Value::List(items.iter().map(|item| node(item, lines, log)).collect())
        }
        YamlData::Mapping(entries) => Value::Map(
            entries
                .iter()
                .filter_map(|(key, value)| entry(key, value, lines, log))
                .collect(),
        ),
        YamlData::Tagged(..)
        | YamlData::Alias(_)
        | YamlData::BadValue
        | YamlData::Representation(..) => {
            log.add(Some(&place), "", "a YAML tag or reference", "a plain value");
            Value::Null
        }
    };
    Node { place, raw, value }
}

fn entry(key: &MarkedYaml<'_>, value: &MarkedYaml<'_>, lines: &[&str], log: &Log) -> Option<Entry> {
    let place = Place::of(key.span.start);
    let key = node(key, lines, log);
    let name = match key.value {
        Value::Text(text) => text,
        Value::Flag(_) | Value::Number(_) => key.raw,
        Value::Null | Value::List(_) | Value::Map(_) => {
            log.add(Some(&place), "", key.found(), "the name of a field");
            return None;
        }
    };
    Some(Entry {
        name,
        place,
        node: node(value, lines, log),
    })
}

/// A scalar as it stands in the file, if it stands on one line.
fn written(yaml: &MarkedYaml<'_>, lines: &[&str]) -> Option<String> {
    let (start, end) = (yaml.span.start, yaml.span.end);
    let line = lines.get(start.line().checked_sub(1)?)?;
    if start.line() != end.line() {
        return Some(line.chars().skip(start.col()).collect());
    }
    Some(
        line.chars()
            .skip(start.col())
            .take(end.col().saturating_sub(start.col()))
            .collect(),
    )
}
