//! Dynamo's agentic Mooncake: requests that wait for each other.
//!
//! Version 2 begins with a header `{"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": …,
//! "hash_id_scope": "local", …}`; its rows have `not_before_ms` and `dependencies`, a list of `{request_id, trigger:
//! "dispatch" | "completion", delay_ms, relation}`. A row is sent when `not_before_ms` is past and, for every dependency,
//! `delay_ms` have passed since that request was sent or was complete. Ids are local to the file: equal ids in different
//! plays are equal content.
//!
//! Rows of the older flat form have `wait_for`, a list of request ids, and are sent `delay` + `tool_wait_ms` after the
//! last of them is complete; their `timestamp` counts only when they wait for nothing.
//!
//! Lengths, `hash_ids`, `priority` and what rows say about themselves are as in [`mooncake`](super::mooncake).

use std::borrow::Cow;

use engine::{Annotations, Trigger};

use super::RowReader;
use super::annotations;
use super::check::excerpt;
use super::collect::{BROKEN, Collector, Draft, On, Spot};
use super::fields::Fields;
use super::number::Unit;
use crate::trace::NewContent;

const SCHEMA: &str = "dynamo.agentic_mooncake";
const TIMESTAMP: &[&str] = &["timestamp", "created_time"];
const INPUT: &[&str] = &["input_length", "input_tokens"];
const OUTPUT: &[&str] = &["output_length", "output_tokens"];
const HASHES: &[&str] = &["hash_ids"];

/// Known, but without influence on what is simulated.
const WITHOUT_EFFECT: &[&str] = &[
    "play_id",
    "source_play_ordinal",
    "model",
    "recorded_api_time_ms",
    "request_kind",
    "branches",
    "prefix_reset",
    "tool_events",
];

/// Reads agentic Mooncake, with and without header.
pub(super) struct Agentic {
    /// A block size that the caller insists on.
    block_size: Option<u32>,
    has_begun: bool,
    hashes: Vec<u64>,
}

/// A row as it stands in the file.
struct Row<'a> {
    name: Option<Cow<'a, str>>,
    session: Option<Cow<'a, str>>,
    start_ns: Option<u64>,
    waits: Vec<NewWait>,
    input_tokens: Option<u32>,
    /// Whether the block ids are in [`Agentic::hashes`].
    has_hashes: bool,
    output_tokens: Option<u32>,
    priority: i32,
    annotations: Annotations,
}

/// Something it waits for.
struct NewWait {
    on: Box<str>,
    trigger: Trigger,
    delay_ns: u64,
}

impl Agentic {
    pub(super) fn new(block_size: Option<u32>) -> Self {
        Agentic {
            block_size,
            has_begun: false,
            hashes: Vec::new(),
        }
    }

    fn header(&mut self, mut fields: Fields<'_, '_>) {
        if self.has_begun {
            fields.problem(
                "schema",
                "a header",
                "one header, in the first line",
                "do not join files with headers",
            );
        }
        let schema = fields.name(&["schema"]);
        if schema.as_deref().is_some_and(|schema| schema != SCHEMA) {
            let found = excerpt(schema.unwrap_or_default().as_bytes());
            fields.problem(
                "schema",
                found,
                format!("`{SCHEMA}`"),
                "choose another --format",
            );
        }
        let version = fields.whole(&["version"]);
        if version.is_some_and(|version| version != 2) {
            let found = format!("{}", version.unwrap_or(0));
            fields.problem("version", found, "2", "convert the trace to version 2");
        }
        let scope = fields.name(&["hash_id_scope"]);
        if scope.as_deref().is_some_and(|scope| scope != "local") {
            let found = excerpt(scope.unwrap_or_default().as_bytes());
            fields.problem(
                "hash_id_scope",
                found,
                "`local`",
                "number the blocks of all plays in one sequence",
            );
        }
        let block_size = fields.tokens_needed(&["block_size"]);
        fields.pass_over(&["source"]);
        if let (Some(found), Some(wanted)) = (block_size, self.block_size)
            && found != wanted
        {
            let expected = format!("{wanted}, as asked for");
            fields.problem(
                "block_size",
                found.to_string(),
                expected,
                "leave the option away: the file knows",
            );
        }
        if let (Some(block_size), false) = (block_size, self.has_begun) {
            fields.sink.set_block_size(block_size);
        }
        fields.finish();
    }

    fn row<'a>(&mut self, mut fields: Fields<'_, 'a>) -> (Row<'a>, bool) {
        let (start_ns, waits) = timing(&mut fields);
        let (input_tokens, has_hashes) = fields.prompt(INPUT, HASHES, &mut self.hashes);
        let mut row = Row {
            name: fields.name_needed(&["request_id"]),
            session: fields.name(&["session_id"]),
            start_ns,
            waits,
            input_tokens,
            has_hashes,
            output_tokens: fields.tokens_needed(OUTPUT),
            priority: fields.dynamo_priority(&["priority"]),
            annotations: Annotations::default(),
        };
        fields.pass_over(WITHOUT_EFFECT);
        let said = annotations::take(&mut fields);
        row.priority = said.priority.unwrap_or(row.priority);
        row.annotations = said.annotations;
        (row, fields.finish())
    }

    /// Adds a row without problems.
    fn add(&mut self, sink: &mut Collector, row: &mut Row<'_>, line: u32) -> Option<u32> {
        let (input_tokens, output_tokens) = (row.input_tokens?, row.output_tokens?);
        if !sink.fits(line, u64::from(input_tokens), u64::from(output_tokens)) {
            return None;
        }
        if row.start_ns.is_none() && row.waits.is_empty() {
            sink.has_no_time(line);
        }
        let session = row.session.as_ref().map(|session| sink.session(session));
        let index = sink.push(&Draft {
            line,
            start_ns: row.start_ns,
            input_tokens,
            output_tokens,
            own_tokens: input_tokens,
            content: if row.has_hashes {
                NewContent::Blocks(&self.hashes)
            } else {
                NewContent::Private
            },
            extends: None,
            priority: row.priority,
            session,
        })?;
        sink.annotate(&row.annotations);
        for wait in row.waits.drain(..) {
            sink.wait(index, line, On::Name(wait.on), wait.trigger, wait.delay_ns);
        }
        Some(index)
    }
}

/// When a row may be sent: its own time, and what it waits for.
fn timing(fields: &mut Fields<'_, '_>) -> (Option<u64>, Vec<NewWait>) {
    let not_before = fields.nanoseconds(&["not_before_ms"], Unit::Milliseconds);
    let timestamp = fields.nanoseconds(TIMESTAMP, Unit::Milliseconds);
    let mut waits = dependencies(fields);
    let names = wait_for(fields);
    let delay = fields
        .nanoseconds(&["delay", "delay_ms"], Unit::Milliseconds)
        .unwrap_or(0);
    let tool = fields
        .nanoseconds(&["tool_wait_ms"], Unit::Milliseconds)
        .unwrap_or(0);
    let delay_ns = delay.saturating_add(tool);
    if names.is_empty() && delay_ns > 0 {
        let expected = "a request to count it from, in `wait_for`";
        fields.problem(
            "delay",
            "a delay",
            expected,
            "put the time into `timestamp`, or name the request",
        );
    }
    let is_flat_and_waits = !names.is_empty();
    waits.extend(names.into_iter().map(|on| NewWait {
        on,
        trigger: Trigger::Completion,
        delay_ns,
    }));
    (
        not_before.or(timestamp.filter(|_| !is_flat_and_waits)),
        waits,
    )
}

/// `dependencies` of version 2.
fn dependencies(fields: &mut Fields<'_, '_>) -> Vec<NewWait> {
    let Some(value) = fields.take(&["dependencies"]) else {
        return Vec::new();
    };
    let Some(list) = value.as_list() else {
        fields.problem(
            "dependencies",
            excerpt(value.text.as_bytes()),
            "a list of objects",
            "write [] for none",
        );
        return Vec::new();
    };
    let mut waits = Vec::with_capacity(list.len());
    for item in list {
        let Some(mut inner) = fields.inside(item) else {
            continue;
        };
        let on = inner.name_needed(&["request_id"]);
        let trigger = inner.name_needed(&["trigger"]);
        let delay = inner
            .nanoseconds(&["delay_ms"], Unit::Milliseconds)
            .unwrap_or(0);
        inner.pass_over(&["relation"]);
        let trigger = match trigger.as_deref() {
            Some("dispatch") => Trigger::Dispatch,
            Some("completion") | None => Trigger::Completion,
            Some(other) => {
                let expected = "`dispatch` or `completion`";
                inner.problem(
                    "trigger",
                    excerpt(other.as_bytes()),
                    expected,
                    "choose one of the two",
                );
                Trigger::Completion
            }
        };
        let is_good = inner.finish();
        if let (true, Some(on)) = (fields.noted_inside(is_good), on) {
            waits.push(NewWait {
                on: on.into(),
                trigger,
                delay_ns: delay,
            });
        }
    }
    waits
}

/// `wait_for` of the flat form.
fn wait_for(fields: &mut Fields<'_, '_>) -> Vec<Box<str>> {
    let Some(value) = fields.take(&["wait_for"]) else {
        return Vec::new();
    };
    let names = value.as_list().map(|list| {
        list.iter()
            .map(|item| item.as_name())
            .collect::<Option<Vec<_>>>()
    });
    match names.flatten() {
        Some(names) => names.into_iter().map(Into::into).collect(),
        None => {
            let found = excerpt(value.text.as_bytes());
            fields.problem(
                "wait_for",
                found,
                "a list of request ids",
                "write [] for none",
            );
            Vec::new()
        }
    }
}

impl RowReader for Agentic {
    fn begin(&mut self, sink: &mut Collector) {
        // Plays follow each other in the file, not in time.
        sink.is_in_order = false;
    }

    fn line(&mut self, sink: &mut Collector, bytes: &[u8], line: u32) {
        let Some(fields) = Fields::parse(sink, bytes, line) else {
            return;
        };
        if fields.has("schema") {
            self.header(fields);
        } else {
            let (mut row, is_good) = self.row(fields);
            let index = if is_good {
                self.add(sink, &mut row, line)
            } else {
                None
            };
            if let Some(name) = &row.name {
                sink.name(
                    Spot {
                        line,
                        field: "request_id",
                    },
                    name,
                    index.unwrap_or(BROKEN),
                );
            }
        }
        self.has_begun = true;
    }
}
