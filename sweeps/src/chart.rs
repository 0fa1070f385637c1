//! A sweep as pictures: the frontier, and the curve of a search.

use crate::criteria::Criteria;
use crate::find::{Answer, Found};
use crate::frontier::Ranking;
use crate::metric::{label, short};
use crate::replicates::Replicated;
use crate::rows::TOKENS_PER_S_PER_USER;
use crate::space::Override;
use crate::sweep::Outcome;
use reports::plot::{Axis, Chart, Curves, Frontier, FrontierPoint};

/// Words of a picture that the caller knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captions {
    /// What was run.
    pub subtitle: String,
    /// Where the numbers come from.
    pub footer: String,
}

/// The frontier of a sweep. Points that were not simulated have no place in it.
#[must_use]
pub fn frontier(
    points: &[Replicated],
    ranking: &Ranking,
    criteria: &Criteria,
    captions: Captions,
) -> Chart {
    let mut dots = Vec::new();
    let mut place = vec![None; points.len()];
    for (index, point) in points.iter().enumerate() {
        let Some(row) = point.mean.outcome.row() else {
            continue;
        };
        let value = |metric: &str| row.number(metric);
        let (Some(x), Some(y)) = (value(&criteria.x.metric), value(&criteria.y.metric)) else {
            continue;
        };
        place[index] = Some(dots.len());
        let is_feasible = !matches!(
            ranking.standings[index],
            crate::frontier::Standing::Infeasible(_)
        );
        dots.push(FrontierPoint {
            x,
            y,
            label: lines(&point.mean.point.overrides),
            is_feasible,
        });
    }
    let (x_label, y_label) = (label(&criteria.x.metric), label(&criteria.y.metric));
    Frontier {
        title: title(points, ranking, &y_label),
        subtitle: captions.subtitle,
        footer: captions.footer,
        points: dots,
        frontier: ranking
            .frontier
            .iter()
            .filter_map(|&index| place[index])
            .collect(),
        winner: ranking.winner().and_then(|index| place[index]),
        runner_up: ranking.runner_up().and_then(|index| place[index]),
        sla: sla_line(criteria),
        x_label,
        y_label,
    }
    .chart()
}

/// The message of the picture: what the winner gives.
fn title(points: &[Replicated], ranking: &Ranking, y_label: &str) -> String {
    let Some(winner) = ranking.winner() else {
        return format!(
            "None of {} configurations meets all constraints",
            points.len()
        );
    };
    let overrides = &points[winner].mean.point.overrides;
    let name = if overrides.is_empty() {
        "The scenario".to_owned()
    } else {
        one_line(overrides)
    };
    format!("{name} gives the most {y_label}")
}

/// The bound on TPOT as a least speed for each user, where that is the abscissa.
fn sla_line(criteria: &Criteria) -> Option<(f64, String)> {
    let limit = criteria
        .sla
        .itl_ms
        .filter(|_| criteria.x.metric == TOKENS_PER_S_PER_USER)?;
    Some((1000.0 / limit, format!("SLA: TPOT ≤ {} ms", short(limit))))
}

fn one_line(overrides: &[Override]) -> String {
    overrides
        .iter()
        .map(Override::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn lines(overrides: &[Override]) -> String {
    overrides
        .iter()
        .map(Override::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What the curve of a search shows.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchAxes<'a> {
    /// What was searched, with unit: `workers`, `requests/s`.
    pub value: &'a str,
    /// Metric of the ordinate.
    pub metric: &'a str,
    /// The bound on it and its words, if it has one.
    pub limit: Option<(f64, String)>,
}

/// All evaluated values of a search.
#[must_use]
pub fn search(found: &Found<Outcome>, axes: &SearchAxes<'_>, captions: Captions) -> Chart {
    let value = |outcome: &Outcome| outcome.row().and_then(|row| row.number(axes.metric));
    let point = |(at, evaluation): &(f64, crate::find::Evaluation<Outcome>)| {
        Some((*at, value(&evaluation.result)?))
    };
    let line: Vec<(f64, f64)> = found.curve.iter().filter_map(point).collect();
    let (title, answer) = match found.answer {
        Answer::At(edge) => {
            let words = format!("{} {}", short(edge), axes.value);
            let place = line.iter().find(|(at, _)| *at == edge).copied();
            (
                format!("{words} meet all constraints"),
                place.map(|place| (place, words)),
            )
        }
        Answer::PassesAtLimit(limit) => (
            format!("Even {} {} meet all constraints", short(limit), axes.value),
            None,
        ),
        Answer::FailsAtLimit(limit) => (
            format!(
                "Not even {} {} meet all constraints",
                short(limit),
                axes.value
            ),
            None,
        ),
    };
    Curves {
        title,
        subtitle: captions.subtitle,
        footer: captions.footer,
        x: Axis {
            label: axes.value.to_owned(),
            ..Axis::default()
        },
        y: Axis {
            label: label(axes.metric),
            ..Axis::default()
        },
        lines: vec![(String::new(), line)],
        limit: axes.limit.clone(),
        answer,
    }
    .chart()
}
