//! Products of 8-bit floats whose input comes scaled: the format `fp8_static`.
//!
//! The `fp8` products of vLLM and TensorRT-LLM were measured from 16-bit inputs: each measurement holds a pass that finds
//! the scale of the input (`computescale_perf`) and one that applies it (`scale_matrix_perf`). A checkpoint with static
//! scales needs no search, and its engine has the kernel in front (norm, attention, activation) write 8 bits. So both
//! passes are taken off, row by row; what is left is at least the roofline. For products of a few rows that is half of
//! TensorRT-LLM's time and a fifth of vLLM's.
//!
//! SGLang's tables of these passes cannot be used: the search takes no time at all, the scaling more than many products.
// Model: AIConfigurator takes the second pass off only behind attention and activation; the norms of these engines write
// 8 bits too.

use super::super::gemm::{GemmTable, Shape};
use super::super::parquet::ParquetFile;
use super::super::{Backend, Dtype, Machine, SourceFile};
use super::{Repeats, note, rows};
use crate::aic::roofline;
use crate::error::CalibrationError;
use std::collections::BTreeMap;

/// Milliseconds of a pass by rows and columns of the input.
type Passes = BTreeMap<(u32, u32), f64>;

/// Adds products with static scales to those of `fp8`; none where the passes were not measured.
pub(super) fn add_static(
    gemm: &mut BTreeMap<Dtype, GemmTable>,
    [search, scale]: [&mut [ParquetFile]; 2],
    backend: Backend,
    machine: &Machine,
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<(), CalibrationError> {
    let Some(dynamic) = gemm.get(&Dtype::Fp8) else {
        return Ok(());
    };
    if backend == Backend::Sglang || search.is_empty() || scale.is_empty() {
        return Ok(());
    }
    let passes = [
        passes(search, repeats, files)?,
        passes(scale, repeats, files)?,
    ];
    let floor = roofline::gemm(machine, Dtype::Fp8Static);
    let rest = |m: u32, shape: &Shape, ms: f64| {
        let both: Option<f64> = passes.iter().map(|pass| pass.get(&(m, shape.k))).sum();
        let floor = floor.as_ref().map_or(0.0, |floor| {
            floor.ms(f64::from(m), f64::from(shape.n), f64::from(shape.k))
        });
        both.map(|both| (ms - both).max(floor))
    };
    let shapes = dynamic.shapes().iter().filter_map(|shape| {
        let points = shape.curve.iter();
        let curve: Vec<(u32, f64)> = points
            .filter_map(|&(m, ms)| rest(m, shape, ms).map(|ms| (m, ms)))
            .collect();
        let Shape { n, k, .. } = *shape;
        (!curve.is_empty()).then_some(Shape { n, k, curve })
    });
    let table = GemmTable::new(shapes.collect());
    gemm.insert(Dtype::Fp8Static, table);
    Ok(())
}

fn passes(
    sources: &mut [ParquetFile],
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<Passes, CalibrationError> {
    let mut passes = Passes::new();
    for file in sources {
        let dtypes = file.text("quant_dtype");
        let (m, k, ms) = (file.whole("m"), file.whole("k"), file.latency_or_zero());
        let kernels = file.text_or_empty("kernel_source");
        file.check()?;
        let mut places = rows::Places::new(repeats);
        let mut used = 0;
        for row in 0..file.rows() {
            if dtypes[row] != Dtype::Fp8.name() {
                continue;
            }
            let place = (m[row], k[row]);
            places.enter(file, row, place, &kernels[row]);
            if let std::collections::btree_map::Entry::Vacant(vacant) = passes.entry(place) {
                vacant.insert(ms[row]);
                used += 1;
            }
        }
        file.check()?;
        note(files, file, used);
    }
    Ok(passes)
}
