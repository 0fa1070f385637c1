//! What a table of a profile is about: one key per measured kernel and number format.
//!
//! A key is kept in files as a few numbers ([`BlockKey`]), formats by their place in [`Dtype::ALL`], and is written out
//! in words where something was not measured.

use super::Dtype;
use std::fmt;

/// Which attention over prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContextKey {
    /// Arithmetic of the attention.
    pub attention: Dtype,
    /// Storage of the KV cache.
    pub kv_cache: Dtype,
    /// KV heads on the GPU; 0 when there are as many as query heads.
    pub kv_heads: u32,
    /// Size of a head.
    pub head_dim: u32,
    /// Sliding window in tokens; 0 for none.
    pub window: u32,
}

/// Which decode attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GenerationKey {
    /// Storage of the KV cache.
    pub kv_cache: Dtype,
    /// KV heads on the GPU; 0 when there are as many as query heads.
    pub kv_heads: u32,
    /// Size of a head.
    pub head_dim: u32,
    /// Sliding window in tokens; 0 for none.
    pub window: u32,
}

/// Which latent attention (MLA), over prompts or of decode steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LatentKey {
    /// Arithmetic of the attention.
    pub attention: Dtype,
    /// Storage of the KV cache.
    pub kv_cache: Dtype,
    /// Format of the projections that were measured along with it; none where the kernel was measured alone.
    pub block: Option<Dtype>,
}

/// Which product that takes queries into the latent space, or what attention gave out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbsorbKey {
    /// Format of the weights.
    pub dtype: Dtype,
    /// After attention; before it otherwise.
    pub is_after: bool,
    /// Query heads on the GPU.
    pub heads: u32,
}

/// How evenly a router loads the experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// All alike.
    Balanced,
    /// By a power law with this exponent in hundredths.
    PowerLaw(u32),
}

/// Which expert FFNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpertKey {
    /// Format of the weights.
    pub dtype: Dtype,
    /// Experts a token goes to.
    pub top_k: u32,
    /// Experts of a layer.
    pub experts: u32,
    /// Hidden size of the model.
    pub hidden: u32,
    /// FFN size of an expert.
    pub intermediate: u32,
    /// GPUs that share an expert.
    pub tensor_parallel: u32,
    /// Groups of experts.
    pub expert_parallel: u32,
    /// How the tokens spread.
    pub load: Load,
}

/// What a collective does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collective {
    /// Every GPU gets the sum.
    AllReduce,
    /// Every GPU gets all parts.
    AllGather,
    /// Every GPU gets its part of the sum.
    ReduceScatter,
    /// Every GPU sends a part to every other.
    AllToAll,
}

/// Which NCCL collective, of 16-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NcclKey {
    /// What it does.
    pub collective: Collective,
    /// GPUs of the group.
    pub gpus: u32,
}

impl Collective {
    /// All of them; a file names one by its place here.
    pub const ALL: [Collective; 4] = [
        Collective::AllReduce,
        Collective::AllGather,
        Collective::ReduceScatter,
        Collective::AllToAll,
    ];

    /// The name in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Collective::AllReduce => "all_reduce",
            Collective::AllGather => "all_gather",
            Collective::ReduceScatter => "reduce_scatter",
            Collective::AllToAll => "alltoall",
        }
    }
}

impl Load {
    /// The load of this name in the database: `balanced`, or `power_law_1.2`.
    #[must_use]
    pub fn find(name: &str) -> Option<Load> {
        if name == "balanced" {
            return Some(Load::Balanced);
        }
        let exponent: f64 = name.strip_prefix("power_law_")?.parse().ok()?;
        let hundredths = (exponent * 100.0).round();
        (hundredths > 0.0 && hundredths < 1_000.0).then_some(Load::PowerLaw(hundredths as u32))
    }
}

/// A key as a file keeps it.
pub(super) trait BlockKey: Sized {
    /// As numbers.
    fn code(&self) -> Vec<u32>;
    /// The key of these numbers; none where they are not those of one.
    fn decode(code: &[u32]) -> Option<Self>;
}

fn of(dtype: Dtype) -> u32 {
    let place = Dtype::ALL.iter().position(|other| *other == dtype);
    place.expect("all formats are listed") as u32
}

fn dtype(code: u32) -> Option<Dtype> {
    Dtype::ALL.get(code as usize).copied()
}

impl BlockKey for Dtype {
    fn code(&self) -> Vec<u32> {
        vec![of(*self)]
    }

    fn decode(code: &[u32]) -> Option<Dtype> {
        let &[code] = code else { return None };
        dtype(code)
    }
}

impl BlockKey for u32 {
    fn code(&self) -> Vec<u32> {
        vec![*self]
    }

    fn decode(code: &[u32]) -> Option<u32> {
        let &[code] = code else { return None };
        Some(code)
    }
}

impl BlockKey for ContextKey {
    fn code(&self) -> Vec<u32> {
        let formats = [of(self.attention), of(self.kv_cache)];
        [&formats[..], &[self.kv_heads, self.head_dim, self.window]].concat()
    }

    fn decode(code: &[u32]) -> Option<ContextKey> {
        let &[attention, kv_cache, kv_heads, head_dim, window] = code else {
            return None;
        };
        Some(ContextKey {
            attention: dtype(attention)?,
            kv_cache: dtype(kv_cache)?,
            kv_heads,
            head_dim,
            window,
        })
    }
}

impl BlockKey for GenerationKey {
    fn code(&self) -> Vec<u32> {
        vec![of(self.kv_cache), self.kv_heads, self.head_dim, self.window]
    }

    fn decode(code: &[u32]) -> Option<GenerationKey> {
        let &[kv_cache, kv_heads, head_dim, window] = code else {
            return None;
        };
        Some(GenerationKey {
            kv_cache: dtype(kv_cache)?,
            kv_heads,
            head_dim,
            window,
        })
    }
}

impl BlockKey for LatentKey {
    /// The block's format plus one, 0 for none.
    fn code(&self) -> Vec<u32> {
        let block = self.block.map_or(0, |block| of(block) + 1);
        vec![of(self.attention), of(self.kv_cache), block]
    }

    fn decode(code: &[u32]) -> Option<LatentKey> {
        let &[attention, kv_cache, block] = code else {
            return None;
        };
        Some(LatentKey {
            attention: dtype(attention)?,
            kv_cache: dtype(kv_cache)?,
            block: match block.checked_sub(1) {
                Some(block) => Some(dtype(block)?),
                None => None,
            },
        })
    }
}

impl BlockKey for AbsorbKey {
    fn code(&self) -> Vec<u32> {
        vec![of(self.dtype), u32::from(self.is_after), self.heads]
    }

    fn decode(code: &[u32]) -> Option<AbsorbKey> {
        let &[format, is_after @ (0 | 1), heads] = code else {
            return None;
        };
        Some(AbsorbKey {
            dtype: dtype(format)?,
            is_after: is_after == 1,
            heads,
        })
    }
}

impl BlockKey for ExpertKey {
    /// The load as the exponent in hundredths, 0 for balanced.
    fn code(&self) -> Vec<u32> {
        let load = match self.load {
            Load::Balanced => 0,
            Load::PowerLaw(hundredths) => hundredths,
        };
        let sizes = [self.top_k, self.experts, self.hidden, self.intermediate];
        let widths = [self.tensor_parallel, self.expert_parallel, load];
        [&[of(self.dtype)], &sizes[..], &widths].concat()
    }

    fn decode(code: &[u32]) -> Option<ExpertKey> {
        let &[
            format,
            top_k,
            experts,
            hidden,
            intermediate,
            tensor_parallel,
            expert_parallel,
            load,
        ] = code
        else {
            return None;
        };
        Some(ExpertKey {
            dtype: dtype(format)?,
            top_k,
            experts,
            hidden,
            intermediate,
            tensor_parallel,
            expert_parallel,
            load: match load {
                0 => Load::Balanced,
                hundredths => Load::PowerLaw(hundredths),
            },
        })
    }
}

impl BlockKey for NcclKey {
    fn code(&self) -> Vec<u32> {
        let same = |other: &Collective| *other == self.collective;
        let place = Collective::ALL.iter().position(same);
        vec![place.expect("all are listed") as u32, self.gpus]
    }

    fn decode(code: &[u32]) -> Option<NcclKey> {
        let &[collective, gpus] = code else {
            return None;
        };
        let collective = *Collective::ALL.get(collective as usize)?;
        Some(NcclKey { collective, gpus })
    }
}

impl fmt::Display for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ContextKey {
            attention,
            kv_cache,
            kv_heads,
            head_dim,
            window,
        } = self;
        let (attention, kv_cache) = (attention.name(), kv_cache.name());
        write!(
            f,
            "{attention} with {kv_cache} KV cache, {kv_heads} KV heads, head size {head_dim}, window {window}"
        )
    }
}

impl fmt::Display for GenerationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GenerationKey {
            kv_cache,
            kv_heads,
            head_dim,
            window,
        } = self;
        let kv_cache = kv_cache.name();
        write!(
            f,
            "{kv_cache} KV cache, {kv_heads} KV heads, head size {head_dim}, window {window}"
        )
    }
}

impl fmt::Display for LatentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (attention, kv_cache) = (self.attention.name(), self.kv_cache.name());
        write!(f, "{attention} with {kv_cache} KV cache")?;
        match self.block {
            Some(block) => write!(f, ", projections in {}", block.name()),
            None => write!(f, ", without projections"),
        }
    }
}

impl fmt::Display for AbsorbKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.is_after { "after" } else { "before" };
        let (dtype, heads) = (self.dtype.name(), self.heads);
        write!(f, "{dtype} {side} attention of {heads} heads")
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Balanced => write!(f, "balanced"),
            Load::PowerLaw(hundredths) => {
                write!(f, "power law {}", f64::from(*hundredths) / 100.0)
            }
        }
    }
}

impl fmt::Display for ExpertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExpertKey {
            dtype,
            top_k,
            experts,
            hidden,
            intermediate,
            tensor_parallel,
            expert_parallel,
            load,
        } = self;
        let dtype = dtype.name();
        write!(
            f,
            "{dtype} {top_k} of {experts} experts {hidden} x {intermediate}, tp {tensor_parallel}, ep {expert_parallel}, {load}"
        )
    }
}

impl fmt::Display for NcclKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {} GPUs", self.collective.name(), self.gpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back_and_others_are_refused() {
        let latent = |block| LatentKey {
            attention: Dtype::Bfloat16,
            kv_cache: Dtype::Fp8,
            block,
        };
        for key in [latent(None), latent(Some(Dtype::Bfloat16))] {
            assert_eq!(LatentKey::decode(&key.code()), Some(key));
        }
        let expert = ExpertKey {
            dtype: Dtype::Mxfp4,
            top_k: 4,
            experts: 128,
            hidden: 2_880,
            intermediate: 2_881,
            tensor_parallel: 2,
            expert_parallel: 8,
            load: Load::PowerLaw(101),
        };
        assert_eq!(ExpertKey::decode(&expert.code()), Some(expert));
        assert_eq!(LatentKey::decode(&[0, 99, 0]), None);
        assert_eq!(AbsorbKey::decode(&[0, 2, 16]), None);
        assert_eq!(NcclKey::decode(&[4, 8]), None);
        assert_eq!(Dtype::decode(&[0, 0]), None);
    }

    #[test]
    fn loads_are_found_by_name() {
        assert_eq!(Load::find("balanced"), Some(Load::Balanced));
        assert_eq!(Load::find("power_law_1.01"), Some(Load::PowerLaw(101)));
        assert_eq!(Load::find("power_law_1.2"), Some(Load::PowerLaw(120)));
        for other in ["power_law_", "power_law_-1", "power_law_x", "uniform"] {
            assert_eq!(Load::find(other), None, "{other}");
        }
    }
}
