//! Mooncake's JSONL and Dynamo's additions to it.
//!
//! `timestamp` (ms, fractions allowed), `input_length`, `output_length`, `hash_ids` (one id per block of 512 tokens of
//! the prompt; another block size is an option). Dynamo also reads `created_time`, `input_tokens`, `output_tokens` and
//! `delay_ms` for the same things, and adds
//!
//! * `session_id`: rows of one session are turns, in the order of the file. A turn is sent `delay` ms after the previous
//!   one is *complete*; without `delay` the difference of the two timestamps is waited, again from completion on.
//! * *mooncake-delta*: later turns carry only their new tokens; the prompt is the previous prompt, the previous answer,
//!   and these.
//! * `priority`: larger is more important there (Dynamo's hints), smaller here (vLLM): the sign is turned.
//! * `request_id`: must be different in every row.
//! * what rows say about themselves: [`annotations`](super::annotations).
//!
//! `hash_ids` may be missing (then the prompt is shared with nobody), as may `input_length` (then all blocks are full).

use engine::{Annotations, Trigger};
use rustc_hash::FxHashMap;

use super::RowReader;
use super::annotations::{self, Said};
use super::collect::{BROKEN, Collector, Draft, On, Spot};
use super::fields::Fields;
use super::number::Unit;
use super::plain_line::{self, PlainLine};
use crate::trace::NewContent;

const TIMESTAMP: &[&str] = &["timestamp", "created_time"];
const INPUT: &[&str] = &["input_length", "input_tokens"];
const OUTPUT: &[&str] = &["output_length", "output_tokens"];
const HASHES: &[&str] = &["hash_ids"];
const DELAY: &[&str] = &["delay", "delay_ms"];

/// Reads mooncake and mooncake-delta.
pub(super) struct Mooncake {
    is_delta: bool,
    /// The last turn of every session.
    turns: FxHashMap<u64, Turn>,
    hashes: Vec<u64>,
}

/// What the next turn needs to know about the last one.
#[derive(Clone, Copy)]
struct Turn {
    /// Its index, or [`BROKEN`].
    row: u32,
    /// The last timestamp of the session.
    timestamp_ns: Option<u64>,
    /// Prompt and answer.
    tokens: u64,
}

/// A row with all its fields checked one by one.
struct Checked {
    line: u32,
    timestamp_ns: Option<u64>,
    delay_ns: Option<u64>,
    input_tokens: u32,
    output_tokens: u32,
    has_hashes: bool,
    priority: i32,
    session: Option<u64>,
    annotations: Annotations,
}

impl Mooncake {
    pub(super) fn new(is_delta: bool) -> Self {
        Mooncake {
            is_delta,
            turns: FxHashMap::default(),
            hashes: Vec::new(),
        }
    }

    fn plain_row(&self, sink: &Collector, plain: PlainLine, line: u32) -> Option<Checked> {
        let input_tokens = i32::try_from(plain.input_length)
            .ok()
            .filter(|&tokens| tokens > 0)? as u32;
        let output_tokens = i32::try_from(plain.output_length)
            .ok()
            .filter(|&tokens| tokens > 0)? as u32;
        let is_whole = input_tokens.div_ceil(sink.block_size()) as usize == self.hashes.len();
        is_whole.then_some(Checked {
            line,
            timestamp_ns: Some(plain.timestamp_ms.checked_mul(1_000_000)?),
            delay_ns: None,
            input_tokens,
            output_tokens,
            has_hashes: true,
            priority: 0,
            session: None,
            annotations: Annotations::default(),
        })
    }

    /// Reads any row, reports what is wrong with it, and adds it.
    fn general_row(&mut self, sink: &mut Collector, bytes: &[u8], line: u32) {
        let Some(mut fields) = Fields::parse(sink, bytes, line) else {
            return;
        };
        let name = fields.name(&["request_id"]);
        let session = fields.name(&["session_id"]);
        let timestamp_ns = fields.nanoseconds(TIMESTAMP, Unit::Milliseconds);
        let delay_ns = fields.nanoseconds(DELAY, Unit::Milliseconds);
        let priority = fields.dynamo_priority(&["priority"]);
        let output_tokens = fields.tokens_needed(OUTPUT);
        let (input_tokens, has_hashes) = fields.prompt(INPUT, HASHES, &mut self.hashes);
        let said: Said = annotations::take(&mut fields);
        let is_good = fields.finish();
        let session = session.map(|session| sink.session(&session));
        let row = match (is_good, input_tokens, output_tokens) {
            (true, Some(input_tokens), Some(output_tokens)) => {
                let row = Checked {
                    line,
                    timestamp_ns,
                    delay_ns,
                    input_tokens,
                    output_tokens,
                    has_hashes,
                    priority: said.priority.unwrap_or(priority),
                    session,
                    annotations: said.annotations,
                };
                self.add(sink, &row).unwrap_or(BROKEN)
            }
            _ => BROKEN,
        };
        if let (BROKEN, Some(session)) = (row, session) {
            self.turns.insert(
                session,
                Turn {
                    row: BROKEN,
                    timestamp_ns: None,
                    tokens: 0,
                },
            );
        }
        if let Some(name) = name {
            sink.name(
                Spot {
                    line,
                    field: "request_id",
                },
                &name,
                row,
            );
        }
    }

    /// Adds a row, as the next turn of its session if it has one.
    fn add(&mut self, sink: &mut Collector, row: &Checked) -> Option<u32> {
        let previous = row
            .session
            .and_then(|session| self.turns.get(&session))
            .copied();
        let before = match previous {
            Some(turn) if self.is_delta => turn.tokens,
            _ => 0,
        };
        let input_tokens = before + u64::from(row.input_tokens);
        if !sink.fits(row.line, input_tokens, u64::from(row.output_tokens)) {
            return None;
        }
        let delay_ns = match previous {
            Some(turn) => delay(sink, row, turn)?,
            None => check_first(sink, row).then_some(0)?,
        };
        let content = if row.has_hashes {
            NewContent::Blocks(&self.hashes)
        } else {
            NewContent::Private
        };
        let extends = previous
            .map(|turn| turn.row)
            .filter(|&turn| self.is_delta && turn != BROKEN);
        let index = sink.push(&Draft {
            line: row.line,
            start_ns: if previous.is_some() {
                None
            } else {
                row.timestamp_ns
            },
            input_tokens: input_tokens as u32,
            output_tokens: row.output_tokens,
            own_tokens: row.input_tokens,
            content,
            extends,
            priority: row.priority,
            session: row.session,
        })?;
        sink.annotate(&row.annotations);
        if let Some(turn) = previous.filter(|turn| turn.row != BROKEN) {
            sink.wait(
                index,
                row.line,
                On::Row(turn.row),
                Trigger::Completion,
                delay_ns,
            );
        }
        if let Some(session) = row.session {
            let timestamp_ns = row
                .timestamp_ns
                .or(previous.and_then(|turn| turn.timestamp_ns));
            let tokens = input_tokens + u64::from(row.output_tokens);
            self.turns.insert(
                session,
                Turn {
                    row: index,
                    timestamp_ns,
                    tokens,
                },
            );
        }
        Some(index)
    }
}

/// A row that follows no other: notes a missing time, refuses a delay.
fn check_first(sink: &mut Collector, row: &Checked) -> bool {
    if row.delay_ns.is_some_and(|delay| delay > 0) {
        let spot = Spot {
            line: row.line,
            field: DELAY[0],
        };
        sink.problem(
            spot,
            "a delay",
            "none in the first turn of a session",
            "use `timestamp` for the first turn",
        );
        return false;
    }
    if row.timestamp_ns.is_none() {
        sink.has_no_time(row.line);
    }
    true
}

/// How long a later turn waits after the previous one is complete.
fn delay(sink: &mut Collector, row: &Checked, previous: Turn) -> Option<u64> {
    let spot = Spot {
        line: row.line,
        field: TIMESTAMP[0],
    };
    match (row.delay_ns, row.timestamp_ns, previous.timestamp_ns) {
        (Some(delay), _, _) => Some(delay),
        (None, None, _) => Some(0),
        (None, Some(_), None) if previous.row == BROKEN => Some(0),
        (None, Some(_), None) => {
            let expected = "a timestamp in the previous turn, to tell the delay";
            sink.problem(spot, "none there", expected, "add `delay` to this turn");
            None
        }
        (None, Some(now), Some(before)) if now < before => {
            sink.problem(
                spot,
                "a turn before the previous one",
                "turns in order of time",
                "sort the session's rows",
            );
            None
        }
        (None, Some(now), Some(before)) => Some(now - before),
    }
}

impl RowReader for Mooncake {
    fn line(&mut self, sink: &mut Collector, bytes: &[u8], line: u32) {
        let plain = plain_line::scan(bytes, &mut self.hashes);
        match plain.and_then(|plain| self.plain_row(sink, plain, line)) {
            Some(row) => {
                self.add(sink, &row);
            }
            None => self.general_row(sink, bytes, line),
        }
    }
}
