//! Attention of one layer: with grouped heads, or latent (MLA).
//!
//! Grouped: a QKV projection, the kernel, an output projection. Latent, where the block was measured as a whole: one
//! reading. Else its parts, of n heads on the GPU:
//!
//! | kernel | prompts | decodes |
//! |---|---|---|
//! | down: N = q rank + kv rank + rope, K = h | gemm | gemm |
//! | queries: N = n·(nope + rope), K = q rank | gemm | gemm |
//! | keys and values: N = n·(nope + value), K = kv rank | gemm | |
//! | into the latent space | | bmm |
//! | attention | context_mla | generation_mla |
//! | out of the latent space | | bmm |
//! | output: N = h, K = n·value | gemm | gemm |

use super::decoder::{Pass, Phase, Setting};
use super::kernel::{Gemm, Kernel, Missing};
use super::roofline::{
    self, AbsorbHeadsFloor, ContextFloor, GenerationFloor, LatentContextFloor,
    LatentGenerationFloor,
};
use super::shape::{AttentionShape, Shape};
use crate::error::CalibrationError;
use crate::tables::{AbsorbKey, ContextKey, Dtype, GenerationKey, LatentKey, Profile, Reach};

/// What AIConfigurator multiplies the extras of prompt attention by.
const EXTRAS: f64 = 1.1;

/// Attention of one layer on one GPU.
#[derive(Debug, Clone)]
pub(crate) enum Attention<'a> {
    Grouped(Box<Grouped<'a>>),
    Latent(Box<Latent<'a>>),
}

#[derive(Debug, Clone)]
pub(crate) struct Grouped<'a> {
    pub(super) heads: f64,
    pub(super) kv_heads: f64,
    pub(super) head_dim: f64,
    pub(super) has_qk_norm: bool,
    /// Arithmetic over prompts.
    pub(super) dtype: Dtype,
    qkv: Gemm<'a>,
    output: Gemm<'a>,
    context: Kernel<'a, 3, ContextFloor>,
    generation: Kernel<'a, 3, GenerationFloor>,
}

#[derive(Debug, Clone)]
pub(crate) struct Latent<'a> {
    heads: f64,
    pub(super) dtype: Dtype,
    context: Kernel<'a, 3, LatentContextFloor>,
    generation: Kernel<'a, 3, LatentGenerationFloor>,
    /// None where they were measured along with attention.
    around: Option<Around<'a>>,
}

/// The projections of latent attention.
#[derive(Debug, Clone)]
struct Around<'a> {
    down: Gemm<'a>,
    queries: Gemm<'a>,
    keys_and_values: Gemm<'a>,
    into: Kernel<'a, 1, AbsorbHeadsFloor>,
    out_of: Kernel<'a, 1, AbsorbHeadsFloor>,
    output: Gemm<'a>,
}

impl<'a> Attention<'a> {
    pub(super) fn new(
        profile: &'a Profile,
        shape: &Shape,
        setting: &Setting,
    ) -> Result<Attention<'a>, CalibrationError> {
        Ok(match shape.attention {
            AttentionShape::Grouped { .. } => {
                Attention::Grouped(Box::new(Grouped::new(profile, shape, setting)?))
            }
            AttentionShape::Latent { .. } => {
                Attention::Latent(Box::new(Latent::new(profile, shape, setting)?))
            }
        })
    }

    /// Arithmetic over prompts.
    pub(super) fn dtype(&self) -> Dtype {
        match self {
            Attention::Grouped(grouped) => grouped.dtype,
            Attention::Latent(latent) => latent.dtype,
        }
    }

    /// The kernel over whole prompts, milliseconds in one layer.
    pub(super) fn read_context(&self, batch: f64, isl: f64) -> (f64, Reach) {
        match self {
            Attention::Grouped(grouped) => grouped.context.read([grouped.heads, isl, batch]),
            Attention::Latent(latent) => latent.context.read([latent.heads, isl, batch]),
        }
    }

    /// The kernel of a decode step, milliseconds in one layer.
    pub(super) fn read_generation(&self, batch: f64, kv_length: f64) -> (f64, Reach) {
        match self {
            Attention::Grouped(grouped) => {
                grouped.generation.read([grouped.heads, batch, kv_length])
            }
            Attention::Latent(latent) => latent.generation.read([latent.heads, batch, kv_length]),
        }
    }

    /// The kernel of a decode step as AIConfigurator reads it: grouped attention as the mean of five KV lengths from 0.9
    /// to 1.1 of the one given.
    pub(super) fn generation(&self, batch: f64, kv_length: u32) -> (f64, Reach) {
        if let Attention::Latent(_) = self {
            return self.read_generation(batch, f64::from(kv_length));
        }
        let least = ((f64::from(kv_length) * 0.9) as u32).max(1);
        let most = ((f64::from(kv_length) * 1.1) as u32).max(least);
        let (mut sum, mut worst) = (0.0, Reach::Measured);
        for i in 0..5 {
            let length = least + (u64::from(most - least) * i / 4) as u32;
            let (ms, reach) = self.read_generation(batch, f64::from(length));
            sum += ms;
            worst = worst.max(reach);
        }
        (sum / 5.0, worst)
    }

    /// What AIConfigurator adds to the kernel over prompts in one layer: the traffic of one token, whatever the pass holds.
    pub(super) fn context_extras_ms(&self, memory_ms: impl Fn(f64) -> f64) -> f64 {
        let Attention::Grouped(grouped) = self else {
            return 0.0;
        };
        let q = grouped.heads * grouped.head_dim;
        let k = grouped.kv_heads * grouped.head_dim;
        let rope = 2.0 * memory_ms(2.0 * q + 2.0 * k);
        let kv_write = 2.0 * memory_ms(k * grouped.dtype.bytes());
        let qk_norm = if grouped.has_qk_norm {
            4.0 * (memory_ms(2.0 * q) + memory_ms(2.0 * k))
        } else {
            0.0
        };
        EXTRAS * (rope + kv_write + qk_norm)
    }

    /// What stands before the kernel in a layer.
    pub(super) fn before(&self, pass: &mut Pass<'_>, phase: Phase) -> Result<(), CalibrationError> {
        match self {
            Attention::Grouped(grouped) => pass.gemm(&grouped.qkv),
            Attention::Latent(latent) => match (&latent.around, phase) {
                (None, _) => Ok(()),
                (Some(around), Phase::Prompts) => {
                    pass.gemm(&around.down)?;
                    pass.gemm(&around.queries)?;
                    pass.gemm(&around.keys_and_values)
                }
                (Some(around), Phase::Decodes) => {
                    pass.gemm(&around.down)?;
                    pass.gemm(&around.queries)?;
                    pass.run("bmm_pre", around.into.read([pass.tokens]));
                    Ok(())
                }
            },
        }
    }

    /// What stands after the kernel in a layer.
    pub(super) fn after(&self, pass: &mut Pass<'_>, phase: Phase) -> Result<(), CalibrationError> {
        match self {
            Attention::Grouped(grouped) => pass.gemm(&grouped.output),
            Attention::Latent(latent) => match &latent.around {
                None => Ok(()),
                Some(around) => {
                    if phase == Phase::Decodes {
                        pass.run("bmm_post", around.out_of.read([pass.tokens]));
                    }
                    pass.gemm(&around.output)
                }
            },
        }
    }

    pub(super) fn gemms(&self) -> Vec<&Gemm<'a>> {
        match self {
            Attention::Grouped(grouped) => vec![&grouped.qkv, &grouped.output],
            Attention::Latent(latent) => latent.around.iter().flat_map(Around::gemms).collect(),
        }
    }

    /// The KV lengths that decode attention was measured at, ascending.
    pub(super) fn kv_lengths(&self) -> Vec<u32> {
        match self {
            Attention::Grouped(grouped) => grouped.generation.values(2),
            Attention::Latent(latent) => latent.generation.values(2),
        }
    }

    /// The lengths that attention over prompts was measured at, ascending.
    pub(super) fn prompt_lengths(&self) -> Vec<u32> {
        match self {
            Attention::Grouped(grouped) => grouped.context.values(1),
            Attention::Latent(latent) => latent.context.values(1),
        }
    }

    /// The largest batch that decode attention was measured at.
    pub(super) fn largest_batch(&self) -> u32 {
        let batches = match self {
            Attention::Grouped(grouped) => grouped.generation.values(1),
            Attention::Latent(latent) => latent.generation.values(1),
        };
        batches.last().copied().unwrap_or(0)
    }
}

impl<'a> Grouped<'a> {
    fn new(
        profile: &'a Profile,
        shape: &Shape,
        setting: &Setting,
    ) -> Result<Grouped<'a>, CalibrationError> {
        let AttentionShape::Grouped {
            kv_heads,
            head_dim,
            has_qk_norm,
        } = shape.attention
        else {
            unreachable!("the shape was found to be grouped")
        };
        let Setting {
            gpus,
            formats,
            missing,
            ..
        } = *setting;
        let (heads, kv_heads) = (shape.heads / gpus, kv_heads.div_ceil(gpus));
        let q = heads * head_dim;
        let gemm = |name, n, k| Gemm::new(profile, missing, name, (n, k), formats.gemm);
        let key_heads = if kv_heads == heads { 0 } else { kv_heads };
        let key = |attention| ContextKey {
            attention,
            kv_cache: formats.kv_cache,
            kv_heads: key_heads,
            head_dim,
            window: 0,
        };
        let is_measured = profile.context.contains_key(&key(formats.attention));
        let dtype = if is_measured {
            formats.attention
        } else {
            Dtype::Bfloat16
        };
        let generation_key = GenerationKey {
            kv_cache: formats.kv_cache,
            kv_heads: key_heads,
            head_dim,
            window: 0,
        };
        let machine = &profile.machine;
        Ok(Grouped {
            heads: f64::from(heads),
            kv_heads: f64::from(kv_heads),
            head_dim: f64::from(head_dim),
            has_qk_norm,
            dtype,
            qkv: gemm("qkv_gemm", q + 2 * kv_heads * head_dim, shape.hidden)?,
            output: gemm("proj_gemm", shape.hidden, q)?,
            context: Kernel {
                grid: missing.or(profile.context(key(dtype)))?,
                floor: units(profile, dtype, roofline::context(machine, key(dtype)))?,
                square_axis: Some(1),
            },
            generation: Kernel {
                grid: missing.or(profile.generation(generation_key))?,
                floor: units(
                    profile,
                    formats.kv_cache,
                    roofline::generation(machine, generation_key),
                )?,
                square_axis: None,
            },
        })
    }
}

impl<'a> Latent<'a> {
    fn new(
        profile: &'a Profile,
        shape: &Shape,
        setting: &Setting,
    ) -> Result<Latent<'a>, CalibrationError> {
        let Setting {
            gpus,
            formats,
            missing,
            ..
        } = *setting;
        let whole = LatentKey {
            attention: formats.attention,
            kv_cache: formats.kv_cache,
            block: Some(formats.gemm),
        };
        let is_whole = profile.latent_context.contains_key(&whole)
            && profile.latent_generation.contains_key(&whole);
        let key = if is_whole {
            whole
        } else {
            LatentKey {
                block: None,
                ..whole
            }
        };
        let machine = &profile.machine;
        let context = Kernel {
            grid: missing.or(profile.latent_context(key))?,
            floor: units(
                profile,
                key.attention,
                roofline::latent_context(machine, key),
            )?,
            square_axis: Some(1),
        };
        let generation = Kernel {
            grid: missing.or(profile.latent_generation(key))?,
            floor: units(
                profile,
                key.kv_cache,
                roofline::latent_generation(machine, key),
            )?,
            square_axis: None,
        };
        let around = if is_whole {
            None
        } else {
            Some(Around::new(profile, shape, setting)?)
        };
        Ok(Latent {
            heads: f64::from(shape.heads / gpus),
            dtype: key.attention,
            context,
            generation,
            around,
        })
    }
}

impl<'a> Around<'a> {
    fn new(
        profile: &'a Profile,
        shape: &Shape,
        setting: &Setting,
    ) -> Result<Around<'a>, CalibrationError> {
        let AttentionShape::Latent {
            q_rank,
            kv_rank,
            nope_dim,
            rope_dim,
            value_dim,
        } = shape.attention
        else {
            unreachable!("the shape was found to be latent")
        };
        let (missing, dtype) = (setting.missing, setting.formats.gemm);
        let heads = shape.heads / setting.gpus;
        let gemm = |name, n, k| Gemm::new(profile, missing, name, (n, k), dtype);
        let product = |is_after| absorb(profile, missing, dtype, is_after, heads);
        Ok(Around {
            down: gemm("downscale_gemm", q_rank + kv_rank + rope_dim, shape.hidden)?,
            queries: gemm("q_b_proj_gemm", heads * (nope_dim + rope_dim), q_rank)?,
            keys_and_values: gemm("kv_b_proj_gemm", heads * (nope_dim + value_dim), kv_rank)?,
            into: product(false)?,
            out_of: product(true)?,
            output: gemm("proj_gemm", shape.hidden, heads * value_dim)?,
        })
    }

    fn gemms(&self) -> [&Gemm<'a>; 4] {
        [
            &self.down,
            &self.queries,
            &self.keys_and_values,
            &self.output,
        ]
    }
}

fn absorb(
    profile: &Profile,
    missing: Missing,
    projections: Dtype,
    is_after: bool,
    heads: u32,
) -> Result<Kernel<'_, 1, AbsorbHeadsFloor>, CalibrationError> {
    let dtype = roofline::absorbed_in(projections);
    let key = AbsorbKey {
        dtype,
        is_after,
        heads,
    };
    let floor = units(profile, dtype, roofline::absorb(&profile.machine, dtype))?;
    Ok(Kernel {
        grid: missing.or(profile.absorb(key))?,
        floor: floor.of_heads(heads),
        square_axis: None,
    })
}

/// A floor, or the error that the GPU has no units for a format.
pub(super) fn units<F>(
    profile: &Profile,
    dtype: Dtype,
    floor: Option<F>,
) -> Result<F, CalibrationError> {
    floor.ok_or_else(|| profile.missing("peak rates", dtype.name(), std::iter::empty()))
}
