//! Collectives: the engine's own all-reduce, measured in a CUDA graph, and those of NCCL. Messages count elements.

use super::super::SourceFile;
use super::super::grid::Grid;
use super::super::keys::{Collective, NcclKey};
use super::super::parquet::ParquetFile;
use super::rows::{Firsts, Places};
use super::{Repeats, note};
use crate::error::CalibrationError;
use std::collections::BTreeMap;

/// The engine's all-reduce by GPUs.
pub(super) fn all_reduce(
    sources: &mut [ParquetFile],
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<BTreeMap<u32, Grid<1>>, CalibrationError> {
    let mut firsts = Firsts::new();
    for file in sources {
        let kernels = file.text_or_empty("kernel_source");
        let backends = file.text_or_empty("backend");
        let messages = Messages::read(file)?;
        let mut places = Places::new(repeats);
        let mut used = 0;
        for row in 0..file.rows() {
            if kernels[row].ends_with("_eager") || backends[row].ends_with("_eager") {
                continue;
            }
            let Some((gpus, elements, ms)) = messages.row(file, row) else {
                continue;
            };
            places.enter(file, row, (gpus, elements), &kernels[row]);
            used += usize::from(firsts.enter(gpus, [elements], ms));
        }
        file.check()?;
        note(files, file, used);
    }
    Ok(firsts.grids())
}

/// The collectives of NCCL, of 16-bit numbers.
pub(super) fn nccl(
    sources: &mut [ParquetFile],
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<BTreeMap<NcclKey, Grid<1>>, CalibrationError> {
    let mut firsts = Firsts::new();
    for file in sources {
        let (names, dtypes) = (file.text("op_name"), file.text("nccl_dtype"));
        let messages = Messages::read(file)?;
        let mut places = Places::new(repeats);
        let mut used = 0;
        for row in 0..file.rows() {
            let named = Collective::ALL
                .into_iter()
                .find(|collective| collective.name() == names[row]);
            let Some(collective) = named.filter(|_| dtypes[row] == "half") else {
                continue;
            };
            let Some((gpus, elements, ms)) = messages.row(file, row) else {
                continue;
            };
            let key = NcclKey { collective, gpus };
            places.enter(file, row, (key, elements), "");
            used += usize::from(firsts.enter(key, [elements], ms));
        }
        file.check()?;
        note(files, file, used);
    }
    Ok(firsts.grids())
}

/// The columns all collectives have.
struct Messages {
    gpus: Vec<u32>,
    elements: Vec<u32>,
    ms: Vec<f64>,
}

impl Messages {
    fn read(file: &mut ParquetFile) -> Result<Messages, CalibrationError> {
        let messages = Messages {
            gpus: file.whole("num_gpus"),
            elements: file.whole("message_size"),
            ms: file.latency(),
        };
        file.check()?;
        Ok(messages)
    }

    fn row(&self, file: &mut ParquetFile, row: usize) -> Option<(u32, u32, f64)> {
        let (gpus, elements) = (self.gpus[row], self.elements[row]);
        if gpus < 2 || elements == 0 {
            let found = format!("{gpus} GPUs, {elements} elements");
            let expected = "at least 2 GPUs and 1 element";
            file.problem(row, "num_gpus, message_size", found, expected);
            return None;
        }
        Some((gpus, elements, self.ms[row]))
    }
}
