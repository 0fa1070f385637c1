//! The JSON report of a sweep, under names that do not change.

use crate::criteria::Criteria;
use crate::digest::Digest;
use crate::explain::explain;
use crate::find::{Answer, Found};
use crate::frontier::{Ranking, Standing};
use crate::metric::{Direction, Objective};
use crate::replicates::{Estimate, Replicated};
use crate::row::Row;
use crate::space::Override;
use crate::sweep::{Finished, Outcome, Run};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// Grows when a field of the report is renamed, removed or redefined.
pub const SCHEMA_VERSION: u32 = 1;

/// The report of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Always `sweep`.
    pub kind: &'static str,
    /// Version of the program.
    pub dynosim_version: String,
    /// The scenario: its file or its name.
    pub scenario: String,
    /// The traffic: its file or its generator.
    pub workload: String,
    /// The constraints in words.
    pub rule: String,
    /// Abscissa of the frontier.
    pub x: Axis,
    /// Ordinate of the frontier.
    pub y: Axis,
    /// How many points stand where, by the names in `standing`.
    pub standings: BTreeMap<&'static str, usize>,
    /// Index of the best feasible point.
    pub winner: Option<usize>,
    /// Points within 1 % of the winner in both metrics.
    pub twins: Vec<usize>,
    /// Index of the best point that is neither.
    pub runner_up: Option<usize>,
    /// Indices of the points on the frontier, best `y` first.
    pub frontier: Vec<usize>,
    /// False when no point is feasible, so that the frontier is of all that were simulated.
    pub is_feasible: bool,
    /// Winner and runner-up in one paragraph.
    pub explanation: String,
    /// Where step times come from, source and basis, with the number of points.
    pub timing: BTreeMap<String, usize>,
    /// What results stand on that was not known, with the number of points.
    pub guesses: BTreeMap<String, usize>,
    /// What was searched and found; absent in a plain sweep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<SearchReport>,
    /// In the grid's order; of a search, in the order of its searches and rising values.
    pub points: Vec<PointReport>,
}

/// One search for the edge of what meets the constraints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchReport {
    /// The field that was searched.
    pub field: String,
    /// What else the points of this search set.
    #[serde(serialize_with = "as_object")]
    pub overrides: Vec<Override>,
    /// `found`, `passes_at_limit` or `fails_at_limit`.
    pub answer: &'static str,
    /// The edge, or the limit.
    pub value: f64,
    /// Index of the first of its points.
    pub first_point: usize,
    /// Index of the point at `value`.
    pub answer_point: usize,
    /// Pairs (passes, fails) of values in the wrong order: passing is not monotone, and the edge is one of several.
    pub inversions: Vec<(f64, f64)>,
}

impl SearchReport {
    /// The report of a search whose evaluated values are the points from `first_point` on.
    #[must_use]
    pub fn new<T>(
        field: &str,
        overrides: Vec<Override>,
        found: &Found<T>,
        first_point: usize,
    ) -> SearchReport {
        let (answer, value) = match found.answer {
            Answer::At(value) => ("found", value),
            Answer::PassesAtLimit(value) => ("passes_at_limit", value),
            Answer::FailsAtLimit(value) => ("fails_at_limit", value),
        };
        let place = found
            .curve
            .iter()
            .position(|(at, _)| *at == value)
            .expect("the answer was evaluated");
        SearchReport {
            field: field.to_owned(),
            overrides,
            answer,
            value,
            first_point,
            answer_point: first_point + place,
            inversions: found.inversions.clone(),
        }
    }
}

/// An axis of the frontier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Axis {
    /// Name of the metric.
    pub metric: String,
    /// `max` or `min`.
    pub direction: &'static str,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PointReport {
    /// Its index.
    pub point: usize,
    /// What it sets.
    #[serde(serialize_with = "as_object")]
    pub overrides: Vec<Override>,
    /// `frontier`, `behind`, or the kind of miss.
    pub standing: &'static str,
    /// Why it is infeasible.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The frontier point that is at least as good in both metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<usize>,
    /// Its metrics, means over replicates; absent when it was not simulated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Row>,
    /// Bounds of the 95 % interval by metric, with replicates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, (f64, f64)>,
    /// By replicate.
    pub runs: Vec<RunReport>,
}

/// One simulation of a point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// Seed of everything random.
    pub seed: u64,
    /// The requests it served: results with the same one can be compared.
    pub workload_digest: Digest,
    /// Its metrics; absent when the point has a single run, whose they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Row>,
}

/// What a report says besides its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// See [`SweepReport::dynosim_version`].
    pub dynosim_version: String,
    /// See [`SweepReport::scenario`].
    pub scenario: String,
    /// See [`SweepReport::workload`].
    pub workload: String,
}

impl SweepReport {
    /// The report of a ranked sweep.
    #[must_use]
    pub fn new(
        provenance: Provenance,
        points: &[Replicated],
        ranking: &Ranking,
        criteria: &Criteria,
    ) -> SweepReport {
        let means: Vec<Finished> = points.iter().map(|point| point.mean.clone()).collect();
        let (mut standings, mut guesses) = (BTreeMap::new(), BTreeMap::new());
        let mut timing = BTreeMap::new();
        for source in means.iter().filter_map(|point| point.outcome.timing()) {
            *timing.entry(source.to_owned()).or_default() += 1;
        }
        for standing in &ranking.standings {
            *standings.entry(standing.name()).or_default() += 1;
        }
        for guess in means.iter().flat_map(|point| point.outcome.guesses()) {
            *guesses.entry(guess.clone()).or_default() += 1;
        }
        SweepReport {
            schema_version: SCHEMA_VERSION,
            kind: "sweep",
            dynosim_version: provenance.dynosim_version,
            scenario: provenance.scenario,
            workload: provenance.workload,
            rule: criteria.rule(),
            x: Axis::new(&criteria.x),
            y: Axis::new(&criteria.y),
            standings,
            winner: ranking.winner(),
            twins: ranking.twins.clone(),
            runner_up: ranking.runner_up,
            frontier: ranking.frontier.clone(),
            is_feasible: ranking.is_feasible,
            explanation: explain(&means, ranking, criteria),
            timing,
            guesses,
            searches: Vec::new(),
            points: points
                .iter()
                .zip(&ranking.standings)
                .map(|(point, at)| PointReport::new(point, at))
                .collect(),
        }
    }

    /// The report as indented JSON with a final line feed.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data") + "\n"
    }
}

impl Axis {
    fn new(objective: &Objective) -> Axis {
        let direction = match objective.direction {
            Direction::Max => "max",
            Direction::Min => "min",
        };
        Axis {
            metric: objective.metric.clone(),
            direction,
        }
    }
}

impl PointReport {
    fn new(point: &Replicated, standing: &Standing) -> PointReport {
        let Replicated {
            mean,
            outcomes,
            estimates,
        } = point;
        let interval = |(name, estimate): &(_, Estimate)| {
            Some((ToString::to_string(name), estimate.interval()?))
        };
        let is_single = outcomes.len() == 1;
        let run = |run: &Run| RunReport {
            seed: run.seed,
            workload_digest: run.workload,
            metrics: Some(run.row.clone()).filter(|_| !is_single),
        };
        PointReport {
            point: mean.point.index,
            overrides: mean.point.overrides.clone(),
            standing: standing.name(),
            reason: standing.reason(),
            behind: match standing {
                Standing::Behind(point) => Some(*point),
                Standing::Frontier | Standing::Infeasible(_) => None,
            },
            metrics: mean.outcome.row().cloned(),
            intervals: estimates.iter().filter_map(interval).collect(),
            runs: outcomes.iter().filter_map(Outcome::run).map(run).collect(),
        }
    }
}

fn as_object<S: Serializer>(overrides: &[Override], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(overrides.iter().map(|set| (&set.field, &set.value)))
}
