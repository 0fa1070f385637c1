//! Expert FFNs: a curve over the tokens of a layer for every shape, width and spread that was measured.
//!
//! Left out are formats and spreads unknown here, experts without a gate (`…_nongated`) and the kernels TensorRT-LLM
//! keeps for few tokens (`…_min_latency`), which AIConfigurator has in tables of their own.

use super::super::grid::Grid;
use super::super::keys::{ExpertKey, Load};
use super::super::parquet::ParquetFile;
use super::super::{Dtype, SourceFile};
use super::rows::{Firsts, Places};
use super::{Repeats, note};
use crate::error::CalibrationError;
use std::collections::BTreeMap;

pub(super) fn experts(
    sources: &mut [ParquetFile],
    repeats: Repeats,
    files: &mut Vec<SourceFile>,
) -> Result<BTreeMap<ExpertKey, Grid<1>>, CalibrationError> {
    let mut firsts = Firsts::new();
    for file in sources {
        let columns = Columns::read(file)?;
        let mut places = Places::new(repeats);
        let mut used = 0;
        for row in 0..file.rows() {
            let kernel = &columns.kernels[row];
            if kernel.ends_with("_nongated") || kernel.ends_with("_min_latency") {
                continue;
            }
            let Some(key) = columns.key(file, row) else {
                continue;
            };
            let tokens = columns.tokens[row];
            places.enter(file, row, (key, tokens), kernel);
            used += usize::from(firsts.enter(key, [tokens], columns.ms[row]));
        }
        file.check()?;
        note(files, file, used);
    }
    Ok(firsts.grids())
}

struct Columns {
    dtypes: Vec<String>,
    loads: Vec<String>,
    kernels: Vec<String>,
    tokens: Vec<u32>,
    top_k: Vec<u32>,
    experts: Vec<u32>,
    hidden: Vec<u32>,
    intermediate: Vec<u32>,
    tensor_parallel: Vec<u32>,
    expert_parallel: Vec<u32>,
    ms: Vec<f64>,
}

impl Columns {
    fn read(file: &mut ParquetFile) -> Result<Columns, CalibrationError> {
        let columns = Columns {
            dtypes: file.text("moe_dtype"),
            loads: file.text("distribution"),
            kernels: file.text_or_empty("kernel_source"),
            tokens: file.whole("num_tokens"),
            top_k: file.whole("topk"),
            experts: file.whole("num_experts"),
            hidden: file.whole("hidden_size"),
            intermediate: file.whole("inter_size"),
            tensor_parallel: file.whole("moe_tp_size"),
            expert_parallel: file.whole("moe_ep_size"),
            ms: file.latency(),
        };
        file.check()?;
        Ok(columns)
    }

    /// What a row is about; none for what is left out, with a problem where a size cannot be.
    fn key(&self, file: &mut ParquetFile, row: usize) -> Option<ExpertKey> {
        let (dtype, load) = (
            Dtype::find(&self.dtypes[row])?,
            Load::find(&self.loads[row])?,
        );
        let key = ExpertKey {
            dtype,
            top_k: self.top_k[row],
            experts: self.experts[row],
            hidden: self.hidden[row],
            intermediate: self.intermediate[row],
            tensor_parallel: self.tensor_parallel[row],
            expert_parallel: self.expert_parallel[row],
            load,
        };
        let sizes = [
            key.top_k,
            key.hidden,
            key.intermediate,
            key.tensor_parallel,
            key.expert_parallel,
            self.tokens[row],
        ];
        if sizes.contains(&0) || key.top_k > key.experts || key.expert_parallel > key.experts {
            let found = format!("{} tokens, {key}", self.tokens[row]);
            let expected = "sizes of at least 1, topk and moe_ep_size up to num_experts";
            file.problem(row, "sizes", found, expected);
            return None;
        }
        Some(key)
    }
}
