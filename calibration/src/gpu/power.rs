//! Rated power of GPUs: what a card may draw for long, from the manufacturers' datasheets.

use super::{Gpu, Origin, Sourced};

const NVIDIA: &str = "NVIDIA datasheet, maximum thermal design power of the card";
const AMD: &str = "AMD datasheet, typical board power";
const AMD_DIE: &str = "AMD MI250X datasheet, one of its two dies";

/// Watts by SKU. The B300 is missing: its datasheets differ by system.
const WATTS: [(&str, f64, &str); 19] = [
    ("gb200_sxm", 1200.0, NVIDIA),
    ("b200_sxm", 1000.0, NVIDIA),
    ("h200_sxm", 700.0, NVIDIA),
    ("h100_sxm", 700.0, NVIDIA),
    ("h100_pcie", 350.0, NVIDIA),
    ("h20_sxm", 400.0, NVIDIA),
    ("a100_sxm", 400.0, NVIDIA),
    ("a100_pcie", 300.0, NVIDIA),
    ("a30", 165.0, NVIDIA),
    ("l40s", 350.0, NVIDIA),
    ("l40", 300.0, NVIDIA),
    ("l4", 72.0, NVIDIA),
    ("rtx_pro_6000_server", 600.0, NVIDIA),
    ("rtx_4090", 450.0, NVIDIA),
    ("mi300x", 750.0, AMD),
    ("mi200", 280.0, AMD_DIE),
    ("v100_sxm", 300.0, NVIDIA),
    ("v100_pcie", 250.0, NVIDIA),
    ("t4", 70.0, NVIDIA),
];

impl Gpu {
    /// Rated power in watts; none where nobody states one.
    #[must_use]
    pub fn power_w(&self) -> Option<Sourced<f64>> {
        let known = WATTS.iter().find(|(name, ..)| *name == self.name)?;
        Some(Sourced {
            value: known.1,
            origin: Origin::Datasheet,
            source: known.2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_gpu_and_all_but_one_are_there() {
        let without: Vec<&str> = Gpu::names()
            .filter(|name| Gpu::find(name).expect("it is listed").power_w().is_none())
            .collect();
        assert_eq!(without, ["b300_sxm"]);
        assert_eq!(Gpu::names().count(), WATTS.len() + without.len());
    }
}
