//! Symmetric matrices of a few rows, and what least squares wants of them.

/// A pivot below this share of its diagonal means that a column is made of others.
const SINGULAR: f64 = 1e-10;

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

    pub(super) fn part(&self, keep: &[usize]) -> Symmetric {
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
