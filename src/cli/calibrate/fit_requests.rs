//! `dynosim calibrate fit-requests`: a timing model from a log of requests.

use super::fit_steps::comparison;
use crate::cli::replay::load_scenario;
use crate::cli::{Failure, print};
use crate::scenario::Set;
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use validation::request_fit::{Question, RequestFit, TERMS, fit, fit_kv_blocks};
use validation::request_log::RequestLog;

const EXAMPLE: &str = "Example:\n  dynosim calibrate fit-requests profile_export.jsonl --scenario engine.yaml --out engine.fit.json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct FitRequestsArgs {
    /// Log of requests: AIPerf's profile_export.jsonl or LLMServingSim's requests.jsonl (docs/fits.md)
    log: PathBuf,
    /// Scenario whose first pool says what engine served them, its KV blocks among it
    #[arg(long)]
    scenario: PathBuf,
    /// Field of the scenario, for example engine.num_gpu_blocks=2588; may be given several times
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Trace of the same requests in the same order, for what their prompts share
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Share of the requests, by arrival, that is fitted to; the others are held out
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// Fit the number of KV blocks too, near that of the scenario; it is pinned otherwise
    #[arg(long)]
    fit_kv_blocks: bool,
    /// File for the profile, for `timing: {source: fitted, profile: FILE}`
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Fields of the scenario that the log takes the place of.
const WORKLOAD: (&str, &str) = ("workload", "{synth: {preset: quick}}");

pub fn run(args: &FitRequestsArgs) -> Result<ExitCode, Failure> {
    let mut problems = Vec::new();
    if !(0.1..=0.9).contains(&args.share) {
        problems.push(format!(
            "--share {}: expected a number from 0.1 to 0.9",
            args.share
        ));
    }
    let log = collect(&mut problems, RequestLog::read(&args.log).map_err(text));
    let engine = collect(&mut problems, engine(args));
    let trace = args.prompts.as_deref().map(|path| {
        let options = traces::ReadOptions::default();
        traces::read(path, &options).map_err(|error| vec![error.to_string()])
    });
    let trace = trace.and_then(|read| collect(&mut problems, read));
    let (Some(log), Some(engine), true) = (log, engine, problems.is_empty()) else {
        return Err(Failure::input(problems));
    };
    let prompts = trace.as_ref().map(|loaded| &loaded.trace);
    let workload = log
        .workload(prompts)
        .map_err(|error| Failure::input(text(error)))?;
    let question = Question {
        log: &log,
        workload: Arc::new(workload),
        engine,
        share: args.share,
        terms: TERMS.to_vec(),
    };
    let fit = if args.fit_kv_blocks {
        fit_kv_blocks(&question)
    } else {
        fit(&question)
    };
    let fit = fit.map_err(|error| Failure::input(text(error)))?;
    if let Some(path) = &args.out {
        let json = fit.profile.to_json();
        reports::write_atomically(path, |out| out.write_all(json.as_bytes()))
            .map_err(|error| Failure::run(error.to_string()))?;
    }
    print(&if args.json {
        format!("{:#}\n", as_json(&log, &fit))
    } else {
        as_text(&log, &fit, prompts.is_some())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn text(error: calibration::CalibrationError) -> Vec<String> {
    vec![error.to_string()]
}

fn collect<T>(problems: &mut Vec<String>, read: Result<T, Vec<String>>) -> Option<T> {
    read.map_err(|messages| problems.extend(messages)).ok()
}

/// The engine of the scenario's first pool.
fn engine(args: &FitRequestsArgs) -> Result<engine::vllm::VllmConfig, Vec<String>> {
    let mut overrides = vec![Set::by_option(WORKLOAD.0, WORKLOAD.1)];
    for text in &args.set {
        let Some((field, value)) = text.split_once('=') else {
            return Err(vec![format!("--set {text}: expected FIELD=VALUE")]);
        };
        overrides.push(Set::by_option(field, value));
    }
    let scenario = load_scenario(&args.scenario, &overrides).map_err(|failure| failure.messages)?;
    let pool = scenario
        .pools
        .into_iter()
        .next()
        .expect("a scenario has a pool");
    if pool.workers != 1 {
        return Err(vec![format!(
            "{}: pools.{}.workers: found {}, expected 1: a log does not say which worker served a request",
            args.scenario.display(),
            pool.name,
            pool.workers
        )]);
    }
    match pool.engine {
        engine::EngineConfig::Vllm(config) => Ok(config),
        other => Err(vec![format!(
            "{}: pools.{}.engine.backend: found {}, expected vllm: request logs of other engines are not fitted yet",
            args.scenario.display(),
            pool.name,
            other.backend()
        )]),
    }
}

fn as_text(log: &RequestLog, fit: &RequestFit, has_prompts: bool) -> String {
    let mut text = String::new();
    let ((fitted, own), (held_out, others)) = (&fit.fitted, &fit.held_out);
    let _ = writeln!(
        text,
        "{}: {} requests ({}), {} left out; prompts {}; {}; {} simulations, loss {:.1}",
        log.file,
        log.requests.len(),
        log.form,
        log.failed,
        if has_prompts {
            "from a trace"
        } else {
            "unknown, nothing shared"
        },
        fit.kv_blocks.in_words(),
        fit.simulations,
        fit.loss
    );
    let _ = writeln!(
        text,
        "\n{:<22} {:>14} {:>14}",
        "us per step", "value", "standard error"
    );
    for one in &fit.parameters {
        let _ = writeln!(
            text,
            "{:<22} {:>14.4} {:>13.1}%{}",
            one.name,
            one.us,
            100.0 * one.relative_error,
            if one.is_identified {
                ""
            } else {
                "  not identified"
            }
        );
    }
    let _ = writeln!(text, "\nfirst {fitted} requests, fitted to:");
    text += &comparison(own);
    let _ = writeln!(text, "\nlast {held_out} requests, held out:");
    text += &comparison(others);
    let _ = writeln!(text, "\n{}", fit.profile.held_out.in_words());
    let _ = writeln!(text, "seen: {}", fit.profile.domain.in_words());
    for warning in &fit.profile.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn as_json(log: &RequestLog, fit: &RequestFit) -> Value {
    json!({
        "file": log.file, "form": log.form, "requests": log.requests.len(), "left_out": log.failed,
        "parameters": fit.parameters.iter().map(|one| json!({
            "name": one.name, "us": one.us, "relative_standard_error": one.relative_error,
            "is_identified": one.is_identified,
        })).collect::<Vec<_>>(),
        "fitted": {"requests": fit.fitted.0, "metrics": fit.fitted.1},
        "held_out": {"requests": fit.held_out.0, "metrics": fit.held_out.1},
        "num_gpu_blocks": fit.kv_blocks.blocks(), "kv_blocks": fit.kv_blocks.in_words(),
        "simulations": fit.simulations, "loss": fit.loss,
        "profile": fit.profile,
    })
}
