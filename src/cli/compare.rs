//! `dynosim compare`: which difference between two results is real?

mod load;

use super::{FAILED, Failure, print};
use clap::Args;
use load::Side;
use serde_json::json;
use std::process::ExitCode;
use sweeps::compare::{Comparison, DEFAULT_METRICS, compare};
use sweeps::metric::{label, resolve, short};
use sweeps::paired::{Difference, Pairing, Verdict};

/// Compare two results and say which differences are real.
///
/// A result is a folder written by `replay --out` or `sweep --out`, or a report.json. Of a sweep it is the winner, or the
/// point named behind a `#`. Both must come from the same workload and seeds: then runs are paired by seed, and requests
/// one by one where their records are there. Differences are tested at 95 % with Holm's correction over the metrics.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct CompareArgs {
    /// First result: DIR, report.json, or DIR#POINT for a point of a sweep
    pub a: String,
    /// Second result; differences are B − A
    pub b: String,
    /// Compare this metric instead of the usual ones; repeat for several
    #[arg(long, value_name = "METRIC")]
    pub metric: Vec<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const EXAMPLE: &str = "Example:\n  dynosim compare results/round-robin results/kv\n  dynosim compare sweep-results#3 sweep-results#7";

pub fn run(args: CompareArgs) -> Result<ExitCode, Failure> {
    let mut problems = Vec::new();
    let metrics: Vec<&str> = match args.metric.as_slice() {
        [] => DEFAULT_METRICS.to_vec(),
        named => {
            let known = |name: &String| {
                resolve(name)
                    .map_err(|error| problems.push(format!("--metric: {error}")))
                    .ok()
            };
            named.iter().filter_map(known).collect()
        }
    };
    let mut side = |text: &str| {
        load::side(text)
            .map_err(|problem| problems.push(problem))
            .ok()
    };
    let (a, b) = (side(&args.a), side(&args.b));
    let (Some(a), Some(b), true) = (a, b, problems.is_empty()) else {
        return Err(Failure::input(problems));
    };
    let comparison = compare(&a.replicates, &b.replicates, &metrics).map_err(|error| Failure {
        messages: vec![format!("cannot compare: {error}")],
        code: FAILED,
    })?;
    print(&if args.json {
        json_text(&a, &b, &comparison)
    } else {
        text(&a, &b, &comparison)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn json_text(a: &Side, b: &Side, comparison: &Comparison) -> String {
    let difference = |one: &Difference| {
        let (pairing, batches) = match one.pairing {
            Pairing::Seeds => ("seeds", None),
            Pairing::Requests { batches } => ("requests", Some(batches)),
        };
        json!({ "metric": one.metric, "pairing": pairing, "batches": batches, "pairs": one.pairs, "a": one.a, "b": one.b,
            "difference": one.b - one.a, "interval_95": one.interval, "adjusted_p": one.adjusted_p,
            "verdict": verdict_name(one.verdict) })
    };
    let differences: Vec<_> = comparison.differences.iter().map(difference).collect();
    let object = json!({ "a": a.name, "b": b.name, "seeds": comparison.seeds, "unpaired_seeds": comparison.unpaired_seeds,
        "unpaired_requests": comparison.unpaired_requests, "differences": differences });
    format!("{object:#}\n")
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Different => "different",
        Verdict::NotShown => "not_shown",
        Verdict::Equal => "equal",
        Verdict::OnePair => "one_pair",
    }
}

fn text(a: &Side, b: &Side, comparison: &Comparison) -> String {
    let mut text = format!("A: {}\nB: {}\n", a.name, b.name);
    let (seeds, requests): (Vec<&Difference>, Vec<&Difference>) = comparison
        .differences
        .iter()
        .partition(|one| one.pairing == Pairing::Seeds);
    for (title, own) in [
        ("Runs paired by seed", seeds),
        ("Requests paired one by one", requests),
    ] {
        if let Some(first) = own.first() {
            text += &format!("\n{title}, {}\n{}", pairs(first), table(&own));
        }
    }
    text += "\nReal: B differs from A at 95 % confidence after Holm's correction over the metrics of a table, which p has.\n\
        An interval is that of its metric alone: it may leave out 0 where the difference may still be chance.\n";
    if comparison.seeds.len() == 1 {
        text +=
            "One pair: exact for this workload and seed; run --replicates to know about others.\n";
    }
    if !comparison.unpaired_seeds.is_empty() {
        text += &format!(
            "Left out, in one result only: seeds {:?}.\n",
            comparison.unpaired_seeds
        );
    }
    if comparison.unpaired_requests > 0 {
        text += &format!(
            "Left out: {} requests that completed in one result only.\n",
            comparison.unpaired_requests
        );
    }
    text
}

fn pairs(difference: &Difference) -> String {
    let count = difference.pairs;
    match difference.pairing {
        Pairing::Seeds => format!("{count} pair{}", if count == 1 { "" } else { "s" }),
        Pairing::Requests { batches } => format!("{count} pairs in {batches} batches"),
    }
}

fn table(differences: &[&Difference]) -> String {
    let head = [
        "",
        "A",
        "B",
        "B − A",
        "95 % interval, alone",
        "p, corrected",
        "",
    ]
    .map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(differences.iter().map(|one| row(one)));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for column in 1..6 {
            line += &format!("  {:>width$}", row[column], width = widths[column]);
        }
        text += format!("{line}  {}", row[6]).trim_end();
        text.push('\n');
    }
    text
}

fn row(one: &Difference) -> [String; 7] {
    let name = label(&one.metric);
    let change = if one.a == 0.0 {
        String::new()
    } else {
        format!(" ({:+.1} %)", 100.0 * (one.b - one.a) / one.a.abs())
    };
    let interval = one.interval.map_or("-".to_owned(), |(low, high)| {
        format!("{} to {}", short(low), short(high))
    });
    let p = one
        .adjusted_p
        .filter(|_| one.verdict != Verdict::Equal)
        .map_or("-".to_owned(), |p| {
            if p < 0.001 {
                "< 0.001".to_owned()
            } else {
                format!("{p:.3}")
            }
        });
    let verdict = match one.verdict {
        Verdict::Better => "real: B is better",
        Verdict::Worse => "real: B is worse",
        Verdict::Different => "real",
        Verdict::NotShown => "may be chance",
        Verdict::Equal => "equal",
        Verdict::OnePair => "one pair",
    };
    [
        name,
        short(one.a),
        short(one.b),
        short(one.b - one.a) + &change,
        interval,
        p,
        verdict.to_owned(),
    ]
}
