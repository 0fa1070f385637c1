//! The public traces, where they lie beside the repository: known numbers, and the fast path against the general one.

use std::path::PathBuf;

use traces::{Format, ReadOptions, Trace, parse, read};

/// A file of the folder of traces beside the repository, or a note that the test is skipped.
fn public(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/traces")
        .join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Reads a public trace, which must give no warning.
fn load(name: &str, format: Format) -> Option<Trace> {
    let options = ReadOptions {
        is_strict: true,
        ..ReadOptions::default()
    };
    let loaded = read(&public(name)?, &options).expect("a public trace is good");
    assert_eq!(loaded.format, format);
    Some(loaded.trace)
}

fn sums(trace: &Trace) -> (u64, u64) {
    let input = trace
        .rows
        .iter()
        .map(|row| u64::from(row.input_tokens))
        .sum();
    let output = trace
        .rows
        .iter()
        .map(|row| u64::from(row.output_tokens))
        .sum();
    (input, output)
}

#[test]
fn mooncake_conversation() {
    let Some(trace) = load("mooncake_conversation_trace.jsonl", Format::Mooncake) else {
        return;
    };
    assert_eq!(
        (
            trace.rows.len(),
            trace.block_list.len(),
            trace.unique_blocks
        ),
        (12_031, 288_500, 182_790)
    );
    // 144.8 M and 4.12 M tokens in 3,537 s.
    assert_eq!(sums(&trace), (144_793_823, 4_122_048));
    assert_eq!(trace.span().as_s(), 3_536.999);
    let workload = trace.workload();
    assert_eq!(workload.requests.len(), 12_031);
    let bytes = trace.heap_bytes() + workload.heap_bytes();
    assert!(bytes < 3 << 20, "trace and workload take {bytes} bytes");
}

#[test]
fn mooncake_synthetic() {
    let Some(trace) = load("mooncake_synthetic_trace.jsonl", Format::Mooncake) else {
        return;
    };
    assert_eq!(
        (
            trace.rows.len(),
            trace.block_list.len(),
            trace.unique_blocks
        ),
        (3_993, 121_877, 43_924)
    );
}

/// A null field changes nothing, but the line is not plain any more.
#[test]
fn the_fast_path_reads_what_the_general_one_reads() {
    for name in [
        "mooncake_conversation_trace.jsonl",
        "mooncake_synthetic_trace.jsonl",
    ] {
        let Some(path) = public(name) else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let general = text.replace('}', ", \"priority\": null}");
        let options = ReadOptions::default();
        let fast = parse(text.as_bytes(), name, &options).unwrap().trace;
        assert_eq!(
            fast,
            parse(general.as_bytes(), name, &options).unwrap().trace
        );
        let compressed = zstd::encode_all(text.as_bytes(), 1).unwrap();
        assert_eq!(fast, parse(&compressed[..], name, &options).unwrap().trace);
    }
}

#[test]
fn azure() {
    for (name, rows) in [
        ("AzureLLMInferenceTrace_conv.csv", 19_366),
        ("AzureLLMInferenceTrace_code.csv", 8_819),
    ] {
        let Some(trace) = load(name, Format::Azure) else {
            return;
        };
        assert_eq!(trace.rows.len(), rows);
        assert_eq!(trace.rows[0].arrival, engine::Time::ZERO);
    }
}

#[test]
fn sharegpt_gzip() {
    let name = "llmservingsim_sharegpt-llama-3.1-8b-300-sps10.jsonl.gz";
    let Some(trace) = load(name, Format::ShareGpt) else {
        return;
    };
    assert_eq!(trace.rows.len(), 300);
    assert_eq!(trace.rows[0].arrival.as_ns(), 46_926_808);
    assert_eq!(
        (trace.rows[0].input_tokens, trace.rows[0].output_tokens),
        (2358, 531)
    );
    let (input, output) = sums(&trace);
    assert_eq!(trace.token_list.len() as u64, input + output);
}
