//! `dynosim validate serving`: simulations against real serving benchmarks.

use crate::cli::{Failure, print};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use validation::serving::{
    Benchmarks, Errors, Fitted, Pair, Parameters, Prediction, Row, Subject, errors, fit,
};

const EXAMPLE: &str = "Example:\n  dynosim validate serving validation/tests/data/benchmarks.csv";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct ServingArgs {
    /// CSV of benchmarks (columns: docs/accuracy.md)
    file: PathBuf,
    /// Folder with files made by `dynosim calibrate import-aic`, used before the embedded ones
    #[arg(long)]
    tables: Option<PathBuf>,
    /// Fit host times and recipes on this file instead of taking the built-in ones, and print them
    #[arg(long)]
    fit: bool,
    /// Predict each group of rows by a fit on all others
    #[arg(long, value_enum, conflicts_with = "fit")]
    leave_out: Option<Group>,
    /// Draw predicted against measured into this file (.png or .svg)
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Write every row with its prediction into this CSV file
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the errors by GPU, engine, model and width into this CSV file
    #[arg(long)]
    errors: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Rows of one model family
    Family,
    /// Rows of one GPU
    Gpu,
}

/// A row, whether its model is dense, and what the simulation gave.
type Simulated<'a> = (&'a Row, bool, Prediction);

/// A way to look at a row, and a number to compare.
type Metric = (&'static str, fn(&Pair, &Row) -> f64);

const METRICS: [Metric; 3] = [
    ("tpot", |pair, _| pair.tpot_ms),
    ("ttft", |pair, _| pair.ttft_ms),
    ("output_tokens_per_s", Pair::output_tokens_per_s),
];

/// Everything the command has to tell.
struct Outcome<'a> {
    benchmarks: &'a Benchmarks,
    rows: Vec<Simulated<'a>>,
    unpriced: BTreeMap<String, usize>,
    parameters: Option<Parameters>,
    how: String,
}

pub fn run(args: &ServingArgs) -> Result<ExitCode, Failure> {
    let benchmarks =
        Benchmarks::read(&args.file).map_err(|error| Failure::input([error.to_string()]))?;
    if let Some(folder) = args.tables.as_deref()
        && !folder.is_dir()
    {
        let folder = folder.display();
        return Err(Failure::input([format!(
            "--tables {folder}: found no such folder"
        )]));
    }
    let (mut subjects, mut unpriced) = (Vec::new(), BTreeMap::new());
    for row in &benchmarks.rows {
        match Subject::of(row, args.tables.as_deref()) {
            Ok(subject) => subjects.push((row, subject)),
            Err(why) => *unpriced.entry(why).or_insert(0) += 1,
        }
    }
    if subjects.is_empty() {
        let reasons = unpriced.keys().cloned();
        return Err(Failure::input(reasons.chain([format!(
            "{}: no row could be simulated",
            args.file.display()
        )])));
    }
    let fitted = Fitted::new(subjects);
    let all: Vec<usize> = (0..fitted.rows.len()).collect();
    let (predictions, parameters, how) = match args.leave_out {
        Some(Group::Family) => (
            fit::leave_out(&fitted, |row| row.family.clone()),
            None,
            "each model family predicted by a fit on the others",
        ),
        Some(Group::Gpu) => (
            fit::leave_out(&fitted, |row| row.gpu.clone()),
            None,
            "each GPU predicted by a fit on the others",
        ),
        None if args.fit => {
            let parameters = fitted.fit(&all);
            let predictions = fitted.predict_all(&parameters);
            (predictions, Some(parameters), "fitted on these rows")
        }
        None => {
            let parameters = Parameters::built_in();
            let predictions = fitted.predict_all(&parameters);
            (
                predictions,
                Some(parameters),
                "built-in host times and recipes",
            )
        }
    };
    let rows = fitted.rows.iter().zip(predictions);
    let outcome = Outcome {
        benchmarks: &benchmarks,
        rows: rows
            .map(|((row, subject), prediction)| (*row, subject.is_dense, prediction))
            .collect(),
        unpriced,
        parameters,
        how: how.to_owned(),
    };
    print(&if args.json {
        format!("{}\n", outcome.as_json())
    } else {
        outcome.as_text()
    })?;
    for (path, text) in [
        (&args.out, outcome.as_csv()),
        (&args.errors, outcome.errors_as_csv()),
    ] {
        if let Some(path) = path {
            let write = |file: &mut dyn std::io::Write| file.write_all(text.as_bytes());
            reports::write_atomically(path, |file| write(file))
                .map_err(|error| Failure::run(error.to_string()))?;
        }
    }
    if let Some(path) = &args.plot {
        outcome
            .charts()
            .write(path)
            .map_err(|error| Failure::run(error.to_string()))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Outcome<'_> {
    /// Rows by group: all, kinds of model, engines, families, GPUs, bands of concurrency.
    fn groups(&self) -> Vec<(String, Vec<usize>)> {
        let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
        let everything = (0..self.rows.len()).collect();
        groups.push(("all".to_owned(), everything));
        let by: [fn(&Simulated<'_>) -> String; 5] = [
            |(_, is_dense, _)| {
                if *is_dense {
                    "dense"
                } else {
                    "mixture of experts"
                }
                .to_owned()
            },
            |(row, ..)| row.backend.clone(),
            |(row, ..)| row.family.clone(),
            |(row, ..)| row.gpu.clone(),
            |(row, ..)| {
                match row.concurrency {
                    0..=8 => "concurrency 1-8",
                    9..=32 => "concurrency 9-32",
                    33..=64 => "concurrency 33-64",
                    _ => "concurrency 65-",
                }
                .to_owned()
            },
        ];
        for name in by {
            let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for (index, row) in self.rows.iter().enumerate() {
                found.entry(name(row)).or_default().push(index);
            }
            groups.extend(found);
        }
        groups
    }

    /// Errors of dynosim and of each predictor of the file over those rows that both have, by metric.
    fn errors_of(&self, rows: &[usize]) -> Vec<(String, Vec<Option<Errors>>)> {
        let dynosim = |index: usize| Some(self.rows[index].2.pair);
        let mut found = vec![("dynosim".to_owned(), self.errors_by(rows, &dynosim))];
        for (who, name) in self.benchmarks.predictors.iter().enumerate() {
            let theirs = |index: usize| self.rows[index].0.predictions[who];
            let common: Vec<usize> = rows
                .iter()
                .copied()
                .filter(|&row| theirs(row).is_some())
                .collect();
            if common.is_empty() {
                continue;
            }
            if common.len() < rows.len() {
                let same = format!("dynosim where {name} answers");
                found.push((same, self.errors_by(&common, &dynosim)));
            }
            found.push((name.clone(), self.errors_by(&common, &theirs)));
        }
        found
    }

    fn errors_by(
        &self,
        rows: &[usize],
        predict: &dyn Fn(usize) -> Option<Pair>,
    ) -> Vec<Option<Errors>> {
        let of = |(_, value): &Metric| {
            let pairs: Vec<(f64, f64)> = rows
                .iter()
                .filter_map(|&index| {
                    let row = self.rows[index].0;
                    Some((value(&predict(index)?, row), value(&row.measured, row)))
                })
                .collect();
            errors(&pairs)
        };
        METRICS.iter().map(of).collect()
    }

    fn as_text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:44} {:>5}  {:^31}  {:^31}  {:^31}",
            "", "rows", "TPOT", "TTFT", "output tokens/s"
        );
        let columns = format!(
            "{:>6} {:>6} {:>6} {:>5} {:>4}",
            "mean", "median", "p90", "bias", "rank"
        );
        let _ = writeln!(
            text,
            "{:44} {:>5}  {columns}  {columns}  {columns}",
            "error in %", ""
        );
        for (name, rows) in self.groups() {
            for (index, (who, metrics)) in self.errors_of(&rows).into_iter().enumerate() {
                let label = if index == 0 {
                    name.clone()
                } else {
                    format!("  {who}")
                };
                let count = metrics[0].map_or(0, |errors| errors.rows);
                let _ = write!(text, "{label:44} {count:>5}");
                for errors in metrics {
                    let _ = write!(text, "  {}", cells(errors));
                }
                text.push('\n');
            }
        }
        let _ = writeln!(text, "\n{} rows simulated: {}.", self.rows.len(), self.how);
        let extrapolated = self.rows.iter().map(|(.., found)| found.extrapolated);
        let share = extrapolated.sum::<f64>() / self.rows.len() as f64;
        let _ = writeln!(
            text,
            "{:.1} % of the simulated step time lies beyond the measured tables.",
            share * 100.0
        );
        if let Some(parameters) = &self.parameters {
            text.push_str(&parameters.as_text());
        }
        for (why, rows) in &self.unpriced {
            let _ = writeln!(text, "{rows} rows not simulated: {why}");
        }
        text
    }

    fn as_json(&self) -> Value {
        let groups: Vec<Value> = self
            .groups()
            .into_iter()
            .map(|(name, rows)| {
                let predictors: Vec<Value> = self
                    .errors_of(&rows)
                    .into_iter()
                    .map(|(who, metrics)| {
                        let named = METRICS.iter().zip(metrics).map(|((name, _), errors)| ((*name).to_owned(), json!(errors)));
                        json!({"predictor": who, "errors": named.collect::<serde_json::Map<_, _>>()})
                    })
                    .collect();
                json!({"group": name, "rows": rows.len(), "predictors": predictors})
            })
            .collect();
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(row, _, found)| {
                json!({
                    "line": row.line, "id": row.id,
                    "measured_ttft_ms": row.measured.ttft_ms, "ttft_ms": found.pair.ttft_ms,
                    "measured_tpot_ms": row.measured.tpot_ms, "tpot_ms": found.pair.tpot_ms,
                    "extrapolated_share": found.extrapolated,
                })
            })
            .collect();
        let unpriced: Vec<Value> = self
            .unpriced
            .iter()
            .map(|(why, rows)| json!({"why": why, "rows": rows}))
            .collect();
        json!({
            "parameters_from": self.how, "parameters": self.parameters.as_ref().map(Parameters::as_json),
            "groups": groups, "rows": rows, "unpriced": unpriced,
        })
    }

    fn as_csv(&self) -> String {
        let mut text = "line,id,backend,model_family,system,tp,isl,osl,concurrency,measured_ttft_ms,ttft_ms,measured_tpot_ms,tpot_ms\n".to_owned();
        for (row, _, found) in &self.rows {
            let Row {
                line,
                id,
                backend,
                family,
                gpu,
                tp,
                isl,
                osl,
                concurrency,
                measured,
                ..
            } = row;
            let _ = writeln!(
                text,
                "{line},{id},{backend},{family},{gpu},{tp},{isl},{osl},{concurrency},{},{:.4},{},{:.4}",
                measured.ttft_ms, found.pair.ttft_ms, measured.tpot_ms, found.pair.tpot_ms
            );
        }
        text
    }

    /// Median errors by GPU, engine, model and width: what reports quote.
    fn errors_as_csv(&self) -> String {
        let mut groups: BTreeMap<(&str, &str, &str, u32), Vec<usize>> = BTreeMap::new();
        for (index, (row, ..)) in self.rows.iter().enumerate() {
            let key = (&*row.gpu, &*row.backend, &*row.model, row.tp);
            groups.entry(key).or_default().push(index);
        }
        let mut text = "gpu,backend,model,gpus,rows,tpot_median,ttft_median\n".to_owned();
        for ((gpu, backend, model, tp), rows) in groups {
            let dynosim = |index: usize| Some(self.rows[index].2.pair);
            let errors = self.errors_by(&rows, &dynosim);
            if let [Some(tpot), Some(ttft), ..] = errors[..] {
                let count = rows.len();
                let (tpot, ttft) = (tpot.median, ttft.median);
                let _ = writeln!(
                    text,
                    "{gpu},{backend},{model},{tp},{count},{tpot:.3},{ttft:.3}"
                );
            }
        }
        text
    }

    /// Predicted against measured, TPOT and TTFT over one another on logarithmic axes.
    fn charts(&self) -> reports::plot::Chart {
        use reports::plot::{Axis, Chart, Hue, Mark, Scale, Series};
        let axis = |label: &str| Axis {
            label: label.to_owned(),
            scale: Scale::Log,
            ..Axis::default()
        };
        let dots = |name: &str, hue: Hue, value: fn(&Pair) -> f64| Series {
            name: name.to_owned(),
            points: self
                .rows
                .iter()
                .map(|(row, _, found)| (value(&row.measured), value(&found.pair)))
                .collect(),
            mark: Mark::Dots,
            hue,
        };
        let (tpot, ttft) = (
            dots("TPOT", Hue::Blue, |pair| pair.tpot_ms),
            dots("TTFT", Hue::Orange, |pair| pair.ttft_ms),
        );
        let values = tpot.points.iter().chain(&ttft.points);
        let (least, most) = values.fold((f64::MAX, 0.0f64), |(least, most), &(x, y)| {
            (least.min(x).min(y), most.max(x).max(y))
        });
        let equal = Series {
            name: "equal".to_owned(),
            points: vec![(least, least), (most, most)],
            mark: Mark::Dashes,
            hue: Hue::Grey,
        };
        Chart {
            title: format!(
                "{} serving benchmarks: simulated against measured",
                self.rows.len()
            ),
            subtitle: self.how.clone(),
            footer: format!("dynosim {}", env!("CARGO_PKG_VERSION")),
            x: axis("measured, ms"),
            y: axis("simulated, ms"),
            series: vec![equal, ttft, tpot],
            ..Chart::default()
        }
    }
}

fn cells(errors: Option<Errors>) -> String {
    let Some(errors) = errors else {
        return " ".repeat(31);
    };
    let rank = errors
        .rank_correlation
        .map_or("-".to_owned(), |rank| format!("{rank:.2}"));
    format!(
        "{:>6.1} {:>6.1} {:>6.1} {:>+5.0} {rank:>4}",
        errors.mean * 100.0,
        errors.median * 100.0,
        errors.p90 * 100.0,
        errors.bias * 100.0
    )
}
