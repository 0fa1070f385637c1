//! `workload.synth`: the generator's parameters, which describe themselves to serde.
//!
//! serde stops at the first value it cannot read. To report all of them, that value is blanked in a copy of the section
//! and reading starts over; what then fails only because something inside it is blank is blanked silently in turn. Each
//! round blanks one value, so it ends.

mod deserialize;

use super::problem::{Log, did_you_mean};
use super::section::{Field, UNKNOWN_FIELD};
use super::tree::{Entry, Node, Place, Value, quoted};
use deserialize::{At, Fault, Step, Wrong, blank, is_blank};
use serde::Deserialize;
use traces::SynthSpec;

/// A name and what it stands for.
type Preset = (&'static str, fn() -> SynthSpec);

/// Presets by name.
const PRESETS: [Preset; 2] = [
    ("conversation", SynthSpec::conversation),
    ("quick", SynthSpec::quick),
];

/// Names in the section that are not the generator's.
const OWN_NAMES: [&str; 2] = ["preset", "reuse"];

/// Reads the parameters: those of a preset, and over them what the section says. `None` after a problem.
pub fn read(
    field: &Field<'_>,
    preset: Option<(String, Field<'_>)>,
    log: &Log,
) -> Option<SynthSpec> {
    let base = match &preset {
        None => Some(SynthSpec::default()),
        Some((name, preset)) => by_name(name, preset, log),
    };
    let mut node = field.node.clone();
    let Value::Map(entries) = &mut node.value else {
        log.add(
            Some(&node.place),
            &field.path,
            node.found(),
            "a section of named fields",
        );
        return None;
    };
    entries.retain(|entry| !OWN_NAMES.contains(&entry.name.as_str()));
    complete(
        entries,
        &base.clone().unwrap_or_default(),
        &field.node.place,
    );

    let (spec, is_clean) = read_all(&mut node, &field.path, log);
    let spec = spec?;
    let is_sound = match spec.check("synth") {
        Ok(()) => true,
        Err(problems) => {
            for problem in problems.shown() {
                let about = nearest_node(&node, &problem.field);
                // What has a blank in it was reported already.
                if !holds_blank(about) {
                    let path = format!("{}.{}", field.path, problem.field);
                    log.add(
                        Some(&about.place),
                        &path,
                        problem.found.clone(),
                        problem.expected.clone(),
                    );
                }
            }
            false
        }
    };
    (is_clean && is_sound && base.is_some()).then_some(spec)
}

fn by_name(name: &str, field: &Field<'_>, log: &Log) -> Option<SynthSpec> {
    let spec = PRESETS
        .iter()
        .find(|(preset, _)| *preset == name.trim())
        .map(|(_, spec)| spec());
    if spec.is_none() {
        let names = PRESETS.map(|(preset, _)| preset);
        let expected = format!("one of {}", names.join(", "));
        log.add_with(
            Some(&field.node.place),
            &field.path,
            quoted(name),
            expected,
            did_you_mean(name, names),
        );
    }
    spec
}

/// Adds what the section does not say. Who says how many requests there are or how they arrive means the rate, not the
/// preset's duration.
fn complete(entries: &mut Vec<Entry>, base: &SynthSpec, place: &Place) {
    let has = |entries: &[Entry], name: &str| entries.iter().any(|entry| entry.name == name);
    let is_by_rate = has(entries, "requests") || has(entries, "arrivals");
    let serde_json::Value::Object(base) =
        serde_json::to_value(base).expect("plain data without map keys")
    else {
        unreachable!("a struct serializes to an object")
    };
    for (name, value) in base {
        let follows_from_rate = name == "duration_s" && is_by_rate;
        if !follows_from_rate && !has(entries, &name) {
            entries.push(Entry {
                name,
                place: place.clone(),
                node: from_json(&value, place),
            });
        }
    }
    if !has(entries, "duration_s") {
        let node = Node {
            place: place.clone(),
            raw: String::new(),
            value: Value::Null,
        };
        entries.push(Entry {
            name: "duration_s".to_owned(),
            place: place.clone(),
            node,
        });
    }
}

fn from_json(json: &serde_json::Value, place: &Place) -> Node {
    let value = match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Flag(*flag),
        serde_json::Value::Number(number) => {
            Value::Number(number.as_f64().expect("parameters are 64-bit floats"))
        }
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(items) => {
            Value::List(items.iter().map(|item| from_json(item, place)).collect())
        }
        serde_json::Value::Object(entries) => Value::Map(
            entries
                .iter()
                .map(|(name, value)| Entry {
                    name: name.clone(),
                    place: place.clone(),
                    node: from_json(value, place),
                })
                .collect(),
        ),
    };
    Node {
        place: place.clone(),
        raw: json.to_string(),
        value,
    }
}

/// Reads until nothing is wrong that was not reported. The flag says whether nothing was.
fn read_all(root: &mut Node, path: &str, log: &Log) -> (Option<SynthSpec>, bool) {
    let mut is_clean = true;
    loop {
        let Wrong { steps, fault } = match SynthSpec::deserialize(At(root)) {
            Ok(spec) => return (Some(spec), is_clean),
            Err(wrong) => wrong,
        };
        is_clean = false;
        let mut steps: Vec<Step> = steps.into_iter().rev().collect();
        // What a choice was to be made of is blank: the choice is next.
        while !steps.is_empty() && is_blank(node_at(root, &steps)) {
            steps.pop();
        }
        let full = steps
            .iter()
            .fold(path.to_owned(), |path, step| step.after(&path));
        let node = node_at(root, &steps);
        if let Fault::Unknown { name, known } = &fault {
            let Value::Map(entries) = &mut node.value else {
                unreachable!("only sections have fields")
            };
            let entry = entries
                .iter_mut()
                .find(|entry| entry.name == *name)
                .expect("serde names a field it was given");
            let suggestion = did_you_mean(name, known.iter().copied())
                .unwrap_or_else(|| format!("fields here are {}", known.join(", ")));
            let full = format!("{full}.{name}");
            log.add_with(
                Some(&entry.place),
                &full,
                UNKNOWN_FIELD,
                "a known one",
                Some(suggestion),
            );
            blank(&mut entry.node);
            continue;
        }
        if !has_blank_child(node) {
            report(&fault, node, &full, log);
        }
        blank(node);
        if steps.is_empty() {
            return (None, false);
        }
    }
}

fn report(fault: &Fault, node: &Node, path: &str, log: &Log) {
    let place = Some(&node.place);
    match fault {
        Fault::Missing(name) => log.add(place, &format!("{path}.{name}"), "nothing", "a value"),
        Fault::Other(expected) => log.add(place, path, node.found(), expected.clone()),
        Fault::NotAChoice(choices) => {
            let suggestion = match &node.value {
                Value::Text(text) => did_you_mean(text, choices.iter().copied()),
                Value::Number(_) if choices.contains(&"fixed") => {
                    Some(format!("write `{{fixed: {}}}`", node.raw))
                }
                _ => None,
            };
            log.add_with(
                place,
                path,
                node.found(),
                format!("one of {}", choices.join(", ")),
                suggestion,
            );
        }
        Fault::Unknown { .. } => unreachable!("unknown fields are reported with their own place"),
    }
}

fn has_blank_child(node: &Node) -> bool {
    children(node).any(is_blank)
}

fn holds_blank(node: &Node) -> bool {
    is_blank(node) || children(node).any(holds_blank)
}

fn children(node: &Node) -> Box<dyn Iterator<Item = &Node> + '_> {
    match &node.value {
        Value::List(items) => Box::new(items.iter()),
        Value::Map(entries) => Box::new(entries.iter().map(|entry| &entry.node)),
        _ => Box::new(std::iter::empty()),
    }
}

fn node_at<'a>(root: &'a mut Node, steps: &[Step]) -> &'a mut Node {
    steps
        .iter()
        .fold(root, |node, step| match (step, &mut node.value) {
            (Step::Name(name), Value::Map(entries)) => {
                let entry = entries.iter_mut().find(|entry| entry.name == *name);
                &mut entry.expect("serde steps into fields it was given").node
            }
            (Step::Index(index), Value::List(items)) => &mut items[*index],
            _ => unreachable!("names lead into sections, numbers into lists"),
        })
}

/// The value of a field such as `sessions[0].weight`, or the nearest one around it.
fn nearest_node<'a>(root: &'a Node, field: &str) -> &'a Node {
    let mut node = root;
    for part in field.split(['.', '[']) {
        let next = match (&node.value, part.trim_end_matches(']').parse::<usize>()) {
            (Value::List(items), Ok(index)) => items.get(index),
            _ => node.get(part),
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}
