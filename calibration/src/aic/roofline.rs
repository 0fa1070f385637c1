//! The least times of kernels as AIConfigurator 0.12 has them (`aic-timing` §3.1), in milliseconds.
//!
//! They carry readings beyond the measured points, so they must be the same formulas as those with which the tables are
//! to be compared. Our own estimate of an unmeasured machine is [`crate::roofline`].

use crate::tables::{ContextKey, Dtype, ExpertKey, GenerationKey, LatentKey, Machine};

/// The least time of a kernel at a place of its grid.
pub trait Floor<const N: usize> {
    /// Milliseconds.
    fn ms(&self, at: [f64; N]) -> f64;
}

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

impl Floor<3> for ContextFloor {
    /// Of [query heads, tokens, batch]: half of the square of the tokens, or tokens x window.
    fn ms(&self, [heads, tokens, batch]: [f64; 3]) -> f64 {
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

impl Floor<3> for GenerationFloor {
    /// Of [query heads, batch, tokens in the KV cache with the new one].
    fn ms(&self, [heads, batch, tokens]: [f64; 3]) -> f64 {
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

/// The floor of a ring all-reduce of 16-bit numbers.
#[derive(Debug, Clone, Copy)]
pub struct AllReduceFloor {
    gpus: f64,
    bytes_per_s: f64,
}

/// Of a ring all-reduce over `gpus`.
#[must_use]
pub fn all_reduce(machine: &Machine, gpus: u32) -> AllReduceFloor {
    AllReduceFloor {
        gpus: f64::from(gpus),
        bytes_per_s: machine.link_bytes_per_s(gpus),
    }
}

impl Floor<1> for AllReduceFloor {
    /// Of [elements].
    fn ms(&self, [elements]: [f64; 1]) -> f64 {
        4.0 * elements * (self.gpus - 1.0) / self.gpus / self.bytes_per_s * 1e3
    }
}

/// Sizes of latent attention (MLA) as DeepSeek has them; the tables know no others.
mod latent {
    /// Query or key head with its positions, and value head, of a prompt.
    pub(super) const HEADS: f64 = 192.0 + 128.0;
    /// The latent vector and the position of a token.
    pub(super) const CACHED: f64 = 512.0 + 64.0;
    /// What a head of a decode reads and writes: a query of 576 and a result of 512.
    pub(super) const ABSORBED: f64 = CACHED + 512.0;
    /// The matrix between a head of 128 and the latent vector.
    pub(super) const MATRIX: f64 = 128.0 * 512.0;
    /// What a token of a head reads and writes there.
    pub(super) const SIDES: f64 = 128.0 + 512.0;
}

/// The floor of latent attention over whole prompts.
#[derive(Debug, Clone, Copy)]
pub struct LatentContextFloor {
    flops_per_s: f64,
    bytes_per_s: f64,
    kv_bytes: f64,
}

/// Of latent attention over prompts, also where its projections were measured along with it; none where the GPU has no
/// units for it.
#[must_use]
pub fn latent_context(machine: &Machine, key: LatentKey) -> Option<LatentContextFloor> {
    Some(LatentContextFloor {
        flops_per_s: machine.flops(key.attention)?,
        bytes_per_s: machine.memory_bytes_per_s,
        kv_bytes: key.kv_cache.bytes(),
    })
}

impl Floor<3> for LatentContextFloor {
    /// Of [query heads, tokens, batch].
    fn ms(&self, [heads, tokens, batch]: [f64; 3]) -> f64 {
        let flops = batch * heads * latent::HEADS * tokens * tokens;
        let bytes = batch * heads * latent::HEADS * tokens * (self.kv_bytes + 2.0);
        longer(flops, self.flops_per_s, bytes, self.bytes_per_s)
    }
}

/// The floor of latent decode attention.
#[derive(Debug, Clone, Copy)]
pub struct LatentGenerationFloor {
    flops_per_s: f64,
    bytes_per_s: f64,
    kv_bytes: f64,
    absorb: Option<AbsorbFloor>,
}

/// Of latent decode attention, with the products into and out of the latent space where its projections were measured
/// along with it; none where the GPU has no units for it.
#[must_use]
pub fn latent_generation(machine: &Machine, key: LatentKey) -> Option<LatentGenerationFloor> {
    let computes_fp8 = key.kv_cache == Dtype::Fp8 && machine.sm_version >= 89;
    let arithmetic = if computes_fp8 {
        Dtype::Fp8
    } else {
        Dtype::Bfloat16
    };
    let absorb = match key.block {
        Some(block) => Some(absorb(machine, absorbed_in(block))?),
        None => None,
    };
    Some(LatentGenerationFloor {
        flops_per_s: machine.flops(arithmetic)?,
        bytes_per_s: machine.memory_bytes_per_s,
        kv_bytes: key.kv_cache.bytes(),
        absorb,
    })
}

impl Floor<3> for LatentGenerationFloor {
    /// Of [query heads, batch, tokens in the KV cache with the new one].
    fn ms(&self, [heads, batch, tokens]: [f64; 3]) -> f64 {
        let flops = 2.0 * batch * heads * latent::ABSORBED * tokens;
        let past = (tokens - 1.0) * latent::CACHED * self.kv_bytes;
        let bytes = batch * (2.0 * heads * latent::ABSORBED + past);
        let attention = [flops / self.flops_per_s, bytes / self.bytes_per_s];
        let absorbed = self.absorb.map_or([0.0; 2], |floor| {
            floor.seconds(heads, batch).map(|seconds| 2.0 * seconds)
        });
        (attention[0] + absorbed[0]).max(attention[1] + absorbed[1]) * 1e3
    }
}

/// The format in which queries are taken into the latent space when the projections have another.
#[must_use]
pub fn absorbed_in(projections: Dtype) -> Dtype {
    if projections == Dtype::Bfloat16 {
        Dtype::Bfloat16
    } else {
        Dtype::Fp8
    }
}

/// The floor of a product into or out of the latent space.
#[derive(Debug, Clone, Copy)]
pub struct AbsorbFloor {
    flops_per_s: f64,
    bytes_per_s: f64,
    bytes: f64,
}

/// Of a product into or out of the latent space; none where the GPU has no units for it.
#[must_use]
pub fn absorb(machine: &Machine, dtype: Dtype) -> Option<AbsorbFloor> {
    Some(AbsorbFloor {
        flops_per_s: machine.flops(dtype)?,
        bytes_per_s: machine.memory_bytes_per_s,
        bytes: dtype.bytes(),
    })
}

impl AbsorbFloor {
    /// Of arithmetic and of memory traffic.
    fn seconds(&self, heads: f64, tokens: f64) -> [f64; 2] {
        let flops = 2.0 * tokens * heads * latent::MATRIX;
        let bytes = self.bytes * heads * (tokens * latent::SIDES + latent::MATRIX);
        [flops / self.flops_per_s, bytes / self.bytes_per_s]
    }

    /// For so many query heads.
    #[must_use]
    pub fn of_heads(self, heads: u32) -> AbsorbHeadsFloor {
        AbsorbHeadsFloor {
            floor: self,
            heads: f64::from(heads),
        }
    }
}

/// The floor of a product into or out of the latent space for some query heads.
#[derive(Debug, Clone, Copy)]
pub struct AbsorbHeadsFloor {
    floor: AbsorbFloor,
    heads: f64,
}

impl Floor<1> for AbsorbHeadsFloor {
    /// Of [tokens].
    fn ms(&self, [tokens]: [f64; 1]) -> f64 {
        let [arithmetic, memory] = self.floor.seconds(self.heads, tokens);
        arithmetic.max(memory) * 1e3
    }
}

/// The floor of expert FFNs.
#[derive(Debug, Clone, Copy)]
pub struct ExpertFloor {
    key: ExpertKey,
    flops_per_s: f64,
    bytes_per_s: f64,
}

/// Of gated experts; none where the GPU has no units for their format.
#[must_use]
pub fn experts(machine: &Machine, key: ExpertKey) -> Option<ExpertFloor> {
    Some(ExpertFloor {
        key,
        flops_per_s: machine.flops(key.dtype)?,
        bytes_per_s: machine.memory_bytes_per_s,
    })
}

impl Floor<1> for ExpertFloor {
    /// Of [tokens]: every token to `top_k` experts, and as many experts' weights as there are tokens for.
    fn ms(&self, [tokens]: [f64; 1]) -> f64 {
        let key = &self.key;
        let [hidden, size] = [key.hidden, key.intermediate].map(f64::from);
        let [tp, ep] = [key.tensor_parallel, key.expert_parallel].map(f64::from);
        let spread = tokens * f64::from(key.top_k);
        let here = (spread / ep).floor();
        let matrices = 3.0 * size;
        let flops = 2.0 * spread * hidden * matrices / (ep * tp);
        let weights =
            (hidden * matrices / tp).floor() * (f64::from(key.experts) / ep).floor().min(here);
        let numbers = 2.0 * here * hidden + (here * matrices / tp).floor() + weights;
        let bytes = key.dtype.bytes() * numbers;
        longer(flops, self.flops_per_s, bytes, self.bytes_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{Backend, Load, Profile};

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
    }

    /// Values that AIConfigurator's engine gives for H200 at the speed of light (its mode `SOL`).
    #[test]
    fn latent_attention_and_experts_have_the_reference_floors() {
        let profile = Profile::embedded("h200_sxm", Backend::Vllm).expect("embedded");
        let key = |kv_cache, block| LatentKey {
            attention: Dtype::Bfloat16,
            kv_cache,
            block,
        };
        let machine = &profile.machine;
        let prompts = latent_context(machine, key(Dtype::Fp8, None)).expect("units");
        close(prompts.ms([16.0, 4_096.0, 8.0]), 0.694_837_985_197_168_9);
        close(prompts.ms([16.0, 1.0, 1.0]), 3.2e-6);
        let decodes = latent_generation(machine, key(Dtype::Bfloat16, None)).expect("units");
        close(decodes.ms([16.0, 1.0, 4_097.0]), 9.902_933_333_333_333e-4);
        close(
            decodes.ms([128.0, 1.0, 4_097.0]),
            1.153_821_249_747_219_4e-3,
        );
        let block = key(Dtype::Fp8, Some(Dtype::Fp8Block));
        let blocks = latent_generation(machine, block).expect("units");
        close(blocks.ms([16.0, 64.0, 4_096.0]), 3.262_378_666_666_667e-2);
        let product = absorb(machine, Dtype::Bfloat16).expect("units");
        close(product.of_heads(128).ms([20_000.0]), 0.686_161_92);
        for (tokens, tensor_parallel, expert_parallel, ms) in [
            (1.0, 1, 1, 7.343_445_333_333_333e-2),
            (100.0, 1, 8, 0.294_027_946_666_666_65),
            (100.0, 8, 1, 0.296_118_613_333_333_34),
            (32_768.0, 1, 8, 1.459_159_768_914_054_5),
        ] {
            let key = ExpertKey {
                dtype: Dtype::Fp8Block,
                top_k: 8,
                experts: 256,
                hidden: 7_168,
                intermediate: 2_048,
                tensor_parallel,
                expert_parallel,
                load: Load::PowerLaw(101),
            };
            let floor = experts(machine, key).expect("units");
            close(floor.ms([tokens]), ms);
        }
    }
}
