//! Trace files in, of any format and compression: bytes → lines → rows → [`Trace`].
//!
//! `lines` undoes the compression and hands out one line at a time; `format` looks at the first line; the
//! reader of the format takes each line apart; `check` looks at every value, `collect` keeps the rows; `schedule` puts
//! them in order at the end. A file is never held as a whole, neither as text nor as a tree of JSON values.
//!
//! Nothing in a file can make a reader panic or take memory out of proportion; what is wrong is reported all at once.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Problems, TraceError, Warning};
use crate::trace::Trace;

mod agentic;
mod annotations;
mod bailian;
mod check;
mod clock;
mod collect;
mod columns;
mod csv;
mod dynamo;
mod fields;
mod format;
mod json;
mod lines;
mod mooncake;
mod number;
mod plain_line;
mod schedule;
mod sharegpt;

use collect::{Collector, Spot};
pub use format::Format;
use lines::{LINE_LIMIT, LineError, Lines};

/// How to read a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// The format; `None` looks at the first line.
    pub format: Option<Format>,
    /// Tokens per content block, at least 1; `None` takes what the file says or the format's usual one.
    pub block_size: Option<u32>,
    /// Makes every warning an error.
    pub is_strict: bool,
}

/// A trace and what was noticed while it was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The trace; has at least one row.
    pub trace: Trace,
    /// The format it was read as.
    pub format: Format,
    /// What was read with a shrug, one entry per kind.
    pub warnings: Vec<Warning>,
}

/// The reader of one format.
trait RowReader {
    /// Before the first line.
    fn begin(&mut self, _sink: &mut Collector) {}
    /// One line without the white space at its ends, never empty; `line` is its number, from 1.
    fn line(&mut self, sink: &mut Collector, bytes: &[u8], line: u32);
    /// After the last line.
    fn end(&mut self, _sink: &mut Collector) {}
}

/// Reads a trace file, plain, gzip or zstd.
///
/// # Errors
/// [`TraceError::Open`] when the file cannot be opened, [`TraceError::Invalid`] with all problems of its contents.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Loaded, TraceError> {
    let file = path.display().to_string();
    match File::open(path) {
        Ok(opened) => parse(opened, &file, options),
        Err(source) => Err(TraceError::Open { file, source }),
    }
}

/// Reads a trace from anything that can be read; `name` stands for it in messages.
///
/// # Errors
/// [`TraceError::Invalid`] with all problems.
pub fn parse(source: impl Read, name: &str, options: &ReadOptions) -> Result<Loaded, TraceError> {
    parse_limited(source, name, options, LINE_LIMIT).map_err(TraceError::Invalid)
}

fn parse_limited(
    source: impl Read,
    name: &str,
    options: &ReadOptions,
    limit: usize,
) -> Result<Loaded, Problems> {
    let block_size = options.block_size.unwrap_or(1).max(1);
    let mut sink = Collector::new(name, block_size, options.is_strict);
    if options.block_size == Some(0) {
        let spot = Spot {
            line: 0,
            field: "block_size",
        };
        sink.problem(
            spot,
            "0",
            "at least 1",
            "give the number of tokens per block of the trace",
        );
    }
    let format = read_all(&mut sink, source, options, limit);
    let (trace, warnings) = sink.finish()?;
    let format = format.expect("a trace without problems has a format");
    Ok(Loaded {
        trace,
        format,
        warnings,
    })
}

/// Feeds all lines to the reader of their format, which it returns once it is known.
fn read_all(
    sink: &mut Collector,
    source: impl Read,
    options: &ReadOptions,
    limit: usize,
) -> Option<Format> {
    let mut lines = match Lines::new(source, limit) {
        Ok(lines) => lines,
        Err(error) => {
            report(sink, &LineError::Broken(error), 0);
            return None;
        }
    };
    let format = match (lines.next(), options.format) {
        (Ok(Some(_)), Some(format)) => format,
        (Ok(Some((line, number))), None) => format::detect(sink, line, number)?,
        (Ok(None), _) => return None,
        (Err(error), _) => {
            report(sink, &error, lines.number());
            return None;
        }
    };
    lines.put_back();
    sink.set_block_size(
        options
            .block_size
            .unwrap_or(format.default_block_size())
            .max(1),
    );
    let mut reader = format.reader(options.block_size);
    reader.begin(sink);
    loop {
        match lines.next() {
            Ok(Some((line, number))) => reader.line(sink, line, number),
            Ok(None) => break,
            Err(error) => {
                report(sink, &error, lines.number());
                break;
            }
        }
    }
    reader.end(sink);
    Some(format)
}

fn report(sink: &mut Collector, error: &LineError, line: u32) {
    let spot = Spot { line, field: "" };
    match error {
        LineError::Broken(error) => {
            let found = format!("no way to read on ({error})");
            sink.problem(
                spot,
                found,
                "a whole file",
                "the file may be cut off or damaged: fetch it again",
            );
        }
        LineError::TooLong(limit) => {
            let found = format!("a line of more than {limit} bytes");
            sink.problem(
                spot,
                found,
                "one request per line",
                "check that this is a trace",
            );
        }
        LineError::TooMany => {
            sink.problem(
                spot,
                "more lines than can be counted",
                "at most 4294967295",
                "cut the trace into pieces",
            );
        }
    }
}
