//! How a benchmark was run, where no column says it.
//!
//! Where a row is from shows in its id: InferenceX (formerly InferenceMAX) dumps begin with the date of the run
//! (`2025_…`), sweeps of AIPerf by NVIDIA with the name of the model. What is known of them: InferenceX draws lengths
//! from a range below the given ones (`--random-range-ratio 0.8`) and sends ten requests per client; the AIPerf sweeps
//! ask for prompts of one length, which AIPerf draws from a set of 100 unless told otherwise, and engines were configured
//! for that length, so that a step holds so many prompts rather than so many tokens. There are two of these sweeps: one
//! over round lengths (1000, 2000, …), one over powers of two. Their TensorRT-LLM cuts prompts, as Dynamo's configurations do. How many prompts a step holds and how fast clients sent them
//! are fitted per engine, whether prompts came back per sweep: three numbers for a source.
//!
//! Where a checkpoint's own quantisation is known it takes the place of the row's label: engines run what it holds.

use super::rows::Row;
use calibration::tables::{Backend, Dtype};
use serde::Serialize;
use std::fmt;

/// Requests per client. Both harnesses fit best with ten.
pub const REQUESTS_PER_CLIENT: u32 = 10;

/// Owners whose models NVIDIA publishes in fp8 with static scales, and itself; in small letters.
const STATIC_SCALED: [&str; 2] = ["meta-llama/", "nvidia/"];

/// Checkpoints whose weights are scaled by blocks of 128 x 128, whatever a row calls their format.
const BLOCK_SCALED: [&str; 4] = [
    "deepseek-ai/deepseek-r1",
    "deepseek-ai/deepseek-v3",
    "minimaxai/minimax-m2",
    "qwen/qwen3-235b-a22b-fp8",
];

/// Who ran a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Harness {
    /// InferenceX.
    Inferencex,
    /// Sweeps with AIPerf.
    Aiperf,
}

/// Benchmarks that were run alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Source {
    /// The harness.
    pub harness: Harness,
    /// The engine.
    pub backend: Backend,
    /// Whether lengths are multiples of a hundred.
    pub has_round_lengths: bool,
}

/// What the columns do not say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recipe {
    /// Lengths are drawn evenly from this share of the given ones up to them; 1 for fixed lengths.
    pub shortest: f64,
    /// Microseconds between two requests that clients send, however many wait to.
    pub entry_us: f64,
    /// Different prompts that requests take turns with, so that later ones find them cached; 0: each has its own.
    pub distinct_prompts: u32,
    /// Token budget of a step in prompts of the benchmark's length; 0: the engine's default.
    pub prompts_per_step: f64,
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
            has_round_lengths: row.isl.is_multiple_of(100),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source {
            harness,
            backend,
            has_round_lengths,
        } = self;
        let harness = match harness {
            Harness::Inferencex => "InferenceX",
            Harness::Aiperf => "AIPerf",
        };
        let lengths = if *has_round_lengths {
            "round lengths"
        } else {
            "powers of two"
        };
        write!(f, "{harness} {}, {lengths}", backend.name())
    }
}

impl Harness {
    /// What is known before any fit.
    #[must_use]
    pub const fn known(self) -> Recipe {
        Recipe {
            shortest: match self {
                Harness::Inferencex => 0.8,
                Harness::Aiperf => 1.0,
            },
            entry_us: 0.0,
            distinct_prompts: 0,
            prompts_per_step: 0.0,
        }
    }
}

/// The format of a row's weights: that of the checkpoint where it is known, else the row's label.
// Model: a tensor-scaled fp8 kernel reads what a block-scaled one does; vLLM's tables hold launch time for the latter and
// untuned experts for the former, so that the label alone is off by a factor of two (23 rows of Qwen3-235B).
// Model: fp8 benchmarks of Llama ran NVIDIA's checkpoints, whose scales are static.
#[must_use]
pub fn format_of(model: &str, label: Dtype) -> Dtype {
    let model = model.to_ascii_lowercase();
    let is_scaled = BLOCK_SCALED.iter().any(|known| model.starts_with(known));
    match label {
        Dtype::Fp8 if is_scaled => Dtype::Fp8Block,
        Dtype::Fp8 if STATIC_SCALED.iter().any(|owner| model.starts_with(owner)) => {
            Dtype::Fp8Static
        }
        other => other,
    }
}
