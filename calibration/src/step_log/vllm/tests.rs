use super::*;

const INIT: &str = r#"{"kind":"init","num_gpu_blocks":20,"block_size":4,"max_num_seqs":4,"max_num_batched_tokens":8,"async_scheduling":false,"prefix_caching":true}"#;

fn parse(lines: &[&str]) -> Result<VllmLog, CalibrationError> {
    VllmLog::parse(&LogFile::from_text("steps.jsonl", &lines.join("\n")))
}

/// Two prompts of 10 and 3 tokens: the first in chunks of 8 and 2, then both generate.
const GOOD: [&str; 6] = [
    INIT,
    r#"{"kind":"add","t":1000,"id":"a","n":10,"max_tokens":3}"#,
    r#"{"kind":"step","t0":2000,"t1":2100,"t2":2900,"t3":3000,"sched":[["a",8,0]],"free":17}"#,
    r#"{"kind":"add","t":3005,"id":"b","n":3,"max_tokens":1}"#,
    r#"{"kind":"step","t0":3010,"t1":3020,"t2":3900,"t3":4010,"sched":[["a",2,8],["b",3,-3]],"free":16}"#,
    r#"{"kind":"step","t0":4030,"t1":4040,"t2":4900,"t3":5030,"sched":[["a",1,10]],"free":16}"#,
];

#[test]
fn chunks_decodes_and_times_follow_from_the_lines() {
    let log = parse(&GOOD).expect("good");
    let [first, second, third] = &log.steps[..] else {
        panic!("three steps");
    };
    assert_eq!(first.parts[0].computed_before, 0);
    // What is wrong in the log (-3, the request had left) is what the prompt says: 3 known - 3 computed now.
    assert_eq!(second.parts[1].computed_before, 0);
    assert_eq!(second.parts[1].logged_before, None);
    assert!(third.parts[0].is_decode && !second.parts[0].is_decode);
    let steps = log.observations();
    // Gaps of 10 and 20 ns; the upper median.
    assert_eq!(steps.between_steps, 20e-9);
    let last = steps.observations[2];
    assert!((last.seconds - 1020e-9).abs() < 1e-15);
    assert_eq!((last.work.decode_batch, last.work.decode_context), (1, 11));
    let mixed = steps.observations[1].work;
    // Tokens 9 and 10 see 9 + 10 tokens, those of the other prompt 1 + 2 + 3.
    assert_eq!((mixed.prefill_tokens, mixed.prefill_pairs), (5, 25.0));
}

#[test]
fn every_bad_line_is_named() {
    let with = |at: usize, line: &'static str| {
        let mut lines = GOOD.to_vec();
        lines[at] = line;
        parse(&lines).expect_err(line).to_string()
    };
    for (at, line, needle) in [
        (
            2,
            r#"{"kind":"step","t0":2000,"t1":2100,"t2":2900,"t3":2000,"sched":[["a",8,0]],"free":17}"#,
            "steps.jsonl:3: t3: found 2000, expected at least 2900",
        ),
        (
            2,
            r#"{"kind":"step","t0":2000,"t1":2000,"t2":2000,"t3":2000,"sched":[["a",8,0]],"free":17}"#,
            "a step of 0 ns",
        ),
        (
            2,
            r#"{"kind":"step","t0":-5,"t1":2000,"t2":2000,"t3":2000,"sched":[["a",8,0]],"free":17}"#,
            "steps.jsonl:3",
        ),
        (
            2,
            r#"{"kind":"step","t0":NaN,"t1":2000,"t2":2000,"t3":2000,"sched":[["a",8,0]],"free":17}"#,
            "steps.jsonl:3",
        ),
        (
            2,
            r#"{"kind":"step","t0":500,"t1":2000,"t2":2000,"t3":3000,"sched":[["a",8,0]],"free":17}"#,
            "ran backwards",
        ),
        (
            2,
            r#"{"kind":"step","t0":2000,"t1":2000,"t2":2000,"t3":3000,"sched":[["x",8,0]],"free":17}"#,
            "found x, expected a request that was added",
        ),
        (
            2,
            r#"{"kind":"step","t0":2000,"t1":2000,"t2":2000,"t3":3000,"sched":[["a",11,0]],"free":17}"#,
            "up to 10 in all",
        ),
        (
            2,
            r#"{"kind":"step","t0":2000,"t1":2000,"t2":2000,"t3":3000,"sched":[],"free":17}"#,
            "found none",
        ),
        (
            2,
            r#"{"kind":"step","t0":2000,"t1":2000,"t2":2000,"t3":3000,"sched":[["a",8,0]],"free":20}"#,
            "less than num_gpu_blocks, 20",
        ),
        (
            3,
            r#"{"kind":"add","t":3005,"id":"a","n":3,"max_tokens":1}"#,
            "an id that line 2 has not",
        ),
        (
            3,
            r#"{"kind":"add","t":3005,"id":"b","n":0,"max_tokens":1}"#,
            "n: found 0",
        ),
        (3, r#"{"kind":"added","t":3005}"#, "steps.jsonl:4"),
        (3, r#"{"kind":"add","t":3005,"id"#, "steps.jsonl:4"),
        (
            4,
            r#"{"kind":"step","t0":3010,"t1":3020,"t2":3900,"t3":4010,"sched":[["a",1,9],["b",3,-3]],"free":16}"#,
            "expected 8, where it was",
        ),
        (
            0,
            r#"{"kind":"init","num_gpu_blocks":1,"block_size":0,"max_num_seqs":4,"max_num_batched_tokens":8,"async_scheduling":false,"prefix_caching":true}"#,
            "block_size: found 0",
        ),
    ] {
        let message = with(at, line);
        assert!(message.contains(needle), "{line}\n{message}");
    }
}

#[test]
fn empty_logs_are_refused() {
    for (lines, needle) in [
        (&[][..], "no line of kind init"),
        (&[INIT][..], "no line of kind step"),
        (&GOOD[1..2], "no line of kind init"),
    ] {
        let message = parse(lines).expect_err("nothing to fit").to_string();
        assert!(message.contains(needle), "{message}");
    }
}
