//! Overrides: `engine.block_size=16` sets one field of the tree before it is read.
//!
//! Sections on the way are made if they are not there. Pools are addressed by name (`pools.decode.workers`), by number
//! from 0, or all at once (`pools.*.workers`). A value is YAML; `null` removes what the file says.

use super::problem::{Log, did_you_mean};
use super::tree::{Entry, Node, Place, Value, parse_override, quoted};

/// One field set to one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Where it was given, for messages: `--set router.mode`, `--workers`.
    pub place: String,
    /// Dotted path.
    pub field: String,
    /// YAML text.
    pub value: String,
}

impl Set {
    /// As `--set field=value` says it.
    pub fn by_option(field: &str, value: &str) -> Set {
        Set {
            place: format!("--set {field}"),
            field: field.to_owned(),
            value: value.to_owned(),
        }
    }
}

/// Sets one field.
pub fn set(root: &mut Node, set: &Set, log: &Log) {
    let Set {
        place,
        field,
        value,
    } = set;
    let names: Vec<&str> = field.trim().split('.').map(str::trim).collect();
    if names.iter().any(|name| name.is_empty()) {
        log.add(
            Some(&Place::Override(place.clone())),
            "",
            quoted(field),
            "a field as in `engine.block_size`",
        );
        return;
    }
    let value = parse_override(place, value);
    set_in(
        root,
        &Path {
            names: &names,
            at: 0,
        },
        &value,
        log,
    );
}

/// A dotted path, and how far it has been followed.
struct Path<'a> {
    names: &'a [&'a str],
    at: usize,
}

impl Path<'_> {
    fn next(&self) -> Path<'_> {
        Path {
            names: self.names,
            at: self.at + 1,
        }
    }

    fn followed(&self) -> String {
        self.names[..self.at].join(".")
    }
}

fn set_in(node: &mut Node, path: &Path<'_>, value: &Node, log: &Log) {
    let Some(&name) = path.names.get(path.at) else {
        *node = value.clone();
        return;
    };
    if node.is_null() {
        *node = Node {
            place: value.place.clone(),
            raw: String::new(),
            value: Value::Map(Vec::new()),
        };
    }
    match &mut node.value {
        Value::Map(entries) => {
            let index = entries
                .iter()
                .position(|entry| entry.name == name)
                .unwrap_or_else(|| {
                    let null = Node {
                        place: value.place.clone(),
                        raw: String::new(),
                        value: Value::Null,
                    };
                    entries.push(Entry {
                        name: name.to_owned(),
                        place: value.place.clone(),
                        node: null,
                    });
                    entries.len() - 1
                });
            set_in(&mut entries[index].node, &path.next(), value, log);
        }
        Value::List(items) => set_in_list(items, name, path, value, log),
        _ => {
            log.add(
                Some(&value.place),
                &path.followed(),
                node.found(),
                "a section or a list",
            );
        }
    }
}

fn set_in_list(items: &mut [Node], name: &str, path: &Path<'_>, value: &Node, log: &Log) {
    let names: Vec<String> = items.iter().map(name_of).collect();
    if name == "*" {
        items
            .iter_mut()
            .for_each(|item| set_in(item, &path.next(), value, log));
        return;
    }
    let index = names
        .iter()
        .position(|item| item == name)
        .or_else(|| name.parse().ok());
    if let Some(item) = index.and_then(|index| items.get_mut(index)) {
        set_in(item, &path.next(), value, log);
        return;
    }
    let known: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
    let expected = if known.is_empty() {
        "a list of named items".to_owned()
    } else {
        format!("one of {}", known.join(", "))
    };
    let suggestion = did_you_mean(name, known);
    log.add_with(
        Some(&value.place),
        &path.followed(),
        quoted(name),
        expected,
        suggestion,
    );
}

/// What an item of a list is addressed by.
fn name_of(item: &Node) -> String {
    item.get("name")
        .map_or_else(String::new, |name| match &name.value {
            Value::Text(text) => text.clone(),
            _ => name.raw.clone(),
        })
}
