//! Real serving benchmarks, simulated as they were run.
//!
//! A row of a file is one benchmark: a model on some GPUs under an engine, so many clients that each send a request when
//! the one before has been answered, prompts and answers of given lengths; and what was measured, mean TTFT and mean
//! TPOT. [`simulate`] runs it through the simulator, [`statistics`] compares, [`fit`] finds the parameters that no
//! column holds, on all groups of rows but the one they are judged on.

pub mod fit;
pub mod recipe;
pub mod rows;
pub mod simulate;
pub mod statistics;

pub use fit::{Fitted, Parameters};
pub use recipe::{Recipe, Source};
pub use rows::{Benchmarks, Pair, Row};
pub use simulate::{Prediction, Subject};
pub use statistics::{Errors, errors};

/// Why a file of benchmarks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// What is wrong in it, everything at once.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}
