//! Step times from measured kernel tables.
//!
//! A step is the sum of its kernels, each read from the tables of one GPU and engine ([`crate::tables`]) for this model
//! and width; the kernels and their sizes are those of [`crate::aic::Decoder`]. Where AIConfigurator's composition is a
//! formula for averages, this one follows the step as it is:
//!
//! ```text
//! projections   over all tokens of the step together (prompt chunks and decodes share their GEMMs)
//! prompt chunk  of `new` tokens after `cached`: with S = cached + new the share (S² − cached²)/S² of attention over S
//!               tokens, read at the batch of the step's chunks
//! decodes       attention at the batch and its mean context; the GEMMs of a pure decode step at the rows of the CUDA
//!               graph that covers the batch
//! element-wise  norms, activation, RoPE, KV write, query and key norms: bytes of the tokens really computed
//! host          per step, per sequence and per step with a prompt, what no kernel table holds ([`HostTimes`])
//! ```
//!
//! Two tables hold the launch time of the loop that measured them, which engines hide in CUDA graphs: fp8_block GEMMs of
//! vLLM (56 to 80 us at few rows), for which SGLang's of the same GPU stand, and fp8 GEMMs of TensorRT-LLM (12 us), for which
//! vLLM's do.
//!
//! **Pieces.** Decode attention is read along the KV length, where the tables are linear between measured lengths. For
//! each batch, when it is first asked for, the summed context is cut at those lengths, and between them wherever a chord
//! would be off by more than [`TOLERANCE`] (beyond the measured corner efficiency is held, which is no line). Attention over
//! prompts is cut likewise by their length, for each number of chunks.
// Model: kernels do not overlap and each decode has the batch's mean context. Attention is nearly linear in the context,
// so that a skewed batch costs within some 5 % of attention what its mean does.

mod host;
mod pieces;
mod prompts;
mod validated;

use crate::aic::reference::default_formats;
use crate::aic::{Decoder, Formats, Missing, Phase, Setting, Shape};
use crate::error::{CalibrationError, check, check_range};
use crate::model::{ExpertStorage, Experts, Model, Precision};
use crate::roofline::{Deployment, RANKS_GUESS, check_ranks};
use crate::tables::{Backend, Dtype, Profile, Reach, library};
use engine::{Basis, Chunk, Piece, Span, StepShape, StepTime, TimingSource};
use pieces::Pieces;
use prompts::Prompts;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use host::{HostTimes, captured_rows};
pub use pieces::TOLERANCE;

/// Tokens of a step whose kernels are read once and kept; larger steps are read each time.
const KEPT_TOKENS: usize = 16_384;

/// Who publishes fp8 weights with static scales.
const STATIC_SCALES: &str = "nvidia/";

/// Contexts at which a roofline of decode attention is cut, where it stands for tables.
const UNMEASURED_LENGTHS: [u32; 5] = [1, 16, 256, 4_096, 65_536];

/// Which tables, and what they do not hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredSpec {
    /// The engine whose kernels were measured.
    pub tables: Backend,
    /// Folder of imported tables, looked at before the embedded ones.
    pub folder: Option<PathBuf>,
    /// Format of the projections; none: that of the model's weights.
    pub gemm: Option<Dtype>,
    /// Format of the experts; none: that of the projections.
    pub experts: Option<Dtype>,
    /// What stands for kernels that were not measured.
    pub missing: Missing,
    /// What comes on top of the kernels.
    pub host: HostTimes,
}

impl MeasuredSpec {
    /// Embedded tables of an engine with its fitted host times.
    #[must_use]
    pub const fn of(tables: Backend) -> MeasuredSpec {
        MeasuredSpec {
            tables,
            folder: None,
            gemm: None,
            experts: None,
            missing: Missing::Refuse,
            host: HostTimes::of(tables),
        }
    }
}

impl Default for MeasuredSpec {
    fn default() -> MeasuredSpec {
        MeasuredSpec::of(Backend::Vllm)
    }
}

/// Measured step times of one deployment.
pub struct Measured {
    kernels: Arc<Kernels>,
    host: HostTimes,
    source: TimingSource,
}

/// The part of a step that is on the GPU.
struct Kernels {
    decoder: Decoder<'static>,
    shortest: f64,
    longest: f64,
    largest_batch: f64,
    pieces: Pieces,
    prompts: Prompts,
    /// By tokens of a step with prompts: see [`Kernels::body`].
    bodies: Vec<OnceLock<f64>>,
}

impl Measured {
    /// Prices `deployment`, whose worker holds `capacity_tokens` of KV cache.
    ///
    /// # Errors
    /// No tables of this GPU and engine, kernels that were not measured, host times that are not from 0 to 1 s, or a
    /// tensor parallelism that cannot be.
    pub fn new(
        spec: &MeasuredSpec,
        deployment: Deployment<'_>,
        capacity_tokens: u64,
    ) -> Result<Measured, CalibrationError> {
        Measured::of_ranks(spec, deployment, 1, capacity_tokens)
    }

    /// The same for one of `ranks` of `deployment` that share the experts of a mixture, over the GPUs of all of them. A step takes
    /// what the slowest of them takes, and what they take [together](StepTime::together).
    ///
    /// # Errors
    /// As [`Measured::new`], and ranks of a model without experts.
    pub fn of_ranks(
        spec: &MeasuredSpec,
        deployment: Deployment<'_>,
        ranks: u32,
        capacity_tokens: u64,
    ) -> Result<Measured, CalibrationError> {
        let mut problems = Vec::new();
        for (name, us) in spec.host.fields() {
            check_range(&mut problems, name, us, 0.0..=1e6, " us");
        }
        if ranks > 1 {
            problems.extend(check_ranks(&deployment, ranks));
        }
        check(problems)?;
        let Deployment {
            model,
            gpu,
            tensor_parallel,
            expert_parallel,
            kv_cache,
        } = deployment;
        refuse_what_no_table_holds(model)?;
        let defaults = default_formats(model);
        let gemm = if model.id.starts_with(STATIC_SCALES) && defaults.gemm == Dtype::Fp8 {
            Dtype::Fp8Static
        } else {
            defaults.gemm
        };
        let formats = Formats {
            gemm: spec.gemm.unwrap_or(gemm),
            kv_cache: match kv_cache {
                Precision::Bf16 => Dtype::Bfloat16,
                Precision::Fp8 => Dtype::Fp8,
            },
            attention: Dtype::Bfloat16,
        };
        let folder = spec.folder.as_deref();
        let profile = without_launch_floor(folder, gpu.name, spec.tables, formats.gemm)?;
        let setting = Setting {
            expert_parallel,
            ranks,
            experts: spec.experts.unwrap_or(formats.gemm),
            missing: spec.missing,
            ..Setting::tensor_parallel(tensor_parallel, formats)
        };
        let dense = Decoder::prepare(profile, &Shape::from(model), &setting)?;
        dense.check_all_rows()?;
        let lengths = match dense.kv_lengths() {
            none if none.is_empty() => UNMEASURED_LENGTHS.to_vec(),
            measured => measured,
        };
        let mut source = source(spec, &deployment, profile, formats, &dense);
        if ranks > 1 {
            source.detail = format!("{}, {ranks} ranks that share experts", source.detail);
            source.guesses.push(RANKS_GUESS.to_owned());
        }
        let kernels = Kernels {
            shortest: f64::from(lengths[0]),
            longest: f64::from(lengths[lengths.len() - 1]),
            largest_batch: f64::from(dense.largest_batch()),
            pieces: Pieces::new(lengths, capacity_tokens),
            prompts: Prompts::new(dense.prompt_lengths()),
            bodies: (0..=KEPT_TOKENS).map(|_| OnceLock::new()).collect(),
            decoder: dense,
        };
        Ok(Measured {
            kernels: Arc::new(kernels),
            host: spec.host,
            source,
        })
    }

    /// The same kernels, shared, under other host times. What it says of itself stays that of the first.
    #[must_use]
    pub fn with_host(&self, host: HostTimes) -> Measured {
        Measured {
            kernels: self.kernels.clone(),
            host,
            source: self.source.clone(),
        }
    }

    /// The time of a step in seconds, before rounding and chords.
    #[must_use]
    pub fn seconds(&self, shape: &StepShape<'_>) -> f64 {
        let exact = |chunks, whole| self.kernels.prompt_attention(chunks, whole).0;
        (self.host_ms(shape) + self.kernels.ms(shape, exact)) * 1e-3
    }

    fn host_ms(&self, shape: &StepShape<'_>) -> f64 {
        let sequences = shape.decode_batch as usize + shape.prefill.len();
        let prefill_us = if shape.prefill.is_empty() {
            0.0
        } else {
            self.host.prefill_step_us
        };
        (self.host.step_us + self.host.sequence_us * sequences as f64 + prefill_us) * 1e-3
    }
}

impl StepTime for Measured {
    #[inline]
    fn decode(&self, batch: u32, context: u64) -> Piece {
        let mut piece = self.kernels.decode(batch, context);
        let host_us = self.host.step_us + self.host.sequence_us * f64::from(batch);
        piece.at += Span((host_us * 1e6).round() as u64);
        piece
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        let cut = |chunks, whole| self.kernels.cut_prompt_attention(chunks, whole).0;
        Span::from_s((self.host_ms(shape) + self.kernels.ms(shape, cut)) * 1e-3)
    }

    fn together(&self, tokens: u64) -> Span {
        Span::from_s(self.kernels.decoder.together_ms(tokens as f64).0 * 1e-3)
    }

    fn is_extrapolated(&self, shape: &StepShape<'_>) -> bool {
        self.kernels.is_extrapolated(shape)
    }

    fn source(&self) -> TimingSource {
        self.source.clone()
    }
}

impl Kernels {
    /// `whole_prompts` is the time of attention over so many prompts of a length.
    fn ms(&self, shape: &StepShape<'_>, whole_prompts: impl Fn(u32, u32) -> f64) -> f64 {
        let new_tokens = new_tokens(shape);
        let chunks = shape.prefill.len() as u32;
        let mut ms = if chunks == 0 {
            self.decode_all_but_attention_ms(shape.decode_batch)
        } else {
            // Model: every chunk gets a token, also one that does not end its prompt; the LM head is bound by memory then.
            self.body(u64::from(shape.decode_batch) + new_tokens).abs()
                + self.decoder.head_ms(f64::from(shape.decode_batch + chunks))
                + self.decoder.around_attention_ms(new_tokens as f64)
        };
        for chunk in shape.prefill {
            let cached = f64::from(chunk.cached_tokens);
            let whole = cached + f64::from(chunk.new_tokens);
            let share = (whole * whole - cached * cached) / (whole * whole);
            ms += whole_prompts(chunks, whole_prompt(chunk)) / f64::from(chunks) * share;
        }
        if shape.decode_batch > 0 {
            ms += self.decode_attention_ms(shape.decode_batch, shape.decode_context);
        }
        ms
    }

    #[inline]
    fn decode(&self, batch: u32, context: u64) -> Piece {
        self.pieces.find(batch, context, || {
            let others_ms = self.decode_all_but_attention_ms(batch);
            move |context| (others_ms + self.decode_attention_ms(batch, context)) * 1e9
        })
    }

    /// Attention over `chunks` whole prompts of a length, as the tables have it.
    fn prompt_attention(&self, chunks: u32, whole: u32) -> (f64, Reach) {
        let (chunks, whole) = (f64::from(chunks), f64::from(whole));
        self.decoder.prompt_attention_ms(chunks, whole)
    }

    /// The same from its lines, and whether it lies beyond the measurements.
    #[inline]
    fn cut_prompt_attention(&self, chunks: u32, whole: u32) -> (f64, bool) {
        let read = |whole| self.decoder.prompt_attention_ms(f64::from(chunks), whole);
        self.prompts.find(chunks, whole, read)
    }

    fn decode_all_but_attention_ms(&self, batch: u32) -> f64 {
        let rows = f64::from(captured_rows(batch));
        self.decoder.body_ms(Phase::Decodes, rows).0 + self.decoder.head_ms(rows)
    }

    fn decode_attention_ms(&self, batch: u32, context: u64) -> f64 {
        // Model: contexts shorter than the shortest measured one cost what that does.
        let length = (context as f64 / f64::from(batch)).max(self.shortest);
        self.decoder.decode_attention_ms(f64::from(batch), length).0
    }

    /// All but attention and the LM head of a step with prompts: milliseconds, negative where a reading lies beyond the
    /// measurements.
    fn body(&self, tokens: u64) -> f64 {
        let read = || match self.decoder.body_ms(Phase::Prompts, tokens as f64) {
            (ms, Reach::Extrapolated | Reach::Estimated) => -ms,
            (ms, _) => ms,
        };
        let kept = self.bodies.get(tokens as usize);
        kept.map_or_else(read, |kept| *kept.get_or_init(read))
    }

    fn is_extrapolated(&self, shape: &StepShape<'_>) -> bool {
        let batch = f64::from(shape.decode_batch);
        let chunks = shape.prefill.len() as u32;
        let is_prompt_beyond =
            |chunk: &Chunk| self.cut_prompt_attention(chunks, whole_prompt(chunk)).1;
        // Pieces end at the longest measured context, so that all of a piece lies on one side of it.
        batch > self.largest_batch
            || shape.decode_context as f64 >= (self.longest * batch).max(1.0)
            || (chunks > 0
                && (self.body(u64::from(shape.decode_batch) + new_tokens(shape)) < 0.0
                    || shape.prefill.iter().any(is_prompt_beyond)))
    }
}

/// Kernels that no composition here puts together.
fn refuse_what_no_table_holds(model: &Model) -> Result<(), CalibrationError> {
    let has_mxfp4 = |experts: Experts| experts.storage == ExpertStorage::Mxfp4;
    let reasons: Vec<String> = [
        (model.window.is_some(), "sliding-window attention"),
        (
            model.experts.is_some_and(has_mxfp4),
            "experts of 4 bits (mxfp4)",
        ),
        (
            model.latent.is_some_and(|latent| latent.q_rank == 0),
            "latent attention with queries that are not compressed",
        ),
    ]
    .into_iter()
    .filter(|(is_there, _)| *is_there)
    .map(|(_, what)| what.to_owned())
    .collect();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(CalibrationError::NotModelled {
        subject: format!("`{}` from measured tables", model.id),
        reasons,
    })
}

fn new_tokens(shape: &StepShape<'_>) -> u64 {
    let chunks = shape.prefill.iter();
    chunks.map(|chunk| u64::from(chunk.new_tokens)).sum()
}

fn whole_prompt(chunk: &Chunk) -> u32 {
    chunk.cached_tokens.saturating_add(chunk.new_tokens)
}

/// The tables of an engine with those GEMMs replaced that hold launch times of the measuring loop.
fn without_launch_floor(
    folder: Option<&Path>,
    gpu: &str,
    tables: Backend,
    gemm: Dtype,
) -> Result<&'static Profile, CalibrationError> {
    let profile = library::find(folder, gpu, tables)?;
    let Some(donor) = donor(tables, gemm) else {
        return Ok(profile);
    };
    let Ok(other) = library::find(folder, gpu, donor) else {
        return Ok(profile);
    };
    let Some(table) = other.gemm.get(&gemm) else {
        return Ok(profile);
    };
    let name = format!(
        "{} with {}'s {} GEMMs",
        profile.name(),
        donor.name(),
        gemm.name()
    );
    Ok(library::shelved(folder, &name, || {
        let mut replaced = profile.clone();
        replaced.gemm.insert(gemm, table.clone());
        replaced
    }))
}

/// Whose GEMMs stand for those that hold launch time.
fn donor(tables: Backend, gemm: Dtype) -> Option<Backend> {
    match (tables, gemm) {
        (Backend::Vllm, Dtype::Fp8Block) => Some(Backend::Sglang),
        (Backend::Trtllm, Dtype::Fp8) => Some(Backend::Vllm),
        _ => None,
    }
}

fn source(
    spec: &MeasuredSpec,
    deployment: &Deployment<'_>,
    profile: &Profile,
    formats: Formats,
    dense: &Decoder<'_>,
) -> TimingSource {
    let HostTimes {
        step_us,
        sequence_us,
        prefill_step_us,
        ..
    } = spec.host;
    let origin = if spec.host == HostTimes::of(spec.tables) {
        format!(", fitted for {} on public benchmarks", spec.tables.name())
    } else {
        String::new()
    };
    let mut guesses = vec![format!(
        "the host takes {step_us} us per step, {sequence_us} us per sequence of it and {prefill_step_us} us more with a \
         prompt{origin}"
    )];
    if let Some(donor) = donor(spec.tables, formats.gemm) {
        guesses.push(format!(
            "{} GEMMs are those of {} on the same GPU: those of {} hold launch time of the measuring loop",
            formats.gemm.name(),
            donor.name(),
            spec.tables.name()
        ));
    }
    let estimated = dense.estimated();
    if !estimated.is_empty() {
        guesses.push(format!(
            "not measured, and estimated 1.3 to 3 times too short by their roofline: {}",
            estimated.join(", ")
        ));
    }
    if dense.head_reach() == Reach::Extrapolated {
        guesses.push(
            "the LM head is larger than the measured GEMMs; their efficiency is carried on"
                .to_owned(),
        );
    }
    guesses.push(validated::in_words(
        deployment.gpu.name,
        spec.tables,
        deployment.model,
        deployment.tensor_parallel,
    ));
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
