//! Mooncake JSONL, plain, with sessions, or agentic.

use std::io::{self, Write};

use engine::{Annotations, Span, Trigger};
use serde_json::{Map, Value, json};

use super::decimal;
use crate::trace::{Content, Row, Trace};

/// Which rows are later turns of conversations, where plain Mooncake can say all that rows wait for.
pub(super) struct Turns {
    /// For every session its number of rows; empty where sessions are not told.
    rows: Vec<u32>,
    /// For every row how long it waits after the answer of the turn before; none for first turns.
    delays: Vec<Option<Span>>,
}

impl Turns {
    /// None where rows wait for anything else than the answer of the row before in their session and their delay.
    pub(super) fn of(trace: &Trace) -> Option<Turns> {
        if trace.dependencies.is_empty() {
            return Some(Turns {
                rows: Vec::new(),
                delays: vec![None; trace.rows.len()],
            });
        }
        let mut rows = vec![0; trace.sessions as usize];
        let mut last = vec![None; trace.sessions as usize];
        let mut delays = Vec::with_capacity(trace.rows.len());
        for (index, row) in trace.rows.iter().enumerate() {
            let session = row.session as usize;
            rows[session] += 1;
            let before: Option<u32> = last[session].replace(index as u32);
            delays.push(match (before, trace.dependencies_of(row)) {
                (None, []) => None,
                (Some(before), [dependency]) => {
                    let is_next_turn = dependency.on.0 == before
                        && dependency.trigger == Trigger::Completion
                        && row.arrival == trace.rows[before as usize].arrival + dependency.delay;
                    Some(is_next_turn.then_some(dependency.delay)?)
                }
                _ => return None,
            });
        }
        Some(Turns { rows, delays })
    }

    /// Whether a row's session must be told.
    fn has_session(&self, row: &Row) -> bool {
        self.rows
            .get(row.session as usize)
            .is_some_and(|&rows| rows > 1)
    }
}

/// Writes rows whose waiting `turns` says.
pub(super) fn write(trace: &Trace, turns: &Turns, out: &mut impl Write) -> io::Result<()> {
    for (index, (row, delay)) in trace.rows.iter().zip(&turns.delays).enumerate() {
        write!(out, "{{")?;
        if turns.has_session(row) {
            write!(out, "\"session_id\": \"s{}\", ", row.session)?;
        }
        match delay {
            Some(delay) => write!(out, "\"delay\": {}, ", decimal(delay.0 / 1000, 6))?,
            None => write!(out, "\"timestamp\": {}, ", decimal(row.arrival.as_ns(), 6))?,
        }
        write_request(trace, index, out)?;
        writeln!(out, "}}")?;
    }
    Ok(())
}

/// Writes rows that wait for each other in any way.
pub(super) fn write_agentic(trace: &Trace, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{{\"schema\": \"dynamo.agentic_mooncake\", \"version\": 2, \"block_size\": {}, \"hash_id_scope\": \"local\"}}",
        trace.block_size
    )?;
    for (index, row) in trace.rows.iter().enumerate() {
        write!(
            out,
            "{{\"request_id\": \"r{index}\", \"session_id\": \"s{}\", ",
            row.session
        )?;
        let dependencies = trace.dependencies_of(row);
        let released = dependencies
            .iter()
            .map(|d| trace.rows[d.on.0 as usize].arrival + d.delay)
            .max();
        if released.is_none_or(|released| row.arrival > released) {
            write!(
                out,
                "\"not_before_ms\": {}, ",
                decimal(row.arrival.as_ns(), 6)
            )?;
        }
        write_request(trace, index, out)?;
        write!(out, ", \"dependencies\": [")?;
        for (place, dependency) in dependencies.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let trigger = match dependency.trigger {
                Trigger::Dispatch => "dispatch",
                Trigger::Completion => "completion",
            };
            let (on, delay) = (dependency.on.0, decimal(dependency.delay.0 / 1000, 6));
            write!(
                out,
                "{comma}{{\"request_id\": \"r{on}\", \"trigger\": \"{trigger}\", \"delay_ms\": {delay}}}"
            )?;
        }
        writeln!(out, "]}}")?;
    }
    Ok(())
}

/// Lengths, hashes, priority and what the row says about itself.
fn write_request(trace: &Trace, index: usize, out: &mut impl Write) -> io::Result<()> {
    let row = &trace.rows[index];
    write!(
        out,
        "\"input_length\": {}, \"output_length\": {}",
        row.input_tokens, row.output_tokens
    )?;
    if let Content::Blocks { .. } = row.content {
        write!(out, ", \"hash_ids\": [")?;
        for (place, block) in trace.blocks(row).iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(out, "{comma}{block}")?;
        }
        write!(out, "]")?;
    }
    if row.priority != 0 {
        // Larger is more important there.
        write!(out, ", \"priority\": {}", row.priority.saturating_neg())?;
    }
    match trace.annotations_of(index) {
        Some(annotations) => write_annotations(annotations, out),
        None => Ok(()),
    }
}

/// What a row says about itself.
fn write_annotations(said: &Annotations, out: &mut impl Write) -> io::Result<()> {
    let workers = said.workers;
    for (name, worker) in [
        ("backend_instance_id", workers.whole),
        ("prefill_worker_id", workers.prefill),
        ("decode_worker_id", workers.decode),
        (
            "strict_priority",
            Some(said.strict_priority).filter(|&priority| priority > 0),
        ),
    ] {
        if let Some(worker) = worker {
            write!(out, ", \"{name}\": {worker}")?;
        }
    }
    let osl = said
        .expected_output_tokens
        .map(|tokens| ("osl", json!(tokens)));
    let speculative = said
        .speculative_prefill
        .then_some(("speculative_prefill", json!(true)));
    let hints: Vec<_> = osl.into_iter().chain(speculative).collect();
    if !hints.is_empty() {
        let hints: Vec<String> = hints
            .iter()
            .map(|(name, value)| format!("\"{name}\": {value}"))
            .collect();
        write!(out, ", \"agent_hints\": {{{}}}", hints.join(", "))?;
    }
    if let Some(which) = said.ephemeral_blocks {
        write!(out, ", \"ephemeral_blocks\": \"{}\"", which.name())?;
    }
    if let Some(pin) = said.pin {
        let seconds = pin.0 / 1_000_000_000_000;
        write!(
            out,
            ", \"cache_control\": {{\"type\": \"ephemeral\", \"ttl\": \"{seconds}s\"}}"
        )?;
    }
    if let Some(class) = &said.policy_class {
        write!(out, ", \"policy_class\": {}", json!(class))?;
    }
    if !(said.required_taints.is_empty() && said.preferred_taints.is_empty()) {
        let preferred: Map<String, Value> = said
            .preferred_taints
            .iter()
            .map(|(name, weight)| (name.clone(), json!(weight)))
            .collect();
        let constraints =
            json!({"required_taints": said.required_taints, "preferred_taints": preferred});
        write!(out, ", \"routing_constraints\": {constraints}")?;
    }
    Ok(())
}
