//! The quantile function of a sample in few points.
//!
//! A sorted sample is a staircase from probability 0 to 1. It is reduced by Douglas and Peucker's rule: keep the two
//! ends, find the point farthest from the straight line between them, and if it is farther than the tolerance keep it
//! too and do the same on both sides. Long tails and sharp steps keep many points, smooth parts few.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Relative error allowed when a sample is reduced.
const RELATIVE_TOLERANCE: f64 = 0.01;
/// Absolute error allowed when a sample is reduced; below one half, so that whole numbers stay what they were.
const ABSOLUTE_TOLERANCE: f64 = 0.25;

/// Points (probability, value), both ascending, from probability 0 to 1; straight lines between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantiles {
    points: Vec<(f64, f64)>,
}

impl Quantiles {
    /// Always `value`.
    #[must_use]
    pub fn constant(value: f64) -> Quantiles {
        Quantiles::between(value, value)
    }

    /// Uniform between two values.
    #[must_use]
    pub fn between(low: f64, high: f64) -> Quantiles {
        Quantiles {
            points: vec![(0.0, low), (1.0, high)],
        }
    }

    /// The quantile function of a sample of finite values, which must not be empty. Each value stands for 1/n of the
    /// probability and is reproduced within 1 % or 0.25, whichever is more.
    #[must_use]
    pub fn of_sample(sample: impl IntoIterator<Item = f64>) -> Quantiles {
        Quantiles::of_sample_within(sample, ABSOLUTE_TOLERANCE)
    }

    /// As [`Quantiles::of_sample`], reproduced within 1 % or `tolerance`, whichever is more.
    #[must_use]
    pub fn of_sample_within(sample: impl IntoIterator<Item = f64>, tolerance: f64) -> Quantiles {
        let mut values: Vec<f64> = sample.into_iter().collect();
        assert!(!values.is_empty(), "a sample holds at least one value");
        values.sort_by(f64::total_cmp);
        let n = values.len() as f64;
        let mut stairs = Vec::with_capacity(values.len() + 2);
        stairs.push((0.0, values[0]));
        stairs.extend(
            values
                .iter()
                .enumerate()
                .map(|(k, &value)| ((k as f64 + 0.5) / n, value)),
        );
        stairs.push((1.0, values[values.len() - 1]));
        Quantiles {
            points: reduced(&stairs, tolerance)
                .into_iter()
                .map(|(p, value)| (rounded(p), rounded(value)))
                .collect(),
        }
    }

    /// The points.
    #[must_use]
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// The value at a probability from 0 to 1.
    #[must_use]
    pub fn at(&self, probability: f64) -> f64 {
        let above = self
            .points
            .partition_point(|point| point.0 <= probability)
            .clamp(1, self.points.len() - 1);
        let (p0, v0) = self.points[above - 1];
        let (p1, v1) = self.points[above];
        if p1 > p0 {
            v0 + (v1 - v0) * ((probability - p0) / (p1 - p0))
        } else {
            v1
        }
    }

    /// The same probabilities with other values, put in order.
    #[must_use]
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Quantiles {
        self.map_at(|_, value| f(value))
    }

    /// As [`Quantiles::map`]; `f` takes probability and value.
    #[must_use]
    pub fn map_at(&self, f: impl Fn(f64, f64) -> f64) -> Quantiles {
        let mut values: Vec<f64> = self
            .points
            .iter()
            .map(|&(p, value)| rounded(f(p, value)))
            .collect();
        values.sort_by(f64::total_cmp);
        Quantiles {
            points: self
                .points
                .iter()
                .zip(values)
                .map(|(&(p, _), value)| (p, value))
                .collect(),
        }
    }

    /// What is wrong with the points, or nothing.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let points = &self.points;
        let ends = (
            points.first().map(|point| point.0),
            points.last().map(|point| point.0),
        );
        if points.len() < 2 || ends != (Some(0.0), Some(1.0)) {
            let found = format!("{} points from {:?} to {:?}", points.len(), ends.0, ends.1);
            return Some(Fault {
                found,
                expected: "points [probability, value] from probability 0 to 1",
            });
        }
        if let Some(pair) = points
            .windows(2)
            .find(|w| !(w[0].0 <= w[1].0 && w[0].1 <= w[1].1))
        {
            let found = format!("{:?} before {:?}", pair[0], pair[1]);
            return Some(Fault {
                found,
                expected: "probabilities and values that do not fall",
            });
        }
        let is_finite = points
            .iter()
            .all(|point| point.1.is_finite() && point.1 >= 0.0);
        Fault::unless(
            is_finite,
            || "infinite or negative values".to_string(),
            "values from 0 on",
        )
    }
}

/// To six decimals, so that a file of points is short and reads back equal.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Douglas and Peucker on `stairs`, which has at least two points.
fn reduced(stairs: &[(f64, f64)], tolerance: f64) -> Vec<(f64, f64)> {
    let last = stairs.len() - 1;
    let mut is_kept = vec![false; stairs.len()];
    is_kept[0] = true;
    is_kept[last] = true;
    let mut open = vec![(0, last)];
    while let Some((from, to)) = open.pop() {
        if let Some(farthest) = farthest_outside(tolerance, stairs, from, to) {
            is_kept[farthest] = true;
            open.push((from, farthest));
            open.push((farthest, to));
        }
    }
    stairs
        .iter()
        .zip(&is_kept)
        .filter(|&(_, &kept)| kept)
        .map(|(&point, _)| point)
        .collect()
}

/// The inner point that lies farthest from the line between two points in units of its tolerance, if outside of it.
fn farthest_outside(
    tolerance: f64,
    stairs: &[(f64, f64)],
    from: usize,
    to: usize,
) -> Option<usize> {
    let ((p0, v0), (p1, v1)) = (stairs[from], stairs[to]);
    if v0 == v1 {
        return None;
    }
    let slope = (v1 - v0) / (p1 - p0);
    let mut farthest = (1.0, None);
    for (index, &(p, v)) in stairs.iter().enumerate().take(to).skip(from + 1) {
        let tolerance = tolerance.max(RELATIVE_TOLERANCE * v.abs());
        let distance = (v0 + slope * (p - p0) - v).abs() / tolerance;
        if distance > farthest.0 {
            farthest = (distance, Some(index));
        }
    }
    farthest.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_staircase_keeps_its_steps_and_a_slope_its_ends() {
        // Half ones, half fives: the step lies between the 5th (p = 0.45) and the 6th (p = 0.55) of ten values.
        let stairs = Quantiles::of_sample([1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0]);
        assert_eq!(
            stairs.points(),
            [(0.0, 1.0), (0.45, 1.0), (0.55, 5.0), (1.0, 5.0)]
        );
        assert_eq!(
            [
                stairs.at(0.0),
                stairs.at(0.2),
                stairs.at(0.9),
                stairs.at(1.0)
            ],
            [1.0, 1.0, 5.0, 5.0]
        );
        assert!((stairs.at(0.5) - 3.0).abs() < 1e-9);
        let slope = Quantiles::of_sample((0..10_001).map(f64::from));
        assert!(slope.points().len() <= 6, "{:?}", slope.points());
        assert!((slope.at(0.25) - 2500.0).abs() <= 25.0);
    }

    #[test]
    fn points_out_of_order_are_faults() {
        let fault = |text: &str| {
            serde_json::from_str::<Quantiles>(text)
                .expect("well-formed")
                .fault()
        };
        assert_eq!(fault("[[0, 1], [0.5, 1], [0.5, 9], [1, 10]]"), None);
        assert!(fault("[[0, 1]]").is_some());
        assert!(fault("[[0, 1], [0.9, 2]]").is_some());
        assert!(
            fault("[[0, 3], [1, 2]]")
                .expect("falls")
                .found
                .contains("(1.0, 2.0)")
        );
        assert!(fault("[[0, -1], [1, 2]]").is_some());
    }

    proptest! {
        /// Every value of the sample is reproduced at its own probability.
        #[test]
        fn a_reduced_sample_stays_within_its_tolerance(mut sample in prop::collection::vec(0.0f64..1e5, 1..300)) {
            let quantiles = Quantiles::of_sample(sample.iter().copied());
            prop_assert_eq!(quantiles.fault(), None);
            sample.sort_by(f64::total_cmp);
            for (k, &value) in sample.iter().enumerate() {
                let at = quantiles.at((k as f64 + 0.5) / sample.len() as f64);
                prop_assert!((at - value).abs() <= f64::max(0.2501, 0.010_001 * value), "{} for {}", at, value);
            }
        }
    }
}
