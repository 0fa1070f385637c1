//! Gauss and Newton's method for residuals that come out of a simulation, on the logarithms of positive parameters.
//!
//! A simulation is not smooth: an admission that moves by one step shifts everything behind it, and a derivative taken
//! over a short distance is noise. So each round looks at 24 points around the centre, every parameter a stride up or down
//! by the design of Plackett and Burman (1946) and its mirror image: the effect of each parameter is then the mean of 24
//! differences in which all others cancel, and the mean of all points is the level. The centre moves along the step that
//! the slopes ask for if the mean loss of the 24 points falls: a single low point may be a pebble in the valley. Strides
//! shrink from a third to four per cent and once more from a seventh to two. The lowest point ever seen is the answer.
//! Outliers count by Huber's rule; weak priors around the start keep parameters in range that the data do not speak about.
//!
//! *Uncertainty.* Neighbouring requests wait in one queue, so their errors go together. The standard errors come from the
//! slopes at the end, summed over blocks of consecutive residuals (the sandwich of clustered errors).

use calibration::least_squares::Symmetric;
use rayon::prelude::*;

/// Residuals beyond this count linearly.
const HUBER: f64 = 2.0;
/// Strides of the logarithms, each used for so many rounds at most.
const STRIDES: [(f64, usize); 12] = [
    (0.3, 6),
    (0.2, 6),
    (0.12, 6),
    (0.07, 6),
    (0.04, 6),
    (0.15, 6),
    (0.1, 6),
    (0.07, 6),
    (0.05, 6),
    (0.035, 6),
    (0.025, 6),
    (0.02, 12),
];
/// Gain below which a round has found nothing, as a share of the loss.
const LEAST_GAIN: f64 = 2e-3;
/// Blocks of residuals that are taken to be independent.
const BLOCKS: usize = 15;
/// First row of the design; the others are its rotations, and one of minuses.
const DESIGN: [f64; 11] = [1., 1., -1., 1., 1., 1., -1., -1., -1., 1., -1.];
/// Points of a round.
const LOOK: usize = 2 * (DESIGN.len() + 1);
/// Most parameters that the design has room for.
pub const MOST_PARAMETERS: usize = DESIGN.len();

/// What is minimised.
pub struct Problem<'a> {
    /// Residuals at parameters given by their logarithms; always the same number of them, in an order in which
    /// neighbours belong together.
    pub residuals: &'a (dyn Fn(&[f64]) -> Vec<f64> + Sync),
    /// Logarithms of the values to start from; at most [`MOST_PARAMETERS`].
    pub start: Vec<f64>,
    /// Logarithms around which the priors lie.
    pub prior: Vec<f64>,
    /// Standard deviation of the prior of each logarithm.
    pub prior_sigma: f64,
}

/// Where it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// Logarithms of the parameters.
    pub at: Vec<f64>,
    /// Standard errors of the logarithms.
    pub sigma: Vec<f64>,
    /// The loss there.
    pub loss: f64,
    /// How often the residuals were computed.
    pub evaluations: usize,
    /// False if rounds ran out while the loss still fell.
    pub has_settled: bool,
}

/// What a round sees: the smoothed residuals and their slopes, by parameter.
struct View {
    level: Vec<f64>,
    slopes: Vec<Vec<f64>>,
    /// The mean loss of the points looked at.
    mean_loss: f64,
    /// The lowest of them.
    best: (f64, Vec<f64>),
}

fn huber(residual: f64) -> f64 {
    let size = residual.abs();
    if size <= HUBER {
        0.5 * size * size
    } else {
        HUBER * (size - 0.5 * HUBER)
    }
}

/// The weight of a residual in the normal equations.
fn weight(residual: f64) -> f64 {
    (HUBER / residual.abs()).min(1.0)
}

impl Problem<'_> {
    /// The loss at a point, of its residuals.
    fn loss(&self, at: &[f64], residuals: &[f64]) -> f64 {
        let data: f64 = residuals.iter().map(|residual| huber(*residual)).sum();
        let pulls = at.iter().zip(&self.prior);
        let prior: f64 = pulls
            .map(|(x, prior)| 0.5 * ((x - prior) / self.prior_sigma).powi(2))
            .sum();
        data + prior
    }

    fn losses(&self, points: &[Vec<f64>]) -> Vec<f64> {
        points
            .par_iter()
            .map(|point| self.loss(point, &(self.residuals)(point)))
            .collect()
    }

    /// Finds a minimum near the start.
    ///
    /// # Panics
    /// With more parameters than the design has room for.
    #[must_use]
    pub fn solve(&self) -> Solution {
        assert!(
            self.start.len() <= MOST_PARAMETERS,
            "the design has a column per parameter"
        );
        let mut at = self.start.clone();
        let mut best = (f64::INFINITY, at.clone());
        let mut evaluations = 0;
        let mut has_settled = true;
        for (stride, rounds) in STRIDES {
            has_settled = false;
            let mut view = self.look(&at, stride);
            evaluations += LOOK;
            for _ in 0..rounds {
                let trials = self.trials(&at, &view, stride);
                let candidates = self.losses(&trials).into_iter().zip(trials);
                let lowest = candidates.min_by(|a, b| a.0.total_cmp(&b.0));
                let (loss, point) = lowest.expect("there are trials");
                let there = self.look(&point, stride);
                evaluations += 7 + LOOK;
                for seen in [(loss, &point), (there.best.0, &there.best.1)] {
                    if seen.0 < best.0 {
                        best = (seen.0, seen.1.clone());
                    }
                }
                let gain = 1.0 - there.mean_loss / view.mean_loss;
                if gain > 0.0 {
                    (at, view) = (point, there);
                }
                if gain < LEAST_GAIN {
                    has_settled = true;
                    break;
                }
            }
        }
        let (stride, _) = STRIDES[STRIDES.len() - 1];
        let view = self.look(&at, 2.0 * stride);
        Solution {
            sigma: self.sigma(&view),
            at: best.1,
            loss: best.0,
            evaluations: evaluations + LOOK,
            has_settled,
        }
    }

    /// The steps that the slopes ask for, at full, half and quarter length: from the smoothed residuals, which see past the
    /// grains, and from those of the centre, which do not feel the curvature.
    fn trials(&self, at: &[f64], view: &View, stride: f64) -> Vec<Vec<f64>> {
        let here = (self.residuals)(at);
        let mut trials = Vec::new();
        for level in [&view.level, &here] {
            let step = self.step(at, level, view, stride);
            for share in [1.0, 0.5, 0.25] {
                let moved = at.iter().zip(&step).map(|(x, step)| x + share * step);
                trials.push(moved.collect());
            }
        }
        trials
    }

    /// Residuals and slopes around a point.
    fn look(&self, at: &[f64], stride: f64) -> View {
        let runs = DESIGN.len() + 1;
        // The design, row by row, each row followed by its mirror image.
        let sign = |run: usize, column: usize| {
            let row = run / 2;
            let plain = match DESIGN.get((column + row) % DESIGN.len()) {
                Some(sign) if row < DESIGN.len() => *sign,
                _ => -1.0,
            };
            if run.is_multiple_of(2) { plain } else { -plain }
        };
        let point = |run: usize| -> Vec<f64> {
            let moved = at.iter().enumerate();
            moved
                .map(|(column, x)| x + stride * sign(run, column))
                .collect()
        };
        let points: Vec<Vec<f64>> = (0..2 * runs).map(point).collect();
        let residuals: Vec<Vec<f64>> = points
            .par_iter()
            .map(|point| (self.residuals)(point))
            .collect();
        let count = residuals[0].len();
        let mean = |of: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let sum = |row: usize| {
                let weighted = residuals.iter().enumerate();
                weighted
                    .map(|(run, residuals)| of(run) * residuals[row])
                    .sum::<f64>()
            };
            (0..count).map(|row| sum(row) / (2 * runs) as f64).collect()
        };
        let losses = points.iter().zip(&residuals);
        let losses = losses.map(|(point, residuals)| (self.loss(point, residuals), point));
        View {
            level: mean(&|_| 1.0),
            slopes: (0..at.len())
                .map(|column| mean(&|run| sign(run, column) / stride))
                .collect(),
            mean_loss: losses.clone().map(|(loss, _)| loss).sum::<f64>() / (2 * runs) as f64,
            best: losses
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(loss, point)| (loss, point.clone()))
                .expect("there are points"),
        }
    }

    /// The curvature of the loss.
    fn normal(&self, level: &[f64], view: &View) -> Symmetric {
        let size = view.slopes.len();
        let mut normal = Symmetric::zero(size);
        for (row, residual) in level.iter().enumerate() {
            let slopes: Vec<f64> = view.slopes.iter().map(|column| column[row]).collect();
            normal.add_outer(&slopes, weight(*residual));
        }
        for i in 0..size {
            normal.add_diagonal(i, self.prior_sigma.powi(-2));
        }
        normal
    }

    /// The step to the minimum that the slopes promise, no parameter further than three strides.
    fn step(&self, at: &[f64], level: &[f64], view: &View, stride: f64) -> Vec<f64> {
        let downhill = |i: usize| {
            let rows = level.iter().zip(&view.slopes[i]);
            let data: f64 = rows.map(|(r, slope)| weight(*r) * r * slope).sum();
            -data - (at[i] - self.prior[i]) / self.prior_sigma.powi(2)
        };
        let right: Vec<f64> = (0..at.len()).map(downhill).collect();
        let step = self.normal(level, view).solve(&right);
        let step = step.expect("priors make the matrix regular");
        let longest = step
            .iter()
            .fold(0.0, |longest: f64, one| longest.max(one.abs()));
        let share = (3.0 * stride / longest).min(1.0);
        step.into_iter().map(|one| share * one).collect()
    }

    fn sigma(&self, view: &View) -> Vec<f64> {
        let size = view.slopes.len();
        let normal = self.normal(&view.level, view);
        let length = view.level.len().div_ceil(BLOCKS).max(1);
        // The rows of the inverse, of which the sandwich needs the products with each block's pull.
        let inverse: Vec<Vec<f64>> = (0..size)
            .map(|i| {
                let unit: Vec<f64> = (0..size).map(|j| f64::from(u8::from(i == j))).collect();
                normal.solve(&unit).expect("priors make the matrix regular")
            })
            .collect();
        let mut variance: Vec<f64> = (0..size)
            // What the prior alone adds: a parameter that the data do not touch keeps its prior's width.
            .map(|i| (inverse[i][i] / self.prior_sigma).powi(2))
            .collect();
        for block in (0..view.level.len()).step_by(length) {
            let rows = block..(block + length).min(view.level.len());
            let pull = |column: &Vec<f64>| -> f64 {
                rows.clone()
                    .map(|row| weight(view.level[row]) * view.level[row] * column[row])
                    .sum()
            };
            let pulls: Vec<f64> = view.slopes.iter().map(pull).collect();
            for (variance, row) in variance.iter_mut().zip(&inverse) {
                let moved: f64 = row
                    .iter()
                    .zip(&pulls)
                    .map(|(inverse, pull)| inverse * pull)
                    .sum();
                *variance += moved * moved;
            }
        }
        variance.into_iter().map(f64::sqrt).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// y = a e^(-b t) with a = 3, b = 0.5, quantised as counts of a simulation are; a third parameter plays no part.
    fn decay(x: &[f64]) -> Vec<f64> {
        let y = |a: f64, b: f64, t: f64| a * (-b * t).exp();
        let times = (0..60).map(|i| f64::from(i) * 0.1);
        let grain = 0.01;
        times
            .map(|t| {
                let seen = (y(x[0].exp(), x[1].exp(), t) / grain).round() * grain;
                (seen - y(3.0, 0.5, t)) / 0.02
            })
            .collect()
    }

    #[test]
    fn a_law_seen_in_grains_is_found_and_its_uncertainty_said() {
        let problem = Problem {
            residuals: &decay,
            start: vec![0.0, 0.0, 0.0],
            prior: vec![0.0, 0.0, 0.0],
            prior_sigma: 2.0,
        };
        let solution = problem.solve();
        assert!(solution.has_settled);
        assert!((solution.at[0].exp() - 3.0).abs() < 0.05, "{solution:?}");
        assert!((solution.at[1].exp() - 0.5).abs() < 0.02, "{solution:?}");
        assert!(
            solution.sigma[0] < 0.05 && solution.sigma[1] < 0.05,
            "{solution:?}"
        );
        // Only its prior speaks about the third.
        assert!((solution.sigma[2] - 2.0).abs() < 1e-6, "{solution:?}");
        assert_eq!(problem.solve(), solution, "the same twice");
    }
}
