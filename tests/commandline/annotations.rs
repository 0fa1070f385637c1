//! Requests that say where they want to go: direct mode, labels of workers, classes of sessions, and what is refused.

use crate::program::{Folder, assert_contains};
use serde_json::Value;

/// Four requests of 100 tokens, one a second, that name workers 1, 0, 1, 1.
const NAMED: &str =
    "arrival_s,input,output,backend_instance_id\n0,100,5,1\n1,100,5,0\n2,100,5,1\n3,100,5,1\n";

fn prepared() -> Folder {
    let folder = Folder::with_scenario_and_trace();
    folder.write("named.csv", NAMED);
    folder
}

fn replay(folder: &Folder, trace: &str, options: &[&str]) -> Value {
    let mut args = vec!["replay", "scenario.yaml", "--trace", trace, "--json"];
    args.extend(options.iter().flat_map(|option| ["--set", option]));
    folder.json(&args)
}

fn requests_of(json: &Value) -> Vec<u64> {
    let workers = json["workers"].as_array().unwrap();
    workers
        .iter()
        .map(|worker| worker["requests"].as_u64().unwrap())
        .collect()
}

#[test]
fn direct_mode_follows_the_trace() {
    let folder = prepared();
    let direct = replay(&folder, "named.csv", &["router.mode=direct"]);
    assert_eq!(requests_of(&direct), [1, 3]);
    // Dynamo's KV router takes a named worker for granted.
    assert_eq!(requests_of(&replay(&folder, "named.csv", &[])), [1, 3]);
    // Others do not read names, and say so.
    let turns = replay(&folder, "named.csv", &["router.mode=round-robin"]);
    assert_eq!(requests_of(&turns), [2, 2]);
    let guesses = turns["timing"]["guesses"].to_string();
    assert_contains(
        &guesses,
        &["4 requests say which worker serves them: read by the router modes direct and kv only"],
    );
    assert_ne!(direct["digest"], turns["digest"]);
}

#[test]
fn direct_mode_needs_workers_that_are_there() {
    let folder = prepared();
    let refused = |trace: &str, options: &[&str], parts: &[&str]| {
        let mut args = vec![
            "replay",
            "scenario.yaml",
            "--trace",
            trace,
            "--out",
            "results",
        ];
        args.extend(options.iter().flat_map(|option| ["--set", option]));
        let before = folder.names();
        assert_contains(&folder.refused(&args), parts);
        args[0] = "check-scenario";
        args.drain(4..6);
        assert_contains(&folder.refused(&args), parts);
        assert_eq!(folder.names(), before, "nothing was written");
    };
    refused(
        "named.csv",
        &["router.mode=direct", "pools.agg.workers=1"],
        &[
            "named.csv:2: backend_instance_id: found worker 1, expected one of the workers 0; name one",
            "named.csv:5: backend_instance_id: found worker 1",
        ],
    );
    refused(
        "named.csv",
        &["pools.agg.workers=1"],
        &["named.csv:2: backend_instance_id: found worker 1"],
    );
    folder.write(
        "some.csv",
        "arrival_s,input,output,backend_instance_id\n0,100,5,1\n1,100,5,\n",
    );
    refused(
        "some.csv",
        &["router.mode=direct"],
        &["some.csv:3: backend_instance_id: found nothing, expected one of the workers 0 to 1"],
    );
    refused(
        "trace.jsonl",
        &["router.mode=direct"],
        &[
            "trace.jsonl:1: backend_instance_id: found nothing",
            "more problems",
        ],
    );
    refused(
        "named.csv",
        &[
            "router.mode=direct",
            "pools=[{name: p, role: prefill}, {name: d, role: decode}]",
            "network={preset: tcp}",
        ],
        &[
            "named.csv:2: prefill_worker_id: found nothing, expected one of the workers 0;",
            "named.csv:2: decode_worker_id: found nothing, expected one of the workers 1;",
        ],
    );
}

#[test]
fn requests_go_to_workers_with_the_labels_they_require() {
    let folder = prepared();
    let pools = "pools=[{name: plain, workers: 3}, {name: gold, taints: [gold, ssd], topology_domains: {zone: a}}]";
    for mode in [
        "router.mode=round-robin",
        "router.mode=kv",
        "router.mode=least-loaded",
    ] {
        let gold = "workload.annotations=[{required_taints: [gold, dynamo.topology/zone=a]}]";
        let json = replay(&folder, "trace.jsonl", &[pools, mode, gold]);
        assert_eq!(requests_of(&json), [0, 0, 0, 40], "{mode}");
    }
    // Fails closed: no worker has both.
    let both = "workload.annotations=[{share: 0.5, required_taints: [gold, iron]}]";
    let json = replay(&folder, "trace.jsonl", &[pools, both]);
    let refused = json["requests"]["rejected_by"]["required_taints_unmet"]
        .as_u64()
        .unwrap();
    assert!((5..35).contains(&refused), "{json}");
    assert_eq!(json["requests"]["completed"].as_u64(), Some(40 - refused));
    assert_contains(
        &json["timing"]["guesses"].to_string(),
        &[&format!(
            "{refused} requests say that they require the taint iron, which no worker has: refused"
        )],
    );
}

#[test]
fn preferred_labels_shift_the_choice_of_the_kv_router() {
    let folder = prepared();
    let pools = "pools=[{name: plain}, {name: gold, taints: [gold]}]";
    let tokens_on_gold = |annotations: &str| {
        let options = [pools, annotations];
        replay(&folder, "trace.jsonl", &options)["workers"][1]["prefill_tokens"]
            .as_u64()
            .unwrap()
    };
    let with_weight = |weight: f64| {
        tokens_on_gold(&format!(
            "workload.annotations=[{{preferred_taints: {{gold: {weight}}}}}]"
        ))
    };
    let none = tokens_on_gold("seed=0");
    let (drawn, put_off) = (with_weight(9.0), with_weight(-9.0));
    assert!(drawn > none && none > put_off, "{drawn}, {none}, {put_off}");
}

/// A conversation of two turns; the second begins with the whole first, 2,048 tokens, and its answer, 512.
const TURNS: &str = r#"{"session_id": "a", "timestamp": 0, "input_length": 2048, "output_length": 512, "hash_ids": [1, 2, 3, 4]}
{"session_id": "a", "delay": 5000, "input_length": 3072, "output_length": 50, "hash_ids": [1, 2, 3, 4, 5, 6]}
"#;

#[test]
fn the_front_end_sends_the_known_part_of_the_next_turn_ahead() {
    let folder = prepared();
    folder.write("turns.jsonl", TURNS);
    let one = "pools.agg.workers=1";
    let plain = replay(&folder, "turns.jsonl", &[one]);
    let asks = "workload.annotations=[{speculative_prefill: true}]";
    let ahead = replay(&folder, "turns.jsonl", &[one, asks]);
    // Both turns are followed by one. The first is 2,560 tokens of the second turn: its prompt was cached, 512 are computed, before
    // the turn comes. The second is for nothing: 3,122 tokens, all whole blocks of which are there, 64 tokens each.
    let own = serde_json::json!({
        "requests": 2, "completed": 2, "rejected": 0, "unfinished": 0,
        "prompt_tokens": 2560 + 3122, "cached_tokens": 2048 + 3072, "followed": 1, "in_time": 1,
    });
    assert_eq!(ahead["speculative_prefill"], own);
    assert!(plain["speculative_prefill"].is_null());
    let share = |json: &Value| json["prefix"]["first_admission_share"].as_f64().unwrap();
    assert_eq!(
        (share(&plain), share(&ahead)),
        (2048.0 / 5120.0, 2560.0 / 5120.0)
    );
    for json in [&plain, &ahead] {
        assert_eq!(json["requests"]["total"], 2);
        assert_eq!(json["requests"]["completed"], 2);
    }
    let most = |json: &Value| json["latency"]["ttft_ms"]["min"].as_f64().unwrap();
    assert!(most(&ahead) < most(&plain), "{ahead}");
    // A closed loop has its slot back when the last answer is there, and rows can ask for themselves.
    let hint = r#""output_length": 512, "nvext": {"agent_hints": {"speculative_prefill": true}}"#;
    folder.write("hint.jsonl", TURNS.replace(r#""output_length": 512"#, hint));
    let closed = ["workload.load.concurrency=1", one];
    let closed = replay(&folder, "hint.jsonl", &closed);
    assert_eq!(closed["speculative_prefill"]["requests"], 1);
    assert_eq!(closed["latency"], ahead["latency"]);
    // An oracle has not foreseen them.
    let oracle = replay(&folder, "turns.jsonl", &[asks, "router.mode=clairvoyant"]);
    assert!(oracle["speculative_prefill"].is_null());
    assert_contains(
        &oracle["timing"]["guesses"].to_string(),
        &[
            "2 requests say that their next turns are prefilled ahead (speculative_prefill): not done beside an oracle",
        ],
    );
}

#[test]
fn bad_hints_are_told_with_their_lines() {
    let folder = prepared();
    let hint = r#""output_length": 512, "agent_hints": {"speculative_prefill": "yes"}"#;
    folder.write("hint.jsonl", TURNS.replace(r#""output_length": 512"#, hint));
    let args = ["replay", "scenario.yaml", "--trace", "hint.jsonl", "--set"];
    let args = [
        &args[..],
        &["workload.annotations=[{speculative_prefill: 3}]"],
    ]
    .concat();
    assert_contains(
        &folder.refused(&args),
        &["workload.annotations[0].speculative_prefill: found `3`, expected true or false"],
    );
    assert_contains(
        &folder.refused(&args[..4]),
        &[
            "hint.jsonl:1:",
            "speculative_prefill: found `\"yes\"`, expected true or false",
        ],
    );
}

#[test]
fn bad_annotations_are_refused_together() {
    let folder = prepared();
    let mut args = vec!["replay", "scenario.yaml", "--trace", "trace.jsonl"];
    for option in [
        "workload.annotations=[{share: 0.7, required_taints: gold}, {share: 2, priority: high}, {}, 3, {prefered_taints: {a: 1}}]",
        "pools=[{name: a, taints: [[x]], topology_domains: [zone]}]",
    ] {
        args.extend(["--set", option]);
    }
    assert_contains(
        &folder.refused(&args),
        &[
            "workload.annotations[0].required_taints: found `gold`, expected a list",
            "workload.annotations[1].share: found `2`, expected a number above 0",
            "workload.annotations[1].priority: found `high`, expected a whole number",
            "workload.annotations[2]: found a class that says nothing",
            "workload.annotations[3]: found `3`, expected a class",
            "workload.annotations[4].prefered_taints: found an unknown field, expected a known one; did you mean `preferred_taints`?",
            "pools.a.taints: found a list, expected a label",
            "pools.a.topology_domains: found a list, expected domains",
        ],
    );
    let args = [
        "--set",
        "workload.annotations=[{share: 0.7, strict_priority: 1}, {share: 0.7, strict_priority: 2}]",
    ];
    let args = [
        &["replay", "scenario.yaml", "--trace", "trace.jsonl"],
        &args[..],
    ]
    .concat();
    assert_contains(
        &folder.refused(&args),
        &["workload.annotations: found shares of 1.4 together, expected at most 1"],
    );
}
