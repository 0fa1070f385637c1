//! The numbers of real runs and of their simulations, side by side.

use super::{RealArgs, Run};
use crate::cli::real::Machine;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A number of a run.
pub type Metric = (&'static str, fn(&Run) -> f64);

pub const METRICS: [Metric; 18] = [
    ("TTFT mean, ms", |run| run.summary.latency.ttft_ms.mean),
    ("TTFT p50, ms", |run| run.summary.latency.ttft_ms.p50),
    ("TTFT p90, ms", |run| run.summary.latency.ttft_ms.p90),
    ("TTFT p99, ms", |run| run.summary.latency.ttft_ms.p99),
    ("ITL mean, ms", |run| run.summary.latency.itl_ms.mean),
    ("ITL p50, ms", |run| run.summary.latency.itl_ms.p50),
    ("ITL p90, ms", |run| run.summary.latency.itl_ms.p90),
    ("ITL p99, ms", |run| run.summary.latency.itl_ms.p99),
    ("E2E mean, ms", |run| run.summary.latency.e2e_ms.mean),
    ("E2E p50, ms", |run| run.summary.latency.e2e_ms.p50),
    ("E2E p90, ms", |run| run.summary.latency.e2e_ms.p90),
    ("E2E p99, ms", |run| run.summary.latency.e2e_ms.p99),
    ("output tokens/s", |run| {
        run.summary.throughput.output_tokens_per_s
    }),
    ("requests/s", |run| run.summary.throughput.requests_per_s),
    ("steps", Run::steps),
    ("prefill tokens per step", |run| {
        run.sum(|worker| worker.prefill_tokens) / run.steps().max(1.0)
    }),
    ("decodes per step", |run| {
        run.sum(|worker| worker.decode_tokens) / run.steps().max(1.0)
    }),
    ("prompt tokens hit, %", |run| {
        100.0 * run.summary.prefix.all_admissions_share
    }),
];

/// A metric of all runs.
pub struct Compared {
    pub metric: &'static str,
    /// By run.
    pub real: Vec<f64>,
    /// By run, or one for all.
    pub simulated: Vec<f64>,
    /// By run: simulated with the same measurements, at one pace. Empty where none were made.
    pub even: Vec<f64>,
    /// By run: simulated with the times of its own steps. Empty where they are too few.
    pub own: Vec<f64>,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Compared {
    /// Mean over the real runs.
    fn measured(&self) -> f64 {
        mean(&self.real)
    }

    /// Simulated over measured − 1; `None` if nothing was measured.
    fn error(&self) -> Option<f64> {
        (self.measured() > 0.0).then(|| mean(&self.simulated) / self.measured() - 1.0)
    }

    /// The same at one pace.
    fn even_error(&self) -> Option<f64> {
        let is_there = !self.even.is_empty() && self.measured() > 0.0;
        is_there.then(|| mean(&self.even) / self.measured() - 1.0)
    }

    /// Mean over the runs of (simulated with its own steps over real − 1).
    fn own_error(&self) -> Option<f64> {
        let pairs = self.own.iter().zip(&self.real);
        let errors = pairs
            .filter(|(_, real)| **real > 0.0)
            .map(|(own, real)| own / real - 1.0);
        let errors: Vec<f64> = errors.collect();
        (!errors.is_empty()).then(|| mean(&errors))
    }

    /// Greatest minus least of the real runs, over their mean; `None` of a single run.
    fn noise(&self) -> Option<f64> {
        let most = self.real.iter().copied().fold(f64::MIN, f64::max);
        let least = self.real.iter().copied().fold(f64::MAX, f64::min);
        (self.real.len() > 1 && self.measured() > 0.0).then(|| (most - least) / self.measured())
    }
}

/// A table and what its columns are.
pub fn as_text(machine: &Machine, timing: &str, requests: u64, rows: &[Compared]) -> String {
    let is_around = rows.iter().any(|row| !row.even.is_empty());
    let mut text = format!(
        "Real            {}\nSimulated       {timing}\nRequests        {requests}\n\n",
        machine.in_words()
    );
    let _ = writeln!(
        text,
        "{:<26} {:>11} {:>11} {:>8} {:>8} {:>10}{}",
        "",
        "real",
        "simulated",
        "error",
        "noise",
        "own steps",
        if is_around { "   one pace" } else { "" }
    );
    let share = |share: Option<f64>, signed: bool| match share {
        None => "–".to_owned(),
        Some(share) if signed => format!("{:+.1} %", 100.0 * share),
        Some(share) => format!("{:.1} %", 100.0 * share),
    };
    for row in rows {
        let _ = writeln!(
            text,
            "{:<26} {:>11.2} {:>11.2} {:>8} {:>8} {:>10}{}",
            row.metric,
            row.measured(),
            mean(&row.simulated),
            share(row.error(), true),
            share(row.noise(), false),
            share(row.own_error(), true),
            match row.even_error() {
                Some(error) => format!(" {:>10}", share(Some(error), true)),
                None => String::new(),
            }
        );
    }
    let runs = rows.first().map_or(0, |row| row.real.len());
    let _ = writeln!(
        text,
        "\nerror: simulated against the mean of {runs} real {}; noise: the real runs among themselves, greatest minus least; own \
         steps: the error where each run is simulated with times fitted to its own steps{}",
        if runs == 1 { "run" } else { "runs" },
        if is_around {
            "; one pace: the error where the pace of the run is not told"
        } else {
            ""
        }
    );
    text
}

/// The same for programs.
pub fn as_json(
    args: &RealArgs,
    machine: &Machine,
    timing: &str,
    requests: u64,
    rows: &[Compared],
) -> Value {
    let metrics = rows.iter().map(|row| {
        json!({
            "metric": row.metric, "real": row.real, "measured": row.measured(), "simulated": mean(&row.simulated),
            "simulated_runs": row.simulated, "error": row.error(), "noise": row.noise(), "own_steps": row.own,
            "own_steps_error": row.own_error(), "one_pace": row.even, "one_pace_error": row.even_error(),
        })
    });
    json!({
        "scenario": args.scenario.display().to_string(),
        "real": machine.in_words(),
        "timing": timing,
        "runs": args.runs,
        "requests": requests,
        "metrics": metrics.collect::<Vec<_>>(),
    })
}
