//! A sweep as a table: a line per point in the grid's order.
//!
//! Columns: the point's index, the fields that vary, where the point stands and why, then all metrics under their names;
//! with replicates the metrics are means, and each is followed by the half width of its 95 % interval.

use crate::frontier::{Ranking, Standing};
use crate::replicates::Replicated;
use crate::row::{Name, Value};
use reports::{Cell, Table};
use std::collections::BTreeSet;

/// The table of a sweep whose points set `fields`.
///
/// # Panics
/// When the ranking is of other points.
#[must_use]
pub fn table(points: &[Replicated], ranking: &Ranking, fields: &[&str]) -> Table {
    assert!(
        points.len() == ranking.standings.len(),
        "the ranking is of these points"
    );
    let metrics = metric_columns(points);
    let has_intervals = points.iter().any(|point| point.outcomes.len() > 1);
    let mut columns = vec!["point".to_owned()];
    columns.extend(fields.iter().map(|field| (*field).to_owned()));
    columns.extend(["standing", "reason", "behind"].map(str::to_owned));
    for metric in &metrics {
        columns.push(metric.to_string());
        if has_intervals {
            columns.push(format!("{metric}.ci95_half_width"));
        }
    }
    let mut table = Table::new(columns);
    for (point, standing) in points.iter().zip(&ranking.standings) {
        let mut cells = vec![Cell::Count(point.mean.point.index as u64)];
        cells.extend(fields.iter().map(|field| field_cell(point, field)));
        cells.push(standing.name().into());
        cells.push(
            Some(standing.reason())
                .filter(|reason| !reason.is_empty())
                .into(),
        );
        cells.push(behind(standing).into());
        for metric in &metrics {
            cells.push(metric_cell(point, metric));
            if has_intervals {
                cells.push(half_width(point, metric).into());
            }
        }
        table.push(cells);
    }
    table
}

/// Names of all metrics that any point has, in order of appearance.
fn metric_columns(points: &[Replicated]) -> Vec<Name> {
    let mut seen = BTreeSet::new();
    let names = points
        .iter()
        .filter_map(|point| point.mean.outcome.row())
        .flat_map(|row| row.cells());
    names
        .filter(|(name, _)| seen.insert(name.clone()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// A field's value as a number if it is one; empty where the point does not set it.
fn field_cell(point: &Replicated, field: &str) -> Cell {
    let Some(set) = point
        .mean
        .point
        .overrides
        .iter()
        .find(|set| set.field == field)
    else {
        return Cell::Empty;
    };
    let whole = set.value.parse::<u64>().map(Cell::Count);
    let number = || set.value.parse::<f64>().map(Cell::Number);
    whole
        .or_else(|_| number())
        .unwrap_or_else(|_| Cell::Text(set.value.clone()))
}

fn behind(standing: &Standing) -> Option<u64> {
    match standing {
        Standing::Behind(point) => Some(*point as u64),
        Standing::Frontier | Standing::Infeasible(_) => None,
    }
}

fn metric_cell(point: &Replicated, metric: &str) -> Cell {
    match point
        .mean
        .outcome
        .row()
        .map_or(Value::Missing, |row| row.get(metric))
    {
        Value::Count(count) => Cell::Count(count),
        Value::Real(real) => Cell::Number(real),
        Value::Missing => Cell::Empty,
    }
}

fn half_width(point: &Replicated, metric: &str) -> Option<f64> {
    point
        .estimates
        .iter()
        .find(|(name, _)| name == metric)?
        .1
        .half_width
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criteria::tests::{criteria, outcome};
    use crate::frontier::Scores;
    use crate::replicates::join;
    use crate::space::Space;
    use crate::sweep::{Finished, Outcome};

    #[test]
    fn points_stand_in_grid_order_with_fields_standing_and_metrics() {
        let mut space = Space::default();
        space.vary("workers=1,2,4").unwrap();
        space.vary("router=kv").unwrap();
        space.vary("seed=0,1").unwrap();
        let outcomes = [
            Outcome::Impossible("does not fit, \"really\"".to_owned()),
            outcome(Some(Scores { x: 1.0, y: 2.0 }), 1.0),
            outcome(Some(Scores { x: 1.0, y: 2.0 }), 1.0),
            outcome(Some(Scores { x: 2.0, y: 2.0 }), 1.0),
            outcome(Some(Scores { x: 1.0, y: 0.5 }), 1.0),
            outcome(Some(Scores { x: 1.0, y: 0.5 }), 1.0),
        ];
        let points = space.points().zip(outcomes);
        let finished = points.map(|(point, outcome)| Finished {
            point,
            outcome,
            is_resumed: false,
        });
        let points = join(finished.collect(), 2, "seed");
        let ranking = Ranking::new(
            points.iter().map(|point| &point.mean.outcome),
            &criteria(0.9),
        );
        let mut csv = Vec::new();
        table(&points, &ranking, &["workers", "router"])
            .csv(&mut csv)
            .unwrap();
        let csv = String::from_utf8(csv).unwrap();
        // Half width of 1 and 2: mean 1.5, error 0.5, t(1) = 12.7062.
        let starts = [
            "point,workers,router,standing,reason,behind,throughput.output_tokens_per_s_per_user,\
             throughput.output_tokens_per_s_per_user.ci95_half_width,",
            "0,1,kv,impossible,\"impossible: does not fit, \"\"really\"\"\",,,,",
            "1,2,kv,frontier,,,1.5,6.353",
            "2,4,kv,behind,,1,1,0,0.5,0,",
        ];
        assert_eq!(csv.lines().count(), 4);
        for (line, start) in csv.lines().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }
}
