//! Latent attention (MLA): the kernel alone, or the whole block with its projections (`…_module`), and the products that
//! take queries into the latent space and results out of it.
//!
//! `num_heads` counts the heads on the GPU. Some files name the model of a block; the first row of a place counts, so that
//! the model measured first does.

use super::super::grid::Grid;
use super::super::keys::{AbsorbKey, LatentKey};
use super::super::parquet::ParquetFile;
use super::super::{Dtype, SourceFile};
use super::rows::{Firsts, Places};
use super::{Repeats, note};
use crate::error::CalibrationError;
use std::collections::BTreeMap;

/// What the sequences of a table do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Whole prompts: heads, tokens, batch.
    Prompts,
    /// Decode steps: heads, batch, tokens in the KV cache with the new one.
    Decodes,
}

pub(super) fn attention(
    sources: &mut [ParquetFile],
    phase: Phase,
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<BTreeMap<LatentKey, Grid<3>>, CalibrationError> {
    let mut firsts = Firsts::new();
    for file in sources {
        let (attention, kv_cache) = (file.text("mla_dtype"), file.text("kv_cache_dtype"));
        let is_block = file.has("gemm_type");
        let (blocks, models) = (file.text_or_empty("gemm_type"), file.text_or_empty("model"));
        let kernels = file.text_or_empty("kernel_source");
        let (heads, batch) = (file.whole("num_heads"), file.whole("batch_size"));
        let (isl, steps) = (file.whole("isl"), file.whole("step"));
        let ms = file.latency();
        file.check()?;
        let mut places = Places::new(repeats);
        let mut used = 0;
        for row in 0..file.rows() {
            let formats = (Dtype::find(&attention[row]), Dtype::find(&kv_cache[row]));
            let ((Some(attention), Some(kv_cache)), block) = (formats, Dtype::find(&blocks[row]))
            else {
                continue;
            };
            if is_block && block.is_none() {
                continue;
            }
            let (heads, batch) = (heads[row], batch[row]);
            let tokens = isl[row].saturating_add(steps[row]);
            if heads == 0 || batch == 0 || isl[row] == 0 {
                let found = format!("{heads} heads, batch {batch}, {tokens} tokens");
                file.problem(row, "sizes", found, "sizes of at least 1");
                continue;
            }
            let at = match phase {
                Phase::Prompts => [heads, isl[row], batch],
                Phase::Decodes => [heads, batch, tokens],
            };
            let key = LatentKey {
                attention,
                kv_cache,
                block,
            };
            let kernel = [&models[row][..], &kernels[row]].concat();
            places.enter(file, row, (key, at), &kernel);
            used += usize::from(firsts.enter(key, at, ms[row]));
        }
        file.check()?;
        note(files, file, used);
    }
    Ok(firsts.grids())
}

pub(super) fn absorb(
    sources: &mut [ParquetFile],
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<BTreeMap<AbsorbKey, Grid<1>>, CalibrationError> {
    let mut firsts = Firsts::new();
    for file in sources {
        let (names, dtypes) = (file.text("op_name"), file.text("bmm_dtype"));
        let kernels = file.text_or_empty("kernel_source");
        let (heads, tokens) = (file.whole("num_heads"), file.whole("num_tokens"));
        let ms = file.latency();
        file.check()?;
        let mut places = Places::new(repeats);
        let mut used = 0;
        for row in 0..file.rows() {
            let is_after = match &names[row][..] {
                "mla_gen_pre" => false,
                "mla_gen_post" => true,
                _ => continue,
            };
            let Some(dtype) = Dtype::find(&dtypes[row]) else {
                continue;
            };
            let (heads, tokens) = (heads[row], tokens[row]);
            if heads == 0 || tokens == 0 {
                let found = format!("{heads} heads, {tokens} tokens");
                file.problem(row, "sizes", found, "sizes of at least 1");
                continue;
            }
            let key = AbsorbKey {
                dtype,
                is_after,
                heads,
            };
            places.enter(file, row, (key, tokens), &kernels[row]);
            used += usize::from(firsts.enter(key, [tokens], ms[row]));
        }
        file.check()?;
        note(files, file, used);
    }
    Ok(firsts.grids())
}
