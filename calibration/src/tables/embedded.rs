//! Profiles that come with the program; see `calibration/data/NOTICE`.

use super::file::decode;
use super::{Backend, Profile};
use crate::error::CalibrationError;
use std::sync::LazyLock;

static H100_VLLM: LazyLock<Profile> =
    LazyLock::new(|| load(include_bytes!("../../data/h100_sxm-vllm-0.24.0.tables")));
static H100_SGLANG: LazyLock<Profile> =
    LazyLock::new(|| load(include_bytes!("../../data/h100_sxm-sglang-0.5.14.tables")));
static H200_VLLM: LazyLock<Profile> =
    LazyLock::new(|| load(include_bytes!("../../data/h200_sxm-vllm-0.24.0.tables")));
static H200_SGLANG: LazyLock<Profile> =
    LazyLock::new(|| load(include_bytes!("../../data/h200_sxm-sglang-0.5.14.tables")));

/// GPU, engine and profile.
static PROFILES: [(&str, Backend, &LazyLock<Profile>); 4] = [
    ("h100_sxm", Backend::Vllm, &H100_VLLM),
    ("h100_sxm", Backend::Sglang, &H100_SGLANG),
    ("h200_sxm", Backend::Vllm, &H200_VLLM),
    ("h200_sxm", Backend::Sglang, &H200_SGLANG),
];

fn load(bytes: &[u8]) -> Profile {
    decode("embedded tables", bytes).expect("the embedded files were made by this program")
}

pub(super) fn find(gpu: &str, backend: Backend) -> Result<&'static Profile, CalibrationError> {
    let wanted = PROFILES
        .iter()
        .find(|profile| (profile.0, profile.1) == (gpu, backend));
    wanted.map(|profile| &**profile.2).ok_or_else(|| CalibrationError::NotMeasured {
        table: "the embedded tables".to_owned(),
        wanted: format!("{gpu} {}", backend.name()),
        nearest: Some("h100_sxm and h200_sxm with vllm or sglang; others with `dynosim calibrate import-aic`".to_owned()),
    })
}

pub(super) fn all() -> impl Iterator<Item = &'static Profile> {
    PROFILES.iter().map(|profile| &**profile.2)
}
