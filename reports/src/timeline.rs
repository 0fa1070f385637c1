//! A timeline of a run in the Chrome trace-event format: opens in <https://ui.perfetto.dev> and `chrome://tracing`.
//!
//! Every worker is a process. Its requests fill as many rows as there were requests at once: each takes the lowest row that
//! is free, and is drawn as the phases *queued* (placed, not yet in a step), *prefill* (first step to first token) and
//! *decode* (first to last token). Two counters per worker show how many are queued and running. Requests that wait for
//! a worker or are refused belong to the process `front end`.

mod event;

use crate::files::{Error, write_atomically};
use crate::rows::outcome;
use engine::Time;
use event::{Event, Events, Kind, us};
use serde::Serialize;
use sim::{Outcome, Recording, RequestRecord};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

/// Writes the timeline. What had not ended is drawn to the last recorded moment.
///
/// # Errors
/// When the file cannot be written; nothing half-written is left.
pub fn write(recording: &Recording, pool_names: &[String], path: &Path) -> Result<(), Error> {
    write_atomically(path, |out| write_events(recording, pool_names, out))
}

const FRONT_END: usize = 0;

/// A request with its phases; what did not happen is put at `end`.
struct Life<'a> {
    index: usize,
    request: &'a RequestRecord,
    placed: Time,
    first_scheduled: Time,
    first_token: Time,
    finish: Time,
}

impl<'a> Life<'a> {
    fn of(index: usize, request: &'a RequestRecord, end: Time) -> Life<'a> {
        let finish = request.finish.min(end);
        let [first_token, first_scheduled, placed] =
            [request.first_token, request.first_scheduled, request.placed]
                .map(|moment| moment.min(finish));
        Life {
            index,
            request,
            placed,
            first_scheduled,
            first_token,
            finish,
        }
    }

    fn args(&self) -> Args {
        let request = self.request;
        let (outcome, rejection) = outcome(request.outcome);
        Args {
            request: self.index,
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            cached_tokens: request.cached_tokens,
            preemptions: request.preemptions,
            outcome,
            rejection,
        }
    }
}

/// What the viewer shows of a request.
#[derive(Serialize)]
struct Args {
    request: usize,
    input_tokens: u32,
    output_tokens: u32,
    cached_tokens: u32,
    preemptions: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<&'static str>,
}

/// What a counter shows.
#[derive(Serialize)]
struct InFlight {
    queued: i64,
    running: i64,
}

fn write_events(
    recording: &Recording,
    pool_names: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    let end = recording
        .sent()
        .map(|(_, request)| request.last_moment())
        .max()
        .unwrap_or(Time::ZERO);
    let mut by_process: Vec<Vec<Life>> =
        (0..=recording.workers.len()).map(|_| Vec::new()).collect();
    for (index, request) in recording.sent() {
        let process = if request.worker == u32::MAX {
            FRONT_END
        } else {
            request.worker as usize + 1
        };
        by_process[process].push(Life::of(index, request, end));
    }
    let mut events = Events::begin(out)?;
    events.process(FRONT_END, "front end")?;
    for (worker, record) in recording.workers.iter().enumerate() {
        events.process(
            worker + 1,
            &format!("worker {worker} ({})", pool_names[record.pool as usize]),
        )?;
    }
    write_front_end(&by_process, &mut events)?;
    for (process, lives) in by_process.iter().enumerate().skip(1) {
        write_requests(process, lives, &mut events)?;
        write_counters(process, lives, &mut events)?;
    }
    events.end()
}

/// One phase of a request's life.
fn write_span<W: Write>(
    events: &mut Events<W>,
    name: &str,
    (pid, row): (usize, usize),
    [from, until]: [Time; 2],
    life: &Life,
) -> io::Result<()> {
    if from >= until {
        return Ok(());
    }
    let dur = Some(until.since(from).0 as f64 / 1e6);
    let span = Event::new(Kind::Span, name, pid, life.args());
    events.push(&Event {
        tid: Some(row),
        ts: Some(us(from)),
        dur,
        ..span
    })
}

/// Requests that waited for a worker, and those that were refused.
fn write_front_end<W: Write>(by_process: &[Vec<Life>], events: &mut Events<W>) -> io::Result<()> {
    let mut waiting: Vec<&Life> = by_process
        .iter()
        .flatten()
        .filter(|life| life.request.arrival < life.placed)
        .collect();
    waiting.sort_by_key(|life| (life.request.arrival, life.index));
    let spans = waiting
        .iter()
        .map(|life| (life.request.arrival, life.placed));
    for (life, row) in waiting.iter().zip(rows(spans)) {
        write_span(
            events,
            "waiting for a worker",
            (FRONT_END, row),
            [life.request.arrival, life.placed],
            life,
        )?;
    }
    for life in &by_process[FRONT_END] {
        let ended = match life.request.outcome {
            Outcome::Rejected(_) => Some("rejected"),
            Outcome::Cancelled => Some("cancelled"),
            Outcome::Failed(_) => Some("failed"),
            Outcome::Completed | Outcome::Unfinished => None,
        };
        if let Some(ended) = ended {
            let event = Event::new(Kind::Instant, ended, FRONT_END, life.args());
            events.push(&Event {
                tid: Some(0),
                ts: Some(us(life.finish)),
                s: Some("p"),
                ..event
            })?;
        }
    }
    Ok(())
}

fn write_requests<W: Write>(
    process: usize,
    lives: &[Life],
    events: &mut Events<W>,
) -> io::Result<()> {
    let mut lives: Vec<&Life> = lives.iter().collect();
    lives.sort_by_key(|life| (life.placed, life.index));
    for (life, row) in lives
        .iter()
        .zip(rows(lives.iter().map(|life| (life.placed, life.finish))))
    {
        let track = (process, row);
        write_span(
            events,
            "queued",
            track,
            [life.placed, life.first_scheduled],
            life,
        )?;
        write_span(
            events,
            "prefill",
            track,
            [life.first_scheduled, life.first_token],
            life,
        )?;
        write_span(
            events,
            "decode",
            track,
            [life.first_token, life.finish],
            life,
        )?;
    }
    Ok(())
}

/// For spans sorted by their start, the lowest row (from 1) that is free at each start.
fn rows(spans: impl Iterator<Item = (Time, Time)>) -> Vec<usize> {
    let mut free: BTreeSet<usize> = BTreeSet::new();
    let mut taken: BTreeSet<(Time, usize)> = BTreeSet::new();
    let mut next = 1;
    let mut rows = Vec::new();
    for (from, until) in spans {
        while let Some(&(end, row)) = taken.first().filter(|(end, _)| *end <= from) {
            taken.remove(&(end, row));
            free.insert(row);
        }
        let row = free.pop_first().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        taken.insert((until, row));
        rows.push(row);
    }
    rows
}

/// How many requests were queued and running, whenever that changed.
fn write_counters<W: Write>(
    process: usize,
    lives: &[Life],
    events: &mut Events<W>,
) -> io::Result<()> {
    let mut changes: Vec<(Time, i64, i64)> = Vec::with_capacity(3 * lives.len());
    for life in lives {
        changes.push((life.placed, 1, 0));
        changes.push((life.first_scheduled, -1, 1));
        changes.push((life.finish, 0, -1));
    }
    changes.sort_unstable();
    let (mut queued, mut running) = (0, 0);
    for at_once in changes.chunk_by(|a, b| a.0 == b.0) {
        queued += at_once.iter().map(|change| change.1).sum::<i64>();
        running += at_once.iter().map(|change| change.2).sum::<i64>();
        let ts = Some(us(at_once[0].0));
        let args = InFlight { queued, running };
        events.push(&Event {
            ts,
            ..Event::new(Kind::Counter, "requests", process, args)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use serde_json::{Value, json};

    fn events() -> Vec<Value> {
        let mut out = Vec::new();
        write_events(&sample::recording(), &sample::pools(), &mut out).unwrap();
        let trace: Value = serde_json::from_slice(&out).unwrap();
        trace["traceEvents"].as_array().unwrap().clone()
    }

    #[test]
    fn phases_of_the_sample() {
        let spans: Vec<String> = events()
            .iter()
            .filter(|event| event["ph"] == "X")
            .map(|e| {
                format!(
                    "{} {} {}/{} {}+{}",
                    e["args"]["request"], e["name"], e["pid"], e["tid"], e["ts"], e["dur"]
                )
            })
            .collect();
        let expected = [
            "0 \"queued\" 1/1 0.0+10000.0",
            "0 \"prefill\" 1/1 10000.0+100000.0",
            "0 \"decode\" 1/1 110000.0+400000.0",
            "3 \"queued\" 1/1 800500.0+10000.0",
            "3 \"prefill\" 1/1 810500.0+189500.0",
            "1 \"queued\" 2/1 200000.0+200000.0",
            "1 \"prefill\" 2/1 400000.0+100000.0",
            "1 \"decode\" 2/1 500000.0+400000.0",
        ];
        assert_eq!(spans, expected);
        let refused: Vec<Value> = events()
            .into_iter()
            .filter(|event| event["ph"] == "i")
            .collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(
            (&refused[0]["pid"], &refused[0]["args"]["rejection"]),
            (&json!(0), &json!("prompt_exceeds_kv_cache"))
        );
    }

    #[test]
    fn counters_return_to_zero() {
        let counters: Vec<Value> = events()
            .into_iter()
            .filter(|event| event["ph"] == "C" && event["pid"] == 2)
            .collect();
        let values: Vec<(i64, i64)> = counters
            .iter()
            .map(|event| {
                (
                    event["args"]["queued"].as_i64().unwrap(),
                    event["args"]["running"].as_i64().unwrap(),
                )
            })
            .collect();
        assert_eq!(values, [(1, 0), (0, 1), (0, 0)]);
    }

    #[test]
    fn overlapping_requests_never_share_a_row() {
        // 0..10, 2..4, 4..6 (takes the row that 2..4 left), 5..20, 10..12 (takes the row of 0..10).
        let spans = [(0, 10), (2, 4), (4, 6), (5, 20), (10, 12)]
            .map(|(from, until)| (Time(from), Time(until)));
        assert_eq!(rows(spans.into_iter()), [1, 2, 2, 3, 1]);
    }
}
