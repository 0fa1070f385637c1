//! The comma-separated formats: a header that names the columns, then one request per line.
//!
//! * **azure** (Azure LLM inference traces 2023, 2024): `TIMESTAMP` (date and time of day), `ContextTokens`,
//!   `GeneratedTokens`. No contents, so nothing is shared.
//! * **burstgpt**: `Timestamp` (s), `Session ID`, `Elapsed time`, `Model`, `Request tokens`, `Response tokens`, `Total
//!   tokens`, `Log Type`. Rows with 0 response tokens are failed requests and are left out.
//! * **csv**, the plain one: an arrival column that names its unit (`arrival_s`, `arrival_ms`, …), a column of prompt
//!   tokens and one of answer tokens under any of the usual names, optionally `session_id`, `priority` (vLLM's: smaller
//!   first), `request_id` and [what rows say about themselves](super::annotations). Sessions are labels: rows are sent at their own time.
//!
//! Fields may be quoted; a quoted field ends on its line.

use std::borrow::Cow;

use super::RowReader;
use super::annotations::is_name;
use super::check::excerpt;
use super::clock;
use super::collect::{BROKEN, Collector, Draft, Spot};
use super::columns::{Column, Columns, NEEDED, Role};
use super::number;
use crate::error::WarningKind;
use crate::trace::NewContent;
use engine::Annotations;

/// Reads one of the formats.
pub(super) struct Csv {
    columns: &'static Columns,
    /// For every column of the file its name and meaning.
    header: Option<Vec<Option<Column>>>,
}

impl Csv {
    pub(super) fn new(columns: &'static Columns) -> Self {
        Csv {
            columns,
            header: None,
        }
    }

    fn read_header(&mut self, sink: &mut Collector, text: &str, line: u32) {
        let titles = split(text);
        let header: Vec<_> = titles
            .iter()
            .map(|title| self.columns.column(title))
            .collect();
        for (title, column) in titles.iter().zip(&header) {
            if column.is_none() {
                sink.warn_of_key(line, title.trim());
            }
        }
        for (what, is_wanted) in NEEDED {
            let fitting = header.iter().flatten().filter(|(_, role)| is_wanted(*role));
            let fitting: Vec<&str> = fitting.map(|(name, _)| *name).collect();
            if fitting.len() != 1 {
                let found = if fitting.is_empty() {
                    "none".to_owned()
                } else {
                    fitting.join(" and ")
                };
                let suggestion =
                    format!("name one of: {}", self.columns.names(is_wanted).join(", "));
                sink.problem(
                    Spot {
                        line,
                        field: "header",
                    },
                    found,
                    what,
                    suggestion,
                );
            }
        }
        self.header = Some(header);
    }

    fn read_row(&self, sink: &mut Collector, header: &[Option<Column>], text: &str, line: u32) {
        let values = split(text);
        if values.len() != header.len() {
            let found = format!("{} fields", values.len());
            let expected = format!("{}, as in the header", header.len());
            let spot = Spot { line, field: "" };
            return sink.problem(
                spot,
                found,
                expected,
                "the file may be cut off: repair or remove the line",
            );
        }
        let mut row = Row::default();
        let mut is_good = true;
        for (column, value) in header.iter().zip(&values) {
            if let Some((name, role)) = *column {
                is_good &= row.read(
                    sink,
                    Spot { line, field: name },
                    role,
                    value.trim(),
                    self.columns.has_failures,
                );
            }
        }
        let mut index = BROKEN;
        if let (true, Some(input_tokens), Some(output_tokens)) =
            (is_good, row.input_tokens, row.output_tokens)
        {
            if row.is_failure {
                return sink.warn(WarningKind::FailedRequests, line);
            }
            if sink.fits(line, u64::from(input_tokens), u64::from(output_tokens)) {
                let session = row.session.map(|session| sink.session(session));
                let draft = Draft {
                    line,
                    start_ns: row.start_ns,
                    input_tokens,
                    output_tokens,
                    own_tokens: input_tokens,
                    content: NewContent::Private,
                    extends: None,
                    priority: row.priority,
                    session,
                };
                index = sink.push(&draft).unwrap_or(BROKEN);
                if index != BROKEN {
                    sink.annotate(&row.annotations);
                }
            }
        }
        if let Some(name) = row.name {
            sink.name(
                Spot {
                    line,
                    field: "request_id",
                },
                name,
                index,
            );
        }
    }
}

/// The fields of a line.
#[derive(Default)]
struct Row<'a> {
    start_ns: Option<u64>,
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    is_failure: bool,
    session: Option<&'a str>,
    priority: i32,
    name: Option<&'a str>,
    annotations: Annotations,
}

impl<'a> Row<'a> {
    /// Reads one field; false when it has a problem.
    fn read(
        &mut self,
        sink: &mut Collector,
        spot: Spot,
        role: Role,
        text: &'a str,
        has_failures: bool,
    ) -> bool {
        match role {
            Role::WithoutEffect => return true,
            Role::Session => self.session = Some(text).filter(|text| !text.is_empty()),
            Role::Name => self.name = Some(text).filter(|text| !text.is_empty()),
            Role::Worker
            | Role::PrefillWorker
            | Role::DecodeWorker
            | Role::RequiredTaints
            | Role::StrictPriority
            | Role::PolicyClass => return text.is_empty() || self.annotate(sink, spot, role, text),
            Role::Arrival(unit) => {
                self.start_ns = sink.nanoseconds(spot, text, unit);
                return self.start_ns.is_some();
            }
            Role::Clock => {
                self.start_ns = clock::nanoseconds(text);
                if self.start_ns.is_none() {
                    let found = excerpt(text.as_bytes());
                    let expected = "a date and time like 2023-11-16 18:15:46.6805900";
                    sink.problem(spot, found, expected, "write dates as year-month-day");
                }
                return self.start_ns.is_some();
            }
            Role::Input => {
                self.input_tokens = sink.tokens(spot, text);
                return self.input_tokens.is_some();
            }
            Role::Output => {
                self.is_failure = has_failures && number::count(text) == Ok(0);
                self.output_tokens = if self.is_failure {
                    Some(0)
                } else {
                    sink.tokens(spot, text)
                };
                return self.output_tokens.is_some();
            }
            Role::Priority => match sink.priority(spot, text) {
                Some(priority) => self.priority = priority,
                None => return false,
            },
        }
        true
    }
}

impl Row<'_> {
    /// Reads what the row says about itself; an empty field says nothing.
    fn annotate(&mut self, sink: &mut Collector, spot: Spot, role: Role, text: &str) -> bool {
        let Annotations { workers, .. } = &mut self.annotations;
        let number = number::count(text)
            .ok()
            .and_then(|number| u32::try_from(number).ok());
        let is_good = match role {
            Role::RequiredTaints => text.split(';').all(|name| is_name(name.trim())),
            Role::PolicyClass => is_name(text),
            _ => number.is_some(),
        };
        match role {
            Role::Worker => workers.whole = number,
            Role::PrefillWorker => workers.prefill = number,
            Role::DecodeWorker => workers.decode = number,
            Role::StrictPriority => self.annotations.strict_priority = number.unwrap_or(0),
            Role::PolicyClass => self.annotations.policy_class = Some(text.to_owned()),
            _ => {
                let names = text.split(';').map(|name| name.trim().to_owned());
                let taints = &mut self.annotations.required_taints;
                taints.extend(names);
                taints.sort_unstable();
                taints.dedup();
            }
        }
        if !is_good {
            let expected = match role {
                Role::RequiredTaints => "labels with semicolons between",
                Role::PolicyClass => "a name of at most 256 bytes",
                Role::StrictPriority => "a whole number, 0 or more",
                _ => "the number of a worker",
            };
            sink.problem(
                spot,
                excerpt(text.as_bytes()),
                expected,
                "repair or remove the row",
            );
        }
        is_good
    }
}

impl RowReader for Csv {
    fn begin(&mut self, sink: &mut Collector) {
        sink.is_wall_clock = self.columns.is_wall_clock;
    }

    fn line(&mut self, sink: &mut Collector, bytes: &[u8], line: u32) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            let spot = Spot { line, field: "" };
            let suggestion = "check that this is a trace, or convert it to UTF-8";
            return sink.problem(spot, excerpt(bytes), "UTF-8 text", suggestion);
        };
        match self.header.take() {
            None => self.read_header(sink, text, line),
            Some(header) => {
                self.read_row(sink, &header, text, line);
                self.header = Some(header);
            }
        }
    }
}

/// The fields of a line; quotes around a field are taken off, doubled quotes inside it become one.
pub(super) fn split(line: &str) -> Vec<Cow<'_, str>> {
    if !line.contains('"') {
        return line.split(',').map(Cow::Borrowed).collect();
    }
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut is_quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(Cow::Owned(std::mem::take(&mut field))),
            c => field.push(c),
        }
    }
    fields.push(Cow::Owned(field));
    fields
}
