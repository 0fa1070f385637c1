//! How a benchmark was run, where no column says it.
//!
//! Where a row is from shows in its id: InferenceX (formerly InferenceMAX) dumps begin with the date of the run
//! (`2025_…`), sweeps of AIPerf by NVIDIA with the name of the model. What is known of them: InferenceX draws lengths
//! from a range below the given ones (`--random-range-ratio 0.8`) and sends ten requests per client; the AIPerf sweeps
//! send prompts of one length. The rest is fitted, two numbers per harness and engine.

use super::rows::Row;
use calibration::tables::Backend;
use serde::Serialize;

/// Who ran a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Harness {
    /// InferenceX.
    Inferencex,
    /// Sweeps with AIPerf.
    Aiperf,
}

/// A harness with an engine behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Source {
    /// The harness.
    pub harness: Harness,
    /// The engine.
    pub backend: Backend,
}

/// What the columns do not say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recipe {
    /// Lengths are drawn evenly from this share of the given ones up to them; 1 for fixed lengths.
    pub shortest: f64,
    /// Requests sent per client.
    pub requests_per_client: u32,
}

impl Source {
    /// Where a row is from.
    #[must_use]
    pub fn of(row: &Row, backend: Backend) -> Source {
        let is_dated = row.id.starts_with(|first: char| first.is_ascii_digit());
        Source {
            harness: if is_dated {
                Harness::Inferencex
            } else {
                Harness::Aiperf
            },
            backend,
        }
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> String {
        let harness = match self.harness {
            Harness::Inferencex => "InferenceX",
            Harness::Aiperf => "AIPerf",
        };
        format!("{harness} {}", self.backend.name())
    }

    /// What is known before any fit.
    #[must_use]
    pub const fn known(self) -> Recipe {
        match self.harness {
            Harness::Inferencex => Recipe {
                shortest: 0.8,
                requests_per_client: 10,
            },
            Harness::Aiperf => Recipe {
                shortest: 1.0,
                requests_per_client: 10,
            },
        }
    }
}
