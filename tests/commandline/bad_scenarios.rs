//! Wrong scenario files and options: everything that is wrong is said at once, with line and field, and nothing is written.
//! What each field may hold is tested beside the reader, `src/scenario/corpus`.

use crate::program::{Folder, SCENARIO, assert_contains};

/// Replays and sweeps the scenario, each of which must be refused with these words and leave nothing behind.
fn refused(content: &[u8], options: &[&str], parts: &[&str]) {
    let folder = Folder::with_scenario_and_trace();
    folder.write("scenario.yaml", content);
    let before = folder.names();
    for command in ["replay", "sweep"] {
        let args = [&[command, "scenario.yaml", "--out", "results"], options].concat();
        assert_contains(&folder.refused(&args), parts);
    }
    assert_eq!(folder.names(), before, "nothing was written");
}

#[test]
fn files_that_are_no_scenarios() {
    for (content, part) in [
        (
            b"".as_slice(),
            "scenario.yaml: found an empty file, expected a scenario",
        ),
        (b"{{{", "scenario.yaml:2:1: found broken YAML"),
        (
            b"seed: \xff\xfe",
            "scenario.yaml: found bytes that are not UTF-8, expected YAML",
        ),
        (
            b"hello",
            "scenario.yaml:1:1: found `hello`, expected named fields",
        ),
        (
            b"- 1\n- 2",
            "scenario.yaml:1:1: found a list, expected named fields",
        ),
        (
            b"seed: 1\nseed: 2",
            "scenario.yaml:2:1: found a name that was already given",
        ),
        (
            b"seed: 1",
            "scenario.yaml: workload.trace: found neither a trace nor a generator",
        ),
    ] {
        refused(content, &[], &[part]);
    }
}

#[test]
fn a_scenario_that_cannot_be_opened() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("folder.yaml")).unwrap();
    for (name, part) in [
        ("missing.yaml", "No such file"),
        ("folder.yaml", "Is a directory"),
    ] {
        for command in ["replay", "sweep"] {
            let stderr = folder.refused(&[command, name]);
            assert!(stderr.starts_with(&format!("{name}: {part}")), "{stderr}");
        }
    }
    assert_eq!(folder.names(), ["folder.yaml"]);
}

#[test]
fn all_problems_of_a_file_at_once() {
    let scenario = "schema_version: 2
modle: x
engine:
  blok_size: 16
  max_num_seqs: \"many\"
  max_num_batched_tokens: -5
  enable_prefix_caching: maybe
pools: [{name: agg, workers: 1.5}]
router: {mode: kvv}
workload: {trace: {path: trace.jsonl}, synth: {preset: quick}}
sla: {ttft_ms: -1, itl: 3}
kvbm: {}
";
    refused(
        scenario.as_bytes(),
        &[],
        &[
            "scenario.yaml:1:17: schema_version: found `2`, expected 1\n",
            "scenario.yaml:2:1: modle: found an unknown field, expected a known one; did you mean `model`?\n",
            "scenario.yaml:4:3: engine.blok_size: found an unknown field, expected a known one; did you mean `block_size`?\n",
            "scenario.yaml:5:17: engine.max_num_seqs: found `\"many\"`, expected a whole number",
            "scenario.yaml:6:27: engine.max_num_batched_tokens: found `-5`, expected a whole number",
            "scenario.yaml:7:26: engine.enable_prefix_caching: found `maybe`, expected true or false\n",
            "scenario.yaml:8:30: pools.agg.workers: found `1.5`, expected a whole number",
            "scenario.yaml:9:16: router.mode: found `kvv`, expected one of round-robin",
            "did you mean `kv`?",
            "scenario.yaml:10:47: workload.synth: found a generator beside a trace, expected one of the two",
            "scenario.yaml:11:16: sla.ttft_ms: found `-1`, expected a number above 0",
            "scenario.yaml:11:20: sla.itl: found an unknown field, expected a known one; did you mean `itl_ms`?\n",
            "scenario.yaml:12:7: kvbm: found a section, expected it as pools[].kvbm",
        ],
    );
}

#[test]
fn deployments_that_cannot_be() {
    let trace = "workload: {trace: {path: trace.jsonl}}\n";
    for (changes, parts) in [
        (
            "model=meta-llama/Llama-3.1-70B",
            [
                "pools.agg.parallel: found too little memory",
                "tp 2 would fit",
            ],
        ),
        (
            "pools.agg.parallel.tp=3",
            [
                "pools.agg.parallel.tp: found 3",
                "must divide the 32 attention heads",
            ],
        ),
        (
            "pools.agg.parallel.pp=0",
            ["pools.agg.parallel.pp: found `0`", "from 1 to 1024"],
        ),
        (
            "pools.agg.role=prefill",
            [
                "pools: found prefill pools alone",
                "expected a pool of role decode that goes on",
            ],
        ),
        (
            "engine.backend=mocker",
            [
                "engine.backend: found `mocker`",
                "one of vllm, sglang, trtllm",
            ],
        ),
        (
            "gpu=h1000",
            [
                "gpu: found `h1000`, expected a known GPU",
                "did you mean `h100_sxm`?",
            ],
        ),
    ] {
        refused(
            format!("{SCENARIO}{trace}").as_bytes(),
            &["--set", changes],
            &parts,
        );
    }
}

#[test]
fn handovers_that_cannot_be() {
    let pools = "pools: [{name: p, role: prefill}, {name: d, role: decode}]\n";
    let rest = "workload: {trace: {path: trace.jsonl}}\ntiming: {source: polynomial}\n";
    let network = "network: {preset: roce}\n";
    let size = "disaggregation: {kv_bytes_per_token: 131072}\n";
    for (scenario, parts) in [
        (
            format!("{pools}{size}"),
            [
                "network: found nothing",
                "how KV gets from prefill to decode workers",
            ],
        ),
        (
            format!("{pools}{network}"),
            [
                "disaggregation.kv_bytes_per_token: found nothing",
                "or a model",
            ],
        ),
        (
            format!("{pools}{size}network: {{gb_per_s: 0}}\n"),
            ["network.gb_per_s: found `0`", "a number above 0"],
        ),
        (
            format!("{pools}{size}network: {{latency_us: 5}}\n"),
            ["network.gb_per_s: found nothing", "or a preset"],
        ),
        (
            format!("{pools}{size}network: {{preset: infiband-ndr}}\n"),
            [
                "network.preset: found `infiband-ndr`",
                "did you mean `infiniband-ndr`?",
            ],
        ),
        (
            format!("pools: [{{name: d, role: decode}}]\n{size}{network}"),
            ["pools: found decode pools alone", "a pool of role prefill"],
        ),
        (
            format!(
                "pools: [{{name: p, role: prefill}}, {{name: d, role: decode}}, {{name: a}}]\n{size}{network}"
            ),
            [
                "pools: found pools of role aggregated beside others",
                "not modelled yet",
            ],
        ),
        (
            format!("pools: [{{name: a}}]\n{network}"),
            [
                "network: found a section that nothing uses",
                "pools of role prefill",
            ],
        ),
        (
            format!(
                "{pools}{network}disaggregation: {{kv_bytes_per_token: 1, conditional: isl-bounding}}\n"
            ),
            [
                "disaggregation.conditional: found isl-bounding with a router",
                "router.mode kv",
            ],
        ),
        (
            format!(
                "{pools}{network}disaggregation: {{kv_bytes_per_token: 1, max_local_tokens: 5}}\n"
            ),
            [
                "disaggregation.max_local_tokens: found a bound that no rule looks at",
                "isl-bounding",
            ],
        ),
        (
            format!("{pools}network: {{preset: roce, topology: {{gpus_per_nod: 8}}}}\n{size}"),
            [
                "network.topology.gpus_per_nod: found an unknown field",
                "did you mean `gpus_per_node`?",
            ],
        ),
        (
            format!("{pools}network: {{preset: roce, topology: {{nvlink: node}}}}\n{size}"),
            [
                "network.topology.gpus_per_node: found nothing",
                "or a preset",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce, topology: {{gpus_per_node: 1, nics_per_node: 0}}}}\n{size}"
            ),
            [
                "no link between p.0 on node 0 and d.0 on node 1",
                "or network cards",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: efa, topology: {{preset: hgx, nvlink: none}}}}\n{size}"
            ),
            [
                "whose EFA does not reach its own node",
                "on different nodes",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce, topology: {{gpus_per_node: 1, nodes: 1}}}}\n{size}"
            ),
            [
                "network.topology.nodes: found no room for worker d.0",
                "nodes enough",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce, topology: {{gpus_per_node: 1, placement: {{p: [0], d: [0]}}}}}}\n{size}"
            ),
            [
                "network.topology.placement: found worker d.0 of 1 GPUs on node 0",
                "nodes with room",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce, topology: {{gpus_per_node: 1, placement: {{p: [0, 1]}}}}}}\n{size}"
            ),
            [
                "network.topology.placement: found nothing",
                "the node of each of the 1 workers of pool d",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce, per_gpu: true, topology: {{preset: hgx}}}}\n{size}"
            ),
            [
                "network.per_gpu: found a speed by GPU beside a topology",
                "nics_per_node",
            ],
        ),
        (
            format!("{pools}network: {{preset: nvlink, topology: {{preset: hgx}}}}\n{size}"),
            [
                "network.preset: found nvlink beside a topology",
                "topology.nvlink",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce, topology: {{preset: hgx, leaf_oversubscription: 0}}}}\n{size}"
            ),
            [
                "network.topology.leaf_oversubscription: found `0`",
                "a number above 0",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce}}\ndisaggregation: {{kv_bytes_per_token: 1, kv_transfer_domain: rack}}\n"
            ),
            [
                "disaggregation.kv_transfer_domain: found racks of a network without places",
                "network.topology",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce, topology: {{preset: hgx}}}}\ndisaggregation: {{kv_bytes_per_token: 1, kv_transfer_domain: rack, kv_transfer_enforcement: preferred}}\n"
            ),
            [
                "disaggregation.kv_transfer_preferred_weight: found nothing",
                "0 to 1",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce}}\ndisaggregation: {{kv_bytes_per_token: 1, overlap: layer}}\n"
            ),
            [
                "disaggregation.overlap: found a transfer during the prefill",
                "order: destination-first",
            ],
        ),
        (
            format!(
                "{pools}network: {{preset: roce}}\ndisaggregation: {{kv_bytes_per_token: 1, order: destination-first, overlap: layer}}\n"
            ),
            ["disaggregation.layers: found nothing", "or a model"],
        ),
        (
            "model: meta-llama/Llama-3.1-8B\ngpu: h100_sxm\nnetwork: {preset: nvlink}\n\
             pools: [{name: p, role: prefill, workers: 5}, {name: d, role: decode, workers: 4}]\n"
                .to_owned(),
            [
                "network.preset: found nvlink between 9 GPUs",
                "at most the 8 GPUs",
            ],
        ),
    ] {
        refused(format!("{scenario}{rest}").as_bytes(), &[], &parts);
    }
}

#[test]
fn wrong_options_are_told_together() {
    let options = [
        ["--trace", "trace.jsonl"],
        ["--workers", "0"],
        ["--router", "rond-robin"],
        ["--block-size", "many"],
        ["--concurrency", "0"],
        ["--arrival-speedup-ratio", "nan"],
        ["--seed", "1.5"],
        ["--set", "engine.blok_size=3"],
    ];
    refused(
        SCENARIO.as_bytes(),
        &options.concat(),
        &[
            "pools.agg.workers: found `0`, expected a whole number from 1",
            "router.mode: found `rond-robin`",
            "did you mean `round-robin`?",
            "engine.block_size: found `many`",
            "workload.load.concurrency: found `0`",
            "workload.load.arrival_speedup_ratio: found `nan`",
            "seed: found `1.5`",
            "did you mean `block_size`?",
        ],
    );
    refused(
        SCENARIO.as_bytes(),
        &["--set", "seed"],
        &["--set seed: expected FIELD=VALUE"],
    );
}

#[test]
fn options_of_replay_are_told_with_the_rest() {
    let folder = Folder::with_scenario_and_trace();
    let args = [
        "replay",
        "scenario.yaml",
        "--live",
        "--window-s=-1",
        "--speedup",
        "1e300",
        "--seed",
        "x",
    ];
    assert_contains(
        &folder.refused(&args),
        &[
            "--window-s: found -1, expected a positive length",
            "expected a factor from 0.001 to 10000",
            "seed: found `x`",
            "workload.trace: found neither a trace nor a generator",
        ],
    );
    // A window so short that the series would not end is noticed before anything is written.
    for window in ["1e-300", "0.000001"] {
        let args = [
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--out",
            "results",
            "--window-s",
            window,
        ];
        assert_contains(
            &folder.refused(&args),
            &["--window-s: found 0.0", "into at most 1000000"],
        );
    }
    assert_eq!(folder.names(), ["scenario.yaml", "trace.jsonl"]);
}

#[test]
fn results_that_cannot_be_written() {
    let folder = Folder::with_scenario_and_trace();
    let before = folder.names();
    for out in ["trace.jsonl", "trace.jsonl/inside"] {
        for command in ["replay", "sweep"] {
            let stderr = folder.refused(&[
                command,
                "scenario.yaml",
                "--trace",
                "trace.jsonl",
                "--out",
                out,
            ]);
            assert!(stderr.starts_with(&format!("--out {out}: ")), "{stderr}");
        }
    }
    for args in [
        [
            "trace",
            "convert",
            "trace.jsonl",
            "--out",
            "nowhere/new.jsonl",
        ]
        .as_slice(),
        &[
            "trace",
            "describe",
            "trace.jsonl",
            "--plot",
            "nowhere/plot.png",
        ],
        &["trace", "describe", "trace.jsonl", "--plot", "plot.pdf"],
        &["trace", "synth", "--out", "nowhere/new.jsonl"],
    ] {
        let stderr = folder.refused(args);
        assert_contains(&stderr, &[args[args.len() - 1], "cannot"]);
    }
    assert_eq!(folder.names(), before);
}
