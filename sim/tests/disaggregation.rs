//! Prefill on one worker, decode on another: hand-computed lives, two measurements of real systems, and random runs in
//! which nobody is lost, no block is kept, and coasting changes nothing.

use engine::sglang::SglangConfig;
use engine::vllm::VllmConfig;
use engine::{EngineConfig, NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use proptest::prelude::*;
use sim::disaggregation::conditional::IslBounding;
use sim::disaggregation::{Conditional, DisaggregationSpec, HandoffOrder, Overlap, Role};
use sim::links::{NetworkSpec, Transport};
use sim::router::KvRouterSpec;
use sim::{
    Cluster, ClusterSpec, LoadSpec, Outcome, PoolSpec, Recording, RouterSpec, virtual_clock,
};
use std::sync::Arc;

/// Arrival (µs), prompt as (content, tokens), output tokens.
type Arrival = (u64, Vec<(u64, u32)>, u32);

fn workload(arrivals: &[Arrival]) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for (index, (at_us, segments, output_tokens)) in arrivals.iter().enumerate() {
        let run = |&(id, len): &(u64, u32)| Run {
            first: WorkloadBuilder::block_token(id as u32, 0),
            len,
        };
        let prompt: Vec<Run> = segments.iter().map(run).collect();
        builder.push(NewRequest {
            arrival: Time::from_ns(at_us * 1000),
            prompt: &prompt,
            output_tokens: *output_tokens,
            priority: 0,
            session: index as u32,
            dependencies: &[],
        });
    }
    Arc::new(builder.finish())
}

fn vllm() -> VllmConfig {
    VllmConfig {
        async_scheduling: false,
        ..VllmConfig::default()
    }
}

fn pool(name: &str, workers: u32, engine: VllmConfig) -> PoolSpec {
    PoolSpec {
        name: name.to_owned(),
        workers,
        gpus_per_worker: 1,
        engine: engine.into(),
    }
}

/// 1 GB/s, 1 ms, 2 ms of handshake.
const NETWORK: NetworkSpec = NetworkSpec {
    bytes_per_s: 1_000_000_000,
    per_gpu: false,
    core_bytes_per_s: None,
    latency: Span::from_ns(1_000_000),
    setup: Span::from_ns(2_000_000),
};

fn disaggregation() -> DisaggregationSpec {
    DisaggregationSpec {
        roles: vec![Role::Prefill, Role::Decode],
        order: HandoffOrder::SourceFirst,
        conditional: None,
        network: NETWORK,
        overlap: Overlap::Chunk,
        topology: None,
        domain: None,
        kv_bytes_per_token: 1_000_000,
        failure_rate: 0.0,
    }
}

fn cluster(disaggregation: DisaggregationSpec, engine: VllmConfig) -> ClusterSpec {
    ClusterSpec {
        pools: vec![
            pool("prefill", 1, engine.clone()),
            pool("decode", 1, engine),
        ],
        disaggregation: Some(disaggregation),
        router: RouterSpec::RoundRobin,
        load: LoadSpec::default(),
        frontend: sim::FrontendSpec::default(),
        seed: 3,
        coasting: true,
        track_block_ids: false,
    }
}

fn run(spec: &ClusterSpec, timing: calibration::Linear, workload: &Arc<Workload>) -> Recording {
    let timing: Arc<dyn StepTime> = Arc::new(timing);
    let timing = vec![timing; spec.pools.len()];
    virtual_clock::run(Cluster::new(spec, workload.clone()), &timing)
}

/// Every step 1 ms.
fn one_ms() -> calibration::Linear {
    calibration::Linear::from_ns(1_000_000, 0, 0)
}

fn ms(time: Time) -> f64 {
    time.as_ms()
}

#[test]
fn a_life_between_two_workers() {
    // 100 tokens are 7 blocks of 16: 112 MB. Prefill 0-1 ms; handshake 2 ms, latency 1 ms, 112 ms at 1 GB/s: 116 ms. The
    // decode worker computes the last prompt token again, 117 ms, and nine more tokens until 126 ms.
    let workload = workload(&[(0, vec![(1, 100)], 10)]);
    let recording = run(&cluster(disaggregation(), vllm()), one_ms(), &workload);
    let life = recording.requests[0];
    assert_eq!(life.outcome, Outcome::Completed);
    assert_eq!(
        [life.first_scheduled, life.first_token, life.finish].map(ms),
        [0.0, 117.0, 126.0]
    );
    assert_eq!((life.worker, life.output_tokens), (1, 10));
    let transfer = recording.transfers[0];
    let times = [
        transfer.prefilled,
        transfer.reserved,
        transfer.began,
        transfer.ended,
    ];
    assert_eq!(times.map(ms), [1.0, 1.0, 1.0, 116.0]);
    assert_eq!((transfer.bytes, transfer.hit_tokens), (112_000_000, 0));
    let steps: Vec<u64> = recording.workers.iter().map(|it| it.steps).collect();
    assert_eq!(steps, [1, 10]);
}

#[test]
fn only_what_the_decode_worker_lacks_is_moved() {
    // The second prompt shares six whole blocks of 16 with the first: one block is moved, 16 MB in 16 ms and 1 ms of
    // latency; the two workers know each other by then.
    let workload = workload(&[(0, vec![(1, 100)], 2), (500_000, vec![(1, 100)], 2)]);
    let recording = run(&cluster(disaggregation(), vllm()), one_ms(), &workload);
    let second = recording.transfers[1];
    assert_eq!((second.hit_tokens, second.bytes), (96, 16_000_000));
    assert_eq!(
        [second.prefilled, second.ended].map(ms),
        [501.0, 501.0 + 17.0]
    );
}

#[test]
fn the_prefill_worker_keeps_its_blocks_until_they_are_read() {
    // Eight usable blocks: the second prompt of 7 blocks cannot start before the first is read, at 116 ms.
    let engine = VllmConfig {
        num_gpu_blocks: 9,
        ..vllm()
    };
    let mut spec = cluster(disaggregation(), engine);
    spec.pools[1] = pool("decode", 1, vllm());
    let workload = workload(&[(0, vec![(1, 100)], 2), (0, vec![(2, 100)], 2)]);
    let recording = run(&spec, one_ms(), &workload);
    assert_eq!(ms(recording.requests[1].first_scheduled), 116.0);
    assert_eq!(ms(recording.transfers[1].prefilled), 117.0);
}

#[test]
fn the_decode_worker_reserves_before_it_pulls() {
    // Its eight usable blocks hold one prompt at a time. The first request decodes until 126 ms (see above); only then
    // are the blocks of the second reserved, and its transfer of 113 ms begins.
    let engine = VllmConfig {
        num_gpu_blocks: 9,
        ..vllm()
    };
    let mut spec = cluster(disaggregation(), engine);
    spec.pools[0] = pool("prefill", 1, vllm());
    let workload = workload(&[(0, vec![(1, 100)], 10), (0, vec![(2, 100)], 10)]);
    let recording = run(&spec, one_ms(), &workload);
    let second = recording.transfers[1];
    assert_eq!(
        [second.prefilled, second.reserved, second.ended].map(ms),
        [1.0, 126.0, 126.0 + 113.0]
    );
}

#[test]
fn chunks_move_while_the_next_are_computed_if_blocks_came_first() {
    // Chunks of 32 tokens, 1 ms each, of a prompt of 100: 32, 64, 96, 100. Destination first: the first 32 MB leave at
    // 1 ms and take 3 ms besides (handshake, latency), until 36 ms; by then all is computed, and the other 80 MB take
    // 81 ms, until 117 ms. Source first begins at 4 ms and takes 115 ms, until 119 ms.
    let engine = VllmConfig {
        max_num_batched_tokens: 32,
        ..vllm()
    };
    let workload = workload(&[(0, vec![(1, 100)], 2)]);
    let ends = [HandoffOrder::DestinationFirst, HandoffOrder::SourceFirst].map(|order| {
        let spec = DisaggregationSpec {
            order,
            ..disaggregation()
        };
        let recording = run(&cluster(spec, engine.clone()), one_ms(), &workload);
        ms(recording.transfers[0].ended)
    });
    assert_eq!(ends, [117.0, 119.0]);
}

#[test]
fn a_failed_transfer_gives_its_blocks_back_and_the_prompt_is_computed_again() {
    let spec = DisaggregationSpec {
        failure_rate: 1.0,
        ..disaggregation()
    };
    let workload = workload(&[(0, vec![(1, 100)], 10)]);
    let recording = run(&cluster(spec, vllm()), one_ms(), &workload);
    // The transfer fails at 116 ms; prefill on the decode worker gives the first token at 117 ms.
    assert_eq!(ms(recording.requests[0].first_token), 117.0);
    assert!(recording.transfers[0].has_failed);
    assert_eq!(recording.workers[1].prefill_tokens, 100);
    assert_eq!(recording.requests[0].outcome, Outcome::Completed);
}

#[test]
fn short_prompts_stay_whole() {
    let spec = DisaggregationSpec {
        conditional: Some(Conditional::NonCached { max_tokens: 100 }),
        ..disaggregation()
    };
    let workload = workload(&[(0, vec![(1, 99)], 2), (0, vec![(2, 100)], 2)]);
    let recording = run(&cluster(spec, vllm()), one_ms(), &workload);
    assert_eq!(recording.transfers.len(), 1);
    assert_eq!(recording.transfers[0].request.0, 1);
    assert_eq!(ms(recording.requests[0].first_token), 1.0);
}

/// One SGLang server of each role.
fn sglang(chunk: u32) -> ClusterSpec {
    let config = SglangConfig {
        chunked_prefill_size: Some(chunk),
        ..SglangConfig::default()
    };
    let spec = DisaggregationSpec {
        order: HandoffOrder::DestinationFirst,
        ..disaggregation()
    };
    let mut spec = cluster(spec, vllm());
    for (pool, is_decoder) in spec.pools.iter_mut().zip([false, true]) {
        pool.engine = EngineConfig::from(config.clone()).as_decoder(is_decoder);
    }
    spec
}

#[test]
fn a_life_between_two_sglang_servers() {
    // Memory is there at 0 ms. Prefill 0-1 ms; handshake 2 ms, latency 1 ms, 100 MB at 1 GB/s: 104 ms. The first token comes with
    // the KV, the other nine in a step of 1 ms each: 113 ms.
    let workload = workload(&[(0, vec![(1, 100)], 10), (500_000, vec![(1, 100)], 1)]);
    let recording = run(&sglang(8192), one_ms(), &workload);
    let life = recording.requests[0];
    assert_eq!(
        [life.first_scheduled, life.first_token, life.finish].map(ms),
        [0.0, 104.0, 113.0]
    );
    assert_eq!((life.worker, life.output_tokens), (1, 10));
    let transfer = recording.transfers[0];
    let times = [transfer.reserved, transfer.prefilled, transfer.ended];
    assert_eq!(times.map(ms), [0.0, 1.0, 104.0]);
    let steps: Vec<u64> = recording.workers.iter().map(|it| it.steps).collect();
    assert_eq!(steps, [2, 9]);
    // The same prompt again: the prefill server computes its last token, the decode server has kept nothing, and an answer of one
    // token needs no step there. 1 ms, 1 ms of latency, 100 ms.
    let again = recording.requests[1];
    assert_eq!(again.cached_tokens, 99);
    assert_eq!([again.first_token, again.finish].map(ms), [602.0, 602.0]);
    assert_eq!(recording.transfers[1].bytes, 100_000_000);
}

#[test]
fn an_sglang_server_sends_chunk_by_chunk() {
    // Chunks of 40 tokens: 40, 80, 100. The first 40 MB leave at 1 ms and take 43 ms; the other 60 follow in 61 ms: 105 ms.
    let workload = workload(&[(0, vec![(1, 100)], 2)]);
    let recording = run(&sglang(40), one_ms(), &workload);
    assert_eq!(ms(recording.transfers[0].ended), 105.0);
    assert_eq!(ms(recording.requests[0].first_token), 105.0);
}

#[test]
fn a_request_that_fits_no_decode_worker_is_refused_at_once() {
    let mut spec = cluster(disaggregation(), vllm());
    spec.pools[1].engine = VllmConfig {
        num_gpu_blocks: 8,
        ..vllm()
    }
    .into();
    let workload = workload(&[(0, vec![(1, 100)], 20), (0, vec![(2, 50)], 20)]);
    let recording = run(&spec, one_ms(), &workload);
    assert!(matches!(
        recording.requests[0].outcome,
        Outcome::Rejected(_)
    ));
    assert_eq!(recording.requests[1].outcome, Outcome::Completed);
    assert_eq!(recording.workers[0].requests, 1);
}

/// KV of a token of Llama-3.1-8B: 2 x 32 layers x 8 heads x 128 x 2 bytes.
const LLAMA_8B: u64 = 131_072;

/// A prefill of 8,000 tokens takes 173 ms, the least TTFT that was measured without disaggregation; a decode step takes
/// 8 ms (16 GB of weights at 3.35 TB/s are 4.8 ms, and what the host adds).
fn llama_8b() -> calibration::Linear {
    calibration::Linear::from_ns(8_000_000, (173_000_000 - 4 * 8_000_000) / 8_000, 0)
}

#[test]
fn ten_transfers_over_tcp_take_as_long_as_was_measured() {
    // Measured: 98 s TTFT at concurrency 10, prompts of 8,000 tokens, UCX fallen back to TCP at about 0.1 GB/s. A prompt is
    // 8,000 x 131,072 bytes = 1.0486 GB: alone 10.5 s. Ten share the link: 10 x 1.0486 GB / 0.1 GB/s = 104.9 s.
    let TransportNumbers {
        bytes_per_s,
        latency,
    } = numbers(Transport::TcpFallback);
    let spec = DisaggregationSpec {
        network: NetworkSpec {
            bytes_per_s,
            latency,
            ..NETWORK
        },
        kv_bytes_per_token: LLAMA_8B,
        ..disaggregation()
    };
    let arrivals: Vec<Arrival> = (0..10).map(|id| (0, vec![(id, 8_000)], 50)).collect();
    let recording = run(&cluster(spec, vllm()), llama_8b(), &workload(&arrivals));
    let ttft = |record: &sim::RequestRecord| record.first_token.since(record.arrival).as_ms() / 1e3;
    let mean = recording.requests.iter().map(ttft).sum::<f64>() / 10.0;
    println!("TCP at 0.1 GB/s: mean TTFT {mean:.1} s, measured 98 s");
    // Those that begin earlier end earlier, by the share they had to themselves.
    assert!((100.0..106.0).contains(&mean), "{mean}");
    assert!((mean / 98.0 - 1.0).abs() < 0.1);
    let alone = &recording.transfers[..1];
    assert!(alone[0].bytes == 1_048_576_000);
}

#[test]
fn efa_adds_less_than_its_serial_transfer_time() {
    // Measured: the least TTFT grows from 173 ms to 210 ms, by 37 ms. One after the other, 1.0486 GB at 9.6 GB/s would add
    // 109 ms. If chunks of 2,048 tokens move while the next is computed, only the last, 1,856 tokens, is left to move when
    // the prompt is computed: 0.243 GB / 9.6 GB/s = 25.3 ms. With the step that gives the first token, 8 ms: 33 ms.
    let TransportNumbers {
        bytes_per_s,
        latency,
    } = numbers(Transport::Efa);
    let engine = VllmConfig {
        max_num_batched_tokens: 2_048,
        ..vllm()
    };
    let ttft = |disaggregation: Option<DisaggregationSpec>| {
        let mut spec = cluster(self::disaggregation(), engine.clone());
        if disaggregation.is_none() {
            spec.pools.truncate(1);
        }
        spec.disaggregation = disaggregation;
        let recording = run(&spec, llama_8b(), &workload(&[(0, vec![(1, 8_000)], 50)]));
        ms(recording.requests[0].first_token)
    };
    let over_efa = |order: HandoffOrder| DisaggregationSpec {
        order,
        network: NetworkSpec {
            bytes_per_s,
            latency,
            setup: Span::ZERO,
            core_bytes_per_s: None,
            per_gpu: false,
        },
        kv_bytes_per_token: LLAMA_8B,
        ..disaggregation()
    };
    let aggregated = ttft(None);
    assert!((aggregated - 173.0).abs() < 0.1, "{aggregated}");
    let added = ttft(Some(over_efa(HandoffOrder::DestinationFirst))) - aggregated;
    let serial = ttft(Some(over_efa(HandoffOrder::SourceFirst))) - aggregated;
    println!(
        "EFA adds {added:.1} ms overlapped, {serial:.1} ms one after the other; measured 37 ms"
    );
    assert!((added - (25.3 + 8.0)).abs() < 0.5, "{added}");
    assert!((serial - (109.2 + 8.0)).abs() < 0.5, "{serial}");
    assert!((added - 37.0).abs() < 5.0 && added < 109.0);
}

struct TransportNumbers {
    bytes_per_s: u64,
    latency: Span,
}

fn numbers(transport: Transport) -> TransportNumbers {
    let preset = transport.preset();
    TransportNumbers {
        bytes_per_s: preset.bytes_per_s,
        latency: preset.latency,
    }
}

/// Gaps between tokens, one by one, in order of size.
fn gaps(recording: &Recording) -> Vec<i64> {
    let mut gaps = Vec::new();
    for run in &recording.gaps {
        for step in 0..i64::from(run.steps) {
            let gap = run.first.0 as i64 + step * run.slope_ps;
            gaps.extend(std::iter::repeat_n(gap, run.sequences as usize));
        }
    }
    gaps.sort_unstable();
    gaps
}

fn engine() -> impl Strategy<Value = VllmConfig> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (flags, 30u32..90, 2u32..10, 16u32..200).prop_map(
        |((async_scheduling, enable_prefix_caching, full_isl), num_gpu_blocks, seats, budget)| {
            VllmConfig {
                block_size: 4,
                num_gpu_blocks,
                max_num_seqs: seats,
                max_num_batched_tokens: budget,
                enable_prefix_caching,
                scheduler_reserve_full_isl: full_isl,
                async_scheduling,
                ..VllmConfig::default()
            }
        },
    )
}

fn order() -> impl Strategy<Value = HandoffOrder> {
    prop_oneof![
        Just(HandoffOrder::SourceFirst),
        Just(HandoffOrder::DecodeFirst),
        Just(HandoffOrder::DestinationFirst)
    ]
}

fn conditional() -> impl Strategy<Value = Option<Conditional>> {
    let isl = IslBounding {
        max_tokens: 40,
        max_ratio: 0.7,
    };
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Conditional::IslBounding(isl))),
        1 => Just(Some(Conditional::PrefillLoad { threshold: 0.5 })),
        1 => Just(Some(Conditional::IslOrLoad(isl, 0.5))),
        1 => Just(Some(Conditional::NonCached { max_tokens: 30 })),
    ]
}

fn router() -> impl Strategy<Value = RouterSpec> {
    let queued = KvRouterSpec {
        queue_threshold: Some(0.5),
        ..KvRouterSpec::default()
    };
    prop_oneof![
        Just(RouterSpec::RoundRobin),
        Just(RouterSpec::LeastLoaded),
        Just(RouterSpec::Kv(KvRouterSpec::default())),
        Just(RouterSpec::Kv(queued)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_lost_and_coasting_changes_nothing(
        engines in (engine(), engine()),
        workers in (1u32..4, 1u32..4),
        order in order(),
        conditional in conditional(),
        router in router(),
        megabytes_per_s in prop_oneof![1u64..20, 1_000u64..100_000],
        core in prop_oneof![Just(None), (1u64..20).prop_map(Some)],
        failure_rate in prop_oneof![3 => Just(0.0), 1 => Just(0.3)],
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
        let network = NetworkSpec {
            bytes_per_s: megabytes_per_s * 1_000_000,
            per_gpu: false,
            core_bytes_per_s: core.map(|core| core * 1_000_000),
            latency: Span::from_ns(20_000),
            setup: Span::from_ns(300_000),
        };
        let disaggregation = DisaggregationSpec { order, conditional, network, kv_bytes_per_token: 1_000, failure_rate, ..disaggregation() };
        let mut spec = cluster(disaggregation, engines.0.clone());
        spec.pools = vec![pool("prefill", workers.0, engines.0.clone()), pool("decode", workers.1, engines.1.clone())];
        spec.router = router;
        let workload = workload(&arrivals);
        let timing = || calibration::Linear::from_ns(500_000, 900, 13);
        let coasting = run(&spec, timing(), &workload);
        spec.coasting = false;
        let stepping = run(&spec, timing(), &workload);
        prop_assert_eq!(&coasting.requests, &stepping.requests);
        prop_assert_eq!(&coasting.workers, &stepping.workers);
        prop_assert_eq!(&coasting.transfers, &stepping.transfers);
        prop_assert_eq!(gaps(&coasting), gaps(&stepping));
        for (record, asked) in coasting.requests.iter().zip(&workload.requests) {
            match record.outcome {
                Outcome::Completed => {
                    prop_assert_eq!(record.output_tokens, asked.output_tokens);
                    prop_assert!(record.worker >= workers.0, "decode workers finish");
                    let moments = [record.arrival, record.placed, record.first_scheduled, record.first_token, record.finish];
                    prop_assert!(moments.is_sorted(), "{:?}", record);
                }
                Outcome::Rejected(_) => {}
                Outcome::Cancelled | Outcome::Failed(_) => {
                    prop_assert!(false, "nothing goes wrong here: {:?}", record)
                }
                Outcome::Unfinished => prop_assert!(false, "a request was left: {:?}", record),
            }
        }
        for transfer in &coasting.transfers {
            let life = &coasting.requests[transfer.request.0 as usize];
            prop_assert!(transfer.from.0 < workers.0 && transfer.to.0 == life.worker);
            prop_assert!([transfer.reserved, transfer.began, transfer.ended, life.first_token].is_sorted(), "{:?}", transfer);
            prop_assert!(transfer.prefilled < transfer.ended);
            let prompt = life.input_tokens.div_ceil(4) * 4;
            prop_assert_eq!(transfer.bytes, u64::from(prompt - transfer.hit_tokens) * 1_000);
            if order != HandoffOrder::DestinationFirst {
                prop_assert!(transfer.prefilled <= transfer.reserved);
            }
        }
    }
}
