//! `dynosim trace describe`: a table, and the two pictures that matter: hit rate over cache size, arrivals over time.

use super::text::{grouped, percent, real, row, table};
use super::{Failure, Input, json_of, note, print};
use clap::Args;
use reports::plot::{Axis, Chart, Hue, Mark, Scale, Series};
use reports::terminal::{self, Size};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use traces::Description;
use traces::describe::{BlockSummary, LengthSummary};

/// Charts in the terminal.
const CHART: Size = Size {
    width: 90,
    height: 12,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dynosim trace describe conversation_trace.jsonl --plot reuse.png"
)]
pub struct DescribeArgs {
    #[command(flatten)]
    input: Input,
    /// Count reuse in blocks of so many tokens instead of the trace's own
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    to_block_size: Option<u32>,
    /// Draw the hit rate over cache size into this .png or .svg, and the arrivals beside it as NAME-arrivals
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DescribeArgs) -> Result<ExitCode, Failure> {
    let trace = args.input.read()?;
    let description =
        Description::in_blocks_of(&trace, args.to_block_size.unwrap_or(trace.block_size));
    let name = args
        .input
        .file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let charts = charts(&description, &name);
    if let Some(plot) = &args.plot {
        draw(&charts, plot)?;
    }
    if args.json {
        print(&format!("{:#}\n", json_of(&description)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = tables(&description);
    for chart in &charts {
        text += "\n";
        text += &terminal::draw(chart, CHART);
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn tables(description: &Description) -> String {
    let mut sections = vec![
        overview(description),
        lengths(description),
        arrivals(description),
    ];
    sections.push(match &description.blocks {
        Some(blocks) => reuse(blocks),
        None => "The trace does not say what prompts have in common.\n".to_owned(),
    });
    sections.join("\n")
}

fn overview(description: &Description) -> String {
    let mut rows = vec![row(["requests", &grouped(description.requests)])];
    if description.sessions != description.requests {
        rows.push(row(["sessions", &grouped(description.sessions)]));
    }
    if description.waiting_requests > 0 {
        rows.push(row([
            "requests that wait for another",
            &grouped(description.waiting_requests),
        ]));
    }
    rows.push(row(["duration (s)", &real(description.duration_s)]));
    if let Some(rate) = description.rate_per_s {
        rows.push(row(["rate (requests/s)", &format!("{rate:.3}")]));
        let tokens = (
            description.input_tokens.total as f64,
            description.output_tokens.total as f64,
        );
        rows.push(row([
            "input tokens/s",
            &real(tokens.0 / description.duration_s),
        ]));
        rows.push(row([
            "output tokens/s",
            &real(tokens.1 / description.duration_s),
        ]));
    }
    table(&rows)
}

fn lengths(description: &Description) -> String {
    let of = |name: &str, l: &LengthSummary| {
        let quantiles = [
            l.min, l.p10, l.p25, l.p50, l.p75, l.p90, l.p95, l.p99, l.max,
        ];
        let mut cells = vec![name.to_owned(), real(l.mean), real(l.stddev)];
        cells.extend(quantiles.map(|length| grouped(u64::from(length))));
        cells.push(grouped(l.total));
        cells
    };
    table(&[
        row([
            "tokens", "mean", "stddev", "min", "p10", "p25", "p50", "p75", "p90", "p95", "p99",
            "max", "total",
        ]),
        of("input", &description.input_tokens),
        of("output", &description.output_tokens),
    ])
}

fn arrivals(description: &Description) -> String {
    let arrivals = &description.arrivals;
    let mut rows = vec![
        row(["distinct arrival times", &grouped(arrivals.distinct_times)]),
        row(["most requests at one time", &grouped(arrivals.most_at_once)]),
    ];
    if let Some(cv) = arrivals.gap_cv {
        rows.push(row([
            "variation of gaps (CV; Poisson: 1)",
            &format!("{cv:.2}"),
        ]));
    }
    for window in &arrivals.windows {
        let name = format!("peak/mean in windows of {} s", window.window_s);
        rows.push(row([&name, &format!("{:.2}", window.peak_to_mean)]));
        let name = format!(
            "variance/mean in windows of {} s (Poisson: 1)",
            window.window_s
        );
        rows.push(row([&name, &format!("{:.2}", window.dispersion)]));
    }
    table(&rows)
}

fn reuse(blocks: &BlockSummary) -> String {
    let mut text = table(&[
        row([
            "block size (tokens)",
            &grouped(u64::from(blocks.block_size)),
        ]),
        row(["block references", &grouped(blocks.references)]),
        row(["unique blocks", &grouped(blocks.unique)]),
        row(["best possible reuse (blocks)", &percent(blocks.best_reuse)]),
        row([
            "best possible reuse (tokens)",
            &percent(blocks.best_token_reuse),
        ]),
    ]);
    text += "\nHit rate of one LRU prefix cache shared by all requests, one after the other:\n";
    let mut rows = vec![row(["blocks", "tokens", "hit rate"])];
    // Sizes that serve next to nothing, and those at which nothing changes, say nothing.
    let mut last = f64::NAN;
    for point in &blocks.lru {
        if percent(point.hit_rate) != percent(last) && 100.0 * point.hit_rate >= blocks.best_reuse {
            rows.push(row([
                &grouped(point.blocks),
                &grouped(point.tokens),
                &percent(point.hit_rate),
            ]));
        }
        last = point.hit_rate;
    }
    text += &table(&rows);
    text
}

fn charts(description: &Description, name: &str) -> Vec<Chart> {
    let subtitle = format!("{name}: {} requests", grouped(description.requests));
    let mut charts = Vec::new();
    if let Some(blocks) = &description.blocks {
        let point =
            |point: &traces::describe::HitRate| (point.tokens as f64, 100.0 * point.hit_rate);
        let served = blocks
            .lru
            .iter()
            .position(|point| point.hit_rate > 0.0)
            .unwrap_or_default();
        charts.push(Chart {
            title: "Hit rate over cache size".to_owned(),
            subtitle: subtitle.clone(),
            footer: format!(
                "One LRU prefix cache, blocks of {} tokens; without a limit {}",
                blocks.block_size,
                percent(blocks.best_reuse)
            ),
            x: Axis {
                label: "cache size (tokens)".to_owned(),
                scale: Scale::Log,
                ..Axis::default()
            },
            y: Axis {
                label: "hit rate (% of blocks)".to_owned(),
                from: Some(0.0),
                ..Axis::default()
            },
            series: vec![Series {
                name: String::new(),
                points: blocks.lru[served.saturating_sub(1)..]
                    .iter()
                    .map(point)
                    .collect(),
                mark: Mark::LineAndDots,
                hue: Hue::Blue,
            }],
            ..Chart::default()
        });
    }
    let over_time = &description.arrivals.over_time;
    let at = |(index, rate): (usize, &f64)| ((index as f64 + 0.5) * over_time.window_s, *rate);
    // A last window that the end of the trace cuts short would look like a drop.
    let whole =
        ((description.duration_s / over_time.window_s) as usize).clamp(1, over_time.per_s.len());
    charts.push(Chart {
        title: "Arrivals over time".to_owned(),
        subtitle,
        footer: format!("Windows of {} s", over_time.window_s),
        x: Axis {
            label: "time (s)".to_owned(),
            from: Some(0.0),
            ..Axis::default()
        },
        y: Axis {
            label: "requests/s".to_owned(),
            from: Some(0.0),
            ..Axis::default()
        },
        series: vec![Series {
            name: String::new(),
            points: over_time.per_s[..whole]
                .iter()
                .enumerate()
                .map(at)
                .collect(),
            mark: Mark::Area,
            hue: Hue::Green,
        }],
        ..Chart::default()
    });
    charts
}

/// The first chart into `file`, the second beside it.
fn draw(charts: &[Chart], file: &Path) -> Result<(), Failure> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let extension = file.extension().unwrap_or_default().to_string_lossy();
    let beside = file.with_file_name(format!("{stem}-arrivals.{extension}"));
    for (chart, file) in charts.iter().zip([file, &beside]) {
        chart
            .write(file)
            .map_err(|error| Failure::input([error.to_string()]))?;
        note(&format!("drawn: {}", file.display()));
    }
    Ok(())
}
