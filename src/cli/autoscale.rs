//! `dynosim autoscale`: what autoscaling saves, on a workload, while a latency is kept.
//!
//! Fixed fleets of one worker and more, planners of every kind and an oracle replay the same workload. The smallest fixed fleet
//! that keeps the bound is what autoscaling has to beat; the oracle, a calendar that knows every request to come, is tried at
//! several utilisations and says how much there is to be had. Below all of them is a bound: what the tokens take in the best of
//! batches.

mod fleets;
mod runs;
mod text;

use super::replay::{FieldArgs, load_scenario};
use super::{Failure, make_folder, print};
use clap::Args;
use reports::plot::Chart;
use reports::table::Table;
use runs::{Candidate, Kind, Run};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use sweeps::constraint::Constraint;
use sweeps::scenario::{Role, Scenario};
use sweeps::workloads;

/// Say how many GPU-hours autoscaling saves while a latency is kept, and under which planner.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dynosim autoscale scenario.yaml --trace trace.jsonl --startup-s 90"
)]
pub struct AutoscaleArgs {
    /// Scenario file (YAML) with one pool, or one that prefills and one that decodes; a planner in it is tried beside the others
    scenario: PathBuf,
    #[command(flatten)]
    fields: FieldArgs,
    /// What is to be kept [default: the 90th percentile of TTFT at the SLA's bound, or 2000 ms]
    #[arg(long, value_name = "METRIC<=NUMBER")]
    keep: Option<String>,
    /// How long a new worker takes to start: lifecycle.startup_s
    #[arg(long, value_name = "SECONDS")]
    startup_s: Option<String>,
    /// Most workers that a fleet may have, all roles together
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    most: u32,
    /// Write autoscale.csv, autoscale.json, autoscale.png and autoscale.svg into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// All runs and what was asked.
pub struct Comparison {
    keep: Constraint,
    /// How long a start took, in seconds.
    startup_s: f64,
    workload: String,
    /// Whether fleets have two sizes.
    is_apart: bool,
    /// GPU-hours below which no schedule serves the workload; none where requests may go unserved.
    bound: Option<f64>,
    runs: Vec<Run>,
    /// What the numbers stand on.
    guesses: Vec<String>,
}

/// The default of `--keep` without an SLA, in milliseconds.
const DEFAULT_TTFT_MS: f64 = 2000.0;

pub fn run(args: AutoscaleArgs) -> Result<ExitCode, Failure> {
    let mut problems = Vec::new();
    let keep = args.keep.as_deref().map(Constraint::parse).transpose();
    let keep = keep.unwrap_or_else(|error| {
        problems.push(format!("--keep: {error}"));
        None
    });
    let mut overrides = args.fields.overrides()?;
    overrides.extend(runs::startup(args.startup_s.as_deref()));
    let base = load_scenario(&args.scenario, &runs::without_planner(&overrides));
    let base = base.map_err(|mut failure| {
        failure.messages.splice(0..0, problems.drain(..));
        failure
    })?;
    problems.extend(unfit(&base, args.most));
    if !problems.is_empty() {
        return Err(Failure::input(problems));
    }
    let keep = keep.unwrap_or_else(|| {
        let ttft_ms = base.sla.and_then(|sla| sla.ttft_ms);
        let limit = ttft_ms.unwrap_or(DEFAULT_TTFT_MS);
        Constraint::parse(&format!("latency.ttft_ms.p90<={limit}")).expect("the metric exists")
    });
    let loaded = workloads::make(&base.workload, base.seed).map_err(Failure::input)?;
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let candidates = Candidate::all(&args.scenario, &overrides, &base, args.most)?;
    let startup_s = candidates
        .iter()
        .find_map(Candidate::startup_s)
        .unwrap_or(0.0);
    let (runs, guesses) = runs::run_all(&candidates, &loaded, &keep)?;
    let comparison = Comparison {
        bound: runs::bound(&base, &loaded, &runs)?,
        startup_s,
        workload: base.workload.in_words(),
        keep,
        is_apart: base.pools.len() > 1,
        runs,
        guesses,
    };
    if let Some(folder) = &args.out {
        make_folder("--out", folder)?;
        comparison
            .write(folder)
            .map_err(|error| Failure::run(error.to_string()))?;
    }
    print(&if args.json {
        format!("{:#}\n", comparison.json())
    } else {
        comparison.text()
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Why a scenario cannot be compared like this.
fn unfit(scenario: &Scenario, most: u32) -> Option<String> {
    let mut roles: Vec<Role> = scenario.pools.iter().map(|pool| pool.role).collect();
    roles.sort_by_key(|role| *role != Role::Prefill);
    match roles[..] {
        [Role::Aggregated] => None,
        [Role::Prefill, Role::Decode] if most < 2 => Some(format!(
            "--most: found {most}, expected 2 or more: there is a worker of each role"
        )),
        [Role::Prefill, Role::Decode] => None,
        _ => Some(
            "pools: found several of one role, expected one of role aggregated, or one of prefill and one of decode: `dynosim sweep` varies others".to_owned(),
        ),
    }
}

impl Comparison {
    /// The smallest fixed fleet that keeps the bound.
    fn fixed(&self) -> Option<&Run> {
        self.cheapest(Kind::Fixed)
    }

    /// The cheapest run of a kind that keeps the bound.
    fn cheapest(&self, kind: Kind) -> Option<&Run> {
        let runs = self.runs.iter();
        runs.filter(|run| run.kind == kind && run.keeps)
            .min_by(|a, b| a.gpu_hours.total_cmp(&b.gpu_hours))
    }

    fn write(&self, folder: &Path) -> Result<(), reports::Error> {
        self.table().write(&folder.join("autoscale.csv"))?;
        let chart = self.chart();
        chart.write(&folder.join("autoscale.png"))?;
        chart.write(&folder.join("autoscale.svg"))?;
        let json = format!("{:#}\n", self.json());
        reports::write_atomically(&folder.join("autoscale.json"), |out| {
            out.write_all(json.as_bytes())
        })
    }

    fn table(&self) -> Table {
        text::table(self)
    }

    fn chart(&self) -> Chart {
        text::chart(self)
    }
}
