//! The same point under several seeds: mean and confidence interval of every metric.
//!
//! Replicate r of a point uses the seed `base + r`, for all points alike, so that points meet the same random traffic.
//! Replicates are independent, so the mean of n values has Student's t distribution with n − 1 degrees of freedom around
//! the true mean, in units of s/√n.

use crate::rows::{Name, Row, Value};
use statrs::distribution::{ContinuousCDF, StudentsT};

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
        Some(Estimate { count, mean, half_width })
    }

    /// The interval, if there is one.
    #[must_use]
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.half_width.map(|half| (self.mean - half, self.mean + half))
    }
}

/// The seeds of `count` replicates.
#[must_use]
pub fn seeds(base: u64, count: u32) -> Vec<u64> {
    (0..u64::from(count)).map(|replicate| base.wrapping_add(replicate)).collect()
}

/// An estimate for every metric that all rows have a value for, in the order of the first row.
#[must_use]
pub fn estimates(rows: &[&Row]) -> Vec<(Name, Estimate)> {
    let Some(first) = rows.first() else { return Vec::new() };
    let estimate = |(name, _): &(Name, Value)| {
        let values: Option<Vec<f64>> = rows.iter().map(|row| row.number(name)).collect();
        Some((name.clone(), Estimate::new(&values?)?))
    };
    first.cells().iter().filter_map(estimate).collect()
}

/// The row of means; a metric that some replicate lacks is missing, a count that is the same in all stays a count.
#[must_use]
pub fn mean_row(rows: &[&Row]) -> Row {
    let Some(first) = rows.first() else { return Row::default() };
    let mean = |(name, own): &(Name, Value)| {
        if rows.iter().all(|row| row.get(name) == *own) {
            return (name.clone(), *own);
        }
        let values: Option<Vec<f64>> = rows.iter().map(|row| row.number(name)).collect();
        let estimate = values.and_then(|values| Estimate::new(&values));
        (name.clone(), estimate.map_or(Value::Missing, |estimate| Value::from(estimate.mean)))
    };
    Row::new(first.cells().iter().map(mean).collect())
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
    if t.is_infinite() { 0.0 } else { 2.0 * student(degrees).cdf(-t.abs()) }
}

fn student(degrees: u64) -> StudentsT {
    StudentsT::new(0.0, 1.0, degrees as f64).expect("the distribution exists from one degree of freedom on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // NIST/SEMATECH e-Handbook, table 1.3.6.7.2, column 0.975.
        for (degrees, expected) in
            [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (29, 2.045), (100, 1.984)]
        {
            assert!((t_quantile(degrees) - expected).abs() < 6e-4, "{degrees}: {}", t_quantile(degrees));
            assert!((t_tail(t_quantile(degrees), degrees) - 0.05).abs() < 1e-6);
        }
    }

    #[test]
    fn the_interval_of_a_known_sample() {
        // 9.8, 10.2, 10.4, 9.6, 10.0: mean 10, s² = 0.4/4 = 0.1, error √(0.1/5) = 0.141421, t(4) = 2.776445.
        let estimate = Estimate::new(&[9.8, 10.2, 10.4, 9.6, 10.0]).unwrap();
        assert!((estimate.mean - 10.0).abs() < 1e-12);
        assert!((estimate.half_width.unwrap() - 0.392_649).abs() < 1e-5, "{estimate:?}");
        assert_eq!(Estimate::new(&[3.0]).unwrap(), Estimate { count: 1, mean: 3.0, half_width: None });
        assert_eq!(Estimate::new(&[0.1; 7]).unwrap().interval(), Some((0.1, 0.1)));
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
        assert_eq!(values, [Value::Real(2.0), Value::Count(8), Value::Real(10.5), Value::Missing]);
        let names: Vec<_> = estimates(&rows).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["rate", "gpus", "done"]);
        assert_eq!(seeds(7, 3), [7, 8, 9]);
    }
}
