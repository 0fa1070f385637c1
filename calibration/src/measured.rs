//! Step times from measured kernel tables.
//!
//! A step is the sum of its kernels, each read from the tables of one GPU and engine ([`crate::tables`]) for this model
//! and width; the kernels and their sizes are those of [`crate::aic::Dense`]. Where AIConfigurator's composition is a
//! formula for averages, this one follows the step as it is:
//!
//! ```text
//! projections   over all tokens of the step together (prompt chunks and decodes share their GEMMs)
//! prompt chunk  of `new` tokens after `cached`: with S = cached + new the share (S² − cached²)/S² of attention over S
//!               tokens, read at the batch of the step's chunks
//! decodes       attention at the batch and its mean context
//! element-wise  norms, activation, RoPE, KV write, query and key norms: bytes of the tokens really computed
//! fixed         so many microseconds per step for what no kernel table holds (launches, host, sampling)
//! ```
//!
//! **Pieces.** Decode attention is read along the KV length, where the tables are linear between measured lengths. For
//! each batch, when it is first asked for, the summed context is cut at those lengths, and between them wherever a chord
//! would be off by more than [`TOLERANCE`] (beyond the measured corner efficiency is held, which is no line).
// Model: kernels do not overlap and each decode has the batch's mean context. Attention is nearly linear in the context,
// so that a skewed batch costs within some 5 % of attention what its mean does.

mod pieces;

use crate::aic::reference::default_formats;
use crate::aic::{Dense, Formats};
use crate::error::{CalibrationError, check, check_range};
use crate::model::Precision;
use crate::roofline::Deployment;
use crate::tables::{Backend, Dtype, Profile, Reach};
use engine::{Basis, Piece, Span, StepShape, StepTime, TimingSource};
use pieces::Pieces;
use serde::Serialize;

pub use pieces::TOLERANCE;

/// Which tables, and what they do not hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeasuredSpec {
    /// The engine whose kernels were measured.
    pub tables: Backend,
    /// Format of the projections; none: that of the model's weights.
    pub gemm: Option<Dtype>,
    /// Microseconds per step on top of the kernels: launches, host, sampling.
    pub step_overhead_us: f64,
}

impl Default for MeasuredSpec {
    fn default() -> MeasuredSpec {
        MeasuredSpec {
            tables: Backend::Vllm,
            gemm: None,
            step_overhead_us: 0.0,
        }
    }
}

/// Measured step times of one deployment.
pub struct Measured {
    dense: Dense<'static>,
    fixed_ms: f64,
    shortest: f64,
    pieces: Pieces,
    source: TimingSource,
}

impl Measured {
    /// Prices `deployment`, whose worker holds `capacity_tokens` of KV cache.
    ///
    /// # Errors
    /// No embedded tables of this GPU and engine, kernels that were not measured, an overhead that is not from 0 to 1 s,
    /// or a tensor parallelism that cannot be.
    pub fn new(
        spec: MeasuredSpec,
        deployment: Deployment<'_>,
        capacity_tokens: u64,
    ) -> Result<Measured, CalibrationError> {
        let mut problems = Vec::new();
        check_range(
            &mut problems,
            "step_overhead_us",
            spec.step_overhead_us,
            0.0..=1e6,
            " us",
        );
        check(problems)?;
        let Deployment {
            model,
            gpu,
            tensor_parallel,
            kv_cache,
        } = deployment;
        let profile = Profile::embedded(gpu.name, spec.tables)?;
        let defaults = default_formats(model);
        let formats = Formats {
            gemm: spec.gemm.unwrap_or(defaults.gemm),
            kv_cache: match kv_cache {
                Precision::Bf16 => Dtype::Bfloat16,
                Precision::Fp8 => Dtype::Fp8,
            },
            attention: Dtype::Bfloat16,
        };
        let dense = Dense::new(profile, model, tensor_parallel, formats)?;
        dense.check_all_rows()?;
        let lengths = dense.kv_lengths();
        let source = source(&spec, &deployment, profile, formats, &dense);
        Ok(Measured {
            fixed_ms: spec.step_overhead_us * 1e-3,
            shortest: f64::from(lengths[0]),
            pieces: Pieces::new(lengths, capacity_tokens),
            dense,
            source,
        })
    }

    /// The time of a step in seconds, before rounding and chords.
    #[must_use]
    pub fn seconds(&self, shape: &StepShape<'_>) -> f64 {
        let new_tokens: f64 = shape
            .prefill
            .iter()
            .map(|chunk| f64::from(chunk.new_tokens))
            .sum();
        let batch = f64::from(shape.decode_batch);
        let chunks = shape.prefill.len() as f64;
        // Model: every chunk gets a token, also one that does not end its prompt; the LM head is bound by memory then.
        let mut ms = self.fixed_ms
            + self
                .dense
                .all_but_attention_ms(batch + new_tokens, batch + chunks);
        for chunk in shape.prefill {
            let cached = f64::from(chunk.cached_tokens);
            let whole = cached + f64::from(chunk.new_tokens);
            let share = (whole * whole - cached * cached) / (whole * whole);
            ms += self.dense.prompt_attention_ms(chunks, whole) / chunks * share;
        }
        if new_tokens > 0.0 {
            ms += self.dense.around_attention_ms(new_tokens);
        }
        if shape.decode_batch > 0 {
            ms += self.decode_attention_ms(batch, shape.decode_context);
        }
        ms * 1e-3
    }

    fn decode_attention_ms(&self, batch: f64, context: u64) -> f64 {
        // Model: contexts shorter than the shortest measured one cost what that does.
        let length = (context as f64 / batch).max(self.shortest);
        self.dense.decode_attention_ms(batch, length)
    }

    /// Step time of `batch` decodes in picoseconds, before chords.
    fn decode_ps(&self, batch: u32, context: u64, others_ms: f64) -> f64 {
        (others_ms + self.decode_attention_ms(f64::from(batch), context)) * 1e9
    }
}

impl StepTime for Measured {
    #[inline]
    fn decode(&self, batch: u32, context: u64) -> Piece {
        self.pieces.find(batch, context, || {
            let rows = f64::from(batch);
            let others_ms = self.fixed_ms + self.dense.all_but_attention_ms(rows, rows);
            move |context| self.decode_ps(batch, context, others_ms)
        })
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        Span::from_s(self.seconds(shape))
    }

    fn source(&self) -> TimingSource {
        self.source.clone()
    }
}

fn source(
    spec: &MeasuredSpec,
    deployment: &Deployment<'_>,
    profile: &Profile,
    formats: Formats,
    dense: &Dense<'_>,
) -> TimingSource {
    let mut guesses = vec![match spec.step_overhead_us {
        0.0 => "no launch, host or sampling time is in the tables and none is added".to_owned(),
        us => format!("a step has {us} us of launch, host and sampling time"),
    }];
    if spec.tables == Backend::Vllm && formats.gemm == Dtype::Fp8Block {
        guesses.push(
            "vLLM's fp8_block GEMMs hold launch time of the measuring loop (56 to 80 us each at few rows), which engines \
             hide in CUDA graphs; `tables: sglang` has none"
                .to_owned(),
        );
    }
    if dense.head_reach() == Reach::Extrapolated {
        guesses.push(
            "the LM head is larger than the measured GEMMs; their efficiency is carried on"
                .to_owned(),
        );
    }
    TimingSource {
        name: "measured".to_owned(),
        basis: Basis::Measured,
        detail: format!(
            "{} ({} weights, {} KV cache) on {} x {}; kernels of {} ({})",
            deployment.model.id,
            formats.gemm.name(),
            formats.kv_cache.name(),
            deployment.tensor_parallel,
            deployment.gpu.name,
            profile.name(),
            profile.provenance.source,
        ),
        guesses,
    }
}

#[cfg(test)]
mod tests;
