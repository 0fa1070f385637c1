//! Every format, on a few hand-made lines.

use engine::{Dependency, RequestId, Span, Time, Trigger, WorkloadBuilder};
use traces::{Content, Format, Loaded, ReadOptions, Trace, WarningKind, parse};

fn read(text: &str) -> Loaded {
    read_with(text, ReadOptions::default())
}

fn read_with(text: &str, options: ReadOptions) -> Loaded {
    parse(text.as_bytes(), "sample", &options).unwrap_or_else(|error| panic!("{error}"))
}

fn forced(text: &str, format: Format) -> Loaded {
    read_with(
        text,
        ReadOptions {
            format: Some(format),
            ..ReadOptions::default()
        },
    )
}

fn arrivals_ms(trace: &Trace) -> Vec<f64> {
    trace.rows.iter().map(|row| row.arrival.as_ms()).collect()
}

fn lengths(trace: &Trace) -> Vec<(u32, u32)> {
    trace
        .rows
        .iter()
        .map(|row| (row.input_tokens, row.output_tokens))
        .collect()
}

fn blocks(trace: &Trace) -> Vec<&[u32]> {
    trace.rows.iter().map(|row| trace.blocks(row)).collect()
}

fn waits(trace: &Trace, row: usize) -> &[Dependency] {
    trace.dependencies_of(&trace.rows[row])
}

fn after(on: u32, trigger: Trigger, ms: f64) -> Dependency {
    Dependency {
        on: RequestId(on),
        trigger,
        delay: Span::from_ms(ms),
    }
}

#[test]
fn mooncake() {
    let loaded = read(
        r#"{"timestamp": 0, "input_length": 1025, "output_length": 52, "hash_ids": [46, 47, 9000000000000000000]}
{"timestamp": 27.5, "input_length": 600, "output_length": 7, "hash_ids": [46, 48]}
{"hash_ids": [47], "output_tokens": 3, "created_time": 1e3}
{"timestamp": 1000, "input_tokens": 5, "output_length": 1}
"#,
    );
    assert_eq!(loaded.format, Format::Mooncake);
    assert_eq!(loaded.warnings, []);
    let trace = loaded.trace;
    assert_eq!(
        (trace.block_size, trace.unique_blocks, trace.sessions),
        (512, 4, 4)
    );
    assert_eq!(arrivals_ms(&trace), [0.0, 27.5, 1000.0, 1000.0]);
    // Without a length all blocks are full.
    assert_eq!(lengths(&trace), [(1025, 52), (600, 7), (512, 3), (5, 1)]);
    // Numbered by first appearance: 46 → 0, 47 → 1, 9·10^18 → 2, 48 → 3.
    assert_eq!(blocks(&trace), [&[0u32, 1, 2][..], &[0, 3], &[1], &[]]);
    assert_eq!(trace.rows[3].content, Content::Private);
    assert_eq!(
        trace.rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
}

#[test]
fn mooncake_with_another_block_size() {
    let line = r#"{"timestamp": 0, "input_length": 100, "output_length": 1, "hash_ids": [1, 2, 3, 4, 5, 6, 7]}"#;
    let trace = read_with(
        line,
        ReadOptions {
            block_size: Some(16),
            ..ReadOptions::default()
        },
    )
    .trace;
    assert_eq!((trace.block_size, trace.block_list.len()), (16, 7));
}

#[test]
fn mooncake_sessions_count_from_the_completion_of_the_previous_turn() {
    let trace = read(
        r#"{"session_id": "a", "timestamp": 100, "input_length": 10, "output_length": 5, "hash_ids": [1]}
{"session_id": "b", "timestamp": 150, "input_length": 10, "output_length": 5, "hash_ids": [2]}
{"session_id": "a", "timestamp": 400, "input_length": 30, "output_length": 5, "hash_ids": [1]}
{"session_id": "b", "delay_ms": 20.25, "input_length": 30, "output_length": 5, "hash_ids": [2], "priority": 3}
{"session_id": "a", "delay": 7, "timestamp": 90000, "input_length": 30, "output_length": 5, "hash_ids": [1]}
"#,
    )
    .trace;
    // a: 100, then +300 (difference of the timestamps), then +7 (said so); b: 150, then +20.25.
    assert_eq!(arrivals_ms(&trace), [100.0, 150.0, 170.25, 400.0, 407.0]);
    assert_eq!(
        trace.rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        [1, 2, 4, 3, 5]
    );
    assert_eq!(
        trace.rows.iter().map(|row| row.session).collect::<Vec<_>>(),
        [0, 1, 1, 0, 0]
    );
    assert_eq!(waits(&trace, 0), []);
    assert_eq!(waits(&trace, 2), [after(1, Trigger::Completion, 20.25)]);
    assert_eq!(waits(&trace, 3), [after(0, Trigger::Completion, 300.0)]);
    assert_eq!(waits(&trace, 4), [after(3, Trigger::Completion, 7.0)]);
    // Larger is more important in the file, smaller in the engine.
    assert_eq!(trace.rows[2].priority, -3);
    let workload = trace.workload();
    assert_eq!(
        workload.dependencies_of(&workload.requests[4]),
        waits(&trace, 4)
    );
}

#[test]
fn mooncake_delta_accumulates_prompts_and_answers() {
    let trace = forced(
        r#"{"session_id": "a", "timestamp": 0, "input_length": 600, "output_length": 50, "hash_ids": [1, 2]}
{"session_id": "a", "delay": 10, "input_length": 100, "output_length": 20, "hash_ids": [3]}
{"session_id": "a", "delay": 10, "input_length": 30, "output_length": 5, "hash_ids": [4]}
{"timestamp": 5, "input_length": 30, "output_length": 5, "hash_ids": [1]}
"#,
        Format::MooncakeDelta,
    )
    .trace;
    // 600; 600 + 50 + 100 = 750; 750 + 20 + 30 = 800.
    assert_eq!(lengths(&trace), [(600, 50), (30, 5), (750, 20), (800, 5)]);
    assert_eq!(
        trace.rows.iter().map(|row| row.extends).collect::<Vec<_>>(),
        [None, None, Some(0), Some(2)]
    );
    let (mut turns, mut runs) = (Vec::new(), Vec::new());
    trace.prompt_into(3, &mut turns, &mut runs);
    let expected = [
        (WorkloadBuilder::block_token(0, 0), 512),
        (WorkloadBuilder::block_token(1, 0), 88),
        (WorkloadBuilder::output_token(0, 0), 50),
        (WorkloadBuilder::block_token(2, 0), 100),
        (WorkloadBuilder::output_token(2, 0), 20),
        (WorkloadBuilder::block_token(3, 0), 30),
    ];
    assert_eq!(
        runs.iter()
            .map(|run| (run.first, run.len))
            .collect::<Vec<_>>(),
        expected
    );
    // The second turn's prompt runs through the node in which the first turn's answer ends.
    let workload = trace.workload();
    let mut path = Vec::new();
    workload
        .tree
        .path_into(workload.requests[2].leaf, &mut path);
    assert!(path.contains(&workload.requests[0].leaf));
}

#[test]
fn agentic_mooncake_version_2() {
    let loaded = read(
        r#"{"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 4, "hash_id_scope": "local", "source": {"format": "weka", "digest": "x"}}
{"request_id": "join", "play_id": "p", "session_id": "s", "model": "m", "input_length": 9, "output_length": 2, "hash_ids": [1, 2, 3], "not_before_ms": 0.0, "dependencies": [{"request_id": "child", "trigger": "completion", "delay_ms": 5.0, "relation": "join"}, {"request_id": "root", "trigger": "completion", "delay_ms": 1.0, "relation": "sequence"}]}
{"request_id": "root", "play_id": "p", "session_id": "s", "model": "m", "input_length": 8, "output_length": 2, "hash_ids": [1, 2], "not_before_ms": 10.0, "priority": -4}
{"request_id": "child", "play_id": "p", "session_id": "c", "model": "m", "input_length": 4, "output_length": 1, "hash_ids": [1], "not_before_ms": 0.0, "dependencies": [{"request_id": "root", "trigger": "dispatch", "delay_ms": 3.5, "relation": "spawn"}]}
"#,
    );
    assert_eq!(
        (loaded.format, loaded.warnings),
        (Format::AgenticMooncake, vec![])
    );
    let trace = loaded.trace;
    assert_eq!(trace.block_size, 4);
    // root 10; child 10 + 3.5; join max(13.5 + 5, 10 + 1).
    assert_eq!(arrivals_ms(&trace), [10.0, 13.5, 18.5]);
    assert_eq!(
        trace.rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        [3, 4, 2]
    );
    assert_eq!(waits(&trace, 1), [after(0, Trigger::Dispatch, 3.5)]);
    assert_eq!(
        waits(&trace, 2),
        [
            after(1, Trigger::Completion, 5.0),
            after(0, Trigger::Completion, 1.0)
        ]
    );
    assert_eq!(trace.rows[0].priority, 4);
    assert_eq!(trace.rows[0].session, trace.rows[2].session);
}

#[test]
fn agentic_mooncake_of_the_flat_form() {
    let loaded = read(
        r#"{"request_id": "a", "timestamp": 50, "input_length": 512, "output_length": 2, "hash_ids": [1], "branches": ["b"]}
{"request_id": "b", "timestamp": 60, "wait_for": ["a"], "delay": 2, "tool_wait_ms": 30, "input_length": 512, "output_length": 2, "hash_ids": [1], "prefix_reset": true}
"#,
    );
    assert_eq!(
        (loaded.format, loaded.warnings),
        (Format::AgenticMooncake, vec![])
    );
    // The timestamp of a row that waits does not count: 50 + 2 + 30.
    assert_eq!(arrivals_ms(&loaded.trace), [50.0, 82.0]);
    assert_eq!(
        waits(&loaded.trace, 1),
        [after(0, Trigger::Completion, 32.0)]
    );
}

/// A `request_end` record of 4 prompt tokens in one block.
fn request_end(id: &str, start_ms: u64, total_ms: u64, agent: &str) -> String {
    let end = 1_700_000_000_000 + start_ms + total_ms;
    let start = 1_700_000_000_000 + start_ms;
    format!(
        r#"{{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":{end},"event_source":"dynamo"{agent},"request":{{"request_id":"{id}","model":"m","output_tokens":2,"request_received_ms":{start},"total_time_ms":{total_ms},"replay":{{"trace_block_size":4,"input_length":4,"input_sequence_hashes":[11]}}}}}}"#
    )
}

#[test]
fn dynamo_request_trace() {
    let wrapped = format!(
        r#"{{"timestamp": 5, "event": {}}}"#,
        request_end("b", 0, 90, "")
    );
    let payload =
        r#"{"schema":"dynamo.request.trace.v1","event_type":"request_payload","payload":{"x":1}}"#;
    let text = format!("{}\n{payload}\n{wrapped}\n", request_end("a", 40, 10, ""));
    let loaded = read(&text);
    // Records are written at the end of requests: no warning about their order.
    assert_eq!((loaded.format, loaded.warnings), (Format::Dynamo, vec![]));
    assert_eq!(arrivals_ms(&loaded.trace), [0.0, 40.0]);
    assert_eq!(loaded.trace.block_size, 4);
    assert_eq!(blocks(&loaded.trace), [[0], [0]]);
    assert_eq!(loaded.trace.dependencies, []);
}

#[test]
fn dynamo_request_trace_of_agents() {
    let root = r#","agent_context":{"session_id":"root","agent":"x"}"#;
    let child = r#","agent_context":{"session_id":"child","parent_session_id":"root"}"#;
    let text = [
        request_end("r1", 0, 100, root),
        request_end("c1", 20, 30, child),
        request_end("c2", 60, 100, child),
        request_end("r2", 130, 10, root),
        request_end("r3", 200, 10, root),
    ]
    .join("\n");
    let loaded = read(&text);
    assert_eq!(loaded.warnings, []);
    let trace = loaded.trace;
    assert_eq!(arrivals_ms(&trace), [0.0, 20.0, 30.0, 30.0, 90.0]);
    assert_eq!(
        trace.rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    // As if requests took no time: r3 at max(30 + 60, 30 + 40).
    // c1 was sent while r1 was running; c2 10 ms after c1 was done; r2 30 ms after r1; r3 60 ms after r2 and, as the
    // first one of its session after the child was done at 160, 40 ms after c2.
    assert_eq!(waits(&trace, 1), [after(0, Trigger::Dispatch, 20.0)]);
    assert_eq!(waits(&trace, 2), [after(1, Trigger::Completion, 10.0)]);
    assert_eq!(waits(&trace, 3), [after(0, Trigger::Completion, 30.0)]);
    assert_eq!(
        waits(&trace, 4),
        [
            after(3, Trigger::Completion, 60.0),
            after(2, Trigger::Completion, 40.0)
        ]
    );
}

#[test]
fn bailian() {
    let loaded = read(
        r#"{"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 20, "output_length": 132, "type": "text", "turn": 1, "hash_ids": [1089, 1090]}
{"chat_id": 160, "parent_chat_id": 159, "timestamp": 62.5, "input_length": 33, "output_length": 8, "type": "text", "turn": 2, "hash_ids": [1089, 1091, 1092]}
{"chat_id": 161, "parent_chat_id": 7, "timestamp": 63, "input_length": 1, "output_length": 8, "type": "file", "turn": 3, "hash_ids": [5]}
"#,
    );
    assert_eq!(loaded.format, Format::Bailian);
    let trace = loaded.trace;
    assert_eq!(trace.block_size, 16);
    assert_eq!(arrivals_ms(&trace), [61_114.0, 62_500.0, 63_000.0]);
    assert_eq!(waits(&trace, 1), [after(0, Trigger::Completion, 0.0)]);
    assert_eq!(waits(&trace, 2), []);
    assert_eq!(
        trace.rows.iter().map(|row| row.session).collect::<Vec<_>>(),
        [0, 0, 1]
    );
    let [warning] = &loaded.warnings[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(
        (warning.kind, warning.count, warning.first.line),
        (WarningKind::MissingParents, 1, 3)
    );
}

#[test]
fn sharegpt_with_token_ids() {
    let loaded = read(
        r#"{"input_toks": 3, "output_toks": 2, "arrival_time_ns": 46926808, "input_tok_ids": [7, 8, 9], "output_tok_ids": [1, 2]}
{"input_toks": 128, "output_toks": 512, "arrival_time_ns": 46926809}
"#,
    );
    assert_eq!((loaded.format, loaded.warnings), (Format::ShareGpt, vec![]));
    let trace = loaded.trace;
    assert_eq!(trace.rows[0].arrival, Time::from_ns(46_926_808));
    assert_eq!(trace.prompt_tokens(&trace.rows[0]), [7, 8, 9]);
    assert_eq!(trace.answer_tokens(&trace.rows[0]), [1, 2]);
    assert_eq!(trace.rows[1].content, Content::Private);
}

#[test]
fn sharegpt_sessions_chain_their_calls() {
    let loaded = read(
        r#"{"session_id": "task-0", "arrival_time_ns": 1000000, "sub_requests": [{"input_toks": 2, "output_toks": 2, "tool_duration_ns": 5000000, "input_tok_ids": [1, 2], "output_tok_ids": [3, 4]}, {"input_toks": 5, "output_toks": 1, "tool_duration_ns": 0, "input_tok_ids": [1, 2, 3, 4, 5], "output_tok_ids": [6]}, {"input_toks": 3, "output_toks": 1, "input_tok_ids": [1, 2, 9]}]}
{"arrival_time_ns": 0, "sub_requests": [{"input_toks": 10, "output_toks": 1, "tool_duration_ns": 1000000}, {"input_toks": 20, "output_toks": 1}]}
"#,
    );
    assert_eq!(loaded.format, Format::ShareGpt);
    // The second session is earlier: sorted, with a warning.
    let [warning] = &loaded.warnings[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(
        (warning.kind, warning.count, warning.first.line),
        (WarningKind::UnsortedRows, 1, 2)
    );
    let trace = loaded.trace;
    assert_eq!(arrivals_ms(&trace), [0.0, 1.0, 1.0, 6.0, 6.0]);
    assert_eq!(lengths(&trace), [(10, 1), (2, 2), (20, 1), (5, 1), (3, 1)]);
    assert_eq!(waits(&trace, 2), [after(0, Trigger::Completion, 1.0)]);
    assert_eq!(waits(&trace, 3), [after(1, Trigger::Completion, 5.0)]);
    assert_eq!(waits(&trace, 4), [after(3, Trigger::Completion, 0.0)]);
    // The second call quotes prompt and answer of the first one, the third does not.
    assert_eq!(
        trace.rows.iter().map(|row| row.extends).collect::<Vec<_>>(),
        [None, None, None, Some(1), None]
    );
    assert_eq!(trace.prompt_tokens(&trace.rows[3]), [5]);
    assert_eq!(trace.prompt_tokens(&trace.rows[4]), [1, 2, 9]);
    assert_eq!(trace.rows[1].session, trace.rows[4].session);
    assert_ne!(trace.rows[0].session, trace.rows[1].session);
    assert_eq!(trace.workload().requests.len(), 5);
}

#[test]
fn azure() {
    let loaded = read(
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319601,3180,8",
    );
    assert_eq!((loaded.format, loaded.warnings), (Format::Azure, vec![]));
    assert_eq!(lengths(&loaded.trace), [(4808, 10), (3180, 8)]);
    // Counted from the first row: 18:17:04.0319601 − 18:17:03.9799600.
    assert_eq!(loaded.trace.rows[1].arrival, Time::from_ns(52_000_100));
    assert_eq!(loaded.trace.rows[0].content, Content::Private);
}

#[test]
fn burst_gpt() {
    let loaded = read(
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
         5,1,2.5,ChatGPT,472,18,490,Conversation log\n\
         45,,1,ChatGPT,1087,0,1087,API log\n\
         118,1,3,GPT-4,417,276,693,Conversation log\n",
    );
    assert_eq!(loaded.format, Format::BurstGpt);
    assert_eq!(lengths(&loaded.trace), [(472, 18), (417, 276)]);
    assert_eq!(arrivals_ms(&loaded.trace), [0.0, 113_000.0]);
    assert_eq!(loaded.trace.sessions, 1);
    let [warning] = &loaded.warnings[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(
        (warning.kind, warning.count, warning.first.line),
        (WarningKind::FailedRequests, 1, 3)
    );
}

#[test]
fn plain_csv_under_many_names() {
    for (text, arrival_ms) in [
        ("arrival_s,input,output\n0.25,100,20\n", 250.0),
        (
            "\"Arrival_ms\", Input_Tokens ,osl\n0.25, 100 ,\"20\"\n",
            0.25,
        ),
        (
            "arrived_at,num_prefill_tokens,num_decode_tokens\n1,100,20\n",
            1000.0,
        ),
        (
            "output_length,arrival_ns,prompt_tokens\n20,1e6,100.0\n",
            1.0,
        ),
    ] {
        let loaded = read(text);
        assert_eq!(
            (loaded.format, loaded.warnings),
            (Format::Csv, vec![]),
            "{text}"
        );
        assert_eq!(lengths(&loaded.trace), [(100, 20)], "{text}");
        assert_eq!(arrivals_ms(&loaded.trace), [arrival_ms], "{text}");
    }
    let loaded = read(
        "request_id,request_type,arrival_timestamp,prompt_size,token_size,priority,session_id,note\n\
         0,2,0.5,10,1,-3,a,\"x, \"\"y\"\"\"\n1,2,0.5,10,1,4,a,\n",
    );
    assert_eq!(
        loaded
            .trace
            .rows
            .iter()
            .map(|row| row.priority)
            .collect::<Vec<_>>(),
        [-3, 4]
    );
    assert_eq!(loaded.trace.sessions, 1);
    assert_eq!(loaded.warnings[0].names, ["request_type", "note"]);
}

#[test]
fn rows_say_where_they_want_to_go() {
    let loaded = read(
        r#"{"timestamp": 0, "input_length": 5, "output_length": 1, "backend_instance_id": 3, "strict_priority": 2}
{"timestamp": 0, "input_length": 5, "output_length": 1}
{"timestamp": 0, "input_length": 5, "output_length": 1, "nvext": {"decode_worker_id": 1, "prefill_worker_id": 0, "agent_hints": {"priority": 4, "strict_priority": 1, "speculative_prefill": true}}}
{"timestamp": 0, "input_length": 5, "output_length": 1, "policy_class": "vip", "routing_constraints": {"required_taints": ["b", "a", "b"], "preferred_taints": {"x": 0.5, "c": -1}}}
"#,
    );
    assert_eq!(loaded.warnings, []);
    let trace = &loaded.trace;
    let said = |row| trace.annotations_of(row).unwrap();
    assert_eq!(
        (said(0).workers.whole, said(0).strict_priority),
        (Some(3), 2)
    );
    assert_eq!(trace.annotations_of(1), None);
    let workers = said(2).workers;
    assert_eq!(
        (workers.prefill, workers.decode, workers.whole),
        (Some(0), Some(1), None)
    );
    assert_eq!((said(2).strict_priority, trace.rows[2].priority), (1, -4));
    assert!(said(2).speculative_prefill && !said(3).speculative_prefill);
    assert_eq!(said(3).required_taints, ["a", "b"]);
    assert_eq!(
        said(3).preferred_taints,
        [("c".to_owned(), -1.0), ("x".to_owned(), 0.5)]
    );
    assert_eq!(said(3).policy_class.as_deref(), Some("vip"));
}

#[test]
fn a_csv_says_where_rows_want_to_go() {
    let loaded = read(
        "arrival_s,input,output,backend_instance_id,required_taints,strict_priority\n0,5,1,2,b; a,\n1,5,1,,,7\n2,5,1,,,\n",
    );
    assert_eq!(loaded.warnings, []);
    let said = |row| loaded.trace.annotations_of(row);
    assert_eq!(said(0).unwrap().workers.whole, Some(2));
    assert_eq!(said(0).unwrap().required_taints, ["a", "b"]);
    assert_eq!(said(1).unwrap().strict_priority, 7);
    assert_eq!(said(2), None);
}

#[test]
fn what_rows_say_badly_is_told() {
    let options = ReadOptions::default();
    let text = r#"{"timestamp": 0, "input_length": 5, "output_length": 1, "backend_instance_id": -1, "routing_constraints": {"required_taints": "gold", "preferred_taints": {"a": "b"}}}
{"timestamp": 0, "input_length": 5, "output_length": 1, "nvext": [], "policy_class": ""}
"#;
    let told = parse(text.as_bytes(), "sample", &options)
        .unwrap_err()
        .to_string();
    for part in [
        "sample:1: backend_instance_id: found `-1`, expected the number of a worker",
        "sample:1: required_taints: found `\"gold\"`, expected a list of labels",
        "sample:1: preferred_taints: found `{\"a\": \"b\"}`, expected labels and their weights",
        "sample:2: nvext: found `[]`, expected an object",
        "sample:2: policy_class: found `\"\"`, expected a name",
    ] {
        assert!(told.contains(part), "no {part} in: {told}");
    }
    let text = "arrival_s,input,output,backend_instance_id,required_taints\n0,5,1,x,;\n";
    let told = parse(text.as_bytes(), "t", &options)
        .unwrap_err()
        .to_string();
    for part in [
        "t:2: backend_instance_id: found `x`",
        "t:2: required_taints: found `;`",
    ] {
        assert!(told.contains(part), "no {part} in: {told}");
    }
}

#[test]
fn unknown_keys_are_counted_and_named_once() {
    let loaded = read(
        r#"{"timestamp": 0, "input_length": 5, "output_length": 1, "output_token_ids": [1], "zzz": {"a": [1]}}
{"timestamp": 0, "input_length": 5, "output_length": 1, "output_token_ids": [2]}
"#,
    );
    let [warning] = &loaded.warnings[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(
        (warning.kind, warning.count, warning.first.line),
        (WarningKind::UnknownKeys, 3, 1)
    );
    assert_eq!(warning.names, ["output_token_ids", "zzz"]);
    assert_eq!(
        warning.to_string(),
        "sample:1: 3 values of unknown keys (output_token_ids, zzz): skipped"
    );
}

#[test]
fn unsorted_rows_are_sorted_stably_with_one_warning() {
    let loaded = read("arrival_s,input,output\n2,1,1\n1,2,1\n2,3,1\n1,4,1\n0,5,1\n");
    assert_eq!(
        lengths(&loaded.trace),
        [(5, 1), (2, 1), (4, 1), (1, 1), (3, 1)]
    );
    let [warning] = &loaded.warnings[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(
        (warning.kind, warning.count, warning.first.line),
        (WarningKind::UnsortedRows, 3, 3)
    );
}

#[test]
fn a_file_without_times_is_for_closed_loops() {
    let loaded = read(
        "{\"input_length\": 5, \"output_length\": 1}\n{\"input_length\": 6, \"output_length\": 1}\n",
    );
    assert_eq!(arrivals_ms(&loaded.trace), [0.0, 0.0]);
    let [warning] = &loaded.warnings[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert_eq!(
        (warning.kind, warning.count, warning.first.line),
        (WarningKind::NoTimestamps, 2, 1)
    );
}

#[test]
fn epochs_count_from_the_earliest_row() {
    let loaded = read(
        r#"{"timestamp": 1753780607550.5, "input_length": 5, "output_length": 1}
{"timestamp": 1753780607560, "input_length": 5, "output_length": 1}"#,
    );
    assert_eq!(arrivals_ms(&loaded.trace), [0.0, 9.5]);
}

#[test]
fn names_of_formats_are_read_back() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert!(
        "weka"
            .parse::<Format>()
            .unwrap_err()
            .contains("mooncake-delta")
    );
}
