//! A sweep as pictures: the frontier, and the curve of a search.

use crate::criteria::Criteria;
use crate::find::{Answer, Found};
use crate::frontier::{Ranking, Standing};
use crate::metric::{label, short, value_text};
use crate::replicates::Replicated;
use crate::rows::TOKENS_PER_S_PER_USER;
use crate::space::brief_parts;
use reports::plot::{Axis, Chart, Curves, Frontier, FrontierPoint, Scale};

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
        let is_feasible = !matches!(ranking.standings[index], Standing::Infeasible(_));
        dots.push(FrontierPoint {
            x,
            y,
            label: brief_parts(&point.mean.point.overrides).join("\n"),
            is_feasible,
        });
    }
    let (x_label, y_label) = (label(&criteria.x.metric), label(&criteria.y.metric));
    Frontier {
        title: title(points, ranking, criteria),
        subtitle: captions.subtitle,
        footer: captions.footer,
        points: dots,
        frontier: ranking
            .frontier
            .iter()
            .filter_map(|&index| place[index])
            .collect(),
        winner: ranking.winner().and_then(|index| place[index]),
        runner_up: ranking.runner_up.and_then(|index| place[index]),
        sla: sla_line(criteria),
        x_label,
        y_label,
    }
    .chart()
}

/// The message of the picture: what the winner gives.
fn title(points: &[Replicated], ranking: &Ranking, criteria: &Criteria) -> String {
    let row = ranking
        .winner()
        .and_then(|winner| points[winner].mean.outcome.row());
    let value = |metric: &str| {
        let value = value_text(metric, row?.number(metric)?);
        Some(format!("{value} {}", label(metric)))
    };
    match value(&criteria.y.metric).zip(value(&criteria.x.metric)) {
        Some((y, x)) if criteria.has_sla() => format!("{y} at {x} within the SLA"),
        Some((y, x)) => format!("{y} at {x}"),
        None => match points.len() {
            1 => "The configuration does not meet all constraints".to_owned(),
            more => format!("None of {more} configurations meets all constraints"),
        },
    }
}

/// The bound on TPOT as a least speed for each user, where that is the abscissa.
fn sla_line(criteria: &Criteria) -> Option<(f64, String)> {
    let limit = criteria
        .sla
        .itl_ms
        .filter(|_| criteria.x.metric == TOKENS_PER_S_PER_USER)?;
    Some((1000.0 / limit, format!("SLA: TPOT ≤ {} ms", short(limit))))
}

/// What the curves of searches show.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchAxes<'a> {
    /// What was searched, with unit: `workers of pool agg`.
    pub value: &'a str,
    /// Metric of the ordinate; shares are drawn in per cent.
    pub metric: &'a str,
    /// The bound on it and its words, if it has one.
    pub limit: Option<(f64, String)>,
}

/// All evaluated values of one or more searches, each with its name. Shares are in per cent from 0 to 100; overload spans
/// decades of anything else, so that the ordinate is logarithmic.
#[must_use]
pub fn search(
    searches: &[(String, &Found<Replicated>)],
    axes: &SearchAxes<'_>,
    captions: Captions,
) -> Chart {
    let is_share = axes.metric.ends_with("share");
    let unit = if is_share { 100.0 } else { 1.0 };
    let curve = |found: &Found<Replicated>| -> Vec<(f64, f64)> {
        let value = |point: &Replicated| {
            point
                .mean
                .outcome
                .row()
                .and_then(|row| row.number(axes.metric))
                .map(|value| value * unit)
        };
        found
            .curve
            .iter()
            .filter_map(|(at, evaluation)| Some((*at, value(&evaluation.result)?)))
            .collect()
    };
    let lines: Vec<(String, Vec<(f64, f64)>)> = searches
        .iter()
        .map(|(name, found)| (name.clone(), curve(found)))
        .collect();
    let (title, answer) = match searches {
        [(_, found)] => {
            let title = answer_in_words(found.answer, axes.value);
            let edge = lines[0]
                .1
                .iter()
                .find(|(at, _)| found.answer == Answer::At(*at));
            (title, edge.map(|edge| (*edge, short(edge.0))))
        }
        _ => (format!("{} over {}", label(axes.metric), axes.value), None),
    };
    Curves {
        title,
        subtitle: captions.subtitle,
        footer: captions.footer,
        x: Axis {
            label: axes.value.to_owned(),
            ..Axis::default()
        },
        y: if is_share {
            Axis {
                label: format!("{} (%)", label(axes.metric)),
                from: Some(0.0),
                to: Some(100.0),
                ..Axis::default()
            }
        } else {
            Axis {
                label: label(axes.metric),
                scale: Scale::Log,
                ..Axis::default()
            }
        },
        lines,
        limit: axes
            .limit
            .clone()
            .map(|(limit, words)| (limit * unit, words)),
        answer,
    }
    .chart()
}

/// `12 workers of pool agg meet all constraints`.
#[must_use]
pub fn answer_in_words(answer: Answer, value: &str) -> String {
    match answer {
        Answer::At(edge) => format!(
            "{} {value}: the edge of what meets all constraints",
            short(edge)
        ),
        Answer::PassesAtLimit(limit) => format!(
            "{} {value}, the limit of the search, still meets all constraints",
            short(limit)
        ),
        Answer::FailsAtLimit(limit) => format!(
            "{} {value}, the limit of the search, does not meet all constraints",
            short(limit)
        ),
    }
}
