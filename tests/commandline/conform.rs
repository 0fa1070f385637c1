//! `dynosim conform`: schedules recorded from the real scheduler.

use crate::program::{Folder, assert_contains, repository};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::fs;
use std::io::{Read, Write};

const CASE: &str = "async_simple";

const SGLANG_CASE: &str = "chunks_mixed";

fn recorded(name: &str) -> Vec<u8> {
    fs::read(repository("tests/golden/vllm").join(name)).unwrap()
}

/// The lines of the recorded schedule of [`CASE`].
fn steps() -> Vec<String> {
    lines(&recorded(&format!("{CASE}.steps.jsonl.gz")))
}

fn lines(packed: &[u8]) -> Vec<String> {
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A folder with a copy of [`CASE`] that has this schedule.
fn folder_with(steps: &[String]) -> Folder {
    folder_of(CASE, recorded(&format!("{CASE}.case.json.gz")), steps)
}

fn folder_of(name: &str, case: Vec<u8>, steps: &[String]) -> Folder {
    let folder = Folder::new();
    folder.write(&format!("{name}.case.json.gz"), case);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed
        .write_all((steps.join("\n") + "\n").as_bytes())
        .unwrap();
    folder.write(&format!("{name}.steps.jsonl.gz"), packed.finish().unwrap());
    folder
}

#[test]
fn every_recorded_case_is_identical() {
    for engine in ["vllm", "sglang"] {
        let golden = repository("tests/golden").join(engine);
        let names = fs::read_dir(&golden)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let cases = names.filter(|name| name.ends_with(".case.json.gz")).count();
        assert!(cases > 0);
        let stdout = Folder::new().good(&["conform", engine, golden.to_str().unwrap()]);
        assert_eq!(
            stdout.lines().last().unwrap(),
            format!("{cases} cases, {cases} identical")
        );
    }
}

#[test]
fn one_case_by_its_file_and_as_json() {
    let folder = folder_with(&steps());
    let stdout = folder.good(&["conform", "vllm", &format!("{CASE}.case.json.gz")]);
    assert_eq!(stdout.lines().last().unwrap(), "1 cases, 1 identical");
    let json = folder.json(&["conform", "vllm", ".", "--json"]);
    assert_eq!((&json["cases"], &json["identical"]), (&1.into(), &1.into()));
    // Stepping and coasting.
    assert_eq!(json["replays"], 2);
    let recorded = steps();
    let of_steps = recorded.iter().filter(|line| line.starts_with("{\"step\""));
    assert_eq!(json["steps_compared"], 2 * of_steps.count());
}

#[test]
fn every_field_of_a_step_counts() {
    let whole = steps();
    for (field, recorded, tampered) in [
        ("end_ns", "\"end_ns\":4889", "\"end_ns\":4890"),
        (
            "scheduled",
            "\"scheduled\":[[0,1,50]",
            "\"scheduled\":[[0,2,50]",
        ),
        ("n_running", "\"n_running\":2", "\"n_running\":3"),
        ("n_waiting", "\"n_waiting\":0", "\"n_waiting\":1"),
        (
            "free_after_sched",
            "\"free_after_sched\":47",
            "\"free_after_sched\":46",
        ),
        (
            "tables",
            "\"tables\":{\"0\":[1,2,3,4]",
            "\"tables\":{\"0\":[1,2,3,5]",
        ),
        ("events", "\"events\":[[\"S\",-1,[15]]]", "\"events\":[]"),
        (
            "free_queue",
            "\"free_queue\":[20,21,",
            "\"free_queue\":[21,20,",
        ),
    ] {
        // The second step, so that the place matters; line 0 is the header.
        assert!(whole[2].contains(recorded), "{field}: {}", whole[2]);
        let mut steps = whole.clone();
        steps[2] = steps[2].replace(recorded, tampered);
        let answer = folder_with(&steps).run(&["conform", "vllm", "."]);
        assert_eq!(answer.code, Some(1), "{field}: {answer}");
        assert_eq!(
            answer.stdout.lines().last().unwrap(),
            "1 cases, 0 identical",
            "{answer}"
        );
        assert_contains(&answer.stdout, &[CASE, "step 1", field]);
    }
}

#[test]
fn every_field_of_a_step_of_sglang_counts() {
    let golden = |end: &str| {
        let file = format!("tests/golden/sglang/{SGLANG_CASE}.{end}");
        fs::read(repository(&file)).unwrap()
    };
    let whole = lines(&golden("steps.jsonl.gz"));
    for (field, recorded, tampered) in [
        ("mode", "\"mixed\"", "\"extend\""),
        ("end_ns", "\"end_ns\":4944", "\"end_ns\":4945"),
        ("rows", "[[1,127,88],", "[[1,126,88],"),
        ("chunked", "\"chunked\":1", "\"chunked\":null"),
        ("retracted", "\"retracted\":[]", "\"retracted\":[0]"),
        ("aborted", "\"aborted\":[]", "\"aborted\":[0]"),
        ("waiting", "\"waiting\":[2]", "\"waiting\":[3]"),
        (
            "avail_after_sched",
            "\"avail_after_sched\":3840",
            "\"avail_after_sched\":3841",
        ),
        (
            "new_token_ratio",
            "\"new_token_ratio\":0.7",
            "\"new_token_ratio\":0.700000001",
        ),
        ("finished", "\"finished\":[]", "\"finished\":[1]"),
        ("avail", "\"avail\":3840", "\"avail\":3841"),
        ("evictable", "\"evictable\":0,", "\"evictable\":1,"),
        ("tree_tokens", "\"tree_tokens\":128", "\"tree_tokens\":127"),
    ] {
        // The second step, so that the place matters; line 0 is the header.
        assert!(whole[2].contains(recorded), "{field}: {}", whole[2]);
        let mut steps = whole.clone();
        steps[2] = steps[2].replace(recorded, tampered);
        let folder = folder_of(SGLANG_CASE, golden("case.json.gz"), &steps);
        let answer = folder.run(&["conform", "sglang", "."]);
        assert_eq!(answer.code, Some(1), "{field}: {answer}");
        assert_contains(&answer.stdout, &[SGLANG_CASE, "step 1", field]);
    }
}

#[test]
fn a_schedule_of_another_length_differs() {
    let mut steps = steps();
    let last = steps
        .iter()
        .rposition(|line| line.starts_with("{\"step\""))
        .unwrap();
    steps.remove(last);
    let answer = folder_with(&steps).run(&["conform", "vllm", "."]);
    assert_eq!(answer.code, Some(1), "{answer}");
    assert_contains(
        &answer.stdout,
        &[CASE, "number of steps", "1 cases, 0 identical"],
    );
}

#[test]
fn what_is_no_recording_is_refused() {
    let folder = Folder::new();
    assert_contains(
        &folder.refused(&["conform", "vllm", "nowhere"]),
        &["nowhere: no such file or folder"],
    );
    assert_contains(
        &folder.refused(&["conform", "vllm", "."]),
        &["no recorded cases"],
    );
    folder.write(
        "alone.case.json.gz",
        recorded(&format!("{CASE}.case.json.gz")),
    );
    assert_contains(
        &folder.refused(&["conform", "vllm", "."]),
        &["alone.case.json.gz: no recording"],
    );
    let whole = steps();
    let folder = folder_with(&whole[..whole.len() - 1]);
    assert_contains(
        &folder.refused(&["conform", "vllm", "."]),
        &[CASE, "no end line (truncated?)"],
    );
    folder.write(&format!("{CASE}.steps.jsonl.gz"), "this is no gzip");
    assert_contains(&folder.refused(&["conform", "vllm", "."]), &[CASE]);
}
