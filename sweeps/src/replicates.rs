//! The same point under several seeds: mean and confidence interval of every metric.
//!
//! Replicate r of a point uses the seed `base + r`, for all points alike, so that points meet the same random traffic.
//! Replicates are independent, so the mean of n values has Student's t distribution with n − 1 degrees of freedom around
//! the true mean, in units of s/√n.

use crate::row::{Name, Row, Value};
use crate::space::Point;
use crate::sweep::{Finished, Outcome, Run};
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::collections::BTreeSet;

/// Confidence of all intervals.
pub const LEVEL: f64 = 0.95;

/// Mean of a few independent values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Number of values, at least 1.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the confidence interval at [`LEVEL`]; `None` for a single value.
    pub half_width: Option<f64>,
}

impl Estimate {
    /// The estimate from values; `None` without any.
    #[must_use]
    pub fn new(values: &[f64]) -> Option<Estimate> {
        let (count, mean, error) = moments(values)?;
        let half_width = error.map(|error| error * t_quantile(count - 1));
        Some(Estimate {
            count,
            mean,
            half_width,
        })
    }

    /// The interval, if there is one.
    #[must_use]
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.half_width
            .map(|half| (self.mean - half, self.mean + half))
    }
}

/// The seeds of `count` replicates.
#[must_use]
pub fn seeds(base: u64, count: u32) -> Vec<u64> {
    (0..u64::from(count))
        .map(|replicate| base.wrapping_add(replicate))
        .collect()
}

/// An estimate for every metric that all rows have a value for, in the order of the first row.
#[must_use]
pub fn estimates(rows: &[&Row]) -> Vec<(Name, Estimate)> {
    let Some(first) = rows.first() else {
        return Vec::new();
    };
    let estimate = |(name, _): &(Name, Value)| {
        let values: Option<Vec<f64>> = rows.iter().map(|row| row.number(name)).collect();
        Some((name.clone(), Estimate::new(&values?)?))
    };
    first.cells().iter().filter_map(estimate).collect()
}

/// The row of means; a metric that some replicate lacks is missing, a count that is the same in all stays a count.
#[must_use]
pub fn mean_row(rows: &[&Row]) -> Row {
    let Some(first) = rows.first() else {
        return Row::default();
    };
    let mean = |(name, own): &(Name, Value)| {
        if rows.iter().all(|row| row.get(name) == *own) {
            return (name.clone(), *own);
        }
        let values: Option<Vec<f64>> = rows.iter().map(|row| row.number(name)).collect();
        let estimate = values.and_then(|values| Estimate::new(&values));
        (
            name.clone(),
            estimate.map_or(Value::Missing, |estimate| Value::from(estimate.mean)),
        )
    };
    Row::new(first.cells().iter().map(mean).collect())
}

/// A point under several seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicated {
    /// The point with the means of its replicates (and the seed and workload of the first), or with what kept one of
    /// them from finishing.
    pub mean: Finished,
    /// By replicate, in the order of the seeds.
    pub outcomes: Vec<Outcome>,
    /// Interval of every metric; empty unless all replicates were simulated.
    pub estimates: Vec<(Name, Estimate)>,
}

/// Joins every `count` consecutive results of a sweep whose fastest factor is the seed, the override of `seed_field`.
///
/// # Panics
/// When the number of results is no multiple of `count`.
#[must_use]
pub fn join(finished: Vec<Finished>, count: usize, seed_field: &str) -> Vec<Replicated> {
    assert!(
        finished.len().is_multiple_of(count),
        "every point has all its replicates"
    );
    let groups = finished.chunks(count).enumerate();
    groups
        .map(|(index, group)| join_one(index, group, seed_field))
        .collect()
}

fn join_one(index: usize, group: &[Finished], seed_field: &str) -> Replicated {
    let mut overrides = group[0].point.overrides.clone();
    overrides.retain(|set| set.field != seed_field);
    let rows: Vec<&Row> = group.iter().filter_map(|one| one.outcome.row()).collect();
    let is_whole = rows.len() == group.len();
    let broken = group
        .iter()
        .map(|one| &one.outcome)
        .find(|outcome| outcome.row().is_none());
    let outcome = broken.cloned().unwrap_or_else(|| {
        let guesses = group.iter().flat_map(|one| one.outcome.guesses()).cloned();
        let guesses: BTreeSet<String> = guesses.collect();
        let first = group[0]
            .outcome
            .run()
            .expect("all replicates were simulated");
        Outcome::Done(Run {
            row: mean_row(&rows),
            guesses: guesses.into_iter().collect(),
            ..first.clone()
        })
    });
    let is_resumed = group.iter().all(|one| one.is_resumed);
    Replicated {
        mean: Finished {
            point: Point { index, overrides },
            outcome,
            is_resumed,
        },
        outcomes: group.iter().map(|one| one.outcome.clone()).collect(),
        estimates: if is_whole {
            estimates(&rows)
        } else {
            Vec::new()
        },
    }
}

/// Number of values, mean, and its standard error if there are two or more.
pub(crate) fn moments(values: &[f64]) -> Option<(u64, f64, Option<f64>)> {
    let count = values.len() as f64;
    let first = *values.first()?;
    // Sums of differences to the first value: equal values give exactly that value and an error of exactly 0.
    let mean = first + values.iter().map(|value| value - first).sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt());
    Some((values.len() as u64, mean, error))
}

/// The number that |t| stays below with probability [`LEVEL`].
pub(crate) fn t_quantile(degrees: u64) -> f64 {
    student(degrees).inverse_cdf(0.5 + LEVEL / 2.0)
}

/// Probability of |t| at least as large by chance.
pub(crate) fn t_tail(t: f64, degrees: u64) -> f64 {
    if t.is_infinite() {
        0.0
    } else {
        2.0 * student(degrees).cdf(-t.abs())
    }
}

fn student(degrees: u64) -> StudentsT {
    StudentsT::new(0.0, 1.0, degrees as f64)
        .expect("the distribution exists from one degree of freedom on")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Space, describe};

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // NIST/SEMATECH e-Handbook, table 1.3.6.7.2, column 0.975.
        for (degrees, expected) in [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (9, 2.262),
            (29, 2.045),
            (100, 1.984),
        ] {
            assert!(
                (t_quantile(degrees) - expected).abs() < 6e-4,
                "{degrees}: {}",
                t_quantile(degrees)
            );
            assert!((t_tail(t_quantile(degrees), degrees) - 0.05).abs() < 1e-6);
        }
    }

    #[test]
    fn the_interval_of_a_known_sample() {
        // 9.8, 10.2, 10.4, 9.6, 10.0: mean 10, s² = 0.4/4 = 0.1, error √(0.1/5) = 0.141421, t(4) = 2.776445.
        let estimate = Estimate::new(&[9.8, 10.2, 10.4, 9.6, 10.0]).unwrap();
        assert!((estimate.mean - 10.0).abs() < 1e-12);
        assert!(
            (estimate.half_width.unwrap() - 0.392_649).abs() < 1e-5,
            "{estimate:?}"
        );
        assert_eq!(
            Estimate::new(&[3.0]).unwrap(),
            Estimate {
                count: 1,
                mean: 3.0,
                half_width: None
            }
        );
        assert_eq!(
            Estimate::new(&[0.1; 7]).unwrap().interval(),
            Some((0.1, 0.1))
        );
        assert_eq!(Estimate::new(&[]), None);
    }

    #[test]
    fn rows_are_averaged_metric_by_metric() {
        let row = |rate: f64, done: u64, share: Value| {
            Row::new(vec![
                ("rate".into(), Value::from(rate)),
                ("gpus".into(), Value::Count(8)),
                ("done".into(), Value::Count(done)),
                ("share".into(), share),
            ])
        };
        let rows = [row(1.0, 10, Value::Real(0.5)), row(3.0, 11, Value::Missing)];
        let rows: Vec<&Row> = rows.iter().collect();
        let mean = mean_row(&rows);
        let values = ["rate", "gpus", "done", "share"].map(|name| mean.get(name));
        assert_eq!(
            values,
            [
                Value::Real(2.0),
                Value::Count(8),
                Value::Real(10.5),
                Value::Missing
            ]
        );
        let names: Vec<_> = estimates(&rows).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["rate", "gpus", "done"]);
        assert_eq!(seeds(7, 3), [7, 8, 9]);
    }

    #[test]
    fn replicates_of_a_point_are_joined() {
        let mut space = Space::default();
        space.vary("workers=1,2").unwrap();
        space.vary("seed=7..9").unwrap();
        let outcome = |point: &Point| match point.index {
            4 => Outcome::Impossible("does not fit".to_owned()),
            index => Outcome::Done(Run {
                row: Row::new(vec![("rate".into(), Value::from(index as f64))]),
                guesses: vec!["guessed".to_owned()],
                ..Run::default()
            }),
        };
        let finished = space.points().map(|point| Finished {
            outcome: outcome(&point),
            point,
            is_resumed: false,
        });
        let joined = join(finished.collect(), 3, "seed");
        assert_eq!(describe(&joined[0].mean.point.overrides), "workers=1");
        assert_eq!(
            joined[0].mean.outcome.row().unwrap().get("rate"),
            Value::Real(1.0)
        );
        assert_eq!(joined[0].mean.outcome.guesses(), ["guessed"]);
        // 0, 1, 2: s = 1, error 1/√3, t(2) = 4.302653.
        let half = joined[0].estimates[0].1.half_width.unwrap();
        assert!((half - 2.484_138).abs() < 1e-5, "{half}");
        assert_eq!(
            joined[1].mean.outcome,
            Outcome::Impossible("does not fit".to_owned())
        );
        assert_eq!(
            (joined[1].mean.point.index, joined[1].estimates.len()),
            (1, 0)
        );
    }
}
