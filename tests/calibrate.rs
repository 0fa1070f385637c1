//! The built program on tables and reference values: exit codes, messages, nothing half-written.

use std::path::Path;
use std::process::{Command, Output};

const SAMPLE: &str = "calibration/tests/data/reference_sample.csv";

fn dynosim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dynosim"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(args)
        .output()
        .expect("the program was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn validate_timing_exits_1_beyond_the_tolerance_only() {
    let good = dynosim(&["validate", "timing", SAMPLE]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    assert!(
        text(&good.stdout).contains("40 rows: median error"),
        "{}",
        text(&good.stdout)
    );
    let beyond = dynosim(&["validate", "timing", SAMPLE, "--tolerance", "0", "--json"]);
    assert_eq!(beyond.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&beyond.stdout).expect("one JSON object");
    assert!(json["rows_beyond"].as_u64() > Some(0), "{json}");
    let errors: Vec<f64> = json["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["error"].as_f64())
        .collect();
    assert_eq!(errors.len(), 40);
    assert!(errors.is_sorted_by(|a, b| a >= b), "worst first");
}

#[test]
fn bad_input_exits_2() {
    for args in [
        &["validate", "timing", "nowhere.csv"][..],
        &["validate", "timing", SAMPLE, "--tolerance", "-1"],
        &["validate", "timing", SAMPLE, "--tables", "nowhere"],
        &["validate", "timing", "Cargo.toml"],
        &["calibrate", "import-aic", "docs", "--out", "/nowhere"],
    ] {
        let output = dynosim(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn a_broken_database_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let systems = folder.path().join("systems");
    let table = systems.join("data/some_gpu/gemm/vllm/1.0/gemm_perf.parquet");
    std::fs::create_dir_all(table.parent().expect("a folder")).expect("it can be made");
    std::fs::write(&table, b"PAR1 and no more").expect("it can be written");
    std::fs::write(
        systems.join("query_versions.yaml"),
        "defaults:\n  vllm: {current: '1.0'}\n",
    )
    .expect("written");
    let system = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .expect("there");
    std::fs::write(systems.join("some_gpu.yaml"), system).expect("written");
    let out = folder.path().join("out");
    let paths = [folder.path(), &out].map(|path| path.to_str().expect("text"));
    let output = dynosim(&["calibrate", "import-aic", paths[0], "--out", paths[1]]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(
        text(&output.stderr).contains("some_gpu.yaml"),
        "{}",
        text(&output.stderr)
    );
    assert!(!out.exists(), "nothing was written");
}
