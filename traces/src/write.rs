//! Traces out to files that this program and others read.
//!
//! * **mooncake**: one JSON object per line with `timestamp` (ms), `input_length`, `output_length`, `hash_ids`. Later
//!   turns of a conversation, where they wait for the answer before, have `session_id` and `delay` instead of the time.
//! * **agentic-mooncake**, version 2, where requests wait for each other in ways that sessions cannot say.
//! * **csv**: arrival, prompt and answer tokens; nothing about contents.
//!
//! Prompts known by token ids or told in deltas are written as block hashes of whole prompts. What a format cannot hold
//! is said by [`losses`]. Everything else reads back equal.
//!
//! `.gz` and `.zst` at the end of a file's name compress it. Opening files is left to the caller.

mod csv;
mod mooncake;

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::read::Format;
use crate::trace::{Content, Row, Trace};
use crate::transform;

/// Level at which zstd is quick and still much smaller than nothing.
const ZSTD_LEVEL: i32 = 3;

/// What kind of file to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// [`Format::Mooncake`], or [`Format::AgenticMooncake`] where it needs to be.
    Mooncake,
    /// [`Format::Csv`].
    Csv,
}

impl OutputFormat {
    /// By the name of a file: CSV where it ends in `.csv` (before `.gz` or `.zst`), else Mooncake.
    #[must_use]
    pub fn of_file(path: &Path) -> OutputFormat {
        let name = path.to_string_lossy().to_ascii_lowercase();
        let name = name
            .strip_suffix(".gz")
            .or_else(|| name.strip_suffix(".zst"))
            .unwrap_or(&name);
        if name.ends_with(".csv") {
            OutputFormat::Csv
        } else {
            OutputFormat::Mooncake
        }
    }

    /// The format that `trace` gets.
    #[must_use]
    pub fn format_for(self, trace: &Trace) -> Format {
        match self {
            OutputFormat::Csv => Format::Csv,
            OutputFormat::Mooncake if mooncake::Turns::of(trace).is_some() => Format::Mooncake,
            OutputFormat::Mooncake => Format::AgenticMooncake,
        }
    }
}

/// What of `trace` a file of this format does not hold, one sentence each.
#[must_use]
pub fn losses(trace: &Trace, format: Format) -> Vec<&'static str> {
    let any = |is: fn(&Row) -> bool| trace.rows.iter().any(is);
    let mut losses = Vec::new();
    if format == Format::Csv {
        if !trace.annotations.is_empty() {
            losses.push("a plain CSV is written without what requests say about themselves");
        }
        if any(|row| row.content != Content::Private || row.extends.is_some()) {
            losses.push("a plain CSV says nothing about what prompts have in common");
        }
        if any(|row| row.dependency_count > 0) {
            losses.push("a plain CSV sends every request at its own time, also those that waited for another");
        }
        return losses;
    }
    if any(|row| matches!(row.content, Content::Tokens { .. })) {
        losses.push("token ids become block hashes");
    }
    if any(|row| row.extends.is_some()) {
        losses.push("later turns tell their whole prompt; that it contains the earlier answer is no longer known");
    }
    let has_labels =
        (trace.sessions as usize) < trace.rows.len() && !any(|row| row.dependency_count > 0);
    if format == Format::Mooncake && has_labels {
        losses
            .push("sessions are left out: in this format their requests would wait for each other");
    }
    losses
}

/// Writes the content of the file named `path` to `out`, compressed as the name says, and says which format it got.
///
/// # Errors
/// Those of `out`.
pub fn write_file(
    trace: &Trace,
    path: &Path,
    out: impl Write,
    format: OutputFormat,
) -> io::Result<Format> {
    let extension = path
        .extension()
        .map(|extension| extension.to_ascii_lowercase());
    match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            let mut out = BufWriter::new(GzEncoder::new(out, Compression::default()));
            let format = write_to(trace, &mut out, format)?;
            out.into_inner()?.finish()?.flush()?;
            Ok(format)
        }
        Some("zst") => {
            let mut out = BufWriter::new(zstd::Encoder::new(out, ZSTD_LEVEL)?);
            let format = write_to(trace, &mut out, format)?;
            out.into_inner()?.finish()?.flush()?;
            Ok(format)
        }
        _ => {
            let mut out = BufWriter::new(out);
            let format = write_to(trace, &mut out, format)?;
            out.flush()?;
            Ok(format)
        }
    }
}

/// Writes to `out`, uncompressed, and says which format it got.
///
/// # Errors
/// Those of `out`.
pub fn write_to(trace: &Trace, out: &mut impl Write, format: OutputFormat) -> io::Result<Format> {
    let trace = whole_prompts(trace);
    match format {
        OutputFormat::Csv => csv::write(&trace, out).map(|()| Format::Csv),
        OutputFormat::Mooncake => match mooncake::Turns::of(&trace) {
            Some(turns) => mooncake::write(&trace, &turns, out).map(|()| Format::Mooncake),
            None => mooncake::write_agentic(&trace, out).map(|()| Format::AgenticMooncake),
        },
    }
}

/// The trace with all contents as block hashes of whole prompts.
fn whole_prompts(trace: &Trace) -> Cow<'_, Trace> {
    let is_whole =
        |row: &Row| row.extends.is_none() && !matches!(row.content, Content::Tokens { .. });
    if trace.rows.iter().all(is_whole) {
        Cow::Borrowed(trace)
    } else {
        Cow::Owned(transform::in_blocks_of(trace, trace.block_size))
    }
}

/// Nanoseconds as a decimal number of units of ten to the power of `digits` nanoseconds, without needless zeros.
fn decimal(ns: u64, digits: usize) -> String {
    let unit = 10u64.pow(digits as u32);
    let (whole, part) = (ns / unit, ns % unit);
    if part == 0 {
        return whole.to_string();
    }
    let part = format!("{part:0digits$}");
    format!("{whole}.{}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_and_short() {
        assert_eq!(decimal(0, 6), "0");
        assert_eq!(decimal(3_000_000, 6), "3");
        assert_eq!(decimal(2_999_001_500, 6), "2999.0015");
        assert_eq!(decimal(1, 9), "0.000000001");
        assert_eq!(decimal(12_500_000_000, 9), "12.5");
    }

    #[test]
    fn the_name_tells_the_format() {
        let format = |name: &str| OutputFormat::of_file(Path::new(name));
        assert_eq!(format("a/b.CSV.gz"), OutputFormat::Csv);
        assert_eq!(format("b.csv"), OutputFormat::Csv);
        assert_eq!(format("b.jsonl.zst"), OutputFormat::Mooncake);
        assert_eq!(format("csv"), OutputFormat::Mooncake);
    }
}
