//! What is to be run, read from the command line and the scenario's `sweep:` section; every problem at once.

use super::SweepArgs;
use super::section::{self, Section};
use crate::cli::Failure;
use std::path::PathBuf;
use std::str::FromStr;
use sweeps::constraint::Constraint;
use sweeps::criteria::Criteria;
use sweeps::metric::Objective;
use sweeps::replicates;
use sweeps::space::Space;

/// The scenario field that replicates vary.
pub const SEED: &str = "seed";
/// More replicates than this are a typing error.
const MAX_REPLICATES: u32 = 10_000;
const QUICK_START: &str = include_str!("quickstart.yaml");

/// A sweep, checked as far as it can be without running anything.
pub struct Plan {
    /// The scenario's file; none for the embedded one.
    pub path: Option<PathBuf>,
    /// Its name in reports.
    pub name: String,
    /// Its text without the `sweep:` section's meaning.
    pub text: String,
    /// Overrides for all points.
    pub set: Vec<(String, String)>,
    /// What varies.
    pub space: Space,
    /// The same times the seeds.
    pub replicated: Space,
    /// Number of seeds.
    pub replicates: u32,
    /// What is wanted.
    pub criteria: Criteria,
    /// What is searched at every point.
    pub goal: Option<Goal>,
}

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
            Some(("min-workers", pool)) if !pool.is_empty() => Ok(Goal::MinWorkers(Some(pool.to_owned()))),
            _ => Err(format!("found `{text}`, expected `min-workers`, `min-workers:POOL` or `max-rate`")),
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
        let mut problems = Vec::new();
        let section = section::read(&name, &text, &mut problems);
        let mut set = overrides(&args.set, &mut problems);
        if let Some(trace) = &args.trace {
            set.push(("workload.synth".to_owned(), "null".to_owned()));
            set.push(("workload.trace.path".to_owned(), trace.display().to_string()));
        }
        let space = space(args, &section, &mut problems);
        let criteria = criteria(args, &section, &mut problems);
        let replicates = args.replicates.or(section.replicates).unwrap_or(1);
        if !(1..=MAX_REPLICATES).contains(&replicates) {
            problems.push(format!("--replicates: found {replicates}, expected 1 to {MAX_REPLICATES}"));
        }
        let replicated = replicated(&space, replicates, &set, &mut problems);
        let points = replicated.problems(args.max_points, &|_| None);
        problems.extend(points.iter().map(ToString::to_string));
        if !problems.is_empty() {
            return Err(Failure::input(problems));
        }
        let goal = args.find.clone();
        Ok(Plan { path: args.scenario.clone(), name, text, set, space, replicated, replicates, criteria, goal })
    }
}

fn scenario_text(args: &SweepArgs) -> Result<(String, String), Failure> {
    let Some(path) = &args.scenario else { return Ok(("quick start".to_owned(), QUICK_START.to_owned())) };
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| Failure::input([format!("{name}: cannot be read: {error}")]))?;
    let not_text = |_| Failure::input([format!("{name}: found bytes that are not UTF-8, expected a YAML file")]);
    Ok((name.clone(), String::from_utf8(bytes).map_err(not_text)?))
}

fn overrides(texts: &[String], problems: &mut Vec<String>) -> Vec<(String, String)> {
    let mut set = Vec::new();
    for text in texts {
        match text.split_once('=') {
            Some((field, value)) => set.push((field.trim().to_owned(), value.to_owned())),
            None => problems.push(format!("--set: found `{text}`, expected `field=value`")),
        }
    }
    set
}

/// Axes of the command line come behind those of the scenario and replace an axis of the same field.
fn space(args: &SweepArgs, section: &Section, problems: &mut Vec<String>) -> Space {
    let mut given = Space::default();
    for text in &args.vary {
        if let Err(error) = given.vary(text) {
            problems.push(error.to_string());
        }
    }
    let replaced: Vec<String> = given.fields().into_iter().map(str::to_owned).collect();
    let mut space = section.space.without(&replaced);
    for text in &args.vary {
        // Reported above.
        let _ = space.vary(text);
    }
    space
}

fn criteria(args: &SweepArgs, section: &Section, problems: &mut Vec<String>) -> Criteria {
    // The SLA belongs to the scenario and is filled in when that is read.
    let mut criteria = Criteria::new(sim::Sla::default());
    let axes = [
        ("--x", args.x.as_ref().or(section.x.as_ref()), &mut criteria.x),
        ("--y", args.y.as_ref().or(section.y.as_ref()), &mut criteria.y),
    ];
    for (option, text, axis) in axes {
        match text.map(|text| Objective::parse(text)) {
            Some(Ok(objective)) => *axis = objective,
            Some(Err(error)) => problems.push(format!("{option}: {error}")),
            None => {}
        }
    }
    if let Some(attainment) = args.attainment.or(section.attainment) {
        if attainment > 0.0 && attainment <= 1.0 {
            criteria.attainment = attainment;
        } else {
            problems.push(format!("--attainment: found {attainment}, expected a share above 0 and at most 1"));
        }
    }
    for text in section.require.iter().chain(&args.require) {
        match Constraint::parse(text) {
            Ok(constraint) => {
                // A bound of the caller replaces a default on the same metric.
                criteria.constraints.retain(|other| other.metric != constraint.metric);
                criteria.constraints.push(constraint);
            }
            Err(error) => problems.push(format!("--require: {error}")),
        }
    }
    criteria
}

/// The space times the seeds, which vary fastest.
fn replicated(space: &Space, count: u32, set: &[(String, String)], problems: &mut Vec<String>) -> Space {
    let mut replicated = space.clone();
    if count < 2 {
        return replicated;
    }
    let given = set.iter().rev().find(|(field, _)| field == SEED).map_or("0", |(_, value)| value);
    let Ok(base) = given.trim().parse::<u64>() else {
        problems.push(format!("--set {SEED}: found `{given}`, expected a whole number"));
        return replicated;
    };
    let seeds = replicates::seeds(base, count).iter().map(u64::to_string).collect();
    replicated.axis("--replicates", SEED, seeds);
    replicated
}
