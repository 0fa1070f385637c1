//! `--find`: at every point of the grid, the fewest workers or the highest rate that meets all constraints.
//!
//! All values evaluated on the way become the points of the result, so that tables, pictures and the frontier are those
//! of a sweep; on top come the answers, the curves, and a warning where passing is not monotone.

use super::bench::Bench;
use super::plan::{GPUS, Goal, Plan, SEED};
use super::progress::{Bar, note};
use super::{Folder, Results, SweepArgs, captions, failed, text};
use crate::cli::{FAILED, Failure, print};
use std::ops::ControlFlow;
use std::process::ExitCode;
use sweeps::chart::{self, SearchAxes, answer_in_words};
use sweeps::find::{Evaluation, Found, Search};
use sweeps::frontier::Ranking;
use sweeps::journal::{Journal, JournalError};
use sweeps::metric::{percent, short};
use sweeps::replicates::{Replicated, join};
use sweeps::report::SearchReport;
use sweeps::rows::SLA_SHARE;
use sweeps::run::{self, Progress};
use sweeps::space::{Override, Point, brief};
use sweeps::sweep::{Outcome, sweep};

/// Most workers that are tried.
const MAX_WORKERS: u32 = 1024;
/// Relative width to which the highest rate is known.
const RATE_TOLERANCE: f64 = 0.02;
/// The field that `max-rate` searches.
pub const RATE: &str = "workload.load.arrival_speedup_ratio";
/// More curves than this cannot be told apart; tables have them all.
const MOST_CURVES: usize = 6;
const CURVES: [&str; 2] = ["search.png", "search.svg"];

/// The field that is searched.
pub struct Target {
    field: String,
    /// What its values count: `workers of pool agg`.
    unit: String,
    search: Search,
    is_whole: bool,
}

/// A finished search.
pub struct Searched {
    /// The point of the grid.
    pub overrides: Vec<Override>,
    /// Its answer and curve.
    pub found: Found<Replicated>,
}

/// Searches at every point and reports.
pub fn run(
    args: &SweepArgs,
    bench: &Bench,
    folder: &Folder,
    journal: &Journal<Outcome>,
    target: &Target,
) -> Result<ExitCode, Failure> {
    let plan = bench.plan;
    let searched = search_all(args, bench, journal, target)?;
    let mut fields = plan.space.fields();
    fields.push(&target.field);
    let mut results = Results::new(bench, flattened(&searched), fields);
    let mut first = 0;
    for Searched { overrides, found } in &searched {
        results.report.searches.push(SearchReport::new(
            &target.field,
            overrides.clone(),
            found,
            first,
        ));
        first += found.curve.len();
    }
    folder.write_results(&results)?;
    let shown = best(&searched, &results.ranking.ranked);
    let lines: Vec<(String, &Found<Replicated>)> = shown
        .iter()
        .map(|one| (name(one, &searched), &one.found))
        .collect();
    let (metric, limit) = ordinate(plan);
    let axes = SearchAxes {
        value: &target.unit,
        metric: &metric,
        limit,
    };
    let mut captions = captions(bench, &results.points);
    if shown.len() < searched.len() {
        captions.subtitle += &format!(" · the {} best of {} searches", shown.len(), searched.len());
    }
    let mut curves = chart::search(&lines, &axes, captions);
    let order = answer_order(&results.report.searches, &results.ranking);
    let answers: Vec<String> = order
        .iter()
        .map(|&index| {
            let at = results.report.searches[index].answer_point;
            let why = results.ranking.standings[at].reason();
            answer(&searched[index], &searched, target, &why)
        })
        .collect();
    if let [only] = searched.as_slice() {
        curves.title = answer(only, &searched, target, "");
    }
    for file in CURVES {
        curves.write(&folder.path(file)).map_err(failed)?;
    }
    for one in &searched {
        warn_of_inversions(one, target);
    }
    print(&if args.json {
        results.report.json()
    } else {
        text::search(&results, &order, &answers, &curves) + &folder.summary(&CURVES)
    })?;
    let is_found = |one: &Searched| text::answer_value(&one.found).is_some();
    Ok(if searched.iter().any(is_found) {
        results.exit_code()
    } else {
        ExitCode::from(FAILED)
    })
}

impl Target {
    /// What `--find` asks for, if it is given.
    ///
    /// # Errors
    /// Nothing to meet, no such pool, or the field is among those that vary.
    pub fn new(plan: &Plan, args: &SweepArgs) -> Result<Option<Target>, Failure> {
        let Some(goal) = &args.find else {
            return Ok(None);
        };
        let wrong = |text: String| Failure::input([format!("--find: {text}")]);
        if !plan.criteria.has_sla() && args.require.is_empty() {
            let hint = "set `sla.ttft_ms`, `sla.itl_ms` or --require a bound on a metric";
            return Err(wrong(format!(
                "found nothing to meet, expected an SLA: {hint}"
            )));
        }
        let target = match goal {
            Goal::MinWorkers(pool) => min_workers(plan, pool.as_deref()).map_err(wrong)?,
            Goal::MaxRate => max_rate(plan).map_err(wrong)?,
        };
        let fields = plan.space.fields();
        let is_workers = matches!(goal, Goal::MinWorkers(_));
        if let Some(field) = fields
            .iter()
            .find(|field| **field == target.field || (is_workers && **field == GPUS))
        {
            return Err(wrong(format!(
                "found `{field}` among what varies, expected it to be left to the search"
            )));
        }
        Ok(Some(target))
    }
}

fn min_workers(plan: &Plan, name: Option<&str>) -> Result<Target, String> {
    let names = || {
        plan.first
            .pools
            .iter()
            .map(|pool| pool.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let pool = match (name, plan.first.pools.as_slice()) {
        (None, [only]) => only,
        (None, _) => {
            return Err(format!(
                "found several pools, expected `min-workers:POOL` with one of {}",
                names()
            ));
        }
        (Some(name), pools) => {
            let unknown = || format!("found pool `{name}`, expected one of {}", names());
            pools
                .iter()
                .find(|pool| pool.name == name)
                .ok_or_else(unknown)?
        }
    };
    Ok(Target {
        field: format!("pools.{}.workers", pool.name),
        unit: format!("workers of pool {}", pool.name),
        search: Search::min_workers(pool.workers.min(MAX_WORKERS), MAX_WORKERS),
        is_whole: true,
    })
}

fn max_rate(plan: &Plan) -> Result<Target, String> {
    let load = &plan.first.workload.load;
    if let Some(concurrency) = load.concurrency {
        return Err(format!(
            "found a closed loop of {concurrency} sessions, expected a workload with arrival times"
        ));
    }
    Ok(Target {
        field: RATE.to_owned(),
        unit: "times the arrivals of the workload".to_owned(),
        search: Search::max_rate(load.arrival_speedup_ratio, RATE_TOLERANCE),
        is_whole: false,
    })
}

/// One search per point of the grid: several run beside each other, a single one has its replicates run so.
fn search_all(
    args: &SweepArgs,
    bench: &Bench,
    journal: &Journal<Outcome>,
    target: &Target,
) -> Result<Vec<Searched>, Failure> {
    let points: Vec<Point> = bench.plan.space.points().collect();
    let threads = if points.len() == 1 { args.threads } else { 1 };
    let bar = Bar::new(points.len(), "searches");
    let search = |index: usize| -> Result<Found<Replicated>, JournalError> {
        target.search.run(|value| {
            let evaluation = evaluate(bench, journal, &points[index], target, value, threads);
            bar.count();
            evaluation
        })
    };
    let mut done = 0;
    let found = run::run(points.len(), args.threads, search, |_, result, elapsed| {
        done += 1;
        bar.show(Progress {
            done,
            total: points.len(),
            resumed: 0,
            elapsed,
        });
        if matches!(result, Ok(Err(_))) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    bar.finish();
    let found = found.into_iter().flatten().map(|result| match result {
        Ok(found) => found.map_err(|error| Failure::run(error.to_string())),
        Err(panicked) => Err(Failure::run(format!("internal error: {}", panicked.0))),
    });
    let found: Vec<Found<Replicated>> = found.collect::<Result<_, _>>()?;
    Ok(points
        .into_iter()
        .zip(found)
        .map(|(point, found)| Searched {
            overrides: point.overrides,
            found,
        })
        .collect())
}

/// One value: all its replicates, judged by their means.
fn evaluate(
    bench: &Bench,
    journal: &Journal<Outcome>,
    point: &Point,
    target: &Target,
    value: f64,
    threads: usize,
) -> Result<Evaluation<Replicated>, JournalError> {
    let plan = bench.plan;
    let text = if target.is_whole {
        format!("{value:.0}")
    } else {
        value.to_string()
    };
    let mut overrides = point.overrides.clone();
    overrides.push(Override {
        field: target.field.clone(),
        value: text,
    });
    let seeds = sweeps::replicates::seeds(plan.first.seed, plan.replicates);
    let task = |(index, seed): (usize, &u64)| {
        let mut overrides = overrides.clone();
        if plan.replicates > 1 {
            overrides.push(Override {
                field: SEED.to_owned(),
                value: seed.to_string(),
            });
        }
        Point { index, overrides }
    };
    let tasks = seeds.iter().enumerate().map(task).collect();
    let prepare = |point: &_| bench.prepare(point);
    let finished = sweep(
        tasks,
        threads,
        Some(journal),
        prepare,
        |ready| bench.simulate(ready),
        |_| {},
    )?;
    let result = join(finished, seeds.len(), SEED).remove(0);
    let passes = plan.criteria.judge(&result.mean.outcome).is_empty();
    Ok(Evaluation { passes, result })
}

/// All evaluated values as the points of one result.
fn flattened(searched: &[Searched]) -> Vec<Replicated> {
    let all = searched.iter().flat_map(|one| &one.found.curve);
    let point = |(index, (_, evaluation)): (usize, &(f64, Evaluation<Replicated>))| {
        let mut point = evaluation.result.clone();
        point.mean.point.index = index;
        point
    };
    all.enumerate().map(point).collect()
}

/// The searches that hold the best points, in their order: as many as can be told apart in a picture.
fn best<'a>(searched: &'a [Searched], ranked: &[usize]) -> Vec<&'a Searched> {
    let mut search_of_point = Vec::new();
    for (index, one) in searched.iter().enumerate() {
        search_of_point.resize(search_of_point.len() + one.found.curve.len(), index);
    }
    let mut best: Vec<usize> = Vec::new();
    let by_rank = ranked.iter().map(|&point| search_of_point[point]);
    for index in by_rank.chain(0..searched.len()) {
        if best.len() < MOST_CURVES && !best.contains(&index) {
            best.push(index);
        }
    }
    best.sort_unstable();
    best.into_iter().map(|index| &searched[index]).collect()
}

/// What tells a search from the others.
fn name(one: &Searched, all: &[Searched]) -> String {
    let is_everywhere = |set: &Override| all.iter().all(|other| other.overrides.contains(set));
    let own: Vec<Override> = one
        .overrides
        .iter()
        .filter(|set| !is_everywhere(set))
        .cloned()
        .collect();
    if own.is_empty() {
        String::new()
    } else {
        brief(&own)
    }
}

/// The metric that the curves show: the one that decides, the share of requests within the SLA; without an SLA the bound
/// that was given last.
fn ordinate(plan: &Plan) -> (String, Option<(f64, String)>) {
    let criteria = &plan.criteria;
    if criteria.has_sla() {
        let words = format!("asked: {} within the SLA", percent(criteria.attainment));
        return (SLA_SHARE.to_owned(), Some((criteria.attainment, words)));
    }
    let own = criteria
        .constraints
        .last()
        .expect("without an SLA there is a bound");
    (own.metric.clone(), Some((own.limit(), own.to_string())))
}

/// The searches from the best answer to the worst: feasible ones as the points are ranked, then the others in order.
fn answer_order(searches: &[SearchReport], ranking: &Ranking) -> Vec<usize> {
    let rank = |index: &usize| {
        let at = searches[*index].answer_point;
        let place = ranking.ranked.iter().position(|&point| point == at);
        place.unwrap_or(usize::MAX)
    };
    let mut order: Vec<usize> = (0..searches.len()).collect();
    order.sort_by_cached_key(rank);
    order
}

/// What a search found; `why` says what its answer misses.
fn answer(one: &Searched, all: &[Searched], target: &Target, why: &str) -> String {
    let words = answer_in_words(one.found.answer, &target.unit);
    let at = text::answer_value(&one.found).and_then(|point| point.mean.outcome.row());
    let rate = at
        .and_then(|row| row.number("throughput.requests_per_s"))
        .filter(|_| !target.is_whole);
    let rate = rate.map_or(String::new(), |rate| {
        format!(" ({} requests/s completed)", short(rate))
    });
    let place = match name(one, all) {
        name if name.is_empty() => name,
        name => format!("{name}: "),
    };
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    format!("{place}{words}{rate}{why}")
}

fn warn_of_inversions(one: &Searched, target: &Target) {
    for (passes, fails) in &one.found.inversions {
        note(&format!(
            "warning: {}: {} {unit} meet all constraints and {} do not: more than one edge, the one that was found is \
             not the only one",
            brief(&one.overrides),
            short(*passes),
            short(*fails),
            unit = target.unit,
        ));
    }
}
