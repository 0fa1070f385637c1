use super::*;
use calibration::fitted::{Domain, Fitted};
use calibration::log_file::LogFile;
use engine::vllm::VllmConfig;

const US: [(Term, f64); 6] = [
    (Term::Base, 10_000.0),
    (Term::PrefillStep, 3_000.0),
    (Term::DecodeSequence, 60.0),
    (Term::DecodeContextToken, 0.05),
    (Term::PrefillToken, 40.0),
    (Term::PrefillPair, 0.004),
];
const FRONT_END_MS: f64 = 4.0;

fn engine() -> VllmConfig {
    VllmConfig {
        num_gpu_blocks: 2_000,
        max_num_seqs: 64,
        max_num_batched_tokens: 2_048,
        ..VllmConfig::default()
    }
}

/// A line as AIPerf writes it.
fn line(
    number: usize,
    start_ms: f64,
    input: u32,
    output: u32,
    ttft_ms: f64,
    e2e_ms: f64,
) -> String {
    let start_ns = (1e15 + start_ms * 1e6) as u64;
    format!(
        r#"{{"metadata":{{"x_request_id":"{number}","request_start_ns":{start_ns}}},"metrics":{{"time_to_first_token":{{"value":{ttft_ms},"unit":"ms"}},"request_latency":{{"value":{e2e_ms},"unit":"ms"}},"input_sequence_length":{{"value":{input},"unit":"tokens"}},"output_sequence_length":{{"value":{output},"unit":"tokens"}}}},"error":null}}"#
    )
}

/// The log of a simulated machine whose law is known: `count` requests, `gap_ms` apart.
fn log(count: usize, gap_ms: f64) -> RequestLog {
    let sizes = |number: usize| (50 + (number * 7_919) % 1_500, 20 + (number * 104_729) % 200);
    let blank: Vec<String> = (0..count)
        .map(|number| {
            let (input, output) = sizes(number);
            line(
                number,
                gap_ms * number as f64,
                input as u32,
                output as u32,
                1.0,
                1e5,
            )
        })
        .collect();
    let blank = RequestLog::parse(&LogFile::from_text("made", &blank.join("\n"))).expect("good");
    let question = question(&blank);
    let recording = question.simulate(Arc::new(Fitted::of_formula(&US, Domain::ALL)));
    let lines: Vec<String> = recording
        .requests
        .iter()
        .enumerate()
        .map(|(number, record)| {
            let outcome = Outcome::of(record).expect("completed");
            line(
                number,
                gap_ms * number as f64,
                record.input_tokens,
                record.output_tokens,
                outcome.ttft.as_ms() + FRONT_END_MS,
                outcome.e2e.as_ms() + FRONT_END_MS,
            )
        })
        .collect();
    RequestLog::parse(&LogFile::from_text("made.jsonl", &lines.join("\n"))).expect("good")
}

fn question(log: &RequestLog) -> Question<'_> {
    Question {
        workload: Arc::new(log.workload(None).expect("no trace to differ from")),
        log,
        engine: engine(),
        share: 0.5,
        terms: TERMS.to_vec(),
    }
}

#[test]
fn a_machine_is_predicted_from_the_first_half_of_its_log() {
    let log = log(120, 90.0);
    let fit = fit(&question(&log)).expect("a fit");
    for row in fit.fitted.1.iter().chain(&fit.held_out.1) {
        assert!(row.error.abs() < 0.04, "{row:?}\n{:?}", fit.parameters);
    }
    assert_eq!((fit.fitted.0, fit.held_out.0), (60, 60));
    assert_eq!(fit.kv_blocks, KvBlocks::Pinned(2_000));
    // What most of the time is made of comes out; what it says of itself is what it is off by.
    for (name, expected) in [("base", 10_000.0), ("prefill_token", 40.0)] {
        let one = fit
            .parameters
            .iter()
            .find(|one| one.name == name)
            .expect("there");
        assert!((one.us / expected - 1.0).abs() < 0.25, "{one:?}");
    }
    assert!(fit.profile.held_out.mean_error < 0.03);
    assert_eq!(fit.profile.sources[0].rows, 120);
}

#[test]
fn a_log_of_single_requests_does_not_know_what_a_batch_costs() {
    // 20 s apart: no two are ever served together.
    let log = log(60, 20_000.0);
    let fit = fit(&question(&log)).expect("a fit");
    let open: Vec<&str> = fit
        .parameters
        .iter()
        .filter(|one| !one.is_identified)
        .map(|one| one.name.as_str())
        .collect();
    assert!(open.contains(&"decode_sequence"), "{:?}", fit.parameters);
    assert!(
        fit.profile
            .warnings
            .iter()
            .any(|text| text.starts_with("decode_sequence is not identified")),
        "{:?}",
        fit.profile.warnings
    );
    assert!(
        fit.held_out.1.iter().all(|row| row.error.abs() < 0.03),
        "{:?}",
        fit.held_out
    );
}

#[test]
fn questions_that_cannot_be_answered_are_refused() {
    let few = log(30, 50.0);
    let error = fit(&question(&few))
        .expect_err("15 on either side")
        .to_string();
    assert!(
        error.contains("15 requests to fit to and 15 to hold out"),
        "{error}"
    );
    let log = log(60, 50.0);
    let mut small = question(&log);
    small.engine.num_gpu_blocks = 60;
    let error = fit(&small)
        .expect_err("60 blocks hold 944 tokens")
        .to_string();
    assert!(error.contains("prompt_exceeds_kv_cache"), "{error}");
    assert!(error.contains("made.jsonl:"), "{error}");
}
