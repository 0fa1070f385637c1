//! `sweep`: the fields that a sweep varies, beside the scenario they are fields of.
//!
//! ```yaml
//! sweep:
//!   grid: {pools.agg.workers: [1, 2, 4], engine.block_size: "16,64"}   # the product of all lines
//!   zip: [{pools.agg.parallel.tp: [1, 2], pools.agg.workers: [8, 4]}]  # lines of an item advance together
//!   list: [{engine.max_num_seqs: 64, router.mode: kv}]                 # whole configurations
//! ```
//!
//! Values stay text, as on a command line: the scenario that they override knows their kinds.

use super::problem::{Log, Problems};
use super::section::Section;
use super::tree::{Entry, Node, Place, Value, parse_file};
use std::path::Path;

/// One factor of a sweep's space, with the place it was given at. Fields are dotted paths, values YAML text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axes {
    /// One field over a list as on the command line: `1,2,4` or `1..4`.
    Text {
        /// For messages.
        place: String,
        /// The field.
        field: String,
        /// The list.
        values: String,
    },
    /// Fields that advance together.
    Zip {
        /// For messages.
        place: String,
        /// Each field with its values.
        fields: Vec<(String, Vec<String>)>,
    },
    /// Whole configurations.
    List {
        /// For messages.
        place: String,
        /// What each sets.
        entries: Vec<Vec<(String, String)>>,
    },
}

/// Reads the section `sweep` of a scenario file; empty when there is none.
///
/// # Errors
/// Everything in it that cannot be read. Whether the fields exist is not asked here.
pub fn sweep(path: Option<&Path>, text: &str) -> Result<Vec<Axes>, Problems> {
    let file = path.map_or_else(|| "scenario".to_owned(), |path| path.display().to_string());
    let log = Log::new(&file);
    let axes = parse_file(text, &log).map(|root| {
        let section = Section::new(&log, "sweep", root.get("sweep"));
        let mut axes = Vec::new();
        grid(&section, &file, &mut axes);
        zip(&section, &file, &mut axes);
        list(&section, &file, &mut axes);
        section.finish();
        axes
    });
    log.finish(axes)
}

fn grid(section: &Section<'_>, file: &str, axes: &mut Vec<Axes>) {
    let Some(grid) = section.field("grid") else {
        return;
    };
    for (field, values, at) in entries(section, grid.node, &grid.path) {
        let path = format!("{}.{field}", grid.path);
        let place = format!("{} {path}", at.text(file));
        match &values.value {
            Value::List(items) => {
                let fields = vec![(field.to_owned(), scalars(section, items, &path))];
                axes.push(Axes::Zip { place, fields });
            }
            Value::Text(text) => axes.push(Axes::Text {
                place,
                field: field.to_owned(),
                values: text.clone(),
            }),
            Value::Null | Value::Map(_) => wrong(
                section,
                values,
                &path,
                "a list of values, or text such as `1,2,4`",
            ),
            Value::Flag(_) | Value::Number(_) => {
                axes.push(Axes::Zip {
                    place,
                    fields: vec![(field.to_owned(), vec![values.raw.clone()])],
                });
            }
        }
    }
}

fn zip(section: &Section<'_>, file: &str, axes: &mut Vec<Axes>) {
    let Some((items, zip)) = section.list("zip") else {
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{}[{index}]", zip.path);
        let fields = entries(section, item, &path)
            .into_iter()
            .filter_map(|(field, values, _)| match &values.value {
                Value::List(items) => Some((
                    field.to_owned(),
                    scalars(section, items, &format!("{path}.{field}")),
                )),
                _ => {
                    wrong(
                        section,
                        values,
                        &format!("{path}.{field}"),
                        "a list of values",
                    );
                    None
                }
            });
        axes.push(Axes::Zip {
            place: format!("{} {path}", item.place.text(file)),
            fields: fields.collect(),
        });
    }
}

fn list(section: &Section<'_>, file: &str, axes: &mut Vec<Axes>) {
    let Some((items, list)) = section.list("list") else {
        return;
    };
    let configuration = |(index, item): (usize, &Node)| {
        let path = format!("{}[{index}]", list.path);
        let set = entries(section, item, &path)
            .into_iter()
            .map(|(field, value, _)| {
                (
                    field.to_owned(),
                    scalar(section, value, &format!("{path}.{field}")),
                )
            });
        set.collect()
    };
    let place = format!("{} {}", list.node.place.text(file), list.path);
    axes.push(Axes::List {
        place,
        entries: items.iter().enumerate().map(configuration).collect(),
    });
}

/// The lines of a map of fields.
fn entries<'a>(
    section: &Section<'_>,
    node: &'a Node,
    path: &str,
) -> Vec<(&'a str, &'a Node, &'a Place)> {
    if let Value::Map(entries) = &node.value {
        let line = |entry: &'a Entry| (entry.name.as_str(), &entry.node, &entry.place);
        return entries.iter().map(line).collect();
    }
    wrong(
        section,
        node,
        path,
        "fields of the scenario with their values",
    );
    Vec::new()
}

fn scalars(section: &Section<'_>, items: &[Node], path: &str) -> Vec<String> {
    let item = |(index, item): (usize, &Node)| scalar(section, item, &format!("{path}[{index}]"));
    items.iter().enumerate().map(item).collect()
}

fn scalar(section: &Section<'_>, node: &Node, path: &str) -> String {
    match node.value {
        Value::List(_) | Value::Map(_) => wrong(section, node, path, "one value"),
        Value::Null => return "null".to_owned(),
        Value::Flag(_) | Value::Number(_) | Value::Text(_) => {}
    }
    node.raw.clone()
}

fn wrong(section: &Section<'_>, node: &Node, path: &str, expected: &str) {
    let hint =
        Some("values are single words or numbers".to_owned()).filter(|_| expected == "one value");
    section
        .log()
        .add_with(Some(&node.place), path, node.found(), expected, hint);
}
