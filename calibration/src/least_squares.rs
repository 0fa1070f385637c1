//! Small least squares: a handful of coefficients that are not negative, robust to a noisy machine.
//!
//! *Robust.* Errors of step times are relative, and a machine that is shared has a long tail of slow steps. Each round
//! weighs a row by 1/predicted² and, beyond 1.345 times the spread of the relative errors (taken from their median), by
//! Huber's rule: an outlier pulls with a constant force, not with its distance. Rounds go on until no prediction moves.
//!
//! *Not negative.* Each round solves its normal equations, columns scaled to one size, with no coefficient below zero
//! (`not_negative.rs`).

mod not_negative;
mod symmetric;

pub use not_negative::not_negative;
pub use symmetric::Symmetric;

use std::fmt;

/// Huber's constant: 95 % efficient when errors are normal.
const HUBER: f64 = 1.345;
/// From the median of absolute values to the standard deviation of normal errors.
const MAD_TO_SIGMA: f64 = 1.4826;
const MOST_ROUNDS: usize = 500;
/// Largest relative change of a prediction in the last round.
const TOLERANCE: f64 = 1e-6;
/// Relative errors below this are no outliers, however small the others are: no step is timed better.
const LEAST_SPREAD: f64 = 1e-3;

/// What was fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// By column, none negative.
    pub coefficients: Vec<f64>,
    /// Their standard errors, by the curvature at the solution.
    pub standard_errors: Vec<f64>,
}

/// The rounds went on without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoConvergence;

impl fmt::Display for NoConvergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no convergence in {MOST_ROUNDS} rounds")
    }
}

/// Coefficients that predict `targets`, all positive, from `rows`.
///
/// # Errors
/// If the rounds do not settle.
pub fn robust(rows: &[Vec<f64>], targets: &[f64]) -> Result<Solution, NoConvergence> {
    let columns = rows.first().map_or(0, Vec::len);
    let scale = column_scale(rows, columns);
    // What an error is measured in, and how much it counts, by row.
    let mut units: Vec<f64> = targets.to_vec();
    let mut weights = vec![1.0; rows.len()];
    let mut before: Vec<f64> = vec![f64::INFINITY; rows.len()];
    for _ in 0..MOST_ROUNDS {
        let precisions = weights
            .iter()
            .zip(&units)
            .map(|(weight, unit)| weight / (unit * unit));
        let (normal, right) = normal_equations(rows, targets, precisions, &scale);
        let solved = not_negative(&normal, &right);
        let coefficients: Vec<f64> = solved.iter().zip(&scale).map(|(x, s)| x / s).collect();
        let predicted: Vec<f64> = rows.iter().map(|row| dot(row, &coefficients)).collect();
        let moved = predicted.iter().zip(&before);
        let change = moved.map(|(now, old)| (now - old).abs() / now.abs().max(f64::MIN_POSITIVE));
        let is_settled = change.fold(0.0, f64::max) < TOLERANCE;
        // A prediction of next to nothing must not weigh more than everything else together.
        let pairs = predicted.iter().zip(targets);
        units = pairs.clone().map(|(p, t)| p.max(0.1 * t)).collect();
        let errors: Vec<f64> = pairs
            .zip(&units)
            .map(|((p, t), unit)| (t - p) / unit)
            .collect();
        let sigma = spread(&errors);
        let weight = |error: &f64| (HUBER * sigma / error.abs()).min(1.0);
        weights = errors.iter().map(weight).collect();
        if is_settled {
            let squares = errors.iter().zip(&weights).map(|(e, w)| w * e * e);
            let free = rows.len().saturating_sub(columns).max(1) as f64;
            let variance = squares.sum::<f64>() / free;
            let standard_errors = standard_errors(&normal, &scale, &coefficients, variance);
            return Ok(Solution {
                coefficients,
                standard_errors,
            });
        }
        before = predicted;
    }
    Err(NoConvergence)
}

/// The normal equations of the rows, each column divided by its scale.
fn normal_equations(
    rows: &[Vec<f64>],
    targets: &[f64],
    precisions: impl Iterator<Item = f64>,
    scale: &[f64],
) -> (Symmetric, Vec<f64>) {
    let mut normal = Symmetric::zero(scale.len());
    let mut right = vec![0.0; scale.len()];
    for ((row, target), precision) in rows.iter().zip(targets).zip(precisions) {
        let scaled: Vec<f64> = row.iter().zip(scale).map(|(x, s)| x / s).collect();
        normal.add_outer(&scaled, precision);
        for (right, x) in right.iter_mut().zip(&scaled) {
            *right += precision * x * target;
        }
    }
    (normal, right)
}

fn dot(row: &[f64], coefficients: &[f64]) -> f64 {
    row.iter().zip(coefficients).map(|(x, c)| x * c).sum()
}

/// Root mean square of each column, 1 for one of zeros.
fn column_scale(rows: &[Vec<f64>], columns: usize) -> Vec<f64> {
    let rms = |column: usize| {
        let squares: f64 = rows.iter().map(|row| row[column] * row[column]).sum();
        let rms = (squares / rows.len().max(1) as f64).sqrt();
        if rms > 0.0 { rms } else { 1.0 }
    };
    (0..columns).map(rms).collect()
}

/// The standard deviation of normal errors with this median of absolute values, at least [`LEAST_SPREAD`].
fn spread(errors: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    (MAD_TO_SIGMA * sizes.get(sizes.len() / 2).copied().unwrap_or(0.0)).max(LEAST_SPREAD)
}

fn standard_errors(
    normal: &Symmetric,
    scale: &[f64],
    coefficients: &[f64],
    variance: f64,
) -> Vec<f64> {
    let all: Vec<usize> = (0..scale.len()).collect();
    let free: Vec<usize> = all
        .iter()
        .copied()
        .filter(|&at| coefficients[at] > 0.0)
        .collect();
    // Where a column is made of others, those at zero are taken as known.
    let (kept, diagonal) = match (normal.inverse_diagonal(), normal.part(&free)) {
        (Some(diagonal), _) => (all, diagonal),
        (None, part) => {
            let diagonal = part.inverse_diagonal();
            let unknown = vec![0.0; free.len()];
            (free, diagonal.unwrap_or(unknown))
        }
    };
    let mut errors = vec![0.0; scale.len()];
    for (at, value) in kept.into_iter().zip(diagonal) {
        errors[at] = (variance * value).sqrt() / scale[at];
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 + 2 a + 0.5 b on a grid.
    fn grid() -> (Vec<Vec<f64>>, Vec<f64>) {
        let rows: Vec<Vec<f64>> = (0..20)
            .flat_map(|a| (0..20).map(move |b| vec![1.0, f64::from(a), f64::from(b) * 1e4]))
            .collect();
        let targets = rows
            .iter()
            .map(|row| 1.0 + 2.0 * row[1] + 5e-5 * row[2])
            .collect();
        (rows, targets)
    }

    #[test]
    fn exact_data_gives_exact_coefficients() {
        let (rows, targets) = grid();
        let solution = robust(&rows, &targets).expect("settles");
        for (found, expected) in solution.coefficients.iter().zip([1.0, 2.0, 5e-5]) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{solution:?}");
        }
    }

    #[test]
    fn one_row_in_ten_a_hundred_times_too_slow_moves_little() {
        let (rows, mut targets) = grid();
        for target in targets.iter_mut().step_by(10) {
            *target *= 100.0;
        }
        let solution = robust(&rows, &targets).expect("settles");
        for (found, expected) in solution.coefficients.iter().zip([1.0, 2.0, 5e-5]) {
            assert!((found / expected - 1.0).abs() < 0.02, "{solution:?}");
        }
    }

    #[test]
    fn a_coefficient_that_would_be_negative_is_zero() {
        let (rows, _) = grid();
        let targets: Vec<f64> = rows
            .iter()
            .map(|row| 50.0 + row[1] - 5e-5 * row[2])
            .collect();
        let solution = robust(&rows, &targets).expect("settles");
        assert_eq!(solution.coefficients[2], 0.0);
        assert!(solution.coefficients[0] > 40.0, "{solution:?}");
    }

    #[test]
    fn a_column_made_of_others_takes_part_of_nothing_it_should_not() {
        let rows: Vec<Vec<f64>> = (1..50)
            .map(|a| vec![1.0, f64::from(a), 2.0 * f64::from(a)])
            .collect();
        let targets: Vec<f64> = (1..50).map(|a| 3.0 + 4.0 * f64::from(a)).collect();
        let solution = robust(&rows, &targets).expect("settles");
        let [base, one, two] = solution.coefficients[..] else {
            panic!("three columns");
        };
        assert!(
            (base - 3.0).abs() < 1e-6 && (one + 2.0 * two - 4.0).abs() < 1e-6,
            "{solution:?}"
        );
    }
}
