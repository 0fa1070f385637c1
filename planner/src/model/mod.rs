//! How long a forward pass takes: what the planner's estimates stand on.
//!
//! The planner asks for passes that did not happen (the queue as one batch, one worker fewer, a batch of the predicted
//! lengths), so it needs a function of the work. Three kinds: [`Analytic`], a formula; [`Regression`], learned from the passes
//! that workers report; [`Profile`], the timing model of a simulation. Others implement the trait.

mod analytic;
mod profile;
mod regression;
mod solve;

pub use analytic::Analytic;
pub use profile::Profile;
pub use regression::{Regression, RegressionConfig};
pub(crate) use solve::solve;

use crate::observe::Work;
use std::fmt::Debug;

/// What workers of a pool do, as estimates see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerKind {
    /// Prefill only.
    Prefill,
    /// Decode only.
    Decode,
    /// Both.
    Aggregated,
}

/// The time of forward passes.
pub trait ForwardPassModel: Debug + Send + Sync {
    /// Milliseconds, a finite number, of one pass in which each attention-data-parallel rank does its share; `None` while
    /// it cannot say. A pass without work takes no time.
    fn estimate_ms(&self, ranks: &[Work]) -> Option<f64>;

    /// A pass that happened: each rank's work and its time in seconds. Models that do not learn ignore it.
    fn observe(&mut self, ranks: &[(Work, f64)]) {
        let _ = ranks;
    }

    /// Whether it can say anything.
    fn is_ready(&self) -> bool {
        true
    }

    /// Passes that it keeps to learn from.
    fn retained(&self) -> usize {
        0
    }

    /// A copy with all it learned.
    fn boxed(&self) -> Box<dyn ForwardPassModel>;
}

impl Clone for Box<dyn ForwardPassModel> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}
