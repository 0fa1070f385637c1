//! `dynosim validate real`: a real run and a simulation of the same scenario, side by side.
//!
//! What this validates is the simulator: given how long steps take on this machine, does it say what users see? The same
//! real run twice shows how much of a difference is the machine's own. A machine whose speed changes from minute to minute
//! makes any profile wrong: each run is therefore simulated a second time, with step times fitted to that run's own steps
//! (a handful of coefficients, and nothing about requests). What is left then is the simulator's.

mod passed;

use crate::cli::real::steps::of_run;
use crate::cli::real::{Device, Machine, WorkerArgs, ended_early, note, stop_on_interrupt};
use crate::cli::replay::{FieldArgs, load_scenario};
use crate::cli::{Failure, print};
use calibration::fit_steps::fit;
use calibration::log_file::LogFile;
use calibration::step_log::StepLog;
use calibration::{FittedProfile, TimingSpec};
use clap::Args;
use engine::Span;
use passed::Passed;
use reports::plot::{Axis, Chart, Hue, Mark, Scale, Series};
use serde_json::{Value, json};
use sim::live::RealStep;
use sim::{Outcome, Recording, RequestRecord, Summary, summarize};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use sweeps::scenario::Scenario;
use sweeps::simulate::{Simulation, Steps};
use sweeps::workloads::{self, Loaded};

const EXAMPLE: &str =
    "Example:\n  dynosim validate real examples/real-cpu.yaml --real cpu --runs 1";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct RealArgs {
    /// Scenario file (YAML)
    scenario: PathBuf,
    #[command(flatten)]
    fields: FieldArgs,
    /// What computes the steps of the real run
    #[arg(long, value_enum, value_name = "DEVICE")]
    real: Device,
    #[command(flatten)]
    workers: WorkerArgs,
    /// Profile that prices the steps of the simulation [default: the scenario's timing]
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// How often to run for real; twice or more shows the machine's own noise
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Picture of TTFT and E2E, real and simulated, .png or .svg
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// A number of a run.
type Metric = (&'static str, fn(&Run) -> f64);

/// What a run left, in numbers.
struct Run {
    summary: Summary,
    recording: Recording,
    /// Of a real one.
    steps: Vec<RealStep>,
    late: Vec<Span>,
}

impl Run {
    fn of(recording: Recording, simulation: &Simulation) -> Run {
        Run {
            summary: summarize(&recording, &simulation.pool_names(), None),
            recording,
            steps: Vec::new(),
            late: Vec::new(),
        }
    }

    fn sum(&self, of: fn(&sim::WorkerRecord) -> u64) -> f64 {
        self.recording.workers.iter().map(of).sum::<u64>() as f64
    }

    fn steps(&self) -> f64 {
        self.sum(|worker| worker.steps)
    }
}

const METRICS: [Metric; 18] = [
    ("TTFT mean, ms", |run| run.summary.latency.ttft_ms.mean),
    ("TTFT p50, ms", |run| run.summary.latency.ttft_ms.p50),
    ("TTFT p90, ms", |run| run.summary.latency.ttft_ms.p90),
    ("TTFT p99, ms", |run| run.summary.latency.ttft_ms.p99),
    ("ITL mean, ms", |run| run.summary.latency.itl_ms.mean),
    ("ITL p50, ms", |run| run.summary.latency.itl_ms.p50),
    ("ITL p90, ms", |run| run.summary.latency.itl_ms.p90),
    ("ITL p99, ms", |run| run.summary.latency.itl_ms.p99),
    ("E2E mean, ms", |run| run.summary.latency.e2e_ms.mean),
    ("E2E p50, ms", |run| run.summary.latency.e2e_ms.p50),
    ("E2E p90, ms", |run| run.summary.latency.e2e_ms.p90),
    ("E2E p99, ms", |run| run.summary.latency.e2e_ms.p99),
    ("output tokens/s", |run| {
        run.summary.throughput.output_tokens_per_s
    }),
    ("requests/s", |run| run.summary.throughput.requests_per_s),
    ("steps", Run::steps),
    ("prefill tokens per step", |run| {
        run.sum(|worker| worker.prefill_tokens) / run.steps().max(1.0)
    }),
    ("decodes per step", |run| {
        run.sum(|worker| worker.decode_tokens) / run.steps().max(1.0)
    }),
    ("prompt tokens hit, %", |run| {
        100.0 * run.summary.prefix.all_admissions_share
    }),
];

/// A metric of all runs.
struct Compared {
    metric: &'static str,
    real: Vec<f64>,
    simulated: f64,
    /// By run: simulated with the times of its own steps. Empty where they are too few.
    own: Vec<f64>,
}

impl Compared {
    /// Mean over the real runs.
    fn measured(&self) -> f64 {
        self.real.iter().sum::<f64>() / self.real.len() as f64
    }

    /// Simulated over measured − 1; `None` if nothing was measured.
    fn error(&self) -> Option<f64> {
        (self.measured() > 0.0).then(|| self.simulated / self.measured() - 1.0)
    }

    /// Mean over the runs of (simulated with its own steps over real − 1).
    fn own_error(&self) -> Option<f64> {
        let pairs = self.own.iter().zip(&self.real);
        let errors = pairs
            .filter(|(_, real)| **real > 0.0)
            .map(|(own, real)| own / real - 1.0);
        let errors: Vec<f64> = errors.collect();
        (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64)
    }

    /// Greatest minus least of the real runs, over their mean; `None` of a single run.
    fn noise(&self) -> Option<f64> {
        let most = self.real.iter().copied().fold(f64::MIN, f64::max);
        let least = self.real.iter().copied().fold(f64::MAX, f64::min);
        (self.real.len() > 1 && self.measured() > 0.0).then(|| (most - least) / self.measured())
    }
}

pub fn run(args: &RealArgs) -> Result<ExitCode, Failure> {
    let mut problems = Vec::new();
    let profile = args.profile.as_deref().map(FittedProfile::read).transpose();
    let profile = profile.map_err(|error| problems.push(error.to_string()));
    let overrides = args.fields.overrides();
    let scenario = overrides.and_then(|overrides| load_scenario(&args.scenario, &overrides));
    let (mut scenario, profile) = match (scenario, profile) {
        (Ok(scenario), Ok(profile)) => (scenario, profile),
        (scenario, _) => {
            problems.extend(
                scenario
                    .err()
                    .into_iter()
                    .flat_map(|failure| failure.messages),
            );
            return Err(Failure::input(problems));
        }
    };
    if let Some(profile) = profile {
        for pool in &mut scenario.pools {
            pool.timing = TimingSpec::Fitted(profile.clone());
            pool.unmeasured = None;
        }
    }
    let machine = Machine::set_up(&scenario, args.real, &args.workers)?;
    let made = workloads::make_with_contents(&scenario.workload, scenario.seed);
    let (loaded, contents) = made.map_err(Failure::input)?;
    let simulation = Simulation::new(&scenario, &loaded, Steps::Coasting)
        .map_err(|error| Failure::input([error.to_string()]))?;
    let simulated = Run::of(simulation.run(), &simulation);
    let mut real = Vec::new();
    for number in 1..=args.runs {
        note(&format!("real run {number} of {}", args.runs));
        let run = machine.run(
            &scenario,
            &simulation,
            contents.clone(),
            stop_on_interrupt(),
        )?;
        if let Some(failure) = ended_early(&run) {
            return Err(failure);
        }
        real.push(Run {
            steps: run.steps,
            late: run.late,
            ..Run::of(run.recording, &simulation)
        });
    }
    let own = real
        .iter()
        .map(|run| with_own_steps(run, &scenario, &loaded));
    let own: Vec<Run> = own.collect::<Option<_>>().unwrap_or_default();
    let rows: Vec<Compared> = METRICS
        .iter()
        .map(|(metric, of)| Compared {
            metric,
            real: real.iter().map(of).collect(),
            simulated: of(&simulated),
            own: own.iter().map(of).collect(),
        })
        .collect();
    if let Some(path) = &args.plot {
        chart(args, &machine, &real, &simulated)
            .write(path)
            .map_err(|error| Failure::run(error.to_string()))?;
    }
    let steps: Vec<&RealStep> = real.iter().flat_map(|run| &run.steps).collect();
    let late: Vec<Span> = real
        .iter()
        .flat_map(|run| run.late.iter().copied())
        .collect();
    let passed = Passed::of(&steps, &late, simulation.timing()[0].as_ref());
    let source = simulation.timing_source();
    let timing = format!(
        "{} ({}): {}",
        source.name,
        source.basis.name(),
        source.detail
    );
    let requests = simulated.summary.requests.completed;
    print(&if args.json {
        let mut value = as_json(args, &machine, &timing, requests, &rows);
        value["steps"] = passed.as_json();
        format!("{value:#}\n")
    } else {
        as_text(&machine, &timing, requests, &rows) + &passed.in_words()
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The run simulated with step times fitted to its own steps; `None` if they are too few or too much alike.
fn with_own_steps(run: &Run, scenario: &Scenario, loaded: &Loaded) -> Option<Run> {
    let text = of_run(&run.steps);
    let log = StepLog::parse(&LogFile::from_text("the run's own steps", &text)).ok()?;
    let fitted = fit(&[log]).ok()?;
    let mut scenario = scenario.clone();
    for pool in &mut scenario.pools {
        pool.timing = TimingSpec::Fitted(fitted.profile.clone());
        pool.unmeasured = None;
    }
    let simulation = Simulation::new(&scenario, loaded, Steps::Coasting).ok()?;
    Some(Run::of(simulation.run(), &simulation))
}

fn as_text(machine: &Machine, timing: &str, requests: u64, rows: &[Compared]) -> String {
    let mut text = format!(
        "Real            {}\nSimulated       {timing}\nRequests        {requests}\n\n",
        machine.in_words()
    );
    let _ = writeln!(
        text,
        "{:<26} {:>11} {:>11} {:>8} {:>8} {:>10}",
        "", "real", "simulated", "error", "noise", "own steps"
    );
    let share = |share: Option<f64>, signed: bool| match share {
        None => "–".to_owned(),
        Some(share) if signed => format!("{:+.1} %", 100.0 * share),
        Some(share) => format!("{:.1} %", 100.0 * share),
    };
    for row in rows {
        let _ = writeln!(
            text,
            "{:<26} {:>11.2} {:>11.2} {:>8} {:>8} {:>10}",
            row.metric,
            row.measured(),
            row.simulated,
            share(row.error(), true),
            share(row.noise(), false),
            share(row.own_error(), true)
        );
    }
    let runs = rows.first().map_or(0, |row| row.real.len());
    let _ = writeln!(
        text,
        "\nerror: simulated against the mean of {runs} real {}; noise: the real runs among themselves, greatest minus least; own \
         steps: the error where each run is simulated with times fitted to its own steps",
        if runs == 1 { "run" } else { "runs" }
    );
    text
}

fn as_json(
    args: &RealArgs,
    machine: &Machine,
    timing: &str,
    requests: u64,
    rows: &[Compared],
) -> Value {
    let metrics = rows.iter().map(|row| {
        json!({
            "metric": row.metric, "real": row.real, "measured": row.measured(), "simulated": row.simulated,
            "error": row.error(), "noise": row.noise(), "own_steps": row.own, "own_steps_error": row.own_error(),
        })
    });
    json!({
        "scenario": args.scenario.display().to_string(),
        "real": machine.in_words(),
        "timing": timing,
        "runs": args.runs,
        "requests": requests,
        "metrics": metrics.collect::<Vec<_>>(),
    })
}

/// Shares of requests over TTFT and E2E.
fn chart(args: &RealArgs, machine: &Machine, real: &[Run], simulated: &Run) -> Chart {
    let line = |name: String, run: &Run, hue: Hue, of: fn(&RequestRecord) -> f64| {
        let counted = run.recording.sent().map(|(_, record)| record);
        let counted =
            counted.filter(|record| record.outcome == Outcome::Completed && !record.is_warmup);
        let mut values: Vec<f64> = counted.map(of).collect();
        values.sort_by(f64::total_cmp);
        let count = values.len() as f64;
        let share = |(index, value): (usize, f64)| (value, 100.0 * (index + 1) as f64 / count);
        Series {
            name,
            points: values.into_iter().enumerate().map(share).collect(),
            mark: Mark::Line,
            hue,
        }
    };
    let ttft: fn(&RequestRecord) -> f64 = |record| record.first_token.since(record.arrival).as_ms();
    let e2e: fn(&RequestRecord) -> f64 = |record| record.finish.since(record.arrival).as_ms();
    let mut series = Vec::new();
    for (what, of, hues) in [
        ("TTFT", ttft, [Hue::Sky, Hue::Blue]),
        ("E2E", e2e, [Hue::Orange, Hue::Vermillion]),
    ] {
        for (index, run) in real.iter().enumerate() {
            let name = if index == 0 {
                format!("{what}, real")
            } else {
                String::new()
            };
            series.push(line(name, run, hues[0], of));
        }
        series.push(line(format!("{what}, simulated"), simulated, hues[1], of));
    }
    let axis = |label: &str, scale: Scale| Axis {
        label: label.to_owned(),
        scale,
        ..Axis::default()
    };
    Chart {
        title: "A real run and its simulation".to_owned(),
        subtitle: format!(
            "{}, {} requests",
            args.scenario.display(),
            simulated.summary.requests.completed
        ),
        footer: machine.in_words(),
        x: axis("milliseconds from arrival", Scale::Log),
        y: axis("requests, %", Scale::Linear),
        series,
        limits: Vec::new(),
        notes: Vec::new(),
    }
}
