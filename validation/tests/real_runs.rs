//! Fits to logs of real engines, where they lie beside the repository.

use calibration::Fitted;
use calibration::fit_steps;
use calibration::log_file::LogFile;
use calibration::step_log::{Prompts, StepLog, VllmLog};
use engine::vllm::VllmConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use validation::outcome::compare;
use validation::request_fit::{Question, RequestFit, TERMS, fit};
use validation::request_log::RequestLog;
use validation::step_replay;

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no {}", path.display());
    None
}

fn fit_run(folder: &str, engine: VllmConfig) -> Option<RequestFit> {
    let log = shared(&format!("data/measured/{folder}/requests.jsonl"))?;
    let prompts = shared("data/traces/llmservingsim_sharegpt-llama-3.1-8b-300-sps10.jsonl.gz")?;
    let log = RequestLog::read(&log).expect("a log");
    let trace = traces::read(&prompts, &traces::ReadOptions::default()).expect("a trace");
    let workload = log
        .workload(Some(&trace.trace))
        .expect("of the same requests");
    let question = Question {
        log: &log,
        workload: Arc::new(workload),
        engine,
        share: 0.5,
        terms: TERMS.to_vec(),
    };
    Some(fit(&question).expect("a fit"))
}

/// TTFT mean and p99 within 5 %, TPOT and E2E means within 3 %, on the half that was not fitted.
fn assert_good(fit: &RequestFit) {
    for (metric, bound) in [
        ("TTFT mean", 0.05),
        ("TTFT p99", 0.05),
        ("TPOT mean", 0.03),
        ("E2E mean", 0.03),
    ] {
        let row = fit
            .held_out
            .1
            .iter()
            .find(|row| row.metric == metric)
            .expect("there");
        println!(
            "{metric}: {:.2} ms, predicted {:.2}",
            row.measured_ms, row.predicted_ms
        );
        assert!(row.error.abs() <= bound, "{row:?}");
    }
}

fn vllm019() -> VllmConfig {
    VllmConfig {
        block_size: 16,
        max_num_batched_tokens: 2_048,
        max_model_len: 32_768,
        ..VllmConfig::default()
    }
}

#[test]
fn a_gpu_whose_kv_cache_is_full_all_the_time() {
    let engine = VllmConfig {
        num_gpu_blocks: 2_588,
        max_num_seqs: 256,
        ..vllm019()
    };
    if let Some(fit) = fit_run("vllm019_rtx4090_llama31_8b", engine) {
        assert_good(&fit);
    }
}

#[test]
fn a_gpu_whose_seats_are_taken_all_the_time() {
    // Its log does not say how many blocks it has; its memory holds more than 128 sequences of this trace need.
    let engine = VllmConfig {
        num_gpu_blocks: 32_000,
        max_num_seqs: 128,
        ..vllm019()
    };
    if let Some(fit) = fit_run("vllm019_rtxpro6000_llama31_8b", engine) {
        assert_good(&fit);
    }
}

#[test]
fn a_sweep_predicts_the_replays_and_says_how_well() {
    let Some(folder) = shared("golden/vllm_cpu_run") else {
        return;
    };
    let steps = StepLog::read(&folder.join("sweep.steplog.jsonl.gz")).expect("a log");
    let fit = fit_steps::fit(&[steps]).expect("a fit");
    println!("{}", fit.profile.held_out.in_words());
    // The machine was shared: single steps differ by 13 % in the mean from any law.
    assert!(
        fit.profile.held_out.median_error < 0.2,
        "{:?}",
        fit.profile.held_out
    );
    for name in ["replay1", "replay2"] {
        let log = folder.join(format!("{name}.steplog.jsonl.gz"));
        let prompts = Prompts::read(&Prompts::beside(&log).expect("beside it")).expect("prompts");
        let log = VllmLog::parse(&LogFile::read(&log).expect("a file")).expect("a log");
        let timing = Arc::new(Fitted::new(&fit.profile));
        let replay = step_replay::replay(&log, &prompts, timing).expect("its own prompts");
        assert_eq!(replay.measured.len(), 110, "every request of {name} ended");
        for row in compare(&replay.predicted, &replay.measured) {
            println!(
                "{name} {}: {:.1} ms, predicted {:.1}",
                row.metric, row.measured_ms, row.predicted_ms
            );
        }
    }
}
