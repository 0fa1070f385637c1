//! Runs planned steps with a real transformer, so that a simulation can be checked against the thing itself.
//!
//! An [`engine::Executor`] is handed what a scheduler planned ([`engine::Batch`]: sequences, positions, block tables) and
//! computes exactly that. Here is the one for CPUs, a plain decoder in f32:
//!
//! | Place | What |
//! |---|---|
//! | [`config`] | which decoder: the shape from a Hugging Face `config.json` |
//! | [`weights`] | its weights: generated from a seed, or read from safetensors |
//! | [`tokens`] | which tokens: prompts from the workload, answers as they are sampled |
//! | `kv_pool` | paged keys and values in the blocks of the scheduler |
//! | `matrix`, `attention` | the two loops that take the time |
//! | [`cpu`] | the forward pass |
//! | [`sweep`], [`waves`] | which steps to measure for a calibration, which traffic to serve for it |
//! | [`ops`] | where the time of a pass goes |
//! | [`copies`] | KV blocks between the pool and the host |
//! | [`cuda`] | the same on NVIDIA GPUs, in bf16 (feature `cuda`) |
//! | [`worker`] | either of them |
//!
//! Every number is computed in the same order whatever else is in the batch, however a prompt is cut into chunks and
//! however many threads take part: a request's tokens are the same, bit for bit, as when it runs alone.

mod attention;
pub mod config;
pub mod copies;
pub mod cpu;
pub mod cuda;
mod exponential;
mod kv_pool;
mod matrix;
pub mod memory;
pub mod ops;
pub mod random;
mod rotary;
pub mod sweep;
pub mod tokens;
pub mod waves;
pub mod weights;
pub mod worker;

pub use config::ModelConfig;
pub use cpu::{CpuExecutor, CpuSettings, Model};
pub use memory::{Memory, available_memory};
pub use tokens::Tokens;
pub use weights::WeightSource;

use std::path::PathBuf;

/// Why a model cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everything that is wrong with a configuration or with weights, one sentence each with its place.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// The machine has too little memory.
    #[error("{0}")]
    TooLarge(String),
}
