//! Random runs: nobody is lost, no block is kept, tiers hold what fits, and coasting changes nothing.

use crate::lives::{Arrival, cluster, kvbm, run, speed, tier, workload};
use engine::Span;
use engine::vllm::VllmConfig;
use proptest::prelude::*;
use sim::kvbm::spec::{Medium, OffloadPolicy, Speed, TierSpec};
use sim::kvbm::{Eviction, FilterSpec, KvbmSpec};
use sim::router::KvRouterSpec;
use sim::{Outcome, RouterSpec};

fn engine() -> impl Strategy<Value = VllmConfig> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (10u32..60, 1u32..6, 4u32..64, flags).prop_map(|(blocks, seqs, tokens, flags)| {
        let (is_async, chunks, reserves) = flags;
        VllmConfig {
            block_size: 4,
            num_gpu_blocks: blocks,
            max_num_seqs: seqs,
            max_num_batched_tokens: if chunks { tokens } else { 400 },
            max_model_len: 400,
            enable_chunked_prefill: chunks,
            scheduler_reserve_full_isl: reserves,
            async_scheduling: is_async,
            ..VllmConfig::default()
        }
    })
}

fn eviction() -> impl Strategy<Value = Eviction> {
    prop_oneof![
        Just(Eviction::Lru),
        Just(Eviction::Frequency),
        Just(Eviction::Priority),
        Just(Eviction::Ttl(Span::from_ns(20_000_000))),
    ]
}

fn slow(megabytes_per_s: u64) -> Speed {
    Speed {
        read_bytes_per_s: megabytes_per_s * 1_000_000,
        write_bytes_per_s: megabytes_per_s * 700_000,
        read_latency: Span::from_ns(20_000),
        write_latency: Span::from_ns(0),
    }
}

/// At least one tier.
fn tiers() -> impl Strategy<Value = Vec<TierSpec>> {
    let sizes = (1u64..40, 1u64..80, 1u64..200);
    let which = 1u8..8;
    (
        sizes,
        which,
        eviction(),
        eviction(),
        any::<bool>(),
        1u64..30,
    )
        .prop_map(|(sizes, which, upper, lower, filters, speed)| {
            let filter = filters.then_some(FilterSpec {
                min_frequency: 2,
                decay: Span::from_ns(5_000_000),
            });
            let all = [
                (Medium::Host, sizes.0, upper, None),
                (Medium::Disk(slow(speed)), sizes.1, lower, filter),
                (Medium::Object(slow(speed)), sizes.2, upper, None),
            ];
            let tier = |(_, (medium, blocks, eviction, filter))| TierSpec {
                medium,
                blocks,
                eviction,
                filter,
            };
            let chosen = all.into_iter().enumerate();
            chosen
                .filter(|(index, _)| which & (1 << index) != 0)
                .map(tier)
                .collect()
        })
}

fn router() -> impl Strategy<Value = RouterSpec> {
    let mut shared = KvRouterSpec::default();
    shared.weights.shared_cache_multiplier = 0.5;
    prop_oneof![
        Just(RouterSpec::RoundRobin),
        Just(RouterSpec::Kv(KvRouterSpec::default())),
        Just(RouterSpec::Kv(shared)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_lost_and_coasting_changes_nothing(
        engine in engine(),
        workers in 1u32..4,
        tiers in tiers(),
        on_evict in prop_oneof![4 => Just(false), 1 => Just(true)],
        pcie in prop_oneof![1u64..20, 1_000u64..100_000],
        router in router(),
        arrivals in prop::collection::vec(
            (prop_oneof![Just(0), 0u64..30_000], prop::collection::vec((0u64..4, 1u32..60), 1..4), 1u32..60),
            1..40,
        ),
    ) {
        let mut now = 0;
        let arrivals: Vec<Arrival> = arrivals.into_iter().map(|(gap, prompt, output)| {
            now += gap;
            (now, prompt, output)
        }).collect();
        let tiers = KvbmSpec {
            pcie: slow(pcie),
            offload: if on_evict { OffloadPolicy::OnEvict } else { OffloadPolicy::WriteThrough },
            kv_bytes_per_token: 1_000,
            prefetch: pcie % 2 == 0,
            ..kvbm(tiers)
        };
        let mut spec = cluster(workers, engine);
        spec.router = router;
        let workload = workload(&arrivals);
        let timing = || calibration::Linear::from_ns(500_000, 900, 13);
        let coasting = run(&spec, Some(tiers.clone()), timing(), &workload);
        spec.coasting = false;
        let stepping = run(&spec, Some(tiers), timing(), &workload);
        prop_assert_eq!(&coasting.requests, &stepping.requests);
        prop_assert_eq!(&coasting.workers, &stepping.workers);
        prop_assert_eq!(&coasting.kvbm, &stepping.kvbm);
        for (record, asked) in coasting.requests.iter().zip(&workload.requests) {
            match record.outcome {
                Outcome::Completed => prop_assert_eq!(record.output_tokens, asked.output_tokens),
                Outcome::Rejected(_) => {}
                Outcome::Unfinished => prop_assert!(false, "a request was left: {:?}", record),
            }
        }
        let kvbm = coasting.kvbm.expect("there are tiers");
        prop_assert!(kvbm.is_settled);
        // Host memory evicts what was read up into it, too.
        let raised: u64 = kvbm.tiers.iter().map(|tier| tier.prefetched_blocks).sum();
        for tier in &kvbm.tiers {
            prop_assert!(tier.peak_blocks <= tier.capacity_blocks);
            prop_assert!(tier.evicted_blocks <= tier.offloaded_blocks + raised);
        }
        let mut onboarded = 0;
        for fetch in &kvbm.fetches {
            let life = &coasting.requests[fetch.request.0 as usize];
            let tokens: u32 = fetch.tokens.iter().sum();
            onboarded += u64::from(tokens);
            prop_assert!(tokens > 0 && fetch.began < fetch.ended && fetch.worker.0 == life.worker);
            prop_assert!(tokens < life.input_tokens + life.output_tokens);
        }
        prop_assert_eq!(onboarded, 4 * kvbm.tiers.iter().map(|tier| tier.onboarded_blocks).sum::<u64>());
    }
}

#[test]
fn a_fast_host_beats_computing() {
    // Prompts of 200 tokens in turn that do not fit the cache together: with a host they are computed once.
    let arrivals: Vec<Arrival> = (0..30)
        .map(|index| (index * 40_000, vec![(index % 3, 200)], 2))
        .collect();
    let engine = VllmConfig {
        block_size: 4,
        num_gpu_blocks: 61,
        ..VllmConfig::default()
    };
    let timing = || calibration::Linear::from_ns(500_000, 100_000, 13);
    let spec = cluster(1, engine);
    let workload = workload(&arrivals);
    let host = KvbmSpec {
        pcie: speed(100),
        kv_bytes_per_token: 1_000,
        ..kvbm(vec![tier(Medium::Host, 200)])
    };
    let with = run(&spec, Some(host), timing(), &workload);
    let without = run(&spec, None, timing(), &workload);
    let computed = |recording: &sim::Recording| recording.workers[0].prefill_tokens;
    assert!(computed(&without) > 5_000, "{}", computed(&without));
    assert!(computed(&with) < 1_000, "{}", computed(&with));
}
