//! Small least squares: a handful of coefficients that are not negative, robust to a noisy machine.
//!
//! *Robust.* Errors of step times are relative, and a machine that is shared has a long tail of slow steps. Each round
//! weighs a row by 1/predicted² and, beyond 1.345 times the spread of the relative errors (taken from their median), by
//! Huber's rule: an outlier pulls with a constant force, not with its distance. Rounds go on until no prediction moves.
//!
//! *Not negative.* Lawson and Hanson (1974), on the normal equations with unit diagonal: a coefficient is freed when that
//! lowers the error, and put back to zero when the solution would make it negative.

use std::fmt;

/// Huber's constant: 95 % efficient when errors are normal.
const HUBER: f64 = 1.345;
/// From the median of absolute values to the standard deviation of normal errors.
const MAD_TO_SIGMA: f64 = 1.4826;
const MOST_ROUNDS: usize = 200;
/// Largest relative change of a prediction in the last round.
const TOLERANCE: f64 = 1e-7;
/// A pivot below this share of its diagonal means that a column is made of others.
const SINGULAR: f64 = 1e-10;

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

/// A symmetric matrix of a few rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Symmetric {
    size: usize,
    values: Vec<f64>,
}

impl Symmetric {
    /// All zero.
    #[must_use]
    pub fn zero(size: usize) -> Symmetric {
        Symmetric {
            size,
            values: vec![0.0; size * size],
        }
    }

    /// An element.
    #[must_use]
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.size + column]
    }

    /// Adds `weight` times the outer product of a row with itself.
    pub fn add_outer(&mut self, row: &[f64], weight: f64) {
        for i in 0..self.size {
            for j in 0..self.size {
                self.values[i * self.size + j] += weight * row[i] * row[j];
            }
        }
    }

    /// Adds to the diagonal.
    pub fn add_diagonal(&mut self, at: usize, value: f64) {
        self.values[at * self.size + at] += value;
    }

    fn part(&self, keep: &[usize]) -> Symmetric {
        let size = keep.len();
        let pairs = keep.iter().flat_map(|&i| keep.iter().map(move |&j| (i, j)));
        Symmetric {
            size,
            values: pairs.map(|(i, j)| self.at(i, j)).collect(),
        }
    }

    /// The lower factor of Cholesky, `None` if a column is (nearly) made of others.
    fn cholesky(&self) -> Option<Symmetric> {
        let mut lower = Symmetric::zero(self.size);
        for i in 0..self.size {
            for j in 0..=i {
                let known: f64 = (0..j).map(|k| lower.at(i, k) * lower.at(j, k)).sum();
                let rest = self.at(i, j) - known;
                lower.values[i * self.size + j] = if i > j {
                    rest / lower.at(j, j)
                } else if rest > SINGULAR * self.at(i, i) && rest > 0.0 {
                    rest.sqrt()
                } else {
                    return None;
                };
            }
        }
        Some(lower)
    }

    /// Solves `self · x = right`.
    #[must_use]
    pub fn solve(&self, right: &[f64]) -> Option<Vec<f64>> {
        let lower = self.cholesky()?;
        let mut x = right.to_vec();
        for i in 0..self.size {
            let known: f64 = (0..i).map(|k| lower.at(i, k) * x[k]).sum();
            x[i] = (x[i] - known) / lower.at(i, i);
        }
        for i in (0..self.size).rev() {
            let known: f64 = (i + 1..self.size).map(|k| lower.at(k, i) * x[k]).sum();
            x[i] = (x[i] - known) / lower.at(i, i);
        }
        Some(x)
    }

    /// The diagonal of the inverse.
    #[must_use]
    pub fn inverse_diagonal(&self) -> Option<Vec<f64>> {
        let unit = |at: usize| {
            let mut right = vec![0.0; self.size];
            right[at] = 1.0;
            self.solve(&right).map(|x| x[at])
        };
        (0..self.size).map(unit).collect()
    }
}

/// Coefficients that predict `targets`, all positive, from `rows`.
///
/// # Errors
/// If the rounds do not settle.
pub fn robust(rows: &[Vec<f64>], targets: &[f64]) -> Result<Solution, NoConvergence> {
    let columns = rows.first().map_or(0, Vec::len);
    let scale = column_scale(rows, columns);
    let mut scales: Vec<f64> = targets.to_vec();
    let mut weights = vec![1.0; rows.len()];
    let mut coefficients = vec![0.0; columns];
    let mut before: Vec<f64> = vec![f64::INFINITY; rows.len()];
    for _ in 0..MOST_ROUNDS {
        let mut normal = Symmetric::zero(columns);
        let mut right = vec![0.0; columns];
        for (((row, target), of), weight) in rows.iter().zip(targets).zip(&scales).zip(&weights) {
            let weight = weight / (of * of);
            let scaled: Vec<f64> = row.iter().zip(&scale).map(|(x, s)| x / s).collect();
            normal.add_outer(&scaled, weight);
            for (right, x) in right.iter_mut().zip(&scaled) {
                *right += weight * x * target;
            }
        }
        let solved = not_negative(&normal, &right);
        coefficients = solved.iter().zip(&scale).map(|(x, s)| x / s).collect();
        let predicted: Vec<f64> = rows.iter().map(|row| dot(row, &coefficients)).collect();
        let moved = predicted.iter().zip(&before);
        let change = moved.map(|(now, old)| (now - old).abs() / now.abs().max(f64::MIN_POSITIVE));
        let is_settled = change.fold(0.0, f64::max) < TOLERANCE;
        // A prediction of next to nothing must not weigh more than everything else together.
        let pairs = predicted.iter().zip(targets);
        scales = pairs.clone().map(|(p, t)| p.max(0.1 * t)).collect();
        let errors: Vec<f64> = pairs.zip(&scales).map(|((p, t), s)| (t - p) / s).collect();
        let sigma = spread(&errors);
        weights = errors
            .iter()
            .map(|error| (HUBER * sigma / error.abs()).min(1.0))
            .collect();
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
    let _ = coefficients;
    Err(NoConvergence)
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

/// The standard deviation of normal errors with this median of absolute values; never 0.
fn spread(errors: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    (MAD_TO_SIGMA * sizes.get(sizes.len() / 2).copied().unwrap_or(0.0)).max(1e-9)
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

/// The least-squares solution of the normal equations with no coefficient below zero.
#[must_use]
pub fn not_negative(normal: &Symmetric, right: &[f64]) -> Vec<f64> {
    let size = right.len();
    let mut x = vec![0.0; size];
    let mut free: Vec<usize> = Vec::new();
    let mut refused: Vec<usize> = Vec::new();
    // Every pass frees one column or refuses it for good; the bound is generous.
    for _ in 0..10 * (size + 1) {
        let slope = |at: usize| {
            let known: f64 = (0..size).map(|k| normal.at(at, k) * x[k]).sum();
            right[at] - known
        };
        let is_worth = |at: &usize| {
            let least = 1e-12 * right[*at].abs().max(f64::MIN_POSITIVE);
            !free.contains(at) && !refused.contains(at) && slope(*at) > least
        };
        let best = (0..size)
            .filter(is_worth)
            .max_by(|a, b| slope(*a).total_cmp(&slope(*b)));
        let Some(best) = best else {
            break;
        };
        free.push(best);
        free.sort_unstable();
        let part_of = |free: &[usize]| {
            let rights: Vec<f64> = free.iter().map(|&at| right[at]).collect();
            normal.part(free).solve(&rights)
        };
        let Some(mut solved) = part_of(&free) else {
            free.retain(|&at| at != best);
            refused.push(best);
            continue;
        };
        // Walk towards the solution until the first coefficient reaches zero; fix it there; solve again.
        while solved.iter().any(|value| *value <= 0.0) {
            let reach = |(&at, &value): (&usize, &f64)| {
                (value <= 0.0).then(|| x[at] / (x[at] - value).max(f64::MIN_POSITIVE))
            };
            let step = free
                .iter()
                .zip(&solved)
                .filter_map(reach)
                .fold(1.0, f64::min);
            for (&at, &value) in free.iter().zip(&solved) {
                x[at] += step * (value - x[at]);
            }
            let stays: Vec<usize> = free
                .iter()
                .zip(&solved)
                .filter(|&(&at, &value)| value > 0.0 || x[at] > 1e-15)
                .map(|(&at, _)| at)
                .collect();
            if stays.len() == free.len() {
                // Rounding left a hair of it: the one that blocks goes.
                let blocks = free.iter().zip(&solved).find(|(_, value)| **value <= 0.0);
                let blocks = *blocks.expect("somebody is not positive").0;
                free.retain(|&at| at != blocks);
            } else {
                free = stays;
            }
            for at in 0..size {
                if !free.contains(&at) {
                    x[at] = 0.0;
                }
            }
            solved = part_of(&free).unwrap_or_default();
        }
        if !free.contains(&best) {
            refused.push(best);
        }
        for (&at, &value) in free.iter().zip(&solved) {
            x[at] = value;
        }
    }
    x
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
