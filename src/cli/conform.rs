//! `dynosim conform`: is our scheduler the real one?

use super::{FAILED, Failure, print};
use crate::conform::{Verdict, conform_sglang, conform_vllm};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Replay schedules recorded from real engines and compare every decision.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dynosim conform vllm tests/golden/vllm")]
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

pub fn run(args: ConformArgs) -> Result<ExitCode, Failure> {
    let (verdicts, json) = match args.engine {
        Engine::Vllm(recorded) => (conform_vllm(&recorded.path), recorded.json),
        Engine::Sglang(recorded) => (conform_sglang(&recorded.path), recorded.json),
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
