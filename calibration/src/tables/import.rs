//! Reads the database of AIConfigurator (`aiconfigurator-core` 0.12, unpacked) into profiles.
//!
//! For every GPU and engine the version is the *current* one of `query_versions.yaml`. A table is the rows of that
//! version's file, then of the versions its `reuse.yaml` names, then of the engine's older versions, nearest first; the
//! first row of a place counts. Rows are left out, and counted, where the format is unknown here, where an all-reduce was
//! measured outside a CUDA graph (`_eager`), and where a place of an attention table was measured with another kernel
//! too: the kernel named in `attention_lane_defaults.yaml` counts, else the one with the most rows. GEMM and decode
//! attention below their roofline are raised to it (prompt attention is not), as AIConfigurator does when it loads.
//!
//! Everything is checked before anything is returned: values that cannot be, and one place measured twice by one kernel
//! in one file, are errors with file and row.
// Model: kernels that engines share are not borrowed across engines (AIConfigurator's fourth source); for the tables
// read here every kernel belongs to one engine, so nothing is lost.

mod comm;
mod experts;
mod latent;
mod layout;
mod quantize;
mod rows;

pub use layout::{Found, find_root, list};

use super::gemm::GemmTable;
use super::grid::{Grid, Point};
use super::parquet::ParquetFile;
use super::{ContextKey, Dtype, GenerationKey, Machine, Profile, Provenance, SourceFile};
use crate::aic::roofline::{self, Floor};
use crate::error::CalibrationError;
use std::collections::BTreeMap;
use std::path::Path;

/// Which part of the tables to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    /// All that is understood.
    All,
    /// What dense models with heads of 128 need: bfloat16, fp8 and fp8_block GEMMs, attention without a window.
    Dense,
}

impl Slice {
    /// The name in provenance and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Slice::All => "all",
            Slice::Dense => "dense",
        }
    }

    const fn takes_gemm(self, dtype: Dtype) -> bool {
        matches!(self, Slice::All)
            || matches!(dtype, Dtype::Bfloat16 | Dtype::Fp8 | Dtype::Fp8Block)
    }

    const fn takes_attention(self, head_dim: u32, window: u32) -> bool {
        matches!(self, Slice::All) || (head_dim == 128 && window == 0)
    }
}

/// What to do with a place that one kernel measured twice in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// It is an error.
    Refuse,
    /// The first row counts, as in AIConfigurator; the others count as left out. Tables of the 0.12 database that need
    /// it: experts of older vLLM and SGLang versions, latent attention of SGLang on h100_sxm, attention of a100_sxm, an
    /// older SGLang all-reduce of gb200 and gb300.
    First,
}

/// The profile of one GPU, engine and version under `root` (the folder `systems`).
///
/// # Errors
/// Files that cannot be read, do not have the columns or hold values that cannot be.
pub fn import(
    root: &Path,
    found: &Found,
    slice: Slice,
    repeats: Repeats,
) -> Result<Profile, CalibrationError> {
    let machine = Machine::read(&root.join(format!("{}.yaml", found.gpu)))?;
    let mut files = Vec::new();
    let open = |family: &str, table: &str| -> Result<Vec<ParquetFile>, CalibrationError> {
        let paths = layout::sources(root, found, family, table)?;
        paths
            .iter()
            .map(|path| ParquetFile::read(&root.join(path), path))
            .collect()
    };
    let mut gemm = gemm(
        &mut open("gemm", "gemm_perf")?,
        &machine,
        slice,
        repeats,
        &mut files,
    )?;
    let passes = |table: &str| -> Result<Vec<ParquetFile>, CalibrationError> {
        let paths = layout::some_sources(root, found, "quantize", table)?;
        let read = |path: &String| ParquetFile::read(&root.join(path), path);
        paths.iter().map(read).collect()
    };
    let (search, scale) = (
        &mut passes("computescale_perf")?,
        &mut passes("scale_matrix_perf")?,
    );
    quantize::add_static(
        &mut gemm,
        [search, scale],
        found.backend,
        &machine,
        repeats,
        &mut files,
    )?;
    let lane = layout::default_lane(root, found, machine.sm_version)?;
    let context = context(
        &mut open("attention", "context_attention_perf")?,
        lane.as_deref(),
        slice,
        repeats,
        &mut files,
    )?;
    let sources = &mut open("attention", "generation_attention_perf")?;
    let generation = generation(
        sources,
        &machine,
        lane.as_deref(),
        slice,
        repeats,
        &mut files,
    )?;
    let all_reduce = comm::all_reduce(
        &mut open("comm", "custom_allreduce_perf")?,
        repeats,
        &mut files,
    )?;
    let mut profile = Profile {
        provenance: Provenance {
            source: "NVIDIA AIConfigurator, aiconfigurator-core 0.12.0".to_owned(),
            license: "Apache-2.0; modified (subset)".to_owned(),
            gpu: found.gpu.clone(),
            backend: found.backend,
            version: found.version.clone(),
            slice: slice.name().to_owned(),
            files: Vec::new(),
        },
        machine,
        gemm,
        context,
        generation,
        all_reduce,
        latent_context: BTreeMap::new(),
        latent_generation: BTreeMap::new(),
        absorb: BTreeMap::new(),
        experts: BTreeMap::new(),
        nccl: BTreeMap::new(),
    };
    if slice == Slice::All {
        beyond_dense(&mut profile, root, found, repeats, &mut files)?;
    }
    profile.provenance.files = files;
    Ok(profile)
}

/// Reads the tables that dense models do not need; any of them may be absent.
fn beyond_dense(
    profile: &mut Profile,
    root: &Path,
    found: &Found,
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<(), CalibrationError> {
    let open = |paths: Vec<String>| -> Result<Vec<ParquetFile>, CalibrationError> {
        let read = |path: &String| ParquetFile::read(&root.join(path), path);
        paths.iter().map(read).collect()
    };
    let some = |family: &str, table: &str| open(layout::some_sources(root, found, family, table)?);
    profile.experts = experts::experts(&mut some("moe", "moe_perf")?, repeats, files)?;
    // What was measured with its projections and what was measured alone have keys of their own.
    let prompts = &mut some("mla", "mla_context_module_perf")?;
    prompts.extend(some("mla", "context_mla_perf")?);
    profile.latent_context = latent::attention(prompts, latent::Phase::Prompts, repeats, files)?;
    let decodes = &mut some("mla", "mla_generation_module_perf")?;
    decodes.extend(some("mla", "generation_mla_perf")?);
    profile.latent_generation = latent::attention(decodes, latent::Phase::Decodes, repeats, files)?;
    profile.absorb = latent::absorb(&mut some("mla_bmm", "mla_bmm_perf")?, repeats, files)?;
    let nccl = layout::nccl_source(root, found, &profile.machine.nccl_version);
    profile.nccl = comm::nccl(&mut open(nccl)?, repeats, files)?;
    Ok(())
}

/// Notes a file and how many of its rows went in.
fn note(files: &mut Vec<SourceFile>, file: &ParquetFile, used: usize) {
    files.push(SourceFile {
        path: file.name().to_owned(),
        blake3: file.digest().to_owned(),
        rows: file.rows(),
        used,
        left_out: file.rows() - used,
    });
}

fn gemm(
    sources: &mut [ParquetFile],
    machine: &Machine,
    slice: Slice,
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<BTreeMap<Dtype, GemmTable>, CalibrationError> {
    let mut walks: BTreeMap<Dtype, rows::Walk> = BTreeMap::new();
    for file in sources {
        let (dtypes, kernels) = (file.text("gemm_dtype"), file.text_or_empty("kernel_source"));
        let (m, n, k, ms) = (
            file.whole("m"),
            file.whole("n"),
            file.whole("k"),
            file.latency(),
        );
        file.check()?;
        let mut places = rows::Places::new(repeats);
        let mut used = 0;
        for row in 0..file.rows() {
            let [m, n, k] = [m[row], n[row], k[row]];
            if m == 0 || n == 0 || k == 0 {
                file.problem(
                    row,
                    "m, n, k",
                    format!("{m}, {n}, {k}"),
                    "sizes of at least 1",
                );
                continue;
            }
            let Some(dtype) = Dtype::find(&dtypes[row]).filter(|dtype| slice.takes_gemm(*dtype))
            else {
                continue;
            };
            places.enter(file, row, (dtype, m, n, k), &kernels[row]);
            let floor = roofline::gemm(machine, dtype).map_or(0.0, |floor| {
                floor.ms(f64::from(m), f64::from(n), f64::from(k))
            });
            used += usize::from(
                walks
                    .entry(dtype)
                    .or_default()
                    .enter(m, n, k, ms[row].max(floor)),
            );
        }
        file.check()?;
        note(files, file, used);
    }
    let table = |(dtype, walk): (Dtype, rows::Walk)| (dtype, GemmTable::new(walk.shapes()));
    Ok(walks.into_iter().map(table).collect())
}

fn context(
    sources: &mut [ParquetFile],
    lane: Option<&str>,
    slice: Slice,
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<BTreeMap<ContextKey, Grid<3>>, CalibrationError> {
    let mut lanes = rows::Lanes::default();
    let mut rows_of = Vec::new();
    for (source, file) in sources.iter_mut().enumerate() {
        let (attention, kv_cache) = (file.text("attn_dtype"), file.text("kv_cache_dtype"));
        let columns = rows::Attention::read(file);
        let kernels = file.text_or_empty("kernel_source");
        file.check()?;
        let mut places = rows::Places::new(repeats);
        for row in 0..file.rows() {
            let (Some(attention), Some(kv_cache)) =
                (Dtype::find(&attention[row]), Dtype::find(&kv_cache[row]))
            else {
                continue;
            };
            let Some(shape) = columns.shape(file, row) else {
                continue;
            };
            if !slice.takes_attention(shape.head_dim, shape.window) {
                continue;
            }
            let rows::Shape {
                kv_heads,
                head_dim,
                window,
                ..
            } = shape;
            let key = ContextKey {
                attention,
                kv_cache,
                kv_heads,
                head_dim,
                window,
            };
            let at = [shape.heads, columns.isl[row], columns.batch[row]];
            places.enter(file, row, (key, at), &kernels[row]);
            lanes.enter(
                key,
                &kernels[row],
                source,
                Point {
                    at,
                    ms: columns.ms[row],
                },
            );
        }
        file.check()?;
        rows_of.push(file.rows());
    }
    let (grids, used) = lanes.grids(lane, rows_of.len());
    for (file, used) in sources.iter().zip(used) {
        note(files, file, used);
    }
    Ok(grids)
}

fn generation(
    sources: &mut [ParquetFile],
    machine: &Machine,
    lane: Option<&str>,
    slice: Slice,
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<BTreeMap<GenerationKey, Grid<3>>, CalibrationError> {
    let mut lanes = rows::Lanes::default();
    let count = sources.len();
    for (source, file) in sources.iter_mut().enumerate() {
        let kv_cache = file.text("kv_cache_dtype");
        let columns = rows::Attention::read(file);
        let steps = file.whole("step");
        let kernels = file.text_or_empty("kernel_source");
        file.check()?;
        let mut places = rows::Places::new(repeats);
        for row in 0..file.rows() {
            let Some(kv_cache) = Dtype::find(&kv_cache[row]) else {
                continue;
            };
            let Some(shape) = columns.shape(file, row) else {
                continue;
            };
            if !slice.takes_attention(shape.head_dim, shape.window) {
                continue;
            }
            let rows::Shape {
                heads,
                kv_heads,
                head_dim,
                window,
            } = shape;
            let key = GenerationKey {
                kv_cache,
                kv_heads,
                head_dim,
                window,
            };
            // The KV length is what was there and the token computed.
            let at = [
                heads,
                columns.batch[row],
                columns.isl[row].saturating_add(steps[row]),
            ];
            places.enter(file, row, (key, at), &kernels[row]);
            let floor =
                roofline::generation(machine, key).map_or(0.0, |floor| floor.ms(at.map(f64::from)));
            lanes.enter(
                key,
                &kernels[row],
                source,
                Point {
                    at,
                    ms: columns.ms[row].max(floor),
                },
            );
        }
        file.check()?;
    }
    let (grids, used) = lanes.grids(lane, count);
    for (file, used) in sources.iter().zip(used) {
        note(files, file, used);
    }
    Ok(grids)
}

#[cfg(test)]
mod tests;
