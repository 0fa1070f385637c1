use super::*;

fn parse(text: &str) -> Result<RequestLog, CalibrationError> {
    RequestLog::parse(&LogFile::from_text("log.jsonl", text))
}

fn refused(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

const ENGINE: &str = r#"{"request_id": "bench-1", "input_toks": 20, "output_toks": 5, "arrival_time": 1777142838.75, "queued_ts": 100.5, "scheduled_ts": 100.5, "first_token_ts": 101.0, "last_token_ts": 102.0}
{"request_id": "bench-0", "input_toks": 10, "output_toks": 1, "arrival_time": 1777142838.25, "queued_ts": 99.75, "scheduled_ts": 99.75, "first_token_ts": 100.0, "last_token_ts": 100.0}
"#;

const CLIENT: &str = r#"{"metadata":{"session_num":7,"x_request_id":"a","request_start_ns":1777142838000000000,"benchmark_phase":"profiling","was_cancelled":false},"metrics":{"time_to_first_token":{"value":250,"unit":"ms"},"request_latency":{"value":1.25,"unit":"s"},"input_sequence_length":{"value":550,"unit":"tokens"},"output_sequence_length":{"value":9,"unit":"tokens"}},"error":null}
{"metadata":{"session_num":8,"x_request_id":"b","request_start_ns":1777142839000000000,"was_cancelled":true},"metrics":{},"error":{"code":499}}
"#;

#[test]
fn the_engines_moments_count_from_when_it_had_the_request() {
    let log = parse(ENGINE).expect("good");
    assert_eq!(log.form, "llmservingsim");
    let [first, second] = &log.requests[..] else {
        panic!("two requests");
    };
    assert_eq!(
        (first.id.as_str(), second.id.as_str()),
        ("bench-0", "bench-1")
    );
    // Clocks: bench-0 was queued 99.75 s against 38.25, bench-1 100.5 against 38.75. The smaller offset is that of the
    // first, so the second came 0.5 s after it and was taken 0.25 s later.
    assert_eq!(second.arrival.as_ns(), 500_000_000);
    assert_eq!(second.counted_from.as_ns(), 750_000_000);
    assert_eq!(second.outcome.ttft, engine::Span::from_ns(500_000_000));
    assert_eq!(second.outcome.e2e, engine::Span::from_ns(1_500_000_000));
    assert_eq!(log.recorded().as_deref(), Some("2026-04-25T18:47Z"));
}

#[test]
fn clients_records_are_read_with_their_units_and_failures_counted() {
    let log = parse(CLIENT).expect("good");
    assert_eq!((log.form, log.failed, log.requests.len()), ("aiperf", 1, 1));
    let outcome = log.requests[0].outcome;
    assert_eq!((outcome.ttft.as_ms(), outcome.e2e.as_ms()), (250.0, 1250.0));
    assert_eq!(outcome.tpot_ms(), Some(125.0));
}

#[test]
fn bad_lines_are_named() {
    for (text, from, to, needle) in [
        (
            ENGINE,
            "\"bench-1\"",
            "\"bench-0\"",
            "log.jsonl:2: id: found bench-0, expected an id that line 1 has not",
        ),
        (
            ENGINE,
            "\"queued_ts\": 100.5",
            "\"queued_ts\": -1",
            "log.jsonl:1: queued_ts: found -1",
        ),
        (
            ENGINE,
            "\"queued_ts\": 100.5",
            "\"queued_ts\": NaN",
            "log.jsonl: found no JSON",
        ),
        (
            ENGINE,
            "\"last_token_ts\": 102.0",
            "\"last_token_ts\": 100.9",
            "the clock ran backwards",
        ),
        (
            ENGINE,
            "\"output_toks\": 5",
            "\"output_toks\": 0",
            "output tokens: found 0",
        ),
        (
            ENGINE,
            "\"last_token_ts\": 102.0",
            "\"last_token_ts\": 101.0",
            "all 5 tokens at one instant",
        ),
        (
            ENGINE,
            "\"first_token_ts\": 101.0, \"last",
            "\"last",
            "log.jsonl:1",
        ),
        (
            CLIENT,
            "\"value\":250",
            "\"value\":-250",
            "metrics.time_to_first_token: found -250",
        ),
        (
            CLIENT,
            "\"value\":250",
            "\"value\":0",
            "first token: found 0 ns before or at the arrival",
        ),
        (
            CLIENT,
            "\"unit\":\"ms\"",
            "\"unit\":\"furlong\"",
            "found furlong",
        ),
        (
            CLIENT,
            "\"unit\":\"ms\"",
            "\"unit\":\"tokens\"",
            "a unit that fits",
        ),
        (
            CLIENT,
            "\"time_to_first_token\"",
            "\"time_to_second_token\"",
            "found nothing, expected a value",
        ),
        (
            CLIENT,
            "\"value\":1.25",
            "\"value\":0.125",
            "last token: found 125000000 ns before the first",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let message = refused(&text.replacen(from, to, 1));
        assert!(message.contains(needle), "{to}: {message}");
    }
}

#[test]
fn logs_without_a_request_are_refused() {
    for (text, needle) in [
        ("", "an empty file"),
        ("{}", "an object with neither"),
        ("arrival,input\n", "no JSON"),
        (
            CLIENT.lines().nth(1).expect("two lines"),
            "no completed request (1 failed)",
        ),
    ] {
        let message = refused(text);
        assert!(message.contains(needle), "{text}: {message}");
    }
}

#[test]
fn prompts_come_from_a_trace_of_the_same_requests_only() {
    let log = parse(ENGINE).expect("good");
    let trace = |text: &str| {
        let options = traces::ReadOptions::default();
        traces::parse(text.as_bytes(), "trace.jsonl", &options)
            .expect("good")
            .trace
    };
    let same = "{\"timestamp\":0,\"input_length\":10,\"output_length\":1,\"hash_ids\":[1]}\n\
                {\"timestamp\":500,\"input_length\":20,\"output_length\":5,\"hash_ids\":[1]}\n";
    assert_eq!(
        log.workload(Some(&trace(same)))
            .expect("the same")
            .requests
            .len(),
        2
    );
    let other = same.replace("\"input_length\":20", "\"input_length\":21");
    let error = log
        .workload(Some(&trace(&other)))
        .expect_err("another")
        .to_string();
    assert!(
        error.contains("input tokens: found 20, expected 21"),
        "{error}"
    );
    let fewer = same.lines().next().expect("a line");
    let error = log
        .workload(Some(&trace(fewer)))
        .expect_err("another")
        .to_string();
    assert!(error.contains("found 2 requests, expected 1"), "{error}");
}

#[test]
fn days_are_those_of_the_calendar() {
    assert_eq!(civil(0), (1970, 1, 1));
    assert_eq!(civil(11_016), (2000, 2, 29));
    assert_eq!(civil(19_782), (2024, 2, 29));
    assert_eq!(civil(20_454), (2026, 1, 1));
}
