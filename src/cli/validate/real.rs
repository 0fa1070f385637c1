//! `dynosim validate real`: a real run and a simulation of the same scenario, side by side.
//!
//! What this validates is the simulator: given how long steps take on this machine, does it say what users see? The same
//! real run twice shows how much of a difference is the machine's own. A machine whose speed changes from second to second
//! makes any profile wrong. So steps can be measured between the runs, and each run be simulated at the pace that it had
//! (`around.rs`); and each is simulated once more with step times fitted to its own steps (a handful of coefficients, and
//! nothing about requests), which leaves the simulator's part of the error, but is no forecast.

mod around;
mod compared;
mod kinds;
mod passed;

use crate::cli::real::pace::Beside;
use crate::cli::real::steps::of_run;
use crate::cli::real::{Device, Machine, WorkerArgs, ended_early, note, stop_on_interrupt};
use crate::cli::replay::{FieldArgs, load_scenario};
use crate::cli::{Failure, print};
use around::{Around, Paces, Side};
use calibration::fit_steps::fit;
use calibration::log_file::LogFile;
use calibration::step_log::StepLog;
use calibration::{FittedProfile, TimingSpec};
use clap::Args;
use compared::{Compared, METRICS, as_json, as_text};
use engine::{Contents, Span};
use kinds::Kinds;
use passed::{Passed, Priced};
use reports::plot::{Axis, Chart, Hue, Mark, Scale, Series};
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
    /// Instead: measure steps for so many seconds before, between and after the real runs, and simulate each run with what
    /// was measured on either side of it, at the pace that its workers had
    #[arg(long, value_name = "SECONDS", conflicts_with = "profile")]
    calibrate_s: Option<f64>,
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

/// What a run left, in numbers.
struct Run {
    summary: Summary,
    recording: Recording,
    /// Of a real one.
    steps: Vec<RealStep>,
    late: Vec<Span>,
    /// Of a real one that was paced: by worker, by step.
    paces: Vec<Vec<Beside>>,
}

impl Run {
    fn of(recording: Recording, simulation: &Simulation) -> Run {
        Run {
            summary: summarize(&recording, &simulation.pool_names(), None),
            recording,
            steps: Vec::new(),
            late: Vec::new(),
            paces: Vec::new(),
        }
    }

    fn sum(&self, of: fn(&sim::WorkerRecord) -> u64) -> f64 {
        self.recording.workers.iter().map(of).sum::<u64>() as f64
    }

    fn steps(&self) -> f64 {
        self.sum(|worker| worker.steps)
    }
}

pub fn run(args: &RealArgs) -> Result<ExitCode, Failure> {
    let mut problems = Vec::new();
    let profile = args.profile.as_deref().map(FittedProfile::read).transpose();
    let profile = profile.map_err(|error| problems.push(error.to_string()));
    let overrides = args.fields.overrides();
    let scenario = overrides.and_then(|overrides| load_scenario(&args.scenario, &overrides));
    if let Some(found) = args.calibrate_s.filter(|s| !(1.0..=3600.0).contains(s)) {
        problems.push(format!(
            "--calibrate-s: found {found}, expected seconds from 1 to 3600"
        ));
    }
    let (scenario, profile) = match (scenario, profile) {
        (Ok(scenario), Ok(profile)) if problems.is_empty() => (scenario, profile),
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
    let scenario = match profile {
        Some(profile) => with_profile(&scenario, &profile),
        None => scenario,
    };
    let machine = Machine::set_up(&scenario, args.real, &args.workers)?;
    let made = workloads::make_with_contents(&scenario.workload, scenario.seed);
    let (loaded, contents) = made.map_err(Failure::input)?;
    let simulation = Simulation::new(&scenario, &loaded, Steps::Coasting)
        .map_err(|error| Failure::input([error.to_string()]))?;
    let ready = Ready {
        machine,
        scenario,
        loaded,
        contents,
        simulation,
    };
    let (real, sides) = ready.run_all(args)?;
    let own = real.iter().map(|run| ready.with_own_steps(run));
    let own: Vec<Run> = own.collect::<Option<_>>().unwrap_or_default();
    let around = sides.windows(2).zip(&real);
    let around = around.map(|(sides, run)| Around::of(sides, run, &ready.scenario, &ready.loaded));
    let around: Vec<Around> = around.collect::<Result<_, _>>()?;
    let even: Vec<&Run> = around.iter().map(|around| &around.even).collect();
    let plain;
    let simulated: Vec<&Run> = if around.is_empty() {
        plain = Run::of(ready.simulation.run(), &ready.simulation);
        vec![&plain]
    } else {
        around.iter().map(|around| &around.paced).collect()
    };
    let rows: Vec<Compared> = METRICS
        .iter()
        .map(|(metric, of)| Compared {
            metric,
            real: real.iter().map(of).collect(),
            simulated: simulated.iter().map(|run| of(run)).collect(),
            even: even.iter().map(|run| of(run)).collect(),
            own: own.iter().map(of).collect(),
        })
        .collect();
    if let Some(path) = &args.plot {
        chart(args, &ready.machine, &real, &simulated)
            .write(path)
            .map_err(|error| Failure::run(error.to_string()))?;
    }
    let price = |(index, run): (usize, &Run)| match around.get(index) {
        Some(around) => around.price(&run.steps),
        None => passed::price(&run.steps, ready.simulation.timing()[0].as_ref()),
    };
    let priced: Vec<Vec<Priced>> = real.iter().enumerate().map(price).collect();
    let steps = real.iter().flat_map(|run| &run.steps);
    let steps: Vec<(&RealStep, Priced)> = steps.zip(priced.into_iter().flatten()).collect();
    let late = real.iter().flat_map(|run| run.late.iter().copied());
    let passed = Passed::of(&steps, &late.collect::<Vec<Span>>());
    let kinds = Kinds::of(&steps);
    let source = ready.simulation.timing_source();
    let timing = match args.calibrate_s {
        Some(seconds) => format!("{seconds} s of measurements on either side of each run"),
        None => format!(
            "{} ({}): {}",
            source.name,
            source.basis.name(),
            source.detail
        ),
    };
    let paces: Vec<&Paces> = around.iter().map(|around| &around.paces).collect();
    let requests = simulated[0].summary.requests.completed;
    print(&if args.json {
        let mut value = as_json(args, &ready.machine, &timing, requests, &rows);
        value["steps"] = passed.as_json();
        value["kinds"] = kinds.as_json();
        value["paces"] = paces.iter().map(|paces| paces.as_json()).collect();
        format!("{value:#}\n")
    } else {
        let mut text = as_text(&ready.machine, &timing, requests, &rows) + &kinds.in_words();
        text += &passed.in_words();
        for (number, paces) in (1..).zip(paces) {
            let _ = writeln!(text, "pace during real run {number}: {}", paces.in_words());
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// All that is needed to run and to simulate.
struct Ready {
    machine: Machine,
    scenario: Scenario,
    loaded: Loaded,
    contents: Contents,
    simulation: Simulation,
}

impl Ready {
    /// The real runs, and the measurements before, between and after them if they are wanted.
    fn run_all(&self, args: &RealArgs) -> Result<(Vec<Run>, Vec<Side>), Failure> {
        let (mut real, mut sides) = (Vec::new(), Vec::new());
        let mut measure = || {
            let Some(seconds) = args.calibrate_s else {
                return Ok(());
            };
            note(&format!("measuring steps for {seconds} s"));
            let side = Side::measure(&self.machine, &self.scenario, args.real, seconds)?;
            sides.push(side);
            Ok::<(), Failure>(())
        };
        measure()?;
        for number in 1..=args.runs {
            note(&format!("real run {number} of {}", args.runs));
            real.push(self.run(args.calibrate_s.is_some())?);
            measure()?;
        }
        Ok((real, sides))
    }

    fn run(&self, is_paced: bool) -> Result<Run, Failure> {
        let Ready {
            machine,
            scenario,
            simulation,
            ..
        } = self;
        let (contents, signal) = (self.contents.clone(), stop_on_interrupt());
        let (run, paces) = if is_paced {
            machine.run_paced(scenario, simulation, contents, signal)?
        } else {
            let run = machine.run(scenario, simulation, contents, signal)?;
            (run, Vec::new())
        };
        if let Some(failure) = ended_early(&run) {
            return Err(failure);
        }
        Ok(Run {
            steps: run.steps,
            late: run.late,
            paces,
            ..Run::of(run.recording, simulation)
        })
    }

    /// A run simulated with step times fitted to its own steps; `None` if they are too few or too much alike.
    fn with_own_steps(&self, run: &Run) -> Option<Run> {
        let text = of_run(&run.steps);
        let log = StepLog::parse(&LogFile::from_text("the run's own steps", &text)).ok()?;
        let fitted = fit(&[log]).ok()?;
        let scenario = with_profile(&self.scenario, &fitted.profile);
        let simulation = Simulation::new(&scenario, &self.loaded, Steps::Coasting).ok()?;
        Some(Run::of(simulation.run(), &simulation))
    }
}

/// The scenario with all pools priced by a profile.
fn with_profile(scenario: &Scenario, profile: &FittedProfile) -> Scenario {
    let mut scenario = scenario.clone();
    for pool in &mut scenario.pools {
        pool.timing = TimingSpec::Fitted(profile.clone());
        pool.unmeasured = None;
    }
    scenario
}

/// Shares of requests over TTFT and E2E.
fn chart(args: &RealArgs, machine: &Machine, real: &[Run], simulated: &[&Run]) -> Chart {
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
        // One entry in the legend for all runs of a kind.
        let named = |index: usize, name: &str| match index {
            0 => format!("{what}, {name}"),
            _ => String::new(),
        };
        for (index, run) in real.iter().enumerate() {
            series.push(line(named(index, "real"), run, hues[0], of));
        }
        for (index, run) in simulated.iter().enumerate() {
            series.push(line(named(index, "simulated"), run, hues[1], of));
        }
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
            simulated[0].summary.requests.completed
        ),
        footer: machine.in_words(),
        x: axis("milliseconds from arrival", Scale::Log),
        y: axis("requests, %", Scale::Linear),
        series,
        limits: Vec::new(),
        notes: Vec::new(),
    }
}
