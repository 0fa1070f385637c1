//! The events of the Chrome trace-event format, one per line of a JSON document.

use engine::Time;
use serde::Serialize;
use serde_json::json;
use std::io::{self, Write};

/// Writes one event per line.
pub(super) struct Events<W> {
    out: W,
    is_first: bool,
}

/// What an event says.
#[derive(Serialize, Clone, Copy)]
pub(super) enum Kind {
    /// The name or place of a process.
    #[serde(rename = "M")]
    Metadata,
    /// Something that lasted.
    #[serde(rename = "X")]
    Span,
    /// Something that happened.
    #[serde(rename = "i")]
    Instant,
    /// Numbers from now on.
    #[serde(rename = "C")]
    Counter,
}

/// One event, with the format's own names.
#[derive(Serialize)]
pub(super) struct Event<'a, A> {
    pub ph: Kind,
    pub name: &'a str,
    pub pid: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dur: Option<f64>,
    /// How wide an instant is drawn: `p`, over its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s: Option<&'static str>,
    pub args: A,
}

impl<'a, A> Event<'a, A> {
    /// An event without time.
    pub fn new(ph: Kind, name: &'a str, pid: usize, args: A) -> Event<'a, A> {
        Event {
            ph,
            name,
            pid,
            tid: None,
            ts: None,
            dur: None,
            s: None,
            args,
        }
    }
}

impl<W: Write> Events<W> {
    /// Opens the document.
    pub fn begin(mut out: W) -> io::Result<Events<W>> {
        out.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        Ok(Events {
            out,
            is_first: true,
        })
    }

    /// Closes it.
    pub fn end(mut self) -> io::Result<()> {
        self.out.write_all(b"\n]}\n")
    }

    pub fn push<A: Serialize>(&mut self, event: &Event<'_, A>) -> io::Result<()> {
        self.out
            .write_all(if self.is_first { b"\n" } else { b",\n" })?;
        self.is_first = false;
        serde_json::to_writer(&mut self.out, event).map_err(io::Error::from)
    }

    pub fn process(&mut self, pid: usize, name: &str) -> io::Result<()> {
        self.push(&Event::new(
            Kind::Metadata,
            "process_name",
            pid,
            json!({"name": name}),
        ))?;
        self.push(&Event::new(
            Kind::Metadata,
            "process_sort_index",
            pid,
            json!({"sort_index": pid}),
        ))
    }
}

/// Microseconds, the unit of the format.
pub(super) fn us(time: Time) -> f64 {
    time.0 as f64 / 1e6
}
