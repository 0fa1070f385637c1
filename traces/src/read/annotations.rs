//! What rows say about themselves: Dynamo's request extensions, beside a row's other keys or inside `nvext` as in a request.
//!
//! * `backend_instance_id`, `prefill_worker_id`, `decode_worker_id`: the worker that is to serve it.
//! * `routing_constraints`: `required_taints`, a list of labels that the worker must have, and `preferred_taints`, labels and
//!   their weights.
//! * `strict_priority`, `policy_class`: its place in a router's queue.
//! * `ephemeral_blocks`, no word of Dynamo's: whether the blocks of its `answer`, or of the whole `request`, are of no further use.
//! * `cache_control`: `{"type": "ephemeral", "ttl": "1h"}` pins the prompt for a time, 5 minutes without `ttl`.
//! * `agent_hints`: `osl`, the answer tokens that its client expects; `speculative_prefill`, whether prompt and answer are sent
//!   ahead of the next turn; `priority` and `strict_priority` as well.

use super::check::excerpt;
use super::fields::Fields;
use super::json::Value;
use super::number;
use engine::{Annotations, Ephemeral, Span};

/// How long a prompt is pinned where nothing is said: five minutes.
const DEFAULT_PIN: Span = Span(300_000_000_000_000);

/// Most bytes of a label or class.
const LONGEST_NAME: usize = 256;

/// What a row says, and its priority as vLLM counts it, if extensions say that.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) annotations: Annotations,
    pub(super) priority: Option<i32>,
}

/// Takes the extensions among the fields that nobody took so far.
pub(super) fn take(fields: &mut Fields<'_, '_>) -> Said {
    let mut said = Said::default();
    if fields.is_empty() {
        return said;
    }
    take_from(fields, &mut said);
    if let Some(value) = fields.take(&["nvext"])
        && let Some(mut nvext) = fields.inside(value)
    {
        take_from(&mut nvext, &mut said);
        let is_good = nvext.finish();
        fields.noted_inside(is_good);
    }
    said
}

fn take_from(fields: &mut Fields<'_, '_>, said: &mut Said) {
    let Annotations { workers, .. } = &mut said.annotations;
    for (name, worker) in [
        ("backend_instance_id", &mut workers.whole),
        ("prefill_worker_id", &mut workers.prefill),
        ("decode_worker_id", &mut workers.decode),
    ] {
        if let Some(value) = fields.take(&[name]) {
            *worker = small_number(fields, value, "the number of a worker");
        }
    }
    if let Some(value) = fields.take(&["strict_priority"]) {
        let priority = small_number(fields, value, "a whole number, 0 or more");
        said.annotations.strict_priority = priority.unwrap_or(0);
    }
    if let Some(value) = fields.take(&["policy_class"]) {
        said.annotations.policy_class = name_of(fields, value);
    }
    if let Some(value) = fields.take(&["ephemeral_blocks"]) {
        let name = value.as_name();
        let known = [Ephemeral::Answer, Ephemeral::Request];
        let found = known
            .into_iter()
            .find(|it| Some(it.name()) == name.as_deref());
        if found.is_none() {
            let text = excerpt(value.text.as_bytes());
            fields.problem(
                value.name,
                text,
                "`answer` or `request`",
                "choose one of the two",
            );
        }
        said.annotations.ephemeral_blocks = found;
    }
    if let Some(value) = fields.take(&["cache_control"])
        && let Some(mut control) = fields.inside(value)
    {
        said.annotations.pin = cache_control(&mut control);
        let is_good = control.finish();
        fields.noted_inside(is_good);
    }
    if let Some(value) = fields.take(&["routing_constraints"])
        && let Some(mut constraints) = fields.inside(value)
    {
        routing_constraints(&mut constraints, &mut said.annotations);
        let is_good = constraints.finish();
        fields.noted_inside(is_good);
    }
    if let Some(value) = fields.take(&["agent_hints"])
        && let Some(mut hints) = fields.inside(value)
    {
        agent_hints(&mut hints, said);
        let is_good = hints.finish();
        fields.noted_inside(is_good);
    }
}

/// For how long the prompt is pinned.
fn cache_control(fields: &mut Fields<'_, '_>) -> Option<Span> {
    if let Some(value) = fields.take(&["type"])
        && value.as_name().as_deref() != Some("ephemeral")
    {
        let found = excerpt(value.text.as_bytes());
        fields.problem(value.name, found, "`ephemeral`", "there is no other type");
    }
    let Some(value) = fields.take(&["ttl"]) else {
        return Some(DEFAULT_PIN);
    };
    let ttl = value.as_name().and_then(|text| duration(&text));
    if ttl.is_none() {
        let found = excerpt(value.text.as_bytes());
        let expected = "a time like `30s`, `5m` or `1h`, of at most 30 days";
        fields.problem(value.name, found, expected, "give it a unit");
    }
    ttl
}

/// A whole number of seconds, minutes, hours or days.
#[must_use]
pub fn duration(text: &str) -> Option<Span> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let unit_s = match &text[at..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = text[..at].parse::<u64>().ok()?.checked_mul(unit_s)?;
    (1..=30 * 86_400)
        .contains(&seconds)
        .then(|| Span::from_ns(seconds * 1_000_000_000))
}

fn agent_hints(hints: &mut Fields<'_, '_>, said: &mut Said) {
    if let Some(value) = hints.take(&["strict_priority"]) {
        let priority = small_number(hints, value, "a whole number, 0 or more");
        said.annotations.strict_priority = priority.unwrap_or(0);
    }
    if hints.has("osl") {
        said.annotations.expected_output_tokens = hints.tokens_needed(&["osl"]);
    }
    if let Some(value) = hints.take(&["speculative_prefill"]) {
        match value.text {
            "true" => said.annotations.speculative_prefill = true,
            "false" => {}
            other => {
                let found = excerpt(other.as_bytes());
                hints.problem(value.name, found, "true or false", "choose one of the two");
            }
        }
    }
    if hints.has("priority") {
        said.priority = Some(hints.dynamo_priority(&["priority"]));
    }
}

fn routing_constraints(fields: &mut Fields<'_, '_>, annotations: &mut Annotations) {
    if let Some(value) = fields.take(&["required_taints"]) {
        annotations.required_taints = required(fields, value);
    }
    if let Some(value) = fields.take(&["preferred_taints"]) {
        annotations.preferred_taints = preferred(fields, value);
    }
}

fn required(fields: &mut Fields<'_, '_>, value: Value<'_>) -> Vec<String> {
    let names = value.as_list().and_then(|list| {
        let names = list
            .iter()
            .map(|item| item.as_name().filter(|n| is_name(n)));
        names
            .map(|name| name.map(String::from))
            .collect::<Option<Vec<String>>>()
    });
    let Some(mut names) = names else {
        let found = excerpt(value.text.as_bytes());
        fields.problem(value.name, found, "a list of labels", "write [\"gold\"]");
        return Vec::new();
    };
    names.sort_unstable();
    names.dedup();
    names
}

fn preferred(fields: &mut Fields<'_, '_>, value: Value<'_>) -> Vec<(String, f64)> {
    let weights = value.as_object().and_then(|object| {
        let weight = |(name, text): (&str, &str)| {
            let weight: f64 = text.parse().ok()?;
            (is_name(name) && weight.is_finite()).then(|| (name.to_owned(), weight))
        };
        object.entries().map(weight).collect::<Option<Vec<_>>>()
    });
    let Some(mut weights) = weights else {
        let found = excerpt(value.text.as_bytes());
        fields.problem(
            value.name,
            found,
            "labels and their weights",
            "write {\"gold\": 0.5}",
        );
        return Vec::new();
    };
    weights.sort_by(|(a, _), (b, _)| a.cmp(b));
    weights.dedup_by(|(a, _), (b, _)| a == b);
    weights
}

fn small_number(
    fields: &mut Fields<'_, '_>,
    value: Value<'_>,
    expected: &'static str,
) -> Option<u32> {
    let number = number::count(value.text)
        .ok()
        .and_then(|number| u32::try_from(number).ok());
    if number.is_none() {
        let found = excerpt(value.text.as_bytes());
        fields.problem(value.name, found, expected, "repair or remove the row");
    }
    number
}

fn name_of(fields: &mut Fields<'_, '_>, value: Value<'_>) -> Option<String> {
    let name = value.as_name().filter(|name| is_name(name));
    if name.is_none() {
        let found = excerpt(value.text.as_bytes());
        fields.problem(
            value.name,
            found,
            "a name",
            "write it as a string that is not empty",
        );
    }
    name.map(String::from)
}

/// Whether this can be the name of a label or class.
pub(super) fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
}
