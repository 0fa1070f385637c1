//! `dynosim sweep`: many deployments, one frontier; or the smallest that meets an SLA.
//!
//! Everything given is read and judged first, so that bad input leaves nothing behind. Then the points run in parallel
//! with a journal beside the results: a sweep that was killed goes on where it was when started again.

mod bench;
mod plan;
mod progress;
mod search;
mod text;

use super::replay::FieldArgs;
use super::{FAILED, Failure, make_folder, print};
use bench::Bench;
use clap::Args;
use plan::{Goal, Plan};
use progress::Bar;
use reports::plot::Chart;
use reports::write_atomically;
use search::Target;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use sweeps::chart::{self, Captions};
use sweeps::curves::Over;
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
    #[command(flatten)]
    pub fields: FieldArgs,
    /// Vary a field: `pools.agg.workers=1,2,4`, `1..8`, `1..16:2`, `log 1..64 x2`; repeat for a grid. `gpus=8,16` gives
    /// the only pool as many workers as fit
    #[arg(long, value_name = "FIELD=VALUES")]
    pub vary: Vec<String>,
    /// Metric of the horizontal axis [default: throughput.output_tokens_per_s_per_user]
    #[arg(long, value_name = "METRIC")]
    pub x: Option<String>,
    /// Metric of the vertical axis, in which the winner is best [default: throughput.output_tokens_per_s_per_gpu]
    #[arg(long, value_name = "METRIC")]
    pub y: Option<String>,
    /// Besides the frontier, show metrics over this field, a line for each combination of the others; --y is drawn
    #[arg(long, value_name = "FIELD", conflicts_with = "find")]
    pub over: Option<String>,
    /// Bound a metric: `latency.ttft_ms.p99<=500`, `throughput.gpus<=16`
    #[arg(long, value_name = "METRIC<=NUMBER")]
    pub require: Vec<String>,
    /// Share of requests that must meet the SLA
    #[arg(long, value_name = "SHARE", default_value_t = sweeps::criteria::DEFAULT_ATTAINMENT)]
    pub attainment: f64,
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
    let target = Target::new(&plan, &args)?;
    let bench = Bench::new(&plan)?;
    let folder = Folder::create(&args.out)?;
    let journal = folder.journal(args.fresh)?;
    progress::explain_interrupts(journal.path());
    match target {
        None => map(&args, &bench, &folder, &journal),
        Some(target) => search::run(&args, &bench, &folder, &journal, &target),
    }
}

/// Number of points of a scenario's section `sweep`.
///
/// # Errors
/// All that is wrong with the scenario or a value of the section.
pub fn count_points(scenario: &Path, fields: &FieldArgs) -> Result<usize, Failure> {
    let args = SweepArgs {
        scenario: Some(scenario.to_owned()),
        fields: fields.clone(),
        vary: Vec::new(),
        x: None,
        y: None,
        over: None,
        require: Vec::new(),
        attainment: sweeps::criteria::DEFAULT_ATTAINMENT,
        find: None,
        replicates: None,
        threads: 0,
        max_points: sweeps::space::DEFAULT_MAX_POINTS,
        out: PathBuf::new(),
        fresh: false,
        json: false,
    };
    let plan = Plan::new(&args)?;
    Bench::new(&plan)?;
    Ok(plan.space.len().expect("the number of points was checked"))
}

/// Runs the grid and reports its frontier.
fn map(
    args: &SweepArgs,
    bench: &Bench,
    folder: &Folder,
    journal: &Journal<Outcome>,
) -> Result<ExitCode, Failure> {
    let plan = bench.plan;
    let tasks: Vec<_> = plan.replicated.points().collect();
    let bar = Bar::new(tasks.len(), "points");
    let prepare = |point: &_| bench.prepare(point);
    let show = |progress| bar.show(progress);
    let finished = sweep(
        tasks,
        args.threads,
        Some(journal),
        prepare,
        |ready| bench.simulate(ready),
        show,
    );
    bar.finish();
    let finished = finished.map_err(|error| Failure::run(error.to_string()))?;
    let points = join(finished, plan.replicates as usize, plan::SEED);
    let results = Results::new(bench, points, plan.space.fields());
    let over = args
        .over
        .as_deref()
        .map(|field| Over::new(&results.points, field));
    folder.write_results(&results)?;
    if let Some(over) = &over {
        let metric = &plan.criteria.y.metric;
        let chart = over.chart(metric, captions(bench, &results.points));
        for name in CURVES {
            chart.write(&folder.path(name)).map_err(failed)?;
        }
    }
    print(&if args.json {
        results.report.json()
    } else {
        let curves = over.map_or(String::new(), |over| {
            let x = args.x.as_ref().map(|_| plan.criteria.x.metric.as_str());
            text::curves(&over, &plan.criteria.y.metric, x)
        });
        let more: &[&str] = if curves.is_empty() { &[] } else { &CURVES };
        text::frontier(&results) + &curves + &folder.summary(more)
    })?;
    Ok(results.exit_code())
}

/// All points, ranked, in the forms in which they are handed out.
struct Results<'a> {
    bench: &'a Bench<'a>,
    points: Vec<Replicated>,
    ranking: Ranking,
    report: SweepReport,
    chart: Chart,
    fields: Vec<&'a str>,
}

impl<'a> Results<'a> {
    fn new(bench: &'a Bench<'a>, points: Vec<Replicated>, fields: Vec<&'a str>) -> Results<'a> {
        let criteria = &bench.plan.criteria;
        let ranking = Ranking::new(points.iter().map(|point| &point.mean.outcome), criteria);
        let provenance = Provenance {
            dynosim_version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: bench.plan.name.clone(),
            workload: bench.workload_name(),
        };
        let report = SweepReport::new(provenance, &points, &ranking, criteria);
        let chart = chart::frontier(&points, &ranking, criteria, captions(bench, &points));
        Results {
            bench,
            points,
            ranking,
            report,
            chart,
            fields,
        }
    }

    /// A simulation that broke fails the sweep, after everything else was reported.
    fn exit_code(&self) -> ExitCode {
        let is_broken = |point: &Replicated| matches!(point.mean.outcome, Outcome::Failed(_));
        if self.points.iter().any(is_broken) {
            ExitCode::from(FAILED)
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn captions(bench: &Bench, points: &[Replicated]) -> Captions {
    let is_guessed = points
        .iter()
        .any(|point| !point.mean.outcome.guesses().is_empty());
    let note = if is_guessed {
        " · stands on guesses, see report.json"
    } else {
        ""
    };
    let sources: BTreeSet<&str> = points
        .iter()
        .filter_map(|point| point.mean.outcome.timing())
        .filter_map(|timing| timing.split(' ').next())
        .collect();
    let sources: Vec<&str> = sources.into_iter().collect();
    Captions {
        subtitle: format!(
            "{} · {} · {} points · timing: {}",
            bench.plan.name,
            bench.workload_name(),
            points.len(),
            sources.join(" and ")
        ),
        footer: format!(
            "dynosim {} · {}{note}",
            env!("CARGO_PKG_VERSION"),
            bench.plan.criteria.rule()
        ),
    }
}

/// Where results go.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create(path: &Path) -> Result<Folder, Failure> {
        make_folder("--out", path)?;
        Ok(Folder {
            path: path.to_owned(),
        })
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

    fn write_results(&self, results: &Results) -> Result<(), Failure> {
        let rows = table(&results.points, &results.ranking, &results.fields);
        for name in TABLES {
            rows.write(&self.path(name)).map_err(failed)?;
        }
        for name in PICTURES {
            results.chart.write(&self.path(name)).map_err(failed)?;
        }
        self.write("report.json", &results.report.json())
    }

    /// The last line: where everything is.
    fn summary(&self, more: &[&str]) -> String {
        let names: Vec<&str> = PICTURES
            .iter()
            .chain(more)
            .chain(&TABLES)
            .copied()
            .collect();
        format!(
            "\nWritten to {}: {}, report.json\n",
            self.path.display(),
            names.join(", ")
        )
    }
}

const CURVES: [&str; 2] = ["curves.png", "curves.svg"];
const PICTURES: [&str; 2] = ["frontier.png", "frontier.svg"];
const TABLES: [&str; 2] = ["sweep.csv", "sweep.parquet"];

fn failed(error: reports::Error) -> Failure {
    Failure::run(error.to_string())
}
