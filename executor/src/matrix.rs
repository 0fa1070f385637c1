//! `y = x · Wᵀ` for a few rows of `x`: the loop in which a decoder spends its time.
//!
//! In words: the weights are kept in panels of 16 outputs, so that one input number meets 16 weights that lie side by
//! side. Two rows are computed together; each output is one sum over the inputs, in their order, whatever the number of rows
//! and of threads. That is what makes results independent of the batch. The compiler turns the inner loop into vector
//! instructions; a build with `RUSTFLAGS=-Ctarget-cpu=native` has wider ones and gives the same bits.
//!
//! The innermost loops count instead of zipping iterators: those are generic functions of the standard library, which the
//! compiler may place where it cannot inline them, and then a call stands in the innermost loop.

use rayon::ThreadPool;
use rayon::prelude::*;

/// Outputs of a panel.
const PANEL: usize = 16;
/// Rows computed together.
const ROWS: usize = 2;

/// The weights of a linear layer: `outputs × inputs`.
#[derive(Debug, Clone)]
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    /// By panel, by input: the weights of the panel's outputs, zeros where there are none.
    panels: Vec<f32>,
}

/// Where the loops run: this thread, or a pool.
#[derive(Debug)]
pub struct Threads(Option<ThreadPool>);

impl Threads {
    /// `count` threads in all, at least 1.
    ///
    /// # Errors
    /// The system refuses threads.
    pub fn new(count: usize) -> Result<Threads, rayon::ThreadPoolBuildError> {
        let pool = (count > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(count).build())
            .transpose()?;
        Ok(Threads(pool))
    }

    /// Calls `work` with the index of each chunk of `chunk` numbers and the chunk.
    pub fn for_each_chunk(
        &self,
        numbers: &mut [f32],
        chunk: usize,
        work: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        match &self.0 {
            None => numbers
                .chunks_mut(chunk)
                .enumerate()
                .for_each(|(index, part)| work(index, part)),
            Some(pool) => pool.install(|| {
                numbers
                    .par_chunks_mut(chunk)
                    .enumerate()
                    .for_each(|(index, part)| work(index, part));
            }),
        }
    }
}

impl Matrix {
    /// From parts of the same number of inputs, one below the other, each `outputs × inputs` row by row.
    #[must_use]
    pub fn stacked(parts: &[Vec<f32>], inputs: usize) -> Matrix {
        let rows = parts.iter().flat_map(|part| part.chunks_exact(inputs));
        let outputs = rows.clone().count();
        let mut panels = vec![0.0; outputs.div_ceil(PANEL) * PANEL * inputs];
        for (output, row) in rows.enumerate() {
            let panel = &mut panels[output / PANEL * PANEL * inputs..][..PANEL * inputs];
            for (at, weight) in row.iter().enumerate() {
                panel[at * PANEL + output % PANEL] = *weight;
            }
        }
        Matrix {
            outputs,
            inputs,
            panels,
        }
    }

    /// Row by row of `x`, the outputs, as rows of `y`. `scratch` is overwritten.
    pub fn multiply(&self, x: &[f32], y: &mut Vec<f32>, scratch: &mut Vec<f32>, threads: &Threads) {
        let rows = x.len() / self.inputs;
        debug_assert_eq!(rows * self.inputs, x.len(), "whole rows");
        scratch.clear();
        scratch.resize(self.outputs.div_ceil(PANEL) * PANEL * rows, 0.0);
        y.clear();
        y.resize(self.outputs * rows, 0.0);
        if rows == 0 {
            return;
        }
        threads.for_each_chunk(scratch, PANEL * rows, |index, out| {
            let weights = &self.panels[index * PANEL * self.inputs..][..PANEL * self.inputs];
            multiply_panel(x, self.inputs, weights, out);
        });
        for (index, panel) in scratch.chunks_exact(PANEL * rows).enumerate() {
            let from = index * PANEL;
            let count = PANEL.min(self.outputs - from);
            for (row, outputs) in panel.chunks_exact(PANEL).enumerate() {
                y[row * self.outputs + from..][..count].copy_from_slice(&outputs[..count]);
            }
        }
    }
}

fn multiply_panel(x: &[f32], inputs: usize, weights: &[f32], out: &mut [f32]) {
    let blocks = x.chunks(ROWS * inputs).zip(out.chunks_mut(ROWS * PANEL));
    for (x, out) in blocks {
        match x.len() / inputs {
            ROWS => multiply_rows::<ROWS>(x, inputs, weights, out),
            _ => multiply_rows::<1>(x, inputs, weights, out),
        }
    }
}

/// Kept apart so that the sums stay in registers.
#[inline(never)]
fn multiply_rows<const R: usize>(x: &[f32], inputs: usize, weights: &[f32], out: &mut [f32]) {
    let weights = weights.as_chunks::<PANEL>().0;
    let rows: [&[f32]; R] = std::array::from_fn(|row| &x[row * inputs..][..weights.len()]);
    let mut sums = [[0.0_f32; PANEL]; R];
    for at in 0..weights.len() {
        let weights = &weights[at];
        for r in 0..R {
            let x = rows[r][at];
            for i in 0..PANEL {
                sums[r][i] += x * weights[i];
            }
        }
    }
    for (out, sums) in out.chunks_exact_mut(PANEL).zip(&sums) {
        out.copy_from_slice(sums);
    }
}

/// `sums[c] += Σ x[r] · rows[r][c]`, the rows `width` numbers apart: each sum in the order of the rows.
pub fn accumulate(sums: &mut [f32], x: &[f32], rows: &[f32], width: usize) {
    let (panels, rest) = sums.as_chunks_mut::<PANEL>();
    let mut from = 0;
    for panel in panels {
        let mut sums = *panel;
        for at in 0..x.len() {
            let row = &rows[at * width + from..][..PANEL];
            for i in 0..PANEL {
                sums[i] += x[at] * row[i];
            }
        }
        *panel = sums;
        from += PANEL;
    }
    for sum in rest {
        for at in 0..x.len() {
            *sum += x[at] * rows[at * width + from];
        }
        from += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let counter = crate::random::Counter::new(seed, "test");
        (0..count as u64).map(|at| counter.normal(at)).collect()
    }

    #[test]
    fn products_are_right_and_do_not_depend_on_rows_or_threads() {
        let (inputs, outputs) = (37, 45);
        let (weights, x) = (numbers(inputs * outputs, 1), numbers(11 * inputs, 2));
        let (top, bottom) = weights.split_at(13 * inputs);
        let matrix = Matrix::stacked(&[top.to_vec(), bottom.to_vec()], inputs);
        let product = |x: &[f32], threads: usize| {
            let (mut y, mut scratch) = (Vec::new(), Vec::new());
            let threads = Threads::new(threads).expect("threads");
            matrix.multiply(x, &mut y, &mut scratch, &threads);
            y
        };
        let all = product(&x, 1);
        for (row, x) in x.chunks(inputs).enumerate() {
            for output in 0..outputs {
                let pairs = x.iter().zip(&weights[output * inputs..]);
                let exact: f64 = pairs.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let found = f64::from(all[row * outputs + output]);
                assert!((found - exact).abs() < 1e-4, "{found} {exact}");
            }
            assert_eq!(product(x, 1), all[row * outputs..][..outputs]);
        }
        assert_eq!(product(&x, 3), all);
        assert_eq!(product(&x[..7 * inputs], 2), all[..7 * outputs]);
    }

    #[test]
    fn sums_of_any_width() {
        let (width, count) = (21, 9);
        let (x, rows) = (numbers(count, 3), numbers(count * width, 4));
        let mut sums = numbers(19, 5);
        let before = sums.clone();
        accumulate(&mut sums, &x, &rows, width);
        for (at, (sum, before)) in sums.iter().zip(before).enumerate() {
            let terms = (0..count).map(|row| f64::from(x[row]) * f64::from(rows[row * width + at]));
            let exact = f64::from(before) + terms.sum::<f64>();
            assert!((f64::from(*sum) - exact).abs() < 1e-5, "{sum} {exact}");
        }
    }
}
