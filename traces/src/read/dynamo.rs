//! Dynamo's request trace, version 1: JSONL of events, of which `request_end` counts.
//!
//! `{"schema": "dynamo.request.trace.v1", "event_type": "request_end", "event_time_unix_ms": …, "request":
//! {"request_id", "output_tokens", "request_received_ms", "total_time_ms", "replay": {"trace_block_size",
//! "input_length", "input_sequence_hashes"}}, "agent_context": {"session_id", "parent_session_id"}}`, possibly wrapped
//! into `{"event": …}`. Times are a clock's. Sequence hashes name a block *and* all before it, the last one a partial
//! block. Several shards are read as one file after `cat`, compressed or not.
//!
//! Without `agent_context` every request is sent at its recorded time. With it the recorded causes are kept and the
//! times follow from them: a request waits for the previous one of its session, the first one of a child session for
//! the last request its parent sent before it, and the first request that the parent sends after the child is done
//! for the child's last one. Where the earlier request was complete when the later one was sent, the gap between is
//! kept; where it was still running, the distance between the two dispatches.
// Model: tool events are not read, their time is part of the gaps; which request of the parent spawned or joined a
// child is guessed from the times, as in Dynamo's own converter.

use engine::Trigger;
use rustc_hash::FxHashMap;

use super::RowReader;
use super::check::excerpt;
use super::collect::{BROKEN, Collector, Draft, On, Spot};
use super::fields::Fields;
use super::number::Unit;
use crate::trace::NewContent;

const SCHEMA: &str = "dynamo.request.trace.v1";

/// Known, but without influence on what is simulated.
const WITHOUT_EFFECT: &[&str] = &[
    "x_request_id",
    "model",
    "input_tokens",
    "cached_tokens",
    "prefill_wait_time_ms",
    "prefill_time_ms",
    "ttft_ms",
    "avg_itl_ms",
    "kv_hit_rate",
    "kv_transfer_estimated_latency_ms",
    "queue_depth",
    "worker",
    "finish_reason_metadata",
];

/// Reads Dynamo's request trace.
pub(super) struct Dynamo {
    /// A block size that the caller insists on.
    block_size: Option<u32>,
    /// The file's own, once known.
    has_block_size: bool,
    requests: Vec<Recorded>,
    hashes: Vec<u64>,
}

/// A request of an agent, as it was recorded.
#[derive(Debug)]
struct Recorded {
    row: u32,
    line: u32,
    start_ns: u64,
    end_ns: u64,
    session: Box<str>,
    parent: Option<Box<str>>,
}

/// The fields of one record.
#[derive(Default)]
struct Record {
    name: Option<String>,
    start_ns: Option<u64>,
    end_ns: Option<u64>,
    output_tokens: Option<u32>,
    input_tokens: Option<u32>,
    session: Option<Box<str>>,
    parent: Option<Box<str>>,
}

impl Dynamo {
    pub(super) fn new(block_size: Option<u32>) -> Self {
        Dynamo {
            block_size,
            has_block_size: false,
            requests: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// Reads a record and says whether it is good; `None` for events that do not count.
    fn record(&mut self, mut fields: Fields<'_, '_>) -> Option<(Record, bool)> {
        if fields.name(&["event_type"]).as_deref() != Some("request_end") {
            return None;
        }
        let schema = fields.name_needed(&["schema"]);
        if schema.as_deref().is_some_and(|schema| schema != SCHEMA) {
            let found = excerpt(schema.unwrap_or_default().as_bytes());
            fields.problem(
                "schema",
                found,
                format!("`{SCHEMA}`"),
                "write the trace with that version",
            );
        }
        let mut record = Record::default();
        let event_ns = fields.nanoseconds(&["event_time_unix_ms"], Unit::Milliseconds);
        if let Some(value) = fields.take(&["agent_context"])
            && let Some(mut context) = fields.inside(value)
        {
            record.session = context.name_needed(&["session_id"]).map(Into::into);
            record.parent = context.name(&["parent_session_id"]).map(Into::into);
            // What else the context has says who asked, not what.
            let is_good = context.finish_quietly();
            fields.noted_inside(is_good);
        }
        if let Some(value) = fields.take_needed(&["request"])
            && let Some(mut request) = fields.inside(value)
        {
            self.request(&mut request, &mut record, event_ns);
            let is_good = request.finish();
            fields.noted_inside(is_good);
        }
        fields.pass_over(&["event_source"]);
        Some((record, fields.finish()))
    }

    fn request(
        &mut self,
        request: &mut Fields<'_, '_>,
        record: &mut Record,
        event_ns: Option<u64>,
    ) {
        record.name = request.name_needed(&["request_id"]).map(Into::into);
        record.output_tokens = request.tokens_needed(&["output_tokens"]);
        let received_ns = request.nanoseconds(&["request_received_ms"], Unit::Milliseconds);
        let total_ns = request.nanoseconds(&["total_time_ms"], Unit::Milliseconds);
        record.start_ns = received_ns.or_else(|| event_ns?.checked_sub(total_ns?));
        record.end_ns = record.start_ns.map(|start| match total_ns {
            Some(total) => start.saturating_add(total),
            None => event_ns.unwrap_or(start).max(start),
        });
        if record.start_ns.is_none() {
            request.missing(&["request_received_ms"]);
        }
        request.pass_over(WITHOUT_EFFECT);
        if let Some(value) = request.take_needed(&["replay"])
            && let Some(mut replay) = request.inside(value)
        {
            let block_size = replay.tokens_needed(&["trace_block_size"]);
            self.check_block_size(&mut replay, block_size);
            let hashes = &mut self.hashes;
            record.input_tokens = replay
                .prompt(&["input_length"], &["input_sequence_hashes"], hashes)
                .0;
            let is_good = replay.finish();
            request.noted_inside(is_good);
        }
    }

    /// The first record sets the block size, all others have the same.
    fn check_block_size(&mut self, replay: &mut Fields<'_, '_>, block_size: Option<u32>) {
        let Some(found) = block_size else { return };
        if !self.has_block_size {
            self.has_block_size = true;
            replay.sink.set_block_size(self.block_size.unwrap_or(found));
        }
        let wanted = replay.sink.block_size();
        if found != wanted {
            let expected = format!("{wanted} in every record");
            replay.problem(
                "trace_block_size",
                found.to_string(),
                expected,
                "read the traces one by one",
            );
        }
    }

    fn add(&mut self, sink: &mut Collector, record: &mut Record, line: u32) -> Option<u32> {
        let (input_tokens, output_tokens) = (record.input_tokens?, record.output_tokens?);
        if !sink.fits(line, u64::from(input_tokens), u64::from(output_tokens)) {
            return None;
        }
        let session = record.session.as_ref().map(|session| sink.session(session));
        let row = sink.push(&Draft {
            line,
            start_ns: record.start_ns,
            input_tokens,
            output_tokens,
            own_tokens: input_tokens,
            content: if self.hashes.is_empty() {
                NewContent::Private
            } else {
                NewContent::Blocks(&self.hashes)
            },
            extends: None,
            priority: 0,
            session,
        })?;
        if let (Some(session), Some(start_ns), Some(end_ns)) =
            (record.session.take(), record.start_ns, record.end_ns)
        {
            let parent = record.parent.take();
            self.requests.push(Recorded {
                row,
                line,
                start_ns,
                end_ns,
                session,
                parent,
            });
        }
        Some(row)
    }
}

impl RowReader for Dynamo {
    fn begin(&mut self, sink: &mut Collector) {
        sink.is_wall_clock = true;
        // Records are written when requests end, so they are not in order of arrival.
        sink.is_in_order = false;
    }

    fn line(&mut self, sink: &mut Collector, bytes: &[u8], line: u32) {
        let Some(mut fields) = Fields::parse(sink, bytes, line) else {
            return;
        };
        let record = match fields.take(&["event"]) {
            Some(value) => fields.inside(value).and_then(|inner| self.record(inner)),
            None => self.record(fields),
        };
        if let Some((mut record, is_good)) = record {
            let row = if is_good {
                self.add(sink, &mut record, line)
            } else {
                None
            };
            if let Some(name) = record.name {
                sink.name(
                    Spot {
                        line,
                        field: "request_id",
                    },
                    &name,
                    row.unwrap_or(BROKEN),
                );
            }
        }
    }

    fn end(&mut self, sink: &mut Collector) {
        if !self.requests.is_empty() && self.requests.len() < sink.len() as usize {
            let spot = Spot {
                line: self.requests[0].line,
                field: "agent_context",
            };
            let found = format!("it in {} of {} requests", self.requests.len(), sink.len());
            sink.problem(
                spot,
                found,
                "it in all or none",
                "read agents' and other requests separately",
            );
        }
        self.requests
            .sort_by_key(|request| (request.start_ns, request.end_ns, request.row));
        for (later, earlier) in causes(&self.requests) {
            let (later, earlier) = (&self.requests[later], &self.requests[earlier]);
            let (trigger, delay_ns) = match later.start_ns.checked_sub(earlier.end_ns) {
                Some(gap) => (Trigger::Completion, gap),
                None => (Trigger::Dispatch, later.start_ns - earlier.start_ns),
            };
            sink.wait(
                later.row,
                later.line,
                On::Row(earlier.row),
                trigger,
                delay_ns,
            );
            sink.follows_others(later.row);
        }
    }
}

/// Pairs (later, earlier) of requests of which the later waited for the earlier; `requests` are sorted by start.
fn causes(requests: &[Recorded]) -> Vec<(usize, usize)> {
    let mut sessions: FxHashMap<&str, Vec<usize>> = FxHashMap::default();
    let mut pairs = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let session = sessions.entry(&request.session).or_default();
        pairs.extend(session.last().map(|&previous| (index, previous)));
        session.push(index);
    }
    for (first, request) in requests.iter().enumerate() {
        let child = &sessions[&*request.session];
        let parent = request
            .parent
            .as_deref()
            .filter(|&parent| parent != &*request.session);
        let Some(parent) = parent
            .and_then(|parent| sessions.get(parent))
            .filter(|_| child[0] == first)
        else {
            continue;
        };
        let spawn = parent.partition_point(|&index| index < first);
        pairs.extend(spawn.checked_sub(1).map(|spawn| (first, parent[spawn])));
        let last = child
            .iter()
            .copied()
            .max_by_key(|&index| (requests[index].end_ns, index))
            .expect("not empty");
        let join = parent.partition_point(|&index| {
            requests[index].start_ns < requests[last].end_ns || index < last
        });
        pairs.extend(parent.get(join).map(|&join| (join, last)));
    }
    pairs
}
