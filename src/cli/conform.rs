//! `dynosim conform`: are our schedulers, routers and planner the real ones?

use super::{FAILED, Failure, print};
use crate::conform::{
    PlannerVerdict, RouterVerdict, Verdict, conform_planner, conform_router, conform_sglang,
    conform_steps, conform_vllm,
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Replay what was recorded from real engines, routers and planners and compare every decision.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dynosim conform vllm tests/golden/vllm\n  dynosim conform router tests/golden/router"
)]
pub struct ConformArgs {
    #[command(subcommand)]
    engine: Engine,
}

#[derive(Debug, Subcommand)]
enum Engine {
    /// Schedules of vLLM's V1 scheduler
    #[command(after_help = "Example:\n  dynosim conform vllm tests/golden/vllm")]
    Vllm(Recorded),
    /// Schedules of SGLang's scheduler
    #[command(after_help = "Example:\n  dynosim conform sglang tests/golden/sglang")]
    Sglang(Recorded),
    /// Costs, choices, queues, hashes and index of Dynamo's KV router
    #[command(after_help = "Example:\n  dynosim conform router tests/golden/router")]
    Router(RecordedRouter),
    /// Decisions, estimates, forecasts and budgets of Dynamo's planner
    #[command(after_help = "Example:\n  dynosim conform planner tests/golden/planner")]
    Planner(RecordedRouter),
    /// Batches of a real vLLM engine, from the log of its steps
    #[command(after_help = "Example:\n  dynosim conform steps engine.steplog.jsonl")]
    Steps(StepLogs),
}

/// What is compared and how it is printed.
#[derive(Debug, Args)]
struct Recorded {
    /// Folder of recorded cases, or one NAME.case.json.gz
    path: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// The same for a router or a planner.
#[derive(Debug, Args)]
struct RecordedRouter {
    /// Folder of recorded cases, or one NAME.json
    path: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Logs of steps and what belongs to them.
#[derive(Debug, Args)]
struct StepLogs {
    /// Logs of steps (docs/fits.md), plain, gzip or zstd
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// What the prompts held [default: NAME.requests.json[.gz] beside NAME.steplog.jsonl[.gz]]
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: ConformArgs) -> Result<ExitCode, Failure> {
    let (verdicts, json) = match args.engine {
        Engine::Vllm(recorded) => (conform_vllm(&recorded.path), recorded.json),
        Engine::Sglang(recorded) => (conform_sglang(&recorded.path), recorded.json),
        Engine::Router(recorded) => return router(&recorded.path, recorded.json),
        Engine::Planner(recorded) => return planner(&recorded.path, recorded.json),
        Engine::Steps(recorded) => {
            return steps(&recorded.logs, recorded.prompts.as_deref(), recorded.json);
        }
    };
    let verdicts = verdicts.map_err(Failure::input)?;
    let is_identical = |verdict: &&Verdict| verdict.difference.is_none();
    let all = verdicts.iter().all(|verdict| verdict.difference.is_none());
    // A case counts once, however many releases and modes it was compared in.
    let case = |verdict: &Verdict| {
        verdict
            .name
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut cases: Vec<String> = verdicts.iter().map(case).collect();
    cases.sort();
    cases.dedup();
    let failed = |name: &&String| {
        verdicts
            .iter()
            .any(|v| case(v) == **name && v.difference.is_some())
    };
    let identical = cases.len() - cases.iter().filter(failed).count();
    if json {
        let steps: u64 = verdicts.iter().map(|verdict| verdict.steps).sum();
        let object = json!({ "cases": cases.len(), "identical": identical, "replays": verdicts.len(),
            "steps_compared": steps, "verdicts": verdicts });
        print(&format!("{object:#}\n"))?;
    } else {
        let mut text = String::new();
        for verdict in verdicts.iter().filter(|verdict| !is_identical(verdict)) {
            let difference = verdict.difference.as_deref().unwrap_or_default();
            text += &format!("{} ({}): {difference}\n", verdict.name, verdict.mode);
        }
        let steps: u64 = verdicts.iter().map(|verdict| verdict.steps).sum();
        let coasted: u64 = verdicts.iter().map(|verdict| verdict.coasted).sum();
        text += &format!(
            "{} replays, stepping and coasting: {steps} steps compared, {coasted} of them coasted\n{} cases, {identical} identical\n",
            verdicts.len(),
            cases.len()
        );
        print(&text)?;
    }
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn router(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    let verdicts = conform_router(path).map_err(Failure::input)?;
    let differs = |verdict: &&RouterVerdict| verdict.difference.is_some();
    let identical = verdicts.len() - verdicts.iter().filter(differs).count();
    let compared: u64 = verdicts.iter().map(|verdict| verdict.compared).sum();
    if json {
        let object = json!({ "cases": verdicts.len(), "identical": identical, "results_compared": compared,
            "verdicts": verdicts });
        print(&format!("{object:#}\n"))?;
    } else {
        let mut text = String::new();
        for verdict in verdicts.iter().filter(differs) {
            let difference = verdict.difference.as_deref().unwrap_or_default();
            text += &format!("{} ({}): {difference}\n", verdict.name, verdict.kind);
        }
        let cases = verdicts.len();
        text += &format!("{compared} results compared\n{cases} cases, {identical} identical\n");
        print(&text)?;
    }
    Ok(if identical == verdicts.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn planner(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    let verdicts = conform_planner(path).map_err(Failure::input)?;
    let counted: Vec<&PlannerVerdict> = verdicts.iter().filter(|verdict| verdict.counts).collect();
    let differing = counted
        .iter()
        .filter(|verdict| verdict.difference.is_some());
    let identical = counted.len() - differing.count();
    let compared: u64 = counted.iter().map(|verdict| verdict.compared).sum();
    if json {
        let object = json!({ "cases": verdicts.len(), "counted": counted.len(), "identical": identical,
            "results_compared": compared, "verdicts": verdicts });
        print(&format!("{object:#}\n"))?;
    } else {
        let mut text = String::new();
        for verdict in verdicts
            .iter()
            .filter(|verdict| verdict.difference.is_some())
        {
            let difference = verdict.difference.as_deref().unwrap_or_default();
            let word = if verdict.counts {
                &*verdict.kind
            } else {
                "does not count"
            };
            text += &format!("{} ({word}): {difference}\n", verdict.name);
        }
        text += &format!(
            "{compared} results compared\n{} cases, {identical} of {} identical, {} of a library's fit not counted\n",
            verdicts.len(),
            counted.len(),
            verdicts.len() - counted.len()
        );
        print(&text)?;
    }
    Ok(if identical == counted.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn steps(logs: &[PathBuf], prompts: Option<&Path>, json: bool) -> Result<ExitCode, Failure> {
    let (mut verdicts, mut problems) = (Vec::new(), Vec::new());
    for log in logs {
        match conform_steps(log, prompts) {
            Ok(verdict) => verdicts.push(verdict),
            Err(messages) => problems.extend(messages),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::input(problems));
    }
    let differing = verdicts
        .iter()
        .filter(|verdict| verdict.difference.is_some());
    let differing = differing.count();
    if json {
        let object = json!({ "logs": verdicts.len(), "identical": verdicts.len() - differing,
            "steps_compared": verdicts.iter().map(|verdict| verdict.steps).sum::<u64>(), "verdicts": verdicts });
        print(&format!("{object:#}\n"))?;
    } else {
        let line = |verdict: &Verdict| match &verdict.difference {
            None => format!("{}: {} steps identical\n", verdict.name, verdict.steps),
            Some(difference) => format!("{difference}\n"),
        };
        print(&verdicts.iter().map(line).collect::<String>())?;
    }
    Ok(ExitCode::from(if differing > 0 { FAILED } else { 0 }))
}
