//! `dynosim calibrate collect`: steps of a scenario's model, measured on this machine, and a timing model made of them.
//!
//! All workers of the first pool measure at once, each the same points in an order of its own, since they share the
//! machine when they serve too. Rows are written as they come. Some points are measured again at the end: how far they are
//! from the first time is the drift.

use super::fit_steps::fit_in_words;
use crate::cli::real::steps::{Held, line};
use crate::cli::real::{Device, Machine, WorkerArgs, note};
use crate::cli::replay::{FieldArgs, load_scenario};
use crate::cli::{Failure, print};
use calibration::fit_steps::fit;
use calibration::step_log::StepLog;
use clap::Args;
use executor::sweep::{Limits, Point};
use executor::worker::Worker;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use sweeps::scenario::{Pool, Scenario};
use sweeps::workloads;

const EXAMPLE: &str = "Example:\n  dynosim calibrate collect examples/real-cpu.yaml --real cpu --budget-s 5 --out steps.jsonl \
                       --profile cpu.fit.json";

/// Passes before the clock counts, and passes counted, of a point.
const WARM_UPS: u32 = 3;
const REPEATS: u32 = 10;
/// A point that takes longer than this in all has only so many passes of each.
const LONG: Duration = Duration::from_millis(1500);
const WARM_UPS_OF_LONG: u32 = 1;
const REPEATS_OF_LONG: u32 = 3;
/// So many points are measured by each worker however long it takes: three passes of each are steps enough for a fit.
const LEAST_POINTS: usize = 20;
/// One point in so many is measured again at the end.
const AGAIN: usize = 20;
/// Of the time, the part that is kept for that.
const KEPT_FOR_AGAIN: f64 = 0.1;

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
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What a worker's sweep gave.
struct Swept {
    measured: usize,
    left_over: usize,
    /// Second median over first, of the points measured twice.
    drifts: Vec<f64>,
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
    let pool = &scenario.pools[0];
    let limits = limits(&scenario, pool)?;
    let mut workers = Vec::new();
    for _ in 0..pool.workers {
        let mut worker = machine.worker(pool, &machine.tokens(limits.contents()))?;
        worker
            .fill_kv()
            .map_err(|error| Failure::run(format!("--real: {error}")))?;
        workers.push(worker);
    }
    let out = File::create(&args.out).map_err(|error| {
        let out = args.out.display();
        Failure::input([format!("--out {out}: cannot write: {error}")])
    })?;
    note(&format!(
        "measuring {} on {}",
        describe(&limits),
        machine.in_words()
    ));
    let swept = sweep(workers, &limits, scenario.seed, args.budget_s, &out)?;
    report(args, &swept)
}

/// What steps the workers of a pool can run, up to the longest request of the scenario's workload.
fn limits(scenario: &Scenario, pool: &Pool) -> Result<Limits, Failure> {
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

/// All workers at once.
fn sweep(
    workers: Vec<Worker>,
    limits: &Limits,
    seed: u64,
    budget_s: f64,
    out: &File,
) -> Result<Vec<Swept>, Failure> {
    let rows = Mutex::new(out);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(id, executor)| {
                let mut bench = Bench {
                    executor,
                    limits,
                    blocks: limits.scattered_blocks(seed),
                    id: id as u32,
                    counter: 0,
                    rows: &rows,
                };
                let points = limits.points(seed, id as u32);
                let budget = Duration::from_secs_f64(budget_s);
                scope.spawn(move || bench.sweep(&points, start, budget))
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("a sweep does not panic"));
        joined.collect::<Result<Vec<Swept>, Failure>>()
    })
}

/// A worker that is measured.
struct Bench<'a> {
    executor: Worker,
    limits: &'a Limits,
    blocks: Vec<u32>,
    id: u32,
    counter: u64,
    rows: &'a Mutex<&'a File>,
}

impl Bench<'_> {
    fn sweep(
        &mut self,
        points: &[Point],
        start: Instant,
        budget: Duration,
    ) -> Result<Swept, Failure> {
        let first_part = budget.mul_f64(1.0 - KEPT_FOR_AGAIN);
        let mut medians = Vec::new();
        for point in points {
            if start.elapsed() > first_part && medians.len() >= LEAST_POINTS {
                break;
            }
            medians.push(self.measure(point, medians.len(), false)?);
        }
        let mut drifts = Vec::new();
        for index in (0..medians.len()).step_by(AGAIN) {
            if start.elapsed() > budget {
                break;
            }
            drifts.push(self.measure(&points[index], index, true)? / medians[index]);
        }
        Ok(Swept {
            measured: medians.len(),
            left_over: points.len() - medians.len(),
            drifts,
        })
    }

    /// Measures a point several times, writes a row each, and returns the median.
    fn measure(&mut self, point: &Point, index: usize, is_again: bool) -> Result<f64, Failure> {
        let batch = point.batch(self.limits, &self.blocks);
        let mut pass = || {
            let start = Instant::now();
            let passed = self.executor.pass(&batch);
            let time = start.elapsed();
            passed.map_err(|error| Failure::run(format!("--real: {error}")))?;
            Ok::<Duration, Failure>(time)
        };
        let first = pass()?;
        let is_long = first * (WARM_UPS + REPEATS) > LONG;
        let (warm_ups, repeats) = match is_long {
            true => (WARM_UPS_OF_LONG, REPEATS_OF_LONG),
            false => (WARM_UPS, REPEATS),
        };
        for _ in 1..warm_ups {
            pass()?;
        }
        let mut seconds = Vec::new();
        for _ in 0..repeats {
            seconds.push(pass()?.as_secs_f64());
        }
        let load = load_average();
        let mut text = String::new();
        for one in &seconds {
            self.counter += 1;
            let held = Held {
                prefill: &point.prefill,
                decode_batch: point.decode.len() as u32,
                decode_context: point.decode_context(),
            };
            let mut row = line(self.id, self.counter, *one, held);
            row["shape"] = json!(point.kind);
            row["point"] = json!(index);
            row["is_again"] = json!(is_again);
            row["load"] = json!(load);
            text += &format!("{row}\n");
        }
        let mut file = *self
            .rows
            .lock()
            .expect("nobody panics with the file in hand");
        file.write_all(text.as_bytes())
            .map_err(|error| Failure::run(format!("--out: cannot write: {error}")))?;
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }
}

/// Programs that wanted to run in the last minute, on average; `None` where the system does not say.
fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Fits what was measured and says how good that is.
fn report(args: &CollectArgs, swept: &[Swept]) -> Result<ExitCode, Failure> {
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
            "steps": log.observations.len(),
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
        format!(
            "{measured} points measured{left}{drift}\n{}",
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
