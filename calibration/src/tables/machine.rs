//! The GPU and its node as a system file of the database describes them.

use super::{Arithmetic, Dtype};
use crate::error::{CalibrationError, Problem, check};
use saphyr::{LoadableYamlNode, Yaml};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Rates, capacities and reserves of a GPU in its node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Memory bandwidth, bytes/s.
    pub memory_bytes_per_s: f64,
    /// The share of it that element-wise kernels reach.
    pub elementwise_share: f64,
    /// What each element-wise kernel takes at least, seconds.
    pub elementwise_s: f64,
    /// Device memory, bytes.
    pub memory_bytes: u64,
    /// bfloat16 tensor-core rate, FLOP/s.
    pub bf16_flops: f64,
    /// fp8 rate; none where there is none.
    pub fp8_flops: Option<f64>,
    /// fp4 rate; none where there is none.
    pub fp4_flops: Option<f64>,
    /// GPUs of a node.
    pub gpus_per_node: u32,
    /// Bandwidth between GPUs of a node, bytes/s and direction.
    pub intra_node_bytes_per_s: f64,
    /// Bandwidth between nodes, bytes/s per GPU and direction.
    pub inter_node_bytes_per_s: f64,
    /// What a hop between pipeline stages takes at least, seconds.
    pub hop_s: f64,
    /// Memory of the collectives' buffers by GPUs of the group, bytes.
    pub collective_bytes: BTreeMap<u32, u64>,
    /// Memory kept for everything else, bytes.
    pub other_bytes: u64,
    /// Version of NCCL measured with.
    pub nccl_version: String,
    /// Compute capability times ten; 0 where there is none.
    pub sm_version: u32,
}

impl Machine {
    /// Reads a system file.
    ///
    /// # Errors
    /// It cannot be read, is not YAML, or lacks fields; all at once.
    pub fn read(path: &Path) -> Result<Machine, CalibrationError> {
        let text = std::fs::read_to_string(path).map_err(|source| CalibrationError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file = path.display().to_string();
        let documents = Yaml::load_from_str(&text)
            .map_err(|error| CalibrationError::Invalid(vec![Problem::new(&file, error, "YAML")]))?;
        let Some(root) = documents.first() else {
            return Err(CalibrationError::Invalid(vec![Problem::new(
                &file,
                "nothing",
                "a system description",
            )]));
        };
        let mut fields = Fields {
            file,
            root,
            problems: Vec::new(),
        };
        let machine = Machine {
            memory_bytes_per_s: fields.number("gpu", "mem_bw"),
            elementwise_share: fields.number("gpu", "mem_bw_empirical_scaling_factor"),
            elementwise_s: fields.number("gpu", "mem_empirical_constant_latency"),
            memory_bytes: fields.number("gpu", "mem_capacity") as u64,
            bf16_flops: fields.number("gpu", "bfloat16_tc_flops"),
            fp8_flops: fields.optional("gpu", "fp8_tc_flops"),
            fp4_flops: fields.optional("gpu", "fp4_tc_flops"),
            gpus_per_node: fields.number("node", "num_gpus_per_node") as u32,
            intra_node_bytes_per_s: fields.number("node", "intra_node_bw"),
            inter_node_bytes_per_s: fields.number("node", "inter_node_bw"),
            hop_s: fields.number("node", "p2p_latency"),
            collective_bytes: fields.collective_bytes(),
            other_bytes: fields.number("misc", "other_mem") as u64,
            nccl_version: fields.text("misc", "nccl_version"),
            sm_version: fields.optional("gpu", "sm_version").unwrap_or(0.0) as u32,
        };
        check(fields.problems)?;
        Ok(machine)
    }

    /// The tensor-core rate of a number format, FLOP/s; none if the GPU has no such units.
    #[must_use]
    pub fn flops(&self, dtype: Dtype) -> Option<f64> {
        match dtype.arithmetic() {
            Arithmetic::Bf16 => Some(self.bf16_flops),
            Arithmetic::Fp8 => self.fp8_flops,
            Arithmetic::Fp4 => self.fp4_flops,
        }
    }

    /// Bandwidth between the members of a group of GPUs, bytes/s.
    #[must_use]
    pub fn link_bytes_per_s(&self, gpus: u32) -> f64 {
        if gpus <= self.gpus_per_node {
            self.intra_node_bytes_per_s
        } else {
            self.inter_node_bytes_per_s
        }
    }
}

struct Fields<'a> {
    file: String,
    root: &'a Yaml<'a>,
    problems: Vec<Problem>,
}

impl Fields<'_> {
    fn find(&self, section: &str, name: &str) -> Option<&Yaml<'_>> {
        self.root.as_mapping_get(section)?.as_mapping_get(name)
    }

    fn optional(&self, section: &str, name: &str) -> Option<f64> {
        self.find(section, name).and_then(positive)
    }

    fn number(&mut self, section: &str, name: &str) -> f64 {
        let found = self.find(section, name).and_then(positive);
        if found.is_none() {
            let field = format!("{}: {section}.{name}", self.file);
            self.problems
                .push(Problem::new(&field, "nothing of use", "a positive number"));
        }
        found.unwrap_or(0.0)
    }

    fn text(&mut self, section: &str, name: &str) -> String {
        let found = self
            .find(section, name)
            .and_then(|value| value.as_str().map(str::to_owned));
        if found.is_none() {
            let field = format!("{}: {section}.{name}", self.file);
            self.problems
                .push(Problem::new(&field, "nothing of use", "text"));
        }
        found.unwrap_or_default()
    }

    fn collective_bytes(&mut self) -> BTreeMap<u32, u64> {
        let Some(map) = self.find("misc", "nccl_mem").and_then(Yaml::as_mapping) else {
            let field = format!("{}: misc.nccl_mem", self.file);
            self.problems
                .push(Problem::new(&field, "nothing", "bytes by number of GPUs"));
            return BTreeMap::new();
        };
        let entry = |(gpus, bytes): (&Yaml<'_>, &Yaml<'_>)| {
            Some((
                u32::try_from(gpus.as_integer()?).ok()?,
                u64::try_from(bytes.as_integer()?).ok()?,
            ))
        };
        map.iter().filter_map(entry).collect()
    }
}

fn positive(value: &Yaml<'_>) -> Option<f64> {
    let number = value
        .as_floating_point()
        .or_else(|| value.as_integer().map(|whole| whole as f64))?;
    (number.is_finite() && number > 0.0).then_some(number)
}
