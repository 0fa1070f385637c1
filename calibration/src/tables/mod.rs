//! Measured kernel times of one GPU, engine and version.
//!
//! A [`Profile`] holds one table per kernel: GEMMs, attention over prompts (*context*) and of decode steps
//! (*generation*), the same of latent attention (MLA), expert FFNs, all-reduce and NCCL collectives. It is made from the files of AIConfigurator's
//! database by [`import`], which alone touches Parquet, and kept in a compact file ([`file`]) whose bytes are a function
//! of the input. Profiles of the two commonest GPUs are embedded.
//!
//! ```text
//! systems/data/<gpu>/<family>/<engine>/<version>/<kernel>_perf.parquet ─┐
//! systems/<gpu>.yaml (bandwidths, peak rates) ───────────────────────────┴─ import → Profile ⇄ *.tables
//! ```
//!
//! Reading a table says how far the value can be trusted ([`Reach`]): measured, between measurements, or beyond them.

mod embedded;
pub mod file;
pub mod gemm;
pub mod grid;
pub mod import;
mod keys;
pub mod library;
mod machine;
mod parquet;

pub use keys::{
    AbsorbKey, Collective, ContextKey, ExpertKey, GenerationKey, LatentKey, Load, NcclKey,
};
pub use machine::Machine;

use crate::error::{CalibrationError, Problem, nearest};
use gemm::GemmTable;
use grid::Grid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a reading lies with respect to the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// On a measured point.
    Measured,
    /// Between measured points.
    Interpolated,
    /// Beyond them: efficiency held, roofline carried on.
    Extrapolated,
    /// Nothing of the kind was measured: a roofline.
    Estimated,
}

/// A number format as the tables name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 16 bits.
    Bfloat16,
    /// 8-bit float, one scale per tensor or per token.
    Fp8,
    /// 8-bit float, one scale per 128 x 128 block of the weights.
    Fp8Block,
    /// 8-bit integer weights, 16-bit arithmetic.
    Int8Wo,
    /// 4-bit integer weights, 16-bit arithmetic.
    Int4Wo,
    /// 4-bit float with scales.
    Nvfp4,
    /// 4-bit float weights with a scale per 32, 16-bit arithmetic (gpt-oss).
    #[serde(rename = "w4a16_mxfp4")]
    Mxfp4,
    /// 4-bit integer weights, fp8 arithmetic.
    #[serde(rename = "w4afp8")]
    Int4Fp8,
    /// 8-bit float, one scale per tensor, kept with the weights; inputs come in 8 bits.
    Fp8Static,
}

/// What arithmetic a number format runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// bfloat16 tensor cores.
    Bf16,
    /// fp8 tensor cores.
    Fp8,
    /// fp4 tensor cores.
    Fp4,
}

impl Dtype {
    /// All formats; a file names one by its place here.
    pub const ALL: [Dtype; 9] = [
        Dtype::Bfloat16,
        Dtype::Fp8,
        Dtype::Fp8Block,
        Dtype::Int8Wo,
        Dtype::Int4Wo,
        Dtype::Nvfp4,
        Dtype::Mxfp4,
        Dtype::Int4Fp8,
        Dtype::Fp8Static,
    ];

    /// The name in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Fp8 => "fp8",
            Dtype::Fp8Block => "fp8_block",
            Dtype::Int8Wo => "int8_wo",
            Dtype::Int4Wo => "int4_wo",
            Dtype::Nvfp4 => "nvfp4",
            Dtype::Mxfp4 => "w4a16_mxfp4",
            Dtype::Int4Fp8 => "w4afp8",
            Dtype::Fp8Static => "fp8_static",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes per number, scales included where they matter.
    #[must_use]
    pub const fn bytes(self) -> f64 {
        match self {
            Dtype::Bfloat16 => 2.0,
            Dtype::Fp8 | Dtype::Fp8Block | Dtype::Fp8Static | Dtype::Int8Wo => 1.0,
            Dtype::Int4Wo | Dtype::Mxfp4 | Dtype::Int4Fp8 => 0.5,
            Dtype::Nvfp4 => 0.5625,
        }
    }

    /// The units it computes on.
    #[must_use]
    pub const fn arithmetic(self) -> Arithmetic {
        match self {
            Dtype::Bfloat16 | Dtype::Int8Wo | Dtype::Int4Wo | Dtype::Mxfp4 => Arithmetic::Bf16,
            Dtype::Fp8 | Dtype::Fp8Block | Dtype::Fp8Static | Dtype::Int4Fp8 => Arithmetic::Fp8,
            Dtype::Nvfp4 => Arithmetic::Fp4,
        }
    }
}

/// The engine whose kernels were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// TensorRT-LLM.
    Trtllm,
}

impl Backend {
    /// All engines.
    pub const ALL: [Backend; 3] = [Backend::Vllm, Backend::Sglang, Backend::Trtllm];

    /// The name in the database and in scenarios.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Vllm => "vllm",
            Backend::Sglang => "sglang",
            Backend::Trtllm => "trtllm",
        }
    }

    /// The engine of this name.
    ///
    /// # Errors
    /// No such engine.
    pub fn find(name: &str) -> Result<Backend, CalibrationError> {
        Backend::ALL
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| {
                CalibrationError::Invalid(vec![Problem::new(
                    "backend",
                    format!("`{name}`"),
                    "vllm, sglang or trtllm",
                )])
            })
    }
}

/// A file that went into a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Path below `systems/`.
    pub path: String,
    /// Its BLAKE3 digest.
    pub blake3: String,
    /// Rows in the file.
    pub rows: usize,
    /// Rows that went in.
    pub used: usize,
    /// Rows left out: other number formats or head sizes, eager all-reduce, other kernels of the same shape, repeats.
    pub left_out: usize,
}

/// What a profile says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Where the measurements are from.
    pub source: String,
    /// Under which licence.
    pub license: String,
    /// GPU, for example `h200_sxm`.
    pub gpu: String,
    /// The engine.
    pub backend: Backend,
    /// Its version.
    pub version: String,
    /// `all` or `dense`: which part of the tables is here.
    pub slice: String,
    /// The files, in the order they were read.
    pub files: Vec<SourceFile>,
}

/// Measured kernel times of one GPU, engine and version.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// What it is and where it is from.
    pub provenance: Provenance,
    /// The GPU and node the tables were measured on.
    pub machine: Machine,
    /// Matrix products.
    pub gemm: BTreeMap<Dtype, GemmTable>,
    /// Attention over prompts: query heads, tokens, batch.
    pub context: BTreeMap<ContextKey, Grid<3>>,
    /// Decode attention: query heads, batch, tokens in the KV cache.
    pub generation: BTreeMap<GenerationKey, Grid<3>>,
    /// All-reduce by GPUs: elements of the message.
    pub all_reduce: BTreeMap<u32, Grid<1>>,
    /// Latent attention over prompts: query heads, tokens, batch.
    pub latent_context: BTreeMap<LatentKey, Grid<3>>,
    /// Latent attention of decode steps: query heads, batch, tokens in the KV cache.
    pub latent_generation: BTreeMap<LatentKey, Grid<3>>,
    /// Products into and out of the latent space: tokens.
    pub absorb: BTreeMap<AbsorbKey, Grid<1>>,
    /// Expert FFNs: tokens before they are spread over experts.
    pub experts: BTreeMap<ExpertKey, Grid<1>>,
    /// NCCL collectives: elements of the message.
    pub nccl: BTreeMap<NcclKey, Grid<1>>,
}

impl Profile {
    /// An embedded profile.
    ///
    /// # Errors
    /// None for this GPU and engine; the error lists those there are.
    pub fn embedded(gpu: &str, backend: Backend) -> Result<&'static Profile, CalibrationError> {
        embedded::find(gpu, backend)
    }

    /// All embedded profiles.
    pub fn all_embedded() -> impl Iterator<Item = &'static Profile> {
        embedded::all()
    }

    /// The matrix products of a number format.
    ///
    /// # Errors
    /// It was not measured; with the formats that were.
    pub fn gemm(&self, dtype: Dtype) -> Result<&GemmTable, CalibrationError> {
        self.gemm.get(&dtype).ok_or_else(|| {
            self.missing(
                "gemm",
                dtype.name(),
                self.gemm.keys().map(|key| key.name().to_owned()),
            )
        })
    }

    /// Attention over prompts.
    ///
    /// # Errors
    /// It was not measured; with the nearest that was.
    pub fn context(&self, key: ContextKey) -> Result<&Grid<3>, CalibrationError> {
        self.find("context attention", &self.context, key)
    }

    /// Decode attention.
    ///
    /// # Errors
    /// It was not measured; with the nearest that was.
    pub fn generation(&self, key: GenerationKey) -> Result<&Grid<3>, CalibrationError> {
        self.find("generation attention", &self.generation, key)
    }

    /// The all-reduce over so many GPUs.
    ///
    /// # Errors
    /// It was not measured; with the nearest width that was.
    pub fn all_reduce_curve(&self, gpus: u32) -> Result<&Grid<1>, CalibrationError> {
        let known = || self.all_reduce.keys().map(|gpus| format!("{gpus} GPUs"));
        self.all_reduce
            .get(&gpus)
            .ok_or_else(|| self.missing("all-reduce", &format!("{gpus} GPUs"), known()))
    }

    /// Latent attention over prompts.
    ///
    /// # Errors
    /// It was not measured; with the nearest that was.
    pub fn latent_context(&self, key: LatentKey) -> Result<&Grid<3>, CalibrationError> {
        self.find("latent attention over prompts", &self.latent_context, key)
    }

    /// Latent attention of decode steps.
    ///
    /// # Errors
    /// It was not measured; with the nearest that was.
    pub fn latent_generation(&self, key: LatentKey) -> Result<&Grid<3>, CalibrationError> {
        self.find("latent decode attention", &self.latent_generation, key)
    }

    /// A product into or out of the latent space.
    ///
    /// # Errors
    /// It was not measured; with the nearest that was.
    pub fn absorb(&self, key: AbsorbKey) -> Result<&Grid<1>, CalibrationError> {
        self.find("latent projection", &self.absorb, key)
    }

    /// Expert FFNs.
    ///
    /// # Errors
    /// They were not measured; with the nearest that were.
    pub fn experts(&self, key: ExpertKey) -> Result<&Grid<1>, CalibrationError> {
        self.find("experts", &self.experts, key)
    }

    /// An NCCL collective.
    ///
    /// # Errors
    /// It was not measured; with the nearest that was.
    pub fn nccl(&self, key: NcclKey) -> Result<&Grid<1>, CalibrationError> {
        self.find("NCCL", &self.nccl, key)
    }

    fn find<'a, K: Ord + fmt::Display, T>(
        &self,
        table: &str,
        among: &'a BTreeMap<K, T>,
        key: K,
    ) -> Result<&'a T, CalibrationError> {
        let known = || among.keys().map(ToString::to_string);
        let found = among.get(&key);
        found.ok_or_else(|| self.missing(table, &key.to_string(), known()))
    }

    /// `h200_sxm vllm 0.24.0`.
    #[must_use]
    pub fn name(&self) -> String {
        let Provenance {
            gpu,
            backend,
            version,
            ..
        } = &self.provenance;
        format!("{gpu} {} {version}", backend.name())
    }

    pub(crate) fn missing(
        &self,
        table: &str,
        wanted: &str,
        known: impl Iterator<Item = String>,
    ) -> CalibrationError {
        let known: Vec<String> = known.collect();
        let near = nearest(wanted, known.iter().map(String::as_str));
        CalibrationError::NotMeasured {
            table: format!("{table} of {}", self.name()),
            wanted: wanted.to_owned(),
            nearest: near
                .or(known.first().map(String::as_str))
                .map(str::to_owned),
        }
    }
}
