//! ShareGPT with token ids, as LLMServingSim writes it: JSONL with `input_toks`, `output_toks`, `arrival_time_ns`,
//! `input_tok_ids`, `output_tok_ids` (the ids may be missing; then the prompt is shared with nobody).
//!
//! An agentic line is a whole session: `session_id`, `arrival_time_ns`, `sub_requests`, a list of calls of which each is
//! sent `tool_duration_ns` of the call before after that call is complete. A call whose prompt begins with the prompt
//! and the answer of the call before extends it, so that the answer's cached tokens are found again.
// Model: only a call of the same session finds an answer in the cache. Answers quoted by other sessions are not
// recognised; none of the 300 requests of the public trace does that.

use engine::Trigger;

use super::RowReader;
use super::collect::{Collector, Draft, On};
use super::fields::Fields;
use super::json::Value;
use super::number::Unit;
use crate::trace::NewContent;

/// Reads ShareGPT-style lines of both kinds.
#[derive(Default)]
pub(super) struct ShareGpt;

/// One call to the model.
struct Call {
    input_tokens: u32,
    output_tokens: u32,
    prompt: Option<Vec<u32>>,
    answer: Vec<u32>,
    /// How long the next call of the session waits after this one.
    tool_ns: u64,
}

impl Call {
    /// What `prompt` adds to this call's prompt and answer, if it begins with both.
    fn continued_by<'a>(&self, prompt: &'a [u32]) -> Option<&'a [u32]> {
        if self.answer.is_empty() {
            return None;
        }
        prompt
            .strip_prefix(self.prompt.as_deref()?)?
            .strip_prefix(&self.answer[..])
    }
}

/// The fields of a call; `None` where a needed one is wrong.
fn call(fields: &mut Fields<'_, '_>) -> Option<Call> {
    let input_tokens = fields.tokens_needed(&["input_toks"]);
    let output_tokens = fields.tokens_needed(&["output_toks"]);
    let prompt = fields.token_ids(&["input_tok_ids"]);
    let answer = fields.token_ids(&["output_tok_ids"]);
    let tool_ns = fields
        .nanoseconds(&["tool_duration_ns"], Unit::Nanoseconds)
        .unwrap_or(0);
    for (field, tokens, ids) in [
        ("input_tok_ids", input_tokens, &prompt),
        ("output_tok_ids", output_tokens, &answer),
    ] {
        if let (Some(tokens), Some(ids)) = (tokens, ids)
            && ids.len() != tokens as usize
        {
            let found = format!("{} ids", ids.len());
            fields.problem(
                field,
                found,
                format!("{tokens}, one per token"),
                "tokenize the text again",
            );
        }
    }
    Some(Call {
        input_tokens: input_tokens?,
        output_tokens: output_tokens?,
        prompt,
        answer: answer.unwrap_or_default(),
        tool_ns,
    })
}

/// What a call has from its line.
struct Line {
    number: u32,
    start_ns: Option<u64>,
    session: Option<u64>,
}

/// Adds a call; `previous` is the one before in its session.
fn add(
    sink: &mut Collector,
    call: &Call,
    line: &Line,
    previous: Option<(u32, &Call)>,
) -> Option<u32> {
    if !sink.fits(
        line.number,
        u64::from(call.input_tokens),
        u64::from(call.output_tokens),
    ) {
        return None;
    }
    let prompt = call.prompt.as_deref();
    let continued = previous.and_then(|(row, before)| Some((row, before.continued_by(prompt?)?)));
    let own = continued.map_or(prompt, |(_, own)| Some(own));
    let content = match own {
        Some(prompt) => NewContent::Tokens {
            prompt,
            answer: &call.answer,
        },
        None => NewContent::Private,
    };
    sink.push(&Draft {
        line: line.number,
        start_ns: line.start_ns.filter(|_| previous.is_none()),
        input_tokens: call.input_tokens,
        output_tokens: call.output_tokens,
        own_tokens: own.map_or(call.input_tokens, |own| own.len() as u32),
        content,
        extends: continued.map(|(row, _)| row),
        priority: 0,
        session: line.session,
    })
}

/// Adds the calls of a session one after the other.
fn add_session(sink: &mut Collector, calls: &[Call], line: &Line) {
    let mut previous: Option<(u32, &Call)> = None;
    for call in calls {
        let Some(row) = add(sink, call, line, previous) else {
            return;
        };
        if let Some((before, call_before)) = previous {
            sink.wait(
                row,
                line.number,
                On::Row(before),
                Trigger::Completion,
                call_before.tool_ns,
            );
        }
        previous = Some((row, call));
    }
}

/// The calls of an agentic line.
fn sub_requests<'a>(fields: &mut Fields<'_, 'a>, value: Value<'a>) -> Vec<Call> {
    let list = value.as_list().unwrap_or_default();
    if list.is_empty() {
        fields.problem(
            value.name,
            "no call",
            "a list of at least one call",
            "remove the session",
        );
    }
    let mut calls = Vec::with_capacity(list.len());
    for item in list {
        if let Some(mut inner) = fields.inside(item) {
            calls.extend(call(&mut inner));
            let is_good = inner.finish();
            fields.noted_inside(is_good);
        }
    }
    calls
}

impl RowReader for ShareGpt {
    fn line(&mut self, sink: &mut Collector, bytes: &[u8], line: u32) {
        let Some(mut fields) = Fields::parse(sink, bytes, line) else {
            return;
        };
        let start_ns = fields.nanoseconds(&["arrival_time_ns"], Unit::Nanoseconds);
        let session = fields.name(&["session_id"]);
        let calls = match fields.take(&["sub_requests"]) {
            Some(value) => sub_requests(&mut fields, value),
            None => call(&mut fields).into_iter().collect(),
        };
        if fields.finish() {
            if start_ns.is_none() {
                sink.has_no_time(line);
            }
            let session = match session {
                Some(name) => Some(sink.session(&name)),
                None => (calls.len() > 1).then(|| sink.session(&format!("\0{line}"))),
            };
            add_session(
                sink,
                &calls,
                &Line {
                    number: line,
                    start_ns,
                    session,
                },
            );
        }
    }
}
