//! The cheapest way to cover a demand with fractions of steps: a linear program of as many rows as there are sorts of work,
//! solved by the simplex method on its few rows.
//!
//! Minimise the time of all steps such that what they cover is at least the demand. A basis has one kind, or a surplus, for each
//! row; prices of the rows follow from it; a kind that takes less time than what it covers is worth comes in for the one that is
//! used up first. Each row is scaled to a demand of 1, each kind to a second.

/// Work to be done, by sort; a sort of which there is none is no row.
pub type Demand = [f64; SORTS];
const SORTS: usize = 4;

/// A kind of step.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// What it covers of each sort.
    pub covers: [f64; SORTS],
    /// How long it takes, above zero.
    pub seconds: f64,
}

/// The cheapest cover.
#[derive(Debug, Clone)]
pub struct Cover {
    /// Its time.
    pub seconds: f64,
    /// Kinds in it.
    pub used: Vec<usize>,
    /// Seconds that a unit of each sort is worth.
    prices: [f64; SORTS],
}

impl Cover {
    /// Whether a kind is cheaper than what it covers is worth, by more than a ten-thousandth.
    pub fn saves(&self, kind: &Kind) -> bool {
        let worth: f64 = kind
            .covers
            .iter()
            .zip(self.prices)
            .map(|(a, b)| a * b)
            .sum();
        worth > kind.seconds * (1.0 + 1e-4)
    }
}

/// A column: a kind, the surplus of a row, or work that nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Kind(usize),
    Surplus(usize),
    Undone(usize),
}

/// What a second's worth of demand left undone costs: far more than any kind.
const UNDONE: f64 = 1e12;
const MAX_EXCHANGES: usize = 100_000;

/// Covers the demand with kinds of which each sort has one.
///
/// # Panics
/// When some sort is covered by no kind.
pub fn cheapest(kinds: &[Kind], demand: &Demand) -> Cover {
    let rows: Vec<usize> = (0..SORTS).filter(|&sort| demand[sort] > 0.0).collect();
    let count = rows.len();
    // By column, a second of it over the demand, and its cost.
    let of_kind =
        |kind: &Kind, row: usize| kind.covers[rows[row]] / demand[rows[row]] / kind.seconds;
    let entry = |column: Column, row: usize| match column {
        Column::Kind(index) => of_kind(&kinds[index], row),
        Column::Surplus(of) => -f64::from(u8::from(of == row)),
        Column::Undone(of) => f64::from(u8::from(of == row)),
    };
    let cost = |column: Column| match column {
        Column::Kind(_) => 1.0,
        Column::Surplus(_) => 0.0,
        Column::Undone(_) => UNDONE,
    };
    let mut basis: Vec<Column> = (0..count).map(Column::Undone).collect();
    // The inverse of the basis, and how much of each column is used.
    let mut inverse: Vec<Vec<f64>> = (0..count).map(|at| unit(at, count)).collect();
    let mut amounts = vec![1.0; count];
    let mut prices = vec![0.0; count];
    for exchange in 0.. {
        assert!(
            exchange < MAX_EXCHANGES,
            "the simplex method comes to an end"
        );
        for (row, price) in prices.iter_mut().enumerate() {
            *price = (0..count)
                .map(|at| cost(basis[at]) * inverse[at][row])
                .sum();
        }
        let reduced = |column: Column| {
            let worth: f64 = (0..count).map(|row| prices[row] * entry(column, row)).sum();
            cost(column) - worth
        };
        let all = (0..kinds.len())
            .map(Column::Kind)
            .chain((0..count).map(Column::Surplus));
        let best = all
            .filter(|column| !basis.contains(column))
            .map(|column| (reduced(column), column))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, entering)) = best.filter(|(reduced, _)| *reduced < -1e-9) else {
            break;
        };
        let column: Vec<f64> = (0..count).map(|row| entry(entering, row)).collect();
        let direction: Vec<f64> = inverse.iter().map(|row| dot(row, &column)).collect();
        let leaving = (0..count)
            .filter(|&at| direction[at] > 1e-12)
            .min_by(|&a, &b| (amounts[a] / direction[a]).total_cmp(&(amounts[b] / direction[b])));
        let leaving = leaving.expect("a cover cannot take less than no time");
        let step = amounts[leaving] / direction[leaving];
        for at in 0..count {
            amounts[at] = (amounts[at] - step * direction[at]).max(0.0);
        }
        amounts[leaving] = step;
        let pivot: Vec<f64> = inverse[leaving]
            .iter()
            .map(|it| it / direction[leaving])
            .collect();
        for at in (0..count).filter(|&at| at != leaving) {
            for (cell, of_pivot) in inverse[at].iter_mut().zip(&pivot) {
                *cell -= direction[at] * of_pivot;
            }
        }
        inverse[leaving] = pivot;
        basis[leaving] = entering;
    }
    let of_basis = || basis.iter().zip(&amounts);
    assert!(
        of_basis().all(|(column, amount)| !matches!(column, Column::Undone(_)) || *amount < 1e-9),
        "every sort of work is done by some kind of step"
    );
    let mut by_sort = [0.0; SORTS];
    for (row, &sort) in rows.iter().enumerate() {
        by_sort[sort] = prices[row] / demand[sort];
    }
    let used = basis.iter().filter_map(|column| match column {
        Column::Kind(index) => Some(*index),
        _ => None,
    });
    Cover {
        seconds: of_basis()
            .map(|(column, amount)| cost(*column) * amount)
            .sum(),
        used: used.collect(),
        prices: by_sort,
    }
}

fn unit(at: usize, count: usize) -> Vec<f64> {
    (0..count)
        .map(|row| f64::from(u8::from(row == at)))
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_mixed_as_is_cheapest() {
        let kind = |covers, seconds| Kind { covers, seconds };
        let kinds = [
            kind([10.0, 0.0, 0.0, 0.0], 2.0),
            kind([0.0, 0.0, 10.0, 0.0], 1.0),
            // Both at once for less than apart.
            kind([10.0, 0.0, 10.0, 0.0], 2.5),
        ];
        // Ten of both kinds for the 100, five more for the rest of the other.
        let cover = cheapest(&kinds, &[100.0, 0.0, 150.0, 0.0]);
        assert!(
            (cover.seconds - (10.0 * 2.5 + 5.0)).abs() < 1e-9,
            "{cover:?}"
        );
        // A kind that brings 12 of the first in the same time would help, one that takes 10 % more time for 10 % more would not.
        assert!(cover.saves(&kind([12.0, 0.0, 10.0, 0.0], 2.5)));
        assert!(!cover.saves(&kind([11.0, 0.0, 11.0, 0.0], 2.76)));
        // What is covered beyond the demand costs nothing.
        let cover = cheapest(&kinds[2..], &[100.0, 0.0, 10.0, 0.0]);
        assert!((cover.seconds - 25.0).abs() < 1e-9, "{cover:?}");
    }

    #[test]
    fn nothing_takes_no_time() {
        assert_eq!(cheapest(&[], &[0.0; 4]).seconds, 0.0);
    }
}
