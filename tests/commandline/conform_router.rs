//! `dynosim conform router`: what was recorded from the real KV router.

use crate::program::{Folder, assert_contains, repository};
use std::fs;

fn recorded(name: &str) -> String {
    fs::read_to_string(repository("tests/golden/router").join(format!("{name}.json"))).unwrap()
}

#[test]
fn every_recorded_case_is_identical() {
    let golden = repository("tests/golden/router");
    let stdout = Folder::new().good(&["conform", "router", golden.to_str().unwrap()]);
    assert_eq!(stdout.lines().last().unwrap(), "47 cases, 47 identical");
}

#[test]
fn one_case_by_its_file_and_as_json() {
    let folder = Folder::new();
    folder.write("case.json", recorded("seq_sharing"));
    let json = folder.json(&["conform", "router", "case.json", "--json"]);
    assert_eq!((&json["cases"], &json["identical"]), (&1.into(), &1.into()));
    assert_eq!(json["results_compared"], 15);
}

/// One number changed in a case of each kind.
#[test]
fn every_kind_of_result_counts() {
    for (case, recorded_part, tampered) in [
        (
            "hash_bs4_both",
            "\"7188576183127723666\"",
            "\"7188576183127723667\"",
        ),
        (
            "indexer_tiny",
            "{\"blocks\":3,\"dp\":0,\"last_seq_hash\":19",
            "{\"blocks\":2,\"dp\":0,\"last_seq_hash\":19",
        ),
        (
            "indexer_early_exit",
            "\"last_seq_hash\":17",
            "\"last_seq_hash\":18",
        ),
        ("sel_default", "\"logit\":84.0", "\"logit\":84.000001"),
        (
            "sel_default",
            "\"cached_tokens\":160",
            "\"cached_tokens\":161",
        ),
        (
            "sel_default",
            "\"potential_decode_blocks\": 64",
            "\"potential_decode_blocks\": 63",
        ),
        ("sel_temp_0.5", "\"p\":0.0825", "\"p\":0.0826"),
        ("sel_ties", "\"n\":932", "\"n\":732"),
        (
            "sel_no_workers",
            "\"NoEndpoints\"",
            "\"PinnedWorkerNotAllowed\"",
        ),
        (
            "seq_prefill_decay",
            "\"active_prefill_tokens\":363",
            "\"active_prefill_tokens\":362",
        ),
        (
            "seq_sharing",
            "\"outcome\":\"NoChange\"",
            "\"outcome\":\"Applied\"",
        ),
        ("pq_drr", "{\"id\":\"l2\"}", "{\"id\":\"l1\"}"),
        ("pq_drr", "\"current\":12900", "\"current\":12901"),
        ("sq_two_workers_overlap", "\"pending\":1", "\"pending\":2"),
        (
            "approx_ttl_basic",
            "\"removed\":[true,false]",
            "\"removed\":[true,true]",
        ),
    ] {
        let whole = recorded(case);
        assert!(whole.contains(recorded_part), "{case}: {recorded_part}");
        let folder = Folder::new();
        folder.write("case.json", whole.replacen(recorded_part, tampered, 1));
        let answer = folder.run(&["conform", "router", "."]);
        assert_eq!(answer.code, Some(1), "{case} {tampered}: {answer}");
        assert_contains(
            &answer.stdout,
            &[case, "recorded", "dynosim", "1 cases, 0 identical"],
        );
    }
}

#[test]
fn what_is_no_case_is_refused() {
    let folder = Folder::new();
    assert_contains(
        &folder.refused(&["conform", "router", "nowhere"]),
        &["nowhere: no such file or folder"],
    );
    assert_contains(
        &folder.refused(&["conform", "router", "."]),
        &["no recorded cases"],
    );
    folder.write(
        "a.json",
        recorded("sel_default").replace("\"selection\"", "\"choice\""),
    );
    folder.write(
        "b.json",
        recorded("pq_drr").replace("quantum: 200", "quantum: few"),
    );
    folder.write(
        "c.json",
        recorded("sel_default").replace("\"isl_tokens\": 512", "\"isl\": 512"),
    );
    assert_contains(
        &folder.refused(&["conform", "router", "."]),
        &[
            "a.json: kind choice",
            "b.json: quantum: expected a whole number",
            "c.json: input: unknown field `isl`",
        ],
    );
}
