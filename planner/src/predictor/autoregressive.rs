//! Each difference explained by the ones before it.
//!
//! The series, or its first difference, is fitted by least squares as a constant plus `p` earlier values, for `p` up to
//! 5; the order and whether to difference are those of the smallest corrected Akaike criterion over the same values. The
//! forecast is one step of that recursion, not below zero and not above twice the largest value seen. Fewer than five
//! values, or equal ones, give the last. The fit looks at the last 128 values.
//!
//! This stands where Dynamo has `arima`, pmdarima's automatic ARIMA: the same family without moving averages, so that the fit is
//! linear and every run gives the same numbers.
//!
//! Model: no moving-average terms, and the order is chosen anew for every forecast instead of once; on the recorded series
//! the two predictors' mean errors differ by what `dynosim conform planner` prints.

use crate::model::solve;

const MIN_VALUES: usize = 5;
const MAX_ORDER: usize = 5;
const MAX_VALUES: usize = 128;

/// Keeps the last values.
#[derive(Debug, Clone)]
pub struct Autoregressive {
    log1p: bool,
    values: Vec<f64>,
}

impl Autoregressive {
    pub(super) fn new(log1p: bool) -> Self {
        Autoregressive {
            log1p,
            values: Vec::new(),
        }
    }

    pub(super) fn observe(&mut self, value: f64) {
        self.values.push(value.max(0.0));
        if self.values.len() > MAX_VALUES {
            self.values.remove(0);
        }
    }

    pub(super) fn forecast(&self) -> f64 {
        let last = self.values.last().copied().unwrap_or(0.0);
        if self.values.len() < MIN_VALUES || self.values.iter().all(|&value| value == last) {
            return last;
        }
        let largest = self.values.iter().copied().fold(0.0, f64::max);
        let forecast = if self.log1p {
            let logs: Vec<f64> = self.values.iter().map(|value| value.ln_1p()).collect();
            next(&logs).map(f64::exp_m1)
        } else {
            next(&self.values)
        };
        forecast.map_or(last, |value| value.clamp(0.0, 2.0 * largest))
    }
}

/// The next value by the best of all orders, differenced or not.
fn next(values: &[f64]) -> Option<f64> {
    let last = *values.last()?;
    let differences: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // All candidates explain the same last values, so that their errors can be compared.
    let largest_order = MAX_ORDER.min((values.len() - 2) / 3);
    let explained = values.len() - 1 - largest_order;
    let level = (0..=largest_order).filter_map(|order| fit(values, order, explained));
    let change = (0..=largest_order).filter_map(|order| {
        let (criterion, step) = fit(&differences, order, explained)?;
        Some((criterion, last + step))
    });
    let best = level.chain(change).min_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, value)| value)
        .filter(|value| value.is_finite())
}

/// The criterion of an autoregression of this order over the last `explained` values, and its forecast.
fn fit(values: &[f64], order: usize, explained: usize) -> Option<(f64, f64)> {
    let columns = order + 1;
    let row = |at: usize| -> Vec<f64> {
        let lags = (1..=order).map(|lag| values[at - lag]);
        std::iter::once(1.0).chain(lags).collect()
    };
    if explained <= columns + 1 || values.len() < explained + order {
        return None;
    }
    let mut matrix = vec![vec![0.0; columns]; columns];
    let mut right = vec![0.0; columns];
    for (at, value) in values.iter().enumerate().skip(values.len() - explained) {
        let row = row(at);
        for a in 0..columns {
            right[a] += row[a] * value;
            for b in 0..columns {
                matrix[a][b] += row[a] * row[b];
            }
        }
    }
    let solution = solve(matrix, right)?;
    let predict = |at: usize| -> f64 { row(at).iter().zip(&solution).map(|(x, w)| x * w).sum() };
    let squares: f64 = (values.len() - explained..values.len())
        .map(|at| (values[at] - predict(at)).powi(2))
        .sum();
    let (n, k) = (explained as f64, columns as f64 + 1.0);
    let correction = if n > k + 1.0 {
        2.0 * k * (k + 1.0) / (n - k - 1.0)
    } else {
        f64::INFINITY
    };
    let criterion = n * (squares / n).max(1e-12).ln() + 2.0 * k + correction;
    Some((criterion, predict(values.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: impl IntoIterator<Item = f64>) -> f64 {
        let mut predictor = Autoregressive::new(false);
        values
            .into_iter()
            .for_each(|value| predictor.observe(value));
        predictor.forecast()
    }

    #[test]
    fn a_ramp_goes_on() {
        assert!((after((1..=20).map(|at| f64::from(at) * 10.0)) - 210.0).abs() < 1e-6);
    }

    #[test]
    fn a_wave_goes_on() {
        let wave = |at: u32| 100.0 + 80.0 * (f64::from(at) * std::f64::consts::TAU / 12.0).sin();
        assert!((after((0..40).map(wave)) - wave(40)).abs() < 1e-3);
    }

    #[test]
    fn too_little_gives_the_last_value() {
        assert_eq!(after([3.0, 9.0]), 9.0);
        assert_eq!(after([4.0; 12]), 4.0);
    }
}
