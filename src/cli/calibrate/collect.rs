//! `dynosim calibrate collect`: steps of a scenario's model, measured on this machine, and a timing model made of them.
//!
//! All workers of the first pool measure at once, each the same points in an order of its own, since they share the
//! machine when they serve too (`bench.rs`). Some points are measured again at the end: how far they are from the first
//! time is the drift. Then the same workers serve made-up traffic for a while under the live driver (`served.rs`), which
//! shows what the host takes between steps. Rows are written as they come.

mod bench;
mod copies;
mod served;

use super::fit_steps::{fit_in_words, host_as_json};
use crate::cli::real::clocks::Ticks;
use crate::cli::real::pace::Paced;
use crate::cli::real::{Device, Machine, WorkerArgs, note};
use crate::cli::replay::{FieldArgs, load_scenario};
use crate::cli::{Failure, print};
use bench::How;
pub use bench::Swept;
use calibration::fit_steps::fit;
use calibration::step_log::StepLog;
use clap::Args;
use copies::Copies;
use executor::sweep::Limits;
use executor::worker::Worker;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use sweeps::scenario::Scenario;
use sweeps::workloads;

const EXAMPLE: &str = "Example:\n  dynosim calibrate collect examples/real-cpu.yaml --real cpu --budget-s 5 --out steps.jsonl \
                       --profile cpu.fit.json";

/// Of the time, the part that is served.
const SERVED: f64 = 0.3;
/// A smaller share of stolen time is not told.
const WORTH_TELLING: f64 = 0.005;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct CollectArgs {
    /// Scenario file (YAML): its model, the engine of its first pool, its longest request
    scenario: PathBuf,
    #[command(flatten)]
    fields: FieldArgs,
    /// What computes the steps
    #[arg(long, value_enum, value_name = "DEVICE")]
    real: Device,
    #[command(flatten)]
    workers: WorkerArgs,
    /// File for the measured steps, written as they come; `dynosim calibrate fit-steps` reads it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the profile, for `timing: {source: fitted, profile: FILE}`
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Seconds to measure; points come in random order, twenty at least, what is left over is counted
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    budget_s: f64,
    /// Run each point by kind of work, too: products, head, attention, rest
    #[arg(long)]
    per_op: bool,
    /// File for copies of KV blocks: within the pool, out to the host, in from it
    #[arg(long, value_name = "FILE")]
    kv_copies: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CollectArgs) -> Result<ExitCode, Failure> {
    let mut problems = Vec::new();
    if !(1.0..=86_400.0).contains(&args.budget_s) {
        let found = args.budget_s;
        problems.push(format!(
            "--budget-s: found {found}, expected seconds from 1 to 86400"
        ));
    }
    let overrides = args.fields.overrides();
    let scenario = overrides.and_then(|overrides| load_scenario(&args.scenario, &overrides));
    let scenario = match scenario {
        Ok(scenario) if problems.is_empty() => scenario,
        Ok(_) => return Err(Failure::input(problems)),
        Err(failure) => {
            problems.extend(failure.messages);
            return Err(Failure::input(problems));
        }
    };
    let machine = Machine::set_up(&scenario, args.real, &args.workers)?;
    let limits = limits(&scenario)?;
    let mut workers = workers(&machine, &scenario, &limits)?;
    let (mut out, copies) = create(args)?;
    note(&format!(
        "measuring {} on {}",
        describe(&limits),
        machine.in_words()
    ));
    let before = Ticks::now();
    let copied = match (copies, workers.first_mut()) {
        (Some((path, file)), Some(worker)) => Some(copies::measure(worker, &limits, &path, &file)?),
        _ => None,
    };
    let effort = Effort {
        device: args.real,
        budget_s: args.budget_s,
        per_op: args.per_op,
    };
    let swept = measure(&machine, &scenario, &limits, workers, effort, &mut out)?;
    let stolen = before
        .zip(Ticks::now())
        .and_then(|(before, now)| now.stolen_since(&before));
    report(args, &swept, copied.as_ref(), stolen)
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// What computes.
    pub device: Device,
    /// For so long.
    pub budget_s: f64,
    /// By kind of work, too.
    pub per_op: bool,
}

/// Workers of the first pool, their KV filled.
///
/// # Errors
/// Memory or threads that cannot be had.
pub fn workers(
    machine: &Machine,
    scenario: &Scenario,
    limits: &Limits,
) -> Result<Vec<Worker>, Failure> {
    let pool = &scenario.pools[0];
    let tokens = machine.tokens(limits.contents());
    let worker = |_| {
        let mut worker = machine.worker(pool, &tokens)?;
        let filled = worker.fill_kv();
        filled.map_err(|error| Failure::run(format!("--real: {error}")))?;
        Ok(worker)
    };
    (0..pool.workers).map(worker).collect()
}

/// Sweeps, then serves, and writes a row for each step.
///
/// # Errors
/// A worker that gives up, or rows that cannot be written.
pub fn measure(
    machine: &Machine,
    scenario: &Scenario,
    limits: &Limits,
    workers: Vec<Worker>,
    effort: Effort,
    out: &mut (dyn Write + Send),
) -> Result<Vec<Swept>, Failure> {
    let how = How {
        device: effort.device,
        limits,
        seed: scenario.seed,
        budget: Duration::from_secs_f64(effort.budget_s * (1.0 - SERVED)),
        per_op: effort.per_op,
    };
    let paced = |worker| Paced::new(worker, limits.sequences);
    let workers: Vec<Paced> = workers.into_iter().map(paced).collect::<Result<_, _>>()?;
    let swept = bench::sweep(workers, how, out)?;
    let budget = Duration::from_secs_f64(effort.budget_s * SERVED);
    served::serve(machine, scenario, limits, budget, out)?;
    Ok(swept)
}

/// The files for rows, blank: all or none.
fn create(args: &CollectArgs) -> Result<(File, Option<(PathBuf, File)>), Failure> {
    let asked = [
        ("--out", Some(&args.out)),
        ("--kv-copies", args.kv_copies.as_ref()),
    ];
    let (mut files, mut made, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (option, path) in asked {
        let Some(path) = path else { continue };
        let is_new = !path.exists();
        match File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
        {
            Ok(file) => {
                files.push((path.clone(), file));
                made.extend(is_new.then_some(path));
            }
            Err(error) => {
                problems.push(format!(
                    "{option} {}: cannot write: {error}",
                    path.display()
                ));
            }
        }
    }
    if !problems.is_empty() {
        for path in made {
            // What cannot be removed is an empty file.
            let _ = std::fs::remove_file(path);
        }
        return Err(Failure::input(problems));
    }
    for (_, file) in &files {
        // A pipe or a device has no length.
        let _ = file.set_len(0);
    }
    let mut files = files.into_iter();
    let (_, out) = files.next().expect("--out is there");
    Ok((out, files.next()))
}

/// What steps the workers of the first pool can run, up to the longest request of the scenario's workload.
///
/// # Errors
/// A workload that cannot be had.
pub fn limits(scenario: &Scenario) -> Result<Limits, Failure> {
    let pool = &scenario.pools[0];
    let loaded = workloads::make(&scenario.workload, scenario.seed).map_err(Failure::input)?;
    let requests = loaded.workload.requests.iter();
    let longest = requests.map(|request| request.input_tokens + request.output_tokens);
    let engine = pool.engine.as_vllm().expect("other engines were refused");
    let room = engine.usable_blocks().saturating_mul(engine.block_size);
    Ok(Limits {
        step_tokens: engine.max_num_batched_tokens,
        sequences: engine.max_num_seqs.min(engine.max_num_batched_tokens),
        longest: longest
            .max()
            .unwrap_or(1)
            .min(room)
            .min(engine.max_model_len),
        blocks: engine.usable_blocks(),
        block_size: engine.block_size,
    })
}

fn describe(limits: &Limits) -> String {
    format!(
        "steps of up to {} tokens and {} sequences, contexts of up to {} tokens",
        limits.step_tokens, limits.sequences, limits.longest
    )
}

/// Fits what was measured and says how good that is.
fn report(
    args: &CollectArgs,
    swept: &[Swept],
    copies: Option<&Copies>,
    stolen: Option<f64>,
) -> Result<ExitCode, Failure> {
    let failed = |error: String| Failure::run(format!("{}: {error}", args.out.display()));
    let log = StepLog::read(&args.out).map_err(|error| failed(error.to_string()))?;
    let fit = fit(std::slice::from_ref(&log))
        .map_err(|error| failed(format!("{error}; a larger --budget-s measures more steps")))?;
    if let Some(path) = &args.profile {
        write(path, &fit.profile.to_json())?;
    }
    let measured: usize = swept.iter().map(|one| one.measured).sum();
    let left_over: usize = swept.iter().map(|one| one.left_over).sum();
    let drifts: Vec<f64> = swept
        .iter()
        .flat_map(|one| one.drifts.iter().copied())
        .collect();
    let drift = drift(drifts);
    print(&if args.json {
        let value: Value = json!({
            "points": measured,
            "left_over": left_over,
            "drift": drift,
            "stolen": stolen,
            "steps": log.observations.len(),
            "host": host_as_json(&fit),
            "kv_copies": copies.map(Copies::as_json),
            "profile": fit.profile,
            "held_out_decode": fit.held_out_decode,
            "held_out_prefill": fit.held_out_prefill,
        });
        format!("{value:#}\n")
    } else {
        let left = match left_over {
            0 => String::new(),
            more => format!(", {more} left over when the time was up"),
        };
        let drift = drift.map_or(String::new(), |drift| {
            format!(
                "; measured again at the end they took {:+.1} % (median)",
                100.0 * drift
            )
        });
        let stolen = stolen.filter(|share| *share >= WORTH_TELLING);
        let stolen = stolen.map_or(String::new(), |share| {
            format!(
                "; the hypervisor gave {:.1} % of the processors' time to others",
                100.0 * share
            )
        });
        let copies = copies.map_or(String::new(), Copies::in_words);
        format!(
            "{measured} points measured{left}{drift}{stolen}\n{copies}{}",
            fit_in_words(&[log], &fit)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    reports::write_atomically(path, |out| out.write_all(text.as_bytes()))
        .map_err(|error| Failure::run(error.to_string()))
}

/// How much longer points took the second time, in the median.
fn drift(mut ratios: Vec<f64>) -> Option<f64> {
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).map(|ratio| ratio - 1.0)
}
