//! `dynosim validate timing`: composed kernel times against AIConfigurator's.

use crate::cli::{FAILED, Failure, print};
use calibration::CalibrationError;
use calibration::aic::reference::{self, Comparison};
use calibration::aic::reference_ops::{OpRow, compare_ops};
use calibration::log_file::LogFile;
use calibration::tables::{Backend, Profile, file};
use clap::Args;
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLE: &str =
    "Example:\n  dynosim validate timing calibration/tests/data/reference_sample.csv";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct TimingArgs {
    /// CSV of passes, mixed steps or KV capacities (columns: docs/calibration.md)
    file: PathBuf,
    /// Largest relative error that is accepted [default: 1e-4 for passes, 1e-3 for the rest]
    #[arg(long)]
    tolerance: Option<f64>,
    /// Folder with files made by `dynosim calibrate import-aic`, used before the embedded ones
    #[arg(long)]
    tables: Option<PathBuf>,
    /// JSON lines with the kernels of each row of FILE, compared one by one (docs/calibration.md)
    #[arg(long)]
    ops: Option<PathBuf>,
    /// Rows printed
    #[arg(long, default_value_t = 10)]
    rows: usize,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: &TimingArgs) -> Result<ExitCode, Failure> {
    if let Some(tolerance) = args.tolerance
        && !(tolerance.is_finite() && tolerance >= 0.0)
    {
        return Err(Failure::input([format!(
            "--tolerance {tolerance}: expected a number from 0"
        )]));
    }
    let imported = match &args.tables {
        Some(dir) => imported(dir)?,
        None => Vec::new(),
    };
    let profile = |gpu: &str,
                   backend: Backend,
                   version: Option<&str>|
     -> Result<&Profile, CalibrationError> {
        let fits = |profile: &&Profile| {
            let provenance = &profile.provenance;
            provenance.gpu == gpu
                && provenance.backend == backend
                && version.is_none_or(|version| provenance.version == version)
        };
        match imported
            .iter()
            .find(fits)
            .or_else(|| Profile::all_embedded().find(fits))
        {
            Some(profile) => Ok(profile),
            None => Err(CalibrationError::NotMeasured {
                table: "the tables at hand".to_owned(),
                wanted: [gpu, backend.name(), version.unwrap_or_default()]
                    .join(" ")
                    .trim_end()
                    .to_owned(),
                nearest: None,
            }),
        }
    };
    let comparison = reference::compare(&args.file, &profile)
        .map_err(|error| Failure::input([error.to_string()]))?;
    let tolerance = args.tolerance.unwrap_or(comparison.kind.tolerance());
    let ops = match &args.ops {
        Some(path) => LogFile::read(path).and_then(|log| compare_ops(&comparison, &log)),
        None => Ok(Vec::new()),
    };
    let ops = ops.map_err(|error| Failure::input([error.to_string()]))?;
    let beyond_ops = ops.iter().filter(|op| op.error() > tolerance).count();
    let beyond = comparison
        .rows
        .iter()
        .filter(|row| row.error() > tolerance)
        .count();
    print(&if args.json {
        as_json(&comparison, &ops, tolerance, beyond)
    } else {
        as_text(&comparison, tolerance, beyond, args.rows)
            + &ops_as_text(&ops, tolerance, beyond_ops, args.rows)
    })?;
    if comparison.rows.is_empty() {
        return Err(Failure::input([format!(
            "{}: no row could be priced",
            args.file.display()
        )]));
    }
    let is_beyond = beyond + beyond_ops > 0;
    Ok(ExitCode::from(if is_beyond { FAILED } else { 0 }))
}

fn imported(dir: &Path) -> Result<Vec<Profile>, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::input([format!("{}: {error}", dir.display())]);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "tables")
        {
            paths.push(path);
        }
    }
    paths.sort();
    let mut profiles = Vec::new();
    for path in paths {
        let bytes = std::fs::read(&path)
            .map_err(|error| Failure::input([format!("{}: {error}", path.display())]))?;
        let profile = file::decode(&path.display().to_string(), &bytes);
        profiles.push(profile.map_err(|error| Failure::input([error.to_string()]))?);
    }
    Ok(profiles)
}

/// Median, 90th percentile and largest error.
fn quantiles(comparison: &Comparison) -> [f64; 3] {
    // Worst first.
    let at = |share: f64| {
        let last = comparison.rows.len().saturating_sub(1);
        comparison
            .rows
            .get(last - (last as f64 * share) as usize)
            .map_or(0.0, reference::Row::error)
    };
    [at(0.5), at(0.9), at(1.0)]
}

fn as_text(comparison: &Comparison, tolerance: f64, beyond: usize, rows: usize) -> String {
    let mut text = String::new();
    let value =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.6}"));
    let _ = writeln!(
        text,
        "{:>9}  {:>16}  {:>16}  line  {}",
        "error",
        "reference",
        "dynosim",
        comparison.kind.name()
    );
    for row in comparison.rows.iter().take(rows) {
        let (expected, found) = (value(row.expected), value(row.found));
        let _ = writeln!(
            text,
            "{:>9.2e}  {expected:>16}  {found:>16}  {:>4}  {}",
            row.error(),
            row.line,
            row.question
        );
    }
    let [median, p90, most] = quantiles(comparison);
    let count = comparison.rows.len();
    let _ = writeln!(
        text,
        "\n{count} rows: median error {median:.1e}, p90 {p90:.1e}, largest {most:.1e}; {beyond} beyond {tolerance:.0e}"
    );
    for (why, rows) in &comparison.unpriced {
        let _ = writeln!(text, "{rows} rows not priced: {why}");
    }
    text
}

fn ops_as_text(ops: &[OpRow], tolerance: f64, beyond: usize, rows: usize) -> String {
    let Some(worst) = ops.first() else {
        return String::new();
    };
    let mut text = "\n    error         reference           dynosim  line  kernel, ms\n".to_owned();
    for op in ops.iter().take(rows) {
        let _ = writeln!(
            text,
            "{:>9.2e}  {:>16.6}  {:>16.6}  {:>4}  {}",
            op.error(),
            op.expected,
            op.found,
            op.line,
            op.op
        );
    }
    let _ = writeln!(
        text,
        "\n{} kernels: largest error {:.1e}; {beyond} beyond {tolerance:.0e}",
        ops.len(),
        worst.error()
    );
    text
}

fn as_json(comparison: &Comparison, ops: &[OpRow], tolerance: f64, beyond: usize) -> String {
    let [median, p90, most] = quantiles(comparison);
    let row = |row: &reference::Row| {
        // JSON has no infinity: a row that only one side answers has no error there.
        let error = row.error();
        json!({
            "line": row.line, "question": row.question, "reference": row.expected, "dynosim": row.found,
            "error": error.is_finite().then_some(error),
        })
    };
    let value = json!({
        "kind": comparison.kind.name(), "tolerance": tolerance, "rows_beyond": beyond,
        "error_median": median, "error_p90": p90, "error_most": most.is_finite().then_some(most),
        "unpriced": comparison.unpriced.iter().map(|(why, rows)| json!({"why": why, "rows": rows})).collect::<Vec<_>>(),
        "rows": comparison.rows.iter().map(row).collect::<Vec<_>>(),
        "kernels_compared": ops.len(), "kernel_error_most": ops.first().map(OpRow::error),
    });
    format!("{value}\n")
}
