//! Options of the KV router on the command line: what they change, and what is refused.

use crate::program::{Folder, assert_contains, repository};

const POLICY: &str = "default_policy_family: chat
uncached_isl_buckets:
  - {min_tokens: 0, bucket: short}
  - {min_tokens: 8000, bucket: long}
policy_classes:
  - {name: short, policy_family: chat, cache_bucket: short, quantum: 4000, prefill_busy_threshold: 2000}
  - {name: long, policy_family: chat, cache_bucket: long, quantum: 1000, queue_policy: wspt, prefill_busy_threshold: 2000}
";

/// Prompts come in bursts of three seconds, so that queues fill.
fn prepared() -> Folder {
    let folder = Folder::with_scenario_and_trace();
    folder.write("policy.yaml", POLICY);
    folder
}

#[test]
fn routers_that_know_less_place_differently() {
    let folder = prepared();
    let run = |options: &[&str]| {
        let mut args = vec![
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--json",
        ];
        args.extend(["--set", "pools.agg.workers=2"]);
        args.extend(options.iter().flat_map(|option| ["--set", option]));
        let json = folder.json(&args);
        assert_eq!(json["requests"]["completed"], 40, "{json}");
        json["latency"]["ttft_ms"]["mean"].as_f64().unwrap()
    };
    let one = run(&[]);
    // What is told at once is as if there were one router.
    let told = ["router.replicas=3", "router.replica_sync=true"];
    assert_eq!(run(&told), one);
    let apart = run(&["router.replicas=3"]);
    assert_ne!(apart, one);
    assert_eq!(apart, run(&["router.replicas=3"]));
    assert_ne!(run(&["router.policy_config=policy.yaml"]), one);
    // With half of its reports the router believes in blocks that are gone; who asks for them hears the rest.
    let lossy = ["router.kv_event_loss=0.5", "router.kv_event_delay_ms=1"];
    let recovered = [lossy[0], lossy[1], "router.kv_event_recovery=true"];
    assert_ne!(run(&lossy), run(&recovered));
    assert_eq!(run(&recovered), run(&recovered));
    // Where prompts meet, one that is nearly done counts for little. Both names of the model are known.
    let busy = "workload.load.arrival_speedup_ratio=20";
    let timed = run(&[busy, "router.prefill_load_model=ais"]);
    assert_ne!(timed, run(&[busy]));
    assert_eq!(run(&[busy, "router.prefill_load_model=aic"]), timed);
    assert_eq!(run(&["router.prefill_load_model=none"]), one);
}

/// The example at a thousandth of its size.
#[test]
fn a_thousand_workers_take_a_thousand_requests() {
    let example = repository("examples/thousand-workers.yaml");
    let smaller = [
        "workload.synth.requests=1000",
        "workload.synth.duration_s=1.8",
    ];
    let mut args = vec!["replay", example.to_str().unwrap(), "--json"];
    args.extend(smaller.iter().flat_map(|option| ["--set", option]));
    let folder = Folder::new();
    let json = folder.json(&args);
    assert_eq!(json["requests"]["completed"], 1000);
    let router = ["--set", "router.router_temperature=0.000000001"];
    args.extend(router);
    // Next to nothing above 0, all workers are weighed; of equally cheap ones others are drawn.
    assert_eq!(folder.json(&args)["requests"]["completed"], 1000);
}

#[test]
fn routers_without_events_remember_by_time_or_size() {
    let folder = prepared();
    let run = |options: &[&str]| {
        let mut args = vec![
            "replay",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--json",
        ];
        args.extend([
            "--set",
            "router.use_kv_events=false",
            "--set",
            "engine.num_gpu_blocks=3000",
        ]);
        args.extend(options.iter().flat_map(|option| ["--set", option]));
        let json = folder.json(&args);
        assert!(
            json["requests"]["completed"].as_u64().unwrap() > 30,
            "{json}"
        );
        json["prefix"]["router_overlap_share"].as_f64().unwrap()
    };
    // With a time that is long enough nothing is forgotten; caches of this size forget some, a small tree most.
    let all = run(&["router.ttl_s=10000"]);
    let lru = run(&["router.approximate_cache_policy=lru"]);
    let pruned = run(&["router.ttl_s=10000", "router.max_tree_size=50"]);
    assert!(
        pruned < lru && pruned < all && lru > 0.0,
        "{all} {lru} {pruned}"
    );
    assert_eq!(
        run(&["router.ttl_s=10000", "router.max_tree_size=1000000"]),
        all
    );
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let folder = prepared();
    folder.write(
        "limits.yaml",
        POLICY.replace(
            "quantum: 4000",
            "quantum: 4000, request_queue_limit_per_worker: 3",
        ),
    );
    folder.write(
        "broken.yaml",
        POLICY
            .replace("quantum: 4000", "quantum: 0")
            .replace("cache_bucket: long", "cache_bucket: huge"),
    );
    let refused = |options: &[&str], parts: &[&str]| {
        let mut args = vec!["replay", "scenario.yaml", "--trace", "trace.jsonl"];
        args.extend(options.iter().flat_map(|option| ["--set", option]));
        assert_contains(&folder.refused(&args), parts);
    };
    refused(
        &["router.replica_sync=true", "router.kv_event_recovery=true"],
        &[
            "router.replica_sync: found replica_sync with one router, expected two routers or more",
            "router.kv_event_recovery: found recovery where nothing is lost",
        ],
    );
    refused(
        &[
            "router.replicas=2",
            "router.replica_sync_delay_ms=5",
            "router.queue_threshold=2",
        ],
        &["router.replica_sync_delay_ms: found a delay beside queue_threshold, expected 0"],
    );
    refused(
        &[
            "router.replicas=2",
            "router.replica_sync_delay_ms=5",
            "router.replica_sync=false",
        ],
        &["router.replica_sync_delay_ms: found a delay of what is not sent"],
    );
    refused(
        &[
            "router.policy_config=limits.yaml",
            "router.queue_policy=wspt",
        ],
        &[
            "router.queue_policy: found queue_policy beside policy_config",
            "router.policy_config: found limits.yaml: limits of what may wait in short, expected no limits",
        ],
    );
    refused(
        &["router.policy_config=broken.yaml"],
        &["quantum of short is 0", "unknown cache_bucket huge"],
    );
    refused(
        &["router.policy_config=nowhere.yaml", "router.replicas=0"],
        &[
            "router.policy_config: found nowhere.yaml:",
            "router.replicas: found `0`",
        ],
    );
    refused(
        &[
            "router.approximate_cache_policy=lru",
            "router.prune_target_ratio=0.5",
        ],
        &[
            "router.approximate_cache_policy: found what a router remembers of its own choices, beside events, expected use_kv_events: false",
            "router.prune_target_ratio: found a share alone, expected max_tree_size",
        ],
    );
    refused(
        &[
            "router.use_kv_events=false",
            "router.approximate_cache_policy=lru",
            "router.ttl_s=5",
            "router.max_tree_size=0",
        ],
        &[
            "router.ttl_s: found another limit beside approximate_cache_policy lru",
            "router.max_tree_size: found `0`",
        ],
    );
    refused(
        &[
            "router.track_output_blocks=true",
            "engine.speculative_config={method: ngram, num_speculative_tokens: 2, acceptance_rates: [0.5, 0.4]}",
        ],
        &["router.track_output_blocks: found it with drafts in pool agg"],
    );
    refused(
        &[
            "router.prefill_load_model=ais",
            "router.track_prefill_tokens=false",
            "router.shared_cache_type=hicache",
        ],
        &[
            "router.prefill_load_model: found a model of prefills that do not count, expected track_prefill_tokens",
            "router.shared_cache_type: found hicache without a storage in any pool, expected pools[].hicache.storage_gb",
        ],
    );
    refused(
        &[
            "router.prefill_load_model=aiconfigurator",
            "router.shared_cache_type=redis",
        ],
        &[
            "router.prefill_load_model: found `aiconfigurator`, expected one of none, ais, aic",
            "router.shared_cache_type: found `redis`, expected one of none, hicache",
        ],
    );
    refused(
        &["router.mode=random", "router.prefill_load_model=ais"],
        &["router.prefill_load_model: found an option of mode kv"],
    );
    refused(
        &["router.mode=random", "router.replicas=2"],
        &["router.replicas: found", "set router.mode to kv"],
    );
}
