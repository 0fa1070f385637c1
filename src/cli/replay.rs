//! `dynosim replay`: one workload through one deployment.

use super::real::{self, Device, Machine, WorkerArgs};
use super::{Failure, make_folder, print};
use crate::scenario::{self, Set};
use clap::Args;
use engine::{RequestId, Span};
use reports::report::{Provenance, Report, Timing};
use reports::{Error, aiperf, rows, scaling, text, timeline};
use sim::series::MOST_WINDOWS;
use sim::{Recording, series};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use sweeps::scenario::{Pool, Scenario};
use sweeps::simulate::{Simulation, Steps};
use sweeps::workloads;

/// Replay a workload through one deployment and print what users would see.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dynosim replay examples/peer.yaml --trace trace.jsonl --workers 8 --router round-robin"
)]
pub struct ReplayArgs {
    /// Scenario file (YAML)
    pub scenario: PathBuf,
    #[command(flatten)]
    pub fields: FieldArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Write report.json, requests.csv, requests.parquet, series.csv, timeline.json and AIPerf's files into this folder, with a planner decisions.csv and scaling.png as well
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Length of a window of series.csv in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    window_s: f64,
    /// Take every decode step by itself: the plain reference, slower and equal to the last digit
    #[arg(long)]
    stepping: bool,
    /// Run on the real clock; each step sleeps for the modelled time
    #[arg(long, conflicts_with = "stepping")]
    live: bool,
    /// Run on the real clock; each step is computed on this device by the scenario's model, a config.json
    #[arg(long, value_enum, value_name = "DEVICE", conflicts_with_all = ["stepping", "live", "regret"])]
    real: Option<Device>,
    #[command(flatten)]
    real_workers: WorkerArgs,
    /// Ask for so many routing decisions, drawn by seed, what the second choice would have given: each is a run of its own
    #[arg(long, value_name = "N", conflicts_with = "live")]
    regret: Option<u32>,
    /// With --regret: requests sent within so long after a decision count among all that it touches
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60.0,
        requires = "regret"
    )]
    horizon_s: f64,
    /// With --live: run so many times faster than real time
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "live")]
    speedup: f64,
}

/// Fields of a scenario given on the command line.
#[derive(Debug, Args, Default, Clone)]
pub struct FieldArgs {
    /// Set any field of the scenario, pools by name: pools.decode.workers=4
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Trace file: workload.trace.path
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Treat every warning about the trace as an error: workload.trace.strict
    #[arg(long)]
    strict: bool,
    /// Workers of the first pool
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Router: round-robin, random, least-loaded, power-of-two, session-affinity, kv, direct, …
    #[arg(long, value_name = "MODE")]
    router: Option<String>,
    /// Tokens per KV block: engine.block_size
    #[arg(long, value_name = "TOKENS")]
    block_size: Option<String>,
    /// KV blocks of a worker: engine.num_gpu_blocks
    #[arg(long, value_name = "N")]
    num_gpu_blocks: Option<String>,
    /// Sessions in flight at once (closed loop): workload.load.concurrency
    #[arg(long, value_name = "N")]
    concurrency: Option<String>,
    /// Arrivals so many times faster: workload.load.arrival_speedup_ratio
    #[arg(long, value_name = "FACTOR")]
    arrival_speedup_ratio: Option<String>,
    /// Seed of everything random
    #[arg(long, value_name = "N")]
    seed: Option<String>,
}

/// The option whose trace takes the place of a generated workload, and the field of that.
const TRACE: &str = "--trace";
const SYNTH: &str = "workload.synth";

impl FieldArgs {
    /// The fields as overrides; short flags first, so that `--set` has the last word.
    pub fn overrides(&self) -> Result<Vec<Set>, Failure> {
        let mut overrides = Vec::new();
        let trace = self.trace.as_ref().map(|path| path.display().to_string());
        let strict = self.strict.then(|| true.to_string());
        let flags = [
            (TRACE, "workload.trace.path", &trace),
            ("--strict", "workload.trace.strict", &strict),
            ("--workers", "pools.0.workers", &self.workers),
            ("--router", "router.mode", &self.router),
            ("--block-size", "engine.block_size", &self.block_size),
            (
                "--num-gpu-blocks",
                "engine.num_gpu_blocks",
                &self.num_gpu_blocks,
            ),
            (
                "--concurrency",
                "workload.load.concurrency",
                &self.concurrency,
            ),
            (
                "--arrival-speedup-ratio",
                "workload.load.arrival_speedup_ratio",
                &self.arrival_speedup_ratio,
            ),
            ("--seed", "seed", &self.seed),
        ];
        if self.trace.is_some() {
            // The trace takes the place of a generated workload.
            overrides.push(Set {
                place: TRACE.to_owned(),
                ..Set::by_option(SYNTH, "null")
            });
        }
        for (flag, field, value) in flags {
            overrides.extend(value.iter().map(|value| Set {
                place: flag.to_owned(),
                ..Set::by_option(field, value)
            }));
        }
        let mut problems = Vec::new();
        for text in &self.set {
            match text.split_once('=') {
                Some((field, value)) => overrides.push(Set::by_option(field, value)),
                None => problems.push(format!(
                    "--set {text}: expected FIELD=VALUE, for example pools.agg.workers=4"
                )),
            }
        }
        if problems.is_empty() {
            Ok(overrides)
        } else {
            Err(Failure::input(problems))
        }
    }
}

/// Reads a scenario file and applies overrides.
pub fn load_scenario(path: &Path, overrides: &[Set]) -> Result<Scenario, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::input([format!("{}: {error}", path.display())]))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::input([format!(
            "{}: found bytes that are not UTF-8, expected YAML",
            path.display()
        )])
    })?;
    scenario::load(Some(path), &text, overrides)
        .map_err(|problems| Failure::input([problems.to_string()]))
}

pub fn run(args: ReplayArgs) -> Result<ExitCode, Failure> {
    let mut problems = wrong_options(&args);
    let overrides = args.fields.overrides();
    let scenario = overrides.and_then(|overrides| {
        load_scenario(&args.scenario, &overrides).map(|scenario| (scenario, overrides))
    });
    let (scenario, overrides) = match scenario {
        Ok(scenario) if problems.is_empty() => scenario,
        Ok(_) => return Err(Failure::input(problems)),
        Err(failure) => {
            problems.extend(failure.messages);
            return Err(Failure::input(problems));
        }
    };
    if args.live {
        steps_alone(&scenario)?;
    }
    if let Some(device) = args.real {
        return run_real(&args, device, &scenario, overrides);
    }
    let loaded = workloads::make(&scenario.workload, scenario.seed).map_err(Failure::input)?;
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let problems = against(&args, &scenario);
    if !problems.is_empty() {
        return Err(Failure::input(problems));
    }
    let steps = if args.stepping || args.live {
        Steps::Stepping
    } else {
        Steps::Coasting
    };
    let simulation = Simulation::new(&scenario, &loaded, steps)
        .map_err(|error| Failure::input([error.to_string()]))?;
    let (recording, regret) = match args.regret {
        _ if args.live => (run_live(&simulation, args.speedup)?, None),
        None => (simulation.run(), None),
        Some(sample) => {
            let (recording, regret) =
                simulation.run_with_regret(sample as usize, Span::from_s(args.horizon_s));
            (recording, Some(regret))
        }
    };
    let mut report = report(
        &args.scenario.display().to_string(),
        &scenario,
        overrides,
        &simulation,
        &recording,
    );
    report.regret = regret;
    if args.live {
        // A sleeping step wakes about a millisecond late, which the speed-up multiplies.
        report.timing.detail += &format!(
            "; run on the real clock {0} times as fast, steps end up to about {0} ms late",
            args.speedup
        );
    }
    if let Some(folder) = &args.out {
        let window = window(args.window_s, &recording)?;
        make_folder("--out", folder)?;
        write_files(
            folder,
            &report,
            &recording,
            &simulation.pool_names(),
            window,
        )
        .map_err(|error| Failure::run(error.to_string()))?;
    }
    print(&if args.json {
        report.json()
    } else {
        text::summary(&report)
            + &args
                .out
                .as_deref()
                .map_or(String::new(), |out| written(out, of_planner(&report)))
    })?;
    if report.summary.requests.unfinished > 0 {
        return Err(Failure::run(stuck(&simulation, &recording)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Beyond this a step that wakes late ends much too late, and the run soon beyond the end of time (213 days).
const SPEEDUPS: RangeInclusive<f64> = 0.001..=10_000.0;

/// What is wrong with options that are not fields of the scenario.
fn wrong_options(args: &ReplayArgs) -> Vec<String> {
    let ReplayArgs {
        window_s, speedup, ..
    } = args;
    let mut problems = Vec::new();
    if !(*window_s > 0.0 && window_s.is_finite()) {
        problems.push(format!(
            "--window-s: found {window_s}, expected a positive length"
        ));
    }
    if !(0.0..=1e6).contains(&args.horizon_s) {
        problems.push(format!(
            "--horizon-s: found {}, expected a length from 0 to 1000000",
            args.horizon_s
        ));
    }
    if !SPEEDUPS.contains(speedup) {
        let (least, most) = SPEEDUPS.into_inner();
        problems.push(format!(
            "--speedup: found {speedup}, expected a factor from {least} to {most}"
        ));
    }
    problems
}

/// What the options ask of a scenario that cannot be had.
fn against(args: &ReplayArgs, scenario: &Scenario) -> Vec<String> {
    let mut problems = Vec::new();
    if args.live {
        let oracles = scenario.oracles();
        problems.extend(oracles.iter().map(|oracle| {
            format!(
                "--live: found {oracle}; expected nothing that knows the future on the real clock"
            )
        }));
    }
    let overlap = scenario.disaggregation.as_ref().map(|it| it.overlap);
    if args.live && matches!(overlap, Some(sim::disaggregation::Overlap::Layer(_))) {
        problems.push(
            "--live: found disaggregation.overlap: layer, which needs to know how long a step will last; expected chunk or none"
                .to_owned(),
        );
    }
    if args.live && scenario.adversity.faults.breaks() {
        problems.push(
            "--live: found faults, expected none: a real clock cannot break workers at will"
                .to_owned(),
        );
    }
    if args.real.is_some() && !scenario.adversity.is_nothing() {
        problems.push(
            "--real: found clients, admission or faults, expected a deployment in which nothing goes wrong"
                .to_owned(),
        );
    }
    if args.regret.is_some() && !scenario.adversity.is_nothing() {
        problems.push(
            "--regret: found clients, admission or faults, expected a deployment in which nothing goes wrong"
                .to_owned(),
        );
    }
    if scenario.planner.is_some() {
        let options = [("--live", args.live), ("--regret", args.regret.is_some())];
        for (option, _) in options.into_iter().filter(|(_, is_given)| *is_given) {
            problems.push(format!(
                "{option}: found a planner, expected a fixed number of workers: workers that come and go are simulated on the virtual clock alone, without second choices"
            ));
        }
    }
    if args.regret.is_some() {
        let workers: u32 = scenario.pools.iter().map(|pool| pool.workers).sum();
        if scenario.disaggregation.is_some() {
            problems.push(
                "--regret: found pools of role prefill and decode, expected a router in front of workers that do everything"
                    .to_owned(),
            );
        } else if workers < 2 {
            problems
                .push("--regret: found one worker, expected two or more to choose from".to_owned());
        }
    }
    problems
}

/// The length of a window of the series, which has only so many.
fn window(seconds: f64, recording: &Recording) -> Result<Span, Failure> {
    let window = Span::from_s(seconds);
    let moments = recording.sent().map(|(_, record)| record.last_moment());
    let end = moments.max().unwrap_or_default();
    if window > Span::ZERO && end.0 / window.0 < MOST_WINDOWS {
        return Ok(window);
    }
    Err(Failure::input([format!(
        "--window-s: found {seconds}, expected windows that cut {:.1} s into at most {MOST_WINDOWS}",
        end.as_s()
    )]))
}

/// The report of a run.
pub fn report(
    name: &str,
    scenario: &Scenario,
    overrides: Vec<Set>,
    simulation: &Simulation,
    recording: &Recording,
) -> Report {
    let provenance = Provenance {
        scenario: name.to_owned(),
        workload: scenario.workload.in_words(),
        overrides: told(overrides),
        seed: scenario.seed,
        digest: simulation.digest().to_string(),
        workload_digest: simulation.workload_digest().to_string(),
        engines: scenario
            .pools
            .iter()
            .map(|pool| (pool.name.clone(), pool.engine.backend().to_owned()))
            .collect(),
        timing: Timing::from(simulation.timing_source().clone()),
    };
    Report::new(provenance, simulation.summary(recording))
}

/// What was set, without what follows from it.
fn told(overrides: Vec<Set>) -> BTreeMap<String, String> {
    let is_implied = |set: &Set| set.place == TRACE && set.field == SYNTH;
    overrides
        .into_iter()
        .filter(|set| !is_implied(set))
        .map(|set| (set.field, set.value))
        .collect()
}

/// A live worker has one executor that takes one step after the other.
fn steps_alone(scenario: &Scenario) -> Result<(), Failure> {
    let overlaps = |pool: &&Pool| pool.engine.stages() > 1 || pool.engine.ranks() > 1;
    let problem = |pool: &Pool| {
        format!(
            "--live: pool {} has stages or ranks, expected pp and dp of 1: their steps overlap, which is not modelled on the real clock",
            pool.name
        )
    };
    let problems: Vec<String> = scenario
        .pools
        .iter()
        .filter(overlaps)
        .map(problem)
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::input(problems))
    }
}

/// Runs on the real clock and proves that the decisions are those of the virtual one: the journal, played into a fresh
/// cluster, must lead to the same actions.
fn run_live(simulation: &Simulation, speedup: f64) -> Result<Recording, Failure> {
    let run = simulation
        .run_live(speedup)
        .map_err(|error| Failure::run(format!("the live run failed: {error}")))?;
    let played = run.journal.play(&mut simulation.fresh_cluster());
    played.map_err(|departure| {
        Failure::run(format!(
            "the journal of the live run does not replay: {departure:?}"
        ))
    })?;
    let _ = writeln!(
        std::io::stderr(),
        "journal of {} events replayed on the virtual clock: the same actions",
        run.journal.entries.len()
    );
    Ok(run.recording)
}

/// Runs for real. What a run that ended early has is reported before why it did.
fn run_real(
    args: &ReplayArgs,
    device: Device,
    scenario: &Scenario,
    overrides: Vec<Set>,
) -> Result<ExitCode, Failure> {
    let machine = Machine::set_up(scenario, device, &args.real_workers)?;
    let made = workloads::make_with_contents(&scenario.workload, scenario.seed);
    let (loaded, contents) = made.map_err(Failure::input)?;
    for warning in &loaded.warnings {
        real::note(&format!("warning: {warning}"));
    }
    let simulation = Simulation::new(scenario, &loaded, Steps::Stepping)
        .map_err(|error| Failure::input([error.to_string()]))?;
    if let Some(folder) = &args.out {
        make_folder("--out", folder)?;
    }
    let run = machine.run(scenario, &simulation, contents, real::stop_on_interrupt())?;
    let name = args.scenario.display().to_string();
    let mut report = report(&name, scenario, overrides, &simulation, &run.recording);
    report.timing = Timing::from(machine.source(scenario));
    if let Some(folder) = &args.out {
        let window = window(args.window_s, &run.recording)?;
        let pools = simulation.pool_names();
        let steps = real::steps::of_run(&run.steps);
        reports::write_atomically(&folder.join(STEPS), |out| out.write_all(steps.as_bytes()))
            .and_then(|()| write_files(folder, &report, &run.recording, &pools, window))
            .map_err(|error| Failure::run(error.to_string()))?;
    }
    print(&if args.json {
        report.json()
    } else {
        let out = args.out.as_deref();
        text::summary(&report) + &out.map_or(String::new(), |out| written(out, &[STEPS]))
    })?;
    match real::ended_early(&run) {
        Some(failure) => Err(failure),
        None if report.summary.requests.unfinished > 0 => {
            Err(Failure::run(stuck(&simulation, &run.recording)))
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The files of `--out`.
const FILES: [&str; 7] = [
    "report.json",
    "requests.csv",
    "requests.parquet",
    "series.csv",
    "timeline.json",
    "profile_export_aiperf.json",
    "profile_export.jsonl",
];

/// Beside them with a planner.
const PLANNER_FILES: [&str; 2] = ["decisions.csv", "scaling.png"];

/// Those that a run has.
fn of_planner(report: &Report) -> &'static [&'static str] {
    match report.summary.scaling {
        Some(_) => &PLANNER_FILES,
        None => &[],
    }
}

/// The steps of a real run, beside them.
const STEPS: &str = "steps.jsonl";

/// The last line: where everything is.
fn written(folder: &Path, more: &[&str]) -> String {
    let files = [&FILES, more].concat().join(", ");
    format!("\nWritten to {}: {files}\n", folder.display())
}

fn write_files(
    folder: &Path,
    report: &Report,
    recording: &Recording,
    pools: &[String],
    window: Span,
) -> Result<(), Error> {
    let [
        report_json,
        csv,
        parquet,
        series_csv,
        timeline_json,
        aggregate,
        records,
    ] = FILES.map(|name| folder.join(name));
    let requests = rows::requests(recording, pools);
    requests.write(&csv)?;
    requests.write(&parquet)?;
    let series = series(recording, window);
    rows::windows(&series).write(&series_csv)?;
    if let Some(scaling) = &report.summary.scaling {
        let [decisions, picture] = PLANNER_FILES.map(|name| folder.join(name));
        rows::decisions(&scaling.decisions).write(&decisions)?;
        scaling::picture(report, scaling, &series).write(&picture)?;
    }
    timeline::write(recording, pools, &timeline_json)?;
    aiperf::write_aggregate(report, recording, &aggregate)?;
    aiperf::write_records(recording, &records)?;
    // Last, so that a folder with a report is complete.
    report.write(&report_json)
}

/// Places that are named of those where requests stand.
const MOST_STANDINGS: usize = 5;

/// Where requests stand that a run left unfinished, and why that can be.
fn stuck(simulation: &Simulation, recording: &Recording) -> String {
    let found = sim::stuck::stuck(recording);
    let count: usize = found.values().map(Vec::len).sum();
    let each = |(standing, requests): (&sim::stuck::Standing, &Vec<RequestId>)| match requests[..] {
        [only] => format!("request {} {standing}", only.0),
        _ => format!(
            "{} requests, the first {}: it {standing}",
            requests.len(),
            requests[0].0
        ),
    };
    let mut places: Vec<String> = found.iter().take(MOST_STANDINGS).map(each).collect();
    if found.len() > MOST_STANDINGS {
        places.push(format!(
            "others in {} further places",
            found.len() - MOST_STANDINGS
        ));
    }
    format!(
        "{count} requests were not finished when nothing more could happen (digest {}): {}. A worker preempts requests of equal \
         priority and arrival in turn, or a duration limit left turns of a session unsent",
        simulation.digest(),
        places.join("; ")
    )
}
