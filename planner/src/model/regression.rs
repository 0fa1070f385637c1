//! Learned from forward passes: the time of a pass as a line in two features.
//!
//! A pass has two features. *Attention*, the most any rank has: cached context that prefill and decode read, plus the pairs of
//! prompt tokens that look at each other, `kv·p/n + p²/2n + p/2` for `p` prompt tokens in `n` requests. *Feed-forward*, summed
//! over ranks: prompt tokens and decoding requests. Its time is the longest of its ranks.
//!
//! Passes are kept apart by what they mix: prefill only, decode only, both on every rank that works, both on different ranks.
//! Workers that only do one thing have one store, and the other thing's work does not count. A store is fitted by least squares
//! on standardised features with a free intercept and slopes that are not negative: every subset of slopes is tried, the
//! smallest squared error wins. A store is ready after `min_observations`; an estimate asks the store of its own mix.
//!
//! A full store (over all: `max_observations`) forgets the oldest pass of its fullest cell, cells being a grid over the
//! logarithms of the features. Source: the regression of Dynamo 1.6.1's planner (aisimulate-core 0.13.0).
//!
//! Model: among equally full cells the native code picks by hash order, which no two runs share; here it is the cell that holds
//! the oldest pass. Six runs of the native code over 160 samples lay up to 3.5 % apart; below `max_observations` there is no
//! difference.

use super::{ForwardPassModel, WorkerKind, solve};
use crate::observe::Work;

/// What is kept and when it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegressionConfig {
    /// Passes a store needs before it estimates.
    pub min_observations: usize,
    /// Passes kept per store.
    pub max_observations: usize,
    /// Cells of the grid per store; a square number.
    pub buckets: usize,
}

/// A line in two features, per mix of work.
#[derive(Debug, Clone)]
pub struct Regression {
    kind: WorkerKind,
    config: RegressionConfig,
    stores: [Store; 4],
}

/// Which passes are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    Prefill,
    Decode,
    /// Prefill and decode, with a rank that does both.
    Local,
    /// Prefill and decode, no rank does both.
    Across,
}

type Features = [f64; 2];

#[derive(Debug, Clone, Default)]
struct Store {
    passes: Vec<(Features, f64)>,
    fit: Option<Fit>,
}

impl Regression {
    /// Without any pass yet.
    #[must_use]
    pub fn new(kind: WorkerKind, config: RegressionConfig) -> Self {
        Regression {
            kind,
            config,
            stores: Default::default(),
        }
    }

    /// The part of a rank's work that counts for this kind of worker.
    fn relevant(&self, work: &Work) -> Work {
        match self.kind {
            WorkerKind::Aggregated => *work,
            WorkerKind::Prefill => Work {
                decode_requests: 0,
                decode_kv_tokens: 0,
                ..*work
            },
            WorkerKind::Decode => Work {
                decode_requests: work.decode_requests,
                decode_kv_tokens: work.decode_kv_tokens,
                ..Work::default()
            },
        }
    }

    /// The store and the features of a pass; `None` if it does nothing.
    fn place(&self, ranks: &[Work]) -> Option<(Mix, Features)> {
        let ranks: Vec<Work> = ranks.iter().map(|work| self.relevant(work)).collect();
        let has_prefill = |work: &Work| work.prefill_tokens > 0;
        let has_decode = |work: &Work| work.decode_requests > 0;
        let mix = match (
            ranks.iter().any(has_prefill),
            ranks.iter().any(has_decode),
            ranks
                .iter()
                .any(|work| has_prefill(work) && has_decode(work)),
        ) {
            (false, false, _) => return None,
            (true, false, _) => Mix::Prefill,
            (false, true, _) => Mix::Decode,
            (true, true, true) => Mix::Local,
            (true, true, false) => Mix::Across,
        };
        let attention = ranks.iter().map(attention).fold(0.0, f64::max);
        let feed_forward = ranks
            .iter()
            .map(|work| (work.prefill_tokens + work.decode_requests) as f64)
            .sum();
        Some((mix, [attention, feed_forward]))
    }
}

/// Context read and pairs of prompt tokens, on one rank.
fn attention(work: &Work) -> f64 {
    let (tokens, cached) = (work.prefill_tokens as f64, work.prefill_kv_tokens as f64);
    let pairs = if work.prefill_tokens == 0 {
        0.0
    } else {
        let requests = work.prefill_requests.max(1) as f64;
        cached * tokens / requests + tokens * tokens / (2.0 * requests) + tokens / 2.0
    };
    cached + work.decode_kv_tokens as f64 + pairs
}

impl ForwardPassModel for Regression {
    fn estimate_ms(&self, ranks: &[Work]) -> Option<f64> {
        let Some((mix, features)) = self.place(ranks) else {
            return Some(0.0);
        };
        let fit = self.stores[mix as usize].fit.as_ref()?;
        Some(fit.predict(features).max(1e-6))
    }

    fn observe(&mut self, ranks: &[(Work, f64)]) {
        let works: Vec<Work> = ranks.iter().map(|(work, _)| *work).collect();
        let wall_time_s = ranks.iter().map(|(_, time)| *time).fold(0.0, f64::max);
        let Some((mix, features)) = self.place(&works) else {
            return;
        };
        if wall_time_s <= 0.0 || !wall_time_s.is_finite() {
            return;
        }
        let store = &mut self.stores[mix as usize];
        store.passes.push((features, wall_time_s * 1e3));
        if store.passes.len() > self.config.max_observations {
            let oldest = store.oldest_of_fullest_cell(self.config.buckets.isqrt().max(1));
            store.passes.remove(oldest);
        }
        let is_enough = store.passes.len() >= self.config.min_observations;
        store.fit = if is_enough { fit(&store.passes) } else { None };
    }

    fn is_ready(&self) -> bool {
        self.stores.iter().any(|store| store.fit.is_some())
    }

    fn retained(&self) -> usize {
        self.stores.iter().map(|store| store.passes.len()).sum()
    }

    fn boxed(&self) -> Box<dyn ForwardPassModel> {
        Box::new(self.clone())
    }
}

impl Store {
    /// The place of the pass to forget: the first one of the cell with most, and of the first such cell.
    fn oldest_of_fullest_cell(&self, side: usize) -> usize {
        let log = |features: Features| features.map(f64::ln_1p);
        let mut bounds = [[f64::INFINITY, f64::NEG_INFINITY]; 2];
        for (features, _) in &self.passes {
            for (bound, value) in bounds.iter_mut().zip(log(*features)) {
                *bound = [bound[0].min(value), bound[1].max(value)];
            }
        }
        let cell_of = |features: Features| {
            let along = |axis: usize| {
                let [low, high] = bounds[axis];
                if high <= low {
                    return 0;
                }
                let share = (log(features)[axis] - low) / (high - low);
                ((share * side as f64) as usize).min(side - 1)
            };
            along(0) * side + along(1)
        };
        let cells: Vec<usize> = self.passes.iter().map(|pass| cell_of(pass.0)).collect();
        let mut filled = vec![0usize; side * side];
        for &cell in &cells {
            filled[cell] += 1;
        }
        let most = filled.iter().copied().max().unwrap_or(0);
        cells
            .iter()
            .position(|&cell| filled[cell] == most)
            .expect("the fullest cell holds a pass")
    }
}

/// A line in standardised features.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fit {
    intercept: f64,
    slope: Features,
    mean: Features,
    scale: Features,
}

impl Fit {
    fn predict(&self, features: Features) -> f64 {
        let term =
            |axis: usize| self.slope[axis] * (features[axis] - self.mean[axis]) / self.scale[axis];
        self.intercept + term(0) + term(1)
    }
}

/// Least squares with slopes that are not negative; `None` if no slope is left where there are more passes than axes.
fn fit(passes: &[(Features, f64)]) -> Option<Fit> {
    let count = passes.len() as f64;
    let mean_of =
        |value: &dyn Fn(&(Features, f64)) -> f64| passes.iter().map(value).sum::<f64>() / count;
    let mean = [0, 1].map(|axis| mean_of(&|pass| pass.0[axis]));
    let spread = [0, 1].map(|axis| mean_of(&|pass| (pass.0[axis] - mean[axis]).powi(2)).sqrt());
    let axes: Vec<usize> = [0, 1]
        .into_iter()
        .filter(|&axis| spread[axis] > 1e-12 * mean[axis].abs().max(1.0))
        .collect();
    let scale = [0, 1].map(|axis| {
        if axes.contains(&axis) {
            spread[axis]
        } else {
            1.0
        }
    });
    let intercept = mean_of(&|pass| pass.1);
    let standard = |pass: &(Features, f64), axis: usize| (pass.0[axis] - mean[axis]) / scale[axis];

    let mut best: Option<(f64, Features)> = None;
    for subset in 0..1usize << axes.len() {
        let active: Vec<usize> = (0..axes.len())
            .filter(|bit| subset >> bit & 1 == 1)
            .map(|bit| axes[bit])
            .collect();
        let Some(slope) = slopes(passes, &active, intercept, &standard) else {
            continue;
        };
        if slope.iter().any(|&slope| slope < 0.0) {
            continue;
        }
        let error: f64 = passes
            .iter()
            .map(|pass| {
                let line: f64 = active
                    .iter()
                    .map(|&axis| slope[axis] * standard(pass, axis))
                    .sum();
                (pass.1 - intercept - line).powi(2)
            })
            .sum();
        if best.is_none_or(|(least, _)| error < least) {
            best = Some((error, slope));
        }
    }
    let (_, slope) = best?;
    let is_flat = slope == [0.0, 0.0];
    if is_flat && passes.len() > axes.len() {
        return None;
    }
    Some(Fit {
        intercept,
        slope,
        mean,
        scale,
    })
}

/// The slopes of the active axes, the others zero. The features are centred, so the intercept is the mean by itself.
fn slopes(
    passes: &[(Features, f64)],
    active: &[usize],
    intercept: f64,
    standard: &impl Fn(&(Features, f64), usize) -> f64,
) -> Option<Features> {
    let product = |a: usize, b: usize| -> f64 {
        passes
            .iter()
            .map(|pass| standard(pass, a) * standard(pass, b))
            .sum()
    };
    let matrix: Vec<Vec<f64>> = active
        .iter()
        .map(|&a| active.iter().map(|&b| product(a, b)).collect())
        .collect();
    let right: Vec<f64> = active
        .iter()
        .map(|&axis| {
            passes
                .iter()
                .map(|pass| standard(pass, axis) * (pass.1 - intercept))
                .sum()
        })
        .collect();
    let solution = solve(matrix.clone(), right.clone()).or_else(|| {
        let trace: f64 = (0..active.len()).map(|i| matrix[i][i]).sum();
        let mut ridged = matrix;
        for (i, row) in ridged.iter_mut().enumerate() {
            row[i] += 1e-9 * trace;
        }
        solve(ridged, right)
    })?;
    let mut slope = [0.0; 2];
    for (&axis, value) in active.iter().zip(solution) {
        slope[axis] = value;
    }
    Some(slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(requests: u64, context: u64) -> Work {
        Work {
            decode_requests: requests,
            decode_kv_tokens: context,
            ..Work::default()
        }
    }

    fn regression(min_observations: usize, max_observations: usize) -> Regression {
        let config = RegressionConfig {
            min_observations,
            max_observations,
            buckets: 16,
        };
        Regression::new(WorkerKind::Decode, config)
    }

    #[test]
    fn a_line_is_found_and_continued() {
        let mut model = regression(4, 64);
        let time_ms =
            |requests: u64, context: u64| 5.0 + 0.02 * requests as f64 + 1e-4 * context as f64;
        for (requests, context) in [(1, 4000), (8, 9000), (3, 30000), (20, 26000)] {
            assert_eq!(model.estimate_ms(&[decode(4, 8000)]), None);
            model.observe(&[(decode(requests, context), time_ms(requests, context) / 1e3)]);
        }
        let estimate = model.estimate_ms(&[decode(40, 100_000)]).unwrap();
        assert!((estimate - time_ms(40, 100_000)).abs() < 1e-9);
        assert_eq!(model.estimate_ms(&[Work::default()]), Some(0.0));
    }

    #[test]
    fn slopes_are_never_negative() {
        let mut model = regression(3, 64);
        for (context, ms) in [(1000, 9.0), (2000, 8.0), (3000, 7.0), (3000, 7.5)] {
            model.observe(&[(decode(1, context), ms / 1e3)]);
        }
        assert_eq!(
            model.estimate_ms(&[decode(1, 2000)]),
            None,
            "no slope is left"
        );
    }

    #[test]
    fn a_full_store_forgets_from_the_fullest_cell() {
        let mut model = regression(1, 3);
        for context in [100, 100_000, 101, 102] {
            model.observe(&[(decode(1, context), 0.01)]);
        }
        let kept: Vec<f64> = model.stores[Mix::Decode as usize]
            .passes
            .iter()
            .map(|pass| pass.0[0])
            .collect();
        assert_eq!(kept, [100_000.0, 101.0, 102.0]);
    }
}
