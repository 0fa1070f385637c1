//! The importer on a small database made here: one GPU, one engine, a handful of rows per table.

use super::*;
use crate::tables::gemm::Shape;
use crate::tables::{Backend, file};
use polars::prelude::{Column, DataFrame, ParquetWriter};
use std::path::PathBuf;
use tempfile::TempDir;

const SYSTEM: &str = "gpu:
  mem_bw: 3350000000000
  mem_bw_empirical_scaling_factor: 0.8
  mem_empirical_constant_latency: 0.000003
  mem_capacity: 85899345920
  bfloat16_tc_flops: 989000000000000
  fp8_tc_flops: 1978000000000000
  sm_version: 90
node:
  num_gpus_per_node: 8
  inter_node_bw: 50000000000
  intra_node_bw: 450000000000
  p2p_latency: 0.00001
misc:
  nccl_mem:
    1: 0
    2: 358612992
  other_mem: 3758096384
  nccl_version: '2.27.3'
";
const VERSIONS: &str = "defaults:\n  vllm: {current: \"0.24.0\", previous: null}\n";
const GEMM: &str = "data/test_gpu/gemm/vllm/0.24.0/gemm_perf.parquet";
const CONTEXT: &str = "data/test_gpu/attention/vllm/0.24.0/context_attention_perf.parquet";
const GENERATION: &str = "data/test_gpu/attention/vllm/0.24.0/generation_attention_perf.parquet";
const ALL_REDUCE: &str = "data/test_gpu/comm/vllm/0.24.0/custom_allreduce_perf.parquet";

/// A database in a folder of its own.
struct Database {
    dir: TempDir,
    repeats: Repeats,
}

fn text(name: &str, values: &[&str]) -> Column {
    Column::new(name.into(), values)
}

fn whole(name: &str, values: &[i64]) -> Column {
    Column::new(name.into(), values)
}

fn latency(values: &[f64]) -> Column {
    Column::new("latency".into(), values)
}

fn gemm_columns(ms: &[f64; 3]) -> Vec<Column> {
    vec![
        text("gemm_dtype", &["bfloat16", "bfloat16", "awq"]),
        text("kernel_source", &["cublas"; 3]),
        whole("m", &[1, 2, 1]),
        whole("n", &[128, 128, 128]),
        whole("k", &[64, 64, 64]),
        latency(ms),
    ]
}

fn attention_columns(ms: [f64; 2], step: i64) -> Vec<Column> {
    vec![
        text("attn_dtype", &["bfloat16", "bfloat16"]),
        text("kv_cache_dtype", &["bfloat16", "bfloat16"]),
        text("kernel_source", &["fa3", "fa3"]),
        whole("num_heads", &[8, 8]),
        whole("num_key_value_heads", &[8, 2]),
        whole("head_dim", &[128, 128]),
        whole("batch_size", &[1, 1]),
        whole("isl", &[1, 1]),
        whole("step", &[step, step]),
        latency(&ms),
    ]
}

impl Database {
    fn new() -> Database {
        let database = Database {
            dir: TempDir::new().expect("a folder"),
            repeats: Repeats::Refuse,
        };
        database.put("test_gpu.yaml", SYSTEM.as_bytes());
        database.put("query_versions.yaml", VERSIONS.as_bytes());
        database.table(GEMM, gemm_columns(&[0.01, 0.02, 0.03]));
        database.table(CONTEXT, attention_columns([0.005, 0.006], 0));
        database.table(GENERATION, attention_columns([0.005, 0.006], 15));
        database.table(
            ALL_REDUCE,
            vec![
                text("kernel_source", &["custom_graph", "custom_eager"]),
                text("allreduce_dtype", &["bfloat16", "bfloat16"]),
                whole("num_gpus", &[2, 2]),
                whole("message_size", &[128, 128]),
                latency(&[0.004, 0.02]),
            ],
        );
        database
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path: PathBuf = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(path, bytes).expect("it can be written");
    }

    fn table(&self, path: &str, columns: Vec<Column>) {
        let height = columns[0].len();
        let mut frame = DataFrame::new(height, columns).expect("columns of one length");
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes)
            .finish(&mut frame)
            .expect("memory");
        self.put(path, &bytes);
    }

    fn import(&self) -> Result<Profile, CalibrationError> {
        let root = find_root(self.dir.path())?;
        let found = list(&root)?;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].backend, Backend::Vllm);
        import(&root, &found[0], Slice::All, self.repeats)
    }

    fn refused(&self) -> String {
        self.import().expect_err("it is broken").to_string()
    }
}

#[test]
fn tables_are_read_by_name_and_rows_left_out_are_counted() {
    let profile = Database::new().import().expect("good");
    let shapes = profile.gemm[&Dtype::Bfloat16].shapes();
    assert_eq!(
        shapes,
        [Shape {
            n: 128,
            k: 64,
            curve: vec![(1, 0.01), (2, 0.02)]
        }]
    );
    // Equal heads are one slice, number 0; a decode at step 15 has 16 tokens.
    let heads: Vec<u32> = profile.generation.keys().map(|key| key.kv_heads).collect();
    assert_eq!(heads, [0, 2]);
    assert!(
        profile
            .generation
            .values()
            .all(|grid| grid.points()[0].at == [8, 1, 16])
    );
    assert_eq!(
        profile.all_reduce[&2].points(),
        [Point {
            at: [128],
            ms: 0.004
        }]
    );
    let left_out: Vec<usize> = profile
        .provenance
        .files
        .iter()
        .map(|file| file.left_out)
        .collect();
    assert_eq!(
        left_out,
        [1, 0, 0, 1],
        "awq, and the all-reduce outside a graph"
    );

    let database = Database::new();
    let mut columns = gemm_columns(&[0.01, 0.02, 0.03]);
    columns.reverse();
    database.table(GEMM, columns);
    assert_eq!(
        database.import().expect("good").gemm,
        profile.gemm,
        "the order of columns says nothing"
    );
}

#[test]
fn latencies_below_the_roofline_are_raised_to_it() {
    let database = Database::new();
    database.table(GEMM, gemm_columns(&[1e-9, 0.02, 0.03]));
    let profile = database.import().expect("good");
    // 2 x (1 x 128 + 1 x 64 + 128 x 64) bytes / 3.35 TB/s.
    let floor = 2.0 * (128.0 + 64.0 + 8_192.0) / 3.35e12 * 1e3;
    let (_, ms) = profile.gemm[&Dtype::Bfloat16].shapes()[0].curve[0];
    assert!((ms / floor - 1.0).abs() < 1e-12, "{ms}");
}

#[test]
fn products_with_static_scales_are_those_without_the_passes_that_scale() {
    let database = Database::new();
    database.table(
        GEMM,
        vec![
            text("gemm_dtype", &["fp8", "fp8", "bfloat16"]),
            text("kernel_source", &["cublas"; 3]),
            whole("m", &[1, 2, 1]),
            whole("n", &[128, 128, 128]),
            whole("k", &[64, 64, 64]),
            latency(&[0.010, 0.012, 0.02]),
        ],
    );
    let passes = |table: &str, ms: &[f64]| {
        let columns = vec![
            text("quant_dtype", &["fp8", "fp8"]),
            whole("m", &[1, 2]),
            whole("k", &[64, 64]),
            latency(ms),
        ];
        let path = format!("data/test_gpu/quantize/vllm/0.24.0/{table}_perf.parquet");
        database.table(&path, columns);
    };
    // The second takes longer than the product itself: the roofline is left, which is next to nothing.
    passes("computescale", &[0.003, 0.020]);
    assert!(
        !database
            .import()
            .expect("good")
            .gemm
            .contains_key(&Dtype::Fp8Static),
        "one pass alone says nothing"
    );
    passes("scale_matrix", &[0.002, 0.0]);
    let profile = database.import().expect("good");
    let curve = &profile.gemm[&Dtype::Fp8Static].shapes()[0].curve;
    assert!((curve[0].1 - 0.005).abs() < 1e-12, "{curve:?}");
    assert!(curve[1].1 > 0.0 && curve[1].1 < 1e-4, "{curve:?}");
    assert_eq!(
        profile.gemm[&Dtype::Fp8].shapes()[0].curve,
        [(1, 0.010), (2, 0.012)]
    );
    passes("scale_matrix", &[-1.0, 0.0]);
    assert!(database.refused().contains("row 1: latency"));
}

#[test]
fn older_versions_fill_gaps_and_change_nothing_else() {
    let database = Database::new();
    let mut older = gemm_columns(&[9.0, 9.0, 9.0]);
    older[2] = whole("m", &[1, 4, 1]);
    database.table(
        "data/test_gpu/gemm/vllm/0.9.0/gemm_perf.parquet",
        older.clone(),
    );
    database.table("data/test_gpu/gemm/vllm/0.25.0/gemm_perf.parquet", older);
    let profile = database.import().expect("good");
    let curve = &profile.gemm[&Dtype::Bfloat16].shapes()[0].curve;
    assert_eq!(curve, &[(1, 0.01), (2, 0.02), (4, 9.0)]);
    let paths: Vec<&str> = profile
        .provenance
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    assert!(
        paths[1].contains("/0.9.0/") && !paths.iter().any(|path| path.contains("/0.25.0/")),
        "{paths:?}"
    );
}

#[test]
fn values_that_cannot_be_are_errors_with_file_and_row() {
    for bad in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        let database = Database::new();
        database.table(GEMM, gemm_columns(&[0.01, bad, 0.03]));
        let message = database.refused();
        assert!(
            message.contains(&format!(
                "{GEMM}: row 2: latency: found {bad}, expected a positive"
            )),
            "{message}"
        );
    }
    let database = Database::new();
    let mut columns = gemm_columns(&[0.01, 0.02, 0.03]);
    columns[2] = whole("m", &[1, 1, -1]);
    database.table(GEMM, columns);
    assert!(
        database.refused().contains("row 3: m: found -1"),
        "{}",
        database.refused()
    );
}

#[test]
fn a_place_measured_twice_is_an_error_unless_the_first_counts() {
    let mut database = Database::new();
    let mut columns = gemm_columns(&[0.01, 0.02, 0.03]);
    columns[2] = whole("m", &[1, 1, 1]);
    database.table(GEMM, columns);
    let message = database.refused();
    assert!(
        message.contains("row 2: keys: found the place and kernel of row 1 again"),
        "{message}"
    );
    database.repeats = Repeats::First;
    let profile = database.import().expect("the first counts");
    assert_eq!(
        profile.gemm[&Dtype::Bfloat16].shapes()[0].curve,
        [(1, 0.01)]
    );
    assert_eq!(profile.provenance.files[0].left_out, 2);
}

#[test]
fn wrong_columns_and_broken_files_are_errors() {
    let database = Database::new();
    let mut columns = gemm_columns(&[0.01, 0.02, 0.03]);
    columns.remove(3);
    database.table(GEMM, columns);
    let message = database.refused();
    assert!(
        message.contains("found no column `n`") && message.contains("the file has gemm_dtype"),
        "{message}"
    );

    let database = Database::new();
    let mut columns = gemm_columns(&[0.01, 0.02, 0.03]);
    columns[2] = text("m", &["1", "2", "3"]);
    database.table(GEMM, columns);
    assert!(
        database.refused().contains("column `m` of type str"),
        "{}",
        database.refused()
    );

    let database = Database::new();
    let path = database.dir.path().join(GEMM);
    let whole_file = std::fs::read(&path).expect("it is there");
    for length in [0, 4, 100, whole_file.len() / 2, whole_file.len() - 1] {
        database.put(GEMM, &whole_file[..length]);
        let message = database.refused();
        assert!(
            message.contains(GEMM) && message.contains("expected a Parquet file"),
            "{length}: {message}"
        );
    }
}

#[test]
fn a_folder_without_a_database_is_an_error() {
    let empty = TempDir::new().expect("a folder");
    let message = find_root(empty.path()).expect_err("empty").to_string();
    assert!(message.contains("pip download"), "{message}");
    let database = Database::new();
    database.put(
        "test_gpu.yaml",
        SYSTEM
            .replace("mem_bw: 3350000000000", "mem_bw: fast")
            .as_bytes(),
    );
    assert!(
        database
            .refused()
            .contains("gpu.mem_bw: found nothing of use"),
        "{}",
        database.refused()
    );
}

#[test]
fn a_profile_comes_back_from_its_file_and_no_other_bytes_do() {
    let profile = Database::new().import().expect("good");
    let bytes = file::encode(&profile);
    assert_eq!(
        bytes,
        file::encode(&Database::new().import().expect("good")),
        "the same bytes again"
    );
    let back = file::decode("test", &bytes).expect("its own");
    assert_eq!(file::encode(&back), bytes);
    assert_eq!(
        (back.provenance, back.machine),
        (profile.provenance, profile.machine)
    );
    for length in 0..bytes.len() {
        assert!(
            file::decode("test", &bytes[..length]).is_err(),
            "cut to {length} bytes"
        );
    }
    let columns = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .expect("a head")
        + 1;
    for i in (columns.min(bytes.len() - 40)..bytes.len()).step_by(3) {
        let mut changed = bytes.clone();
        changed[i] ^= 0x10;
        if let Ok(other) = file::decode("test", &changed) {
            assert_eq!(
                file::encode(&other),
                bytes,
                "byte {i} changed and nobody noticed"
            );
        }
    }
}

mod beyond_dense;
