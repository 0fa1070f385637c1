//! Whether a model and its KV pools fit into this machine, before anything is allocated.

use crate::config::ModelConfig;
use std::fs;

/// What a run needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Weights, one copy for all workers.
    pub weights: u64,
    /// KV pools of all workers.
    pub kv: u64,
    /// Activations of all workers.
    pub activations: u64,
}

impl Memory {
    /// Of workers with so many KV blocks, of so many tokens, that compute so many tokens in a step at most.
    #[must_use]
    pub fn needed(model: &ModelConfig, workers: &[(u32, u32, u32)]) -> Memory {
        let f32s = |numbers: u64| numbers * size_of::<f32>() as u64;
        let per_token = 4 * model.hidden
            + 3 * model.heads * model.head_dim
            + 2 * model.kv_width()
            + 5 * model.intermediate;
        let mut memory = Memory {
            // The embedding is kept beside the packed head.
            weights: f32s(model.parameters() + (model.vocab * model.hidden) as u64),
            kv: 0,
            activations: 0,
        };
        for &(blocks, block_size, step_tokens) in workers {
            memory.kv += u64::from(blocks) * u64::from(block_size) * model.kv_bytes_per_token();
            memory.activations += f32s(u64::from(step_tokens) * per_token as u64);
        }
        memory
    }

    /// All together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.weights + self.kv + self.activations
    }
}

/// Bytes that programs can still have (`MemAvailable`); `None` where the system does not say.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kib)
}
