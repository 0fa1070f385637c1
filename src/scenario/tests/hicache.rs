//! Host memory below SGLang's radix cache.

use super::{bad, good};
use ::engine::{HostPool, Span, WritePolicy};
use sim::HostSpec;
use sim::host::PrefetchPolicy;
use sim::kvbm::Speed;

const TEXT: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
engine: {backend: sglang, max_total_tokens: 100000}
pools:
  - name: agg
    parallel: {tp: 2}
    hicache: {hicache_write_policy: write_back, pcie_gb_per_s: 50}
workload: {trace: {path: trace.jsonl}}
";

#[test]
fn host_memory_is_read() {
    let speed = Speed {
        // Of two GPUs.
        read_bytes_per_s: 100_000_000_000,
        write_bytes_per_s: 100_000_000_000,
        read_latency: Span::from_ns(1_000),
        write_latency: Span::from_ns(1_000),
    };
    let expected = HostSpec {
        pool: HostPool {
            tokens: 200_000,
            write_policy: WritePolicy::WriteBack,
            has_storage: false,
        },
        pcie: speed,
        kv_bytes_per_token: 131_072,
        layers: 32,
        storage: None,
    };
    assert_eq!(good(TEXT, &[]).pools[0].host, Some(expected));
}

#[test]
fn a_size_is_each_ranks() {
    let size = [("pools.agg.hicache.hicache_size", "10")];
    let host = good(TEXT, &size).pools[0].host.clone();
    // 2 x 10^10 / 131,072.
    assert_eq!(host.map(|it| it.pool.tokens), Some(152_587));
}

#[test]
fn a_storage_is_read() {
    let set = [
        ("pools.agg.hicache.storage_gb", "1000"),
        ("pools.agg.hicache.storage_read_gb_per_s", "20"),
        ("pools.agg.hicache.storage_write_gb_per_s", "10"),
        (
            "pools.agg.hicache.hicache_storage_prefetch_policy",
            "timeout",
        ),
        ("pools.agg.hicache.prefetch_timeout_per_ki_token", "0.5"),
    ];
    let storage = good(TEXT, &set).pools[0]
        .host
        .clone()
        .unwrap()
        .storage
        .unwrap();
    // 10^12 bytes of pages of one token of 131,072 bytes.
    assert_eq!((storage.pages, storage.threshold_tokens), (7_629_394, 256));
    assert_eq!(storage.speed.read_bytes_per_s, 20_000_000_000);
    assert_eq!(storage.speed.write_latency, Span::from_ns(1_000_000));
    let timeout = PrefetchPolicy::Timeout {
        base: Span::from_ns(1_000_000_000),
        per_ki_token: Span::from_ns(500_000_000),
    };
    assert_eq!(storage.policy, timeout);
}

#[test]
fn it_can_be_switched_off() {
    let off = [("pools.agg.hicache.enable_hierarchical_cache", "false")];
    assert_eq!(good(TEXT, &off).pools[0].host, None);
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (field, value, expected) in [
        (
            "pools.agg.hicache.hicache_ratio",
            "1",
            "more than the GPU's pool of 100000",
        ),
        (
            "engine.disable_radix_cache",
            "true",
            "HiCache without a radix cache",
        ),
        (
            "router",
            "{mode: clairvoyant}",
            "a clairvoyant router over workers with host memory of their own",
        ),
        (
            "pools.agg.hicache.hicache_mem_layout",
            "page_first",
            "not modelled yet",
        ),
        (
            "pools.agg.parallel",
            "{tp: 1, pp: 2}",
            "HiCache beside drafts, stages or ranks",
        ),
        (
            "pools.agg.hicache.prefetch_threshold",
            "10",
            "a setting of a storage that is not there",
        ),
        (
            "engine",
            "{backend: vllm}",
            "HiCache in an engine other than sglang",
        ),
    ] {
        let problems = bad(TEXT, &[(field, value)]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(expected), "{problems:?}");
    }
}

#[test]
fn a_secondary_pool_is_read() {
    let text = TEXT.replace("sglang, max_total_tokens", "trtllm, max_tokens");
    let text = text.replace(
        "hicache: {hicache_write_policy: write_back",
        "kv_cache_config: {host_cache_size: 10000000000",
    );
    let host = good(&text, &[]).pools[0].host.clone();
    let host = host.expect("it has host memory");
    // 2 x 10^10 / 131,072 in blocks of 32.
    assert_eq!((host.pool.tokens, host.layers), (152_576, 1));
    assert_eq!(host.pool.write_policy, WritePolicy::WriteBack);
    for (field, value, expected) in [
        (
            "engine.enable_block_reuse",
            "false",
            "a secondary pool without reuse",
        ),
        (
            "pools.agg.parallel",
            "{tp: 1, pp: 2}",
            "a secondary pool beside drafts, stages or ranks",
        ),
        (
            "engine",
            "{backend: vllm}",
            "in an engine other than trtllm",
        ),
        (
            "pools.agg.kv_cache_config.host_cache_size",
            "1000",
            "less than one block",
        ),
    ] {
        let problems = bad(&text, &[(field, value)]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(expected), "{problems:?}");
    }
}
