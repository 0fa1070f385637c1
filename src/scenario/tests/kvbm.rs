//! Tiers below the GPU's KV cache.

use super::{bad, good};
use engine::Span;
use sim::kvbm::spec::{Medium, OffloadPolicy, Speed, TierSpec};
use sim::kvbm::{Eviction, FilterSpec, KvbmSpec};

const TEXT: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
pools:
  - name: agg
    parallel: {tp: 2}
    kvbm: {cpu_cache_gb: 64, pcie_gb_per_s: 50, disk_cache_override_num_blocks: 90000, disk_eviction: ttl, disk_ttl_s: 60,
           disk_read_gb_per_s: 12, disk_write_gb_per_s: 6, offload: on_evict}
workload: {trace: {path: trace.jsonl}}
";

#[test]
fn tiers_are_read() {
    let us = |us: u64| Span::from_ns(us * 1_000);
    let speed = |read: u64, write: u64, latency: Span| Speed {
        read_bytes_per_s: read * 1_000_000_000,
        write_bytes_per_s: write * 1_000_000_000,
        read_latency: latency,
        write_latency: latency,
    };
    let host = TierSpec {
        medium: Medium::Host,
        // 64 GB of blocks of 16 x 131,072 bytes.
        blocks: 30_517,
        eviction: Eviction::Lru,
        filter: None,
    };
    let disk = TierSpec {
        medium: Medium::Disk(speed(12, 6, us(100))),
        blocks: 90_000,
        eviction: Eviction::Ttl(Span(60_000_000_000_000)),
        filter: Some(FilterSpec::default()),
    };
    let expected = KvbmSpec {
        tiers: vec![host, disk],
        // Of two GPUs.
        pcie: speed(100, 100, us(1)),
        offload: OffloadPolicy::OnEvict,
        prefetch: false,
        workers_per_node: 4,
        kv_bytes_per_token: 131_072,
    };
    assert_eq!(good(TEXT, &[]).pools[0].kvbm, Some(expected));
}

#[test]
fn no_size_is_no_tier() {
    let none = [
        ("pools.agg.kvbm.cpu_cache_gb", "0"),
        ("pools.agg.kvbm.disk_cache_override_num_blocks", "null"),
        ("pools.agg.kvbm.disk_cache_gb", "0"),
    ];
    assert_eq!(good(TEXT, &none).pools[0].kvbm, None);
}

#[test]
fn a_tier_no_larger_than_the_one_above_is_pointed_out() {
    let through = ("pools.agg.kvbm.offload", "write-through");
    let large = [through, ("pools.agg.kvbm.cpu_cache_gb", "170")];
    assert_eq!(good(TEXT, &large).pools[0].useless_tiers(), [""; 0]);
    assert_eq!(good(TEXT, &[]).pools[0].useless_tiers(), [""; 0]);
    let useless = good(TEXT, &[through]).pools[0].useless_tiers();
    assert_eq!(useless.len(), 1, "{useless:?}");
    assert!(
        useless[0].contains("host tier of 30517 blocks"),
        "{useless:?}"
    );
}

#[test]
fn weights_of_tiers_need_tiers() {
    let set = [
        ("pools", "[{name: agg}]"),
        ("router", "{mode: kv, host_cache_hit_weight: 0.5}"),
    ];
    let problems = bad(TEXT, &set);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("a weight of tiers that no pool has"));
    let with = [("router", "{mode: kv, host_cache_hit_weight: 0.5}")];
    let sim::RouterSpec::Kv(kv) = good(TEXT, &with).router else {
        panic!("a kv router");
    };
    assert_eq!(kv.weights.host_cache_hit_weight, 0.5);
}

#[test]
fn tiers_beside_stages_are_refused() {
    let stages = [
        ("pools.agg.parallel.pp", "2"),
        ("pools.agg.kvbm.offload", "write_through"),
    ];
    let problems = bad(TEXT, &stages);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("tiers beside pp, dp or speculative_config"));
}

#[test]
fn nobody_foresees_fetches() {
    let problems = bad(TEXT, &[("router", "{mode: clairvoyant}")]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("a clairvoyant router over workers with kvbm"));
}
