//! What is to be run, read from the command line and the scenario's `sweep:` section; every problem at once.

use super::SweepArgs;
use super::progress::note;
use super::search::RATE;
use crate::cli::Failure;
use crate::scenario::{self, Axes, Kind, Problem, Problems, Set};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use sweeps::constraint::Constraint;
use sweeps::criteria::Criteria;
use sweeps::curves;
use sweeps::metric::Objective;
use sweeps::replicates;
use sweeps::run::{Panicked, run};
use sweeps::scenario::Scenario;
use sweeps::space::{Override, Point, Space, SpaceError};
use sweeps::values;

/// The scenario field that replicates vary.
pub const SEED: &str = "seed";
/// Not a field of the scenario: GPUs of the whole deployment, spent on workers of its only pool.
pub const GPUS: &str = "gpus";
/// More replicates than this are a typing error.
const MAX_REPLICATES: u32 = 10_000;
const QUICK_START: &str = include_str!("quickstart.yaml");

/// A sweep, checked as far as it can be without running anything.
pub struct Plan {
    /// The scenario's file; none for the embedded one.
    pub path: Option<PathBuf>,
    /// Its name in reports.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Overrides for all points.
    pub set: Vec<Set>,
    /// What varies.
    pub space: Space,
    /// The same times the seeds.
    pub replicated: Space,
    /// Number of seeds.
    pub replicates: u32,
    /// What is wanted.
    pub criteria: Criteria,
    /// The first point that is a scenario.
    pub first: Scenario,
    /// Its place in the space.
    first_index: usize,
}

/// What is wrong with a point.
#[derive(Debug)]
pub struct Wrong(Vec<(Kind, String)>);

/// What `--find` searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Fewest workers of a pool; of the only one if it is not named.
    MinWorkers(Option<String>),
    /// Greatest speed-up of the arrivals.
    MaxRate,
}

impl FromStr for Goal {
    type Err = String;
    fn from_str(text: &str) -> Result<Goal, String> {
        match text.split_once(':') {
            None if text == "min-workers" => Ok(Goal::MinWorkers(None)),
            None if text == "max-rate" => Ok(Goal::MaxRate),
            Some(("min-workers", pool)) if !pool.is_empty() => {
                Ok(Goal::MinWorkers(Some(pool.to_owned())))
            }
            _ => Err(format!(
                "found `{text}`, expected `min-workers`, `min-workers:POOL` or `max-rate`"
            )),
        }
    }
}

impl Plan {
    /// Reads everything.
    ///
    /// # Errors
    /// All that is wrong with the input.
    pub fn new(args: &SweepArgs) -> Result<Plan, Failure> {
        let (name, text) = scenario_text(args)?;
        let path = args.scenario.as_deref();
        let set = args.fields.overrides()?;
        let mut problems = Vec::new();
        let space = space(args, path, &text, &mut problems);
        let mut criteria = criteria(args, &mut problems);
        let replicates = args.replicates.unwrap_or(1);
        if !(1..=MAX_REPLICATES).contains(&replicates) {
            problems.push(format!(
                "--replicates: found {replicates}, expected 1 to {MAX_REPLICATES}"
            ));
        }
        let judge = |field: &str| judge(path, &text, &set, field);
        problems.extend(
            space
                .problems(args.max_points, &judge)
                .iter()
                .map(ToString::to_string),
        );
        let fields = space.fields();
        if fields.contains(&GPUS)
            && let Some(workers) = fields
                .iter()
                .find(|field| field.starts_with("pools.") && field.ends_with(".workers"))
        {
            problems.push(format!("--vary {GPUS}: found `{workers}` beside it, expected one of the two: {GPUS} sets it"));
        }
        let base = Base {
            path,
            text: &text,
            set: &set,
        };
        let Some((first_index, first)) = first_scenario(&base, &space, &mut problems) else {
            return Err(Failure::input(problems));
        };
        criteria.sla = first.sla.unwrap_or_default();
        let mut replicated = space.clone();
        if replicates > 1 {
            let seeds = replicates::seeds(first.seed, replicates)
                .iter()
                .map(u64::to_string)
                .collect();
            replicated.axis("--replicates", SEED, seeds);
            problems.extend(
                replicated
                    .problems(args.max_points, &|_| None)
                    .iter()
                    .map(ToString::to_string),
            );
        }
        if let Some(field) = &args.over
            && let Err(problem) = curves::check(&space, field)
        {
            problems.push(format!("--over: {problem}"));
        }
        if !problems.is_empty() {
            return Err(Failure::input(problems));
        }
        let path = args.scenario.clone();
        Ok(Plan {
            path,
            name,
            text,
            set,
            space,
            replicated,
            replicates,
            criteria,
            first,
            first_index,
        })
    }

    /// The scenario of a point, or all that is wrong with it.
    pub fn scenario(&self, overrides: &[Override]) -> Result<Scenario, Wrong> {
        let base = Base {
            path: self.path.as_deref(),
            text: &self.text,
            set: &self.set,
        };
        base.scenario(&self.replicated, overrides)
    }

    /// A few scenarios in which every value of every axis of the workload occurs, as far as there can be such deployments.
    pub fn workloads(&self) -> impl Iterator<Item = Scenario> {
        let is_traffic = |set: &Override| set.field.starts_with("workload") || set.field == SEED;
        let mut seen = BTreeSet::new();
        let mut around = self.space.around(self.first_index);
        around.retain(|point| {
            let traffic = point.overrides.iter().filter(|set| is_traffic(set));
            seen.insert(traffic.cloned().collect::<Vec<_>>())
        });
        around
            .into_iter()
            .filter_map(|point| self.scenario(&point.overrides).ok())
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.0.iter().map(|(_, line)| line.as_str()).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl From<Problems> for Wrong {
    fn from(Problems(problems): Problems) -> Wrong {
        let line = |problem: &Problem| (problem.kind, problem.to_string());
        Wrong(problems.iter().map(line).collect())
    }
}

/// What all points share.
struct Base<'a> {
    path: Option<&'a Path>,
    text: &'a str,
    set: &'a [Set],
}

impl Base<'_> {
    /// The scenario of a point of a space.
    fn scenario(&self, space: &Space, overrides: &[Override]) -> Result<Scenario, Wrong> {
        let own = overrides.iter().filter(|set| set.field != GPUS);
        let own = own.map(|set| Set {
            place: space.place_of(&set.field).unwrap_or("--find").to_owned(),
            field: set.field.clone(),
            value: set.value.clone(),
        });
        let all: Vec<Set> = self.set.iter().cloned().chain(own).collect();
        let mut scenario = scenario::load(self.path, self.text, &all)?;
        if let Some(budget) = overrides.iter().find(|set| set.field == GPUS) {
            spend(&mut scenario, &budget.value).map_err(|wrong| Wrong(vec![wrong]))?;
        }
        Ok(scenario)
    }

    /// Values at these points that are wrong whatever stands beside them, each once; with them, conflicts that all of the
    /// points have. Empty where every value is some scenario's.
    fn mistakes(&self, space: &Space, points: &[Point]) -> Vec<String> {
        let judge = |index: usize| {
            let scenario = self.scenario(space, &points[index].overrides);
            scenario.map_or_else(|Wrong(wrong)| wrong, |_| Vec::new())
        };
        let judged = run(points.len(), 0, judge, |_, _, _| ControlFlow::Continue(()));
        let wrong: Vec<Vec<(Kind, String)>> = judged
            .into_iter()
            .flatten()
            .map(|judged| {
                judged.unwrap_or_else(|Panicked(why)| panic!("a scenario is read: {why}"))
            })
            .collect();
        let is_everywhere = |problem| wrong.iter().all(|own| own.contains(problem));
        let mut told: Vec<&(Kind, String)> = Vec::new();
        for problem in wrong.iter().flatten() {
            let counts = problem.0 == Kind::Mistake || is_everywhere(problem);
            if counts && !told.contains(&problem) {
                told.push(problem);
            }
        }
        if told.iter().all(|(kind, _)| *kind == Kind::Conflict) {
            told.clear();
        }
        told.into_iter().map(|(_, line)| line.clone()).collect()
    }
}

/// Gives the only pool as many workers as a number of GPUs makes.
fn spend(scenario: &mut Scenario, budget: &str) -> Result<(), (Kind, String)> {
    let mistake = |text: String| (Kind::Mistake, format!("{GPUS}: {text}"));
    let [pool] = scenario.pools.as_mut_slice() else {
        let count = scenario.pools.len();
        return Err(mistake(format!(
            "found {count} pools, expected one to spend GPUs on"
        )));
    };
    let each = pool.gpus_per_worker();
    match budget.trim().parse::<u32>() {
        Ok(budget) if budget >= each && budget.is_multiple_of(each) => {
            pool.workers = budget / each;
            Ok(())
        }
        Ok(budget) => Err((
            Kind::Conflict,
            format!("{budget} GPUs do not make whole workers of {each} GPUs each"),
        )),
        Err(_) => Err(mistake(format!(
            "found `{budget}`, expected a number of GPUs"
        ))),
    }
}

/// The first point that is a scenario, with its index. A value of an axis that can be no scenario's is a mistake and
/// reported; points whose values do not go together may be there, unless there are no others.
fn first_scenario(
    base: &Base<'_>,
    space: &Space,
    problems: &mut Vec<String>,
) -> Option<(usize, Scenario)> {
    let has_points = problems.is_empty() && !space.is_empty();
    if !has_points {
        // The fields that do not vary can still be judged.
        let alone = base.scenario(space, &[]);
        problems.extend(alone.err().map(|wrong| wrong.to_string()));
        return None;
    }
    problems.extend(base.mistakes(space, &space.around(0)));
    if !problems.is_empty() {
        return None;
    }
    let scenario = |point: Point| Some((point.index, base.scenario(space, &point.overrides).ok()?));
    let first = space.points().find_map(scenario);
    match &first {
        // Where the first point has conflicts, some values were not looked at.
        Some((index, _)) if *index > 0 => {
            problems.extend(base.mistakes(space, &space.around(*index)));
        }
        Some(_) => {}
        None => {
            let wrong = base.scenario(space, &space.point(0).overrides).err();
            problems.extend(wrong.map(|wrong| wrong.to_string()));
        }
    }
    first
}

fn scenario_text(args: &SweepArgs) -> Result<(String, String), Failure> {
    let Some(path) = &args.scenario else {
        return Ok(("quick start".to_owned(), QUICK_START.to_owned()));
    };
    let shown = path.display();
    let name = path.file_name().unwrap_or(path.as_os_str());
    let bytes =
        std::fs::read(path).map_err(|error| Failure::input([format!("{shown}: {error}")]))?;
    let not_text = |_| {
        Failure::input([format!(
            "{shown}: found bytes that are not UTF-8, expected YAML"
        )])
    };
    Ok((
        name.display().to_string(),
        String::from_utf8(bytes).map_err(not_text)?,
    ))
}

/// The factors of the scenario's `sweep:` section, then those of the command line; an axis given there replaces what
/// the scenario says of its field.
fn space(args: &SweepArgs, path: Option<&Path>, text: &str, problems: &mut Vec<String>) -> Space {
    let mut given = Space::default();
    for text in &args.vary {
        if let Err(error) = given.vary(text) {
            problems.push(error.to_string());
        }
    }
    let mut space = Space::default();
    match scenario::sweep(path, text) {
        Ok(axes) => {
            let fields = given.fields();
            let is_replaced = |axes: &Axes| sets(axes).iter().any(|field| fields.contains(field));
            for axes in axes.into_iter().filter(|axes| !is_replaced(axes)) {
                if sets(&axes).iter().all(|field| is_searched(args, field)) {
                    note(&format!(
                        "note: --find takes the place of the scenario's `{}`",
                        sets(&axes).join(", ")
                    ));
                    continue;
                }
                if let Err(error) = add(&mut space, axes) {
                    problems.push(error.to_string());
                }
            }
        }
        // What is wrong outside the section is reported with the scenario.
        Err(found) => problems.extend(found.0.iter().map(ToString::to_string)),
    }
    space.append(given);
    space
}

/// True if `--find` looks for the value of this field, so that the values of the scenario's grid do not count.
fn is_searched(args: &SweepArgs, field: &str) -> bool {
    match &args.find {
        None => false,
        Some(Goal::MaxRate) => field == RATE,
        Some(Goal::MinWorkers(pool)) => {
            let named = field
                .strip_prefix("pools.")
                .and_then(|rest| rest.strip_suffix(".workers"));
            let is_named = |named| pool.as_deref().is_none_or(|pool| pool == named);
            field == GPUS || named.is_some_and(is_named)
        }
    }
}

/// The fields that a factor sets.
fn sets(axes: &Axes) -> Vec<&str> {
    match axes {
        Axes::Text { field, .. } => vec![field],
        Axes::Zip { fields, .. } => fields.iter().map(|(field, _)| field.as_str()).collect(),
        Axes::List { entries, .. } => entries
            .iter()
            .flatten()
            .map(|(field, _)| field.as_str())
            .collect(),
    }
}

fn add(space: &mut Space, axes: Axes) -> Result<(), SpaceError> {
    match axes {
        Axes::Text {
            place,
            field,
            values,
        } => {
            let values = values::parse(&values).map_err(|error| SpaceError {
                place: place.clone(),
                kind: error.into(),
            })?;
            space.axis(&place, &field, values);
        }
        Axes::Zip { place, fields } => space.zip(&place, fields)?,
        Axes::List { place, entries } => {
            let entry = |entry: Vec<(String, String)>| {
                entry
                    .into_iter()
                    .map(|(field, value)| Override { field, value })
                    .collect()
            };
            space.list(&place, entries.into_iter().map(entry).collect());
        }
    }
    Ok(())
}

/// Why a field cannot vary, if it cannot.
fn judge(path: Option<&Path>, text: &str, set: &[Set], field: &str) -> Option<String> {
    match field {
        GPUS => None,
        _ if field == "sla" || field.starts_with("sla.") => {
            Some("the SLA is what points are judged by: it cannot vary within one sweep".to_owned())
        }
        _ => scenario::unknown_field(path, text, set, field),
    }
}

fn criteria(args: &SweepArgs, problems: &mut Vec<String>) -> Criteria {
    // The SLA belongs to the scenario and is filled in when that is read.
    let mut criteria = Criteria::new(sim::Sla::default());
    for (option, text, axis) in [
        ("--x", &args.x, &mut criteria.x),
        ("--y", &args.y, &mut criteria.y),
    ] {
        match text.as_deref().map(Objective::parse) {
            Some(Ok(objective)) => *axis = objective,
            Some(Err(error)) => problems.push(format!("{option}: {error}")),
            None => {}
        }
    }
    if args.attainment > 0.0 && args.attainment <= 1.0 {
        criteria.attainment = args.attainment;
    } else {
        problems.push(format!(
            "--attainment: found {}, expected a share above 0 and at most 1",
            args.attainment
        ));
    }
    let mut given: Vec<Constraint> = Vec::new();
    for text in &args.require {
        match Constraint::parse(text) {
            Ok(constraint) => given.push(constraint),
            Err(error) => problems.push(format!("--require: {error}")),
        }
    }
    // The user's bounds replace the defaults on the same metric.
    criteria
        .constraints
        .retain(|default| given.iter().all(|own| own.metric != default.metric));
    criteria.constraints.extend(given);
    criteria
}
