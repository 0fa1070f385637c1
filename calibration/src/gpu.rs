//! The GPUs that can be named, and what is known of each.
//!
//! Every value carries its origin, because a prediction is worth what its inputs are worth: `measured` values were read
//! off a device, `datasheet` values are the manufacturer's (tensor-core rates dense, that is half of the advertised
//! sparse ones), `estimated` values are our own guess. SKU names are those of Dynamo's deployment requests.

mod power;
mod table;

use crate::error::{CalibrationError, Problem, nearest};
use table::GPUS;

/// Names of families in deployment requests, and the GPU that is meant.
const ALIASES: [(&str, &str); 3] = [("mi300", "mi300x"), ("mi250x", "mi200"), ("mi250", "mi200")];

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Read off a device.
    Measured,
    /// Published by the manufacturer.
    Datasheet,
    /// Guessed.
    Estimated,
}

impl Origin {
    /// The word printed in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Measured => "measured",
            Origin::Datasheet => "datasheet",
            Origin::Estimated => "estimated",
        }
    }
}

/// A value with its origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// How far it can be trusted.
    pub origin: Origin,
    /// Who says so.
    pub source: &'static str,
}

/// What connects the GPUs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fabric {
    /// NVLink through switches: each GPU reaches every other at full rate.
    NvLink,
    /// AMD Infinity Fabric, all to all.
    InfinityFabric,
    /// PCI Express only.
    Pcie,
}

impl Fabric {
    /// The name printed in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Fabric::NvLink => "NVLink",
            Fabric::InfinityFabric => "Infinity Fabric",
            Fabric::Pcie => "PCIe",
        }
    }
}

/// One kind of GPU in its usual node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpu {
    /// SKU name, for example `h100_sxm`.
    pub name: &'static str,
    /// Device memory in bytes; where measured, what CUDA reports to applications.
    pub memory_bytes: Sourced<u64>,
    /// Memory bandwidth, bytes/s.
    pub memory_bytes_per_s: Sourced<f64>,
    /// Dense 16-bit tensor-core rate, FLOP/s: of bf16, or of fp16 where the hardware has no bf16.
    pub bf16_flops: Sourced<f64>,
    /// Dense fp8 tensor-core rate, FLOP/s; none where the hardware has no fp8.
    pub fp8_flops: Option<Sourced<f64>>,
    /// What connects the GPUs of a node.
    pub fabric: Fabric,
    /// Bandwidth of that per GPU and direction, bytes/s.
    pub link_bytes_per_s: Sourced<f64>,
    /// GPUs per node, the widest tensor parallelism modelled.
    pub gpus_per_node: u32,
}

impl Gpu {
    /// The GPU with this SKU name; upper case and hyphens are accepted.
    ///
    /// # Errors
    /// No such GPU, with the nearest name.
    pub fn find(name: &str) -> Result<&'static Gpu, CalibrationError> {
        let wanted = name.trim().to_lowercase().replace('-', "_");
        let wanted = ALIASES
            .iter()
            .find(|(alias, _)| *alias == wanted)
            .map_or(wanted, |(_, name)| (*name).to_owned());
        if let Some(gpu) = GPUS
            .iter()
            .find(|gpu| gpu.name == wanted || gpu.name.strip_suffix("_sxm") == Some(&wanted))
        {
            return Ok(gpu);
        }
        let problem = Problem::new("gpu", format!("`{name}`"), "a known GPU");
        let problem = match nearest(&wanted, Gpu::names()) {
            Some(near) => problem.suggest(format!("did you mean `{near}`?")),
            None => problem.suggest(format!(
                "one of {}",
                Gpu::names().collect::<Vec<_>>().join(", ")
            )),
        };
        Err(CalibrationError::Invalid(vec![problem]))
    }

    /// All SKU names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        GPUS.iter().map(|gpu| gpu.name)
    }

    /// One sentence per value that was guessed.
    #[must_use]
    pub fn guesses(&self) -> Vec<String> {
        let mut guesses = Vec::new();
        let mut note = |what: &str, origin: Origin, source: &str| {
            if origin == Origin::Estimated {
                guesses.push(format!("{what} of {} is estimated: {source}", self.name));
            }
        };
        note("memory", self.memory_bytes.origin, self.memory_bytes.source);
        note(
            "memory bandwidth",
            self.memory_bytes_per_s.origin,
            self.memory_bytes_per_s.source,
        );
        note("bf16 rate", self.bf16_flops.origin, self.bf16_flops.source);
        if let Some(fp8) = self.fp8_flops {
            note("fp8 rate", fp8.origin, fp8.source);
        }
        note(
            "link bandwidth",
            self.link_bytes_per_s.origin,
            self.link_bytes_per_s.source,
        );
        guesses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_name_in_any_spelling() {
        for name in ["h100_sxm", "H100-SXM", " h100_sxm ", "h100"] {
            assert_eq!(Gpu::find(name).expect("known").name, "h100_sxm");
        }
    }

    #[test]
    fn a_typo_is_answered_with_the_nearest_name() {
        let message = Gpu::find("h10_sxm").expect_err("unknown").to_string();
        assert!(message.contains("did you mean `h100_sxm`?"), "{message}");
        assert!(
            Gpu::find("abacus")
                .expect_err("unknown")
                .to_string()
                .contains("one of gb200_sxm")
        );
    }

    #[test]
    fn every_name_of_a_deployment_request_is_known() {
        for name in [
            "gb200_sxm",
            "b200_sxm",
            "h200_sxm",
            "h100_sxm",
            "h100_pcie",
            "a100_sxm",
            "a100_pcie",
            "a30",
            "l40s",
            "l40",
            "l4",
            "v100_sxm",
            "v100_pcie",
            "t4",
            "mi200",
            "mi300",
        ] {
            let gpu = Gpu::find(name).expect(name);
            assert!(!gpu.memory_bytes.source.is_empty() && !gpu.link_bytes_per_s.source.is_empty());
        }
        assert_eq!(Gpu::find("MI300").expect("an alias").name, "mi300x");
        let guesses = Gpu::find("mi200").expect("known").guesses();
        assert!(
            guesses[0].starts_with("link bandwidth of mi200 is estimated"),
            "{guesses:?}"
        );
    }

    #[test]
    fn values_are_sane() {
        for (i, gpu) in GPUS.iter().enumerate() {
            assert!(
                GPUS[..i].iter().all(|other| other.name != gpu.name),
                "{} is there once",
                gpu.name
            );
            // Ratios between datasheet columns catch a slipped digit: fp8 is twice bf16, and a token-by-token GEMM
            // turns compute-bound somewhere between 20 and 600 FLOP per byte on every accelerator of the list.
            let ridge = gpu.bf16_flops.value / gpu.memory_bytes_per_s.value;
            assert!((20.0..600.0).contains(&ridge), "{}: {ridge}", gpu.name);
            if let Some(fp8) = gpu.fp8_flops {
                let ratio = fp8.value / gpu.bf16_flops.value;
                assert!((1.95..2.05).contains(&ratio), "{}: {ratio}", gpu.name);
            }
            assert!(
                (15_000 << 20..300_000 << 20).contains(&gpu.memory_bytes.value),
                "{}",
                gpu.name
            );
            assert!(
                gpu.link_bytes_per_s.value < gpu.memory_bytes_per_s.value,
                "{}",
                gpu.name
            );
        }
    }
}
