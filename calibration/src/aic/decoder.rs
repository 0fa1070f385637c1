//! A pass of a decoder, kernel by kernel.
//!
//! | kernel (times) | rows | size | table |
//! |---|---|---|---|
//! | embedding (1) | T | 2h bytes | memory |
//! | norms (2 L) | T | 8h bytes | memory |
//! | attention and its projections (L) | | `attention` | |
//! | FFN or experts (L) | | `ffn` | |
//! | LM head (1) | batch | N = V/tp, K = h, bfloat16 | gemm |
//! | all-reduce (2 L + 1) | T | h elements | all-reduce |
//!
//! Three things are as AIConfigurator has them and hold for it alone: a pass over prompts of a model with experts and
//! grouped attention has no LM head; with latent attention the embedding is not reduced; and vLLM then reduces twice per
//! layer beside the dispatch of the experts.

use super::attention::Attention;
use super::ffn::Ffn;
use super::kernel::{Gemm, Kernel, Missing};
use super::roofline::{self, AllReduceFloor};
use super::shape::Shape;
use crate::error::{CalibrationError, Problem, check};
use crate::model::Model;
use crate::tables::{Backend, Dtype, Profile, Reach};

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

    /// The part of it that stands on readings beyond the measurements or on estimates, from 0 to 1.
    #[must_use]
    pub fn extrapolated_share(&self) -> f64 {
        let beyond = self.ops.iter().filter(|op| op.reach >= Reach::Extrapolated);
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
    /// All kernels but attention; latent attention is among them.
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

/// How a decoder is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// GPUs over which it is split.
    pub gpus: u32,
    /// Groups of experts; each is split over `gpus / expert_parallel`. 1 without experts.
    pub expert_parallel: u32,
    /// Ranks of so many GPUs each that share the experts, which are split over the GPUs of all; 1 without.
    pub ranks: u32,
    /// Formats of all but the experts.
    pub formats: Formats,
    /// Format of the experts.
    pub experts: Dtype,
    /// What to do about kernels that were not measured.
    pub missing: Missing,
}

impl Setting {
    /// Over `gpus` GPUs, experts split like everything else and in its format.
    #[must_use]
    pub const fn tensor_parallel(gpus: u32, formats: Formats) -> Setting {
        Setting {
            gpus,
            expert_parallel: 1,
            ranks: 1,
            formats,
            experts: formats.gemm,
            missing: Missing::Refuse,
        }
    }
}

/// What the sequences of a pass do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Prompts,
    Decodes,
}

/// A decoder on the GPUs of a profile.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    pub(super) profile: &'a Profile,
    pub(super) layers: f64,
    hidden: f64,
    all_reduce: Option<Kernel<'a, 1, AllReduceFloor>>,
    pub(super) attention: Attention<'a>,
    pub(super) ffn: Ffn<'a>,
    pub(super) head: Gemm<'a>,
}

impl<'a> Decoder<'a> {
    /// Prepares `model` split over `gpus` GPUs.
    ///
    /// # Errors
    /// A width the model cannot be split into, or kernels that were not measured.
    pub fn new(
        profile: &'a Profile,
        model: &Model,
        gpus: u32,
        formats: Formats,
    ) -> Result<Decoder<'a>, CalibrationError> {
        let setting = Setting::tensor_parallel(gpus, formats);
        Decoder::prepare(profile, &Shape::from(model), &setting)
    }

    /// Prepares a shape as deployed.
    ///
    /// # Errors
    /// Widths it cannot be split into, or kernels that were not measured.
    pub fn prepare(
        profile: &'a Profile,
        shape: &Shape,
        setting: &Setting,
    ) -> Result<Decoder<'a>, CalibrationError> {
        let Setting { gpus, missing, .. } = *setting;
        // Experts over the GPUs of several ranks are found in the tables or not.
        let own_groups = if setting.ranks == 1 {
            setting.expert_parallel
        } else {
            1
        };
        if let Err(why) = shape.check(gpus, own_groups) {
            let width = format!("{gpus}, {} groups of experts", setting.expert_parallel);
            check(vec![Problem::new(
                "tp",
                width,
                format!("a width that {why}"),
            )])?;
        }
        let head = (shape.vocab / gpus, shape.hidden);
        let all_reduce = match gpus {
            1 => None,
            gpus => Some(Kernel {
                grid: missing.or(profile.all_reduce_curve(gpus))?,
                floor: roofline::all_reduce(&profile.machine, gpus),
                square_axis: None,
            }),
        };
        Ok(Decoder {
            profile,
            layers: f64::from(shape.layers),
            hidden: f64::from(shape.hidden),
            all_reduce,
            attention: Attention::new(profile, shape, setting)?,
            ffn: Ffn::new(profile, shape, setting)?,
            head: Gemm::new(profile, missing, "logits_gemm", head, Dtype::Bfloat16)?,
        })
    }

    /// Arithmetic of prompt attention: bfloat16 where fp8 was asked for and not measured.
    #[must_use]
    pub fn attention_format(&self) -> Dtype {
        self.attention.dtype()
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
        let [batch, isl, prefix] = [batch, isl, prefix].map(f64::from);
        let attention = self.context_attention(batch, isl, prefix);
        let tokens = batch * (isl - prefix);
        self.composed(Phase::Prompts, tokens, batch, attention)
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
        let rows = f64::from(batch);
        let attention = self.attention.generation(rows, kv_length);
        self.composed(Phase::Decodes, rows, rows, attention)
    }

    /// A step of prompt chunks and decodes: prompts at their average share, decodes at half of their output. Latent
    /// attention is priced as one prompt of all the tokens.
    ///
    /// # Errors
    /// A kernel was not measured near enough.
    pub fn mixed_step(&self, step: MixedStep) -> Result<Mixed, CalibrationError> {
        let tokens = f64::from(step.context_tokens) + f64::from(step.decodes);
        if let Attention::Latent(_) = self.attention {
            let attention = self.context_attention(1.0, tokens, 0.0);
            let pass = self.composed(Phase::Prompts, tokens, 1.0, attention)?;
            return Ok(Mixed {
                shared_ms: pass.ms(),
                context_attention_ms: 0.0,
                decode_attention_ms: 0.0,
            });
        }
        let none = (0.0, Reach::Measured);
        let shared_ms = self.composed(Phase::Prompts, tokens, 1.0, none)?.ms();
        let prompts = f64::from(step.context_tokens.div_ceil(step.isl));
        let chunks = f64::from(step.isl.div_ceil(step.context_tokens));
        let (whole, _) = self.context_attention(prompts, f64::from(step.isl), 0.0);
        let kv_length = step.isl + step.osl / 2 + 1;
        let decode = if step.decodes == 0 {
            0.0
        } else {
            let batch = f64::from(step.decodes);
            self.attention.generation(batch, kv_length).0
        };
        Ok(Mixed {
            shared_ms,
            context_attention_ms: self.layers * whole / chunks,
            decode_attention_ms: self.layers * decode,
        })
    }

    /// All kernels of a pass; `attention` is the kernel in one layer.
    pub(super) fn composed(
        &self,
        phase: Phase,
        tokens: f64,
        rows: f64,
        attention: (f64, Reach),
    ) -> Result<Composed, CalibrationError> {
        let mut pass = Pass {
            decoder: self,
            tokens,
            ops: Vec::with_capacity(16),
        };
        let norm_bytes = tokens * 8.0 * self.hidden;
        pass.once(
            "embedding",
            self.memory_ms(tokens * 2.0 * self.hidden),
            Reach::Interpolated,
        );
        pass.elementwise("add_norm_1", norm_bytes);
        self.attention.before(&mut pass, phase)?;
        pass.run("attention", attention);
        self.attention.after(&mut pass, phase)?;
        pass.elementwise("add_norm_2", norm_bytes);
        self.ffn.run(&mut pass, phase)?;
        if self.has_head(phase) {
            let (ms, reach) = self.head.read(self.profile, rows)?;
            pass.once(self.head.name, ms, reach);
        }
        self.reductions(&mut pass);
        Ok(Composed { ops: pass.ops })
    }

    /// Whether AIConfigurator counts the LM head.
    fn has_head(&self, phase: Phase) -> bool {
        let is_latent = matches!(self.attention, Attention::Latent(_));
        phase == Phase::Decodes || is_latent || matches!(self.ffn, Ffn::Gated(_))
    }

    /// The all-reduces that are not part of the experts.
    fn reductions(&self, pass: &mut Pass<'_>) {
        let (ms, reach) = self.all_reduce_ms(pass.tokens);
        match (&self.attention, &self.ffn) {
            (Attention::Grouped(_), ffn) => {
                pass.once("embedding_ar", ms, reach);
                if let Ffn::Gated(_) = ffn {
                    pass.run("ar_1", (ms, reach));
                    pass.run("ar_2", (ms, reach));
                }
            }
            (Attention::Latent(_), _) if self.profile.provenance.backend == Backend::Vllm => {
                pass.run(TP_ALL_REDUCE, (2.0 * ms, reach));
            }
            (Attention::Latent(_), _) => {}
        }
    }

    /// What ranks compute together over the tokens of all of them: experts and the way there and back, milliseconds.
    pub(crate) fn together_ms(&self, tokens: f64) -> (f64, Reach) {
        let (ms, reach) = self.ffn.together(tokens, self.hidden);
        (self.layers * ms, reach)
    }

    /// Attention over prompts in one layer, with the kernels fused around it.
    fn context_attention(&self, batch: f64, isl: f64, prefix: f64) -> (f64, Reach) {
        let (ms, reach) = self.attention.read_context(batch, isl);
        let new_share = (isl * isl - prefix * prefix) / (isl * isl);
        let extras = self
            .attention
            .context_extras_ms(|bytes| self.memory_ms(bytes));
        (ms * new_share + extras, reach)
    }

    pub(crate) fn memory_ms(&self, bytes: f64) -> f64 {
        let machine = &self.profile.machine;
        (bytes / (machine.memory_bytes_per_s * machine.elementwise_share) + machine.elementwise_s)
            * 1e3
    }

    fn all_reduce_ms(&self, tokens: f64) -> (f64, Reach) {
        match &self.all_reduce {
            None => (0.0, Reach::Measured),
            Some(kernel) => kernel.read([tokens * self.hidden]),
        }
    }
}

/// What vLLM with latent attention reduces beside the dispatch of its experts.
pub(super) const TP_ALL_REDUCE: &str = "tp_allreduce";

/// A pass being put together.
pub(crate) struct Pass<'a> {
    decoder: &'a Decoder<'a>,
    /// Tokens it is over.
    pub(super) tokens: f64,
    pub(super) ops: Vec<OpTime>,
}

impl<'a> Pass<'a> {
    /// Kernels of the same pass that run beside the others.
    pub(super) fn beside(&self) -> Pass<'a> {
        Pass {
            decoder: self.decoder,
            tokens: self.tokens,
            ops: Vec::new(),
        }
    }

    pub(super) fn ms(&self) -> f64 {
        self.ops.iter().map(|op| op.ms).sum()
    }

    /// A kernel of the whole pass.
    fn once(&mut self, name: &'static str, ms: f64, reach: Reach) {
        self.ops.push(OpTime { name, ms, reach });
    }

    /// A kernel of every layer.
    pub(super) fn run(&mut self, name: &'static str, (ms, reach): (f64, Reach)) {
        self.once(name, self.decoder.layers * ms, reach);
    }

    /// A matrix product of every layer over all tokens.
    pub(super) fn gemm(&mut self, gemm: &Gemm<'_>) -> Result<(), CalibrationError> {
        let read = gemm.read(self.decoder.profile, self.tokens)?;
        self.run(gemm.name, read);
        Ok(())
    }

    /// A kernel of every layer bound by `bytes` of memory traffic.
    pub(super) fn elementwise(&mut self, name: &'static str, bytes: f64) {
        let ms = self.decoder.memory_ms(bytes);
        self.run(name, (ms, Reach::Interpolated));
    }

    /// An all-reduce of the hidden states of every layer.
    pub(super) fn all_reduce(&mut self, name: &'static str) {
        let read = self.decoder.all_reduce_ms(self.tokens);
        self.run(name, read);
    }
}
