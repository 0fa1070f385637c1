//! Least squares with no coefficient below zero (Lawson and Hanson, 1974), on the normal equations.
//!
//! A coefficient is freed when that lowers the error. If the solution over the free ones would make one of them negative,
//! the way there is walked until the first reaches zero; that one is fixed again, and the rest solved anew.

use super::Symmetric;

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
        let candidates = (0..size).filter(is_worth);
        let Some(best) = candidates.max_by(|a, b| slope(*a).total_cmp(&slope(*b))) else {
            break;
        };
        free.push(best);
        free.sort_unstable();
        if solve_free(normal, right, &mut free, &mut x).is_none() {
            // It is made of the others.
            free.retain(|&at| at != best);
            refused.push(best);
        } else if !free.contains(&best) {
            refused.push(best);
        }
    }
    x
}

/// The solution over the free columns, of which those that would be negative are fixed at zero. `None` if the columns are
/// made of each other; `x` is as it was then.
fn solve_free(
    normal: &Symmetric,
    right: &[f64],
    free: &mut Vec<usize>,
    x: &mut [f64],
) -> Option<()> {
    loop {
        let rights: Vec<f64> = free.iter().map(|&at| right[at]).collect();
        let solved = normal.part(free).solve(&rights)?;
        // How far to the first zero on the way, and whose it is.
        let reach = free.iter().zip(&solved).filter(|(_, value)| **value <= 0.0);
        let reach = reach.map(|(&at, &value)| (x[at] / (x[at] - value).max(f64::MIN_POSITIVE), at));
        let Some((share, blocks)) = reach.min_by(|a, b| a.0.total_cmp(&b.0)) else {
            for (&at, &value) in free.iter().zip(&solved) {
                x[at] = value;
            }
            return Some(());
        };
        for (&at, &value) in free.iter().zip(&solved) {
            x[at] += share.min(1.0) * (value - x[at]);
        }
        x[blocks] = 0.0;
        free.retain(|&at| at != blocks);
    }
}
