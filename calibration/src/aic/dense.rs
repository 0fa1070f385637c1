//! A pass of a dense decoder, kernel by kernel.
//!
//! | kernel (times) | rows | size | table |
//! |---|---|---|---|
//! | embedding (1) | T | 2h bytes | memory |
//! | norms (2 L) | T | 8h bytes | memory |
//! | qkv (L) | T | N = (heads + 2 KV heads)·d on the GPU, K = h | gemm |
//! | attention (L) | | heads, KV heads and d on the GPU | context / generation attention |
//! | output (L) | T | N = h, K = heads·d | gemm |
//! | gate+up (L) | T | N = 2f/tp, K = h | gemm |
//! | activation (L) | T | 6f/tp bytes | memory |
//! | down (L) | T | N = h, K = f/tp | gemm |
//! | LM head (1) | batch | N = V/tp, K = h, bfloat16 | gemm |
//! | all-reduce (2 L + 1) | T | h elements | all-reduce |

use super::roofline;
use crate::error::{CalibrationError, Problem, check};
use crate::model::Model;
use crate::tables::gemm::{Anchors, GemmTable};
use crate::tables::grid::{Grid, Reading};
use crate::tables::{ContextKey, Dtype, GenerationKey, Profile, Reach};

/// What AIConfigurator multiplies the extras of prompt attention by.
const EXTRAS: f64 = 1.1;

/// One kernel's time in a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpTime {
    /// The kernel, as AIConfigurator names it without the phase.
    pub name: &'static str,
    /// All its runs in a pass, milliseconds.
    pub ms: f64,
    /// How far the reading is from measurements.
    pub reach: Reach,
}

/// A pass, kernel by kernel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Composed {
    /// The kernels in order.
    pub ops: Vec<OpTime>,
}

impl Composed {
    /// The whole pass in milliseconds.
    #[must_use]
    pub fn ms(&self) -> f64 {
        self.ops.iter().map(|op| op.ms).sum()
    }

    /// The part of it that stands on readings beyond the measurements, from 0 to 1.
    #[must_use]
    pub fn extrapolated_share(&self) -> f64 {
        let beyond = self.ops.iter().filter(|op| op.reach == Reach::Extrapolated);
        beyond.map(|op| op.ms).sum::<f64>() / self.ms()
    }
}

/// A step of prompt chunks and decodes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixedStep {
    /// Prompt tokens of each request.
    pub isl: u32,
    /// Output tokens of each request.
    pub osl: u32,
    /// Prompt tokens of the step.
    pub context_tokens: u32,
    /// Requests that decode in it.
    pub decodes: u32,
}

/// Its three parts in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixed {
    /// All kernels but attention.
    pub shared_ms: f64,
    /// Attention of the prompts.
    pub context_attention_ms: f64,
    /// Attention of the decodes.
    pub decode_attention_ms: f64,
}

impl Mixed {
    /// The whole step.
    #[must_use]
    pub fn ms(&self) -> f64 {
        self.shared_ms + self.context_attention_ms + self.decode_attention_ms
    }
}

/// A dense decoder on the GPUs of a profile.
#[derive(Debug, Clone)]
pub struct Dense<'a> {
    profile: &'a Profile,
    gpus: u32,
    layers: f64,
    hidden: f64,
    intermediate: f64,
    pub(crate) heads: f64,
    kv_heads: f64,
    head_dim: f64,
    has_qk_norm: bool,
    projections: [Gemm<'a>; 4],
    head: Gemm<'a>,
    pub(crate) context: (&'a Grid<3>, roofline::ContextFloor),
    pub(crate) generation: (&'a Grid<3>, roofline::GenerationFloor),
    /// Arithmetic of prompt attention: bfloat16 where fp8 was asked for and not measured.
    pub attention: Dtype,
}

/// Formats in which a deployment computes and stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// Weights of the projections.
    pub gemm: Dtype,
    /// KV cache.
    pub kv_cache: Dtype,
    /// Arithmetic of prompt attention.
    pub attention: Dtype,
}

#[derive(Debug, Clone)]
struct Gemm<'a> {
    name: &'static str,
    size: (u32, u32),
    table: &'a GemmTable,
    anchors: Anchors,
    floor: roofline::GemmFloor,
    dtype: Dtype,
}

impl<'a> Dense<'a> {
    /// Prepares `model` split over `gpus` GPUs.
    ///
    /// # Errors
    /// A width the model cannot be split into, or kernels that were not measured.
    pub fn new(
        profile: &'a Profile,
        model: &Model,
        gpus: u32,
        formats: Formats,
    ) -> Result<Dense<'a>, CalibrationError> {
        if let Err(why) = model.check_tensor_parallel(gpus) {
            check(vec![Problem::new(
                "tp",
                gpus,
                format!("a width that {why}"),
            )])?;
        }
        let (heads, kv_heads) = (model.heads / gpus, model.kv_heads_per_gpu(gpus));
        let q = heads * model.head_dim;
        let qkv = q + 2 * kv_heads * model.head_dim;
        let f = model.intermediate / gpus;
        let gemm = |name, n, k, dtype| Gemm::new(profile, name, (n, k), dtype);
        let projections = [
            gemm("qkv_gemm", qkv, model.hidden, formats.gemm)?,
            gemm("proj_gemm", model.hidden, q, formats.gemm)?,
            gemm("gate_ffn1_gemm", 2 * f, model.hidden, formats.gemm)?,
            gemm("ffn2_gemm", model.hidden, f, formats.gemm)?,
        ];
        let head = gemm(
            "logits_gemm",
            model.vocab / gpus,
            model.hidden,
            Dtype::Bfloat16,
        )?;
        let grid_kv_heads = if kv_heads == heads { 0 } else { kv_heads };
        let key = |attention| ContextKey {
            attention,
            kv_cache: formats.kv_cache,
            kv_heads: grid_kv_heads,
            head_dim: model.head_dim,
            window: 0,
        };
        let is_measured = profile.context.contains_key(&key(formats.attention));
        let attention = if is_measured {
            formats.attention
        } else {
            Dtype::Bfloat16
        };
        let generation_key = GenerationKey {
            kv_cache: formats.kv_cache,
            kv_heads: grid_kv_heads,
            head_dim: model.head_dim,
            window: 0,
        };
        let no_units =
            |dtype: Dtype| profile.missing("peak rates", dtype.name(), std::iter::empty());
        let context_floor = roofline::context(&profile.machine, key(attention))
            .ok_or_else(|| no_units(attention))?;
        let generation_floor = roofline::generation(&profile.machine, generation_key)
            .ok_or_else(|| no_units(formats.kv_cache))?;
        if gpus > 1 {
            profile.all_reduce_curve(gpus)?;
        }
        Ok(Dense {
            profile,
            gpus,
            layers: f64::from(model.layers),
            hidden: f64::from(model.hidden),
            intermediate: f64::from(model.intermediate) / f64::from(gpus),
            heads: f64::from(heads),
            kv_heads: f64::from(kv_heads),
            head_dim: f64::from(model.head_dim),
            has_qk_norm: model.has_qk_norm,
            projections,
            head,
            context: (profile.context(key(attention))?, context_floor),
            generation: (profile.generation(generation_key)?, generation_floor),
            attention,
        })
    }

    /// A pass over prompts of `isl` tokens of which `prefix` are cached.
    ///
    /// # Errors
    /// A kernel was not measured near enough.
    pub fn context_pass(
        &self,
        batch: u32,
        isl: u32,
        prefix: u32,
    ) -> Result<Composed, CalibrationError> {
        let tokens = f64::from(batch) * f64::from(isl - prefix);
        let attention =
            self.context_attention(f64::from(batch), f64::from(isl), f64::from(prefix))?;
        self.composed(tokens, f64::from(batch), attention)
    }

    /// A decode pass over `batch` requests with `kv_length` tokens each, the new one included.
    ///
    /// # Errors
    /// A kernel was not measured near enough.
    pub fn generation_pass(
        &self,
        batch: u32,
        kv_length: u32,
    ) -> Result<Composed, CalibrationError> {
        let attention = self.generation_attention(f64::from(batch), kv_length)?;
        self.composed(f64::from(batch), f64::from(batch), attention)
    }

    /// A step of prompt chunks and decodes: prompts at their average share, decodes at half of their output.
    ///
    /// # Errors
    /// A kernel was not measured near enough.
    pub fn mixed_step(&self, step: MixedStep) -> Result<Mixed, CalibrationError> {
        let tokens = f64::from(step.context_tokens) + f64::from(step.decodes);
        let none = OpTime {
            name: "attention",
            ms: 0.0,
            reach: Reach::Measured,
        };
        let shared_ms = self.composed(tokens, 1.0, none)?.ms();
        let prompts = step.context_tokens.div_ceil(step.isl);
        let chunks = step.isl.div_ceil(step.context_tokens);
        let whole = self.context_attention(f64::from(prompts), f64::from(step.isl), 0.0)?;
        let kv_length = step.isl + step.osl / 2 + 1;
        let decode_attention_ms = if step.decodes == 0 {
            0.0
        } else {
            self.generation_attention(f64::from(step.decodes), kv_length)?
                .ms
        };
        Ok(Mixed {
            shared_ms,
            context_attention_ms: whole.ms / f64::from(chunks),
            decode_attention_ms,
        })
    }

    fn composed(
        &self,
        tokens: f64,
        rows: f64,
        attention: OpTime,
    ) -> Result<Composed, CalibrationError> {
        let [qkv, proj, gate, down] = &self.projections;
        let norm = |name| self.elementwise(name, self.layers, tokens * 8.0 * self.hidden);
        let layer_gemm = |gemm: &Gemm<'_>| gemm.time(self.profile, tokens, self.layers);
        let mut ops = vec![
            self.elementwise("embedding", 1.0, tokens * 2.0 * self.hidden),
            norm("add_norm_1"),
            layer_gemm(qkv)?,
            attention,
            layer_gemm(proj)?,
            norm("add_norm_2"),
            layer_gemm(gate)?,
            self.elementwise("act_gate", self.layers, tokens * 6.0 * self.intermediate),
            layer_gemm(down)?,
            self.head.time(self.profile, rows, 1.0)?,
        ];
        for (name, times) in [
            ("embedding_ar", 1.0),
            ("ar_1", self.layers),
            ("ar_2", self.layers),
        ] {
            let (ms, reach) = self.all_reduce_ms(tokens)?;
            ops.push(OpTime {
                name,
                ms: times * ms,
                reach,
            });
        }
        Ok(Composed { ops })
    }

    /// A kernel bound by `bytes` of memory traffic.
    fn elementwise(&self, name: &'static str, times: f64, bytes: f64) -> OpTime {
        OpTime {
            name,
            ms: times * self.memory_ms(bytes),
            reach: Reach::Interpolated,
        }
    }

    pub(crate) fn memory_ms(&self, bytes: f64) -> f64 {
        let machine = &self.profile.machine;
        (bytes / (machine.memory_bytes_per_s * machine.elementwise_share) + machine.elementwise_s)
            * 1e3
    }

    fn all_reduce_ms(&self, tokens: f64) -> Result<(f64, Reach), CalibrationError> {
        if self.gpus == 1 {
            return Ok((0.0, Reach::Measured));
        }
        let machine = &self.profile.machine;
        let roofline = |[elements]: [f64; 1]| roofline::all_reduce(machine, self.gpus, elements);
        let how = Reading {
            square_axis: None,
            roofline: &roofline,
        };
        let elements = tokens * self.hidden;
        let curve = self.profile.all_reduce_curve(self.gpus)?;
        curve
            .read([elements], &how)
            .ok_or_else(|| self.unreadable("all-reduce", format!("{elements} elements")))
    }

    /// Attention over prompts in all layers, with the kernels fused around it.
    fn context_attention(
        &self,
        batch: f64,
        isl: f64,
        prefix: f64,
    ) -> Result<OpTime, CalibrationError> {
        let (ms, reach) = self.read_context(batch, isl)?;
        let new_share = (isl * isl - prefix * prefix) / (isl * isl);
        let q = self.heads * self.head_dim;
        let k = self.kv_heads * self.head_dim;
        // The traffic of one token, whatever the pass holds.
        let rope = 2.0 * self.memory_ms(2.0 * q + 2.0 * k);
        let kv_write = 2.0 * self.memory_ms(k * self.attention.bytes());
        let qk_norm = if self.has_qk_norm {
            4.0 * (self.memory_ms(2.0 * q) + self.memory_ms(2.0 * k))
        } else {
            0.0
        };
        let extras = EXTRAS * (rope + kv_write + qk_norm);
        Ok(OpTime {
            name: "attention",
            ms: self.layers * (ms * new_share + extras),
            reach,
        })
    }

    /// One layer's attention over whole prompts, milliseconds.
    pub(crate) fn read_context(
        &self,
        batch: f64,
        isl: f64,
    ) -> Result<(f64, Reach), CalibrationError> {
        let (grid, floor) = self.context;
        let how = Reading {
            square_axis: Some(1),
            roofline: &|at| floor.ms(at),
        };
        let place = || format!("{} heads, {isl} tokens, batch {batch}", self.heads);
        grid.read([self.heads, isl, batch], &how)
            .ok_or_else(|| self.unreadable("context attention", place()))
    }

    /// Decode attention in all layers: the mean of five KV lengths from 0.9 to 1.1 of the one given.
    fn generation_attention(&self, batch: f64, kv_length: u32) -> Result<OpTime, CalibrationError> {
        let least = ((f64::from(kv_length) * 0.9) as u32).max(1);
        let most = ((f64::from(kv_length) * 1.1) as u32).max(least);
        let (mut sum, mut worst) = (0.0, Reach::Measured);
        for i in 0..5 {
            let length = least + (u64::from(most - least) * i / 4) as u32;
            let (ms, reach) = self.read_generation(batch, f64::from(length))?;
            sum += ms;
            worst = worst.max(reach);
        }
        Ok(OpTime {
            name: "attention",
            ms: self.layers * sum / 5.0,
            reach: worst,
        })
    }

    /// One layer's decode attention, milliseconds.
    pub(crate) fn read_generation(
        &self,
        batch: f64,
        kv_length: f64,
    ) -> Result<(f64, Reach), CalibrationError> {
        let (grid, floor) = self.generation;
        let how = Reading {
            square_axis: None,
            roofline: &|at| floor.ms(at),
        };
        let place = || format!("{} heads, batch {batch}, {kv_length} tokens", self.heads);
        grid.read([self.heads, batch, kv_length], &how)
            .ok_or_else(|| self.unreadable("generation attention", place()))
    }

    /// Whether every number of rows can be priced.
    ///
    /// # Errors
    /// A projection lies too far from the measured shapes at some number of rows.
    pub(crate) fn check_all_rows(&self) -> Result<(), CalibrationError> {
        for gemm in self.projections.iter().chain([&self.head]) {
            for rows in gemm.table.turns() {
                gemm.time(self.profile, rows, 1.0)?;
            }
        }
        Ok(())
    }

    /// The KV lengths that decode attention was measured at, ascending.
    pub(crate) fn kv_lengths(&self) -> Vec<u32> {
        let mut lengths: Vec<u32> = self
            .generation
            .0
            .points()
            .iter()
            .map(|point| point.at[2])
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }

    /// How far the LM head of one row is from measurements.
    pub(crate) fn head_reach(&self) -> Reach {
        self.head
            .time(self.profile, 1.0, 1.0)
            .map_or(Reach::Extrapolated, |op| op.reach)
    }

    /// All kernels but attention over `tokens`, with `rows` that get a token, milliseconds. Only after
    /// [`Dense::check_all_rows`].
    pub(crate) fn all_but_attention_ms(&self, tokens: f64, rows: f64) -> f64 {
        let none = OpTime {
            name: "attention",
            ms: 0.0,
            reach: Reach::Measured,
        };
        self.composed(tokens, rows, none)
            .expect("all rows were checked")
            .ms()
    }

    /// Attention over whole prompts in all layers, milliseconds.
    pub(crate) fn prompt_attention_ms(&self, batch: f64, isl: f64) -> f64 {
        self.layers
            * self
                .read_context(batch, isl)
                .expect("a grid with points can be read anywhere")
                .0
    }

    /// Decode attention in all layers, milliseconds.
    pub(crate) fn decode_attention_ms(&self, batch: f64, kv_length: f64) -> f64 {
        self.layers
            * self
                .read_generation(batch, kv_length)
                .expect("a grid with points can be read anywhere")
                .0
    }

    /// RoPE, KV write, query and key norms of `tokens` in all layers, milliseconds.
    pub(crate) fn around_attention_ms(&self, tokens: f64) -> f64 {
        let q = tokens * self.heads * self.head_dim;
        let k = tokens * self.kv_heads * self.head_dim;
        let rope = self.memory_ms(4.0 * (q + k));
        let kv_write = self.memory_ms(4.0 * k + 2.0 * k * self.attention.bytes());
        let qk_norm = if self.has_qk_norm {
            self.memory_ms(4.0 * (q + k))
        } else {
            0.0
        };
        self.layers * (rope + kv_write + qk_norm)
    }

    fn unreadable(&self, table: &str, wanted: String) -> CalibrationError {
        self.profile.missing(table, &wanted, std::iter::empty())
    }
}

impl<'a> Gemm<'a> {
    fn new(
        profile: &'a Profile,
        name: &'static str,
        (n, k): (u32, u32),
        dtype: Dtype,
    ) -> Result<Gemm<'a>, CalibrationError> {
        let table = profile.gemm(dtype)?;
        let floor = roofline::gemm(&profile.machine, dtype)
            .ok_or_else(|| profile.missing("peak rates", dtype.name(), std::iter::empty()))?;
        Ok(Gemm {
            name,
            size: (n, k),
            table,
            anchors: table.anchors(n, k),
            floor,
            dtype,
        })
    }

    fn time(&self, profile: &Profile, rows: f64, times: f64) -> Result<OpTime, CalibrationError> {
        let read = self
            .table
            .read(&self.anchors, rows, &|m, n, k| self.floor.ms(m, n, k));
        let (ms, reach) = read.ok_or_else(|| {
            let (n, k) = self.size;
            let wanted = format!("{} {rows} x {n} x {k}", self.dtype.name());
            let known = self.table.shapes().iter().map(|shape| (shape.n, shape.k));
            let octaves = |a: u32, b: u32| (f64::from(a).log2() - f64::from(b).log2()).abs();
            let nearest = known.min_by(|a, b| {
                let far = |size: &(u32, u32)| octaves(size.0, n).hypot(octaves(size.1, k));
                far(a).total_cmp(&far(b))
            });
            profile.missing(
                "gemm",
                &wanted,
                nearest
                    .map(|(n, k)| format!("n = {n}, k = {k}"))
                    .into_iter(),
            )
        })?;
        Ok(OpTime {
            name: self.name,
            ms: times * ms,
            reach,
        })
    }
}
