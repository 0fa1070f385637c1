//! Loading tables and composing passes from them: `cargo bench -p calibration --bench kernel_tables`.
//!
//! The embedded tables are dense. With `DYNOSIM_TABLES` naming a folder that holds the file of H200 and vLLM from
//! `dynosim calibrate import-aic`, a file of all tables and passes of models with experts are measured too.

use calibration::aic::{Decoder, Formats, Setting, Shape};
use calibration::tables::{Backend, Dtype, Profile, file};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use std::path::PathBuf;

const PASSES: u32 = 256;

fn main() {
    divan::main();
}

fn embedded() -> &'static Profile {
    Profile::embedded("h200_sxm", Backend::Vllm).expect("embedded")
}

fn full() -> Option<Vec<u8>> {
    let folder = PathBuf::from(std::env::var_os("DYNOSIM_TABLES")?);
    std::fs::read(folder.join("h200_sxm-vllm-0.24.0.tables")).ok()
}

fn load(bencher: Bencher<'_, '_>, bytes: &[u8]) {
    bencher.bench_local(|| file::decode("bench", black_box(bytes)).expect("good"));
}

#[divan::bench]
fn load_dense(bencher: Bencher<'_, '_>) {
    load(bencher, &file::encode(embedded()));
}

#[divan::bench]
fn load_all(bencher: Bencher<'_, '_>) {
    if let Some(bytes) = full() {
        load(bencher, &bytes);
    }
}

fn decode_passes(bencher: Bencher<'_, '_>, profile: &Profile, model: &str, gemm: Dtype) {
    let kv_cache = if gemm == Dtype::Bfloat16 {
        gemm
    } else {
        Dtype::Fp8
    };
    let formats = Formats {
        gemm,
        kv_cache,
        attention: Dtype::Bfloat16,
    };
    let shape = Shape::find(model).expect("known");
    let setting = Setting::tensor_parallel(8, formats);
    let decoder = Decoder::prepare(profile, &shape, &setting).expect("measured");
    bencher.counter(ItemsCount::new(PASSES)).bench_local(|| {
        let pass = |batch| decoder.generation_pass(black_box(batch), 4_000 + batch);
        let passes = (1..=PASSES).map(|batch| pass(batch).expect("near").ms());
        passes.sum::<f64>()
    });
}

#[divan::bench]
fn decode_passes_dense(bencher: Bencher<'_, '_>) {
    decode_passes(bencher, embedded(), "Qwen/Qwen3-32B", Dtype::Bfloat16);
}

#[divan::bench(args = ["Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3"])]
fn decode_passes_experts(bencher: Bencher<'_, '_>, model: &str) {
    if let Some(bytes) = full() {
        let profile = file::decode("bench", &bytes).expect("good");
        let gemm = if model.starts_with("Qwen") {
            Dtype::Bfloat16
        } else {
            Dtype::Fp8Block
        };
        decode_passes(bencher, &profile, model, gemm);
    }
}
