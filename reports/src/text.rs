//! The summary of a run for the terminal: the metrics in AIPerf's layout, then counts, rates, memory and workers, and
//! last what the numbers stand on.

use crate::numbers::{count, percent, separated};
use crate::report::Report;
use sim::summary::{Distribution, Goodput, Summary, WorkerSummary};
use std::fmt::Write;

/// Runs with more workers list the pools only.
const MOST_WORKERS_LISTED: usize = 32;

/// The report as text, at most 110 characters wide unless a name is longer.
#[must_use]
pub fn summary(report: &Report) -> String {
    let summary = &report.summary;
    let sections = [
        Some(requests(summary)),
        Some(latency(summary)),
        Some(throughput(summary)),
        summary.goodput.as_ref().map(goodput),
        Some(memory(summary)),
        workers(&summary.workers),
        Some(provenance(report)),
    ];
    sections
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

/// Rows of cells: the first column to the left, the others to the right, each as wide as its widest cell but no less than
/// 10 characters, so that blocks under one another line up.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(if column == 0 { 34 } else { 10 })
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width - cell.chars().count());
            line += &if column == 0 {
                format!("{cell}{space}")
            } else {
                format!("  {space}{cell}")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(name: &str, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(cells).collect()
}

fn requests(summary: &Summary) -> String {
    let counts = &summary.requests;
    let mut line = format!(
        "Requests: {} completed of {}",
        count(counts.completed),
        count(counts.total)
    );
    if counts.rejected > 0 {
        let reasons: Vec<String> = counts
            .rejected_by
            .iter()
            .map(|(reason, n)| format!("{} {reason}", count(*n)))
            .collect();
        let _ = write!(
            line,
            ", {} rejected ({})",
            count(counts.rejected),
            reasons.join(", ")
        );
    }
    if counts.unfinished > 0 {
        let _ = write!(line, ", {} unfinished", count(counts.unfinished));
    }
    if counts.warmup > 0 {
        let _ = write!(
            line,
            "; {} of all were warm-up and do not count below",
            count(counts.warmup)
        );
    }
    if counts.preemptions > 0 {
        let _ = write!(
            line,
            "\n{} preemptions of {} requests",
            count(counts.preemptions),
            count(counts.preempted)
        );
    }
    line.push('\n');
    line
}

fn latency(summary: &Summary) -> String {
    let head = ["avg", "min", "p50", "p90", "p95", "p99", "max"].map(str::to_owned);
    let mut rows = vec![row("Latency (ms)", head)];
    let latency = &summary.latency;
    for (name, values) in [
        ("Time to first token (TTFT)", &latency.ttft_ms),
        ("Gap between tokens (ITL)", &latency.itl_ms),
        ("Time per output token (TPOT)", &latency.tpot_ms),
        ("End to end (E2E)", &latency.e2e_ms),
        ("Queue time", &latency.queue_ms),
    ] {
        rows.push(row(name, distribution(values)));
    }
    aligned(&rows)
}

fn distribution(values: &Distribution) -> Vec<String> {
    if values.count == 0 {
        return vec!["-".to_owned(); 7];
    }
    let cells = [
        values.mean,
        values.min,
        values.p50,
        values.p90,
        values.p95,
        values.p99,
        values.max,
    ];
    cells.map(|value| separated(value, 2)).to_vec()
}

fn throughput(summary: &Summary) -> String {
    let rates = &summary.throughput;
    let number = |value: f64| separated(value, 2);
    let title = format!(
        "Throughput ({} s, {} GPUs)",
        separated(rates.duration_s, 1),
        count(rates.gpus)
    );
    let per_gpu = |value: f64| {
        if rates.gpus == 0 {
            "-".to_owned()
        } else {
            number(value)
        }
    };
    aligned(&[
        row(&title, ["total", "per GPU", "per user"].map(str::to_owned)),
        row(
            "Output tokens/s",
            [
                number(rates.output_tokens_per_s),
                per_gpu(rates.output_tokens_per_s_per_gpu),
                number(rates.output_tokens_per_s_per_user),
            ],
        ),
        row(
            "Input and output tokens/s",
            [
                number(rates.total_tokens_per_s),
                per_gpu(rates.total_tokens_per_s_per_gpu),
            ],
        ),
        row("Requests/s", [number(rates.requests_per_s)]),
    ])
}

fn goodput(goodput: &Goodput) -> String {
    let bound = |name: &str, bound: Option<f64>| bound.map(|ms| format!("{name} ≤ {ms} ms"));
    let bounds: Vec<String> = bound("TTFT", goodput.ttft_ms)
        .into_iter()
        .chain(bound("TPOT", goodput.itl_ms))
        .collect();
    let title = format!("Goodput ({})", bounds.join(", "));
    let met = format!(
        "{} requests met the SLA, {} of all",
        count(goodput.requests),
        percent(goodput.share)
    );
    format!(
        "{title}: {met}, {}/s\n{} of one-minute windows had 90 % of their requests within it\n",
        separated(goodput.requests_per_s, 2),
        percent(goodput.window_share)
    )
}

fn memory(summary: &Summary) -> String {
    let prefix = &summary.prefix;
    let kv = &summary.kv;
    format!(
        "Prefix reuse: {} of prompt tokens at first admission, {} over all admissions,\n\
         {} by the router's belief; {} of requests had a hit\n\
         KV cache: {} in use on average, {} at the peak of the fullest worker\n",
        percent(prefix.first_admission_share),
        percent(prefix.all_admissions_share),
        percent(prefix.router_overlap_share),
        percent(prefix.requests_with_hit_share),
        percent(kv.mean_share),
        percent(kv.peak_share),
    )
}

fn workers(workers: &[WorkerSummary]) -> Option<String> {
    if workers.is_empty() || workers.len() > MOST_WORKERS_LISTED {
        return None;
    }
    let head = [
        "requests",
        "steps",
        "busy",
        "prefill tok",
        "decode tok",
        "preempted",
        "KV peak",
    ]
    .map(str::to_owned);
    let mut rows = vec![row("Worker", head)];
    for worker in workers {
        let cells = [
            count(worker.requests),
            count(worker.steps),
            percent(worker.utilisation),
            count(worker.prefill_tokens),
            count(worker.decode_tokens),
            count(worker.preemptions),
            percent(worker.kv_peak_share),
        ];
        rows.push(row(&format!("{} {}", worker.worker, worker.pool), cells));
    }
    Some(aligned(&rows))
}

fn provenance(report: &Report) -> String {
    let timing = &report.timing;
    let mut text = format!(
        "Scenario {}, seed {}, digest {:.16}, dynosim {}\nTiming: {} ({}), {}\n",
        report.scenario,
        report.seed,
        report.digest,
        report.dynosim_version,
        timing.source,
        timing.basis,
        timing.detail
    );
    for guess in &timing.guesses {
        let _ = writeln!(text, "Guess: {guess}");
    }
    text
}
