//! The least times of kernels as AIConfigurator 0.12 has them (`aic-timing` §3.1), in milliseconds.
//!
//! They carry readings beyond the measured points, so they must be the same formulas as those with which the tables are
//! to be compared. Our own estimate of an unmeasured machine is [`crate::roofline`].

use crate::tables::{ContextKey, Dtype, GenerationKey, Machine};

/// Milliseconds of the longer of arithmetic and memory traffic.
fn longer(flops: f64, flops_per_s: f64, bytes: f64, bytes_per_s: f64) -> f64 {
    (flops / flops_per_s * 1e3).max(bytes / bytes_per_s * 1e3)
}

/// The floor of matrix products of one format.
#[derive(Debug, Clone, Copy)]
pub struct GemmFloor {
    flops_per_s: f64,
    bytes_per_s: f64,
    bytes: f64,
}

/// Of a product (m, k) x (k, n): 2mnk operations; all three operands in the format of the weights. None where the GPU
/// has no units for it.
#[must_use]
pub fn gemm(machine: &Machine, dtype: Dtype) -> Option<GemmFloor> {
    let flops_per_s = machine.flops(dtype)?;
    Some(GemmFloor {
        flops_per_s,
        bytes_per_s: machine.memory_bytes_per_s,
        bytes: dtype.bytes(),
    })
}

impl GemmFloor {
    /// Of m rows, n columns, sums of k.
    #[must_use]
    pub fn ms(&self, m: f64, n: f64, k: f64) -> f64 {
        let bytes = self.bytes * (m * n + m * k + n * k);
        longer(2.0 * m * n * k, self.flops_per_s, bytes, self.bytes_per_s)
    }
}

/// The floor of one kind of attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionFloor {
    flops_per_s: f64,
    bytes_per_s: f64,
    kv_bytes: f64,
    kv_heads: u32,
    head_dim: f64,
    window: u32,
}

impl AttentionFloor {
    fn kv_heads(&self, heads: f64) -> f64 {
        if self.kv_heads == 0 {
            heads
        } else {
            f64::from(self.kv_heads)
        }
    }
}

/// The floor of attention over whole prompts.
#[derive(Debug, Clone, Copy)]
pub struct ContextFloor(AttentionFloor);

/// The floor of decode attention.
#[derive(Debug, Clone, Copy)]
pub struct GenerationFloor(AttentionFloor);

/// Of attention over prompts; none where the GPU has no units for it.
#[must_use]
pub fn context(machine: &Machine, key: ContextKey) -> Option<ContextFloor> {
    Some(ContextFloor(AttentionFloor {
        flops_per_s: machine.flops(key.attention)?,
        bytes_per_s: machine.memory_bytes_per_s,
        kv_bytes: key.kv_cache.bytes(),
        kv_heads: key.kv_heads,
        head_dim: f64::from(key.head_dim),
        window: key.window,
    }))
}

/// Of decode attention: an fp8 KV cache computes in fp8 where there are such units.
#[must_use]
pub fn generation(machine: &Machine, key: GenerationKey) -> Option<GenerationFloor> {
    let computes_fp8 = key.kv_cache == Dtype::Fp8 && machine.sm_version >= 89;
    let flops_per_s = machine.flops(if computes_fp8 {
        Dtype::Fp8
    } else {
        Dtype::Bfloat16
    })?;
    Some(GenerationFloor(AttentionFloor {
        flops_per_s,
        bytes_per_s: machine.memory_bytes_per_s,
        kv_bytes: key.kv_cache.bytes(),
        kv_heads: key.kv_heads,
        head_dim: f64::from(key.head_dim),
        window: key.window,
    }))
}

impl ContextFloor {
    /// Of [query heads, tokens, batch]: half of the square of the tokens, or tokens x window.
    #[must_use]
    pub fn ms(&self, [heads, tokens, batch]: [f64; 3]) -> f64 {
        let floor = &self.0;
        let window = f64::from(floor.window);
        let pairs = if floor.window > 0 && tokens > window {
            2.0 * tokens * window
        } else {
            tokens * tokens
        };
        let flops = 2.0 * batch * pairs * heads * floor.head_dim;
        let kv = floor.kv_bytes * 2.0 * floor.kv_heads(heads) * tokens * floor.head_dim;
        let bytes = batch * (4.0 * heads * tokens * floor.head_dim + kv);
        longer(flops, floor.flops_per_s, bytes, floor.bytes_per_s)
    }
}

impl GenerationFloor {
    /// Of [query heads, batch, tokens in the KV cache with the new one].
    #[must_use]
    pub fn ms(&self, [heads, batch, tokens]: [f64; 3]) -> f64 {
        let floor = &self.0;
        let window = if floor.window > 0 {
            f64::from(floor.window)
        } else {
            f64::INFINITY
        };
        let past = (tokens - 1.0).min(window);
        let flops = 4.0 * batch * heads * floor.head_dim * past;
        let kv = 2.0 * floor.kv_heads(heads) * past * floor.head_dim * floor.kv_bytes;
        let bytes = batch * (4.0 * heads * floor.head_dim + kv);
        longer(flops, floor.flops_per_s, bytes, floor.bytes_per_s)
    }
}

/// Of a ring all-reduce of `elements` 16-bit numbers over `gpus`.
#[must_use]
pub fn all_reduce(machine: &Machine, gpus: u32, elements: f64) -> f64 {
    let n = f64::from(gpus);
    4.0 * elements * (n - 1.0) / n / machine.link_bytes_per_s(gpus) * 1e3
}
