//! `dynosim trace convert`, `slice` and `scale`: the same requests in other words, fewer of them, or faster.

use super::{Failure, Input, Output};
use clap::{Args, ValueEnum};
use engine::Span;
use std::process::ExitCode;
use traces::transform::{self, Delays, TransformError};
use traces::write::OutputFormat;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    /// Mooncake JSONL (Dynamo's agentic form where requests wait for each other in other ways than turns do)
    Mooncake,
    /// arrival_s, input_tokens, output_tokens
    Csv,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dynosim trace convert AzureLLMInferenceTrace_conv.csv --out azure.jsonl.gz"
)]
pub struct ConvertArgs {
    #[command(flatten)]
    input: Input,
    /// Format to write [default: by the name of the file]
    #[arg(long, value_enum)]
    to: Option<To>,
    /// Tell contents in blocks of so many tokens
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    to_block_size: Option<u32>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dynosim trace slice trace.jsonl --start 600 --end 1200 --out ten-minutes.jsonl"
)]
pub struct SliceArgs {
    #[command(flatten)]
    input: Input,
    /// Leave out what arrives before; the new trace begins then (seconds)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    start: Option<Span>,
    /// Leave out what arrives then or later (seconds)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    end: Option<Span>,
    /// Of these, take a share of the conversations, drawn at random
    #[arg(long, value_name = "SHARE")]
    fraction: Option<f64>,
    /// Of these, take the first so many requests
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Seed of --fraction
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dynosim trace scale trace.jsonl --speed 2 --out twice-the-load.jsonl"
)]
pub struct ScaleArgs {
    #[command(flatten)]
    input: Input,
    /// Arrivals and delays come so many times faster
    #[arg(long, value_name = "FACTOR")]
    speed: f64,
    /// Leave the delays between turns as they are
    #[arg(long)]
    keep_delays: bool,
    #[command(flatten)]
    output: Output,
}

pub fn convert(args: &ConvertArgs) -> Result<ExitCode, Failure> {
    let mut trace = args.input.read()?;
    if let Some(block_size) = args.to_block_size {
        trace = transform::in_blocks_of(&trace, block_size);
    }
    let kind = args.to.map(|to| match to {
        To::Mooncake => OutputFormat::Mooncake,
        To::Csv => OutputFormat::Csv,
    });
    args.output.write(&trace, kind, "", serde_json::Map::new())
}

pub fn slice(args: &SliceArgs) -> Result<ExitCode, Failure> {
    let mut trace = args.input.read()?;
    if args.start.is_some() || args.end.is_some() {
        let end = args.end.unwrap_or(Span(u64::MAX));
        trace = transform::window(&trace, args.start.unwrap_or_default(), end).map_err(refused)?;
    }
    if let Some(fraction) = args.fraction {
        trace = transform::sample(&trace, fraction, args.seed).map_err(refused)?;
    }
    if let Some(limit) = args.limit {
        trace = transform::limit(&trace, limit).map_err(refused)?;
    }
    args.output.write(&trace, None, "", serde_json::Map::new())
}

pub fn scale(args: &ScaleArgs) -> Result<ExitCode, Failure> {
    let trace = args.input.read()?;
    let delays = if args.keep_delays {
        Delays::Kept
    } else {
        Delays::Scaled
    };
    let trace = transform::scale(&trace, args.speed, delays).map_err(refused)?;
    args.output.write(&trace, None, "", serde_json::Map::new())
}

fn refused(error: TransformError) -> Failure {
    Failure::input([error.to_string()])
}

/// A time in seconds, from 0 to 200 days.
fn seconds(text: &str) -> Result<Span, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=200.0 * 86_400.0).contains(&s) => Ok(Span::from_s(s)),
        _ => Err("expected seconds from 0 to 200 days".to_owned()),
    }
}
