//! Composed step times against values that AIConfigurator 0.12 computed.
//!
//! Forty rows are part of the repository; the whole files are looked for in the sibling folder `shared`, and the test says
//! so when they are absent. The embedded tables cover the dense models on vLLM and SGLang. Where `AICONFIGURATOR_CORE`
//! names an unpacked `aiconfigurator-core` 0.12 wheel, all rows are compared and the embedded files remade from it.

use calibration::CalibrationError;
use calibration::aic::reference::{Comparison, compare};
use calibration::aic::{Decoder, Formats, Missing, Setting, Shape};
use calibration::tables::import::{Repeats, Slice, find_root, import, list};
use calibration::tables::{Backend, Dtype, Profile, Reach, file};
use std::path::{Path, PathBuf};

fn embedded(path: &Path) -> Comparison {
    let profile = |gpu: &str, backend: Backend, _: Option<&str>| Profile::embedded(gpu, backend);
    compare(path, &profile).expect("a file of reference values")
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

#[test]
fn the_sample_is_met() {
    let comparison = embedded(&data("reference_sample.csv"));
    assert_eq!(comparison.rows.len(), 40);
    assert!(comparison.unpriced.is_empty(), "{:?}", comparison.unpriced);
    assert!(
        comparison.rows[0].error() < 1e-6,
        "{:?}",
        comparison.rows[0]
    );
}

#[test]
fn the_whole_files_are_met_where_they_are_at_hand() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/measured");
    for (name, rows, tolerance) in [
        ("aic_reference_public.csv", 340, 1e-6),
        ("aic_reference_mixed.csv", 192, 1e-6),
        ("aic_kv_capacity.csv", 64, 0.0),
    ] {
        let path = shared.join(name);
        if !path.is_file() {
            println!("skipped: {} is not here", path.display());
            continue;
        }
        let comparison = embedded(&path);
        assert!(
            comparison.rows.len() >= rows,
            "{name}: {} rows priced",
            comparison.rows.len()
        );
        let worst = &comparison.rows[0];
        println!(
            "{name}: {} rows, largest error {:.1e}",
            comparison.rows.len(),
            worst.error()
        );
        assert!(worst.error() <= tolerance, "{name}: {worst:?}");
    }
}

/// The profiles of H100 and H200 in the wheel, if there is one.
fn from_the_wheel(slice: Slice, backends: &[Backend]) -> Option<Vec<Profile>> {
    let Ok(wheel) = std::env::var("AICONFIGURATOR_CORE") else {
        println!("skipped: AICONFIGURATOR_CORE names no unpacked wheel");
        return None;
    };
    let root = find_root(Path::new(&wheel)).expect("an unpacked wheel");
    let found = list(&root).expect("a database");
    let wanted = found.iter().filter(|found| {
        ["h100_sxm", "h200_sxm"].contains(&&found.gpu[..]) && backends.contains(&found.backend)
    });
    let profiles = wanted.map(|found| import(&root, found, slice, Repeats::First).expect("good"));
    Some(profiles.collect())
}

#[test]
fn every_row_is_met_with_the_whole_tables() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/measured");
    if !shared.is_dir() {
        println!("skipped: {} is not here", shared.display());
        return;
    }
    let Some(profiles) = from_the_wheel(Slice::All, &Backend::ALL) else {
        return;
    };
    let find = |gpu: &str, backend: Backend, _: Option<&str>| {
        let named = |profile: &&Profile| {
            (&profile.provenance.gpu[..], profile.provenance.backend) == (gpu, backend)
        };
        Ok(profiles.iter().find(named).expect("imported"))
    };
    for (name, rows, tolerance) in [
        ("aic_reference_public.csv", 800, 1e-6),
        ("aic_reference_mixed.csv", 450, 1e-6),
        ("aic_kv_capacity.csv", 96, 0.0),
    ] {
        let comparison = compare(&shared.join(name), &find).expect("a file of reference values");
        assert!(comparison.unpriced.is_empty(), "{:?}", comparison.unpriced);
        assert_eq!(comparison.rows.len(), rows, "{name}");
        let worst = &comparison.rows[0];
        assert!(worst.error() <= tolerance, "{name}: {worst:?}");
    }
}

#[test]
fn the_embedded_files_are_those_the_importer_makes() {
    let backends = [Backend::Vllm, Backend::Sglang];
    let Some(profiles) = from_the_wheel(Slice::Dense, &backends) else {
        return;
    };
    assert_eq!(profiles.len(), 4);
    for profile in profiles {
        let name = profile.name().replace(' ', "-") + ".tables";
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("data")
            .join(&name);
        let committed = std::fs::read(path).expect("embedded");
        assert!(
            file::encode(&profile) == committed,
            "{name} differs from the one made now"
        );
    }
}

#[test]
fn bad_files_are_errors_with_line_and_column() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.csv");
    let refused = |text: &str| -> CalibrationError {
        std::fs::write(&path, text).expect("it can be written");
        let profile =
            |gpu: &str, backend: Backend, _: Option<&str>| Profile::embedded(gpu, backend);
        compare(&path, &profile).expect_err("bad")
    };
    let sample = std::fs::read_to_string(data("reference_sample.csv")).expect("committed");
    let header = sample.lines().next().expect("a header").to_owned();
    let error = refused(&format!(
        "{header}\nQwen/Qwen3-32B,h200_sxm,vllm,0.24.0,one,bf16,bfloat16,bfloat16,context,1,0,0,0,-3\n"
    ));
    let message = error.to_string();
    for part in [
        "bad.csv:2: tp: found `one`",
        "bad.csv:2: gemm: found `bf16`",
        "bad.csv:2: isl: found 0",
        "bad.csv:2: latency_ms: found -3",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(
        refused("a,b\n1,2\n")
            .to_string()
            .contains("latency_ms with phase or ctx_tokens")
    );
    assert!(
        refused(&format!("{header}\nQwen/Qwen3-32B\n"))
            .to_string()
            .contains("CSV")
    );
    assert!(refused("").to_string().contains("found columns of neither"));
}

/// Passes of a model with experts on tables that have none.
#[test]
fn a_roofline_stands_for_what_was_not_measured_only_when_asked_for() {
    let profile = Profile::embedded("h200_sxm", Backend::Vllm).expect("embedded");
    let shape = Shape::find("Qwen/Qwen3-30B-A3B").expect("here");
    let formats = Formats {
        gemm: Dtype::Bfloat16,
        kv_cache: Dtype::Bfloat16,
        attention: Dtype::Bfloat16,
    };
    let refusing = Setting {
        expert_parallel: 4,
        ..Setting::tensor_parallel(4, formats)
    };
    let error = Decoder::prepare(profile, &shape, &refusing).expect_err("no experts are embedded");
    let message = error.to_string();
    assert!(
        message.contains("experts of h200_sxm vllm 0.24.0"),
        "{message}"
    );
    let estimating = Setting {
        missing: Missing::Estimate,
        ..refusing
    };
    let decoder = Decoder::prepare(profile, &shape, &estimating).expect("estimated");
    let pass = decoder.generation_pass(64, 4_097).expect("near");
    let estimated = pass.ops.iter().filter(|op| op.reach == Reach::Estimated);
    let names: Vec<&str> = estimated.map(|op| op.name).collect();
    assert_eq!(names, ["moe"]);
    let moe = pass
        .ops
        .iter()
        .find(|op| op.name == "moe")
        .expect("experts");
    // All 32 experts of a GPU are read: 48 layers x 32 x 3 x 2048 x 768 x 2 bytes at 4.8 TB/s, and the tokens besides.
    let weights = 48.0 * 32.0 * 3.0 * 2_048.0 * 768.0 * 2.0 / 4.8e12 * 1e3;
    assert!((1.0..1.01).contains(&(moe.ms / weights)), "{}", moe.ms);
    assert!(
        (pass.extrapolated_share() - moe.ms / pass.ms()).abs() < 0.05,
        "{}",
        pass.extrapolated_share()
    );
}
