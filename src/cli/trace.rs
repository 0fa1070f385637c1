//! `dynosim trace`: what is in a trace, other forms of it, and traces that are made up.

mod closeness;
mod describe;
mod rewrite;
mod synth;
mod text;

use super::{Failure, print};
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use traces::read::{Format, ReadOptions};
use traces::{Description, Trace, TraceError, write};

/// Describe, convert, cut, scale and generate workload traces.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dynosim trace describe trace.jsonl")]
pub struct TraceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say what is in a trace: lengths, arrivals, and how much a prefix cache of any size could serve
    Describe(describe::DescribeArgs),
    /// Write a trace of any readable format as Mooncake JSONL or plain CSV
    Convert(rewrite::ConvertArgs),
    /// Cut a trace to a window of time, a sample of its conversations or its first requests
    Slice(rewrite::SliceArgs),
    /// Make a trace faster or slower
    Scale(rewrite::ScaleArgs),
    /// Generate a trace, from a preset, from parameters, or like another trace
    Synth(synth::SynthArgs),
}

pub fn run(args: TraceArgs) -> Result<ExitCode, Failure> {
    match args.action {
        Action::Describe(args) => describe::run(&args),
        Action::Convert(args) => rewrite::convert(&args),
        Action::Slice(args) => rewrite::slice(&args),
        Action::Scale(args) => rewrite::scale(&args),
        Action::Synth(args) => synth::run(&args),
    }
}

/// A trace to be read.
#[derive(Debug, Args)]
struct Input {
    /// Trace file, plain, gzip or zstd
    file: PathBuf,
    #[command(flatten)]
    how: ReadArgs,
}

/// How a trace is read.
#[derive(Debug, Args)]
struct ReadArgs {
    /// Format of the trace; found out from its first line unless given
    #[arg(long, value_name = "FORMAT", value_parser = format_named)]
    format: Option<Format>,
    /// Tokens per content block of the trace, where the file does not say [default: 512, Bailian 16]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    block_size: Option<u32>,
    /// Treat every warning about the trace as an error
    #[arg(long)]
    strict: bool,
}

/// Where a trace is written.
#[derive(Debug, Args)]
struct Output {
    /// File to write, CSV if its name ends in .csv, compressed if in .gz or .zst; the trace goes to stdout without it
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON object about the trace instead of text; the trace itself goes to --out
    #[arg(long, requires = "out")]
    json: bool,
}

fn format_named(name: &str) -> Result<Format, String> {
    name.parse()
}

/// Says something on stderr. A closed stderr is no reason to fail.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl ReadArgs {
    fn read(&self, file: &Path) -> Result<Trace, Failure> {
        let options = ReadOptions {
            format: self.format,
            block_size: self.block_size,
            is_strict: self.strict,
        };
        let loaded = traces::read(file, &options).map_err(|error| match error {
            TraceError::Open { file, source } => Failure::input([format!("{file}: {source}")]),
            invalid => Failure::input([invalid.to_string()]),
        })?;
        for warning in &loaded.warnings {
            note(&format!("warning: {warning}"));
        }
        Ok(loaded.trace)
    }
}

impl Input {
    fn read(&self) -> Result<Trace, Failure> {
        self.how.read(&self.file)
    }
}

impl Output {
    /// Writes the trace and says what was written. `facts` are further fields of the JSON object, `text` goes before
    /// the description.
    fn write(
        &self,
        trace: &Trace,
        kind: Option<write::OutputFormat>,
        text: &str,
        facts: serde_json::Map<String, serde_json::Value>,
    ) -> Result<ExitCode, Failure> {
        let by_name = |file: &PathBuf| write::OutputFormat::of_file(file);
        let kind = kind
            .or(self.out.as_ref().map(by_name))
            .unwrap_or(write::OutputFormat::Mooncake);
        let format = kind.format_for(trace);
        for loss in write::losses(trace, format) {
            note(&format!("warning: {loss}"));
        }
        let block_size = trace.block_size;
        if format == Format::Mooncake && block_size != format.default_block_size() {
            note(&format!(
                "note: blocks have {block_size} tokens; read the file with --block-size {block_size}"
            ));
        }
        let Some(file) = &self.out else {
            if !text.is_empty() {
                note(text.trim_end());
            }
            return to_stdout(trace, kind);
        };
        reports::write_atomically(file, |out| {
            write::write_file(trace, file, out, kind).map(|_| ())
        })
        .map_err(|error| Failure::input([error.to_string()]))?;
        let description = Description::of(trace);
        if self.json {
            let mut object = serde_json::Map::new();
            object.insert("file".into(), file.display().to_string().into());
            object.insert("format".into(), format.name().into());
            object.extend(facts);
            object.insert("description".into(), json_of(&description));
            print(&format!("{:#}\n", serde_json::Value::Object(object)))?;
        } else {
            let written = format!(
                "{}: {} requests, {format}\n",
                file.display(),
                text::grouped(description.requests)
            );
            print(&[text, &written].concat())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn to_stdout(trace: &Trace, kind: write::OutputFormat) -> Result<ExitCode, Failure> {
    let mut bytes = Vec::new();
    write::write_to(trace, &mut bytes, kind).expect("a vector takes everything");
    print(std::str::from_utf8(&bytes).expect("traces are written as ASCII"))?;
    Ok(ExitCode::SUCCESS)
}

fn json_of(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("plain data with text keys")
}
