//! Logs of a real engine's steps: our scheduler, fed with the logged order of requests and steps, must make every batch.
//!
//! The log says when the scheduler got each request and which batches it made of them; the prompts' contents stand in a
//! file beside it ([`Prompts`]). Nothing but order matters here: how long a step took decides which requests had come by
//! the next, and that is in the order of the lines.

use super::{Verdict, differ};
use calibration::log_file::LogFile;
use calibration::step_log::{Entry, Prompts, Step, VllmLog};
use engine::vllm::{Scheduler, VllmConfig, VllmVersion};
use engine::{RequestId, Time, Tracking};
use std::path::Path;
use std::sync::Arc;

/// Replays one log; contents come from `prompts`, or from the file beside the log where there is one.
///
/// # Errors
/// Files that cannot be read, everything that is wrong with them, or an engine that is not replayed yet.
pub fn conform_steps(path: &Path, prompts: Option<&Path>) -> Result<Verdict, Vec<String>> {
    let text = |error: calibration::CalibrationError| vec![error.to_string()];
    let log = VllmLog::parse(&LogFile::read(path).map_err(text)?).map_err(text)?;
    let beside = Prompts::beside(path);
    let prompts = match prompts.or(beside.as_deref()) {
        Some(path) => Prompts::read(path).map_err(text)?,
        None => Prompts::default(),
    };
    if log.settings.async_scheduling {
        return Err(vec![format!(
            "{}: found async_scheduling true, expected false: the log does not say which batch was planned before which \
             output; switch it off in the engine that writes the log",
            log.file
        )]);
    }
    let mut scheduler = scheduler(&log, &prompts).map_err(text)?;
    let difference = first_difference(&log, &mut scheduler);
    Ok(Verdict {
        name: log.file.clone(),
        mode: "stepping",
        steps: log.steps.len() as u64,
        coasted: 0,
        difference,
    })
}

fn scheduler(log: &VllmLog, prompts: &Prompts) -> Result<Scheduler, calibration::CalibrationError> {
    let settings = log.settings;
    let config = VllmConfig {
        version: VllmVersion::V0_32,
        block_size: settings.block_size,
        num_gpu_blocks: settings.num_gpu_blocks,
        max_num_seqs: settings.max_num_seqs,
        max_num_batched_tokens: settings.max_num_batched_tokens,
        enable_prefix_caching: settings.prefix_caching,
        async_scheduling: false,
        ..VllmConfig::default()
    };
    let workload = Arc::new(log.workload(prompts)?);
    Ok(Scheduler::new(config, workload, Tracking::default()))
}

fn first_difference(log: &VllmLog, scheduler: &mut Scheduler) -> Option<String> {
    let start = log.adds.first().map_or(0, |add| add.at_ns);
    let mut ended = Vec::new();
    for entry in &log.entries {
        match *entry {
            Entry::Add(index) => {
                let add = &log.adds[index];
                let arrival = Time::from_ns(add.at_ns - start);
                scheduler.submit(RequestId(index as u32), arrival);
            }
            Entry::Step(index) => {
                let step = &log.steps[index];
                if let Some(what) = step_difference(log, step, scheduler, &mut ended) {
                    return Some(format!("{}:{}: step {index}: {what}", log.file, step.line));
                }
            }
        }
    }
    // What is left over when the log ends may have been cut off with it; a request that ended must have ended in both.
    let finished = log.adds.len() - scheduler.running() - scheduler.waiting();
    differ("number of finished requests", &finished, &ended.len())
}

/// Runs one step and compares: the batch (request, new tokens, tokens before where the log is right), free blocks.
fn step_difference(
    log: &VllmLog,
    step: &Step,
    scheduler: &mut Scheduler,
    ended: &mut Vec<RequestId>,
) -> Option<String> {
    let name = |request: RequestId| log.adds[request.0 as usize].id.as_str();
    scheduler.stop_coasting();
    let Some(plan) = scheduler.plan() else {
        return Some("recorded a batch, dynosim has nothing to run".to_owned());
    };
    let theirs: Vec<(&str, u32)> = step
        .parts
        .iter()
        .map(|part| (log.adds[part.request].id.as_str(), part.new_tokens))
        .collect();
    let ours: Vec<(&str, u32)> = plan
        .scheduled
        .iter()
        .map(|part| (name(part.request), part.new_tokens))
        .collect();
    let what = differ("batch (request, new tokens)", &theirs, &ours).or_else(|| {
        step.parts
            .iter()
            .zip(&plan.scheduled)
            .find_map(|(part, own)| {
                let what = format!("tokens of {} before the step", name(own.request));
                differ(&what, &part.logged_before?, &own.computed_before)
            })
    });
    scheduler.finish(1, ended);
    what.or_else(|| {
        let free = scheduler.cache().free_blocks();
        differ("free blocks", &step.free_blocks, &free)
    })
}
