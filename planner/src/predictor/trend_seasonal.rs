//! A straight trend with daily and weekly waves.
//!
//! The last `window` values are fitted by least squares as a line in time plus sines and cosines of a day (four harmonics, if
//! the window spans two days) and of a week (three, if it spans two weeks). The waves are damped by a ridge so that short
//! windows do not invent them. The forecast continues the fit by one interval, not below zero. Fewer than five values give
//! the last.
//!
//! This stands where Dynamo has `prophet`. Model: no change points in the trend, no holidays, no sampling; the recorded
//! windows are of 20 and 50 minutes, where Prophet's own waves are noise, and `dynosim conform planner` prints how far the two
//! are apart.

use crate::model::solve;
use std::f64::consts::TAU;

const MIN_VALUES: usize = 5;
const DAY_S: f64 = 86_400.0;
/// Prophet's prior for seasonal terms has standard deviation 10 on values scaled to 1.
const RIDGE: f64 = 0.01;

/// Keeps the last values with their place in time.
#[derive(Debug, Clone)]
pub struct TrendSeasonal {
    log1p: bool,
    window: usize,
    interval_s: f64,
    next_at: usize,
    values: Vec<f64>,
}

impl TrendSeasonal {
    pub(super) fn new(log1p: bool, window: usize, interval_s: f64) -> Self {
        TrendSeasonal {
            log1p,
            window: window.max(1),
            interval_s,
            next_at: 0,
            values: Vec::new(),
        }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let value = if self.log1p {
            value.max(0.0).ln_1p()
        } else {
            value
        };
        self.values.push(value);
        self.next_at += 1;
        if self.values.len() > self.window {
            self.values.remove(0);
        }
    }

    pub(super) fn forecast(&self) -> f64 {
        let last = self.values.last().copied().unwrap_or(0.0);
        let value = if self.values.len() < MIN_VALUES {
            last
        } else {
            self.fitted().unwrap_or(last)
        };
        if self.log1p {
            value.exp_m1().max(0.0)
        } else {
            value.max(0.0)
        }
    }

    fn fitted(&self) -> Option<f64> {
        let scale = self
            .values
            .iter()
            .fold(0.0_f64, |most, value| most.max(value.abs()));
        if scale == 0.0 {
            return Some(0.0);
        }
        let first = self.next_at - self.values.len();
        let columns = self.terms(first).len();
        let mut matrix = vec![vec![0.0; columns]; columns];
        let mut right = vec![0.0; columns];
        for (offset, value) in self.values.iter().enumerate() {
            let terms = self.terms(first + offset);
            for a in 0..columns {
                right[a] += terms[a] * value / scale;
                for b in 0..columns {
                    matrix[a][b] += terms[a] * terms[b];
                }
            }
        }
        for (at, row) in matrix.iter_mut().enumerate().skip(2) {
            row[at] += RIDGE;
        }
        let weights = solve(matrix, right)?;
        let next = self.terms(self.next_at);
        Some(next.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>() * scale)
    }

    /// The terms of one value: a constant, the place in the window, and the waves.
    fn terms(&self, at: usize) -> Vec<f64> {
        let first = self.next_at - self.values.len();
        let along = (at - first) as f64 / self.values.len() as f64;
        let mut terms = vec![1.0, along];
        let span_s = self.values.len() as f64 * self.interval_s;
        for (period_s, harmonics) in [(DAY_S, 4), (7.0 * DAY_S, 3)] {
            if span_s < 2.0 * period_s {
                continue;
            }
            for harmonic in 1..=harmonics {
                let angle = TAU * f64::from(harmonic) * at as f64 * self.interval_s / period_s;
                terms.extend([angle.sin(), angle.cos()]);
            }
        }
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(predictor: &mut TrendSeasonal, values: impl IntoIterator<Item = f64>) -> f64 {
        values
            .into_iter()
            .for_each(|value| predictor.observe(value));
        predictor.forecast()
    }

    #[test]
    fn a_line_goes_on() {
        let mut predictor = TrendSeasonal::new(false, 50, 60.0);
        let ramp = (0..80).map(|at| f64::from(at) * 10.0);
        assert!((after(&mut predictor, ramp) - 800.0).abs() < 1e-6);
    }

    #[test]
    fn a_day_comes_back() {
        let mut predictor = TrendSeasonal::new(false, 96, 3600.0);
        let day = |at: u32| 100.0 + 50.0 * (f64::from(at) * TAU / 24.0).sin();
        assert!((after(&mut predictor, (0..90).map(day)) - day(90)).abs() < 0.5);
    }

    #[test]
    fn too_little_gives_the_last_value() {
        let mut predictor = TrendSeasonal::new(true, 20, 60.0);
        assert!((after(&mut predictor, [3.0, 9.0]) - 9.0).abs() < 1e-12);
    }
}
