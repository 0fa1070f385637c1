//! `dynosim calibrate fit-steps`: a timing model from logs of steps.

use crate::cli::{Failure, print};
use calibration::fit_steps::{StepFit, fit};
use calibration::fitted::HeldOut;
use calibration::log_file::LogFile;
use calibration::step_log::{Prompts, StepLog, VllmLog};
use calibration::{CalibrationError, Fitted};
use clap::Args;
use reports::plot::{Axis, Chart, Hue, Mark, Scale, Series};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use validation::outcome::{Compared, compare};
use validation::step_replay;

const EXAMPLE: &str =
    "Example:\n  dynosim calibrate fit-steps engine.steplog.jsonl --out engine.fit.json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct FitStepsArgs {
    /// Logs of steps: vLLM's, or Dynamo's forward-pass metrics (docs/fits.md), plain, gzip or zstd
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// File for the profile, for `timing: {source: fitted, profile: FILE}`
    #[arg(long)]
    out: Option<PathBuf>,
    /// Picture of the residuals, .png or .svg
    #[arg(long)]
    plot: Option<PathBuf>,
    /// A vLLM log whose requests are simulated with the fit and compared; may be given several times
    #[arg(long)]
    predict: Vec<PathBuf>,
    /// What the prompts of --predict held [default: NAME.requests.json[.gz] beside NAME.steplog.jsonl[.gz]]
    #[arg(long, requires = "predict")]
    prompts: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// A log simulated with the fit.
struct Predicted {
    file: String,
    requests: usize,
    rows: Vec<Compared>,
    is_fitted_to: bool,
}

pub fn run(args: &FitStepsArgs) -> Result<ExitCode, Failure> {
    let logs = read_all(&args.logs, StepLog::read)?;
    let targets = read_all(&args.predict, |path| {
        let log = VllmLog::parse(&LogFile::read(path)?)?;
        let beside = Prompts::beside(path);
        let prompts = match args.prompts.as_deref().or(beside.as_deref()) {
            Some(path) => Prompts::read(path)?,
            None => Prompts::default(),
        };
        Ok((log, prompts))
    })?;
    let input = |error: CalibrationError| Failure::input([error.to_string()]);
    let fit = fit(&logs).map_err(input)?;
    let mut predicted = Vec::new();
    for (log, prompts) in &targets {
        let timing = Arc::new(Fitted::new(&fit.profile));
        let replay = step_replay::replay(log, prompts, timing).map_err(input)?;
        predicted.push(Predicted {
            file: log.file.clone(),
            requests: replay.measured.len(),
            rows: compare(&replay.predicted, &replay.measured),
            is_fitted_to: logs.iter().any(|other| other.digest == log.digest),
        });
    }
    let failed = |error: reports::files::Error| Failure::run(error.to_string());
    if let Some(path) = &args.plot {
        chart(&fit).write(path).map_err(failed)?;
    }
    if let Some(path) = &args.out {
        let json = fit.profile.to_json();
        reports::write_atomically(path, |out| out.write_all(json.as_bytes())).map_err(failed)?;
    }
    print(&if args.json {
        format!("{:#}\n", as_json(&logs, &fit, &predicted))
    } else {
        as_text(&logs, &fit, &predicted)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// All files, or the problems of all of them.
fn read_all<T>(
    paths: &[PathBuf],
    read: impl Fn(&Path) -> Result<T, CalibrationError>,
) -> Result<Vec<T>, Failure> {
    let (mut good, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match read(path) {
            Ok(one) => good.push(one),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if problems.is_empty() {
        Ok(good)
    } else {
        Err(Failure::input(problems))
    }
}

fn as_text(logs: &[StepLog], fit: &StepFit, predicted: &[Predicted]) -> String {
    let mut text = fit_in_words(logs, fit);
    for one in predicted {
        let note = if one.is_fitted_to {
            "fitted to this log"
        } else {
            "not fitted to this log"
        };
        let _ = writeln!(
            text,
            "\n{}: {} requests simulated ({note})",
            one.file, one.requests
        );
        text += &comparison(&one.rows);
    }
    text
}

/// A fit with all that can be said about it.
pub(super) fn fit_in_words(logs: &[StepLog], fit: &StepFit) -> String {
    let mut text = String::new();
    for log in logs {
        let _ = writeln!(
            text,
            "{}: {} steps ({}), {} idle, {:.3} ms between steps",
            log.file,
            log.observations.len(),
            log.form,
            log.idle,
            1e3 * log.between_steps
        );
    }
    let _ = writeln!(
        text,
        "\nform, by error on blocks left out of the four fifths that were fitted:"
    );
    for trial in &fit.trials {
        let _ = writeln!(
            text,
            "  {:>6.2} %  {}{}",
            100.0 * trial.error,
            trial
                .added
                .map_or_else(|| "plain".to_owned(), |term| format!("with {term}")),
            if trial.is_kept { "" } else { " (not worth it)" }
        );
    }
    let _ = writeln!(
        text,
        "\n{:<22} {:>14} {:>14}",
        "us per step", "coefficient", "standard error"
    );
    for one in &fit.profile.coefficients {
        let _ = writeln!(
            text,
            "{:<22} {:>14.4} {:>14.4}",
            one.term, one.us, one.standard_error_us
        );
    }
    let _ = writeln!(text, "\n{}", fit.profile.held_out.in_words());
    for (what, error) in [
        ("steps that only decode", &fit.held_out_decode),
        ("steps with prefill", &fit.held_out_prefill),
    ] {
        if let Some(error) = error {
            let _ = writeln!(
                text,
                "  {what}: {:.1} % mean, {:.1} % median, {:.1} % p90, bias {:+.1} % ({} rows)",
                100.0 * error.mean_error,
                100.0 * error.median_error,
                100.0 * error.p90_error,
                100.0 * error.bias,
                error.rows
            );
        }
    }
    if let Some(host) = &fit.host {
        let _ = writeln!(
            text,
            "the host takes {:.1} us between steps in the mean, {:.1} us in the median ({} steps); {}",
            host.mean_us,
            host.median_us,
            host.steps,
            host.held_out.in_words()
        );
    }
    let _ = writeln!(text, "seen: {}", fit.profile.domain.in_words());
    for warning in &fit.profile.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// A table of measured and predicted numbers.
pub(super) fn comparison(rows: &[Compared]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<12} {:>14} {:>14} {:>9}",
        "ms", "measured", "predicted", "error"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<12} {:>14.2} {:>14.2} {:>+8.1}%",
            row.metric,
            row.measured_ms,
            row.predicted_ms,
            100.0 * row.error
        );
    }
    text
}

fn as_json(logs: &[StepLog], fit: &StepFit, predicted: &[Predicted]) -> Value {
    let error = |error: &Option<HeldOut>| json!(error);
    json!({
        "logs": logs.iter().map(|log| json!({
            "file": log.file, "form": log.form, "steps": log.observations.len(), "idle": log.idle,
            "between_steps_ms": 1e3 * log.between_steps,
        })).collect::<Vec<_>>(),
        "trials": fit.trials.iter().map(|trial| json!({
            "added": trial.added.map(|term| term.to_string()), "error": trial.error, "is_kept": trial.is_kept,
        })).collect::<Vec<_>>(),
        "profile": fit.profile,
        "held_out_decode": error(&fit.held_out_decode),
        "held_out_prefill": error(&fit.held_out_prefill),
        "host": host_as_json(fit),
        "predicted": predicted.iter().map(|one| json!({
            "file": one.file, "requests": one.requests, "is_fitted_to": one.is_fitted_to, "metrics": one.rows,
        })).collect::<Vec<_>>(),
    })
}

/// What the host takes between steps, if the logs tell it.
pub(super) fn host_as_json(fit: &StepFit) -> Value {
    fit.host.as_ref().map_or(Value::Null, |host| {
        json!({
            "steps": host.steps, "mean_us": host.mean_us, "median_us": host.median_us, "held_out": host.held_out,
        })
    })
}

/// Residuals over the predicted time, held-out steps in front.
fn chart(fit: &StepFit) -> Chart {
    let series = |name: &str, is_held_out: bool, has_prefill: bool, hue: Hue| Series {
        name: name.to_owned(),
        points: fit
            .predictions
            .iter()
            .filter(|one| one.is_held_out == is_held_out && one.has_prefill == has_prefill)
            .map(|one| {
                (
                    1e3 * one.predicted,
                    100.0 * (one.measured / one.predicted - 1.0),
                )
            })
            .collect(),
        mark: Mark::Dots,
        hue,
    };
    let axis = |label: &str, scale: Scale| Axis {
        label: label.to_owned(),
        scale,
        ..Axis::default()
    };
    let files = fit
        .profile
        .sources
        .iter()
        .map(|source| source.file.as_str());
    Chart {
        title: "Residuals of the fitted step time".to_owned(),
        subtitle: fit.profile.held_out.in_words(),
        footer: format!(
            "{}; {}",
            files.collect::<Vec<_>>().join(", "),
            fit.profile.program
        ),
        x: axis("predicted step time, ms", Scale::Log),
        y: axis("measured over predicted − 1, %", Scale::Linear),
        series: vec![
            series("fitted, decode only", false, false, Hue::Grey),
            series("fitted, with prefill", false, true, Hue::Sky),
            series("held out, decode only", true, false, Hue::Vermillion),
            series("held out, with prefill", true, true, Hue::Blue),
        ],
        limits: Vec::new(),
        notes: Vec::new(),
    }
}
