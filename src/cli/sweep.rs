//! `dynosim sweep`: many deployments, one frontier; or the smallest that meets an SLA.
//!
//! Everything given is read and judged first, so that bad input leaves nothing behind. Then the points run in parallel
//! with a journal beside the results: a sweep that was killed goes on where it was when started again.

mod bench;
mod plan;
mod progress;
mod search;
mod section;
mod text;

use super::{FAILED, Failure, print};
use bench::Bench;
use clap::Args;
use plan::{Goal, Plan};
use progress::Bar;
use reports::write_atomically;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use sweeps::chart::{self, Captions};
use sweeps::frontier::Ranking;
use sweeps::journal::Journal;
use sweeps::replicates::{Replicated, join};
use sweeps::report::{Provenance, SweepReport};
use sweeps::sweep::{Outcome, sweep};
use sweeps::table::table;

/// Run many deployments and map the Pareto frontier, or find the smallest that meets an SLA.
///
/// Without a scenario the embedded quick start runs.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SweepArgs {
    /// Scenario file (YAML); its `sweep:` section says what varies
    pub scenario: Option<PathBuf>,
    /// Replay this trace instead of the scenario's workload
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Vary a field: `pools.agg.workers=1,2,4`, `1..8`, `1..16:2`, `log 1..64 x2`; repeat for a grid
    #[arg(long, value_name = "FIELD=VALUES")]
    pub vary: Vec<String>,
    /// Set a field of the scenario for all points
    #[arg(long, value_name = "FIELD=VALUE")]
    pub set: Vec<String>,
    /// Metric of the horizontal axis [default: throughput.output_tokens_per_s_per_user]
    #[arg(long, value_name = "METRIC")]
    pub x: Option<String>,
    /// Metric of the vertical axis, in which the winner is best [default: throughput.output_tokens_per_s_per_gpu]
    #[arg(long, value_name = "METRIC")]
    pub y: Option<String>,
    /// Bound a metric: `latency.ttft_ms.p99<=500`, `throughput.gpus<=16`
    #[arg(long, value_name = "METRIC<=NUMBER")]
    pub require: Vec<String>,
    /// Share of requests that must meet the SLA [default: 0.9]
    #[arg(long, value_name = "SHARE")]
    pub attainment: Option<f64>,
    /// Find, at every point, `min-workers` or `max-rate` (with several pools `min-workers:POOL`) under the constraints
    #[arg(long, value_name = "WHAT")]
    pub find: Option<Goal>,
    /// Run every point with this many seeds and give confidence intervals
    #[arg(long, value_name = "N")]
    pub replicates: Option<u32>,
    /// Threads; 0 is one per processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Allow at most this many points
    #[arg(long, value_name = "N", default_value_t = sweeps::space::DEFAULT_MAX_POINTS)]
    pub max_points: usize,
    /// Folder for tables, pictures, report and journal
    #[arg(long, value_name = "DIR", default_value = "sweep-results")]
    pub out: PathBuf,
    /// Start over instead of going on with the journal in the folder
    #[arg(long)]
    pub fresh: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "Example:\n  dynosim sweep scenario.yaml --trace trace.jsonl --vary pools.agg.workers=1..8 \
    --vary engine.block_size=16,64\n  dynosim sweep scenario.yaml --find min-workers --vary pools.agg.parallel.tp=1,2,4";

pub fn run(args: SweepArgs) -> Result<ExitCode, Failure> {
    let plan = Plan::new(&args)?;
    let bench = Bench::new(&plan);
    bench.check(&plan)?;
    let folder = Folder::create(&args.out)?;
    let journal = folder.journal(args.fresh)?;
    match &plan.goal {
        None => map(&args, &plan, &bench, &folder, &journal),
        Some(goal) => search::run(&args, &plan, &bench, &folder, &journal, goal),
    }
}

/// Runs the grid and reports its frontier.
fn map(
    args: &SweepArgs,
    plan: &Plan,
    bench: &Bench,
    folder: &Folder,
    journal: &Journal<Outcome>,
) -> Result<ExitCode, Failure> {
    let tasks: Vec<_> = plan.replicated.points().collect();
    let bar = Bar::new(tasks.len());
    let prepare = |point: &_| bench.prepare(point);
    let finished = sweep(tasks, args.threads, Some(journal), prepare, |input| bench.simulate(input), |progress| {
        bar.show(progress);
    });
    bar.finish();
    let finished = finished.map_err(|error| Failure::run(error.to_string()))?;
    let is_broken = finished.iter().any(|one| matches!(one.outcome, Outcome::Failed(_)));
    let points = join(finished, plan.replicates as usize, plan::SEED);
    let ranking = Ranking::new(points.iter().map(|point| &point.mean.outcome), &plan.criteria);
    let provenance = Provenance {
        dynosim_version: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: plan.name.clone(),
        workload: bench.workload_name(),
    };
    let report = SweepReport::new(provenance, &points, &ranking, &plan.criteria);
    let chart = chart::frontier(&points, &ranking, &plan.criteria, captions(plan, bench, &points));
    let rows = table(&points, &ranking, &plan.space.fields());
    for name in ["sweep.csv", "sweep.parquet"] {
        rows.write(&folder.path(name)).map_err(failed)?;
    }
    for name in ["frontier.png", "frontier.svg"] {
        chart.write(&folder.path(name)).map_err(failed)?;
    }
    folder.write("report.json", &report.json())?;
    if args.json {
        print(&report.json())?;
    } else {
        print(&text::sweep(&report, &points, &plan.criteria, &chart))?;
        print(&folder.summary(&["frontier.png", "frontier.svg", "sweep.csv", "sweep.parquet", "report.json"]))?;
    }
    Ok(if is_broken { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn captions(plan: &Plan, bench: &Bench, points: &[Replicated]) -> Captions {
    let guessed = points.iter().any(|point| !point.mean.outcome.guesses().is_empty());
    let note = if guessed { " · stands on guesses, see report.json" } else { "" };
    Captions {
        subtitle: format!("{} · {} · {} points", plan.name, bench.workload_name(), points.len()),
        footer: format!("dynosim {} · {}{note}", env!("CARGO_PKG_VERSION"), plan.criteria.rule()),
    }
}

/// Where results go.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create(path: &Path) -> Result<Folder, Failure> {
        let wrong = |error| Failure::input([format!("--out {}: cannot make the folder: {error}", path.display())]);
        std::fs::create_dir_all(path).map_err(wrong)?;
        Ok(Folder { path: path.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        write_atomically(&self.path(name), |out| out.write_all(text.as_bytes())).map_err(failed)
    }

    /// The journal of finished points; says on stderr what is wrong with it.
    fn journal(&self, is_fresh: bool) -> Result<Journal<Outcome>, Failure> {
        let journal = Journal::open(&self.path("journal.jsonl"), is_fresh);
        let journal = journal.map_err(|error| Failure::run(error.to_string()))?;
        for damage in journal.damage() {
            progress::note(&format!("{}: {damage}", journal.path().display()));
        }
        Ok(journal)
    }

    fn summary(&self, names: &[&str]) -> String {
        format!("\nWritten to {}: {}\n", self.path.display(), names.join(", "))
    }
}

fn failed(error: reports::Error) -> Failure {
    Failure::run(error.to_string())
}
